"""Secret keys: who may read and define. Write keys are read where messages are collected."""

from __future__ import annotations

from fastapi.openapi.models import HTTPBase, HTTPBearer
from fastapi.security.base import SecurityBase
from starlette.requests import Request

from app.errors import Forbidden, Unauthorized
from app.http.dependencies import get_services


class SecretKey(SecurityBase):
    """``Authorization: Bearer sk_...``. Raises 401 without a valid key, 403 for a write key."""

    def __init__(self) -> None:
        self.scheme_name = "secretKey"
        self.model = HTTPBearer(
            description="A secret key (`sk_...`). It reads, defines and erases; keep it on servers."
        )

    async def __call__(self, request: Request) -> None:
        await require_secret_key(request)


class WriteKey(SecurityBase):
    """Documents the scheme of the collecting routes, which read the key by themselves."""

    def __init__(self) -> None:
        self.scheme_name = "writeKey"
        self.model = HTTPBase(
            scheme="basic",
            description="A write key (`wk_...`) as the user name, with an empty password. It only appends.",
        )

    async def __call__(self) -> None:
        return None


async def require_secret_key(request: Request) -> None:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key:
        raise Unauthorized("Send a secret key as Authorization: Bearer sk_...")
    registry = get_services(request).registry
    if await registry.access.is_secret_key(key):
        return
    if registry.access.has_write_key(key):
        raise Forbidden("This is a write key; it may only send messages. Use a secret key here.")
    raise Unauthorized("The key is unknown or revoked.")
