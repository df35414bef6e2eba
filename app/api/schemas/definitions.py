"""Segments and journeys, and who is in a segment."""

from __future__ import annotations

from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema

from app.api.schemas.common import EXAMPLE_ID, EXAMPLE_INSTANT, CustomerId, IdentityOut, Instant, OptionalInstant, shape
from app.rules.language import Rule


class FillOut(BaseModel):
    model_config = shape(
        "How far stored answers have come. Until done, answers are worked out when asked: never wrong, only slower.",
        {"customers_total": 1000, "customers_filled": 1000, "done": True},
    )

    customers_total: int
    customers_filled: int
    done: bool


class SegmentOut(BaseModel):
    model_config = shape(
        "The current version of a segment.",
        {
            "key": "repeat-buyers",
            "name": "Repeat buyers",
            "description": "Bought at least twice",
            "owner": "crm@example.com",
            "version": 1,
            "created_at": EXAMPLE_INSTANT,
            "rule": {"did": "Order Completed", "at_least": 2},
        },
    )

    key: str
    name: str
    description: str
    owner: str
    version: int
    created_at: Instant
    rule: Rule
    fill: FillOut | SkipJsonSchema[None] = Field(None, description="Where one segment is read.")
    as_of: Instant | SkipJsonSchema[None] = Field(None, description="Where one segment is read.")


class StageOut(BaseModel):
    model_config = shape("A stage.", {"key": "purchase", "name": "Purchase", "rule": {"did": "Order Completed"}})

    key: str
    name: str
    rule: Rule


class JourneyOut(BaseModel):
    model_config = shape(
        "The current version of a journey.",
        {
            "key": "trial",
            "name": "Trial",
            "description": "",
            "owner": "",
            "version": 1,
            "created_at": EXAMPLE_INSTANT,
            "stages": [{"key": "started", "name": "Started", "rule": {"did": "Trial Started"}}],
        },
    )

    key: str
    name: str
    description: str
    owner: str
    version: int
    created_at: Instant
    stages: list[StageOut]
    fill: FillOut | SkipJsonSchema[None] = Field(None, description="Where one journey is read.")
    as_of: Instant | SkipJsonSchema[None] = Field(None, description="Where one journey is read.")


class SegmentsOut(BaseModel):
    model_config = shape("All segments, by key.", {"items": [], "next_cursor": None, "as_of": EXAMPLE_INSTANT})

    items: list[SegmentOut]
    next_cursor: str | None
    as_of: Instant


class JourneysOut(BaseModel):
    model_config = shape("All journeys, by key.", {"items": [], "next_cursor": None, "as_of": EXAMPLE_INSTANT})

    items: list[JourneyOut]
    next_cursor: str | None
    as_of: Instant


class MemberOut(BaseModel):
    model_config = shape(
        "A customer who is in the segment.",
        {
            "id": EXAMPLE_ID,
            "identities": [{"kind": "user_id", "value": "user-1"}],
            "since": EXAMPLE_INSTANT,
            "valid_until": None,
        },
    )

    id: CustomerId
    identities: list[IdentityOut]
    since: Instant
    valid_until: OptionalInstant


class MembersOut(BaseModel):
    model_config = shape(
        "Members by customer id. While a definition is filled a page may be short: go on while there is a cursor.",
        {"items": [], "next_cursor": None, "as_of": EXAMPLE_INSTANT},
    )

    items: list[MemberOut]
    next_cursor: str | None
    as_of: Instant


class CountOut(BaseModel):
    model_config = shape(
        "Equal to the length of the list as of the same instant.", {"count": 1411, "as_of": EXAMPLE_INSTANT}
    )

    count: int
    as_of: Instant
