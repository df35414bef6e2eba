"""How tools prove that a webhook is theirs. Pure: time and what was fetched come in with the delivery.

A :class:`Scheme` verifies the raw bytes of a delivery against one secret of its source, in constant time. Where a tool
signs the time of sending, a signature is refused once that lies too far from ours; how far follows from how long the
tool repeats a delivery under its old signature, for a retry that is refused would be lost, while a repeated body is
only a duplicate.
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
    """The delivery is not shown to be the tool's; ``reason`` is one of the four words above."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheme:
    """``verify(delivery, secret)`` raises :class:`SignatureRefused`."""

    secret_label: str
    """What the operator enters, in the tool's own words; empty where Segue makes it."""
    verify: Callable[[WebhookRequest, str], None]
    sign: Callable[[WebhookRequest, str], WebhookRequest] | None = None
    """The tool's part, where one secret does both: for the sample, and for trying a set-up."""
    normalise_secret: Callable[[str], str] = str.strip
    """What is stored of a secret. Raises ValueError, saying why, for one that cannot be right."""
    needs_secret: bool = True


def is_same_secret(left: str | bytes, right: str | bytes) -> bool:
    """Compared in constant time."""
    return hmac.compare_digest(_to_bytes(left), _to_bytes(right))


def require_header(delivery: WebhookRequest, name: str) -> str:
    """Raises SignatureRefused where it is missing."""
    value = delivery.headers.get(name, "").strip()
    if not value:
        raise SignatureRefused(MISSING, f"the header {name} is missing")
    return value


def check_age(claimed: str, received_at: int, seconds_max: int) -> None:
    """Refuse a time of signing (text or epoch number) that lies further from ours than that, either way."""
    signed_at = timestamps.parse(claimed)
    if signed_at is None:
        raise SignatureRefused(WRONG, "the time of the signature cannot be read")
    if abs(received_at - signed_at) > seconds_max * SECOND:
        raise SignatureRefused(STALE, "the signature is too old, or of the future")


def read_token(delivery: WebhookRequest) -> str:
    """The token of a tool that cannot sign: ``?token=`` (or OAuth's ``?access_token=``), X-Segue-Token, Bearer, or the
    password of Basic.
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
        raise SignatureRefused(MISSING, "the token is missing: ?token=, X-Segue-Token, Bearer, or Basic's password")
    if not is_same_secret(_hash_token(sent), secret):
        raise SignatureRefused(WRONG, "the token is not this source's")


def _sign_token(delivery: WebhookRequest, secret: str) -> WebhookRequest:
    return msgspec.structs.replace(delivery, query={**delivery.query, "token": secret})


def _hash_new_token(token: str) -> str:
    if len(token.strip()) < _TOKEN_CHARS_MIN:
        raise ValueError(f"A token has at least {_TOKEN_CHARS_MIN} characters; leave it out to have one generated.")
    return _hash_token(token)


def _hash_token(token: str) -> str:
    return _TOKEN_HASH + sha256(token.strip().encode("utf-8", "replace")).hexdigest()


TOKEN: Final = Scheme(secret_label="", verify=_verify_token, sign=_sign_token, normalise_secret=_hash_new_token)
"""For tools that sign nothing: a token that Segue makes, and keeps only the hash of."""


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
    """HMAC of the body, or of what ``signed_bytes(delivery, time)`` makes of it, in ``signature_header`` (lower case).

    ``time_header`` carries when it was signed, refused past ``seconds_max``; ``format_time`` writes such a time.
    Several values may stand in the header, parted by commas or spaces, while a tool rotates its secret.
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
            raise SignatureRefused(WRONG, f"the signature in {signature_header} is not that of this body and secret")
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
    """The id of a message by Standard Webhooks, the same on each retry; empty if there is none."""
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
        raise SignatureRefused(WRONG, f"no {version} signature in {prefix}-signature is that of this body and secret")
    if not (time.isascii() and time.isdecimal()):
        raise SignatureRefused(WRONG, f"{prefix}-timestamp must be seconds since 1970")
    check_age(time, delivery.received_at, _STANDARD_SECONDS_MAX)


def _prepare_standard_check(text: bytes, secret: str) -> tuple[str, Callable[[str], bool]]:
    """(version that the secret is for, whether a signature in base64 holds)."""
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
    """Raises ValueError for a public key, which signs nothing."""
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
    """``whsec_..`` or ``whpk_..``; base64 without a prefix is a shared secret."""
    normalised = secret.strip()
    if normalised.startswith(_PRIVATE):
        raise ValueError("This is the private key, which only the sender may have; enter the public one: whpk_..")
    if not normalised.startswith((_SYMMETRIC, _PUBLIC)):
        normalised = _SYMMETRIC + normalised
    try:
        key = _decode_key(normalised)
    except (Error, ValueError):
        raise ValueError("After whsec_ or whpk_ there must be base64.") from None
    if normalised.startswith(_PUBLIC) and len(key) != 32:
        raise ValueError(f"A public key of ed25519 has 32 bytes, not {len(key)}.")
    if not key:
        raise ValueError("The secret is empty.")
    return normalised


def _decode_key(secret: str) -> bytes:
    """Padding may be missing."""
    encoded = secret.partition("_")[2]
    return b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)


STANDARD: Final = Scheme(
    secret_label="Signing secret (whsec_..) or public key (whpk_..)",
    verify=_verify_standard,
    sign=_sign_standard,
    normalise_secret=_normalise_standard_secret,
)
"""Standard Webhooks, under its own names of headers or Svix's."""


def add_headers(delivery: WebhookRequest, headers: dict[str, str]) -> WebhookRequest:
    return msgspec.structs.replace(delivery, headers={**delivery.headers, **headers})


def split_signatures(sent: str) -> Iterable[str]:
    return sent.replace(",", " ").split()[:10]


def decode_base64(text: str) -> bytes:
    """Raises SignatureRefused for what is none."""
    try:
        return b64decode(text, validate=True)
    except (Error, ValueError):
        raise SignatureRefused(WRONG, "the signature is not base64") from None


def _lower_hex(sent: str, prefix: str, encoding: str) -> str:
    """Hex may come in either case."""
    return prefix + sent[len(prefix) :].lower() if encoding == "hex" and sent.startswith(prefix) else sent


def _to_bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8", "replace")
