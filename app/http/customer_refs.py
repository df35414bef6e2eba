"""How a customer is named in a path or a body: ``kind:value``, a bare user id, or ``id:`` and any id it ever had."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, unquote_to_bytes
from uuid import UUID

from starlette.requests import Request

from app.config import Settings
from app.errors import BadRequest, NotFound
from app.formats.identifiers import parse_customer_reference
from app.http.dependencies import get_services

PARAMETER: dict[str, Any] = {
    "name": "customer",
    "in": "path",
    "required": True,
    "description": (
        "`kind:value`, such as `email:user@example.com`; a bare value is a user_id; `id:` and a customer's id. "
        "Percent-encode what a path cannot hold: `/` is `%2F`."
    ),
    "schema": {"type": "string", "title": "Customer"},
    "example": "user_id:user-1",
}


def customer_of_path(request: Request) -> tuple[str, list[bytes]]:
    """(the reference as text, ids of the identities it may mean). The path is still percent-encoded here.

    Raises :class:`BadRequest` for percent-encoding that is no UTF-8, :class:`NotFound` for what can be nobody.
    """
    try:
        text = unquote_to_bytes(request.path_params["customer"].encode("latin-1")).decode()
    except UnicodeError:
        raise BadRequest("The percent-encoded path is not UTF-8.") from None
    return text, known_as(text, get_services(request).settings)


def key_of_path(request: Request) -> str:
    """The key of a definition, on a path that is still percent-encoded."""
    return unquote(request.path_params["key"])


def known_as(text: str, settings: Settings) -> list[bytes]:
    """Likeliest first. Raises :class:`NotFound` where the text can be nobody's id."""
    ids = candidates(text, settings)
    if not ids:
        raise NotFound(f"There is no customer {shown(text)}.")
    return ids


def candidates(text: str, settings: Settings) -> list[bytes]:
    own = _own_id(text)
    return [*([own] if own else []), *(identity.id for identity in parse_customer_reference(text, settings))]


def shown(text: str) -> str:
    """For messages: what came from outside, short and printable."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text[:100])


def _own_id(text: str) -> bytes | None:
    prefix, _, value = text.partition(":")
    if prefix != "id":
        return None
    try:
        return UUID(value).bytes
    except ValueError:
        return None
