"""Who may come in with a write key: the key must be known, be for the page that uses it, and not be used too often."""

from __future__ import annotations

from starlette.requests import Request

from app.errors import Forbidden, OriginNotAllowed, Unauthorized
from app.http.dependencies import Services
from app.registry.access import WriteKeyGrant


async def authenticate_write_key(request: Request, services: Services, *keys: str | None) -> tuple[str, WriteKeyGrant]:
    """The first of ``keys`` that is known, and what it allows.

    Raises:
        Forbidden: it is a secret key.
        Unauthorized: none is known.
        OriginNotAllowed: the request comes from a page that the key is not for. Only browsers say where they are, and
            only they cannot lie about it: this keeps other people's pages out, not other people.
        RateLimited: the key is used too often.
    """
    presented_keys = [key for key in keys if key]
    for key in presented_keys:
        grant = await services.registry.access.find_write_key(key)
        if grant is not None:
            origin = request.headers.get("origin")
            if origin is not None and not grant.allows_origin(origin):
                raise OriginNotAllowed(f"This write key is not for pages of {origin[:200]}.")
            await services.rate_limits.count_key(key)
            return key, grant
    for key in presented_keys:
        if await services.registry.access.is_secret_key(key):
            raise Forbidden("This is a secret key; it must never be in a client. Send messages with a write key.")
    if presented_keys:
        raise Unauthorized("The write key is unknown or revoked.")
    raise Unauthorized("Send a write key: Basic authorization, writeKey in the body, or ?writeKey=.")
