"""Schemas of data quality: tracking plan, anomalies, health of sources, trait coverage."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.http.schema_types import EXAMPLE_INSTANT, Instant, OptionalInstant, describe_schema

_SCHEMA: Any = {"type": "object", "required": ["total"], "properties": {"total": {"type": "number", "minimum": 0}}}

_Mode = Annotated[
    Literal["off", "warn", "quarantine"],
    Field(
        description="How to handle a message that violates the schema. `off`: do not check. `warn`: store it and warn "
        "in the receipt. `quarantine`: do not store it. An entry that is `off` also overrides the entry for all "
        "sources."
    ),
]
_OfSource = Annotated[
    str | None, Field(description="null means that the entry applies to all sources without their own entry.")
]


class PlanEntryIn(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "description": "The plan of one event: which properties it must have.",
            "examples": [{"mode": "warn", "schema": _SCHEMA}],
        },
    )

    mode: _Mode = "warn"
    schema_: dict[str, Any] = Field(
        alias="schema",
        description="JSON Schema of the properties. References must be local and not recursive. Patterns support "
        "neither look-around nor backreferences.",
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
    model_config = describe_schema("The tracking plan, sorted by event.", {"items": []})

    items: list[PlanEntryOut]


class ViolationCountOut(BaseModel):
    model_config = describe_schema(
        "How often messages violated the plan for one reason.",
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
    reason: str = Field(description="Path of the violated keyword in the schema.")
    messages: int = Field(description="Number of violating messages. Retries of stored messages are not counted again.")
    first_at: Instant
    last_at: Instant
    sample: dict[str, Any] = Field(description="Properties of the first violating message. Long values are truncated.")


class ViolationsOut(BaseModel):
    model_config = describe_schema("Violations, latest first.", {"items": [], "as_of": EXAMPLE_INSTANT})

    items: list[ViolationCountOut]
    as_of: Instant


class AnomalyOut(BaseModel):
    model_config = describe_schema(
        "An unusual change in the volume of messages.",
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
    event: str | None = Field(description="null means that the anomaly concerns the whole source.")
    channel: str | None
    since: Instant = Field(description="Hour in which the anomaly started.")
    until: OptionalInstant = Field(description="When the anomaly ended; null means that it continues.")
    messages: int
    expected: float | None = Field(description="Number of messages expected from the history.")


class AnomaliesOut(BaseModel):
    model_config = describe_schema(
        "Anomalies, latest first.", {"items": [], "since": EXAMPLE_INSTANT, "as_of": "1997-01-13T09:30:00.000000Z"}
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
        "Health of a source in the last 24 hours.",
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
    last_seen_at: OptionalInstant = Field(
        description="When the last message was accepted; null means never. Refused requests do not count, because "
        "anyone can send them."
    )
    per_hour: float = Field(description="Accepted messages per hour, averaged over 24 hours.")
    hours: list[HourOut] = Field(description="Oldest first. The last hour is incomplete.")
    counts: dict[str, int] = Field(
        description="Counts by outcome. `refused` counts requests, the other outcomes count messages or events."
    )
    rejected: dict[str, int] = Field(description="Rejected messages by code.")
    refused: dict[str, int] = Field(description="Refused webhook requests by reason.")
    warned: dict[str, int] = Field(description="Warnings by code, with the reason if there is one.")
    quarantined: int = Field(description="Messages of the last 24 hours that are still in quarantine.")
    anomalies: list[AnomalyOut]
    as_of: Instant


class TraitShareOut(BaseModel):
    model_config = describe_schema(
        "How many customers have the trait.", {"trait": "plan", "customers": 750, "share": 0.75, "empty": 0}
    )

    trait: str
    customers: int
    share: float = Field(description="Share of all customers who have the trait, from 0 to 1.")
    empty: int = Field(description="Customers whose value is an empty string, list or object.")


class TraitCoverageOut(BaseModel):
    model_config = describe_schema(
        "Coverage of declared traits, the most common first.",
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
    traits_total: int = Field(description="Number of traits, including those beyond `limit`.")
    took_ms: int
    as_of: Instant
