"""Customer references in paths and bodies: ``kind:value``, a bare user id, or ``id:`` and a customer id.

A customer id keeps resolving after merges: every id that the customer ever had is accepted.
"""

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
        "The customer: `kind:value` such as `email:user@example.com`, a user_id without a kind, or `id:` and a "
        "customer id. Percent-encode reserved characters: `/` is `%2F`."
    ),
    "schema": {"type": "string", "title": "Customer"},
    "example": "user_id:user-1",
}


def read_customer_ids(request: Request) -> list[bytes]:
    """Return the candidate identity ids for the ``customer`` path parameter, most likely first.

    The path parameter is still percent-encoded here. Raise :class:`BadRequest` if it does not decode to UTF-8, and
    :class:`NotFound` if it cannot be an id.
    """
    try:
        text = unquote_to_bytes(request.path_params["customer"].encode("latin-1")).decode()
    except UnicodeError:
        raise BadRequest("The percent-encoded path is not UTF-8.") from None
    return resolve_customer_reference(text, get_services(request).settings)


def read_definition_key(request: Request) -> str:
    """Return the ``key`` path parameter, decoded: on these routes the path is still percent-encoded."""
    return unquote(request.path_params["key"])


def resolve_customer_reference(text: str, settings: Settings) -> list[bytes]:
    """Return the candidate ids, most likely first. Raise :class:`NotFound` if the text cannot be an id."""
    ids = list_candidate_ids(text, settings)
    if not ids:
        raise NotFound(f"Customer {make_printable(text)} does not exist.")
    return ids


def list_candidate_ids(text: str, settings: Settings) -> list[bytes]:
    """Return the ids that a customer reference can mean, most likely first; empty if it cannot be an id."""
    customer_id = _parse_customer_id(text)
    return [
        *([customer_id] if customer_id else []),
        *(identity.id for identity in parse_customer_reference(text, settings)),
    ]


def make_printable(text: str) -> str:
    """Return client text for use in an error message: at most 100 characters, unprintable ones replaced."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text[:100])


def _parse_customer_id(text: str) -> bytes | None:
    prefix, _, value = text.partition(":")
    if prefix != "id":
        return None
    try:
        return UUID(value).bytes
    except ValueError:
        return None
