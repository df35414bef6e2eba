"""Unmodified browser SDKs on a page of a different origin: each event is stored exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Page

from tests.browser.chromium import in_ci
from tests.browser.running_segue import Row, Segue
from tests.browser.sdk_pages import HERE, SdkTestbed, guide_code
from tests.browser.static_site import Site
from tests.browser.visit import Visit
from tests.support.faulty_proxy import Fault
from tests.support.npm_packages import NpmUnavailable, install_packages


class Sdk(NamedTuple):
    """An SDK under test.

    ``name`` is its heading in docs/website.md, and ``before`` is code that runs before the code of that section.
    """

    name: str
    file: str
    step: str
    before: str = ""
    options: str = ""

    def open(self, sdk_testbed: SdkTestbed, options: str = "", **goto_options: Any) -> Page:
        all_options = ", ".join(filter(None, (self.options, options)))
        return sdk_testbed.open(self.file, self.before + guide_code(self.name), all_options, **goto_options)


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
    """Install the SDKs. If npm or the registry is missing, skip the test, or fail in CI."""
    try:
        return install_packages(HERE / "package.json", "browser")
    except NpmUnavailable as error:
        if in_ci():
            pytest.fail(str(error))
        pytest.skip(reason=str(error))


@pytest.fixture
def sdk_testbed(segue: Segue, site: Site, visit: Callable[..., Visit], modules: Path) -> Iterator[SdkTestbed]:
    with segue.with_faults() as proxy:
        yield SdkTestbed(segue, site, visit(), proxy, modules)


def find_row(rows: Sequence[Row], message_type: str, name: str | None = None) -> Row:
    [row] = [row for row in rows if row["type"] == message_type and name in (None, row["name"])]
    return row


def assert_arrived_by_campaign(view: Row) -> None:
    """Assert that the page view contains the campaign of its URL, and the browser name."""
    assert view["name"] == "page_viewed"
    assert "utm_campaign=spring" in view["properties"]["url"]
    assert (view["channel"], view["context"]["acquisition"]["campaign"]) == ("email", "spring")
    assert view["context"]["client"]["browser"] == "Chrome"


# ------------------------------------------------------------------------------------------------------- Segment


def test_analytics_next(sdk_testbed: SdkTestbed) -> None:
    page = SEGMENT.open(sdk_testbed, referer="https://example.com/")
    page.evaluate("""async () => {
      await analytics.page('Shop')
      await analytics.track('Product Viewed', {price: 42.5})
      await analytics.identify('user-1', {email: 'user-1@example.com'})
      await analytics.group('acme', {size: 5})
      await analytics.alias('user-1-new')
    }""")
    rows = sdk_testbed.wait_for(5)
    assert_arrived_by_campaign(find_row(rows, "page"))
    assert find_row(rows, "track")["properties"] == {"price": 42.5}
    assert find_row(rows, "group")["properties"]["groupId"] == "acme"
    anonymous = page.evaluate("analytics.instance.user().anonymousId()")
    # This alias has no effect: the SDK sends the previous id on both sides.
    assert find_row(rows, "alias")["ids"] == {"user_id": "user-1", "anonymous_id": anonymous}
    assert sdk_testbed.identities("user_id:user-1") == {
        ("user_id", "user-1"),
        ("email", "user-1@example.com"),
        ("anonymous_id", anonymous),
    }
    assert {"/v1/p", "/v1/t", "/v1/i", "/v1/g", "/v1/a"} == sdk_testbed.preflights
    assert all("content-type: text/plain" in head for head in sdk_testbed.posts("/v1/"))
    assert len(sdk_testbed.wait_for(5)) == 5
    sdk_testbed.assert_local_and_without_errors()


def test_analytics_next_sends_its_batch_when_the_tab_closes(sdk_testbed: SdkTestbed) -> None:
    """With batching enabled, queued events are sent by fetch with keepalive when the page closes."""
    batching = "deliveryStrategy: {strategy: 'batching', config: {size: 100, timeout: 60000}}"
    page = SEGMENT.open(sdk_testbed, batching)
    page.evaluate("async () => { await analytics.ready(); await analytics.page() }")
    for number in range(12):
        page.evaluate(SEGMENT.step, number)
    assert sdk_testbed.posts("/v1/") == []
    page.close(run_before_unload=True)
    sdk_testbed.wait_for(13)
    assert sdk_testbed.steps() == Counter(range(12))
    assert sdk_testbed.posts("/v1/b") == sdk_testbed.posts("/v1/")


# --------------------------------------------------------------------------------------------------- RudderStack


def test_rudderstack(sdk_testbed: SdkTestbed) -> None:
    page = RUDDER.open(sdk_testbed)
    page.evaluate("""() => {
      analytics.page('Shop')
      analytics.track('Product Viewed', {price: 42.5})
      analytics.identify('user-2', {email: 'user-2@example.com'})
      analytics.group('acme', {size: 5})
      analytics.alias('user-2-new')
    }""")
    rows = sdk_testbed.wait_for(5)
    assert_arrived_by_campaign(find_row(rows, "page"))
    assert find_row(rows, "track")["properties"] == {"price": 42.5}
    assert find_row(rows, "alias")["ids"]["user_id"] == "user-2-new"
    anonymous = page.evaluate("analytics.getAnonymousId()")
    assert sdk_testbed.identities("user_id:user-2-new") == {
        ("user_id", "user-2"),
        ("user_id", "user-2-new"),
        ("email", "user-2@example.com"),
        ("anonymous_id", anonymous),
    }
    calls = {f"/v1/{name}" for name in ("page", "track", "identify", "group", "alias")}
    assert sdk_testbed.preflights == {"/sourceConfig/"} | calls
    assert len(sdk_testbed.wait_for(5)) == 5
    sdk_testbed.assert_local_and_without_errors()


def test_rudderstack_sends_beacons_when_the_page_is_left(sdk_testbed: SdkTestbed) -> None:
    beacons = "useBeacon: true, beaconQueueOptions: {flushQueueInterval: 600000}"
    page = RUDDER.open(sdk_testbed, beacons)
    page.evaluate("() => new Promise(done => analytics.ready(done))")
    for number in range(7):
        page.evaluate(RUDDER.step, number)
    assert sdk_testbed.proxy.injected == []
    sdk_testbed.leave(page)
    sdk_testbed.wait_for(7)
    assert sdk_testbed.steps() == Counter(range(7))
    key = sdk_testbed.source.write_key.lower()
    assert sdk_testbed.beacons(f"/beacon/v1/batch?writekey={key}") == sdk_testbed.posts("/")


# ------------------------------------------------------------------------------------------------------- PostHog


def test_posthog(sdk_testbed: SdkTestbed) -> None:
    page = POSTHOG.open(sdk_testbed)
    anonymous = page.evaluate("posthog.get_distinct_id()")
    page.evaluate("""() => {
      posthog.capture('Product Viewed', {price: 42.5})
      posthog.identify('user-3', {email: 'user-3@example.com'}, {first: 1})
      posthog.setPersonProperties({plan: 'gold'})
      posthog.group('company', 'acme', {size: 5})
      posthog.alias('user-3-new')
    }""")
    rows = sdk_testbed.wait_for(6)
    assert_arrived_by_campaign(find_row(rows, "page"))
    viewed = find_row(rows, "track", "Product Viewed")
    assert (viewed["properties"]["price"], viewed["channel"]) == (42.5, "web")
    assert viewed["ids"] == {"anonymous_id": anonymous}
    assert find_row(rows, "group")["properties"]["groupId"] == "acme"
    assert sdk_testbed.identities("user_id:user-3-new") == {
        ("user_id", "user-3"),
        ("user_id", "user-3-new"),
        ("email", "user-3@example.com"),
        ("anonymous_id", anonymous),
    }
    traits = sdk_testbed.segue.get("/v1/customers/user_id:user-3")["traits"]
    assert (traits["email"], traits["plan"], "first" in traits) == ("user-3@example.com", "gold", False)
    sdk_testbed.leave(page)
    rows = sdk_testbed.wait_for(7)
    assert find_row(rows, "track", "$pageleave")["ids"] == {"user_id": "user-3", "anonymous_id": anonymous}
    [beacon] = sdk_testbed.beacons("/e/")
    assert "content-type: text/plain" in beacon  # The body is compressed with gzip, but no header indicates it.
    assert len(rows) == 7
    sdk_testbed.assert_local_and_without_errors()


# ------------------------------------------------------------------------------------------------------ Mixpanel


def test_mixpanel(sdk_testbed: SdkTestbed) -> None:
    page = MIXPANEL.open(sdk_testbed)
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
    rows = sdk_testbed.wait_for(lambda rows: any((row["traits"] or {}).get("plan") for row in rows) and len(rows) >= 8)
    assert_arrived_by_campaign(find_row(rows, "page"))
    viewed = find_row(rows, "track", "Product Viewed")
    assert (viewed["properties"]["price"], viewed["channel"]) == (42.5, "web")
    assert viewed["ids"] == {"anonymous_id": anonymous}
    assert sdk_testbed.identities("user_id:user-4-new") == {
        ("user_id", "user-4"),
        ("user_id", "user-4-new"),
        ("email", "user-4@example.com"),
        ("anonymous_id", anonymous),
    }
    traits = sdk_testbed.segue.get("/v1/customers/user_id:user-4")["traits"]
    assert (traits["email"], traits["plan"]) == ("user-4@example.com", "gold")
    assert {"first", "visits"}.isdisjoint(traits)
    sdk_testbed.leave(page)
    rows = sdk_testbed.wait_for(lambda rows: any(row["name"] == "Left" for row in rows))
    names = Counter(row["name"] for row in rows if row["name"])
    assert names == {"page_viewed": 1, "Product Viewed": 1, "Left": 1}
    assert len(sdk_testbed.beacons("/track/")) == 1
    assert sdk_testbed.preflights == set()  # Form posts need no preflight.
    sdk_testbed.assert_local_and_without_errors()


# ---------------------------------------------------------------------------------- pages that are left and reopened


_MIXPANEL_QUEUE = "Object.values(localStorage).join()"
SLOW_FLUSH = {
    "posthog": (POSTHOG, "request_queue_config: {flush_interval_ms: 5000}, opt_out_useragent_filter: true", "true"),
    # The SDK locks its queue against other tabs, so events enter it later and in any order.
    "mixpanel": (MIXPANEL, "batch_flush_interval_ms: 60000", f"{_MIXPANEL_QUEUE}.split('\"n\":').length > 5"),
}
"""(SDK, options that delay its flush, JavaScript condition that is true when all events are queued)"""


@pytest.mark.parametrize("sdk", SLOW_FLUSH)
def test_queued_events_are_sent_once_when_the_page_is_left(sdk_testbed: SdkTestbed, sdk: str) -> None:
    """Queued events are sent by beacon, and they are not sent again when the visitor returns."""
    stock, options, is_queued = SLOW_FLUSH[sdk]
    page = stock._replace(options=options).open(sdk_testbed)
    page.wait_for_load_state("networkidle")
    page.evaluate(f"() => {{ const step = {stock.step}; for (let n = 0; n < 5; n++) step(n) }}")
    page.wait_for_function(is_queued)
    assert sdk_testbed.steps() == Counter()
    sdk_testbed.leave(page)
    sdk_testbed.wait_for_steps(5)
    assert len(sdk_testbed.beacons("/")) >= 1
    page.go_back()
    page.wait_for_load_state("networkidle")
    assert sdk_testbed.steps() == Counter(range(5))


# --------------------------------------------------------------------------------------- lost responses and 503s

FAULTS: dict[str, tuple[Sdk, list[Fault], int]] = {
    "analytics-next": (SEGMENT, ["swallow", "busy"], 5),
    "rudderstack": (RUDDER, ["swallow", "busy"], 5),
    "posthog": (POSTHOG, ["swallow"], 2),
    "mixpanel": (MIXPANEL, ["busy"], 2),
    "mixpanel, which treats a lost response as success": (MIXPANEL, ["swallow"], 1),
}
"""(SDK, faults of its first requests, minimum number of requests for three events)"""


@pytest.mark.parametrize("case", FAULTS)
def test_faults_lose_and_duplicate_no_event(sdk_testbed: SdkTestbed, case: str) -> None:
    sdk, faults, posts = FAULTS[case]
    page = sdk.open(sdk_testbed)
    page.wait_for_load_state("networkidle")
    before = len(sdk_testbed.posts("/"))
    sdk_testbed.proxy.faults += faults
    for number in range(3):
        page.evaluate(sdk.step, number)
    sdk_testbed.wait_for_posts(page, before + posts)
    sdk_testbed.wait_for_steps(3)
    assert sdk_testbed.steps() == Counter(range(3))
    assert [fault for fault in sdk_testbed.proxy.injected if fault != "pass"] == faults


# ----------------------------------------------------------------------------------------------------------- GA4


def test_ga4_measurement_protocol_from_a_page(sdk_testbed: SdkTestbed) -> None:
    page = sdk_testbed.open(None, guide_code("GA4"))
    statuses = page.evaluate("""async () => {
      const body = events => JSON.stringify({client_id: '123.456', user_id: 'user-5', events})
      const json = {'Content-Type': 'application/json'}
      const request = {method: 'POST', headers: json, body: body([{name: ''}])}
      const debug = await fetch(url.replace('/mp', '/debug/mp'), request)
      const first = await fetch(url, {method: 'POST', body: body([{name: 'look'}])})
      addEventListener('pagehide', () => navigator.sendBeacon(url, body([{name: 'leave'}])))
      return [first.status, debug.status, (await debug.json()).validationMessages]
    }""")
    assert statuses[:2] == [204, 200]
    assert [message["validationCode"] for message in statuses[2]] == ["VALUE_REQUIRED"]
    sdk_testbed.leave(page)
    view, look, leave = sdk_testbed.wait_for(3)
    assert [row["name"] for row in (view, look, leave)] == ["page_viewed", "look", "leave"]
    assert (view["channel"], view["context"]["acquisition"]["campaign"]) == ("email", "spring")
    assert view["ids"] == {"anonymous_id": "123.456"}
    assert look["ids"] == leave["ids"] == {"user_id": "user-5", "anonymous_id": "123.456"}
    assert len(sdk_testbed.beacons("/mp/collect")) == 1
    assert sdk_testbed.preflights == {"/debug/mp/collect"}
    sdk_testbed.assert_local_and_without_errors()
