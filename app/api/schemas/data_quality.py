"""Data quality: the tracking plan, what is odd, how a source is doing, how complete traits are."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.http.schema_types import EXAMPLE_INSTANT, Instant, OptionalInstant, describe_schema

_SCHEMA: Any = {"type": "object", "required": ["total"], "properties": {"total": {"type": "number", "minimum": 0}}}

_Mode = Annotated[
    Literal["off", "warn", "quarantine"],
    Field(
        description="What becomes of a message that does not keep to it: off, nothing is asked; warn, it is stored and "
        "its receipt warns; quarantine, it is kept apart. An entry that is off hides that of every source."
    ),
]
_OfSource = Annotated[str | None, Field(description="null: every source that has no entry of its own.")]


class PlanEntryIn(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "description": "What the properties of an event should be.",
            "examples": [{"mode": "warn", "schema": _SCHEMA}],
        },
    )

    mode: _Mode = "warn"
    schema_: dict[str, Any] = Field(
        alias="schema",
        description="JSON Schema of the properties. References stay inside it and never lead back to themselves; "
        "patterns know no looking around and no references back.",
    )


class PlanEntryOut(BaseModel):
    model_config = describe_schema(
        "An entry of the tracking plan.",
        {
            "source": None,
            "event": "Order Completed",
            "mode": "warn",
            "schema": _SCHEMA,
            "updated_at": EXAMPLE_INSTANT,
        },
    )

    source: _OfSource
    event: str
    mode: _Mode
    schema_: dict[str, Any] = Field(alias="schema")
    updated_at: Instant


class PlanOut(BaseModel):
    model_config = describe_schema("The tracking plan, by event.", {"items": []})

    items: list[PlanEntryOut]


class ViolationCountOut(BaseModel):
    model_config = describe_schema(
        "How often the plan was not kept in one way.",
        {
            "source": "default",
            "event": "Order Completed",
            "reason": "/properties/total/minimum",
            "messages": 3,
            "first_at": EXAMPLE_INSTANT,
            "last_at": EXAMPLE_INSTANT,
            "sample": {"total": -1},
        },
    )

    source: str
    event: str
    reason: str = Field(description="The place in the schema that was not kept.")
    messages: int = Field(description="A retry of a message that was stored is not counted again.")
    first_at: Instant
    last_at: Instant
    sample: dict[str, Any] = Field(
        description="Properties of the first message that did not keep to it; long values are cut."
    )


class ViolationsOut(BaseModel):
    model_config = describe_schema("The latest first.", {"items": [], "as_of": EXAMPLE_INSTANT})

    items: list[ViolationCountOut]
    as_of: Instant


class AnomalyOut(BaseModel):
    model_config = describe_schema(
        "Something odd about how much arrives.",
        {
            "kind": "silence",
            "source": "shop",
            "event": None,
            "channel": None,
            "since": EXAMPLE_INSTANT,
            "until": None,
            "messages": 0,
            "expected": 240.0,
        },
    )

    kind: Literal["new_source", "new_event", "new_channel", "silence", "volume_up", "volume_down", "too_many_names"]
    source: str
    event: str | None = Field(description="Of one event only.")
    channel: str | None
    since: Instant = Field(description="The hour in which it began.")
    until: OptionalInstant = Field(description="null: it still is so.")
    messages: int
    expected: float | None = Field(description="How many its own history made one expect.")


class AnomaliesOut(BaseModel):
    model_config = describe_schema(
        "The latest first.", {"items": [], "since": EXAMPLE_INSTANT, "as_of": "1997-01-13T09:30:00.000000Z"}
    )

    items: list[AnomalyOut]
    since: Instant
    as_of: Instant


class HourOut(BaseModel):
    model_config = describe_schema("Messages that arrived in one hour.", {"hour": EXAMPLE_INSTANT, "messages": 12})

    hour: Instant
    messages: int


class SourceHealthOut(BaseModel):
    model_config = describe_schema(
        "How a source has been doing in the last 24 hours.",
        {
            "source": "shop",
            "last_seen_at": EXAMPLE_INSTANT,
            "per_hour": 12.5,
            "hours": [{"hour": EXAMPLE_INSTANT, "messages": 12}],
            "counts": {"accepted": 12, "duplicate": 0, "rejected": 1, "warned": 0, "refused": 0, "ignored": 0},
            "rejected": {"missing_identity": 1},
            "refused": {},
            "warned": {},
            "quarantined": 1,
            "anomalies": [],
            "as_of": EXAMPLE_INSTANT,
        },
    )

    source: str
    last_seen_at: OptionalInstant = Field(description="null: never. What was refused may have been anybody's.")
    per_hour: float = Field(description="Accepted messages an hour, over the 24 hours.")
    hours: list[HourOut] = Field(description="Oldest first; the last one is not over.")
    counts: dict[str, int] = Field(description="By outcome; refused counts deliveries, the others messages or events.")
    rejected: dict[str, int] = Field(description="By code.")
    refused: dict[str, int] = Field(description="Deliveries that were not taken, by reason.")
    warned: dict[str, int] = Field(description="By code, and reason where it has one.")
    quarantined: int = Field(description="Of what came in the last 24 hours and still waits in quarantine.")
    anomalies: list[AnomalyOut]
    as_of: Instant


class TraitShareOut(BaseModel):
    model_config = describe_schema(
        "How many customers have a trait.", {"trait": "plan", "customers": 750, "share": 0.75, "empty": 0}
    )

    trait: str
    customers: int
    share: float = Field(description="Of all customers, from 0 to 1.")
    empty: int = Field(description="Of those who have it, it is empty text, list or object.")


class TraitCoverageOut(BaseModel):
    model_config = describe_schema(
        "How complete declared traits are, the most common first.",
        {
            "customers": 1000,
            "items": [{"trait": "plan", "customers": 750, "share": 0.75, "empty": 0}],
            "traits_total": 1,
            "took_ms": 40,
            "as_of": EXAMPLE_INSTANT,
        },
    )

    customers: int
    items: list[TraitShareOut]
    traits_total: int = Field(description="More than the items where there are more than `limit`.")
    took_ms: int
    as_of: Instant
