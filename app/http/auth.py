"""Authentication with secret keys, which allow reads and definitions; :mod:`app.http.write_keys` checks write keys."""

from __future__ import annotations

from fastapi.openapi.models import HTTPBase, HTTPBearer
from fastapi.security.base import SecurityBase
from starlette.requests import Request

from app.errors import Forbidden, Unauthorized
from app.http.dependencies import get_services


class SecretKey(SecurityBase):
    """Dependency that requires ``Authorization: Bearer sk_...``: 401 without a valid key, 403 for a write key."""

    def __init__(self) -> None:
        self.scheme_name = "secretKey"
        self.model = HTTPBearer(
            description="A secret key (`sk_...`). It can read, configure and redact all data: use it on servers only."
        )

    async def __call__(self, request: Request) -> None:
        await require_secret_key(request)


class WriteKey(SecurityBase):
    """OpenAPI security scheme of the ingestion routes. It checks nothing: these routes read the key themselves."""

    def __init__(self) -> None:
        self.scheme_name = "writeKey"
        self.model = HTTPBase(
            scheme="basic",
            description="A write key (`wk_...`) as the user name, with an empty password. It can only send messages.",
        )

    async def __call__(self) -> None:
        return None


async def require_secret_key(request: Request) -> None:
    """Raise Unauthorized if the request has no valid key, and Forbidden if it has a write key."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key:
        raise Unauthorized("The request has no secret key; send one as Authorization: Bearer sk_...")
    registry = get_services(request).registry
    if await registry.access.is_secret_key(key):
        return
    if registry.access.has_write_key(key):
        raise Forbidden("This is a write key, which can only send messages; use a secret key here.")
    raise Unauthorized("The secret key is unknown or revoked.")
