"""Visitors of web pages: verification of their claims, their public profile, and their part of a receipt."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final

import msgspec
import structlog
from starlette.requests import Request

from app.errors import InvalidToken
from app.formats.timestamps import rfc3339
from app.http.dependencies import Services
from app.http.responses import encode_json, format_instant
from app.queries.public_profile import PublicProfile, public_profile_of
from app.queries.replay_limit import HeavyRead
from app.queries.visitor_customers import VisitorCustomers
from app.registry import visitor_tokens
from app.registry.access import WriteKeyGrant
from app.registry.visitor_tokens import Visitor
from app.touchpoint import SECOND, VouchedVisitor

_TAG_BYTES: Final = 12

_log = structlog.get_logger(__name__)


class _Claim(msgspec.Struct):
    """The field ``visitor`` of an envelope."""

    id: str | None = None
    proof: str | None = None
    token: str | None = None
    me: str | None = None


class ClaimedVisitor(msgspec.Struct):
    """The visitor who sent an envelope; ``visitor`` is None if the claim is invalid.

    ``profile_etag`` is the ETag of the profile that the page has; None if the page does not request its profile.
    """

    visitor: Visitor | None
    profile_etag: str | None = None
    is_renewal_due: bool = False

    @property
    def vouched(self) -> VouchedVisitor | None:
        """The visitor if its ids are both known for certain; messages that contain both then link them for certain."""
        visitor = self.visitor
        if visitor is None or visitor.user_id is None or visitor.anonymous_id is None:
            return None
        return VouchedVisitor(visitor.user_id, visitor.anonymous_id)


async def verify_claim(request: Request, services: Services, grant: WriteKeyGrant, content: bytes) -> ClaimedVisitor:
    """Verify the visitor of an envelope. An invalid claim is not an error: the messages are stored anyway.

    Raise :class:`RateLimited`.
    """
    if "origin" not in request.headers:  # the middleware has already counted requests with an Origin
        await services.rate_limits.count_address(request.client and request.client.host)
    try:
        claim = msgspec.json.decode(content, type=_Claim)
        visitor, is_renewal_due = _verify_visitor(services, grant, claim)
    except (msgspec.DecodeError, InvalidToken):
        return ClaimedVisitor(None)
    await services.rate_limits.count_visitor(visitor.source, build_counter_name(visitor))
    return ClaimedVisitor(visitor, claim.me, is_renewal_due)


def _verify_visitor(services: Services, grant: WriteKeyGrant, claim: _Claim) -> tuple[Visitor, bool]:
    """Return the visitor, and whether the visitor's token is due for renewal.

    A valid proof is enough to claim the anonymous id derived from it. An anonymous id in a token must equal the claimed
    one; the token may add a user id for which the site vouches. If the proof is valid, an invalid token is ignored.
    Raise :class:`InvalidToken` if neither is valid.
    """
    source, now, life = grant.source.key, services.clock.now(), services.settings.visitor_token_seconds
    proven = None
    if claim.proof is not None:
        if claim.id is None or not visitor_tokens.is_valid_proof(claim.proof, claim.id):
            raise InvalidToken("The proof does not match the anonymous id.")
        proven = Visitor(source, now + life * SECOND, claim.id)
    if claim.token is None:
        if proven is None:
            raise InvalidToken("Send a proof or a token.")
        return proven, True
    try:
        visitor = visitor_tokens.verify_token(claim.token, services.registry.access.current.signing_keys, source, now)
        if visitor.anonymous_id is not None and visitor.anonymous_id != claim.id:
            raise InvalidToken("The token belongs to another visitor.")
    except InvalidToken:
        if proven is None:
            raise
        return proven, True
    if proven is not None:
        return msgspec.structs.replace(visitor, anonymous_id=proven.anonymous_id), True
    return visitor, visitor_tokens.is_renewal_due(visitor, now, life)


async def encode_receipt_members(
    services: Services, grant: WriteKeyGrant, claimed: ClaimedVisitor, *, projected: bool
) -> bytes:
    """Return the fields ``visitor`` and ``me`` of the receipt as JSON. They reflect the messages that were just stored.

    A profile that cannot be read is omitted: the messages are stored, so the request must not fail.
    """
    if claimed.visitor is None:
        return b',"visitor":{"error":"invalid_token"}'
    members = b""
    if claimed.is_renewal_due:
        now = services.clock.now()
        visitor = visitor_tokens.renew(claimed.visitor, now, services.settings.visitor_token_seconds)
        members += b',"visitor":' + encode_json(render_token(services, visitor))
    if claimed.profile_etag is not None and projected:
        try:
            tag, body = encode_public_profile(await read_public_profile(services, grant, claimed.visitor))
        except HeavyRead:
            pass  # The page gets the profile of such a long history from /v1/me.
        except Exception as error:  # noqa: BLE001 - the batch is stored; a failure here would make the page send it again
            _log.warning("receipt.profile_omitted", error=type(error).__name__)
        else:
            if tag != claimed.profile_etag.removeprefix("W/").strip('"'):
                members += b',"me":' + body
    return members


def build_counter_name(visitor: Visitor) -> str:
    """Return the name of a visitor's rate limit; the prefix separates anonymous ids from user ids."""
    return f"a:{visitor.anonymous_id}" if visitor.anonymous_id is not None else f"u:{visitor.user_id}"


def render_token(services: Services, visitor: Visitor) -> dict[str, Any]:
    return {
        "token": visitor_tokens.sign_token(visitor, services.registry.access.current.signing_keys),
        "expires_at": format_instant(visitor.expires_at),
    }


# ------------------------------------------------------------------------------------------------ profile


async def read_public_profile(services: Services, grant: WriteKeyGrant, visitor: Visitor) -> PublicProfile:
    now = services.clock.now()
    visitor_customers = VisitorCustomers(services.pool, services.registry, services.settings)
    [part] = await visitor_customers.read([(visitor, grant.trusts_identify)], now)
    return public_profile_of(
        part.customer,
        visitor,
        withheld=part.is_claimed,
        public_traits=services.settings.public_traits,
        now=now,
    )


def encode_public_profile(profile: PublicProfile) -> tuple[str, bytes]:
    """Return the entity tag and the JSON of a profile. The tag is a hash of the profile except ``as_of``."""
    content = encode_json(
        {
            "anonymous_id": profile.anonymous_id,
            "stages": {
                journey: {
                    "stage": stage.stage,
                    "since": format_instant(stage.since),
                    "valid_until": format_instant(stage.valid_until),
                    "content": stage.content,
                }
                for journey, stage in profile.stages.items()
            },
            "segments": [
                {
                    "key": membership.key,
                    "since": format_instant(membership.since),
                    "valid_until": format_instant(membership.valid_until),
                }
                for membership in profile.segments
            ],
            "traits": profile.traits,
            "valid_until": format_instant(profile.valid_until),
            "withheld": profile.withheld,
        }
    )
    tag = blake2b(content, digest_size=_TAG_BYTES).hexdigest()
    return tag, content[:-1] + f',"etag":"{tag}","as_of":"{rfc3339(profile.as_of)}"}}'.encode()
