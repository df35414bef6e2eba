"""Every shell command of the guides succeeds, in order, against a new workspace.

``curl`` commands become requests to an application, ``segue`` commands run as processes over its database, and other
commands run in a shell. Commands of ``make`` are excluded, because they install the project or run its tests.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from app.channel_metrics.parsers import METRIC_FORMATS
from app.config import Settings
from app.main import create_app
from app.postgres.pool import FrozenClock, open_pool
from app.registry.bootstrap import bootstrap
from tests.docs.curl_examples import build_request
from tests.docs.markdown import ROOT, blocks
from tests.support.tool_fixture import NOW

GUIDES = [page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in ("README.md", "glossary.md")]
"""The index of the documentation and the glossary have tests of their own."""

SECRET = 'curl -H "Authorization: Bearer $SECRET_KEY" localhost:8000'
PRECONDITIONS = {
    "architecture.md": (
        f"""{SECRET}/v1/sources -d '{{"key": "feedback", "kind": "typeform"}}'""",
        f"""{SECRET}/v1/sources/feedback/secrets -d '{{"secret": "as Typeform shows it"}}'""",
        f"""{SECRET}/v1/segments -d '{{"key": "big-spenders", "rule": {{"did": "Order Completed"}}}}'""",
    ),
    "website.md": (f"""{SECRET}/v1/sources -d '{{"key": "shop"}}'""",),
}
"""Commands of other pages that a page builds on."""


def commands_of(page: Path) -> list[str]:
    """Return the commands of all shell blocks; a command begins at the start of a line."""
    texts = [block.text for block in blocks(page) if block.language == "sh"]
    commands = [command for text in texts for command in re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)]
    return [command.strip() for command in commands if command.strip() and not command.startswith("make ")]


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
async def test_every_command_succeeds(page: Path, settings: Settings, tmp_path: Path) -> None:
    assert settings.database_url is not None
    pool = await open_pool(settings.database_url, 1)
    async with pool.acquire() as connection:
        keys = await bootstrap(connection)
    await pool.close()
    assert keys is not None
    (tmp_path / "by-day.csv").write_bytes(METRIC_FORMATS["twitter_analytics"].sample)
    app = create_app(settings, clock=FrozenClock(NOW), worker=False)
    transport = httpx.ASGITransport(app=app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport) as client:
        for command in (*PRECONDITIONS.get(page.name, ()), *commands_of(page)):
            command = command.replace("$WRITE_KEY", keys.write_key).replace("$SECRET_KEY", keys.secret_key)
            if command.startswith("curl "):
                response = await client.send(build_request(client, command, tmp_path))
                assert response.is_success, (command, response.text)
            else:
                run_in_shell(command, settings.database_url, tmp_path)


def run_in_shell(command: str, database_url: str, directory: Path) -> None:
    """Run a command in ``directory``; ``segue`` is the command line of this checkout."""
    environment = {**os.environ, "DATABASE_URL": database_url, "PYTHONPATH": str(ROOT)}
    command = re.sub(r"^segue ", f"{sys.executable} -m app ", command)
    completed = subprocess.run(["sh", "-c", command], cwd=directory, env=environment, capture_output=True, text=True)
    assert completed.returncode == 0, (command, completed.stdout, completed.stderr)


def test_guides_with_commands_are_found() -> None:
    assert sum(bool(commands_of(page)) for page in GUIDES) >= 9
