"""E-mail addresses and phone numbers in their one canonical form, and why a value is none. Pure.

Nearly every address is plain ASCII that a pattern recognises, and its canonical form is itself in lower case; any other
goes to email-validator, and the two agree wherever the pattern matches. Whether mail can be delivered is not asked, nor
whether a phone number is in use: an identity must not change when a domain or a numbering plan does.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

import email_validator
import phonenumbers
from email_validator import EmailNotValidError, validate_email
from phonenumbers import NumberParseException, PhoneNumberFormat, ValidationResult

EMAIL_CHARS_MAX: Final = 254
PHONE_CHARS_MAX: Final = 40

REASONS: Final = {
    "no_at": "there is no @ in it",
    "too_long": "it is too long",
    "too_short": "it is too short",
    "local_part": "what stands before the @ cannot stand there",
    "domain": "what stands after the @ is no domain",
    "not_a_number": "it is no phone number",
    "no_country": "it has no country: write it with + or set SEGUE_PHONE_COUNTRY",
    "local_only": "the area code is missing",
    "extension": "it has an extension, which is a switchboard's",
    "wrong_length": "no number of that country is so long",
}

# Words and digits with single dots and hyphens between them: no quotes, no punycode, no IP address, no odd top level.
_PLAIN_ADDRESS: Final = re.compile(
    r"[a-z0-9_+-]{1,25}+(?:\.[a-z0-9_+-]{1,25}+){0,2}@(?:[a-z0-9]{1,20}+(?:-[a-z0-9]{1,20}+)?\.){1,3}[a-z]{2,20}",
    re.ASCII,
)

_ODDLY_DOTTED_LOCAL: Final = re.compile(r"[a-z0-9_+.-]{1,64}", re.ASCII)
"""Against the standard, and real: Japanese carriers gave their customers addresses with two dots, or one at an end."""

_SPECIAL_DOMAIN_SUFFIX: Final = ".example"
"""Put behind a domain of special use (localhost, test, ...), which the library refuses and intranets have mail in."""

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
    """A canonical ``value``, or the word of REASONS why there is none."""

    value: str | None
    reason: str = ""


def canonicalise_email(value: str) -> str | None:
    """Trimmed and in lower case, the domain as DNS has it (a name beyond ASCII in punycode)."""
    address = value.strip().lower()
    return address if _PLAIN_ADDRESS.fullmatch(address) else parse_email(address).value


def canonicalise_phone(value: str, country: str | None) -> str | None:
    """E.164; a number without + is read with ``country``."""
    return parse_phone(value, country).value


@lru_cache(maxsize=8192)
def parse_email(value: str) -> ParsedContact:
    """By the library, whatever it looks like."""
    address = value.strip().lower()
    local, at, domain = address.rpartition("@")
    if not at or not local:
        return ParsedContact(None, "local_part" if at else "no_at")
    if len(address) > EMAIL_CHARS_MAX:
        return ParsedContact(None, "too_long")
    normalised = _normalise_address(local, domain)
    if normalised is None:
        host = _normalise_address("x", domain)
        if host is None:
            return ParsedContact(None, "domain")
        if _ODDLY_DOTTED_LOCAL.fullmatch(local):
            return ParsedContact(local + host.removeprefix("x"))
        return ParsedContact(None, "local_part")
    # Lower case of a letter beyond ASCII may be two letters, which together are another one: the form must be final.
    return (
        ParsedContact(normalised)
        if _normalise_address(*normalised.rsplit("@", 1)) == normalised
        else ParsedContact(None, "local_part")
    )


def _normalise_address(local: str, domain: str) -> str | None:
    is_special = domain.rpartition(".")[2] in email_validator.SPECIAL_USE_DOMAIN_NAMES
    suffix = _SPECIAL_DOMAIN_SUFFIX if is_special else ""
    try:
        validated = validate_email(
            f"{local}@{domain}{suffix}",
            check_deliverability=False,
            globally_deliverable=False,
            allow_smtputf8=True,
            allow_quoted_local=False,
            allow_domain_literal=False,
            allow_display_name=False,
        )
    except EmailNotValidError:
        return None
    address = f"{validated.local_part}@{(validated.ascii_domain or '').removesuffix(suffix)}".lower()
    return address if len(address) <= EMAIL_CHARS_MAX else None


@lru_cache(maxsize=8192)
def parse_phone(value: str, country: str | None) -> ParsedContact:
    """By possible length, not by today's numbering plan. A number with an extension tells nobody apart."""
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
