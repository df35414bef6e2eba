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

CUSTOMER_PARAMETER: dict[str, Any] = {
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


def read_customer_ids(request: Request) -> list[bytes]:
    """Return the ids of the identities that the path may mean, likeliest first. The path is still percent-encoded here.

    Raises :class:`BadRequest` for percent-encoding that is no UTF-8, :class:`NotFound` for text that is no id.
    """
    try:
        text = unquote_to_bytes(request.path_params["customer"].encode("latin-1")).decode()
    except UnicodeError:
        raise BadRequest("The percent-encoded path is not UTF-8.") from None
    return resolve_customer_reference(text, get_services(request).settings)


def read_definition_key(request: Request) -> str:
    """The key of a definition, on a path that is still percent-encoded."""
    return unquote(request.path_params["key"])


def resolve_customer_reference(text: str, settings: Settings) -> list[bytes]:
    """Likeliest first. Raises :class:`NotFound` where the text can be nobody's id."""
    ids = list_candidate_ids(text, settings)
    if not ids:
        raise NotFound(f"There is no customer {make_printable(text)}.")
    return ids


def list_candidate_ids(text: str, settings: Settings) -> list[bytes]:
    customer_id = _parse_customer_id(text)
    return [
        *([customer_id] if customer_id else []),
        *(identity.id for identity in parse_customer_reference(text, settings)),
    ]


def make_printable(text: str) -> str:
    """For messages: what came from outside, short and printable."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text[:100])


def _parse_customer_id(text: str) -> bytes | None:
    prefix, _, value = text.partition(":")
    if prefix != "id":
        return None
    try:
        return UUID(value).bytes
    except ValueError:
        return None
