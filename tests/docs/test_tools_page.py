"""``docs/tools.md`` and the table of tools in ``docs/compatibility.md`` match the code."""

from __future__ import annotations

import re

import pytest

from app.config import Settings
from app.connectors.adapter import TEXT_POLICIES
from app.connectors.tools import CONNECTORS
from tests.docs.curl_examples import run_examples
from tests.docs.markdown import COMPATIBILITY, ROOT, read, rows
from tests.support.tool_fixture import NOW

PAGE = ROOT / "docs" / "tools.md"


async def test_curl_examples_of_the_tools_page_answer_as_shown(settings: Settings) -> None:
    *_, trial = await run_examples(PAGE, settings, NOW)
    assert trial["signature"] == "verified"


def test_text_policies_are_listed() -> None:
    listed = [row[0].strip("`") for row in rows(PAGE) if row[0].strip("`") in TEXT_POLICIES]
    assert tuple(listed) == TEXT_POLICIES


def _rows_by_kind() -> dict[str, list[str]]:
    """Return the rows of the table of tools by the kinds in their first cells."""
    section = read(COMPATIBILITY).partition("\n## Tools\n")[2].partition("\n## ")[0]
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("|")]
    return {kind: row for row in table for kind in re.findall(r"`([a-z0-9_-]+)`", row[0])}


def test_every_kind_of_tool_is_listed() -> None:
    assert set(CONNECTORS) <= set(_rows_by_kind())


@pytest.mark.parametrize("kind", sorted(CONNECTORS))
def test_listed_tool_links_its_fixture(kind: str) -> None:
    targets = re.findall(r"\]\(([^)]+)\)", _rows_by_kind()[kind][-1])
    module = CONNECTORS[kind].map_event.__module__.rpartition(".")[2]
    assert f"../tests/connectors/tools/{module}.py" in targets
    assert all((COMPATIBILITY.parent / target).exists() for target in targets)


def test_names_of_the_vocabulary_are_used_by_a_connector() -> None:
    """Check that every name on the page occurs in the code or in a fixture.

    Names that the code composes, such as those after ``email.``, occur without their prefix.
    """
    folders = (ROOT / "app", ROOT / "tests" / "connectors" / "tools")
    code = "\n".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))
    names = [
        name
        for row in rows(PAGE)
        if len(row) == 3 and not row[0].startswith("`")
        for name in re.findall(r"`([a-z]+\.[a-z_]+|[A-Z][a-zA-Z]+ [A-Z][A-Za-z ]+)`", row[1])
    ]
    assert len(names) > 30
    # Names of email events are composed, for example from "email." and "converted".
    missing = [name for name in names if f'"{name}"' not in code and f'"{name.removeprefix("email.")}"' not in code]
    assert missing == []
