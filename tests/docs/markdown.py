"""Markdown pages of the repository, and their code blocks, tables, links and headings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
README: Final = ROOT / "README.md"
REFERENCE: Final = ROOT / "docs" / "reference"
COMPATIBILITY: Final = ROOT / "docs" / "compatibility.md"
GLOSSARY: Final = ROOT / "docs" / "glossary.md"
PAGES: Final = sorted([README, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[([^\[\]]+)\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


class Block(NamedTuple):
    language: str
    text: str


class Link(NamedTuple):
    label: str
    target: str


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path) -> list[Block]:
    return [Block(*groups) for groups in _BLOCK.findall(read(page))]


def prose(page: Path) -> str:
    """Return the text of a page without its code blocks."""
    return _BLOCK.sub("", read(page))


def links(page: Path) -> list[Link]:
    return [Link(*groups) for groups in _LINK.findall(prose(page))]


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub derives from the headings of a page."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in _HEADING.findall(prose(page))
    }


def rows(page: Path) -> list[list[str]]:
    """Return the cells of all table rows of a page, including header and delimiter rows."""
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in prose(page).splitlines()
        if line.startswith("|")
    ]


def in_first_column(page: Path) -> set[str]:
    """Return all code in the first cells of the tables of a page."""
    return {name for row in rows(page) for name in re.findall(r"`([^`]+)`", row[0])}
