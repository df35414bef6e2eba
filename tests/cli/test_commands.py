"""Command line: help, keys, import, rebuild, verify, migrate, and the shutdown of ``serve``."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from typer.testing import CliRunner

from app.cli.commands import cli
from tests.support.server_process import ROOT, Server

pytestmark = pytest.mark.server

HELP = {
    "": ["Start with segue serve", "serve", "worker", "migrate", "keys", "import", "rebuild", "verify"],
    "serve": ["Starts the embedded PostgreSQL", "Ctrl-C stops", "SEGUE_PORT", "DATABASE_URL", "--no-worker"],
    "worker": ["Run only the background worker", "may run beside serve"],
    "migrate": ["to the current schema"],
    "keys": ["create", "list", "revoke", "rotate"],
    "keys create": ["write keys only send messages, secret keys read", "--source", "--name", "shown only once"],
    "keys list": ["including revoked ones"],
    "keys revoke": ["within a second", "first characters of its id"],
    "keys rotate": ["visitor tokens", "--revoke"],
    "import": ["NDJSON or CSV file", "it resumes", "--source", "--kind", "--mapping", "--guess", "--zone"],
    "import-metrics": ["belong to no customer", "twice changes nothing", "--kind", "--dates"],
    "rebuild": ["from the log", "such as user_id:42"],
    "verify": ["from the log", "--sample", "Exits with status 1 if any customer differs"],
}


@pytest.mark.parametrize("command", HELP)
def test_help_contains_the_essentials(command: str) -> None:
    result = CliRunner().invoke(cli, [*command.split(), "--help"])
    assert result.exit_code == 0
    plain = " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.stdout).split())
    assert [phrase for phrase in HELP[command] if phrase not in plain] == []
    assert not re.search(r"\[/?(bold|dim)|Traceback", plain)


# ------------------------------------------------------------------------------------------------------ keys


def test_created_and_revoked_keys_apply_to_a_running_server(server: Server) -> None:
    def write(key: str) -> int:
        call = {"userId": "keyed", "event": "Product Viewed"}
        return httpx.post(server.url + "/v1/track", json=call, auth=(key, "")).status_code

    def read(key: str) -> int:
        return httpx.get(server.url + "/v1/segments", headers={"Authorization": f"Bearer {key}"}).status_code

    created = {}
    for kind, ask in (("write", write), ("secret", read)):
        result = server.command("keys", "create", kind, "--name", f"the {kind} one")
        assert (result.returncode, result.stderr) == (0, "")
        created[kind] = result.stdout.strip()
        assert ask(created[kind]) == 200
    assert (read(created["write"]), write(created["secret"])) == (403, 403)

    listed = {line.split()[0]: line for line in server.command("keys", "list").stdout.splitlines()[1:]}
    assert len(listed) >= 4
    assert created["write"] in "".join(listed.values())
    assert created["secret"] not in "".join(listed.values())
    secret_id = next(id for id, line in listed.items() if "the secret one" in line)

    assert server.command("keys", "revoke", created["write"]).stdout.strip() == "Revoked."
    assert server.command("keys", "revoke", secret_id).stdout.strip() == "Revoked."
    revoked_at = time.monotonic()
    while (write(created["write"]), read(created["secret"])) != (401, 401):
        assert time.monotonic() < revoked_at + 3, (
            "revocation must apply within a second, or a little more on a busy machine"
        )
        time.sleep(0.05)
    again = {line.split()[0]: line for line in server.command("keys", "list").stdout.splitlines()[1:]}
    assert again.keys() == listed.keys()
    instants = [
        sum(len(cell) == len("2026-01-01T00:00:00") for cell in rows[secret_id].split()) for rows in (listed, again)
    ]
    assert instants == [1, 2]  # The second one is the time of revocation.


def test_last_secret_key_is_revoked_only_on_demand(make_server: Callable[..., Server], new_database_url: str) -> None:
    server = make_server(new_database_url)
    first = server.command("keys", "create", "secret").stdout.strip()
    ids = [line.split()[0] for line in server.command("keys", "list").stdout.splitlines() if " secret " in line]
    assert len(ids) == 2
    assert server.command("keys", "revoke", first).returncode == 0
    last = next(id for id in ids if "Revoked." not in server.command("keys", "revoke", id).stdout)
    result = server.command("keys", "revoke", last)
    assert (result.returncode, result.stdout) == (1, "")
    assert "only valid secret key" in result.stderr
    assert server.command("keys", "revoke", last, "--last").stdout.strip() == "Revoked."


def test_unknown_key_cannot_be_revoked(server: Server) -> None:
    for key in ("wk_unknown", "ffffffffffff"):
        result = server.command("keys", "revoke", key)
        assert (result.returncode, result.stdout, result.stderr.strip()) == (1, "", "The key does not exist.")


def test_key_rotation_replaces_the_secret_of_visitor_tokens(server: Server) -> None:
    def status(token: str) -> int:
        return httpx.get(server.url + "/v1/me", params={"writeKey": server.write_key, "token": token}).status_code

    def token() -> str:
        created = httpx.post(
            server.url + "/v1/visitor-tokens",
            json={"source": "default", "user_id": "user-1"},
            headers={"Authorization": f"Bearer {server.secret_key}"},
        )
        value: str = created.json()["token"]
        return value

    first = token()
    assert server.command("keys", "rotate").stdout.strip() == "Rotated."
    time.sleep(1.5)  # Every process uses the new secret within a second.
    second = token()
    assert (status(first), status(second)) == (200, 200)
    assert server.command("keys", "rotate", "--revoke").stdout.strip() == "Rotated."
    deadline = time.monotonic() + 3
    while (status(first), status(second)) != (401, 401):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert status(token()) == 200


def test_write_key_creates_its_source(server: Server) -> None:
    key = server.command("keys", "create", "write", "--source", "shop-pos").stdout.strip()
    call = {"userId": "at-the-till", "event": "Order Completed"}
    assert httpx.post(server.url + "/v1/track", json=call, auth=(key, "")).status_code == 200
    assert _ask(server, "/v1/customers/at-the-till/touchpoints")["items"][0]["source"] == "shop-pos"


# ---------------------------------------------------------------------------------------------------- import

NDJSON_LINES = [
    '{"type":"track","userId":"imported-1","event":"Order Completed","timestamp":"2024-05-01","messageId":"i1"}',
    "this is not JSON",
    '{"type":"identify","userId":"imported-1","traits":{"email":"imported-1@example.com"},"messageId":"i2"}',
    "",
    '{"type":"track","userId":"imported-1","messageId":"i3"}',
    '{"type":"track","event":"Product Viewed","messageId":"i4"}',
    "[1, 2]",
    '{"type":"track","userId":"imported-1","event":"Referral Sent","timestamp":"2024-06-01","messageId":"i5"}',
    '{"type":"track","userId":"imported-1","event":"x","properties":{"n":NaN}}',
    '{"a":1},{"b":2}',
    '{"type":"track","userId":"imported-1","event":"Referral Sent","timestamp":"2024-06-01","messageId":"i5"}',
]


def test_import_of_ndjson_with_bad_lines(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "history.ndjson"
    file.write_text("\ufeff" + "\n".join(NDJSON_LINES))
    result = server.command("import", str(file))
    assert result.returncode == 0, result.stderr
    assert "3 accepted, 1 duplicate, 6 rejected." in result.stdout
    assert f"{file}.errors.ndjson" in result.stdout
    faults = [json.loads(line) for line in _errors(file)]
    assert [(fault["line"], fault["code"]) for fault in sorted(faults, key=lambda fault: fault["line"])] == [
        (2, "unreadable_line"),
        (5, "missing_event"),
        (6, "missing_identity"),
        (7, "not_an_object"),
        (9, "unreadable_line"),
        (10, "unreadable_line"),
    ]
    assert {fault["original"] for fault in faults} <= set(NDJSON_LINES)
    customer = _ask(server, "/v1/customers/email:imported-1@example.com")
    assert customer["stages"]["six-stage"]["stage"] == "loyalty"
    assert customer["stages"]["six-stage"]["since"] == "2024-06-01T00:00:00.000000Z"
    assert not (tmp_path / "history.ndjson.progress").exists()

    again = server.command("import", str(file))
    assert "0 accepted, 4 duplicate, 6 rejected." in again.stdout
    assert len(_errors(file)) == 6


def test_import_of_csv(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "orders.csv"
    file.write_bytes(
        b"\xef\xbb\xbftype,userId,event,timestamp,messageId,properties.total,properties.note,context.traits.email\r\n"
        b'track,1001,Order Completed,2024-05-01T10:00:00Z,c1,19.90,"two lines,\r\na ""quote""",buyer@example.com\r\n'
        b'track,1001,Order Completed,2024-05-02T10:00:00Z,c2,007,12 inch 5" screen,\r\n'
        b"\r\n"
        b"track,1001,Order Completed,2024-05-03T10:00:00Z,c3,1,,,too,many\r\n"
        b"track,,Order Completed,2024-05-03T10:00:00Z,c4,1,,\r\n"
        b"identify,1001,,2024-05-04T10:00:00Z,c5,,,buyer@example.com"
    )
    result = server.command("import", str(file), "--source", "till")
    assert result.returncode == 0, result.stderr
    assert "3 accepted, 0 duplicate, 2 rejected." in result.stdout
    faults = sorted((json.loads(line) for line in _errors(file)), key=lambda fault: fault["line"])
    assert [(fault["line"], fault["code"]) for fault in faults] == [(6, "unreadable_line"), (7, "missing_identity")]
    entries = _ask(server, "/v1/customers/email:buyer@example.com/touchpoints")["items"]
    assert [(entry["message_id"], entry["source"], entry["properties"]) for entry in entries] == [
        ("c5", "till", {}),
        ("c2", "till", {"total": "007", "note": '12 inch 5" screen'}),
        ("c1", "till", {"total": 19.90, "note": 'two lines,\r\na "quote"'}),
    ]


@pytest.mark.parametrize("kind", ["ndjson", "csv"])
def test_killed_import_resumes(server: Server, tmp_path: Path, kind: str) -> None:
    lines = 10_000
    file = tmp_path / f"many.{kind}"
    user = f"many-{kind}-"
    with file.open("w") as out:
        if kind == "csv":
            out.write("type,userId,event,timestamp,messageId\n")
        for number in range(lines):
            bad = number % 1_000 == 7
            call = ("track", f"{user}{number % 10}", "" if bad else "Product Viewed", "2024-05-01", f"{kind}-{number}")
            if kind == "csv":
                out.write(",".join(call) + "\n")
            else:
                fields = zip(("type", "userId", "event", "timestamp", "messageId"), call, strict=True)
                out.write(json.dumps(dict(fields)) + "\n")
    mark = tmp_path / f"many.{kind}.progress"
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "import", str(file)],
        cwd=ROOT,
        env=server.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while process.poll() is None and not (mark.exists() and json.loads(mark.read_bytes())["line"] > 2_000):
        time.sleep(0.005)
        if time.monotonic() > deadline:
            process.kill()
    over = process.poll() is not None
    process.kill()
    process.wait()
    assert not over, "the import ended or got stuck before it could be killed"

    result = server.command("import", str(file))
    assert result.returncode == 0, result.stderr
    went_on = re.search(r"Resumed after line (\d+)", result.stdout)
    assert went_on
    assert 2_000 < int(went_on[1]) < lines
    assert not mark.exists()
    faults = [json.loads(line)["line"] for line in _errors(file)]
    header = 1 if kind == "csv" else 0
    assert sorted(faults) == [number + 1 + header for number in range(7, lines, 1_000)]
    pages = [_ask(server, f"/v1/customers/{user}{number}/touchpoints?limit=1000") for number in range(10)]
    assert [page["next_cursor"] for page in pages] == [None] * len(pages)
    assert sum(len(page["items"]) for page in pages) == lines - len(faults)


def test_import_of_a_missing_file(server: Server, tmp_path: Path) -> None:
    result = server.command("import", str(tmp_path / "none.ndjson"))
    assert result.returncode == 2
    assert "does not exist" in result.stderr


def _errors(file: Path) -> list[str]:
    return file.with_name(file.name + ".errors.ndjson").read_text().splitlines()


# ------------------------------------------------------------------------------------- rebuild, migrate, worker


def test_rebuild_one_customer_and_all(server: Server) -> None:
    for number in range(3):
        call = {"userId": f"rebuilt-{number}", "event": "Order Completed"}
        assert httpx.post(server.url + "/v1/track", json=call, auth=(server.write_key, "")).status_code == 200
    for options in ((), ("--customer", "user_id:rebuilt-1")):
        result = server.command("rebuild", *options)
        assert (result.returncode, result.stdout.strip()) == (0, "0 customers differed from the log.")
    missing = server.command("rebuild", "--customer", "user_id:never-seen")
    assert missing.returncode == 1
    assert "Customer user_id:never-seen does not exist." in missing.stderr


def test_rebuild_repairs_a_wrong_state(server: Server) -> None:
    for user, event in (("whole", "Order Completed"), ("broken", "Order Completed"), ("broken", "Referral Sent")):
        call = {"userId": f"state-{user}", "event": event}
        assert httpx.post(server.url + "/v1/track", json=call, auth=(server.write_key, "")).status_code == 200
    before = _ask(server, "/v1/customers/state-broken")["stages"]
    asyncio.run(_corrupt(server, "state-broken", "state-whole"))
    assert _ask(server, "/v1/customers/state-broken")["stages"] != before

    assert server.command("rebuild").stdout.strip() == "1 customers differed from the log."
    assert server.command("rebuild").stdout.strip() == "0 customers differed from the log."
    assert _ask(server, "/v1/customers/state-broken")["stages"] == before


def test_verify_reports_a_wrong_state(server: Server) -> None:
    for user, event in (("whole", "Order Completed"), ("broken", "Email Opened")):
        call = {"userId": f"verified-{user}", "event": event}
        assert httpx.post(server.url + "/v1/track", json=call, auth=(server.write_key, "")).status_code == 200
    result = server.command("verify")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "first-time-buyers: " in result.stdout
    assert all(line.endswith(" 0 differ.") for line in result.stdout.strip().splitlines())
    asyncio.run(_corrupt(server, "verified-broken", "verified-whole"))
    result = server.command("verify", "first-time-buyers")
    assert result.returncode == 1
    assert " 1 differ." in result.stdout
    assert len(result.stdout.strip().splitlines()) == 2
    sampled = server.command("verify", "first-time-buyers", "--sample", "1")
    assert "first-time-buyers: 1 customers" in sampled.stdout
    missing = server.command("verify", "no-such-segment")
    assert missing.returncode == 1
    assert "The segment no-such-segment does not exist." in missing.stderr
    assert server.command("rebuild").returncode == 0


async def _corrupt(server: Server, broken: str, whole: str) -> None:
    """Replace the stored state of the customer ``broken`` with the state of the customer ``whole``."""
    connection = await asyncpg.connect(server.database_url)
    statement = """
        UPDATE customers SET state = other.state
        FROM identities i, identities j JOIN customers other ON other.id = j.customer_id
        WHERE i.value = $1 AND customers.id = i.customer_id AND j.value = $2
    """
    assert await connection.execute(statement, broken, whole) == "UPDATE 1"
    await connection.close()


def test_unreachable_database_is_reported_in_one_line(server: Server) -> None:
    url = "postgresql://nobody@127.0.0.1:9/none"
    for command in (["migrate"], ["serve"], ["keys", "list"]):
        result = server.command(*command, env={"DATABASE_URL": url})
        assert result.returncode == 1
        assert "Database not usable" in result.stderr
        assert "Traceback" not in result.stderr


def test_migrate_and_keys_before_the_first_serve(make_server: Callable[..., Server], empty_database_url: str) -> None:
    """The first command creates the default journeys and segments. A later ``serve`` must find them."""
    server = make_server(empty_database_url)
    for _ in range(2):
        result = server.command("migrate")
        assert (result.returncode, result.stdout.strip()) == (0, "The schema is up to date.")
    created = server.command("keys", "create", "secret")
    assert re.fullmatch(r"sk_\w{32}\n", created.stdout)
    assert "Your first keys" in created.stderr
    server.secret_key = created.stdout.strip()
    server.start()
    assert "Your first keys" not in server.output
    assert len(_ask(server, "/v1/segments")["items"]) == 8
    command = [sys.executable, "-m", "app", "worker"]
    with subprocess.Popen(command, cwd=ROOT, env=server.environment(), stdout=subprocess.PIPE, text=True) as worker:
        try:
            assert worker.stdout is not None
            assert "Worker started" in worker.stdout.readline()
            worker.terminate()
            assert worker.wait(30) == 0
        finally:
            worker.kill()
    assert server.stop() == 0


# ----------------------------------------------------------------------------------------- how a server ends


@pytest.fixture(scope="module")
def stopped() -> Iterator[Server]:
    """Return a server that has been started and stopped once."""
    with tempfile.TemporaryDirectory(prefix="segue-") as directory:
        server = Server(Path(directory))
        try:
            began = time.monotonic()
            server.start()
            print(f"first start {time.monotonic() - began:.2f} s")
            assert server.stop() == 0
            yield server
        finally:
            server.clean_up()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_shutdown_answers_open_requests_and_stops_postgres(stopped: Server, number: signal.Signals) -> None:
    server, user = stopped, f"last-minute-{number.name}"
    began = time.monotonic()
    server.start()
    print(f"second start {time.monotonic() - began:.2f} s")
    answer = asyncio.run(_send_during_shutdown(server, number, user))
    assert answer["accepted"] == 1
    assert server.wait() == 0
    assert server.postmaster is None
    assert not (server.data / "pg" / "postmaster.pid").exists()
    assert [event for event in server.events() if event["level"] in ("warning", "error")] == []

    server.start()
    assert server.output.count("Your first keys") == 1
    assert _ask(server, f"/v1/customers/{user}")["stages"]["six-stage"]["stage"] == "purchase"
    assert server.stop() == 0


async def _wait_until_connections_are_refused(server: Server) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            except ConnectionRefusedError:
                return
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            await asyncio.sleep(0.05)


def test_used_port_leaves_nothing_running(stopped: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        result = stopped.command("serve", "--port", str(listener.getsockname()[1]))
    assert result.returncode != 0
    assert "address already in use" in result.stderr
    assert stopped.postmaster is None


def test_used_port_creates_no_keys(make_server: Callable[..., Server], new_database_url: str) -> None:
    """A secret key is shown only once, so a server that does not start must not create it."""
    server = make_server(new_database_url)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        result = server.command("serve", "--port", str(listener.getsockname()[1]))
    assert (result.returncode, result.stdout) == (1, "")
    assert "address already in use" in result.stderr
    assert "Your first keys" in server.start().output


async def _send_during_shutdown(server: Server, number: signal.Signals, user: str) -> Any:
    """Send half a request, stop the server, then send the other half. Return the response."""
    body = json.dumps({"writeKey": server.write_key, "userId": user, "event": "Order Completed"}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"POST /v1/track HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:20])
    await writer.drain()
    await asyncio.sleep(0.2)
    server.interrupt(number)
    await _wait_until_connections_are_refused(server)
    writer.write(body[20:])
    await writer.drain()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 200 ")
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def _ask(server: Server, path: str) -> Any:
    answer = httpx.get(server.url + path, headers={"Authorization": f"Bearer {server.secret_key}"})
    assert answer.status_code == 200, answer.text
    return answer.json()
