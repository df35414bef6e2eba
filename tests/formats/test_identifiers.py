"""Tests of canonical identities, junk ids, and customer references in URLs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.config import JUNK_IDS, Settings
from app.formats import email_phone
from app.formats.identifiers import canonical, identity_rules, parse_customer_reference
from app.touchpoint import Identity

SETTINGS = Settings()
BRITISH = Settings(phone_country="GB")


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("user_id", "User 1 ", "User 1 "),
        ("user_id", "x" * 255, "x" * 255),
        ("user_id", "x" * 256, None),
        ("user_id", "a\0b", None),
        ("user_id", "0a", "0a"),
        ("user_id", "-2", "-2"),
        ("anonymous_id", "0-0", None),
        ("customer_io", "000", None),
        ("email", " User@Example.COM ", "user@example.com"),
        ("email", "user", None),
        ("email", "@example.com", None),
        ("email", "user@", None),
        ("email", "a@b@example.com", None),
        ("email", "\u0130" * 126 + "@" + "\u0130" * 3, None),
        ("email", "user@mail.example.co.uk", "user@mail.example.co.uk"),
        ("email", "a@localhost", "a@localhost"),
        ("email", "A@shop.test", "a@shop.test"),
        ("email", "a@intra.local", "a@intra.local"),
        ("email", "a@B\u00fccher.de", "a@xn--bcher-kva.de"),
        ("email", "a@xn--bcher-kva.de", "a@xn--bcher-kva.de"),
        ("email", "a@stra\u00dfe.de", "a@xn--strae-oqa.de"),
        ("email", "\u00c4rger@example.com", "\u00e4rger@example.com"),
        ("email", "A\u0308rger@example.com", "\u00e4rger@example.com"),
        ("email", "a..b@example.com", "a..b@example.com"),
        ("email", "A.@Docomo.example.com", "a.@docomo.example.com"),
        ("email", "a..(b)@example.com", None),
        ("email", "a b@example.com", None),
        ("email", "user@example..com", None),
        ("email", "User <user@example.com>", None),
        ("phone", "+44 20 7946 0958", "+442079460958"),
        ("phone", "tel:+44-20-7946-0958", "+442079460958"),
        ("phone", "020 7946 0958", None),
        ("phone", "+44 20 7946 0958 ext 7", None),
        ("phone", "+1", None),
        ("phone", "call me", None),
        ("phone", "+" + "4" * 200, None),
    ],
)
def test_canonical_form(kind: str, value: str, expected: str | None) -> None:
    assert canonical(kind, value, SETTINGS) == expected


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        ("email", "user", "no_at"),
        ("email", "user@", "domain"),
        ("email", "@example.com", "local_part"),
        ("email", "a b@example.com", "local_part"),
        ("email", "user@exa mple.com", "domain"),
        ("email", "a@b@example.com", "local_part"),
        ("email", "a" * 250 + "@example.com", "too_long"),
        ("email", "a" * 300, "too_long"),
        ("phone", "020 7946 0958", "no_country"),
        ("phone", "+999 12345", "no_country"),
        ("phone", "+442", "too_short"),
        ("phone", "+44 20 7946 0958 12345", "too_long"),
        ("phone", "+1 555 1234", "local_only"),
        ("phone", "+44 20 7946 0958 ext 7", "extension"),
        ("phone", "call me", "not_a_number"),
        ("phone", "+" + "4" * 200, "too_long"),
        ("user_id", "x" * 256, None),
        ("email", "null", None),
        ("phone", " ", None),
        ("email", "000", None),
    ],
)
def test_invalid_value_has_a_reason(kind: str, value: str, reason: str | None) -> None:
    assert canonical(kind, value, SETTINGS) is None
    assert identity_rules(SETTINGS).explain_invalid(kind, value) == reason
    assert reason is None or email_phone.REASONS[reason]


LABEL = st.from_regex(r"[a-z0-9]{1,12}(-[a-z0-9]{1,6})?", fullmatch=True)
LOCAL = st.from_regex(r"[A-Za-z0-9_+.-]{1,30}", fullmatch=True)
ADDRESSES = st.builds(
    lambda local, labels, end: f"{local}@{'.'.join([*labels, end])}",
    LOCAL,
    st.lists(LABEL, max_size=4),
    st.from_regex(r"[A-Za-z]{1,21}", fullmatch=True)
    | st.sampled_from(["test", "local", "localhost", "invalid", "123"]),
)


@given(ADDRESSES | st.emails() | st.from_regex(email_phone._PLAIN_ADDRESS, fullmatch=True))
def test_pattern_and_library_agree_on_email_addresses(address: str) -> None:
    quick, library = email_phone.canonicalise_email(address), email_phone.parse_email(address).value
    assert quick == library
    if library is not None and address.isascii():
        assert library == address.strip().lower()


@given(st.text(st.characters(), max_size=80), st.sampled_from(["email", "phone"]))
def test_value_has_a_canonical_form_or_a_reason(value: str, kind: str) -> None:
    rules = identity_rules(SETTINGS)
    if not value.strip() or rules.is_junk(value):
        return
    assert rules.canonical(kind, value) is not None or rules.explain_invalid(kind, value) in email_phone.REASONS


def test_national_phone_number_uses_the_configured_country() -> None:
    assert canonical("phone", "020 7946 0958", BRITISH) == "+442079460958"
    assert canonical("phone", "0044 20 7946 0958", BRITISH) == "+442079460958"


@pytest.mark.parametrize("kind", ["user_id", "email", "phone", "anonymous_id", "hub_spot"])
@pytest.mark.parametrize("junk", JUNK_IDS)
def test_junk_ids_are_absent_for_all_kinds_in_any_case(kind: str, junk: str) -> None:
    for spelling in (junk, junk.upper(), junk.title(), f" {junk}\t"):
        assert canonical(kind, spelling, SETTINGS) is None


def test_junk_ids_are_configurable() -> None:
    settings = Settings(junk_ids=("Tester",))
    assert canonical("user_id", "tester", settings) is None
    assert canonical("user_id", "guest", settings) == "guest"
    assert canonical("user_id", " ", settings) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("u1", [("user_id", "u1")]),
        ("user_id:u1", [("user_id", "u1"), ("user_id", "user_id:u1")]),
        ("email:User@Example.com", [("email", "user@example.com"), ("user_id", "email:User@Example.com")]),
        ("anonymous_id:a:b/c", [("anonymous_id", "a:b/c"), ("user_id", "anonymous_id:a:b/c")]),
        ("https://example.com/u", [("https", "//example.com/u"), ("user_id", "https://example.com/u")]),
        ("User: 1", [("user_id", "User: 1")]),
        (":x", [("user_id", ":x")]),
        ("user_id:null", [("user_id", "user_id:null")]),
        ("null", []),
        ("", []),
        ("user_id:\ud800", []),
    ],
)
def test_customer_references(text: str, expected: list[tuple[str, str]]) -> None:
    assert parse_customer_reference(text, SETTINGS) == [Identity(*pair) for pair in expected]


@given(st.text(st.characters(), max_size=300), st.sampled_from(["user_id", "email", "phone", "tool"]))
def test_canonical_is_idempotent_and_never_raises(value: str, kind: str) -> None:
    parse_customer_reference(f"{kind}:{value}", SETTINGS)
    once = canonical(kind, value, SETTINGS)
    if once is not None:
        assert canonical(kind, once, SETTINGS) == once
        assert 1 <= len(once) <= 255


@pytest.mark.parametrize(
    "placeholder",
    [
        "{{user.id}}",
        "{{ user.id | default: '' }}",
        "{% user_id %}",
        "<%= user.id %>",
        "${userId}",
        "#{user_id}",
        "[[user_id]]",
        "*|UNIQID|*",
        "%USER_ID%",
        "%%user_id%%",
        "YOUR_USER_ID",
        "your-user-id",
        "yourUserId",
        "INSERT_USER_ID_HERE",
        "(null)",
        "<null>",
        "<nil>",
        "(not set)",
        "{user_id}",
        "<user_id>",
        "\\N",
        "\u200b{{user.id}}\ufeff",
    ],
)
def test_unfilled_placeholder_is_ignored_and_reported(placeholder: str) -> None:
    for kind in ("user_id", "anonymous_id", "email", "phone", "tool"):
        assert canonical(kind, placeholder, Settings()) is None
        assert identity_rules(Settings()).explain_invalid(kind, placeholder) == "placeholder"


@pytest.mark.parametrize(
    "blank",
    ["\u200b", "\u200b\u200c\u200d\u2060\ufeff", "\u00a0", "\u3164", "\u2800", "\u00ad0", "\u200bnull", "n.a.", "N.A"],
)
def test_invisible_and_blank_ids_are_junk(blank: str) -> None:
    for kind in ("user_id", "anonymous_id", "tool"):
        assert canonical(kind, blank, Settings()) is None


@pytest.mark.parametrize(
    "id",
    [
        "user-1",
        "100%",
        "50%-off-buyer",
        "a{b}c",
        "{1b4e28ba-2fa1-11d2-883f-0016d3cca427}",
        "$device:7",
        "yourself",
        "my-user",
        "nullable",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "\\nobody",
        "(7)",
        "your_user_id_42",
    ],
)
def test_ids_that_resemble_placeholders_are_identities(id: str) -> None:
    assert canonical("user_id", id, Settings()) == id


def test_junk_patterns_are_configurable() -> None:
    settings = Settings(junk_patterns=("test-[0-9]+",))
    assert canonical("user_id", "TEST-12", settings) is None
    assert canonical("user_id", "{{user.id}}", settings) == "{{user.id}}"
    assert canonical("user_id", "anything", Settings(junk_patterns=())) == "anything"
    with pytest.raises(ValidationError, match="regular expression"):
        Settings(junk_patterns=("(",))


@pytest.mark.parametrize(
    ("address", "is_costly"),
    [
        ("o'brien+tag@shop.example.com", False),
        ("a..b@example.com", False),
        ("not an address", False),
        ("@", False),
        ("jörg@example.com", True),
        ("user@bücher.example", True),
        ("user@xn--bcher-kva.example", True),
        ("user@example.c0m", True),
    ],
)
def test_costly_addresses_are_recognised(address: str, is_costly: bool) -> None:
    assert email_phone.count_costly_chars(address) == (len(address) if is_costly else 0)


@given(st.text(st.characters(max_codepoint=127), min_size=1, max_size=30))
def test_ascii_local_part_needs_no_library(local: str) -> None:
    local = local.lower()
    validated = email_phone._validate(f"{local}@example.com")
    assert email_phone._normalise_local(local) == (validated and validated.local_part)


def test_long_internationalised_domain_is_refused_before_it_is_converted() -> None:
    assert email_phone.parse_email("user@" + "ä" * 30 + ".example").value is not None
    assert email_phone.parse_email("user@" + ".".join(["ä" * 30] * 3) + ".example").reason == "domain"
