"""What several shapes share: instants, ids, failures, and how a route declares a body it reads by itself."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

EXAMPLE_INSTANT = "1997-01-12T09:30:00.000000Z"
EXAMPLE_ID = "6b1f0d0e-8a55-4b4c-9a7e-0d7c5d0c7c11"
KEY_PATTERN = r"^[a-z0-9]+(?:[_-][a-z0-9]+)*$"

Instant = Annotated[datetime, Field(examples=[EXAMPLE_INSTANT])]
OptionalInstant = Annotated[datetime | None, Field(examples=[EXAMPLE_INSTANT])]
CustomerId = Annotated[
    str,
    Field(
        description="Id of the strongest identity; every id a customer ever had keeps resolving.", examples=[EXAMPLE_ID]
    ),
]


def describe_schema(description: str, example: dict[str, Any], *, open: bool = False) -> ConfigDict:
    return ConfigDict(
        extra="allow" if open else "ignore", json_schema_extra={"description": description, "examples": [example]}
    )


class IdentityOut(BaseModel):
    model_config = describe_schema("One way to name a customer.", {"kind": "email", "value": "user@example.com"})

    kind: str
    value: str


class Problem(BaseModel):
    """Every failure."""

    model_config = describe_schema(
        "What went wrong: RFC 9457 problem details, with code and message at top level too.",
        {
            "type": "urn:segue:error:not_found",
            "title": "There is no such thing",
            "status": 404,
            "detail": "There is no customer user_id:42.",
            "code": "not_found",
            "message": "There is no customer user_id:42.",
        },
        open=True,
    )

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(description="Stable; compare this.")
    message: str = Field(description="For people; may change.")


def describe_json_body(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """``openapi_extra`` of a route that reads its body by itself."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}


_ETAG: dict[str, Any] = {
    "ETag": {"description": "The same while the answer says the same, as_of aside.", "schema": {"type": "string"}}
}

ETAG_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"headers": _ETAG},
    304: {"description": "It still says what If-None-Match names.", "headers": _ETAG},
}
"""``responses`` of a route that answers with an entity tag."""


def describe_problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """``responses`` of a route: the failures it can answer with."""
    return {
        status: {
            "description": _DESCRIPTIONS[status],
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


_DESCRIPTIONS = {
    400: "The request cannot be read.",
    401: "No valid key.",
    403: "The key is of the other kind.",
    404: "There is no such thing.",
    408: "The body took too long to arrive. Send it again.",
    409: "It exists already, or something else rests on it.",
    422: "It can be read but makes no sense; path and remedy say where and what to do.",
    429: "Too many requests. Send it again after Retry-After seconds.",
    503: "Too much is waiting, or the database is away. Send it again after Retry-After seconds.",
}

COLLECT_PROBLEMS = describe_problems(400, 401, 403, 408, 429, 503)
