"""The answer in the page: with the ack, without flicker, until it ends by itself, and for nobody else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, Route

from tests.browser.running_segue import Segue
from tests.browser.shop_pages import Shop, flush, until_ready
from tests.browser.static_site import Site
from tests.browser.visit import Visit

MakeVisit = Callable[..., Visit]

JOURNEY = "in-page"
VIP, SHORT, HIDDEN = "page-vip", "page-short", "page-hidden"


@pytest.fixture(scope="module")
def definitions(segue: Segue) -> None:
    """What these pages show. ``page-hidden`` is not public."""
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


def opened(shop: Shop, guest: Visit, **options: Any) -> Page:
    page = guest.open(shop.page("/", BODY, **{"capture": {"pages": True}, "personalize": True, **options}))
    until_ready(page)
    return page


def shown(page: Page) -> set[str]:
    found: list[str] = page.evaluate("[...document.querySelectorAll('p')].filter((p) => !p.hidden).map((p) => p.id)")
    return set(found)


def in_segment(page: Page, key: str) -> bool:
    found: bool = page.evaluate(
        "(key) => (segue.personalization()?.segments ?? []).some((each) => each.key === key)", key
    )
    return found


def test_receipt_contains_the_changed_personalization(segue: Segue, shop: Shop, visit: MakeVisit) -> None:
    guest = visit()
    page = opened(shop, guest)
    page.wait_for_function("() => segue.personalization()")
    asked = len(guest.requests)
    told = page.evaluate(
        """(key) => new Promise((done) => {
            segue.on("change", (me) => me.segments.some((each) => each.key === key) && done(me));
            segue.track("Became Vip");
            segue.track("Compared");
            segue.flush();
        })""",
        VIP,
    )
    assert {each["key"] for each in told["segments"]} == {VIP}, "what is not public is not told"
    assert told["stages"][JOURNEY]["stage"] == "consideration"
    assert told["stages"][JOURNEY]["content"] == {"headline": "<img src=x onerror=alert(1)>"}
    assert [url for url in guest.requests[asked:] if "/v1/me" in url] == [], "nobody asked again"
    assert shown(page) == {"vip", "any", "stage"}
    customer = segue.get(f"/v1/customers/anonymous_id:{told['anonymous_id']}")
    assert VIP in {each["key"] for each in customer["segments"]}


WATCH = """
window.hidden = [];
document.addEventListener("DOMContentLoaded", () => {
    const told = { attributes: true, subtree: true, attributeFilter: ["hidden"], attributeOldValue: true };
    new MutationObserver((all) => all.forEach(({ target, oldValue }) =>
        oldValue === null && target.hidden && hidden.push(target.id)
    )).observe(document.body, told);
});
"""


def test_elements_are_shown_without_flicker_on_the_next_page(shop: Shop, visit: MakeVisit) -> None:
    """From the stored answer, before the server has said a word; and nothing that was shown is hidden again."""
    guest = visit(scripts=(WATCH,))
    page = opened(shop, guest)
    page.evaluate("() => { segue.track('Became Vip'); segue.flush() }")
    page.wait_for_selector("#vip", state="visible")
    guest.context.route("**/v1/b", lambda route: route.abort())
    page = opened(shop, guest)
    assert shown(page) == {"vip", "any"}
    guest.context.unroute("**/v1/b")
    page = opened(shop, guest)
    page.evaluate("() => { segue.track('Compared'); segue.flush() }")
    page.wait_for_selector("#stage", state="visible")
    assert shown(page) == {"vip", "any", "stage"}
    assert page.evaluate("hidden") == []


def test_elements_added_later_are_updated(shop: Shop, visit: MakeVisit) -> None:
    page = opened(shop, visit())
    page.wait_for_function("() => segue.personalization()")
    page.evaluate("""(html) => { document.body.innerHTML = html }""", BODY.replace("hidden>for VIPs", ">for VIPs"))
    page.wait_for_selector("#not-vip", state="visible")
    assert shown(page) == {"not-vip"}


def test_an_expiring_segment_ends_in_the_page(shop: Shop, visit: MakeVisit) -> None:
    page = opened(shop, visit())
    page.evaluate("() => { segue.track('Blinked'); segue.flush() }")
    page.wait_for_selector("#any", state="visible")
    assert in_segment(page, SHORT)
    page.wait_for_selector("#any", state="hidden")
    assert not in_segment(page, SHORT)


def test_an_expiring_segment_ends_on_the_next_page(shop: Shop, visit: MakeVisit) -> None:
    page = opened(shop, visit())
    page.evaluate("() => { segue.track('Blinked'); segue.flush() }")
    page.wait_for_selector("#any", state="visible")
    page.reload()
    page.wait_for_selector("#any", state="hidden")
    assert not in_segment(page, SHORT)


def test_withdrawn_consent_hides_elements(shop: Shop, visit: MakeVisit) -> None:
    page = opened(shop, visit())
    page.evaluate("() => { segue.track('Became Vip'); segue.flush() }")
    page.wait_for_selector("#vip", state="visible")
    page.evaluate("segue.consent({ analytics: true, personalization: false })")
    page.wait_for_selector("#vip", state="hidden")
    assert page.evaluate("localStorage.segue_me") is None


def test_stream_delivers_changes_by_other_sources(segue: Segue, shop: Shop, visit: MakeVisit) -> None:
    page = opened(shop, visit(), stream=True)
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
    page = opened(shop, guest, consent={"required": True})
    asked: list[Any] = []
    guest.context.on("request", lambda request: asked.append(request.post_data_json) if request.post_data else None)
    page.evaluate("() => { segue.consent({ analytics: true, personalization: false }); segue.track('Became Vip') }")
    flush(page)
    shop.until_names("page_viewed", "Became Vip")
    assert page.evaluate("segue.personalization()?.etag") is None
    assert asked
    assert not any("me" in (each.get("visitor") or {}) for each in asked)


def test_personalization_is_withheld_after_identify(shop: Shop, visit: MakeVisit) -> None:
    page = opened(shop, visit())
    page.evaluate("() => { segue.track('Became Vip'); segue.flush() }")
    page.wait_for_selector("#vip", state="visible")
    page.evaluate("() => { segue.identify('user-known', { email: 'known@example.com' }); segue.flush() }")
    page.wait_for_function("() => segue.personalization().withheld")
    assert not in_segment(page, VIP)
    page.wait_for_selector("#vip", state="hidden")


def vouched(segue: Segue, shop: Shop, page: Page) -> str:
    """A token by which the site's own server vouches for the user that is named after the source."""
    page.wait_for_function("() => segue.user().anonymousId")
    anonymous = page.evaluate("segue.user().anonymousId")
    made = segue.post(
        "/v1/visitor-tokens",
        {"source": shop.source.key, "anonymous_id": anonymous, "user_id": f"user-{shop.source.key}"},
    )
    token: str = made["token"]
    return token


LOGIN = "([user, visitorToken]) => { segue.identify(user, {}, { visitorToken }); segue.track('Became Vip') }"


def test_a_visitor_token_allows_personalization_after_login(segue: Segue, shop: Shop, visit: MakeVisit) -> None:
    page = opened(shop, visit())
    page.evaluate(LOGIN, [f"user-{shop.source.key}", vouched(segue, shop, page)])
    flush(page)
    page.wait_for_selector("#vip", state="visible")


def test_an_older_receipt_does_not_undo_the_login(segue: Segue, shop: Shop, visit: MakeVisit) -> None:
    guest = visit()
    page = opened(shop, guest)
    flush(page)
    shop.until_names("page_viewed")
    token = vouched(segue, shop, page)
    held: list[Route] = []
    guest.context.route("**/v1/b", lambda route: route.continue_() if held else held.append(route))
    with page.expect_request("**/v1/b"):
        page.evaluate("() => { segue.track('Before'); segue.flush() }")
    page.evaluate(LOGIN, [f"user-{shop.source.key}", token])
    held[0].continue_()
    page.wait_for_selector("#vip", state="visible")
    page.evaluate("segue.track('After')")
    flush(page)
    shop.until_names("page_viewed", "Before", "identify", "Became Vip", "After")
    assert shown(page) == {"vip", "any"}


# ---------------------------------------------------------------------------------------------- attacks


def token_of(segue: Segue, shop: Shop, page: Page) -> str:
    """A token of that visitor, asked for with the secret that the page keeps."""
    proof, anonymous = page.evaluate("[localStorage.segue_v, segue.user().anonymousId]")
    visitor = {"id": anonymous, "proof": proof, "me": ""}
    answer = httpx.post(f"{segue.url}/v1/b", json={"writeKey": shop.source.write_key, "visitor": visitor, "batch": []})
    found: str = answer.json()["visitor"]["token"]
    return found


def ask_me(segue: Segue, shop: Shop, token: str) -> httpx.Response:
    return httpx.get(f"{segue.url}/v1/me", params={"writeKey": shop.source.write_key, "token": token})


def test_forged_tokens_are_refused(segue: Segue, shop: Shop, visit: MakeVisit) -> None:
    page = opened(shop, visit())
    page.evaluate("() => { segue.track('Became Vip'); segue.flush() }")
    page.wait_for_selector("#vip", state="visible")
    token = token_of(segue, shop, page)
    assert ask_me(segue, shop, token).status_code == 200
    other = Shop(segue, shop.site)
    assert ask_me(segue, other, token).status_code == 401, "of another source"
    for forged in (token[:-2] + ("AA" if token[-2:] != "AA" else "BB"), "x" + token, token.split(".")[0], "", "a.b.c"):
        answer = ask_me(segue, shop, forged)
        assert answer.status_code in (400, 401), forged
        assert VIP not in answer.text


SEND = """async ([host, writeKey, visitor, batch]) => {
    const body = JSON.stringify({ writeKey, visitor, batch });
    const answer = await fetch(host + "/v1/b", { method: "POST", body });
    return [answer.status, await answer.json()];
}"""


@pytest.fixture
def victim(shop: Shop, visit: MakeVisit) -> str:
    """The anonymous id of another visitor, who is shown something."""
    page = opened(shop, visit())
    page.evaluate("() => { segue.track('Became Vip'); segue.flush() }")
    page.wait_for_selector("#vip", state="visible")
    anonymous: str = page.evaluate("segue.user().anonymousId")
    return anonymous


def test_another_visitors_id_returns_no_personalization(
    segue: Segue, shop: Shop, visit: MakeVisit, victim: str
) -> None:
    attacker = opened(shop, visit())
    own = attacker.evaluate("localStorage.segue_v")
    for claim in (
        {"id": victim, "proof": own, "me": ""},
        {"id": victim, "proof": "0" * 32, "me": ""},
        {"id": victim, "token": token_of(segue, shop, attacker), "me": ""},
        {"id": victim, "me": ""},
    ):
        batch = [{"type": "track", "event": "x", "anonymousId": victim}]
        status, receipt = attacker.evaluate(SEND, [segue.url, shop.source.write_key, claim, batch])
        assert status == 200, "the messages are stored all the same"
        assert "me" not in receipt, claim
        assert "token" not in receipt.get("visitor", {}), claim
        assert VIP not in str(receipt)


def test_personalization_is_withheld_after_linking_another_visitor(
    segue: Segue, shop: Shop, visit: MakeVisit, victim: str
) -> None:
    """With a proof of one's own and messages that name somebody else: what is known then is withheld."""
    attacker = opened(shop, visit())
    proof, own = attacker.evaluate("[localStorage.segue_v, segue.user().anonymousId]")
    claim = {"id": own, "proof": proof, "me": ""}
    user = f"thief-of-{shop.source.key}"
    answers = []
    for batch in (
        [{"type": "track", "event": "x", "anonymousId": victim}],
        [{"type": "identify", "userId": user, "anonymousId": own}],
        [{"type": "identify", "userId": user, "anonymousId": victim}],
        [{"type": "alias", "userId": user, "previousId": victim}],
    ):
        status, receipt = attacker.evaluate(SEND, [segue.url, shop.source.write_key, claim, batch])
        assert status == 200
        assert VIP not in str(receipt), batch
        answers.append(receipt["me"]["withheld"])
    assert answers == [False, True, True, True]
    customer = segue.get(f"/v1/customers/{user}")
    assert VIP in {each["key"] for each in customer["segments"]}, "they are one customer by now"


def test_content_never_runs_as_script(shop: Shop, visit: MakeVisit) -> None:
    """Content hints come back as they were written, and the helper of attributes writes none of them into the page."""
    guest = visit(scripts=("window.ran = []; window.alert = (what) => ran.push(what);",))
    page = opened(shop, guest)
    page.evaluate("() => { segue.track('Compared'); segue.flush() }")
    page.wait_for_selector("#stage", state="visible")
    assert page.locator("#stage").inner_text() == "for those who compare"
    assert page.evaluate("ran") == []
