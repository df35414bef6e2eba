"""Sessions that the server computes for visits with two tabs, two devices and campaigns."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from playwright.sync_api import Page

from tests.browser.running_segue import Row, Segue
from tests.browser.shop_pages import Shop, flush, wait_until_ready
from tests.browser.static_site import Site
from tests.browser.visit import Visit

MakeVisit = Callable[..., Visit]

PHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.5 Mobile/15E148 Safari/604.1"
)


def identify(page: Page, user: str) -> None:
    wait_until_ready(page)
    page.evaluate("(user) => { segue.identify(user) }", user)
    flush(page)


def has_page_views(count: int) -> Callable[[Sequence[Row]], bool]:
    return lambda rows: len([row for row in rows if row["type"] == "page"]) == count


def test_tabs_and_devices_of_one_customer_share_a_session(segue: Segue, site: Site, visit: MakeVisit) -> None:
    shop = Shop(segue, site)
    home, hats = shop.page("/"), shop.page("/hats")
    laptop, phone = visit(), visit(user_agent=PHONE)
    first = laptop.open(home)
    identify(first, "user-of-two-devices")
    shop.wait_for(has_page_views(1))
    identify(laptop.open(hats, referer=home), "user-of-two-devices")
    shop.wait_for(has_page_views(2))
    identify(phone.open(home), "user-of-two-devices")
    shop.wait_for(has_page_views(3))

    response = segue.get("/v1/customers/user-of-two-devices/sessions")
    [session] = response["items"]
    assert response["totals"]["count"] == 1
    assert (session["pages"], session["open"], session["bounced"]) == (3, True, False)
    assert (session["entry_page"]["path"], session["exit_page"]["path"]) == ("/", "/")
    assert [device["type"] for device in session["devices"]] == ["desktop", "mobile"]
    assert session["acquisition"]["group"] == "Direct"
    ids = [page.evaluate("String(segue.user().sessionId)") for page in (first, phone.context.pages[0])]
    assert session["session_ids"] == ids


def test_a_campaign_starts_a_session_in_browser_and_server(segue: Segue, site: Site, visit: MakeVisit) -> None:
    shop = Shop(segue, site)
    home = shop.page("/")
    guest = visit()
    paths = ("?utm_source=news&utm_medium=email&utm_campaign=may", "", "?gclid=abc", "?gclid=xyz")
    for number, query in enumerate(paths, 1):
        wait_until_ready(guest.open(home + query))
        shop.wait_for(has_page_views(number))
    anonymous = guest.context.pages[0].evaluate("segue.user().anonymousId")

    sessions = segue.get(f"/v1/customers/anonymous_id:{anonymous}/sessions")["items"]
    assert [session["acquisition"]["group"] for session in sessions] == ["Paid Search", "Paid Search", "Email"]
    assert [session["pages"] for session in sessions] == [1, 1, 2]
    assert [session["begun_by"] for session in sessions] == ["campaign", "campaign", "first"]
    assert [len(session["session_ids"]) for session in sessions] == [1, 1, 1]
    assert len({session["session_ids"][0] for session in sessions}) == 3
