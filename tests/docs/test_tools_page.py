"""docs/tools.md and the README's table of tools say what is."""

from __future__ import annotations

import json
import re

import httpx
import pytest

from app.config import Settings
from app.connectors.adapter import TEXT_POLICIES
from app.connectors.tools import CONNECTORS
from app.main import create_app
from app.postgres.pool import FrozenClock, open_pool
from app.registry.bootstrap import bootstrap
from tests.docs.markdown import README, ROOT, blocks, read, rows
from tests.docs.test_readme import _compare, _request
from tests.support.tool_fixture import NOW

PAGE = ROOT / "docs" / "tools.md"


async def test_the_examples_answer_as_shown(settings: Settings) -> None:
    assert settings.database_url is not None
    pool = await open_pool(settings.database_url, 1)
    async with pool.acquire() as connection:
        keys = await bootstrap(connection)
    await pool.close()
    assert keys is not None
    found = blocks(PAGE)
    commands = [block.text.replace("$SECRET_KEY", keys.secret_key) for block in found if block.language == "sh"]
    (shown,) = (json.loads(block.text) for block in found if block.language == "json")
    app = create_app(settings, clock=FrozenClock(NOW), worker=False)
    transport = httpx.ASGITransport(app=app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport) as client:
        for command in commands:
            response = await client.send(_request(client, command))
            assert response.is_success, response.text
    _compare(response.json(), shown, "")


def test_policies_of_text_are_those() -> None:
    told = [row[0].strip("`") for row in rows(PAGE) if row[0].strip("`") in TEXT_POLICIES]
    assert tuple(told) == TEXT_POLICIES


def _told() -> dict[str, list[str]]:
    """Rows of the README's table of tools, by the kind that each one names."""
    section = read(README).partition("## Tools\n")[2].partition("\n## ")[0]
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("|")]
    return {kind: row for row in table for kind in re.findall(r"`([a-z0-9_-]+)`", row[0])}


def test_every_tool_stands_in_the_readme() -> None:
    assert set(CONNECTORS) <= set(_told())


@pytest.mark.parametrize("kind", sorted(CONNECTORS))
def test_what_shows_it_is_there(kind: str) -> None:
    shown_by = re.findall(r"\]\(([^)]+)\)", _told()[kind][-1])
    module = CONNECTORS[kind].map_event.__module__.rpartition(".")[2]
    assert f"tests/connectors/tools/{module}.py" in shown_by
    assert all((ROOT / path).exists() for path in shown_by)


def test_names_of_the_vocabulary_are_used_by_some_adapter() -> None:
    """Each of the page is written by the code or shown by a fixture; the families after ``push.`` are made of these."""
    folders = (ROOT / "app", ROOT / "tests" / "connectors" / "tools")
    code = "\n".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))
    table = read(PAGE).partition("## Which event names do tools share?\n")[2]
    names = re.findall(r"`([a-z]+\.[a-z_]+|[A-Z][a-zA-Z]+ [A-Z][A-Za-z ]+)`", table)
    assert len(names) > 30
    # Names of mails are made of what their tool says, such as "email." and "converted".
    spelled = [(name, name.removeprefix("email.")) for name in names]
    assert [name for name, word in spelled if f'"{name}"' not in code and f'"{word}"' not in code] == []
