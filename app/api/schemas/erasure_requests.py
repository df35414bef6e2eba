"""Schemas of erasure requests."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from app.http.schema_types import EXAMPLE_ID, EXAMPLE_INSTANT, Instant, OptionalInstant, describe_schema


class ErasureRequestOut(BaseModel):
    model_config = describe_schema(
        "A request to erase a person. Write keys of `sdk` sources are public, so anyone may send one: "
        "check the request before you erase data.",
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
    kind: str = Field(description="Kind of the identity that the tool sent.")
    value: str
    requested_at: Instant
    handled_at: OptionalInstant
    customer: str | None = Field(description="Customer who has this identity now; null means that no customer has it.")


class ErasureRequestsOut(BaseModel):
    model_config = describe_schema("Newest first.", {"items": [], "next_cursor": None, "as_of": EXAMPLE_INSTANT})

    items: list[ErasureRequestOut]
    next_cursor: str | None
    as_of: Instant


class HandledIn(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "description": "Requests to mark as handled, whether or not the data was erased.",
            "examples": [{"ids": [1]}],
        },
    )

    ids: Annotated[list[Annotated[int, Field(strict=True, ge=1, lt=1 << 63)]], Field(max_length=1_000)]


class HandledOut(BaseModel):
    model_config = describe_schema("Number of requests that were marked as handled.", {"handled": 1})

    handled: int
