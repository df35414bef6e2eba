"""Personalization in the page: delivery, immediate display, expiry, and access control."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, Route

from tests.browser.running_segue import Segue
from tests.browser.shop_pages import Shop, flush, wait_until_ready
from tests.browser.static_site import Site
from tests.browser.visit import Visit

MakeVisit = Callable[..., Visit]

JOURNEY = "in-page"
VIP, SHORT, HIDDEN = "page-vip", "page-short", "page-hidden"


@pytest.fixture(scope="module")
def definitions(segue: Segue) -> None:
    """Create the definitions that the pages display. The segment ``page-hidden`` is not public."""
    for key, rule, public in (
        (VIP, {"did": "Became Vip"}, True),
        (SHORT, {"did": "Blinked", "within": "3s"}, True),
        (HIDDEN, {"did": "Became Vip"}, False),
    ):
        segue.post("/v1/segments", {"key": key, "rule": rule, "public": public})
    stages = [
        {"key": "awareness", "rule": {"did": "page_viewed"}},
        {
            "key": "consideration",
            "rule": {"did": "Compared"},
            "content": {"headline": "<img src=x onerror=alert(1)>"},
        },
    ]
    segue.post("/v1/journeys", {"key": JOURNEY, "stages": stages, "public": True})


@pytest.fixture
def shop(segue: Segue, site: Site, definitions: None) -> Shop:
    del definitions
    return Shop(segue, site)


BODY = f"""
<p id="vip" data-segue-segment="{VIP}" hidden>for VIPs</p>
<p id="not-vip" data-segue-segment="!{VIP}" hidden>for others</p>
<p id="any" data-segue-segment="{SHORT} {VIP}" hidden>for either</p>
<p id="stage" data-segue-stage="{JOURNEY}:consideration" hidden>for those who compare</p>
"""


def open_page(shop: Shop, guest: Visit, **options: Any) -> Page:
    page = guest.open(shop.page("/", BODY, **{"capture": {"pages": True}, "personalize": True, **options}))
    wait_until_ready(page)
    return page


def visible_ids(page: Page) -> set[str]:
    ids: list[str] = page.evaluate("[...document.querySelectorAll('p')].filter((p) => !p.hidden).map((p) => p.id)")
    return set(ids)


def is_in_segment(page: Page, key: str) -> bool:
    is_member: bool = page.evaluate(
        "(key) => (segue.personalization()?.segments ?? []).some((segment) => segment.key === key)", key
    )
    return is_member


def test_receipt_contains_the_changed_personalization(segue: Segue, shop: Shop, visit: MakeVisit) -> None:
    guest = visit()
    page = open_page(shop, guest)
    page.wait_for_function("() => segue.personalization()")
    request_count = len(guest.requests)
    me = page.evaluate(
        """(key) => new Promise((done) => {
            segue.on("change", (me) => me.segments.some((segment) => segment.key === key) && done(me));
            segue.track("Became Vip");
            segue.track("Compared");
            segue.flush();
        })""",
        VIP,
    )
    assert {segment["key"] for segment in me["segments"]} == {VIP}, "only public segments"
    assert me["stages"][JOURNEY]["stage"] == "consideration"
    assert me["stages"][JOURNEY]["content"] == {"headline": "<img src=x onerror=alert(1)>"}
    assert [url for url in guest.requests[request_count:] if "/v1/me" in url] == [], "no extra request"
    assert visible_ids(page) == {"vip", "any", "stage"}
    customer = segue.get(f"/v1/customers/anonymous_id:{me['anonymous_id']}")
    assert VIP in {segment["key"] for segment in customer["segments"]}


RECORD_HIDING = """
window.hidden = [];
document.addEventListener("DOMContentLoaded", () => {
    const options = { attributes: true, subtree: true, attributeFilter: ["hidden"], attributeOldValue: true };
    new MutationObserver((changes) => changes.forEach(({ target, oldValue }) =>
        oldValue === null && target.hidden && hidden.push(target.id)
    )).observe(document.body, options);
});
"""


def test_elements_are_shown_immediately_on_the_next_page(shop: Shop, visit: MakeVisit) -> None:
    """Elements are shown from storage before the server responds, and they are not hidden again."""
    guest = visit(scripts=(RECORD_HIDING,))
    page = open_page(shop, guest)
    page.evaluate("() => { segue.track('Became Vip'); segue.flush() }")
    page.wait_for_selector("#vip", state="visible")
    guest.context.route("**/v1/b", lambda route: route.abort())
    page = open_page(shop, guest)
    assert visible_ids(page) == {"vip", "any"}
    guest.context.unroute("**/v1/b")
    page = open_page(shop, guest)
    page.evaluate("() => { segue.track('Compared'); segue.flush() }")
    page.wait_for_selector("#stage", state="visible")
    assert visible_ids(page) == {"vip", "any", "stage"}
    assert page.evaluate("hidden") == []


def test_elements_added_later_are_updated(shop: Shop, visit: MakeVisit) -> None:
    page = open_page(shop, visit())
    page.wait_for_function("() => segue.personalization()")
    page.evaluate("""(html) => { document.body.innerHTML = html }""", BODY.replace("hidden>for VIPs", ">for VIPs"))
    page.wait_for_selector("#not-vip", state="visible")
    assert visible_ids(page) == {"not-vip"}


def test_an_expiring_segment_ends_in_the_page(shop: Shop, visit: MakeVisit) -> None:
    page = open_page(shop, visit())
    page.evaluate("() => { segue.track('Blinked'); segue.flush() }")
    page.wait_for_selector("#any", state="visible")
    assert is_in_segment(page, SHORT)
    page.wait_for_selector("#any", state="hidden")
    assert not is_in_segment(page, SHORT)


def test_an_expiring_segment_ends_on_the_next_page(shop: Shop, visit: MakeVisit) -> None:
    page = open_page(shop, visit())
    page.evaluate("() => { segue.track('Blinked'); segue.flush() }")
    page.wait_for_selector("#any", state="visible")
    page.reload()
    page.wait_for_selector("#any", state="hidden")
    assert not is_in_segment(page, SHORT)


def test_withdrawn_consent_hides_elements(shop: Shop, visit: MakeVisit) -> None:
    page = open_page(shop, visit())
    page.evaluate("() => { segue.track('Became Vip'); segue.flush() }")
    page.wait_for_selector("#vip", state="visible")
    page.evaluate("segue.consent({ analytics: true, personalization: false })")
    page.wait_for_selector("#vip", state="hidden")
    assert page.evaluate("localStorage.segue_me") is None


def test_stream_delivers_changes_by_other_sources(segue: Segue, shop: Shop, visit: MakeVisit) -> None:
    page = open_page(shop, visit(), stream=True)
    page.wait_for_function("() => segue.personalization()")
    anonymous = page.evaluate("segue.user().anonymousId")
    sent = httpx.post(
        f"{segue.url}/v1/track",
        json={"anonymousId": anonymous, "event": "Became Vip", "messageId": f"server-{anonymous}"},
        auth=(shop.source.write_key, ""),
    )
    assert sent.status_code == 200
    page.wait_for_selector("#vip", state="visible")


def test_personalization_requires_consent(shop: Shop, visit: MakeVisit) -> None:
    guest = visit()
    page = open_page(shop, guest, consent={"required": True})
    bodies: list[Any] = []
    guest.context.on("request", lambda request: bodies.append(request.post_data_json) if request.post_data else None)
    page.evaluate("() => { segue.consent({ analytics: true, personalization: false }); segue.track('Became Vip') }")
    flush(page)
    shop.wait_for_names("page_viewed", "Became Vip")
    assert page.evaluate("segue.personalization()?.etag") is None
    assert bodies
    assert not any("me" in (body.get("visitor") or {}) for body in bodies)


def test_identify_withholds_the_history_of_the_claimed_user(shop: Shop, visit: MakeVisit) -> None:
    """Without a token, the page still sees what the visitor did before, and nothing that follows."""
    page = open_page(shop, visit())
    page.evaluate("() => { segue.identify('user-known', { email: 'known@example.com' }); segue.flush() }")
    page.wait_for_function("() => segue.personalization().withheld")
    page.evaluate("() => { segue.track('Became Vip'); segue.flush() }")
    page.wait_for_function("() => segue.personalization().withheld")
    assert not is_in_segment(page, VIP)
    page.wait_for_selector("#vip", state="hidden")


def create_visitor_token(segue: Segue, shop: Shop, page: Page) -> str:
    """Create a visitor token for the source's user, as the site's own server does."""
    page.wait_for_function("() => segue.user().anonymousId")
    anonymous = page.evaluate("segue.user().anonymousId")
    response = segue.post(
        "/v1/visitor-tokens",
        {"source": shop.source.key, "anonymous_id": anonymous, "user_id": f"user-{shop.source.key}"},
    )
    token: str = response["token"]
    return token


LOGIN = "([user, visitorToken]) => { segue.identify(user, {}, { visitorToken }); segue.track('Became Vip') }"


def test_a_visitor_token_allows_personalization_after_login(segue: Segue, shop: Shop, visit: MakeVisit) -> None:
    page = open_page(shop, visit())
    page.evaluate(LOGIN, [f"user-{shop.source.key}", create_visitor_token(segue, shop, page)])
    flush(page)
    page.wait_for_selector("#vip", state="visible")


def test_an_older_receipt_does_not_undo_the_login(segue: Segue, shop: Shop, visit: MakeVisit) -> None:
    guest = visit()
    page = open_page(shop, guest)
    flush(page)
    shop.wait_for_names("page_viewed")
    token = create_visitor_token(segue, shop, page)
    held: list[Route] = []
    guest.context.route("**/v1/b", lambda route: route.continue_() if held else held.append(route))
    with page.expect_request("**/v1/b"):
        page.evaluate("() => { segue.track('Before'); segue.flush() }")
    page.evaluate(LOGIN, [f"user-{shop.source.key}", token])
    held[0].continue_()
    page.wait_for_selector("#vip", state="visible")
    page.evaluate("segue.track('After')")
    flush(page)
    shop.wait_for_names("page_viewed", "Before", "identify", "Became Vip", "After")
    assert visible_ids(page) == {"vip", "any"}


# ---------------------------------------------------------------------------------------------- attacks


def request_token(segue: Segue, shop: Shop, page: Page) -> str:
    """Request a visitor token with the visitor proof that the page stores."""
    proof, anonymous = page.evaluate("[localStorage.segue_v, segue.user().anonymousId]")
    visitor = {"id": anonymous, "proof": proof, "me": ""}
    response = httpx.post(
        f"{segue.url}/v1/b", json={"writeKey": shop.source.write_key, "visitor": visitor, "batch": []}
    )
    token: str = response.json()["visitor"]["token"]
    return token


def get_me(segue: Segue, shop: Shop, token: str) -> httpx.Response:
    return httpx.get(f"{segue.url}/v1/me", params={"writeKey": shop.source.write_key, "token": token})


def test_forged_tokens_are_refused(segue: Segue, shop: Shop, visit: MakeVisit) -> None:
    page = open_page(shop, visit())
    page.evaluate("() => { segue.track('Became Vip'); segue.flush() }")
    page.wait_for_selector("#vip", state="visible")
    token = request_token(segue, shop, page)
    assert get_me(segue, shop, token).status_code == 200
    other = Shop(segue, shop.site)
    assert get_me(segue, other, token).status_code == 401, "token of another source"
    for forged in (token[:-2] + ("AA" if token[-2:] != "AA" else "BB"), "x" + token, token.split(".")[0], "", "a.b.c"):
        response = get_me(segue, shop, forged)
        assert response.status_code in (400, 401), forged
        assert VIP not in response.text


SEND = """async ([host, writeKey, visitor, batch]) => {
    const body = JSON.stringify({ writeKey, visitor, batch });
    const response = await fetch(host + "/v1/b", { method: "POST", body });
    return [response.status, await response.json()];
}"""


@pytest.fixture
def victim(shop: Shop, visit: MakeVisit) -> str:
    """Return the anonymous id of another visitor, who is in a segment."""
    page = open_page(shop, visit())
    page.evaluate("() => { segue.track('Became Vip'); segue.flush() }")
    page.wait_for_selector("#vip", state="visible")
    anonymous: str = page.evaluate("segue.user().anonymousId")
    return anonymous


def test_another_visitors_id_returns_no_personalization(
    segue: Segue, shop: Shop, visit: MakeVisit, victim: str
) -> None:
    attacker = open_page(shop, visit())
    own = attacker.evaluate("localStorage.segue_v")
    for claim in (
        {"id": victim, "proof": own, "me": ""},
        {"id": victim, "proof": "0" * 32, "me": ""},
        {"id": victim, "token": request_token(segue, shop, attacker), "me": ""},
        {"id": victim, "me": ""},
    ):
        batch = [{"type": "track", "event": "x", "anonymousId": victim}]
        status, receipt = attacker.evaluate(SEND, [segue.url, shop.source.write_key, claim, batch])
        assert status == 200, "the messages are stored"
        assert "me" not in receipt, claim
        assert "token" not in receipt.get("visitor", {}), claim
        assert VIP not in str(receipt)


def test_personalization_is_withheld_after_linking_another_visitor(
    segue: Segue, shop: Shop, visit: MakeVisit, victim: str
) -> None:
    """A visitor sends valid messages that link another visitor's id to their own. Personalization is then withheld."""
    attacker = open_page(shop, visit())
    proof, own = attacker.evaluate("[localStorage.segue_v, segue.user().anonymousId]")
    claim = {"id": own, "proof": proof, "me": ""}
    user = f"attacker-of-{shop.source.key}"
    withheld = []
    for batch in (
        [{"type": "track", "event": "x", "anonymousId": victim}],
        [{"type": "identify", "userId": user, "anonymousId": own}],
        [{"type": "identify", "userId": user, "anonymousId": victim}],
        [{"type": "alias", "userId": user, "previousId": victim}],
    ):
        status, receipt = attacker.evaluate(SEND, [segue.url, shop.source.write_key, claim, batch])
        assert status == 200
        assert VIP not in str(receipt), batch
        withheld.append(receipt["me"]["withheld"])
    assert withheld == [False, True, True, True]
    customer = segue.get(f"/v1/customers/{user}")
    assert VIP in {segment["key"] for segment in customer["segments"]}, "both visitors are one customer now"


def test_content_never_runs_as_script(shop: Shop, visit: MakeVisit) -> None:
    """Stage content is returned unchanged, and the snippet does not write it into the page."""
    guest = visit(scripts=("window.ran = []; window.alert = (text) => ran.push(text);",))
    page = open_page(shop, guest)
    page.evaluate("() => { segue.track('Compared'); segue.flush() }")
    page.wait_for_selector("#stage", state="visible")
    assert page.locator("#stage").inner_text() == "for those who compare"
    assert page.evaluate("ran") == []
