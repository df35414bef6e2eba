"""Webhook signature verification: HMAC, Standard Webhooks, and tokens for tools that do not sign.

A :class:`Scheme` verifies the raw bytes of a request against one secret of its source, in constant time. If the
signature covers a timestamp, a request whose timestamp differs too much from the time of arrival is refused. The
tolerance of each tool is longer than the period in which it retries with the old signature: a refused retry would lose
an event, while a replayed body is only a duplicate.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from binascii import Error
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b, sha256
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from app.connectors.webhook_request import WebhookRequest
from app.formats import timestamps
from app.touchpoint import SECOND

MISSING: Final = "missing"
WRONG: Final = "wrong"
STALE: Final = "stale"
REPLAYED: Final = "replayed"

_TOKEN_HASH: Final = "sha256:"
_TOKEN_CHARS_MIN: Final = 16


class SignatureRefused(Exception):
    """Raised if a request cannot be authenticated. ``reason`` is missing, wrong, stale or replayed."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheme:
    """An authentication scheme.

    ``verify(request, secret)`` raises :class:`SignatureRefused` if the signature or token is invalid.
    """

    secret_label: str
    """The vendor's name of the secret that the operator enters; empty if Segue generates the secret or needs none."""
    verify: Callable[[WebhookRequest, str], None]
    sign: Callable[[WebhookRequest, str], WebhookRequest] | None = None
    """Function that signs a request like the tool, for symmetric secrets. A trial run signs the sample with it."""
    normalise_secret: Callable[[str], str] = str.strip
    """Function that returns the secret as it is stored. Raises ValueError with the reason if the secret is invalid."""
    needs_secret: bool = True


def is_same_secret(left: str | bytes, right: str | bytes) -> bool:
    """Compare two secrets in constant time."""
    return hmac.compare_digest(_to_bytes(left), _to_bytes(right))


def require_header(delivery: WebhookRequest, name: str) -> str:
    """Return the header's value; raise SignatureRefused if it is missing or empty."""
    value = delivery.headers.get(name, "").strip()
    if not value:
        raise SignatureRefused(MISSING, f"the header {name} is missing")
    return value


def check_age(claimed: str, received_at: int, seconds_max: int) -> None:
    """Raise SignatureRefused if the signing time is more than ``seconds_max`` before or after ``received_at``.

    ``claimed`` is text or an epoch number; ``received_at`` is in microseconds.
    """
    signed_at = timestamps.parse(claimed)
    if signed_at is None:
        raise SignatureRefused(WRONG, "the signature's timestamp is invalid")
    if abs(received_at - signed_at) > seconds_max * SECOND:
        raise SignatureRefused(STALE, "the signature's timestamp is too old or in the future")


def read_token(delivery: WebhookRequest) -> str:
    """Return the request's token; empty if it is missing.

    It is read, in this order, from ``?token=``, ``?access_token=``, X-Segue-Token, a Bearer token or the password of
    Basic auth.
    """
    query = delivery.query
    token = query.get("token") or query.get("access_token") or delivery.headers.get("x-segue-token", "")
    if token:
        return token
    kind, _, value = delivery.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    if kind.lower() == "basic":
        try:
            return b64decode(value.strip(), validate=True).decode().partition(":")[2]
        except (Error, ValueError):
            return ""
    return ""


def _verify_token(delivery: WebhookRequest, secret: str) -> None:
    sent = read_token(delivery)
    if not sent:
        raise SignatureRefused(
            MISSING,
            "the token is missing: send ?token=, X-Segue-Token, Bearer, or a Basic auth password",
        )
    if not is_same_secret(_hash_token(sent), secret):
        raise SignatureRefused(WRONG, "the token does not belong to this source")


def _sign_token(delivery: WebhookRequest, secret: str) -> WebhookRequest:
    return msgspec.structs.replace(delivery, query={**delivery.query, "token": secret})


def _hash_new_token(token: str) -> str:
    if len(token.strip()) < _TOKEN_CHARS_MIN:
        raise ValueError(f"A token needs at least {_TOKEN_CHARS_MIN} characters; omit it to have one generated.")
    return _hash_token(token)


def _hash_token(token: str) -> str:
    return _TOKEN_HASH + sha256(token.strip().encode("utf-8", "replace")).hexdigest()


TOKEN: Final = Scheme(secret_label="", verify=_verify_token, sign=_sign_token, normalise_secret=_hash_new_token)
"""Scheme for tools that do not sign: a token that Segue generates and stores as a hash only."""


def hmac_scheme(
    secret_label: str,
    *,
    signature_header: str,
    digest: str = "sha256",
    encoding: str = "hex",
    prefix: str = "",
    signed_bytes: Callable[[WebhookRequest, str], bytes] = lambda delivery, _: delivery.body,
    time_header: str = "",
    seconds_max: int = 0,
    format_time: Callable[[int], str] = lambda now: str(now // SECOND),
) -> Scheme:
    """Return the scheme of an HMAC in ``signature_header`` (lower case).

    The HMAC covers ``signed_bytes(request, time)``, which is the body by default. ``time_header`` contains the signing
    time, which may differ from the time of arrival by ``seconds_max``; ``format_time`` formats such a time. The
    signature header may contain several values, separated by commas or spaces, while a tool rotates its secret.
    """

    def compute_signature(delivery: WebhookRequest, key: str, time: str) -> str:
        mac = hmac.digest(key.encode(), signed_bytes(delivery, time), digest)
        return prefix + (mac.hex() if encoding == "hex" else b64encode(mac).decode())

    def verify(delivery: WebhookRequest, key: str) -> None:
        sent = require_header(delivery, signature_header)
        time = require_header(delivery, time_header) if time_header else ""
        expected = compute_signature(delivery, key, time)
        if not any(
            is_same_secret(_lower_hex(signature, prefix, encoding), expected) for signature in split_signatures(sent)
        ):
            raise SignatureRefused(WRONG, f"the signature in {signature_header} does not match this body and secret")
        if time_header:
            check_age(time, delivery.received_at, seconds_max)

    def sign(delivery: WebhookRequest, key: str) -> WebhookRequest:
        time = format_time(delivery.received_at)
        times = {time_header: time} if time_header else {}
        return add_headers(delivery, {**times, signature_header: compute_signature(delivery, key, time)})

    return Scheme(secret_label=secret_label, verify=verify, sign=sign)


_STANDARD_SECONDS_MAX: Final = 300
_STANDARD_PREFIXES: Final = ("webhook", "svix")
_SYMMETRIC, _PUBLIC, _PRIVATE = "whsec_", "whpk_", "whsk_"


def read_standard_id(delivery: WebhookRequest) -> str:
    """Return the message id of Standard Webhooks, which is the same on every retry; empty if it is missing."""
    return next(
        (
            message_id
            for prefix in _STANDARD_PREFIXES
            if (message_id := delivery.headers.get(f"{prefix}-id", "").strip())
        ),
        "",
    )


def _verify_standard(delivery: WebhookRequest, secret: str) -> None:
    prefix = next(
        (candidate for candidate in _STANDARD_PREFIXES if f"{candidate}-signature" in delivery.headers),
        _STANDARD_PREFIXES[0],
    )
    sent, time = require_header(delivery, f"{prefix}-signature"), require_header(delivery, f"{prefix}-timestamp")
    text = f"{require_header(delivery, f'{prefix}-id')}.{time}.".encode() + delivery.body
    version, is_valid = _prepare_standard_check(text, secret)
    signatures = (entry.partition(",")[2] for entry in sent.split()[:10] if entry.partition(",")[0] == version)
    if not any(is_valid(signature) for signature in signatures):
        raise SignatureRefused(WRONG, f"no {version} signature in {prefix}-signature matches this body and secret")
    if not (time.isascii() and time.isdecimal()):
        raise SignatureRefused(WRONG, f"{prefix}-timestamp must be seconds since 1970")
    check_age(time, delivery.received_at, _STANDARD_SECONDS_MAX)


def _prepare_standard_check(text: bytes, secret: str) -> tuple[str, Callable[[str], bool]]:
    """Return the signature version of the secret, and a function that verifies one base64 signature."""
    if not secret.startswith(_PUBLIC):
        expected = _compute_standard_mac(text, secret)
        return "v1", lambda signature: is_same_secret(signature, expected)
    key = Ed25519PublicKey.from_public_bytes(_decode_key(secret))

    def is_valid(signature: str) -> bool:
        try:
            key.verify(decode_base64(signature), text)
        except (InvalidSignature, SignatureRefused):
            return False
        return True

    return "v1a", is_valid


def _sign_standard(delivery: WebhookRequest, secret: str) -> WebhookRequest:
    """Add the three headers of Standard Webhooks; raise ValueError for a public key."""
    if secret.startswith(_PUBLIC):
        raise ValueError("A public key cannot sign.")
    message_id = "msg_" + blake2b(delivery.body, digest_size=12).hexdigest()
    time = str(delivery.received_at // SECOND)
    mac = _compute_standard_mac(f"{message_id}.{time}.".encode() + delivery.body, secret)
    signed = {"webhook-id": message_id, "webhook-timestamp": time, "webhook-signature": f"v1,{mac}"}
    return add_headers(delivery, signed)


def _compute_standard_mac(text: bytes, secret: str) -> str:
    return b64encode(hmac.digest(_decode_key(secret), text, "sha256")).decode()


def _normalise_standard_secret(secret: str) -> str:
    """Return the secret with its prefix; base64 without a prefix is a shared secret (``whsec_``)."""
    normalised = secret.strip()
    if normalised.startswith(_PRIVATE):
        raise ValueError("This is the private key, which only the sender may know; enter the public key (whpk_..).")
    if not normalised.startswith((_SYMMETRIC, _PUBLIC)):
        normalised = _SYMMETRIC + normalised
    try:
        key = _decode_key(normalised)
    except (Error, ValueError):
        raise ValueError("The part after whsec_ or whpk_ must be base64.") from None
    if normalised.startswith(_PUBLIC) and len(key) != 32:
        raise ValueError(f"An Ed25519 public key has 32 bytes, not {len(key)}.")
    if not key:
        raise ValueError("The secret is empty.")
    return normalised


def _decode_key(secret: str) -> bytes:
    """Decode the base64 after the prefix of a secret. The padding may be missing."""
    encoded = secret.partition("_")[2]
    return b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)


STANDARD: Final = Scheme(
    secret_label="Signing secret (whsec_..) or public key (whpk_..)",
    verify=_verify_standard,
    sign=_sign_standard,
    normalise_secret=_normalise_standard_secret,
)
"""Scheme of Standard Webhooks, with the header names of the specification or of Svix.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""


def add_headers(delivery: WebhookRequest, headers: dict[str, str]) -> WebhookRequest:
    return msgspec.structs.replace(delivery, headers={**delivery.headers, **headers})


def split_signatures(sent: str) -> Iterable[str]:
    return sent.replace(",", " ").split()[:10]


def decode_base64(text: str) -> bytes:
    """Decode base64; raise SignatureRefused if it is invalid."""
    try:
        return b64decode(text, validate=True)
    except (Error, ValueError):
        raise SignatureRefused(WRONG, "the signature is not base64") from None


def _lower_hex(sent: str, prefix: str, encoding: str) -> str:
    """Convert a hexadecimal signature to lower case, except for its prefix."""
    return prefix + sent[len(prefix) :].lower() if encoding == "hex" and sent.startswith(prefix) else sent


def _to_bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8", "replace")
