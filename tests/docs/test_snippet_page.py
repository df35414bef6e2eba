"""``docs/website.md`` matches the built browser library: its hash, size, options and calls."""

from __future__ import annotations

import re
from hashlib import sha256

import pytest

from app.browser import SCRIPT, TYPES, snippet, snippet_of
from app.browser.build import GUIDE, GZIP_BYTES_MAX, find_problem, gzipped_bytes, update_guide
from tests.docs.markdown import read

PAGE = read(GUIDE)
DECLARED = TYPES.read_text(encoding="utf-8")
SOURCES = {path.name: path.read_text(encoding="utf-8") for path in (SCRIPT.parent / "src").glob("*.js")}


def section(heading: str) -> str:
    """Return the text from a heading to the next heading."""
    match = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#|\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert match, heading
    return match[1]


def first_cells(text: str) -> list[str]:
    return re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)


def declared(interface: str) -> str:
    match = re.search(rf"^export interface {interface} \{{\n(.*?)^\}}", DECLARED, re.DOTALL | re.MULTILINE)
    assert match, interface
    return re.sub(r"/\*.*?\*/", "", match[1], flags=re.DOTALL)


def members(interface: str) -> set[str]:
    return set(re.findall(r"^  (\w+)[?(:]", declared(interface), re.MULTILINE))


def test_hash_on_the_page_is_that_of_the_library() -> None:
    assert update_guide(snippet(), PAGE) == PAGE
    assert f"/segue-{snippet().version}.js" in PAGE
    assert f'integrity="{snippet().integrity}"' in PAGE


def test_library_has_less_than_4_kibibytes() -> None:
    assert gzipped_bytes(snippet().content) <= GZIP_BYTES_MAX < 4096
    assert "Under 4 KiB after gzip" in section("### What does it cost?")


def test_another_library_has_another_hash() -> None:
    other = snippet_of(snippet().content + b"\n")
    assert other.version != snippet().version
    assert update_guide(other, PAGE) != PAGE


def test_build_check_reports_the_problem_and_the_remedy() -> None:
    small, large = b"x", b"".join(sha256(bytes([number])).digest() for number in range(200))
    assert find_problem(small, small) is None
    assert "run `make snippet`" in str(find_problem(small, b"y"))
    assert "run `make snippet`" in str(find_problem(small, None))
    assert "bytes after gzip" in str(find_problem(large, large))


def test_options_are_described() -> None:
    described = [name.strip("`") for name in first_cells(section("### Set options"))]
    assert sorted(described) == sorted(members("Options"))


def test_methods_are_described_and_defined() -> None:
    described = {name for row in first_cells(section("### Call methods")) for name in re.findall(r"`(\w+)\(", row)}
    assert described == members("Segue")
    methods = SOURCES["main.js"]
    for name in described:
        assert re.search(rf"^  (?:async )?{name}\b[(:,]", methods, re.MULTILINE), name


def test_loader_queues_every_method() -> None:
    loader = re.search(r"^  '([\w ]+)'$", PAGE, re.MULTILINE)
    assert loader
    assert set(loader[1].split()) == members("Segue")


def test_automatic_events_are_described_and_sent() -> None:
    sent = set(re.findall(r"captureEvent\('(\w+)', '([\w ]+)'", "".join(SOURCES.values())))
    rows = re.findall(r"^\| `(\w+)` \| `([\w ]+)` \|", section("### Capture events automatically"), re.MULTILINE)
    assert set(rows) == sent
    assert {kind for kind, _ in sent} | {"pages"} == members("Capture")


def test_storage_keys_are_described() -> None:
    stored = set(re.findall(r"segue_\w*", "".join(SOURCES.values())))
    described = set(re.findall(r"^\| `(segue_\w*)", section("### What is stored in the browser?"), re.MULTILINE))
    assert described == stored


@pytest.mark.parametrize("forbidden", ["eval(", "innerHTML", "document.write", "Function(", "getBoundingClientRect"])
def test_library_contains_nothing_that_strict_pages_forbid(forbidden: str) -> None:
    assert forbidden not in snippet().content.decode()
