"""Test harness of the browser tests: running Segue, static site, faulty proxy, visits, Chromium."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.browser.chromium import NAMED_BY, REMEDY
from tests.browser.running_segue import Segue
from tests.browser.static_site import Site
from tests.browser.visit import Visit

ROOT = Path(__file__).parents[2]

SEND = """async ([host, key, id]) => {
  const body = JSON.stringify({
    writeKey: key, sentAt: new Date().toISOString(),
    batch: [{ type: "track", event: "Looked", anonymousId: id, messageId: id, timestamp: new Date().toISOString() }],
  });
  const response = await fetch(host + "/v1/b", { method: "POST", body });
  return [response.status, await response.json()];
}"""


def test_a_cross_origin_page_can_store_messages(segue: Segue, site: Site, visit: Callable[..., Visit]) -> None:
    source = segue.source()
    guest = visit(skew=timedelta(hours=-5))
    page = guest.open(site.page("/", "<title>Shop</title>"))
    status, receipt = page.evaluate(SEND, [segue.url, source.write_key, "visitor-1"])
    assert (status, receipt["accepted"]) == (200, 1)
    [row] = segue.wait_for(source, 1)
    assert (row["name"], row["message_id"], row["ids"]["anonymous_id"]) == ("Looked", "visitor-1", "visitor-1")
    assert guest.hosts == {f"localhost:{site.port}", f"127.0.0.1:{segue.port}"}
    assert guest.errors == []


def test_faulty_proxy_returns_a_readable_503_and_passes_later_requests(
    segue: Segue, site: Site, visit: Callable[..., Visit]
) -> None:
    source = segue.source()
    page = visit().open(site.page("/", ""))
    with segue.with_faults("busy", "swallow") as proxy:
        answer = page.evaluate(
            """async (host) => {
                const response = await fetch(host + "/v1/b", { method: "POST", body: "{}" });
                return [response.status, response.headers.get("Retry-After")];
            }""",
            proxy.url,
        )
        assert answer == [503, "1"]
        lost = page.evaluate(f"args => ({SEND})(args).catch(() => 'lost')", [proxy.url, source.write_key, "m"])
        status, receipt = page.evaluate(SEND, [proxy.url, source.write_key, "m"])
        assert (lost, status, receipt["duplicate"]) == ("lost", 200, 1)
    assert len(segue.wait_for(source, 1)) == 1


def test_visit_can_block_storage(site: Site, visit: Callable[..., Visit]) -> None:
    page = visit(storage=False).open(site.page("/", ""))
    read_error = (
        "name => { try { name == 'cookie' ? document.cookie : window[name]; return '' } catch (e) { return e.name } }"
    )
    assert [page.evaluate(read_error, name) for name in ("cookie", "localStorage", "sessionStorage")] == [
        "SecurityError"
    ] * 3


def test_visit_clock_can_be_moved(site: Site, visit: Callable[..., Visit]) -> None:
    guest = visit(now=datetime(2026, 3, 1, 23, 59, tzinfo=UTC), timezone_id="UTC")
    page = guest.open(site.page("/", ""))
    guest.context.clock.fast_forward("02:00")
    assert page.evaluate("new Date().toISOString()").startswith("2026-03-02T00:01:0")


@pytest.mark.parametrize("ci", ["", "true"])
def test_a_missing_chromium_is_reported_and_fails_in_ci(ci: str, tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "tests.browser.chromium"],
        cwd=ROOT,
        env={**os.environ, "CI": ci, NAMED_BY: str(tmp_path / "nothing")},
        capture_output=True,
        text=True,
    )
    assert process.returncode == (1 if ci else 0)
    assert REMEDY in process.stdout


def test_an_installed_chromium_prints_nothing(chromium: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "tests.browser.chromium"],
        cwd=ROOT,
        env={**os.environ, NAMED_BY: str(chromium)},
        capture_output=True,
        text=True,
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
