"""Visitor proofs and visitor tokens, by which a page shows that it may read a visitor's profile. Pure.

A page creates a random secret, the proof; the hash of the proof is its anonymous id. A client that knows the proof owns
the id, so nothing has to be stored. A visitor token replaces the proof for a limited time and is signed. The site's own
server can request a token that also vouches for the user id of a logged-in user.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from hmac import compare_digest
from typing import Final

import msgspec
from itsdangerous import BadData, URLSafeSerializer

from app.errors import InvalidToken
from app.touchpoint import SECOND

ID_CHARS: Final = 32
TOKEN_CHARS_MAX: Final = 8_000

_PROOF: Final = re.compile(r"[0-9a-f]{32}")
_SALT: Final = b"segue.visitor"


class Visitor(msgspec.Struct, frozen=True, omit_defaults=True):
    """The visitor that a token or a proof identifies; instants are in microseconds since the epoch.

    ``user_id`` is set while the site's own server vouches for it: until ``vouched_until``, which a renewal does not
    extend. At least one of ``anonymous_id`` and ``user_id`` is set.
    """

    source: str = msgspec.field(name="s")
    expires_at: int = msgspec.field(name="e")
    anonymous_id: str | None = msgspec.field(name="a", default=None)
    user_id: str | None = msgspec.field(name="u", default=None)
    vouched_until: int | None = msgspec.field(name="v", default=None)


def derive_anonymous_id(proof: str) -> str | None:
    """Return the anonymous id that belongs to the proof; None if the proof is malformed."""
    if not _PROOF.fullmatch(proof):
        return None
    return sha256(proof.encode()).hexdigest()[:ID_CHARS]


def is_valid_proof(proof: str, anonymous_id: str) -> bool:
    """Return True if the anonymous id belongs to the proof; compares in constant time."""
    owned = derive_anonymous_id(proof)
    return owned is not None and compare_digest(owned.encode(), anonymous_id.encode("utf-8", "surrogatepass"))


def vouch_for(source: str, anonymous_id: str | None, user_id: str | None, now: int, seconds: int) -> Visitor:
    """Return the visitor for whom the site's own server vouches, valid for ``seconds``."""
    until = now + seconds * SECOND
    return Visitor(source, until, anonymous_id, user_id, until if user_id is not None else None)


def renew(visitor: Visitor, now: int, seconds: int) -> Visitor:
    """Return the visitor with a later expiry; the vouched user id still ends at ``vouched_until``."""
    if visitor.anonymous_id is None:
        return visitor
    return msgspec.structs.replace(drop_expired_vouch(visitor, now), expires_at=now + seconds * SECOND)


def is_renewal_due(visitor: Visitor, now: int, seconds: int) -> bool:
    """Return True if half of the lifetime has passed; only the site renews tokens without an anonymous id."""
    return visitor.anonymous_id is not None and visitor.expires_at - now < seconds * SECOND // 2


def sign_token(visitor: Visitor, secrets: Sequence[bytes]) -> str:
    """Return a token that is signed with the last, newest element of ``secrets``."""
    return str(_create_signer(tuple(secrets)).dumps(msgspec.to_builtins(visitor)))


def verify_token(token: str, secrets: Sequence[bytes], source: str, now: int) -> Visitor:
    """Return the visitor of a token.

    Raises:
        InvalidToken: none of ``secrets`` signed the token, it has expired, or it belongs to another source.
    """
    if len(token) > TOKEN_CHARS_MAX or not token.isascii() or not secrets:
        raise InvalidToken("The visitor token is invalid.")
    try:
        visitor = msgspec.convert(_create_signer(tuple(secrets)).loads(token), Visitor)
    except (BadData, msgspec.ValidationError):
        raise InvalidToken("The visitor token is invalid.") from None
    if visitor.source != source:
        raise InvalidToken("The visitor token belongs to another source.")
    if visitor.expires_at <= now:
        raise InvalidToken("The visitor token has expired; request a new one.")
    return drop_expired_vouch(visitor, now)


def drop_expired_vouch(visitor: Visitor, now: int) -> Visitor:
    """Return the visitor without a user id whose ``vouched_until`` has passed."""
    if visitor.vouched_until is None or visitor.vouched_until > now:
        return visitor
    return msgspec.structs.replace(visitor, user_id=None, vouched_until=None)


@lru_cache(maxsize=4)
def _create_signer(secrets: tuple[bytes, ...]) -> URLSafeSerializer:
    """Return a signer with HMAC-SHA-256, whose key is derived by HMAC; it compares signatures in constant time."""
    return URLSafeSerializer(
        list(secrets), salt=_SALT, signer_kwargs={"key_derivation": "hmac", "digest_method": sha256}
    )
