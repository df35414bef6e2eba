"""Page layout: the frame that all HTML pages share."""

from __future__ import annotations

from functools import cache
from html import escape
from pathlib import Path
from string import Template
from typing import Final

_ASSETS: Final = Path(__file__).with_name("assets")
_CURRENT: Final = ' aria-current="page"'


def render_page(
    path: str, *, title: str, kind: str, content: str, styles: tuple[str, ...] = ("docs/site.css",)
) -> bytes:
    """Return a page as UTF-8. ``content`` is HTML; ``kind`` (home, api or guide) selects its styles."""
    root = relative_root(path)
    links = "\n".join(f'<link rel="stylesheet" href="{root}{style}">' for style in styles)
    return (
        read_template("page.html")
        .substitute(
            title=escape(title),
            kind=kind,
            root=root,
            styles=links,
            content=content,
            api_current=_CURRENT if kind == "api" else "",
            guides_current=_CURRENT if kind == "guide" else "",
        )
        .encode()
    )


def relative_root(path: str) -> str:
    """Return the address of the home page as seen from ``path``."""
    return "../" * (path.count("/") - 1) or "./"


@cache
def read_template(name: str) -> Template:
    return Template((_ASSETS / name).read_text(encoding="utf-8"))
