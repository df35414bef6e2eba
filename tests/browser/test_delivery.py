"""Delivery of the snippet: each message is stored once despite closed tabs, network failures, 503s and wrong clocks."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Error, Page, Request, Response

from tests.browser.running_segue import Segue
from tests.browser.shop_pages import Shop, close_tab, flush, wait_until_ready
from tests.browser.static_site import Site
from tests.browser.visit import Visit
from tests.support.case_count import case_count
from tests.support.faulty_proxy import Fault

MakeVisit = Callable[..., Visit]

STEP_SECONDS = 25
ACTIONS = 40
SEEDS = case_count(3)


class BatchLog:
    """Record of the batches that a visitor's pages sent: ``sentAt`` by the page's clock, and response statuses."""

    def __init__(self, guest: Visit) -> None:
        self.sent: list[datetime] = []
        self.statuses: list[int] = []
        guest.context.on("request", self._record_request)
        guest.context.on("response", self._record_response)

    def _record_request(self, request: Request) -> None:
        if "/v1/b" in request.url:
            self.sent.append(datetime.fromisoformat((request.post_data_json or {})["sentAt"]))

    def _record_response(self, response: Response) -> None:
        if "/v1/b" in response.url:
            self.statuses.append(response.status)

    def wait_for_responses(self, page: Page) -> None:
        """Wait in real time. Advancing the page's clock would trigger the timeout of requests in flight."""
        for _ in range(500):
            page.wait_for_timeout(20)
            if len(self.statuses) >= len(self.sent):
                break
        page.wait_for_timeout(20)  # The page needs a moment to read the response.


TRACK = "([from, to]) => { for (let n = from; n < to; n++) segue.track('Step', { n }) }"


@pytest.fixture
def shop(segue: Segue, site: Site) -> Shop:
    return Shop(segue, site)


def track(page: Page, start: int, end: int) -> None:
    page.evaluate(TRACK, [start, end])


def assert_steps_stored_once(shop: Shop, count: int) -> None:
    """Assert that each step from 0 to ``count - 1`` is stored exactly once."""
    rows = shop.wait_for(count, "track")
    assert Counter(row["properties"]["n"] for row in rows) == Counter(range(count))


@pytest.mark.parametrize("count", [1, 60])
def test_closing_a_tab_loses_no_message(shop: Shop, visit: MakeVisit, count: int) -> None:
    guest = visit()
    page = guest.open(shop.page("/", capture=False))
    wait_until_ready(page)
    track(page, 0, count)
    close_tab(page)
    assert_steps_stored_once(shop, count)
    reopened = guest.open(shop.page("/", capture=False))
    flush(reopened)
    assert_steps_stored_once(shop, count)


def busy(count: int) -> list[Fault]:
    return ["busy"] * count


def test_navigating_away_loses_no_message(shop: Shop, visit: MakeVisit) -> None:
    away = shop.site.page("/away", "away")
    page = visit().open(shop.page("/", capture=False))
    wait_until_ready(page)
    with page.expect_navigation(url=away):
        page.evaluate("(away) => { segue.track('Step', { n: 0 }); location.href = away }", away)
    assert_steps_stored_once(shop, 1)


def test_an_hour_offline_loses_no_message(shop: Shop, visit: MakeVisit) -> None:
    guest = visit(now=datetime.now(UTC))
    page = guest.open(shop.page("/", capture=False))
    wait_until_ready(page)
    guest.context.set_offline(True)
    track(page, 0, 30)
    guest.context.clock.fast_forward("30:00")
    track(page, 30, 40)
    guest.context.clock.fast_forward("30:00")
    assert shop.messages() == []
    guest.context.set_offline(False)
    guest.context.clock.run_for(60_000)
    assert_steps_stored_once(shop, 40)
    rows = shop.messages("track")
    spread = rows[-1]["occurred_at"] - rows[0]["occurred_at"]
    assert timedelta(minutes=29) < spread < timedelta(minutes=31)
    assert abs(rows[0]["occurred_at"] - (datetime.now(UTC) - timedelta(hours=1))) < timedelta(minutes=2)


def test_messages_of_a_tab_closed_offline_are_sent_by_the_next_visit(shop: Shop, visit: MakeVisit) -> None:
    guest = visit()
    url = shop.page("/", capture=False)
    page = guest.open(url)
    wait_until_ready(page)
    guest.context.set_offline(True)
    track(page, 0, 20)
    close_tab(page)
    guest.context.set_offline(False)
    flush(guest.open(url))
    assert_steps_stored_once(shop, 20)


def test_retry_after_is_respected_during_503s(segue: Segue, shop: Shop, visit: MakeVisit) -> None:
    """The page does not retry before Retry-After has passed on its clock, and retries shortly afterwards."""
    guest = visit(now=datetime.now(UTC))
    batches = BatchLog(guest)
    with segue.with_faults(*busy(4)) as proxy:
        proxy.retry_after_seconds = 120
        page = guest.open(shop.page("/", capture=False, host=proxy.url))
        wait_until_ready(page)
        track(page, 0, 10)
        for step in range(60):
            guest.context.clock.run_for(STEP_SECONDS * 1000)
            batches.wait_for_responses(page)
            if step == 5:
                track(page, 10, 12)
            if "pass" in proxy.injected:
                break
        assert_steps_stored_once(shop, 12)
        assert proxy.injected == ["busy"] * 4 + ["pass"]
    gaps = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(batches.sent)]
    assert all(120 <= gap < 122 + STEP_SECONDS for gap in gaps), gaps


def test_messages_survive_503s_that_outlast_the_tab(segue: Segue, shop: Shop, visit: MakeVisit) -> None:
    guest = visit()
    with segue.with_faults(*busy(1_000)) as proxy:
        url = shop.page("/", capture=False, host=proxy.url)
        page = guest.open(url)
        wait_until_ready(page)
        track(page, 0, 15)
        flush(page)
        close_tab(page)
        assert set(proxy.injected) <= {"busy"}
        proxy.faults.clear()
        flush(guest.open(url))
        assert_steps_stored_once(shop, 15)


def test_messages_of_a_crashed_tab_are_stored(segue: Segue, shop: Shop, visit: MakeVisit) -> None:
    guest = visit()
    with segue.with_faults(*busy(1_000)) as proxy:
        url = shop.page("/", capture=False, host=proxy.url)
        page = guest.open(url)
        wait_until_ready(page)
        track(page, 0, 5)
        page.wait_for_timeout(50)  # The library stores the queue in a later task.
        with page.expect_event("crash"), suppress(Error):
            page.goto("chrome://crash")
        page.close()
        proxy.faults.clear()
        flush(guest.open(url))
        assert_steps_stored_once(shop, 5)


def test_lost_responses_store_no_duplicate(segue: Segue, shop: Shop, visit: MakeVisit) -> None:
    guest = visit(now=datetime.now(UTC))
    with segue.with_faults("swallow", "busy", "swallow") as proxy:
        page = guest.open(shop.page("/", capture=False, host=proxy.url))
        wait_until_ready(page)
        track(page, 0, 25)
        for _ in range(60):
            guest.context.clock.run_for(1_000)
            page.wait_for_timeout(30)
            if "pass" in proxy.injected:
                break
        assert_steps_stored_once(shop, 25)
        assert proxy.injected == ["swallow", "busy", "swallow", "pass"]


def test_two_tabs_share_visitor_and_session(shop: Shop, visit: MakeVisit) -> None:
    guest = visit()
    url = shop.page("/", capture=False)
    tabs = [guest.open(url), guest.open(url)]
    for tab in tabs:
        wait_until_ready(tab)
    # Storage reaches other tabs after some milliseconds. Tabs that open at the same time would start two sessions.
    tabs[0].evaluate("segue.track('Begin')")
    tabs[1].wait_for_function("() => localStorage.segue_s")
    guest.context.set_offline(True)
    for number, tab in enumerate(tabs):
        track(tab, 30 * number, 30 * number + 20)
    guest.context.set_offline(False)
    for number, tab in enumerate(tabs):
        track(tab, 30 * number + 20, 30 * number + 30)
        flush(tab)
    close_tab(tabs[0])
    flush(tabs[1])
    rows = shop.wait_for(61)
    assert Counter(row["properties"].get("n") for row in rows) == Counter([None, *range(60)])
    assert len({row["ids"]["anonymous_id"] for row in rows}) == 1, "one visitor"
    assert len({row["context"]["sessionId"] for row in rows}) == 1, "one session"
    assert sum(bool(row["context"].get("sessionStart")) for row in rows) == 1


@pytest.mark.parametrize("seed", range(SEEDS))
def test_random_faults_lose_and_duplicate_no_message(segue: Segue, shop: Shop, visit: MakeVisit, seed: int) -> None:
    """Up to three tabs track events, close and reload while network and server fail at random."""
    rng = random.Random(seed)
    guest = visit(now=datetime.now(UTC))
    with segue.with_faults() as proxy:
        url = shop.page("/", capture=False, host=proxy.url)

        def open_tab() -> Page:
            page = guest.open(url)
            wait_until_ready(page)
            return page

        tabs, sent, online = [open_tab()], 0, True
        for _ in range(ACTIONS):
            match rng.choices(["track", "wait", "network", "server", "open", "close", "reload"], [8, 4, 2, 2, 1, 1, 1])[
                0
            ]:
                case "track":
                    count = rng.choice([1, 2, 7])
                    track(rng.choice(tabs), sent, sent + count)
                    sent += count
                case "wait":
                    guest.context.clock.run_for(rng.choice([50, 150, 3_000, 60_000]))
                case "network":
                    online = not online
                    guest.context.set_offline(not online)
                case "server":
                    faults: list[Fault] = ["pass", "busy", "swallow"]
                    proxy.faults[:] = rng.choices(faults, k=rng.randint(1, 5))
                case "open" if online and len(tabs) < 3:
                    tabs.append(open_tab())
                case "close" if len(tabs) > 1:
                    close_tab(tabs.pop(rng.randrange(len(tabs))))
                case "reload" if online:
                    tab = rng.choice(tabs)
                    tab.reload()
                    wait_until_ready(tab)
        proxy.faults.clear()
        guest.context.set_offline(False)
        for tab in tabs:
            close_tab(tab)
        open_tab()
        for _ in range(30):
            guest.context.clock.run_for(60_000)
            if len(shop.messages()) == sent:
                break
        assert_steps_stored_once(shop, sent)


@pytest.mark.parametrize("hours", [-7, 5, 24 * 400])
def test_a_wrong_clock_is_corrected(shop: Shop, visit: MakeVisit, hours: int) -> None:
    page = visit(skew=timedelta(hours=hours)).open(shop.page("/", capture=False))
    wait_until_ready(page)
    track(page, 0, 1)
    flush(page)
    [row] = shop.wait_for(1)
    assert abs(row["occurred_at"] - datetime.now(UTC)) < timedelta(seconds=20)


def test_a_wrong_clock_is_corrected_after_being_offline(shop: Shop, visit: MakeVisit) -> None:
    guest = visit(skew=timedelta(hours=9))
    page = guest.open(shop.page("/", capture=False))
    wait_until_ready(page)
    guest.context.set_offline(True)
    track(page, 0, 1)
    guest.context.clock.fast_forward("45:00")
    guest.context.set_offline(False)
    guest.context.clock.run_for(60_000)
    [row] = shop.wait_for(1)
    assert abs(row["occurred_at"] - (datetime.now(UTC) - timedelta(minutes=46))) < timedelta(minutes=2)


def test_queue_size_is_limited(shop: Shop, visit: MakeVisit) -> None:
    """The newest messages are kept, and full storage does not cause an error in the page."""
    guest = visit()
    page = guest.open(shop.page("/", capture=False))
    wait_until_ready(page)
    guest.context.set_offline(True)
    page.evaluate("() => { for (let n = 0; n < 3000; n++) segue.track('Step', { n, filler: 'x'.repeat(1000) }) }")
    page.wait_for_timeout(300)
    size = page.evaluate("Object.entries(localStorage).reduce((sum, [k, v]) => sum + k.length + v.length, 0)")
    assert size < 1_500_000
    guest.context.set_offline(False)
    page.evaluate("segue.track('Step', { n: 3000 })")
    flush(page)
    rows = shop.wait_for(lambda rows: any(row["properties"]["n"] == 3000 for row in rows))
    numbers = [row["properties"]["n"] for row in rows]
    assert len(numbers) == len(set(numbers))
    assert guest.errors == []


def test_full_storage_loses_no_message(shop: Shop, visit: MakeVisit) -> None:
    fill = """if (location.protocol == "http:")
        for (const length of [100000, 1000, 10, 0])
            try { for (let n = 0; ; n++) localStorage[`fill-${length}-${n}`] = "x".repeat(length) } catch {}"""
    guest = visit(scripts=(fill,))
    page = guest.open(shop.page("/", capture=False))
    wait_until_ready(page)
    assert page.evaluate("() => { try { localStorage.one = '1'; return 'room' } catch { return 'full' } }") == "full"
    track(page, 0, 5)
    flush(page)
    assert_steps_stored_once(shop, 5)
    track(page, 5, 8)
    close_tab(page)
    assert_steps_stored_once(shop, 8)
    assert guest.errors == []


def test_unserializable_messages_do_not_block_others(shop: Shop, visit: MakeVisit) -> None:
    guest = visit()
    page = guest.open(shop.page("/", capture=False))
    wait_until_ready(page)
    page.evaluate(
        """() => {
            const cycle = {}; cycle.self = cycle;
            segue.track("Step", { n: 0 });
            segue.track("Cycle", cycle);
            segue.track("Big", { big: 10n });
            segue.track("Large", { large: "x".repeat(40000) });
            segue.track("");
            segue.track();
            segue.track("Step", { n: 1, missing: undefined, not: NaN, when: new Date(0), run: () => 1 });
            segue.identify();
            segue.page(null, undefined, 7);
            segue.on("track");
            segue.track("Step", { n: 2 });
        }"""
    )
    flush(page)
    rows = shop.wait_for(lambda rows: any(row["properties"].get("n") == 2 for row in rows))
    steps = [row["properties"] for row in rows if row["name"] == "Step"]
    assert steps == [{"n": 0}, {"n": 1, "not": None, "when": "1970-01-01T00:00:00.000Z"}, {"n": 2}]
    assert not {row["name"] for row in rows} & {"Cycle", "Big", "Large", ""}
    assert guest.errors == []
    page.wait_for_function("() => !Object.keys(localStorage).some((key) => key.startsWith('segue_q'))")


def test_hidden_tabs_send_by_beacon_and_count_visible_time_only(shop: Shop, visit: MakeVisit) -> None:
    """A hidden tab sends unacknowledged messages by beacon; only visible time is counted."""
    hide = "Object.defineProperty(Document.prototype, 'hidden', { get: () => !!document.isHidden })"
    guest = visit(now=datetime.now(UTC), scripts=(hide,))
    page = guest.open(shop.page("/", capture={"pages": True, "time": True}))
    wait_until_ready(page)
    set_hidden = "(isHidden) => { document.isHidden = isHidden; document.dispatchEvent(new Event('visibilitychange')) }"
    for n, (visible, hidden) in enumerate(((20, 300), (40, 600), (30, 5))):
        guest.context.clock.run_for(visible * 1000)
        track(page, n, n + 1)
        page.evaluate(set_hidden, True)
        guest.context.clock.run_for(hidden * 1000)
        page.evaluate(set_hidden, False)
    page.evaluate(set_hidden, True)
    shop.wait_for(lambda rows: sum(row["name"] == "Page Left" for row in rows) >= 3)
    flush(page)
    rows = shop.messages("track")
    assert sorted(row["properties"]["n"] for row in rows if row["name"] == "Step") == [0, 1, 2]
    seconds = [row["properties"]["seconds"] for row in rows if row["name"] == "Page Left"]
    assert sum(seconds) == pytest.approx(90, abs=15)
    assert len(seconds) in (3, 4), "real time between the steps may add a second"


def test_a_revoked_key_stops_sending(shop: Shop, visit: MakeVisit) -> None:
    """The snippet does not retry after a 401."""
    guest = visit(now=datetime.now(UTC))
    url = shop.page("/", capture=False)
    [key] = [key for key in shop.segue.get("/v1/keys")["items"] if key["source"] == shop.source.key]
    shop.segue.request("DELETE", f"/v1/keys/{key['id']}")
    batches = BatchLog(guest)
    page = guest.open(url)
    wait_until_ready(page)
    track(page, 0, 3)
    guest.context.clock.run_for(1_000)
    batches.wait_for_responses(page)
    for _ in range(6):
        page.wait_for_timeout(50)
        guest.context.clock.run_for(600_000)
    track(page, 3, 6)
    guest.context.clock.run_for(600_000)
    batches.wait_for_responses(page)
    assert batches.statuses in ([401], [401, 401])
    assert len(batches.sent) == len(batches.statuses)
    assert guest.errors == []
