"""The pages that people read, and what stands in them: blocks of code, tables, links, headings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
README: Final = ROOT / "README.md"
REFERENCE: Final = ROOT / "docs" / "reference"
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
    return [Block(*found) for found in _BLOCK.findall(read(page))]


def prose(page: Path) -> str:
    """Without blocks of code."""
    return _BLOCK.sub("", read(page))


def links(page: Path) -> list[Link]:
    return [Link(*found) for found in _LINK.findall(prose(page))]


def anchors(page: Path) -> set[str]:
    """As GitHub makes them from headings."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in _HEADING.findall(prose(page))
    }


def rows(page: Path) -> list[list[str]]:
    """The cells of all table rows, heads and rules included."""
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in prose(page).splitlines()
        if line.startswith("|")
    ]


def in_first_column(page: Path) -> set[str]:
    """What stands in backticks in the first cell of any table row."""
    return {name for row in rows(page) for name in re.findall(r"`([^`]+)`", row[0])}
