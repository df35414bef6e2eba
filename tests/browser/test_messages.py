"""Messages of the snippet: Segment's methods, page views, context and automatic capture."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from playwright.sync_api import Page, Route

from tests.browser.running_segue import Row, Segue
from tests.browser.shop_pages import Shop, flush, wait_until_ready
from tests.browser.static_site import Site
from tests.browser.visit import Visit

MakeVisit = Callable[..., Visit]


@pytest.fixture
def shop(segue: Segue, site: Site) -> Shop:
    return Shop(segue, site)


def test_every_method_is_stored_once(shop: Shop, visit: MakeVisit) -> None:
    guest = visit()
    page = guest.open(shop.page("/", capture=False))
    wait_until_ready(page)
    first = page.evaluate("segue.user().anonymousId")
    page.evaluate(
        """() => {
            segue.page("Docs", "Start", { section: 1 });
            segue.track("Product Viewed", { price: 19.99, tags: ["a", "b"] });
            segue.identify("user-calls", { plan: "gold", email: "calls@example.com" });
            segue.group("company-1", { seats: 5 });
            segue.alias("user-calls-new", "user-calls");
            segue.track("Product Added");
        }"""
    )
    flush(page)
    page.evaluate("() => { segue.reset(); segue.track('After') }")
    flush(page)
    second = page.evaluate("segue.user()")
    rows = shop.wait_for_names("page_viewed", "Product Viewed", "identify", "group", "alias", "Product Added", "After")
    by_name = {row["name"] or row["type"]: row for row in rows}
    assert [row["type"] for row in rows] == ["page", "track", "identify", "group", "alias", "track", "track"]
    viewed = by_name["page_viewed"]["properties"]
    assert {key: viewed[key] for key in ("category", "name", "section", "path", "title")} == {
        "category": "Docs",
        "name": "Start",
        "section": 1,
        "path": "/",
        "title": "home",
    }
    assert by_name["Product Viewed"]["properties"] == {"price": 19.99, "tags": ["a", "b"]}
    assert by_name["identify"]["traits"] == {"plan": "gold", "email": "calls@example.com"}
    assert by_name["Product Viewed"]["ids"] == {"anonymous_id": first}
    assert by_name["identify"]["ids"] == {
        "user_id": "user-calls",
        "email": "calls@example.com",
        "anonymous_id": first,
    }
    assert by_name["alias"]["ids"]["user_id"] == "user-calls-new"
    assert by_name["alias"]["ids"]["previous_id"] == "user-calls"
    assert by_name["Product Added"]["ids"]["anonymous_id"] == first
    assert by_name["After"]["ids"] == {"anonymous_id": second["anonymousId"]}
    assert second["anonymousId"] != first
    assert not second["userId"]
    assert {row["context"]["library"]["name"] for row in rows} == {"segue.js"}
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert guest.errors == []


def test_early_calls_keep_order_and_time(shop: Shop, visit: MakeVisit) -> None:
    guest = visit()

    loaded_at: list[datetime] = []

    def delay(route: Route) -> None:
        time.sleep(0.3)
        loaded_at.append(datetime.now(UTC))
        route.continue_()

    guest.context.route("**/segue*.js", delay)
    calls = "segue.identify('user-early'); segue.track('Early', {n: 1}); segue.track('Early', {n: 2});"
    page = guest.open(shop.page("/", calls=calls, capture=False))
    wait_until_ready(page)
    flush(page)
    rows = shop.wait_for(3)
    assert [(row["type"], row["properties"].get("n")) for row in rows] == [
        ("identify", None),
        ("track", 1),
        ("track", 2),
    ]
    assert all(row["ids"]["user_id"] == "user-early" for row in rows)
    called_at = [datetime.fromisoformat(row["original_timestamp"]) for row in rows]
    assert max(called_at) < loaded_at[0], "time of the call, not of the request"


def test_ready_and_on_call_their_handlers(shop: Shop, visit: MakeVisit) -> None:
    calls = """
        window.calls = [];
        segue.ready(() => calls.push("ready"));
        segue.on("track", (...args) => calls.push(args));
        segue.on("track", () => { throw new Error("error of the page") });
        segue.track("Tracked", { n: 1 });
    """
    page = visit().open(shop.page("/", calls=calls, capture=False))
    wait_until_ready(page)
    flush(page)
    shop.wait_for_names("Tracked")
    calls = page.evaluate("calls")
    assert calls.count("ready") == 1
    [arguments] = [call for call in calls if call != "ready"]
    assert "Tracked" in str(arguments)


def test_single_page_navigation_records_page_views(shop: Shop, visit: MakeVisit) -> None:
    """Each new address is recorded as a page view. A new fragment of the same page is not."""
    page = visit().open(shop.page("/", capture={"pages": True}))
    wait_until_ready(page)
    shop.wait_for_names("page_viewed")
    page.evaluate("() => { document.views = 0; segue.on('page', () => document.views++) }")
    for views, step in (
        (1, "history.pushState({}, '', '/boots'); document.title = 'Boots'"),
        (1, "history.pushState({}, '', '/boots')"),
        (2, "history.replaceState({}, '', '/boots?colour=red'); document.title = 'Red boots'"),
        (2, "location.hash = '#reviews'"),
        (3, "location.hash = '#/sizes'"),
        (4, "history.back()"),
        (5, "history.go(-2)"),
    ):
        page.evaluate(f"() => {{ {step} }}")
        page.wait_for_function("(views) => document.views === views", arg=views)
        page.wait_for_timeout(70)
    flush(page)
    rows = shop.wait_for(6)
    assert [url_path(row) for row in rows] == [
        "/",
        "/boots",
        "/boots?colour=red",
        "/boots?colour=red#/sizes",
        "/boots?colour=red",
        "/boots",
    ]
    assert [row["properties"]["title"] for row in rows][:3] == ["home", "Boots", "Red boots"]
    assert rows[1]["properties"]["referrer"] == shop.site.url + "/", "the previous page"


def url_path(row: Row) -> str:
    url: str = row["properties"]["url"]
    return "/" + url.split("/", 3)[3]


def test_page_view_contains_campaign_and_context(shop: Shop, visit: MakeVisit) -> None:
    guest = visit(viewport={"width": 1111, "height": 777}, locale="de-AT", timezone_id="Asia/Tokyo")
    url = shop.page("/landing", capture={"pages": True})
    query = "?utm_source=News&utm_medium=email&utm_campaign=spring&utm_term=boots&utm_content=top&gclid=Cj0&x=1"
    page = guest.open(url + query, referer="https://mail.example.com/inbox")
    wait_until_ready(page)
    page.evaluate("segue.track('Looked')")
    flush(page)
    view, looked = shop.wait_for_names("page_viewed", "Looked")
    context = view["context"]
    assert context["campaign"] == {
        "source": "News",
        "medium": "email",
        "name": "spring",
        "term": "boots",
        "content": "top",
    } | {key: context["campaign"][key] for key in context["campaign"].keys() & {"gclid", "click_id"}}
    assert context["page"]["url"] == url + query
    assert (context["page"]["path"], context["page"]["search"]) == ("/landing", query)
    assert context["page"]["referrer"] == "https://mail.example.com/inbox"
    assert context["page"]["title"] == "landing"
    assert (context["locale"], context["timezone"]) == ("de-AT", "Asia/Tokyo")
    assert (context["client"]["browser"], context["client"]["device"]) == ("Chrome", "desktop")
    assert "1111" in str(context["screen"])
    assert "777" in str(context["screen"])
    assert "Cj0" in str(context["campaign"]) + str(context.get("clickIds", ""))
    assert looked["context"]["page"]["path"] == "/landing"
    assert context["acquisition"]["click_id"] == "gclid"


# ------------------------------------------------------------------------------------------- automatic capture


def open_capturing(shop: Shop, guest: Visit, kind: str, body: str) -> Page:
    page = guest.open(shop.page("/", body, capture={"pages": True, kind: True}))
    wait_until_ready(page)
    return page


def only_properties(shop: Shop, name: str) -> dict[str, Any]:
    """Return the properties of the only message that is not the page view."""
    row, _ = sorted(shop.wait_for_names(name, "page_viewed"), key=lambda row: row["name"] == "page_viewed")
    properties: dict[str, Any] = row["properties"]
    return properties


def test_outbound_link_click_is_captured(shop: Shop, visit: MakeVisit) -> None:
    elsewhere = shop.site.at("partner.localhost") + "/offer?id=7"
    shop.site.page("/offer", "the partner")
    body = f'<a id="in" href="#here">in</a> <a id="out" href="{elsewhere}"><b>To the partner</b></a>'
    page = open_capturing(shop, visit(), "links", body)
    page.click("#in")
    page.click("#out b", button="right")
    page.click("#out b")
    page.wait_for_url("**/offer?id=7")
    properties = only_properties(shop, "Outbound Link Clicked")
    assert properties["url"] == elsewhere
    assert properties["text"] == "To the partner"


def test_download_is_captured(shop: Shop, visit: MakeVisit) -> None:
    shop.site.page("/files/Catalogue.PDF", b"%PDF-1.4", {"Content-Type": "application/pdf"})
    page = open_capturing(shop, visit(), "downloads", '<a href="/files/Catalogue.PDF?v=2" download>Catalogue</a>')
    with page.expect_download():
        page.click("a")
    properties = only_properties(shop, "File Downloaded")
    assert properties["url"] == shop.site.url + "/files/Catalogue.PDF?v=2"
    assert properties["extension"].lower() == "pdf"


def test_form_submission_is_captured_without_its_fields(shop: Shop, visit: MakeVisit) -> None:
    shop.site.page("/thanks", "thanks")
    body = """<form id="join" name="newsletter" action="/thanks" method="post"><input name="mail" value="secret-input">
        <input name="pin" type="password" value="secret-pin"><button>Join</button></form>"""
    page = open_capturing(shop, visit(), "forms", body)
    page.click("button")
    page.wait_for_url("**/thanks")
    properties = only_properties(shop, "Form Submitted")
    assert properties["id"] == "join"
    assert properties["name"] == "newsletter"
    assert "secret" not in str(shop.messages())


def test_scroll_depth_is_captured_once_per_quarter(shop: Shop, visit: MakeVisit) -> None:
    page = open_capturing(shop, visit(), "scroll", '<div style="height: 5000px">long</div>')
    page.evaluate("() => { document.depths = 0; segue.on('track', () => document.depths++) }")
    for depths, scroll in enumerate(("scrollTo(0, 2000)", "scrollTo(0, document.body.scrollHeight)"), start=1):
        page.evaluate(scroll)
        page.wait_for_function("(depths) => document.depths === depths", arg=depths)
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(300)
    flush(page)
    rows = [row for row in shop.wait_for(3) if row["type"] == "track"]
    assert {row["name"] for row in rows} == {"Page Scrolled"}
    assert [row["properties"]["percent"] for row in rows] == [50, 100]


def test_visible_time_is_captured_when_the_page_hides(shop: Shop, visit: MakeVisit) -> None:
    guest = visit(now=datetime.now(UTC))
    page = open_capturing(shop, guest, "time", "words")
    guest.context.clock.run_for(12_000)
    page.goto("about:blank")
    properties = only_properties(shop, "Page Left")
    assert 12 <= properties["seconds"] < 60


def test_rage_click_is_captured(shop: Shop, visit: MakeVisit) -> None:
    page = open_capturing(shop, visit(), "clicks", '<button id="buy" onclick="this.textContent += 1">Buy</button>')
    page.click("#buy", click_count=5)
    flush(page)
    properties = only_properties(shop, "Rage Click")
    assert "buy" in str(properties)


def test_dead_click_is_captured(shop: Shop, visit: MakeVisit) -> None:
    body = '<button id="dead">Nothing</button> <button id="alive" onclick="this.textContent += 1">Something</button>'
    guest = visit(now=datetime.now(UTC))
    page = open_capturing(shop, guest, "clicks", body)
    page.click("#alive")
    guest.context.clock.run_for(5_000)
    page.click("#dead")
    guest.context.clock.run_for(5_000)
    flush(page)
    properties = only_properties(shop, "Dead Click")
    assert "dead" in str(properties)


def test_javascript_errors_are_captured(shop: Shop, visit: MakeVisit) -> None:
    page = open_capturing(shop, visit(), "errors", "")
    page.evaluate("() => { setTimeout(() => { throw new TypeError('no such shoe') }); }")
    page.evaluate("() => { Promise.reject(new RangeError('too many shoes')); }")
    page.wait_for_timeout(50)
    flush(page)
    rows = [row for row in shop.wait_for_names(*["JavaScript Error"] * 2, "page_viewed") if row["type"] == "track"]
    assert {"no such shoe" in str(row["properties"]) for row in rows} == {True, False}
    assert any("too many shoes" in str(row["properties"]) for row in rows)


def test_site_search_is_captured(shop: Shop, visit: MakeVisit) -> None:
    guest = visit()
    page = guest.open(shop.page("/search", capture={"pages": True, "search": True}) + "?q=red%20boots")
    wait_until_ready(page)
    flush(page)
    assert only_properties(shop, "Site Searched")["query"] == "red boots"
