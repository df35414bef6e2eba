"""Canonical forms of identities, junk, and references as they stand in a URL."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config import JUNK_IDS, Settings
from app.touchpoint import Identity
from app.wire.identifiers import canonical, reference

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
        ("phone", "+44 20 7946 0958", "+442079460958"),
        ("phone", "tel:+44-20-7946-0958", "+442079460958"),
        ("phone", "020 7946 0958", None),
        ("phone", "+44 20 7946 0958 ext 7", None),
        ("phone", "+1", None),
        ("phone", "call me", None),
        ("phone", "+" + "4" * 200, None),
    ],
)
def test_canonical(kind: str, value: str, expected: str | None) -> None:
    assert canonical(kind, value, SETTINGS) == expected


def test_a_national_number_is_read_with_the_country_of_the_workspace() -> None:
    assert canonical("phone", "020 7946 0958", BRITISH) == "+442079460958"
    assert canonical("phone", "0044 20 7946 0958", BRITISH) == "+442079460958"


@pytest.mark.parametrize("kind", ["user_id", "email", "phone", "anonymous_id", "hub_spot"])
@pytest.mark.parametrize("junk", JUNK_IDS)
def test_junk_is_absent_for_every_kind_in_any_case(kind: str, junk: str) -> None:
    for spelling in (junk, junk.upper(), junk.title(), f" {junk}\t"):
        assert canonical(kind, spelling, SETTINGS) is None


def test_the_junk_list_is_a_setting() -> None:
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
def test_references(text: str, expected: list[tuple[str, str]]) -> None:
    assert reference(text, SETTINGS) == [Identity(*pair) for pair in expected]


@given(st.text(st.characters(), max_size=300), st.sampled_from(["user_id", "email", "phone", "tool"]))
def test_canonical_is_idempotent_and_never_raises(value: str, kind: str) -> None:
    reference(f"{kind}:{value}", SETTINGS)
    once = canonical(kind, value, SETTINGS)
    if once is not None:
        assert canonical(kind, once, SETTINGS) == once
        assert 1 <= len(once) <= 255
