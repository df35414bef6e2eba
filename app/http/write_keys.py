"""Authentication with write keys: the key must exist, allow the page's origin, and stay within its rate limit."""

from __future__ import annotations

from base64 import b64decode

from starlette.requests import Request

from app.errors import Forbidden, OriginNotAllowed, Unauthorized
from app.http.dependencies import Services
from app.registry.access import WriteKeyGrant


def read_authorization_key(authorization: str) -> str | None:
    """Return the key of ``Basic base64(key:)``, with or without the colon, or of ``Bearer key``."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() != "basic":
        return None
    try:
        return b64decode(value.strip() + "=" * (-len(value.strip()) % 4)).decode().partition(":")[0]
    except ValueError:
        return None


async def authenticate_write_key(request: Request, services: Services, *keys: str | None) -> tuple[str, WriteKeyGrant]:
    """Return the first valid write key of ``keys``, and its grant.

    Raises:
        Forbidden: one of the keys is a secret key.
        Unauthorized: no key is valid.
        OriginNotAllowed: the Origin header is not one that the key allows. Only browsers send a reliable Origin: this
            check stops other websites from using the key, not other programs.
        RateLimited: the key exceeds its rate limit, and the address is not one of few requests.
    """
    presented_keys = [key for key in keys if key]
    for key in presented_keys:
        grant = await services.registry.access.find_write_key(key)
        if grant is not None:
            origin = request.headers.get("origin")
            if origin is not None and not grant.allows_origin(origin):
                raise OriginNotAllowed(f"The write key does not allow the origin {origin[:200]}.")
            address = request.client.host if request.client is not None else None
            await services.rate_limits.count_key(key, grant.source.trust, address)
            return key, grant
    for key in presented_keys:
        if await services.registry.access.is_secret_key(key):
            raise Forbidden(
                "This is a secret key; send messages with a write key, and never put a secret key in a client."
            )
    if presented_keys:
        raise Unauthorized("The write key is unknown or revoked.")
    raise Unauthorized(
        "The request has no write key; send one as Basic authorization, writeKey in the body, or ?writeKey=."
    )
