"""Guides: the pages of ``docs/``, found in the checkout or in the installed package."""

from __future__ import annotations

from functools import cache
from html import escape
from pathlib import Path
from typing import Final, NamedTuple

from app.api.site.markdown import RenderedPage, find_summary, render_markdown

_PACKAGE: Final = Path(__file__).parents[2]
_SECTIONS: Final = (
    ("Use Segue", ("website", "tools", "rules", "shops", "surveys-and-social", "support", "import", "data-quality")),
    ("Reference", ("reference/http", "reference/errors", "reference/settings", "reference/operations",
                   "reference/identities")),
    ("For contributors", ("architecture", "adding-a-tool")),
)  # fmt: skip
"""Pages in the order of the index. Other pages, such as decisions, are reached by links only."""
_MEDIA_TYPES: Final = {".png": "image/png", ".svg": "image/svg+xml"}


class Guide(NamedTuple):
    """One page; ``name`` is its path without the extension."""

    name: str
    title: str
    summary: str
    file: Path


class Section(NamedTuple):
    title: str
    guides: list[Guide]


def find_directory() -> Path:
    """Return ``docs/``: inside the installed package, else beside it in the checkout."""
    installed = _PACKAGE / "docs"
    return installed if installed.is_dir() else _PACKAGE.parent / "docs"


@cache
def load_guides() -> dict[str, Guide]:
    """Return all pages by name.

    Requests look pages up in this mapping, so the path of a request never reaches the file system.
    """
    directory = find_directory()
    guides: dict[str, Guide] = {}
    for file in sorted(directory.rglob("*.md")):
        name = file.relative_to(directory).with_suffix("").as_posix()
        text = file.read_text(encoding="utf-8")
        title = text.partition("\n")[0].lstrip("# ").strip()
        guides[name] = Guide(name, title, find_summary(text), file)
    return guides


@cache
def load_files() -> dict[str, tuple[Path, str]]:
    """Return the images of the guides by path, with their media types."""
    directory = find_directory()
    return {
        file.relative_to(directory).as_posix(): (file, _MEDIA_TYPES[file.suffix])
        for file in sorted(directory.rglob("*"))
        if file.suffix in _MEDIA_TYPES
    }


def list_sections() -> list[Section]:
    """Return the index. A new page at the top of ``docs/`` joins the first section."""
    guides = load_guides()
    listed = {name for _, names in _SECTIONS for name in names}
    more = [guide for name, guide in guides.items() if "/" not in name and name not in {*listed, "README"}]
    sections = [Section(title, [guides[name] for name in names if name in guides]) for title, names in _SECTIONS]
    return [sections[0]._replace(guides=[*sections[0].guides, *more]), *sections[1:]]


def render_guide(guide: Guide) -> RenderedPage:
    return render_markdown(guide.file.read_text(encoding="utf-8"), guide.name, load_guides(), load_files())


def render_index() -> str:
    """Return the list of all guides as HTML."""
    parts = ['<main class="index"><h1>Guides</h1>']
    for section in list_sections():
        cards = "\n".join(
            f'<a class="card" href="guides/{guide.name}"><strong>{escape(guide.title)}</strong>'
            f"<span>{escape(guide.summary)}</span></a>"
            for guide in section.guides
        )
        parts.append(f'<h2>{escape(section.title)}</h2><div class="cards">{cards}</div>')
    return "\n".join([*parts, "</main>"])


def render_navigation(current: Guide, page: RenderedPage) -> str:
    """Return the list of guides beside a page, with the sections of the page itself."""
    root = "../" * current.name.count("/")
    parts = []
    for section in list_sections():
        items = []
        for guide in section.guides:
            is_current = guide.name == current.name
            marker = ' aria-current="page"' if is_current else ""
            items.append(f'<li><a href="{root}{guide.name}"{marker}>{escape(guide.title)}</a>')
            if is_current:
                items.append("<ul>")
                items += [
                    f'<li><a href="#{heading.anchor}">{escape(heading.text)}</a></li>'
                    for heading in page.headings
                    if heading.level == 2
                ]
                items.append("</ul>")
            items.append("</li>")
        parts.append(f"<h2>{escape(section.title)}</h2><ul>{''.join(items)}</ul>")
    return "\n".join(parts)
