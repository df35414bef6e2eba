"""Markdown rendering: guides as HTML with anchors, highlighted code and links between guides."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Container, Sequence
from html import escape
from typing import Any, Final, NamedTuple

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import OptionsDict
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

_FORMATTER: Final = HtmlFormatter(nowrap=True)


class Heading(NamedTuple):
    level: int
    text: str
    anchor: str


class RenderedPage(NamedTuple):
    html: str
    headings: list[Heading]


def render_markdown(text: str, name: str, page_names: Container[str], file_names: Container[str]) -> RenderedPage:
    """Return a guide as HTML. HTML inside the Markdown is escaped.

    ``name`` is the guide's path without its extension, such as ``reference/http``. A link to another guide or to one
    of ``file_names`` stays a link; a link to a file that is not served becomes plain text.
    """
    parser = MarkdownIt("commonmark", {"html": False, "highlight": _highlight}).enable("table")
    parser.add_render_rule("table_open", _open_table)
    parser.add_render_rule("table_close", _close_table)
    tokens = parser.parse(text)
    headings = _anchor_headings(tokens)
    for token in tokens:
        _rewrite_links(token.children or [], lambda target: _resolve_link(target, name, page_names, file_names))
    return RenderedPage(parser.renderer.render(tokens, parser.options, {}), headings)


def find_summary(text: str) -> str:
    """Return the first sentence after the title as plain text."""
    tokens = MarkdownIt("commonmark").parse(text)
    for index, token in enumerate(tokens):
        if token.type == "paragraph_open":
            plain = _plain_text(tokens[index + 1])
            return re.split(r"(?<=[.!?])\s", plain, maxsplit=1)[0]
    return ""


def _anchor_headings(tokens: Sequence[Token]) -> list[Heading]:
    """Set the id of each heading to the anchor that GitHub generates for it."""
    headings: list[Heading] = []
    counts: dict[str, int] = {}
    for index, token in enumerate(tokens):
        if token.type != "heading_open":
            continue
        text = _plain_text(tokens[index + 1])
        anchor = re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-")
        repeated = counts.get(anchor, 0)
        counts[anchor] = repeated + 1
        if repeated:
            anchor = f"{anchor}-{repeated}"
        token.attrSet("id", anchor)
        headings.append(Heading(int(token.tag[1:]), text, anchor))
    return headings


def _plain_text(inline: Token) -> str:
    return "".join(
        " " if child.type in ("softbreak", "hardbreak") else child.content for child in inline.children or []
    )


def _rewrite_links(children: Sequence[Token], resolve: Callable[[str], str | None]) -> None:
    is_dropped = False
    for token in children:
        if token.type == "link_open":
            target = resolve(str(token.attrGet("href") or ""))
            is_dropped = target is None
            if target is not None:
                token.attrSet("href", target)
        elif token.type == "image":
            token.attrSet("src", resolve(str(token.attrGet("src") or "")) or "")
        if is_dropped and token.type in ("link_open", "link_close"):
            token.tag, token.attrs = "span", {}


def _resolve_link(target: str, name: str, page_names: Container[str], file_names: Container[str]) -> str | None:
    if re.match(r"[a-z]+:|#", target):
        return target
    path, separator, anchor = target.partition("#")
    directory = posixpath.dirname(name)
    file = posixpath.normpath(posixpath.join(directory, path))
    page, extension = posixpath.splitext(file)
    if extension == ".md" and page in page_names:
        file = page
    elif file not in file_names:
        return None
    return posixpath.relpath(file, directory or ".") + separator + anchor


def _highlight(code: str, language: str, _: str) -> str:
    try:
        marked_up = highlight(code, get_lexer_by_name(language or "text"), _FORMATTER)
    except ClassNotFound:
        marked_up = escape(code)
    return f'<pre class="code" tabindex="0"><code>{marked_up}</code></pre>\n'


def _open_table(_: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: Any) -> str:
    del tokens, index, options, env
    return '<div class="table" tabindex="0"><table>\n'


def _close_table(_: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: Any) -> str:
    del tokens, index, options, env
    return "</table></div>\n"
