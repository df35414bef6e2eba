"""README: its curl commands return the responses that it shows, and its limits match the code."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from app.config import Limits, Settings
from tests.docs.curl_examples import curl_examples, run_examples
from tests.docs.markdown import COMPATIBILITY, GLOSSARY, PAGES, README, REFERENCE, ROOT, blocks, links, name_of, read

LANGUAGES = {"sh", "json", "js", "text", "python", "html"}
"""Languages of code blocks. The tests in ``tests/browser`` run the HTML blocks."""
LINES_MAX = 150


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_code_blocks_parse(page: Path) -> None:
    for language, text in blocks(page):
        assert language in LANGUAGES, f"a block of {language or 'no language'}"
        if language == "json":
            json.loads(text)
        elif language == "python":
            ast.parse(text)
        elif language == "sh":
            shlex.split(text)


@pytest.mark.parametrize("page", [README, COMPATIBILITY], ids=name_of)
def test_javascript_modules_parse(page: Path, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip(reason="node is not installed")
    for number, (language, text) in enumerate(blocks(page)):
        if language == "js":
            file = tmp_path / f"{number}.mjs"
            file.write_text(text, encoding="utf-8")
            subprocess.run([node, "--check", file], check=True, capture_output=True)


def test_readme_is_short() -> None:
    assert len(read(README).splitlines()) <= LINES_MAX


def test_make_commands_of_the_readme_exist() -> None:
    makefile = read(ROOT / "Makefile")
    commands = re.findall(r"^make (\w+)$", read(README), re.MULTILINE)
    assert commands == ["run", "test"]
    for target in [*commands, *re.findall(r"`make ([\w-]+)`", read(README))]:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_readme_shows_sending_reading_explaining_defining_and_connecting() -> None:
    examples = curl_examples(README)
    assert [re.findall(r"localhost:8000/v1/(\w+)", example.command) for example in examples] == [
        ["batch"],
        ["customers"],
        ["customers"],
        ["segments"],
        ["sources"],
        ["sources"],
        ["sources"],
    ]
    assert [example.answer is not None for example in examples] == [True, True, True, False, False, False, False]


async def test_curl_examples_of_the_readme_answer_as_shown(settings: Settings) -> None:
    *_, trial = await run_examples(README, settings)
    assert trial["signature"] == "verified"
    assert [message["name"] for message in trial["messages"]] == ["Order Completed"]


CURL_PAGES = [page for page in (*sorted(REFERENCE.glob("*.md")), GLOSSARY) if curl_examples(page)]
"""Pages on which each block of JSON after a command is its response.

``test_guide_examples.py`` covers the other pages.
"""


@pytest.mark.parametrize("page", CURL_PAGES, ids=name_of)
async def test_curl_examples_of_a_page_answer_as_shown(page: Path, settings: Settings) -> None:
    assert await run_examples(page, settings)


def test_reference_pages_have_curl_examples() -> None:
    assert len(CURL_PAGES) == 5


def test_limits_of_the_readme_are_those_of_the_code() -> None:
    limits = Limits.model_construct()
    assert (
        f"one request has at most {limits.body_bytes_max:,} bytes ({limits.inflated_bytes_max:,} decompressed) and "
        f"{limits.batch_messages_max:,} messages of {limits.message_bytes_max:,} bytes each"
    ) in read(README)


def test_every_page_of_docs_is_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / link.target.partition("#")[0]).resolve() for link in links(index)}
    decisions = ROOT / "docs" / "decisions"
    assert decisions in linked
    assert {page for page in PAGES if decisions not in page.parents} <= {*linked, index}


def test_picture_of_the_flow_needs_no_theme() -> None:
    """The SVG loads no other file and draws all text on filled boxes, so it is legible on any background."""
    svg = read(ROOT / "docs" / "images" / "flow.svg")
    assert "<title" in svg
    assert "<desc" in svg
    assert not re.search(r"href|<image|<script|@import|url\((?!#)", svg)
