"""Demo shop of ``make demo-web``: started as a process, used in a browser, stopped with Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect, sync_playwright

from app.postgres.embedded import EmbeddedPostgres
from examples.demo_shop.definitions import SEGMENTS
from tests.browser.chromium import flags
from tests.browser.running_segue import Database
from tests.browser.visit import Visit
from tests.support.server_process import ROOT

START_SECONDS_MAX: Final = 60.0
STOP_SECONDS_MAX: Final = 30.0

expect.set_options(timeout=15_000)
"""Timeout of expectations in milliseconds: long enough while other tests run.

A condition that becomes true ends the wait.
"""

MakeVisit = Callable[..., Visit]

MARKUP: Final = "<img src=x onerror=\"window.hasRun='yes'\"><script>window.hasRun='yes'</script>"
"""Markup in texts from visitors. The page must show it as text and never run it."""

_RECORD_VIOLATIONS: Final = """
window.violations = [];
addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
"""

_STAGES: Final = """
SELECT t.value FROM transitions t JOIN identities i ON i.customer_id = t.customer_id
WHERE t.definition = 'journey:six-stage' AND i.kind = 'anonymous_id' AND i.value = $1 AND t.retracted_at IS NULL
ORDER BY t.entered_at
"""


class Demo:
    """The demo process and its data directory, which the tests can read."""

    def __init__(self, data: Path, log: Path) -> None:
        self.data = data
        self._log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "examples.demo_shop", "--data", str(data)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.shop = self._printed(r"Shop: +(http://\S+)")
        self.segue = self._printed(r"Segue: +(http://\S+)/docs")

    @property
    def output(self) -> str:
        return self._log.read_text()

    def _printed(self, pattern: str) -> str:
        deadline = time.monotonic() + START_SECONDS_MAX
        while (match := re.search(pattern, self.output)) is None:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"The demo did not start. Its output:\n{self.output}")
            time.sleep(0.05)
        return match[1]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_SECONDS_MAX)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def demo(chromium: Path) -> Iterator[Demo]:
    del chromium
    with tempfile.TemporaryDirectory(prefix="segue-") as directory:
        demo = Demo(Path(directory) / "data", Path(directory) / "output")
        try:
            yield demo
            assert demo.stop() == 0, demo.output
            assert "Stopped" in demo.output
            for url in (demo.shop, demo.segue):
                with pytest.raises(httpx.ConnectError):
                    httpx.get(url)
            assert EmbeddedPostgres(demo.data).pid is None
        finally:
            demo.kill()


@pytest.fixture(scope="module")
def database(demo: Demo) -> Iterator[Database]:
    with EmbeddedPostgres(demo.data) as postgres:
        database = Database(postgres.start())
        yield database
        database.close()


@pytest.fixture(scope="module")
def browser(chromium: Path, demo: Demo) -> Iterator[Browser]:
    del demo  # This fixture makes the demo start before the browser and stop after it.
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags())
        yield browser
        browser.close()


@pytest.fixture
def guest(visit: MakeVisit) -> Visit:
    return visit(scripts=(_RECORD_VIOLATIONS,), viewport={"width": 1280, "height": 800})


@pytest.fixture(scope="module")
def shop_page(browser: Browser, demo: Demo) -> Iterator[Page]:
    visit = Visit(browser)
    yield visit.open(demo.shop)
    visit.close()


def assert_no_violations(guest: Visit, page: Page) -> None:
    assert guest.errors == []
    assert page.evaluate("window.violations") == [], "the Content-Security-Policy blocked something"
    assert page.evaluate("window.hasRun") is None
    assert page.locator("img, main script, aside script").count() == 0


def current_stage(page: Page) -> Locator:
    return page.locator('#stages [aria-current="step"]')


def segment(page: Page, key: str) -> Locator:
    return page.locator(f'[data-segment="{key}"]')


def go(page: Page, link: str) -> None:
    page.get_by_role("banner").get_by_role("link", name=link).click()


def add(page: Page, *products: str) -> None:
    for product in products:
        go(page, "Products")
        page.get_by_role("link", name=product).click()
        page.get_by_role("button", name="Add to cart").click()


def anonymous_id(page: Page) -> str:
    anonymous_id: str = page.evaluate("segue.user().anonymousId")
    return anonymous_id


def test_panel_follows_a_customer_from_first_visit_to_support(demo: Demo, database: Database, guest: Visit) -> None:
    page = guest.open(f"{demo.shop}/?utm_source=google&utm_medium=cpc")
    expect(current_stage(page)).to_have_attribute("data-stage", "awareness")
    expect(page.get_by_text("Welcome!")).to_be_visible()
    expect(page.locator("#timeline li").last).to_contain_text("Paid Search")

    add(page, "Gooseneck kettle", "Stoneware mug", "Hand grinder")
    expect(current_stage(page)).to_have_attribute("data-stage", "decision")
    expect(page.get_by_text("Your cart is waiting.")).to_be_visible()
    expect(segment(page, "engaged")).to_have_class(re.compile(r"\bin\b"))
    expect(segment(page, "cart-abandoners-now")).to_have_class(re.compile(r"\bsoon\b"))
    segment(page, "engaged").locator("summary").click()
    expect(segment(page, "engaged").locator(".explanation")).to_contain_text(
        "Product Viewed at least 3 times in the last 90 seconds"
    )
    expect(segment(page, "engaged").locator(".explanation")).to_contain_text("3 counted, 3 needed")
    segment(page, "engaged").get_by_role("button").first.click()
    expect(page.locator("#timeline .highlighted")).to_contain_text("Product Viewed")

    go(page, "Cart")
    page.get_by_role("link", name="Check out").click()
    page.get_by_role("button", name="Order for").click()
    expect(current_stage(page)).to_have_attribute("data-stage", "purchase")
    expect(page.get_by_text("Thank you for your order.")).to_be_visible()
    expect(segment(page, "vip")).to_have_class(re.compile(r"\bin\b"))
    expect(segment(page, "cart-abandoners-now").locator(".state")).to_have_text("not a member")
    expect(segment(page, "vip").locator(".count")).to_have_text("161, at least 100 needed")
    assert counts_down(segment(page, "vip").locator(".state"))

    go(page, "Support")
    page.get_by_label("Subject").fill("Lid")
    page.get_by_label("Your question").fill("Does the lid come off?")
    page.get_by_role("button", name="Send").click()
    expect(current_stage(page)).to_have_attribute("data-stage", "post-purchase")
    expect(page.locator('#timeline [data-channel="support"]')).to_have_count(1)

    page.get_by_placeholder("you@example.com").fill("user@example.com")
    page.get_by_role("button", name="Subscribe").click()
    expect(segment(page, "subscribers")).to_have_class(re.compile(r"\bin\b"))
    expect(page.get_by_text("You are subscribed.")).to_be_visible()
    expect(page.locator("#newsletter")).to_be_hidden()

    stages = [row["value"] for row in database.fetch(_STAGES, anonymous_id(page))]
    assert stages == ["awareness", "consideration", "decision", "purchase", "post-purchase"]
    assert_no_violations(guest, page)


def counts_down(state: Locator) -> bool:
    """Return True if the displayed time decreases by one second at a time."""
    displayed = [seconds_left(state)]
    deadline = time.monotonic() + 5
    while len(displayed) < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
        if (left := seconds_left(state)) != displayed[-1]:
            displayed.append(left)
    return displayed == [displayed[0], displayed[0] - 1, displayed[0] - 2]


def seconds_left(state: Locator) -> int:
    match = re.search(r"(\d+):(\d\d)", state.inner_text())
    assert match, state.inner_text()
    return 60 * int(match[1]) + int(match[2])


def test_markup_from_visitors_is_shown_as_text(demo: Demo, guest: Visit) -> None:
    def add_markup(route: Route) -> None:
        products = route.fetch().json()
        products[0].update({"name": f"Kettle {MARKUP}", "text": MARKUP, "category": MARKUP})
        route.fulfill(json=products)

    guest.context.route("**/static/products.json", add_markup)
    page = guest.open(f"{demo.shop}/products/kettle")
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Kettle {MARKUP}")
    page.get_by_role("button", name="Add to cart").click()
    go(page, "Cart")
    expect(page.locator("#cart .lines a")).to_have_text(f"Kettle {MARKUP}")

    page.get_by_label("Search the shop").fill(MARKUP)
    page.get_by_label("Search the shop").press("Enter")
    expect(page.locator("#search-result")).to_contain_text(MARKUP)

    go(page, "Support")
    page.get_by_label("Subject").fill(MARKUP)
    page.get_by_label("Your question").fill(MARKUP)
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#ticket q")).to_have_text(MARKUP)

    page.evaluate("(markup) => segue.track(markup, { name: markup, [markup]: markup })", MARKUP)
    go(page, "Log in")
    page.get_by_label("First name").fill(MARKUP)
    page.get_by_label("E-mail").fill("user-2@example.com")
    page.locator("#login").get_by_role("button", name="Log in").click()
    expect(page.locator("#hello")).to_have_text(f"Good morning, {MARKUP}")  # The trait is read from Segue.

    timeline = page.locator("#timeline li")
    for event in ("Product Viewed", "Products Searched", "Support Ticket Created", "identify", MARKUP):
        expect(timeline.filter(has=page.get_by_text(event, exact=True)).first).to_contain_text(MARKUP)
    page.evaluate("document.querySelectorAll('#panel details').forEach((details) => { details.open = true })")
    assert_no_violations(guest, page)


def test_content_links_stay_on_the_shop(demo: Demo, guest: Visit) -> None:
    page = guest.open(demo.shop)
    for href in ("javascript:window.hasRun='yes'", "//elsewhere.example.com", "/\\elsewhere.example.com", "https://x"):
        path = page.evaluate("(href) => import('/static/dom.js').then((dom) => dom.ownPath(href))", href)
        assert path == "/", href
    assert_no_violations(guest, page)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ({"did": "A", "at_least": 2, "within": "1h"}, "A at least twice in the last hour"),
        ({"did": ["A", "B", "C", "D"]}, "A, B or 2 others"),
        ({"first": "*", "within": "3m"}, "first touchpoint in the last 3 minutes"),
        ({"did": "A", "where": {"total": {"gte": 5}, "plan": "pro"}}, "A where total at least 5 and plan is pro"),
        ({"sum": "total", "of": "A", "gte": 100}, "sum of total in A at least 100"),
        ({"not": {"did": "A"}}, "not"),
        ({"regularly": "A", "of_last": 3}, '{"regularly":"A","of_last":3}'),
        ({"did": "A", "salt": "x"}, '{"did":"A","salt":"x"}'),
    ],
)
def test_rule_text_is_english_or_json(shop_page: Page, rule: Any, text: str) -> None:
    assert shop_page.evaluate("(rule) => import('/static/rule_text.js').then((it) => it.ruleText(rule))", rule) == text


def test_login_identifies_the_visitor_with_a_token(demo: Demo, guest: Visit) -> None:
    page = guest.open(f"{demo.shop}/login")
    page.get_by_label("First name").fill("User")
    page.get_by_label("E-mail").fill("user-3@example.com")
    page.locator("#login").get_by_role("button", name="Log in").click()
    expect(page.locator("#hello")).to_have_text("Good morning, User")
    expect(page.locator("#identities")).to_contain_text("email user-3@example.com")
    assert not page.evaluate("segue.personalization().withheld")

    page.reload()
    expect(page.locator("#hello")).to_have_text("Good morning, User")
    anonymous_id_before = anonymous_id(page)
    go(page, "User")
    page.get_by_role("button", name="Log out").click()
    expect(page.locator("#hello")).to_have_count(0)
    expect(page.locator("#identities")).not_to_contain_text("email")
    assert anonymous_id(page) != anonymous_id_before
    assert_no_violations(guest, page)


def test_identify_without_a_token_withholds_personalization(demo: Demo, guest: Visit) -> None:
    page = guest.open(demo.shop)
    expect(current_stage(page)).to_have_attribute("data-stage", "awareness")
    page.evaluate("segue.identify('user-4', { email: 'user-4@example.com' })")
    expect(page.locator("#stage-note")).to_contain_text("withheld")
    expect(current_stage(page)).to_have_attribute("data-stage", "awareness")


def test_page_never_contains_the_secret_key(demo: Demo, guest: Visit) -> None:
    headers: list[str] = []
    guest.context.on("response", lambda response: headers.append(json.dumps(response.all_headers())))
    page = guest.open(demo.shop)
    expect(page.locator("#timeline li")).not_to_have_count(0)
    texts = [page.content(), httpx.get(f"{demo.shop}/api/definitions").text]
    texts += [path.read_text() for path in (ROOT / "examples" / "demo_shop" / "static").iterdir()]
    texts.append(json.dumps(page.evaluate("fetch('/api/explanation').then((response) => response.json())")))
    assert re.search(r"wk_\w{8}", texts[0]), "the write key is public"
    assert not any("sk_" in text for text in texts + headers)
    hosts = {url.removeprefix("http://") for url in (demo.shop, demo.segue)}
    assert guest.hosts <= hosts, "no other host is contacted"


def test_explanation_requires_the_visitor_cookie(demo: Demo, guest: Visit) -> None:
    page = guest.open(demo.shop)
    expect(page.locator("#timeline li")).not_to_have_count(0)
    id = anonymous_id(page)
    assert httpx.get(f"{demo.shop}/api/explanation").json() == {"known": False}
    assert httpx.get(f"{demo.shop}/api/explanation?anonymous_id={id}", cookies={"segue_v": id}).json() == {
        "known": False
    }


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/api/session"), ("DELETE", "/api/session"), ("POST", "/api/tickets")]
)
def test_writes_from_other_origins_are_refused(demo: Demo, method: str, path: str) -> None:
    for headers in ({}, {"origin": "https://elsewhere.example.com"}):
        assert httpx.request(method, demo.shop + path, headers=headers).status_code == 403


@pytest.mark.parametrize(
    "body", ["", "[]", "{}", '{"subject": 1, "text": "x"}', '{"subject": " ", "text": "x"}', "x" * 30_000]
)
def test_an_invalid_body_is_refused_with_a_message(demo: Demo, body: str) -> None:
    response = httpx.post(f"{demo.shop}/api/tickets", content=body, headers={"origin": demo.shop})
    assert response.status_code == 400
    assert response.json()["message"]


def test_write_key_is_refused_from_other_origins(demo: Demo, guest: Visit) -> None:
    key = re.search(r"wk_\w+", guest.open(demo.shop).content())
    assert key is not None
    body: dict[str, Any] = {"writeKey": key[0], "batch": [{"type": "track", "event": "X", "anonymousId": "a-1"}]}
    statuses = {
        origin: httpx.post(f"{demo.segue}/v1/b", json=body, headers={"origin": origin}).status_code
        for origin in (demo.shop, "https://elsewhere.example.com")
    }
    assert statuses == {demo.shop: 200, "https://elsewhere.example.com": 403}


def test_panel_is_collapsed_on_a_phone_and_opens(demo: Demo, visit: MakeVisit) -> None:
    guest = visit(viewport={"width": 390, "height": 844})
    page = guest.open(demo.shop)
    expect(page.locator("#panel-brief")).to_have_text("Awareness")
    expect(page.locator("#panel-body")).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "no horizontal scrolling"
    page.locator("#panel-toggle").press("Enter")
    expect(page.locator("#panel-toggle")).to_have_attribute("aria-expanded", "true")
    expect(segment(page, "newcomer")).to_be_visible()
    expect(page.locator("#segments > li")).to_have_count(len(SEGMENTS))
