"""Canonical forms of identities, and junk ids. Pure.

:mod:`app.formats.email_phone` parses email addresses and phone numbers; every other id is compared exactly. Junk ids
("null", "anonymous", zeros, ...) count as absent for every kind, because one shared junk id would merge thousands of
unrelated customers.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from app.config import Settings
from app.formats import email_phone
from app.touchpoint import Identity

_INVISIBLE = frozenset({"Cf", "Cc"})
_BLANK_LETTERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")

_KIND_AND_VALUE = re.compile(r"([a-z0-9][a-z0-9_]{0,49}):(.*)", re.DOTALL)


class IdentityRules:
    """Canonicalisation of identities with the settings that it depends on, prepared once for many values."""

    def __init__(
        self, junk_ids: tuple[str, ...], junk_patterns: tuple[str, ...], phone_country: str | None, id_chars_max: int
    ) -> None:
        self._junk = frozenset(junk.strip().lower() for junk in junk_ids)
        self._junk_pattern = re.compile("|".join(f"(?:{pattern})" for pattern in junk_patterns) or r"(?!)")
        self._phone_country = phone_country
        self._id_chars_max = id_chars_max

    def is_invalid(self, value: str) -> bool:
        """Return whether the value is longer than the limit, or PostgreSQL cannot store it as text."""
        return len(value) > self._id_chars_max or "\0" in value

    def is_junk(self, value: str) -> bool:
        """Return whether the value is a configured junk id, or has only zeros, hyphens and invisible characters."""
        value = _strip_invisible(value).lower()
        return not value.strip("0-") or value in self._junk or self._junk_pattern.fullmatch(value) is not None

    def is_placeholder(self, value: str) -> bool:
        """Return whether the value is what a template or an export leaves if it has no id."""
        return self._junk_pattern.fullmatch(_strip_invisible(value).lower()) is not None

    def canonical(self, kind: str, value: str) -> str | None:
        """Return the canonical form of the value; None if it is junk or invalid for its kind."""
        if self.is_invalid(value) or self.is_junk(value):
            return None
        if kind == "email":
            address = email_phone.canonicalise_email(value)
            return address if address is None or len(address) <= self._id_chars_max else None
        if kind == "phone":
            return email_phone.canonicalise_phone(value, self._phone_country)
        return value

    def explain_invalid(self, kind: str, value: str) -> str | None:
        """Return the key of :data:`app.formats.email_phone.REASONS` for a value that has no canonical form.

        Return None for a kind that accepts every value, and for junk, which counts as absent and causes no warning. An
        unfilled placeholder of a template is junk with a warning, because the sender can fix the template.
        """
        if not self.is_invalid(value) and self.is_placeholder(value):
            return "placeholder"
        if kind not in ("email", "phone") or not value.strip() or self.is_junk(value):
            return None
        if self.is_invalid(value):
            return "too_long"
        contact = (
            email_phone.parse_email(value) if kind == "email" else email_phone.parse_phone(value, self._phone_country)
        )
        return contact.reason or "too_long"


def identity_rules(settings: Settings) -> IdentityRules:
    """Return the rules for these settings, from a cache."""
    return _identity_rules(
        settings.junk_ids, settings.junk_patterns, settings.phone_country, settings.limits.id_chars_max
    )


def canonical(kind: str, value: str, settings: Settings) -> str | None:
    """Return the canonical form of one identity; None if it is junk or invalid for its kind."""
    return identity_rules(settings).canonical(kind, value)


def parse_customer_reference(text: str, settings: Settings) -> list[Identity]:
    """Return the identities that ``kind:value`` or a bare user id can mean, most likely first; empty if invalid."""
    match = _KIND_AND_VALUE.fullmatch(text)
    readings = [(match[1], match[2])] if match else []
    rules = identity_rules(settings)
    return [
        Identity(kind, value)
        for kind, text in [*readings, ("user_id", text)]
        if _is_unicode(text) and (value := rules.canonical(kind, text)) is not None
    ]


def _is_unicode(text: str) -> bool:
    """Return whether the text is free of lone surrogates, which a decoded path can contain but a stored id cannot."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


@lru_cache(maxsize=8)
def _identity_rules(
    junk_ids: tuple[str, ...], junk_patterns: tuple[str, ...], phone_country: str | None, id_chars_max: int
) -> IdentityRules:
    return IdentityRules(junk_ids, junk_patterns, phone_country, id_chars_max)


def _strip_invisible(value: str) -> str:
    """Return the value without surrounding whitespace, and without characters that no font shows.

    These are format and control characters, such as a zero-width space, and letters that Unicode defines as blank.
    """
    if not (value.isascii() and value.isprintable()):
        value = "".join(
            char for char in value if unicodedata.category(char) not in _INVISIBLE and char not in _BLANK_LETTERS
        )
    return value.strip()
