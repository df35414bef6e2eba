"""Schemas of segments, journeys, computed traits and segment members."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema

from app.http.schema_types import (
    EXAMPLE_ID,
    EXAMPLE_INSTANT,
    CustomerId,
    IdentityOut,
    Instant,
    OptionalInstant,
    describe_schema,
)
from app.rules.language.expressions import Value
from app.rules.language.nodes import Rule


class FillOut(BaseModel):
    model_config = describe_schema(
        "Progress of the backfill. Until it is done, a new definition is computed on each read, and an edited one "
        "returns the results of its previous version.",
        {
            "customers_total": 1000,
            "customers_filled": 400,
            "touchpoints_per_second": 40000.0,
            "eta_seconds": 1.5,
            "since": EXAMPLE_INSTANT,
            "done": False,
        },
    )

    customers_total: int
    customers_filled: int
    touchpoints_per_second: float | None = Field(
        description="null means that it is not known yet, or that the backfill is done."
    )
    eta_seconds: float | None = Field(description="null means that it is not known yet, or that the backfill is done.")
    since: OptionalInstant = Field(description="When the backfilled version was created.")
    done: bool


class _DefinitionOut(BaseModel):
    key: str
    name: str
    description: str
    owner: str
    note: str = Field(description="Reason for this version.")
    public: bool = Field(description="Whether web pages may read the result for their visitor.")
    version: int
    status: Literal["current", "filling"] = Field(description="`filling`: the backfill of this version is not done.")
    created_at: Instant
    upcoming_version: int | None = Field(
        None,
        description="Version that takes over when its backfill is done. Present only if a single definition is read.",
    )
    fill: FillOut | SkipJsonSchema[None] = Field(None, description="Present only if a single definition is read.")
    as_of: Instant | SkipJsonSchema[None] = Field(None, description="Present only if a single definition is read.")


class SegmentOut(_DefinitionOut):
    model_config = describe_schema(
        "The latest version of a segment.",
        {
            "key": "repeat-buyers",
            "name": "Repeat buyers",
            "description": "Bought at least twice",
            "owner": "crm@example.com",
            "note": "",
            "public": False,
            "version": 1,
            "status": "current",
            "created_at": EXAMPLE_INSTANT,
            "rule": {"did": "Order Completed", "at_least": 2},
        },
    )

    rule: Rule


class StageOut(BaseModel):
    model_config = describe_schema(
        "A stage of a journey.", {"key": "purchase", "name": "Purchase", "rule": {"did": "Order Completed"}}
    )

    key: str
    name: str
    rule: Rule
    content: dict[str, Any] | SkipJsonSchema[None] = Field(
        None, description="Hints for web pages; omitted if the stage has no hints."
    )


class JourneyOut(_DefinitionOut):
    model_config = describe_schema(
        "The latest version of a journey.",
        {
            "key": "trial",
            "name": "Trial",
            "description": "",
            "owner": "",
            "note": "",
            "public": False,
            "version": 1,
            "status": "current",
            "created_at": EXAMPLE_INSTANT,
            "stages": [{"key": "started", "name": "Started", "rule": {"did": "Trial Started"}}],
        },
    )

    stages: list[StageOut]


class TraitOut(_DefinitionOut):
    model_config = describe_schema(
        "The latest version of a computed trait.",
        {
            "key": "average_order",
            "name": "Average order",
            "description": "",
            "owner": "crm@example.com",
            "note": "",
            "public": False,
            "version": 1,
            "status": "current",
            "created_at": EXAMPLE_INSTANT,
            "value": {"avg": "total", "of": "Order Completed", "within": "365d"},
        },
    )

    value: Value


class VersionOut(BaseModel):
    model_config = describe_schema(
        "One version of a definition.",
        {
            "version": 1,
            "name": "Repeat buyers",
            "description": "Bought at least twice",
            "owner": "crm@example.com",
            "note": "As agreed in the meeting of May",
            "public": False,
            "status": "current",
            "created_at": EXAMPLE_INSTANT,
            "activated_at": EXAMPLE_INSTANT,
            "superseded_at": None,
            "body": {"did": "Order Completed", "at_least": 2},
        },
    )

    version: int
    name: str
    description: str
    owner: str
    note: str = Field(description="Reason for the version.")
    public: bool
    status: Literal["current", "filling", "superseded", "archived"]
    created_at: Instant
    activated_at: OptionalInstant = Field(description="When the version took effect; null means not yet, or never.")
    superseded_at: OptionalInstant = Field(description="When a newer version replaced it, or it was archived.")
    body: dict[str, Any] | list[dict[str, Any]] = Field(
        description="The rule of a segment, the stages of a journey, the value of a computed trait."
    )


class VersionsOut(BaseModel):
    model_config = describe_schema(
        "Versions of a definition, newest first.", {"items": [], "next_cursor": None, "as_of": EXAMPLE_INSTANT}
    )

    items: list[VersionOut]
    next_cursor: str | None
    as_of: Instant


class SegmentsOut(BaseModel):
    model_config = describe_schema(
        "All segments, sorted by key.", {"items": [], "next_cursor": None, "as_of": EXAMPLE_INSTANT}
    )

    items: list[SegmentOut]
    next_cursor: str | None
    as_of: Instant


class JourneysOut(BaseModel):
    model_config = describe_schema(
        "All journeys, sorted by key.", {"items": [], "next_cursor": None, "as_of": EXAMPLE_INSTANT}
    )

    items: list[JourneyOut]
    next_cursor: str | None
    as_of: Instant


class TraitsOut(BaseModel):
    model_config = describe_schema(
        "All computed traits, sorted by key.", {"items": [], "next_cursor": None, "as_of": EXAMPLE_INSTANT}
    )

    items: list[TraitOut]
    next_cursor: str | None
    as_of: Instant


class MemberOut(BaseModel):
    model_config = describe_schema(
        "A member of the segment.",
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
    model_config = describe_schema(
        "Members, sorted by customer id. During a backfill a page may be short; continue while "
        "`next_cursor` is not null.",
        {"items": [], "next_cursor": None, "as_of": EXAMPLE_INSTANT},
    )

    items: list[MemberOut]
    next_cursor: str | None
    as_of: Instant


class CountOut(BaseModel):
    model_config = describe_schema(
        "Number of members; equals the length of the member list at the same instant.",
        {"count": 1411, "as_of": EXAMPLE_INSTANT},
    )

    count: int
    as_of: Instant
