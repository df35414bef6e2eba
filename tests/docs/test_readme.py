"""The examples of the README are what happens: commands are sent, answers compared, code parsed."""

from __future__ import annotations

import argparse
import ast
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.config import Settings
from app.formats.timestamps import parse_claimed
from app.main import create_app
from app.postgres.pool import FrozenClock, open_pool
from app.registry.bootstrap import bootstrap
from tests.docs.markdown import PAGES, README, ROOT, blocks, name_of, read

ELLIPSIS = "..."
LANGUAGES = {"sh", "json", "js", "text", "python", "html"}  # pages of tests/browser run the html


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_code_parses(page: Path) -> None:
    for language, text in blocks(page):
        assert language in LANGUAGES, f"a block of {language or 'no language'}"
        if language == "json":
            json.loads(text)
        elif language == "python":
            ast.parse(text)
        elif language == "sh":
            shlex.split(text)


def test_the_javascript_parses(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip(reason="there is no node here")
    for number, (language, text) in enumerate(blocks(README)):
        if language == "js":
            file = tmp_path / f"{number}.mjs"
            file.write_text(text, encoding="utf-8")
            subprocess.run([node, "--check", file], check=True, capture_output=True)


def test_make_knows_the_commands() -> None:
    makefile = read(ROOT / "Makefile")
    for target in re.findall(r"^make (\w+)$", read(README), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


async def test_the_curl_examples_answer_as_shown(settings: Settings) -> None:
    """Sent in order, each at the instant that its answer shows; ``"..."`` stands for what was left out."""
    assert settings.database_url is not None
    examples = _examples()
    assert len(examples) == 5
    clock = FrozenClock(_first_instant())
    pool = await open_pool(settings.database_url, 1)
    async with pool.acquire() as connection:
        keys = await bootstrap(connection)
    await pool.close()
    assert keys is not None
    app = create_app(settings, clock=clock, worker=False)
    transport = httpx.ASGITransport(app=app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport) as client:
        for command, expected in examples:
            if expected and "as_of" in expected:
                clock.instant = _instant(expected["as_of"])
            command = command.replace("$WRITE_KEY", keys.write_key).replace("$SECRET_KEY", keys.secret_key)
            response = await client.send(_request(client, command))
            assert response.is_success, response.text
            if expected is not None:
                _compare(response.json(), expected, "")


def _examples() -> list[tuple[str, Any]]:
    """(curl command, the answer that follows it, if any)"""
    found = blocks(README)
    examples = []
    for block, after in zip(found, [*found[1:], None], strict=True):
        if block.language == "sh" and block.text.startswith("curl"):
            answer = json.loads(after.text) if after is not None and after.language == "json" else None
            examples.append((block.text, answer))
    return examples


def _first_instant() -> int:
    return min(_instant(text) for text in re.findall(r'"(\d{4}-\d\d-\d\dT[\d:.]+Z)"', read(README)))


def _instant(text: str) -> int:
    instant = parse_claimed(json.dumps(text).encode())[1]
    assert instant is not None
    return instant


def _request(client: httpx.AsyncClient, command: str) -> httpx.Request:
    """What curl would send."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-u", dest="user")
    parser.add_argument("-H", dest="header", action="append", default=[])
    parser.add_argument("-d", dest="data")
    parser.add_argument("url")
    given = parser.parse_args(shlex.split(command)[1:])
    headers = dict(header.split(": ", 1) for header in given.header)
    auth = httpx.BasicAuth(*given.user.split(":", 1)) if given.user else None
    request = client.build_request(
        "POST" if given.data is not None else "GET", f"http://{given.url}", headers=headers, content=given.data
    )
    return next(auth.sync_auth_flow(request)) if auth else request


def _compare(answer: Any, shown: Any, path: str) -> None:
    if isinstance(shown, dict) and isinstance(answer, dict):
        left_out = ELLIPSIS in shown
        for key, value in shown.items():
            if key != ELLIPSIS:
                assert key in answer, f"{path}/{key} is not in the answer"
                _compare(answer[key], value, f"{path}/{key}")
        assert left_out or set(answer) == set(shown), f"{path}: the answer has more"
    elif isinstance(shown, list) and isinstance(answer, list):
        left_out = shown[-1:] == [ELLIPSIS]
        shown = shown[:-1] if left_out else shown
        assert len(answer) > len(shown) if left_out else len(answer) == len(shown), f"{path}: the answer has {answer}"
        for place, value in enumerate(shown):
            _compare(answer[place], value, f"{path}/{place}")
    else:
        assert answer == shown, path
