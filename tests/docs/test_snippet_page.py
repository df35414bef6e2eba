"""What the guide says of the snippet is what the snippet is: its hash, its size, its options and its calls."""

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
    """The text below a heading, up to the next of the same rank."""
    found = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#|\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert found, heading
    return found[1]


def first_cells(text: str) -> list[str]:
    return re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)


def declared(interface: str) -> str:
    found = re.search(rf"^export interface {interface} \{{\n(.*?)^\}}", DECLARED, re.DOTALL | re.MULTILINE)
    assert found, interface
    return re.sub(r"/\*.*?\*/", "", found[1], flags=re.DOTALL)


def members(interface: str) -> set[str]:
    return set(re.findall(r"^  (\w+)[?(:]", declared(interface), re.MULTILINE))


def test_the_hash_in_the_page_is_that_of_the_file() -> None:
    assert update_guide(snippet(), PAGE) == PAGE
    assert f"/segue-{snippet().version}.js" in PAGE
    assert f'integrity="{snippet().integrity}"' in PAGE


def test_it_is_as_small_as_the_page_says() -> None:
    assert gzipped_bytes(snippet().content) <= GZIP_BYTES_MAX < 4096
    assert "Under 4 KB after gzip" in section("### What does it cost?")


def test_another_file_has_another_hash() -> None:
    other = snippet_of(snippet().content + b"\n")
    assert other.version != snippet().version
    assert update_guide(other, PAGE) != PAGE


def test_the_check_says_plainly_what_is_wrong() -> None:
    small, large = b"x", b"".join(sha256(bytes([number])).digest() for number in range(200))
    assert find_problem(small, small) is None
    assert "run `make snippet`" in str(find_problem(small, b"y"))
    assert "run `make snippet`" in str(find_problem(small, None))
    assert "bytes after gzip" in str(find_problem(large, large))


def test_each_option_is_described() -> None:
    described = [name.strip("`") for name in first_cells(section("### Set options"))]
    assert sorted(described) == sorted(members("Options"))


def test_each_call_is_described_and_there() -> None:
    described = {name for row in first_cells(section("### Call methods")) for name in re.findall(r"`(\w+)\(", row)}
    assert described == members("Segue")
    methods = SOURCES["main.js"]
    for name in described:
        assert re.search(rf"^  (?:async )?{name}\b[(:,]", methods, re.MULTILINE), name


def test_the_loader_knows_each_call() -> None:
    loader = re.search(r"^  '([\w ]+)'$", PAGE, re.MULTILINE)
    assert loader
    assert set(loader[1].split()) == members("Segue")


def test_each_automatic_event_is_described_and_sent() -> None:
    sent = set(re.findall(r"captureEvent\('(\w+)', '([\w ]+)'", "".join(SOURCES.values())))
    rows = re.findall(r"^\| `(\w+)` \| `([\w ]+)` \|", section("### Capture events automatically"), re.MULTILINE)
    assert set(rows) == sent
    assert {kind for kind, _ in sent} | {"pages"} == members("Capture")


def test_each_thing_stored_is_described() -> None:
    stored = set(re.findall(r"segue_\w*", "".join(SOURCES.values())))
    described = set(re.findall(r"^\| `(segue_\w*)", section("### What is stored in the browser?"), re.MULTILINE))
    assert described == stored


@pytest.mark.parametrize("forbidden", ["eval(", "innerHTML", "document.write", "Function(", "getBoundingClientRect"])
def test_what_strict_pages_forbid_is_not_in_it(forbidden: str) -> None:
    assert forbidden not in snippet().content.decode()
