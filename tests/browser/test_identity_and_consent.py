"""Identity, sessions, consent and redaction of the snippet."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser.running_segue import Segue
from tests.browser.shop_pages import Shop, close_tab, flush, wait_until_ready
from tests.browser.static_site import Site
from tests.browser.visit import Visit

MakeVisit = Callable[..., Visit]

NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)

STORED_NAMES = (
    """() => [document.cookie, ...Object.keys(localStorage), ...Object.keys(sessionStorage)].filter(Boolean)"""
)


@pytest.fixture
def shop(segue: Segue, site: Site) -> Shop:
    return Shop(segue, site)


def open_page(shop: Shop, guest: Visit, path: str = "/", **options: Any) -> Page:
    page = guest.open(shop.page(path, **{"capture": False, **options}))
    wait_until_ready(page)
    return page


def anonymous_id(page: Page) -> str:
    id: str = page.evaluate("segue.user().anonymousId")
    return id


# ------------------------------------------------------------------------------------------ identity


def test_anonymous_id_is_the_hash_of_a_stored_secret(shop: Shop, visit: MakeVisit) -> None:
    guest = visit()
    first = open_page(shop, guest)
    secret = first.evaluate("localStorage.segue_v")
    hashed = first.evaluate(
        """async (key) => [...new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(key)))]
            .map((byte) => byte.toString(16).padStart(2, "0")).join("").slice(0, 32)""",
        secret,
    )
    assert anonymous_id(first) == hashed
    assert anonymous_id(open_page(shop, guest)) == hashed
    assert anonymous_id(open_page(shop, visit())) != hashed


@pytest.mark.parametrize("lost", ["cookie", "localStorage"])
def test_cookie_and_storage_restore_each_other(shop: Shop, visit: MakeVisit, lost: str) -> None:
    guest = visit()
    page = open_page(shop, guest)
    before = anonymous_id(page)
    if lost == "cookie":
        guest.context.clear_cookies()
    else:
        page.evaluate("localStorage.clear()")
    page = open_page(shop, guest)
    page.evaluate("segue.track('Back')")
    flush(page)
    [row] = shop.wait_for_names("Back")
    assert row["ids"]["anonymous_id"] == before
    assert page.evaluate("localStorage.segue_v")
    assert any(cookie["name"] == "segue_v" for cookie in guest.context.cookies())


def test_cookie_is_first_party_lax_and_lasts_400_days(shop: Shop, visit: MakeVisit) -> None:
    guest = visit()
    open_page(shop, guest)
    [cookie] = [cookie for cookie in guest.context.cookies() if cookie["name"] == "segue_v"]
    assert cookie["domain"] == "localhost"
    assert cookie["sameSite"] == "Lax"
    lifetime = datetime.fromtimestamp(cookie["expires"], UTC) - datetime.now(UTC)
    assert timedelta(days=399) < lifetime <= timedelta(days=400)


def test_cookie_domain_shares_the_visitor_between_hosts(shop: Shop, visit: MakeVisit) -> None:
    """Over plain HTTP, crypto.subtle is unavailable, so the anonymous id is random. Hosts share it nevertheless."""
    guest = visit()
    shop.page("/", capture=False, cookieDomain="shop.example.com")
    pages = [guest.open(shop.site.at(host) + "/") for host in ("www.shop.example.com", "help.shop.example.com")]
    for number, page in enumerate(pages):
        wait_until_ready(page)
        page.evaluate("(n) => segue.track('Step', { n })", number)
        flush(page)
    rows = shop.wait_for(2)
    assert len({row["ids"]["anonymous_id"] for row in rows}) == 1


def test_reset_applies_to_all_tabs(shop: Shop, visit: MakeVisit) -> None:
    guest = visit()
    one, other = open_page(shop, guest), open_page(shop, guest)
    before = anonymous_id(one)
    one.evaluate("() => { segue.reset(); segue.track('Reset') }")
    flush(one)
    other.evaluate("segue.track('Elsewhere')")
    flush(other)
    rows = shop.wait_for_names("Reset", "Elsewhere")
    [after] = {row["ids"]["anonymous_id"] for row in rows}
    assert after != before


def test_blocked_storage_loses_no_message(shop: Shop, visit: MakeVisit) -> None:
    guest = visit(storage=False)
    page = open_page(shop, guest)
    page.evaluate("() => { segue.track('One'); segue.identify('user-blocked'); segue.track('Two') }")
    flush(page)
    rows = shop.wait_for_names("One", "identify", "Two")
    assert len({row["ids"]["anonymous_id"] for row in rows}) == 1
    assert len({row["context"]["sessionId"] for row in rows}) == 1
    page.evaluate("segue.track('Three')")
    close_tab(page)
    assert len(shop.wait_for(4)) == 4
    assert guest.errors == []


# ------------------------------------------------------------------------------------------ sessions


def sessions(shop: Shop, count: int) -> list[int]:
    """Return the session of each message in order, numbered from 0."""
    rows = sorted(shop.wait_for(count), key=lambda row: row["original_timestamp"])
    assert len(rows) == count
    ids = [row["context"]["sessionId"] for row in rows]
    starts = [bool(row["context"].get("sessionStart")) for row in rows]
    numbers = [sorted(set(ids)).index(id) for id in ids]
    assert starts == [number not in numbers[:place] for place, number in enumerate(numbers)]
    return numbers


def test_a_session_ends_after_thirty_minutes_without_a_message(shop: Shop, visit: MakeVisit) -> None:
    guest = visit(now=NOON)
    page = open_page(shop, guest)
    clock = guest.context.clock
    for minutes in (0, 29, 29, 31):
        clock.fast_forward(timedelta(minutes=minutes).seconds * 1000)
        page.evaluate("segue.track('Step')")
    flush(page)
    assert sessions(shop, 4) == [0, 0, 0, 1]


def test_a_session_spans_pages_and_midnight(shop: Shop, visit: MakeVisit) -> None:
    guest = visit(now=NOON.replace(hour=23, minute=50), timezone_id="UTC")
    page = open_page(shop, guest)
    page.evaluate("segue.track('Step')")
    guest.context.clock.fast_forward("20:00")
    page = open_page(shop, guest, "/other")
    page.evaluate("segue.track('Step')")
    flush(page)
    assert sessions(shop, 2) == [0, 0]


@pytest.mark.parametrize(
    ("arrival", "referer", "expected"),
    [
        ("?utm_source=news&utm_medium=email", None, 1),
        ("?gclid=abc", None, 1),
        ("", "https://www.google.com/", 1),
        ("", None, 0),  # direct visit
    ],
)
def test_a_new_campaign_starts_a_session(
    shop: Shop, visit: MakeVisit, arrival: str, referer: str | None, expected: int
) -> None:
    guest = visit()
    url = shop.page("/", capture={"pages": True})
    flush(guest.open(url))
    shop.wait_for(1)
    page = guest.open(url + arrival, **({"referer": referer} if referer else {}))
    wait_until_ready(page)
    flush(page)
    shop.wait_for(2)
    page = guest.open(url, referer=shop.site.url + "/")  # internal link
    wait_until_ready(page)
    flush(page)
    assert sessions(shop, 3) == [0, expected, expected]


# ------------------------------------------------------------------------------------------- consent


def test_nothing_is_stored_or_sent_before_consent(shop: Shop, visit: MakeVisit) -> None:
    guest = visit()
    page = open_page(shop, guest, capture=True, consent={"required": True})
    page.evaluate("() => { segue.track('Before'); segue.identify('user-consent') }")
    page.wait_for_timeout(200)
    assert page.evaluate(STORED_NAMES) == []
    assert guest.context.cookies() == []
    assert not [url for url in guest.requests if "/v1/" in url]
    page.evaluate("() => { segue.consent(true); segue.track('After') }")
    flush(page)
    rows = shop.wait_for(lambda rows: any(row["name"] == "After" for row in rows))
    assert len({row["ids"]["anonymous_id"] for row in rows}) == 1
    assert page.evaluate("localStorage.segue_v")
    page = open_page(shop, guest, capture=False, consent={"required": True})
    page.evaluate("segue.track('Next visit')")
    flush(page)
    rows = shop.wait_for(lambda rows: any(row["name"] == "Next visit" for row in rows))
    assert len({row["ids"]["anonymous_id"] for row in rows}) == 1, "consent is remembered"


def test_refused_and_withdrawn_consent_stop_sending(shop: Shop, visit: MakeVisit) -> None:
    guest = visit()
    page = open_page(shop, guest, capture=True, consent={"required": True})
    page.evaluate("() => { segue.consent(false); segue.track('Refused') }")
    flush(page)
    close_tab(page)
    assert shop.messages() == []
    page = open_page(shop, guest, capture=False, consent={"required": True})
    page.evaluate("() => { segue.consent(true); segue.track('Granted') }")
    flush(page)
    shop.wait_for_names("Granted")
    page.evaluate("() => { segue.consent(false); segue.track('Withdrawn') }")
    flush(page)
    close_tab(page)
    shop.wait_for_names("Granted")
    assert not [cookie for cookie in guest.context.cookies() if cookie["name"] == "segue_v"]


def test_messages_contain_consent_categories(shop: Shop, visit: MakeVisit) -> None:
    page = open_page(shop, visit(), consent={"required": True})
    page.evaluate("() => { segue.consent({ analytics: true, advertising: false }); segue.track('Some') }")
    flush(page)
    [row] = shop.wait_for_names("Some")
    assert row["context"]["consent"]["categoryPreferences"] == {"analytics": True, "advertising": False}


def test_opt_out_lasts_until_opt_in(shop: Shop, visit: MakeVisit) -> None:
    guest = visit()
    page = open_page(shop, guest)
    page.evaluate("() => { segue.optOut(); segue.track('Out') }")
    flush(page)
    page = open_page(shop, guest)
    page.evaluate("segue.track('Still out')")
    flush(page)
    page = open_page(shop, guest)  # The opt-out still applies on later pages.
    page.evaluate("segue.track('And still')")
    flush(page)
    page.wait_for_timeout(200)
    assert shop.messages() == []
    assert not [cookie for cookie in guest.context.cookies() if cookie["name"] == "segue_v"]
    page.evaluate("() => { segue.optIn(); segue.track('In') }")
    flush(page)
    shop.wait_for_names("In")


@pytest.mark.parametrize(
    ("option", "signal"),
    [
        ("respectDnt", "Object.defineProperty(navigator, 'doNotTrack', { get: () => '1' })"),
        ("respectGpc", "Object.defineProperty(navigator, 'globalPrivacyControl', { get: () => true })"),
    ],
)
def test_privacy_signals_are_respected_if_configured(shop: Shop, visit: MakeVisit, option: str, signal: str) -> None:
    guest = visit(scripts=(signal,))
    page = open_page(shop, guest, "/", **{option: True})
    page.evaluate("segue.track('Respected')")
    flush(page)
    assert page.evaluate(STORED_NAMES) == []
    page = open_page(shop, guest, "/", **{option: False})
    page.evaluate("segue.track('Not asked for')")
    flush(page)
    shop.wait_for_names("Not asked for")


def test_cookieless_stores_no_identifier(shop: Shop, visit: MakeVisit) -> None:
    guest = visit()
    page = open_page(shop, guest, capture={"pages": True}, cookieless=True)
    page.evaluate("segue.track('Step')")
    flush(page)
    assert page.evaluate(STORED_NAMES) == []
    other = open_page(shop, guest, capture={"pages": True}, cookieless=True)
    flush(other)
    assert other.evaluate(STORED_NAMES) == []
    assert guest.context.cookies() == []
    rows = shop.wait_for(3)
    first, second = ({row["ids"]["anonymous_id"] for row in part} for part in (rows[:2], rows[2:]))
    assert not first & second, "page views of one visitor cannot be linked"


def test_emails_in_urls_are_redacted(shop: Shop, visit: MakeVisit) -> None:
    guest = visit()
    url = shop.page("/welcome", capture={"pages": True})
    page = guest.open(url + "?mail=jane.doe%40example.com&to=jane.doe@example.com&x=1#jane.doe@example.com")
    wait_until_ready(page)
    flush(page)
    [row] = shop.wait_for_names("page_viewed")
    assert "jane.doe" not in str(row)
    assert "x=1" in row["properties"]["url"]


def test_redact_option_removes_fields_and_emails(shop: Shop, visit: MakeVisit) -> None:
    page = open_page(shop, visit(), redact=["pin", "card"])
    page.evaluate("segue.track('Listed', { pin: 'pin-1', plain: 1, deep: [{ card: 'card-1' }] })")
    page.evaluate("segue.track('In text', { text: 'write to jane.doe@example.com' })")
    flush(page)
    rows = {row["name"]: row["properties"] for row in shop.wait_for_names("Listed", "In text")}
    assert rows["Listed"] == {"plain": 1, "deep": [{}]}
    assert rows["In text"]["text"] == "write to jane.doe@example.com", "text of the page stays unless redact is true"
    page = open_page(shop, visit(), "/all", redact=True)
    page.evaluate("segue.track('Hidden', { text: 'write to jane.doe@example.com' })")
    flush(page)
    rows = {row["name"]: row["properties"] for row in shop.wait_for(3)}
    assert rows["Hidden"]["text"] == "write to [email]"
    page.evaluate(
        "() => { segue.on('identify', (message) => { window.message = message }); segue.identify('user@example.com') }"
    )
    page.wait_for_function("() => window.message")
    assert page.evaluate("message.userId") == "user@example.com", "redacted ids would merge all users"


# ----------------------------------------------------------------------------- several users, several tabs


def test_two_users_before_consent_stay_two_customers(shop: Shop, visit: MakeVisit) -> None:
    """Held messages belong to the user who was identified at the time of the call, not to the user who consents."""
    page = open_page(shop, visit(), consent={"required": True})
    page.evaluate(
        """() => {
            segue.identify('user-first'); segue.track('First'); segue.reset();
            segue.track('Between'); segue.identify('user-second'); segue.track('Second'); segue.consent(true);
        }"""
    )
    flush(page)
    rows = shop.wait_for_names("identify", "First", "Between", "identify", "Second")
    ids = {row["name"] or row["ids"]["user_id"]: row["ids"] for row in rows}
    assert ids["First"]["user_id"] == "user-first"
    assert "user_id" not in ids["Between"]
    assert ids["Second"]["user_id"] == "user-second"
    assert ids["First"]["anonymous_id"] == ids["user-first"]["anonymous_id"]
    assert ids["Between"]["anonymous_id"] == ids["Second"]["anonymous_id"] != ids["First"]["anonymous_id"]
    first, second = (shop.segue.get(f"/v1/customers/user_id:user-{name}")["id"] for name in ("first", "second"))
    assert first != second


@pytest.mark.parametrize("refusal", ["optOut()", "consent(false)", "consent({analytics: false})"])
def test_a_refusal_applies_to_open_tabs_and_later_pages(shop: Shop, visit: MakeVisit, refusal: str) -> None:
    guest = visit()
    one, other = open_page(shop, guest), open_page(shop, guest)
    one.evaluate(f"segue.{refusal}")
    other.wait_for_function("() => !segue.user().anonymousId")
    other.evaluate("() => { segue.track('Elsewhere'); segue.identify('user-elsewhere') }")
    flush(other)
    other.wait_for_timeout(100)
    assert set(other.evaluate(STORED_NAMES)) == {"segue_c"}
    assert guest.context.cookies() == []
    later = open_page(shop, guest)
    later.evaluate("segue.track('Later')")
    flush(later)
    later.wait_for_timeout(200)
    assert shop.messages() == []


def test_a_refusal_removes_stored_items_of_other_pages(shop: Shop, visit: MakeVisit) -> None:
    guest = visit()
    page = open_page(shop, guest)
    page.evaluate("segue.identify('user-stored')")
    flush(page)
    page = open_page(shop, guest, "/cookieless", cookieless=True)
    assert page.evaluate("localStorage.segue_u") == "user-stored"
    page.evaluate("segue.optOut()")
    assert set(page.evaluate(STORED_NAMES)) == {"segue_c"}
    assert guest.context.cookies() == []


def test_a_refusal_drops_queued_messages(shop: Shop, visit: MakeVisit) -> None:
    guest = visit()
    page = open_page(shop, guest)
    guest.context.set_offline(True)
    page.evaluate("segue.track('Queued')")
    flush(page)
    page.evaluate("() => { segue.consent(false); segue.consent(true); segue.track('After') }")
    guest.context.set_offline(False)
    flush(page)
    shop.wait_for_names("After")


def test_repeated_consent_keeps_the_visitor_token(shop: Shop, visit: MakeVisit) -> None:
    guest = visit()
    page = open_page(shop, guest)
    flush(page)
    page.evaluate("segue.identify('user-token', {}, {visitorToken: 'token-1'})")
    with guest.context.expect_event("request", lambda request: "/v1/b" in request.url) as sent:
        page.evaluate("() => { segue.consent(true); segue.track('Agreed'); segue.flush() }")
    assert sent.value.post_data_json["visitor"]["token"] == "token-1"


@pytest.mark.parametrize("left_out", ["page", "context"])
def test_redacting_the_page_context_loses_no_message(shop: Shop, visit: MakeVisit, left_out: str) -> None:
    page = open_page(shop, visit(), redact=[left_out])
    page.evaluate("segue.track('Kept')")
    flush(page)
    [row] = shop.wait_for_names("Kept")
    assert shop.site.url not in str(row)


def test_identify_works_with_full_storage(shop: Shop, visit: MakeVisit) -> None:
    fill_storage = """window.fill = () => { for (const length of [100000, 1000, 10, 0])
            try { for (let n = 0; ; n++) localStorage[`fill-${length}-${n}`] = "x".repeat(length) } catch {} }"""
    page = open_page(shop, visit(scripts=(fill_storage,)))
    flush(page)
    page.evaluate("() => { fill(); segue.identify('user-full'.padEnd(100, '-')) }")
    flush(page)
    [row] = shop.wait_for_names("identify")
    assert row["ids"]["user_id"] == "user-full".ljust(100, "-")
