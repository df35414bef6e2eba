"""People whom a tool says to forget."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from app.http.schema_types import EXAMPLE_ID, EXAMPLE_INSTANT, Instant, OptionalInstant, describe_schema


class ErasureRequestOut(BaseModel):
    model_config = describe_schema(
        "Somebody asks to be forgotten. A source of kind sdk has a public key: whoever reads a page's source can ask.",
        {
            "id": 1,
            "source": "default",
            "kind": "email",
            "value": "user@example.com",
            "requested_at": EXAMPLE_INSTANT,
            "handled_at": None,
            "customer": EXAMPLE_ID,
        },
    )

    id: int
    source: str
    kind: str = Field(description="With value: the identity by which the tool knows them.")
    value: str
    requested_at: Instant
    handled_at: OptionalInstant
    customer: str | None = Field(description="Whom it names now; null for nobody that is known.")


class ErasureRequestsOut(BaseModel):
    model_config = describe_schema("Newest first.", {"items": [], "next_cursor": None, "as_of": EXAMPLE_INSTANT})

    items: list[ErasureRequestOut]
    next_cursor: str | None
    as_of: Instant


class HandledIn(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "description": "Requests that were dealt with, whatever was decided.",
            "examples": [{"ids": [1]}],
        },
    )

    ids: Annotated[list[Annotated[int, Field(strict=True, ge=1, lt=1 << 63)]], Field(max_length=1_000)]


class HandledOut(BaseModel):
    model_config = describe_schema("How many of them were open.", {"handled": 1})

    handled: int
