"""Curl commands of a page, and the responses that the page shows for them.

A block of ``sh`` contains one or more commands, each of which begins a line with ``curl``. A block of ``json`` right
after it is the response to the last command. In a response, ``"..."`` marks omitted content: as the last item of a
list, or as a key whose value describes the rest.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx

from app.config import Settings
from app.formats.timestamps import parse_claimed
from app.main import create_app
from app.postgres.pool import FrozenClock, open_pool
from app.registry.bootstrap import bootstrap
from tests.docs.markdown import blocks, read
from tests.support.running_app import NOON

ELLIPSIS: Final = "..."


class Example(NamedTuple):
    command: str
    answer: Any
    """Parsed JSON, or None if the page shows no response."""


def curl_examples(page: Path) -> list[Example]:
    examples = []
    for block, next_block in pairwise([*blocks(page), None]):
        if block is None or block.language != "sh":
            continue
        commands = [
            part for part in re.split(r"^(?=[a-z#])", block.text, flags=re.MULTILINE) if part.startswith("curl")
        ]
        for command in commands:
            is_answered = command is commands[-1] and next_block is not None and next_block.language == "json"
            examples.append(Example(command, json.loads(next_block.text) if is_answered and next_block else None))
    return examples


async def run_examples(page: Path, settings: Settings, now: int | None = None) -> list[Any]:
    """Send the commands of a page in order to a new workspace. Compare the responses, and return them parsed.

    The clock starts at ``now``, in microseconds since 1970; the default is the earliest instant that the page shows. If
    the page shows a response with ``as_of``, the clock moves to that instant first. A command must succeed unless the
    page shows an error response.
    """
    assert settings.database_url is not None
    clock = FrozenClock(_first_instant(page) if now is None else now)
    pool = await open_pool(settings.database_url, 1)
    async with pool.acquire() as connection:
        keys = await bootstrap(connection)
    await pool.close()
    assert keys is not None
    app = create_app(settings, clock=clock, worker=False)
    transport = httpx.ASGITransport(app=app)
    answers = []
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport) as client:
        for command, expected in curl_examples(page):
            if isinstance(expected, dict) and "as_of" in expected:
                clock.instant = parse_instant(expected["as_of"])
            command = command.replace("$WRITE_KEY", keys.write_key).replace("$SECRET_KEY", keys.secret_key)
            response = await client.send(build_request(client, command))
            if isinstance(expected, dict) and "status" in expected and "code" in expected:
                assert response.status_code == expected["status"], response.text
            else:
                assert response.is_success, response.text
            answers.append(response.json() if response.content else None)
            if expected is not None:
                compare_answer(answers[-1], expected)
    return answers


def parse_instant(text: str) -> int:
    """Return an RFC 3339 instant in microseconds since 1970."""
    instant = parse_claimed(json.dumps(text).encode())[1]
    assert instant is not None
    return instant


def _first_instant(page: Path) -> int:
    expected = re.findall(r'"(\d{4}-\d\d-\d\dT[\d:.]+Z)"', read(page))
    return min(map(parse_instant, expected), default=NOON)


def build_request(client: httpx.AsyncClient, command: str, directory: Path | None = None) -> httpx.Request:
    """Return the HTTP request that curl would send. ``--data-binary @FILE`` reads a file in ``directory``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-u", dest="user")
    parser.add_argument("-H", dest="header", action="append", default=[])
    parser.add_argument("-d", "--data-binary", dest="data")
    parser.add_argument("-X", dest="method")
    parser.add_argument("url")
    arguments = parser.parse_args(shlex.split(command.replace("\\\n", " "))[1:])
    content = arguments.data
    if content is not None and content.startswith("@"):
        assert directory is not None
        content = (directory / content[1:]).read_bytes()
    headers = dict(header.split(": ", 1) for header in arguments.header)
    auth = httpx.BasicAuth(*arguments.user.split(":", 1)) if arguments.user else None
    method = arguments.method or ("POST" if arguments.data is not None else "GET")
    url = arguments.url.removeprefix("https://")
    request = client.build_request(method, f"http://{url}", headers=headers, content=content)
    return next(auth.sync_auth_flow(request)) if auth else request


def compare_answer(answer: Any, expected: Any, path: str = "") -> None:
    """Raise AssertionError, with the JSON path, if a response differs from the one that the page shows."""
    if isinstance(expected, dict) and isinstance(answer, dict):
        is_shortened = ELLIPSIS in expected
        for key, value in expected.items():
            if key != ELLIPSIS:
                assert key in answer, f"{path}/{key} is not in the answer"
                compare_answer(answer[key], value, f"{path}/{key}")
        assert is_shortened or set(answer) == set(expected), f"{path}: the answer has more"
    elif isinstance(expected, list) and isinstance(answer, list):
        is_shortened = expected[-1:] == [ELLIPSIS]
        expected = expected[:-1] if is_shortened else expected
        if is_shortened:
            assert len(answer) > len(expected), f"{path}: nothing is left out of {answer}"
        else:
            assert len(answer) == len(expected), f"{path}: the answer has {answer}"
        for index, value in enumerate(expected):
            compare_answer(answer[index], value, f"{path}/{index}")
    else:
        assert answer == expected, path
