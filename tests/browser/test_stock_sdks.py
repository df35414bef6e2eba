"""Stock browser SDKs, unmodified, in a real browser and from another origin: what PostgreSQL holds, exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Page

from tests.browser.chromium import in_ci
from tests.browser.running_segue import Row, Segue
from tests.browser.sdk_pages import Stage, Unavailable, guide, installed
from tests.browser.static_site import Site
from tests.browser.visit import Visit
from tests.support.faulty_proxy import Fault


class Sdk(NamedTuple):
    """``name`` is its heading in docs/website.md, whose lines are what is run after ``before``."""

    name: str
    file: str
    step: str
    before: str = ""
    options: str = ""

    def open(self, stage: Stage, options: str = "", **more: Any) -> Page:
        together = ", ".join(filter(None, (self.options, options)))
        return stage.open(self.file, self.before + guide(self.name), together, **more)


SEGMENT = Sdk(
    "@segment/analytics-next 1.84.3",
    "@segment/analytics-next/dist/umd/index.js",
    "n => { analytics.track('Step', {n}) }",
    before="const { AnalyticsBrowser } = AnalyticsNext",
)
RUDDER = Sdk(
    "@rudderstack/analytics-js 3.34.1",
    "@rudderstack/analytics-js/dist/npm/modern/bundled/umd/index.js",
    "n => { analytics.track('Step', {n}) }",
    before="const { RudderAnalytics } = rudderanalytics",
)
POSTHOG = Sdk(
    "posthog-js 1.449.2",
    "posthog-js/dist/array.full.js",
    "n => { posthog.capture('Step', {n}) }",
    options="opt_out_useragent_filter: true, request_queue_config: {flush_interval_ms: 250}",
)
MIXPANEL = Sdk(
    "mixpanel-browser 2.83.0",
    "mixpanel-browser/dist/mixpanel.umd.js",
    "n => { mixpanel.track('Step', {n}) }",
    options="batch_flush_interval_ms: 200",
)


@pytest.fixture(scope="module")
def modules() -> Path:
    """Skips where npm or the registry is missing; in CI that is a failure."""
    try:
        return installed()
    except Unavailable as error:
        if in_ci():
            pytest.fail(str(error))
        pytest.skip(reason=str(error))


@pytest.fixture
def stage(segue: Segue, site: Site, visit: Callable[..., Visit], modules: Path) -> Iterator[Stage]:
    with segue.behind() as proxy:
        yield Stage(segue, site, visit(), proxy, modules)


def of(rows: Sequence[Row], type_: str, name: str | None = None) -> Row:
    [row] = [row for row in rows if row["type"] == type_ and name in (None, row["name"])]
    return row


def assert_landed(view: Row) -> None:
    """The page view arrived by the campaign of its URL, and the server saw the browser."""
    assert view["name"] == "page_viewed"
    assert "utm_campaign=spring" in view["properties"]["url"]
    assert (view["channel"], view["context"]["acquisition"]["campaign"]) == ("email", "spring")
    assert view["context"]["client"]["browser"] == "Chrome"


# ------------------------------------------------------------------------------------------------------- Segment


def test_analytics_next(stage: Stage) -> None:
    page = SEGMENT.open(stage, referer="https://example.com/")
    page.evaluate("""async () => {
      await analytics.page('Shop')
      await analytics.track('Product Viewed', {price: 42.5})
      await analytics.identify('user-1', {email: 'user-1@example.com'})
      await analytics.group('acme', {size: 5})
      await analytics.alias('user-1-new')
    }""")
    rows = stage.until(5)
    assert_landed(of(rows, "page"))
    assert of(rows, "track")["properties"] == {"price": 42.5}
    assert of(rows, "group")["properties"]["groupId"] == "acme"
    anonymous = page.evaluate("analytics.instance.user().anonymousId()")
    # An alias that says nothing: the SDK sends the id of before on both sides.
    assert of(rows, "alias")["ids"] == {"user_id": "user-1", "anonymous_id": anonymous}
    assert stage.identities("user_id:user-1") == {
        ("user_id", "user-1"),
        ("email", "user-1@example.com"),
        ("anonymous_id", anonymous),
    }
    assert {"/v1/p", "/v1/t", "/v1/i", "/v1/g", "/v1/a"} == stage.preflights
    assert all("content-type: text/plain" in head for head in stage.posts("/v1/"))
    assert len(stage.until(5)) == 5
    stage.assert_only_these_hosts()


def test_analytics_next_sends_its_batch_when_the_tab_closes(stage: Stage) -> None:
    """Batching: what waits leaves with the page, by fetch with keepalive."""
    batching = "deliveryStrategy: {strategy: 'batching', config: {size: 100, timeout: 60000}}"
    page = SEGMENT.open(stage, batching)
    page.evaluate("async () => { await analytics.ready(); await analytics.page() }")
    for number in range(12):
        page.evaluate(SEGMENT.step, number)
    assert stage.posts("/v1/") == []
    page.close(run_before_unload=True)
    stage.until(13)
    assert stage.steps() == Counter(range(12))
    assert stage.posts("/v1/b") == stage.posts("/v1/")


# --------------------------------------------------------------------------------------------------- RudderStack


def test_rudderstack(stage: Stage) -> None:
    page = RUDDER.open(stage)
    page.evaluate("""() => {
      analytics.page('Shop')
      analytics.track('Product Viewed', {price: 42.5})
      analytics.identify('user-2', {email: 'user-2@example.com'})
      analytics.group('acme', {size: 5})
      analytics.alias('user-2-new')
    }""")
    rows = stage.until(5)
    assert_landed(of(rows, "page"))
    assert of(rows, "track")["properties"] == {"price": 42.5}
    assert of(rows, "alias")["ids"]["user_id"] == "user-2-new"
    anonymous = page.evaluate("analytics.getAnonymousId()")
    assert stage.identities("user_id:user-2-new") == {
        ("user_id", "user-2"),
        ("user_id", "user-2-new"),
        ("email", "user-2@example.com"),
        ("anonymous_id", anonymous),
    }
    calls = {f"/v1/{name}" for name in ("page", "track", "identify", "group", "alias")}
    assert stage.preflights == {"/sourceConfig/"} | calls
    assert len(stage.until(5)) == 5
    stage.assert_only_these_hosts()


def test_rudderstack_sends_beacons_when_the_page_is_left(stage: Stage) -> None:
    beacons = "useBeacon: true, beaconQueueOptions: {flushQueueInterval: 600000}"
    page = RUDDER.open(stage, beacons)
    page.evaluate("() => new Promise(done => analytics.ready(done))")
    for number in range(7):
        page.evaluate(RUDDER.step, number)
    assert stage.proxy.met == []
    stage.leave(page)
    stage.until(7)
    assert stage.steps() == Counter(range(7))
    key = stage.source.write_key.lower()
    assert stage.beacons(f"/beacon/v1/batch?writekey={key}") == stage.posts("/")


# ------------------------------------------------------------------------------------------------------- PostHog


def test_posthog(stage: Stage) -> None:
    page = POSTHOG.open(stage)
    anonymous = page.evaluate("posthog.get_distinct_id()")
    page.evaluate("""() => {
      posthog.capture('Product Viewed', {price: 42.5})
      posthog.identify('user-3', {email: 'user-3@example.com'}, {first: 1})
      posthog.setPersonProperties({plan: 'gold'})
      posthog.group('company', 'acme', {size: 5})
      posthog.alias('user-3-new')
    }""")
    rows = stage.until(6)
    assert_landed(of(rows, "page"))
    viewed = of(rows, "track", "Product Viewed")
    assert (viewed["properties"]["price"], viewed["channel"]) == (42.5, "web")
    assert viewed["ids"] == {"anonymous_id": anonymous}
    assert of(rows, "group")["properties"]["groupId"] == "acme"
    assert stage.identities("user_id:user-3-new") == {
        ("user_id", "user-3"),
        ("user_id", "user-3-new"),
        ("email", "user-3@example.com"),
        ("anonymous_id", anonymous),
    }
    traits = stage.segue.get("/v1/customers/user_id:user-3")["traits"]
    assert (traits["email"], traits["plan"], "first" in traits) == ("user-3@example.com", "gold", False)
    stage.leave(page)
    rows = stage.until(7)
    assert of(rows, "track", "$pageleave")["ids"] == {"user_id": "user-3", "anonymous_id": anonymous}
    [beacon] = stage.beacons("/e/")
    assert "content-type: text/plain" in beacon  # and gzip, of which no header tells
    assert len(rows) == 7
    stage.assert_only_these_hosts()


# ------------------------------------------------------------------------------------------------------ Mixpanel


def test_mixpanel(stage: Stage) -> None:
    page = MIXPANEL.open(stage)
    anonymous = page.evaluate("mixpanel.get_property('$device_id')")
    page.evaluate("""() => {
      mixpanel.track('Product Viewed', {price: 42.5})
      mixpanel.identify('user-4')
      mixpanel.people.set({$email: 'user-4@example.com', plan: 'gold'})
      mixpanel.people.set_once({first: 1})
      mixpanel.people.increment('visits')
      mixpanel.alias('user-4-new', 'user-4')
      addEventListener('pagehide', () => mixpanel.track('Left', {}, {transport: 'sendBeacon'}))
    }""")
    rows = stage.until(lambda rows: any((row["traits"] or {}).get("plan") for row in rows) and len(rows) >= 8)
    assert_landed(of(rows, "page"))
    viewed = of(rows, "track", "Product Viewed")
    assert (viewed["properties"]["price"], viewed["channel"]) == (42.5, "web")
    assert viewed["ids"] == {"anonymous_id": anonymous}
    assert stage.identities("user_id:user-4-new") == {
        ("user_id", "user-4"),
        ("user_id", "user-4-new"),
        ("email", "user-4@example.com"),
        ("anonymous_id", anonymous),
    }
    traits = stage.segue.get("/v1/customers/user_id:user-4")["traits"]
    assert (traits["email"], traits["plan"]) == ("user-4@example.com", "gold")
    assert {"first", "visits"}.isdisjoint(traits)
    stage.leave(page)
    rows = stage.until(lambda rows: any(row["name"] == "Left" for row in rows))
    names = Counter(row["name"] for row in rows if row["name"])
    assert names == {"page_viewed": 1, "Product Viewed": 1, "Left": 1}
    assert len(stage.beacons("/track/")) == 1
    assert stage.preflights == set()  # forms need none, and carry the site's cookies all the same
    stage.assert_only_these_hosts()


# ------------------------------------------------------------------------------- pages that are left, and come back


_MIXPANELS_QUEUE = "Object.values(localStorage).join()"
PATIENT = {
    "posthog": (POSTHOG, "request_queue_config: {flush_interval_ms: 5000}, opt_out_useragent_filter: true", "true"),
    # It takes each event into its queue in turns with other tabs, in any order.
    "mixpanel": (MIXPANEL, "batch_flush_interval_ms: 60000", f"{_MIXPANELS_QUEUE}.split('\"n\":').length > 5"),
}
"""SDK, how it is told to wait, and what holds when it has taken everything in."""


@pytest.mark.parametrize("sdk", PATIENT)
def test_queued_events_are_sent_once_when_the_page_is_left(stage: Stage, sdk: str) -> None:
    """What was not sent yet goes by beacon, and does not come twice when she returns."""
    stock, options, is_taken_in = PATIENT[sdk]
    page = stock._replace(options=options).open(stage)
    page.wait_for_load_state("networkidle")
    page.evaluate(f"() => {{ const step = {stock.step}; for (let n = 0; n < 5; n++) step(n) }}")
    page.wait_for_function(is_taken_in)
    assert stage.steps() == Counter()
    stage.leave(page)
    stage.until_steps(5)
    assert len(stage.beacons("/")) >= 1
    page.go_back()
    page.wait_for_load_state("networkidle")
    assert stage.steps() == Counter(range(5))


# ----------------------------------------------------------------------------------------- lost answers and 503s

BAD_DAYS: dict[str, tuple[Sdk, list[Fault], int]] = {
    "analytics-next": (SEGMENT, ["swallow", "busy"], 5),
    "rudderstack": (RUDDER, ["swallow", "busy"], 5),
    "posthog": (POSTHOG, ["swallow"], 2),
    "mixpanel": (MIXPANEL, ["busy"], 2),
    "mixpanel, which takes a lost answer for an answer": (MIXPANEL, ["swallow"], 1),
}
"""SDK, what becomes of the first requests, and how many it sends at least for three events."""


@pytest.mark.parametrize("day", BAD_DAYS)
def test_faults_lose_and_duplicate_no_event(stage: Stage, day: str) -> None:
    sdk, moods, posts = BAD_DAYS[day]
    page = sdk.open(stage)
    page.wait_for_load_state("networkidle")
    before = len(stage.posts("/"))
    stage.proxy.moods += moods
    for number in range(3):
        page.evaluate(sdk.step, number)
    stage.until_posts(page, before + posts)
    stage.until_steps(3)
    assert stage.steps() == Counter(range(3))
    assert [mood for mood in stage.proxy.met if mood != "pass"] == moods


# ----------------------------------------------------------------------------------------------------------- GA4


def test_ga4_measurement_protocol_from_a_page(stage: Stage) -> None:
    page = stage.open(None, guide("GA4"))
    statuses = page.evaluate("""async () => {
      const body = events => JSON.stringify({client_id: '123.456', user_id: 'user-5', events})
      const json = {'Content-Type': 'application/json'}
      const asked = {method: 'POST', headers: json, body: body([{name: ''}])}
      const debug = await fetch(url.replace('/mp', '/debug/mp'), asked)
      const first = await fetch(url, {method: 'POST', body: body([{name: 'look'}])})
      addEventListener('pagehide', () => navigator.sendBeacon(url, body([{name: 'leave'}])))
      return [first.status, debug.status, (await debug.json()).validationMessages]
    }""")
    assert statuses[:2] == [204, 200]
    assert [each["validationCode"] for each in statuses[2]] == ["VALUE_REQUIRED"]
    stage.leave(page)
    view, look, leave = stage.until(3)
    assert [row["name"] for row in (view, look, leave)] == ["page_viewed", "look", "leave"]
    assert (view["channel"], view["context"]["acquisition"]["campaign"]) == ("email", "spring")
    assert view["ids"] == {"anonymous_id": "123.456"}
    assert look["ids"] == leave["ids"] == {"user_id": "user-5", "anonymous_id": "123.456"}
    assert len(stage.beacons("/mp/collect")) == 1
    assert stage.preflights == {"/debug/mp/collect"}
    stage.assert_only_these_hosts()
