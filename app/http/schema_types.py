"""Types and OpenAPI helpers that several API schemas share: instants, ids, problem details, hand-declared bodies."""

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
        description="Id of the customer's strongest identity. After a merge, older ids still work.",
        examples=[EXAMPLE_ID],
    ),
]


def describe_schema(description: str, example: dict[str, Any], *, open: bool = False) -> ConfigDict:
    """Return the ``model_config`` of a schema; an ``open`` one keeps fields that the model does not declare.

    Most of these schemas describe responses, which no request validates. A validator is therefore built at its first
    use, because those of all schemas would take several megabytes.
    """
    return ConfigDict(
        extra="allow" if open else "ignore",
        json_schema_extra={"description": description, "examples": [example]},
        defer_build=True,
    )


class IdentityOut(BaseModel):
    model_config = describe_schema("An identity of a customer.", {"kind": "email", "value": "user@example.com"})

    kind: str
    value: str


class Problem(BaseModel):
    """The body of every error response."""

    model_config = describe_schema(
        "An error: RFC 9457 problem details, with `code` and `message` added at the top level.",
        {
            "type": "urn:segue:error:not_found",
            "title": "Not found",
            "status": 404,
            "detail": "Customer user_id:42 does not exist.",
            "code": "not_found",
            "message": "Customer user_id:42 does not exist.",
        },
        open=True,
    )

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(description="Error code. It is stable; compare it in programs.")
    message: str = Field(description="Explanation for a person. It may change.")


def describe_json_body(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """Return ``openapi_extra`` for a route that reads its body itself."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}


_ETAG: dict[str, Any] = {
    "ETag": {"description": "Entity tag. It changes if anything except `as_of` changes.", "schema": {"type": "string"}}
}

ETAG_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"headers": _ETAG},
    304: {"description": "Not modified: If-None-Match contains the current entity tag.", "headers": _ETAG},
}
"""``responses`` of a route that returns an entity tag."""


def describe_problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return ``responses`` for a route: the error statuses that it can return."""
    return {
        status: {
            "description": _DESCRIPTIONS[status],
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


_DESCRIPTIONS = {
    400: "The request is malformed.",
    401: "The key is missing, unknown or revoked.",
    403: "This kind of key, or this page, is not allowed here.",
    404: "Not found.",
    408: "The body took too long to arrive. Send the request again.",
    409: "The object already exists, or another object depends on it.",
    422: "The request is well-formed but invalid. `path` locates the invalid part; `remedy`, if present, "
    "describes how to fix it.",
    429: "Too many requests. Retry after the seconds in Retry-After.",
    503: "The service is overloaded, or its database is unreachable. Retry after the seconds in Retry-After.",
    504: "The read took longer than its time limit.",
}

COLLECT_PROBLEMS = describe_problems(400, 401, 403, 408, 429, 503)
