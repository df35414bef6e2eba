"""Who the visitor of a page is: proofs, and the tokens that stand for them. Pure.

A page makes a random secret, the proof, and its anonymous id is the hash of it. Who knows the proof owns the id, and
nothing need be remembered of it. A token says the same for a while, signed, so that the proof stays at home; the site's
own server may have one made that also says which user is logged in.
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
    """What a token says, or a proof has shown: ``expires_at`` in microseconds, as every instant.

    ``user_id`` is there while the site's own server vouches for it, which ends at ``vouched_until`` however often the
    token is renewed. One of ``anonymous_id`` and ``user_id`` is always there.
    """

    source: str = msgspec.field(name="s")
    expires_at: int = msgspec.field(name="e")
    anonymous_id: str | None = msgspec.field(name="a", default=None)
    user_id: str | None = msgspec.field(name="u", default=None)
    vouched_until: int | None = msgspec.field(name="v", default=None)


def derive_anonymous_id(proof: str) -> str | None:
    """The anonymous id that this proof owns; None for what no page of ours made."""
    if not _PROOF.fullmatch(proof):
        return None
    return sha256(proof.encode()).hexdigest()[:ID_CHARS]


def is_valid_proof(proof: str, anonymous_id: str) -> bool:
    owned = derive_anonymous_id(proof)
    return owned is not None and compare_digest(owned.encode(), anonymous_id.encode("utf-8", "surrogatepass"))


def vouch_for(source: str, anonymous_id: str | None, user_id: str | None, now: int, seconds: int) -> Visitor:
    """What the site's own server says of a visitor; holds for ``seconds``."""
    until = now + seconds * SECOND
    return Visitor(source, until, anonymous_id, user_id, until if user_id is not None else None)


def renew(visitor: Visitor, now: int, seconds: int) -> Visitor:
    """The same for another while; the word of the site's server is not made to last longer by that."""
    if visitor.anonymous_id is None:
        return visitor
    return msgspec.structs.replace(drop_expired_vouch(visitor, now), expires_at=now + seconds * SECOND)


def is_renewal_due(visitor: Visitor, now: int, seconds: int) -> bool:
    """Whether it is time for another token; one that only vouches is made anew by the site's server alone."""
    return visitor.anonymous_id is not None and visitor.expires_at - now < seconds * SECOND // 2


def sign_token(visitor: Visitor, secrets: Sequence[bytes]) -> str:
    """A token, signed with the newest of ``secrets`` (oldest first)."""
    return str(_create_signer(tuple(secrets)).dumps(msgspec.to_builtins(visitor)))


def verify_token(token: str, secrets: Sequence[bytes], source: str, now: int) -> Visitor:
    """What the token says, if one of ``secrets`` signed it, it has not ended, and it was made for this source.

    Raises :class:`InvalidToken`.
    """
    if len(token) > TOKEN_CHARS_MAX or not token.isascii() or not secrets:
        raise InvalidToken("The visitor token is not one of ours.")
    try:
        visitor = msgspec.convert(_create_signer(tuple(secrets)).loads(token), Visitor)
    except (BadData, msgspec.ValidationError):
        raise InvalidToken("The visitor token is not one of ours.") from None
    if visitor.source != source:
        raise InvalidToken("The visitor token was made for another source.")
    if visitor.expires_at <= now:
        raise InvalidToken("The visitor token has expired; get another one.")
    return drop_expired_vouch(visitor, now)


def drop_expired_vouch(visitor: Visitor, now: int) -> Visitor:
    """The visitor without what nobody vouches for any more."""
    if visitor.vouched_until is None or visitor.vouched_until > now:
        return visitor
    return msgspec.structs.replace(visitor, user_id=None, vouched_until=None)


@lru_cache(maxsize=4)
def _create_signer(secrets: tuple[bytes, ...]) -> URLSafeSerializer:
    """Signatures are HMAC-SHA-256, the key derived by HMAC too; the library compares them in constant time."""
    return URLSafeSerializer(
        list(secrets), salt=_SALT, signer_kwargs={"key_derivation": "hmac", "digest_method": sha256}
    )
