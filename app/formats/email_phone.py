"""Canonical forms of email addresses and phone numbers, and reasons for invalid values. Pure.

A pattern recognises nearly all addresses, which are plain ASCII; their canonical form is lower case. The library
email-validator parses the rest, and agrees with the pattern on every address that matches it. Nothing checks whether
mail can be delivered or a phone number is in use: an identity must not change when a domain or a numbering plan does.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

import email_validator
import phonenumbers
from email_validator import EmailNotValidError, ValidatedEmail, validate_email
from phonenumbers import NumberParseException, PhoneNumberFormat, ValidationResult

EMAIL_CHARS_MAX: Final = 254
PHONE_CHARS_MAX: Final = 40

REASONS: Final = {
    "no_at": "it has no @",
    "too_long": "it is too long",
    "too_short": "it is too short",
    "local_part": "the part before the @ is invalid",
    "domain": "the part after the @ is not a valid domain",
    "not_a_number": "it is not a phone number",
    "no_country": "it has no country code: send it with + and the code, or set SEGUE_PHONE_COUNTRY",
    "local_only": "the area code is missing",
    "extension": "it has an extension, so it is the number of a switchboard",
    "wrong_length": "no number of that country has this length",
    "placeholder": "it is a placeholder that a template or an export left unfilled",
}
"""Reason code -> explanation for warnings and rejections."""

_ATOMS: Final = r"[a-z0-9!#$%&'*+/=?^_`{|}~-]++(?:\.[a-z0-9!#$%&'*+/=?^_`{|}~-]++)*+"
_DOMAIN: Final = r"(?:(?![^.]{2}--)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.){1,8}[a-z]{2,20}"
"""Domains of letters, digits and hyphens. Punycode, IP addresses and top-level domains with digits do not match."""
_PLAIN_LOCAL: Final = re.compile(_ATOMS, re.ASCII)
_PLAIN_ADDRESS: Final = re.compile(rf"(?=.{{6,240}}\Z){_ATOMS}@{_DOMAIN}", re.ASCII)
_COSTLY_ADDRESS: Final = re.compile(rf"[^@]+@(?!{_DOMAIN}\Z).|.*[^\x00-\x7f].*@", re.ASCII | re.DOTALL)

INTERNATIONAL_DOMAIN_CHARS_MAX: Final = 64
"""Maximum length of a domain with non-ASCII characters; converting one takes 0.02 ms for each character."""

_ODDLY_DOTTED_LOCAL: Final = re.compile(r"[a-z0-9_+.-]{1,64}", re.ASCII)
"""Pattern of local parts that violate the standard but exist.

Japanese carriers issued addresses with double or trailing dots.
"""

_SPECIAL_DOMAIN_SUFFIX: Final = ".example"
"""Suffix that is appended to a special-use domain (localhost, test, ...) before the library checks it.

The library rejects such domains, but intranets use them for mail.
"""

_REASON_IMPOSSIBLE: Final = {
    ValidationResult.TOO_SHORT: "too_short",
    ValidationResult.TOO_LONG: "too_long",
    ValidationResult.IS_POSSIBLE_LOCAL_ONLY: "local_only",
    ValidationResult.INVALID_COUNTRY_CODE: "no_country",
}
_REASON_UNREADABLE: Final = {
    NumberParseException.INVALID_COUNTRY_CODE: "no_country",
    NumberParseException.NOT_A_NUMBER: "not_a_number",
    NumberParseException.TOO_SHORT_AFTER_IDD: "too_short",
    NumberParseException.TOO_SHORT_NSN: "too_short",
    NumberParseException.TOO_LONG: "too_long",
}


class ParsedContact(NamedTuple):
    """A canonical ``value``, or the key of REASONS that explains why the value is invalid."""

    value: str | None
    reason: str = ""


def canonicalise_email(value: str) -> str | None:
    """Return the address trimmed, in lower case, its domain in punycode; None if it is invalid."""
    address = value.strip().lower()
    return address if _PLAIN_ADDRESS.fullmatch(address) else parse_email(address).value


def canonicalise_phone(value: str, country: str | None) -> str | None:
    """Return the number in E.164, or None if it is invalid. A number without + belongs to ``country``."""
    return parse_phone(value, country).value


def count_costly_chars(value: str) -> int:
    """Return the length of an address that needs the library, which takes up to 0.03 ms for each character, else 0."""
    address = value.strip().lower()
    if len(address) > EMAIL_CHARS_MAX or _COSTLY_ADDRESS.match(address) is None:
        return 0
    domain = address.rpartition("@")[2]
    return 0 if _is_refused_unread(domain) else len(address)


@lru_cache(maxsize=8192)
def parse_email(value: str) -> ParsedContact:
    """Parse any address with the library, even if the faster pattern would recognise it."""
    address = value.strip().lower()
    local, at, domain = address.rpartition("@")
    if not at or not local:
        return ParsedContact(None, "local_part" if at else "no_at")
    if len(address) > EMAIL_CHARS_MAX:
        return ParsedContact(None, "too_long")
    host = _normalise_domain(domain)
    if host is None:
        return ParsedContact(None, "domain")
    normalised = _normalise_local(local)
    # The lower case of a non-ASCII letter can be two code points that normalise to another letter. Accept only a form
    # that no longer changes.
    if normalised is None or _normalise_local(normalised) != normalised:
        if not _ODDLY_DOTTED_LOCAL.fullmatch(local):
            return ParsedContact(None, "local_part")
        normalised = local
    if len(normalised) + 1 + len(host) > EMAIL_CHARS_MAX:
        return ParsedContact(None, "too_long")
    return ParsedContact(f"{normalised}@{host}")


@lru_cache(maxsize=8192)
def _normalise_domain(domain: str) -> str | None:
    """Return the domain in punycode, or None if it is invalid or if its punycode decodes to another domain."""
    if _is_refused_unread(domain):
        return None
    host = _convert_domain(domain)
    return host if host is not None and (host == domain or _convert_domain(host) == host) else None


def _is_refused_unread(domain: str) -> bool:
    return not domain.isascii() and len(domain) > INTERNATIONAL_DOMAIN_CHARS_MAX


def _convert_domain(domain: str) -> str | None:
    is_special = domain.rpartition(".")[2] in email_validator.SPECIAL_USE_DOMAIN_NAMES
    suffix = _SPECIAL_DOMAIN_SUFFIX if is_special else ""
    validated = _validate(f"x@{domain}{suffix}")
    return None if validated is None else (validated.ascii_domain or "").removesuffix(suffix).lower()


def _normalise_local(local: str) -> str | None:
    if local.isascii():
        return local if _PLAIN_LOCAL.fullmatch(local) else None
    validated = _validate(f"{local}@example.com")
    return None if validated is None else validated.local_part.lower()


def _validate(address: str) -> ValidatedEmail | None:
    try:
        return validate_email(
            address,
            check_deliverability=False,
            globally_deliverable=False,
            allow_smtputf8=True,
            allow_quoted_local=False,
            allow_domain_literal=False,
            allow_display_name=False,
        )
    except EmailNotValidError:
        return None


@lru_cache(maxsize=8192)
def parse_phone(value: str, country: str | None) -> ParsedContact:
    """Parse a number and check its length, not the numbering plan, because plans change.

    A number with an extension is invalid: it is a switchboard's number, which many people share.
    """
    if len(value) > PHONE_CHARS_MAX:
        return ParsedContact(None, "too_long")
    try:
        number = phonenumbers.parse(value, country)
    except NumberParseException as error:
        return ParsedContact(None, _REASON_UNREADABLE.get(error.error_type, "not_a_number"))
    if number.extension:
        return ParsedContact(None, "extension")
    possible = phonenumbers.is_possible_number_with_reason(number)
    if possible != ValidationResult.IS_POSSIBLE:
        return ParsedContact(None, _REASON_IMPOSSIBLE.get(possible, "wrong_length"))
    return ParsedContact(phonenumbers.format_number(number, PhoneNumberFormat.E164))
