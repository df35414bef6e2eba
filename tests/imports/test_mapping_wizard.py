"""``segue import --guess`` at a terminal: it shows the mapping, asks, and imports only after confirmation."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import httpx

from tests.support.server_process import ROOT, Server

CSV = """\
Order No;Customer E-Mail;Date;Amount
1001;{who};25.04.2026 10:00;19,90
1002;{who};26.04.2026 11:00;1.234,50
1003;{who};n/a;5,00
"""


def _file(tmp_path: Path, who: str) -> Path:
    file = tmp_path / "orders.csv"
    file.write_text(CSV.format(who=who))
    return file


def _touchpoints(server: Server, who: str) -> list[dict[str, object]] | None:
    """Return the customer's touchpoints, newest first, or None if the customer does not exist."""
    secret = {"Authorization": f"Bearer {server.secret_key}"}
    answer = httpx.get(f"{server.url}/v1/customers/{who}/touchpoints", headers=secret)
    return None if answer.status_code == 404 else answer.json()["items"]


def _at_a_terminal(server: Server, answers: str, *arguments: str) -> str:
    """Run the command at a terminal, type the answers, and return the output."""
    controller, terminal = pty.openpty()
    try:
        os.write(controller, answers.encode())
        done = subprocess.run(
            [sys.executable, "-m", "app", "import", *arguments],
            cwd=ROOT,
            env=server.environment(),
            stdin=terminal,
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        os.close(controller)
        os.close(terminal)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wizard_asks_about_doubts_and_imports_after_confirmation(server: Server, tmp_path: Path) -> None:
    who = "asked@example.com"
    file = _file(tmp_path, who)
    output = _at_a_terminal(server, "Order Completed\nMars\nEurope/Berlin\nn\n", str(file), "--guess")
    for text in (
        "What is the name of the event",
        "Which time zone",
        "unknown time zone 'Mars'",
        "1234.5",
        "Nothing imported yet",
    ):
        assert text in output
    assert _touchpoints(server, f"email:{who}") is None
    mapping = json.loads((tmp_path / "orders.csv.mapping.json").read_text())
    assert mapping == {
        "columns": {"Customer E-Mail": "email", "Date": "timestamp"},
        "constants": {"event": "Order Completed"},
        "zone": "Europe/Berlin",
        "times": ["%d.%m.%Y %H:%M"],
        "delimiter": ";",
        "decimal_comma": True,
    }

    output = _at_a_terminal(server, "Order Completed\nEurope/Berlin\ny\n", str(file), "--guess")
    assert "2 accepted, 0 duplicate, 1 rejected." in output
    touchpoints = _touchpoints(server, f"email:{who}")
    assert touchpoints is not None
    assert [(item["occurred_at"], item["properties"]) for item in touchpoints] == [
        ("2026-04-26T09:00:00.000000Z", {"order_no": 1002, "amount": 1234.5}),
        ("2026-04-25T08:00:00.000000Z", {"order_no": 1001, "amount": 19.9}),
    ]


def test_guess_without_a_terminal_lists_the_doubts(server: Server, tmp_path: Path) -> None:
    who = "script@example.com"
    file, mapping = _file(tmp_path, who), tmp_path / "orders.json"
    options = ("import", str(file), "--guess", "--yes", "--mapping", str(mapping), "--zone", "Europe/Berlin")
    unsure = server.command(*options)
    assert unsure.returncode == 1
    assert "What is the name of the event" in unsure.stderr
    assert "time zone" not in unsure.stderr
    assert _touchpoints(server, f"email:{who}") is None
    mapping.write_text(json.dumps({**json.loads(mapping.read_text()), "constants": {"event": "Order Completed"}}))
    done = server.command("import", str(file), "--mapping", str(mapping))
    assert "2 accepted, 0 duplicate, 1 rejected." in done.stdout
    again = server.command("import", str(file), "--mapping", str(mapping))
    assert "0 accepted, 2 duplicate, 1 rejected." in again.stdout


def test_guess_with_common_names_needs_no_answers(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "usual.csv"
    file.write_text(
        "timestamp,user_id,email,channel,event,message_id,plan\n"
        "2026-05-04T10:00:00Z,usual-1,usual@example.com,email,email.opened,m-1,pro\n"
        '"2026-05-04 12:00:00Z",,usual@example.com,support,ticket.created,,"a, b"\n'
    )
    done = server.command("import", str(file), "--guess", "--yes", "--source", "usual")
    assert done.returncode == 0, done.stderr
    assert "2 accepted, 0 duplicate, 0 rejected." in done.stdout
    touchpoints = _touchpoints(server, "email:usual@example.com")
    assert touchpoints is not None
    assert [(item["name"], item["channel"], item["source"], item["properties"]) for item in touchpoints] == [
        ("ticket.created", "support", "usual", {"plan": "a, b"}),
        ("email.opened", "email", "usual", {"plan": "pro"}),
    ]


def test_kind_is_the_source_and_unknown_kinds_are_refused(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "receipts.csv"
    file.write_text("receipt,sold_at,card_number,total\nB-7,2026-05-04 12:00,LC-wizard,5\n")
    done = server.command("import", str(file), "--kind", "store_purchases")
    assert "1 rejected" in done.stdout
    assert "set `zone`" in (tmp_path / "receipts.csv.errors.ndjson").read_text()
    done = server.command("import", str(file), "--kind", "store_purchases", "--zone", "Europe/Berlin")
    assert "1 accepted" in done.stdout, done.stderr
    touchpoints = _touchpoints(server, "loyalty_card:LC-wizard")
    assert touchpoints is not None
    assert [(item["source"], item["occurred_at"]) for item in touchpoints] == [
        ("store_purchases", "2026-05-04T10:00:00.000000Z")
    ]
    for options, why in (
        (("--kind", "nonsense"), "unknown kind 'nonsense'"),
        (("--mapping", str(file)), "is not a valid mapping"),
        (("--zone", "UTC"), "with a column mapping"),
        (("--kind", "orders", "--zone", "Mars"), "unknown time zone"),
    ):
        refused = server.command("import", str(file), *options)
        assert refused.returncode == 1
        assert why in refused.stderr
        assert "Traceback" not in refused.stderr
