"""Segment SDKs and plain HTTP requests against a running server behind a faulty proxy: messages are stored once."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from segment.analytics.client import Client as PythonSdk  # type: ignore[import-untyped]  # it ships no types

from tests.support.faulty_proxy import Fault, running_proxy
from tests.support.server_process import Server

HERE = Path(__file__).parent
COUNT = 25

BAD_DAYS: dict[str, Sequence[Fault]] = {
    "no fault": [],
    "503 once": ["busy"],
    "503 three times": ["busy", "busy", "busy"],
    "response lost": ["swallow"],
    "response lost, 503, response lost": ["swallow", "busy", "swallow"],
}


def assert_stored_once(server: Server, user: str, library: str) -> None:
    """Check that each of ``COUNT`` touchpoints is stored once, and that the stage and the identities are correct."""
    messages = _messages(server, user)
    tracked = [message for message in messages if message["type"] == "track"]
    assert sorted(message["properties"]["number"] for message in tracked) == list(range(COUNT))
    assert {message["context"]["library"]["name"] for message in messages} == {library}
    assert max(Counter(message["message_id"] for message in messages).values()) == 1
    assert len(messages) == COUNT + 1  # and one identify call
    customer = _ask(server, f"/v1/customers/{user}")
    assert customer["stages"]["six-stage"]["stage"] == "consideration"
    assert {(identity["kind"], identity["value"]) for identity in customer["identities"]} == {
        ("user_id", user),
        ("anonymous_id", f"{user}-device"),
        ("email", f"{user}@example.com"),
    }


def _messages(server: Server, user: str) -> list[dict[str, Any]]:
    page: dict[str, Any] = _ask(server, f"/v1/customers/{user}/touchpoints?limit=1000")
    assert page["next_cursor"] is None
    items: list[dict[str, Any]] = page["items"]
    return items


def _ask(server: Server, path: str) -> Any:
    answer = httpx.get(server.url + path, headers={"Authorization": f"Bearer {server.secret_key}"})
    assert answer.status_code == 200, answer.text
    return answer.json()


# --------------------------------------------------------------------------------- segment-analytics-python


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("day", BAD_DAYS)
def test_segment_analytics_python(server: Server, day: str, compressed: bool) -> None:
    user = f"python-{sha256(day.encode()).hexdigest()[:6]}-{'gzip' if compressed else 'plain'}"
    lost: list[Exception] = []
    with running_proxy(server.port, *BAD_DAYS[day]) as proxy:
        sdk = PythonSdk(
            server.write_key,
            host=proxy.url,
            gzip=compressed,
            upload_size=10,
            upload_interval=0.2,
            on_error=lambda error, _: lost.append(error),
        )
        sdk.identify(user_id=user, anonymous_id=f"{user}-device", traits={"email": f"{user}@example.com"})
        for number in range(COUNT):
            sdk.track(user_id=user, event="Product Viewed", properties={"number": number})
        sdk.flush()
        sdk.join()
    assert lost == []
    assert {b"content-encoding: gzip" in head for head in proxy.heads} == {compressed}
    assert [fault for fault in proxy.injected if fault != "pass"] == list(BAD_DAYS[day])
    assert_stored_once(server, user, "analytics-python")


# ------------------------------------------------------------------------------------ @segment/analytics-node


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """Install the SDK once into the user's cache. Skip the test if Node, npm or the registry is missing."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip(reason="there is no node and npm on this machine")
    manifest = (HERE / "package.json").read_bytes()
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = home / "segue-tests" / f"node-{sha256(manifest).hexdigest()[:12]}"
    if not (place / "complete").exists():
        place.mkdir(parents=True, exist_ok=True)
        (place / "package.json").write_bytes(manifest)
        done = subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"],
            cwd=place,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode:
            pytest.skip(reason=f"npm cannot install the SDK: {done.stderr.strip()[-300:]}")
        (place / "complete").touch()
    return place / "node_modules"


@pytest.mark.parametrize("day", BAD_DAYS)
def test_segment_analytics_node(server: Server, node_modules: Path, day: str) -> None:
    user = f"node-{sha256(day.encode()).hexdigest()[:6]}"
    with running_proxy(server.port, *BAD_DAYS[day]) as proxy:
        done = subprocess.run(
            ["node", str(HERE / "analytics_node.cjs"), proxy.url, server.write_key, user, str(COUNT)],
            env={**os.environ, "NODE_PATH": str(node_modules)},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert (done.returncode, done.stdout.strip(), done.stderr.strip()) == (0, "flushed", "")
    assert [fault for fault in proxy.injected if fault != "pass"] == list(BAD_DAYS[day])
    assert_stored_once(server, user, "@segment/analytics-node")


# ---------------------------------------------------------------------------------------------- plain requests


def _basic(key: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{key}:".encode()).decode()}


Request = Callable[[str, bytes], tuple[str, bytes, dict[str, str]]]
"""Functions by request type: (write key, JSON of one track call) -> (path, body, headers)"""

ENCODINGS: dict[str, Request] = {
    "json": lambda key, body: ("/v1/track", body, {"Content-Type": "application/json", **_basic(key)}),
    "slash": lambda key, body: ("/v1/track/", body, {"Content-Type": "application/json", **_basic(key)}),
    "letter": lambda key, body: ("/v1/t", body, {"Content-Type": "application/json", **_basic(key)}),
    "curl's own content type": lambda key, body: (
        "/v1/track",
        body,
        {"Content-Type": "application/x-www-form-urlencoded", **_basic(key)},
    ),
    "text, key in the query": lambda key, body: (
        f"/v1/track?writeKey={key}",
        body,
        {"Content-Type": "text/plain;charset=UTF-8"},
    ),
    "no content type, key in the body": lambda key, body: (
        "/v1/track",
        body.replace(b"{", b'{"writeKey":"%s",' % key.encode(), 1),
        {},
    ),
    "gzip by header": lambda key, body: (
        "/v1/track",
        gzip.compress(body),
        {"Content-Encoding": "gzip", "Content-Type": "application/json", **_basic(key)},
    ),
    "gzip by its first bytes": lambda key, body: (
        "/v1/track",
        gzip.compress(body),
        {"Content-Type": "text/plain", **_basic(key)},
    ),
    "with a byte order mark": lambda key, body: ("/v1/track", b"\xef\xbb\xbf" + body, _basic(key)),
    "as a batch": lambda key, body: ("/v1/batch", b'{"batch":[%s]}' % body, _basic(key)),
    "as an import": lambda key, body: ("/v1/import", b'{"batch":[%s]}' % body, _basic(key)),
}


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_plain_requests(server: Server, encoding: str, chunked: bool) -> None:
    user = f"raw {encoding} {chunked}"
    call = {"type": "track", "userId": user, "event": "Réview Read", "properties": {"price": 19.99}}
    path, body, headers = ENCODINGS[encoding](server.write_key, json.dumps(call, ensure_ascii=False).encode())
    receipts = [_post(server.port, path, body, headers, chunked) for _ in range(2)]
    assert [(status, receipt["accepted"], receipt["duplicate"]) for status, receipt in receipts] == [
        (200, 1, 0),
        (200, 0, 1),  # The same bytes are sent again, without a messageId.
    ]
    [message] = _messages(server, httpx.URL(path="/" + user).raw_path.decode()[1:])
    assert (message["name"], message["properties"]) == ("Réview Read", {"price": 19.99})


def _post(port: int, path: str, body: bytes, headers: dict[str, str], chunked: bool) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        if chunked:
            parts = [body[:7], body[7:]]
            connection.request(
                "POST", path, iter(parts), {**headers, "Transfer-Encoding": "chunked"}, encode_chunked=True
            )
        else:
            connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()
