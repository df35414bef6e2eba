"""Schemas of one customer: state, history, explanations, touchpoints and links."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
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

_CLOSED = ConfigDict(extra="forbid")


class CauseOut(BaseModel):
    model_config = describe_schema(
        "Cause of the change: a message, or the passing of time.",
        {"kind": "message", "message_id": "m-1", "source": "default"},
    )

    kind: Literal["message", "time"]
    message_id: str | SkipJsonSchema[None] = None
    source: str | SkipJsonSchema[None] = None


class StagePositionOut(BaseModel):
    model_config = describe_schema(
        "Current stage in one journey.",
        {
            "stage": "purchase",
            "since": EXAMPLE_INSTANT,
            "valid_until": None,
            "cause": {"kind": "message", "message_id": "m-1"},
        },
    )

    stage: str | None = Field(description="null means that the customer is not in a stage.")
    since: OptionalInstant
    valid_until: OptionalInstant = Field(description="When the stage changes if no message arrives; null means never.")
    cause: CauseOut | None


class MembershipOut(BaseModel):
    model_config = describe_schema(
        "A segment that the customer is in.", {"key": "repeat-buyers", "since": EXAMPLE_INSTANT, "valid_until": None}
    )

    key: str
    since: Instant
    valid_until: OptionalInstant = Field(
        description="When the membership ends if no message arrives; null means never."
    )


class CustomerOut(BaseModel):
    model_config = describe_schema(
        "State of a customer at the instant as_of.",
        {
            "id": EXAMPLE_ID,
            "identities": [{"kind": "user_id", "value": "user-1"}],
            "traits": {"plan": "pro"},
            "stages": {
                "six-stage": {
                    "stage": "purchase",
                    "since": EXAMPLE_INSTANT,
                    "valid_until": None,
                    "cause": {"kind": "message", "message_id": "m-1", "source": "default"},
                }
            },
            "segments": [{"key": "first-time-buyers", "since": EXAMPLE_INSTANT, "valid_until": None}],
            "as_of": EXAMPLE_INSTANT,
        },
    )

    id: CustomerId
    identities: list[IdentityOut] = Field(description="Strongest identity first.")
    traits: dict[str, Any]
    stages: dict[str, StagePositionOut] = Field(description="Current stages, by journey key.")
    segments: list[MembershipOut]
    as_of: Instant


class LookupIn(BaseModel):
    model_config = (
        describe_schema("Up to 500 customers.", {"customers": ["user_id:user-1", "email:user@example.com"]}) | _CLOSED
    )

    customers: list[str] = Field(max_length=500)
    as_of: Instant | None = Field(None, description="Return the state at this past instant instead of now.")


class LookupResultOut(BaseModel):
    model_config = describe_schema("Result for one requested customer.", {"ref": "user_id:user-1", "customer": None})

    ref: str
    customer: CustomerOut | None = Field(description="null means that the customer does not exist.")


class LookupOut(BaseModel):
    model_config = describe_schema(
        "Results in the order of the request.",
        {"items": [{"ref": "user_id:user-1", "customer": None}], "as_of": EXAMPLE_INSTANT},
    )

    items: list[LookupResultOut]
    as_of: Instant


class StayOut(BaseModel):
    model_config = describe_schema(
        "An interval in a stage, from entered_at (inclusive) to left_at (exclusive).",
        {
            "journey": "six-stage",
            "stage": "awareness",
            "entered_at": EXAMPLE_INSTANT,
            "left_at": None,
            "cause": {"kind": "message"},
        },
    )

    journey: str
    stage: str
    entered_at: Instant
    left_at: OptionalInstant
    cause: CauseOut
    left_cause: CauseOut | None = None


class HistoryOut(BaseModel):
    model_config = describe_schema(
        "History of stages, oldest first.", {"id": EXAMPLE_ID, "items": [], "as_of": EXAMPLE_INSTANT}
    )

    id: CustomerId
    items: list[StayOut]
    as_of: Instant


class SegmentStayOut(BaseModel):
    model_config = describe_schema(
        "A current membership or, with `history`, one interval of current or past membership.",
        {"key": "repeat-buyers", "since": EXAMPLE_INSTANT, "valid_until": None},
    )

    key: str
    since: Instant
    valid_until: OptionalInstant = None
    left_at: OptionalInstant = Field(
        None, description="End of the interval; null means that it has not ended. Present only with `history`."
    )
    cause: CauseOut | None = Field(None, description="Cause of the start of the interval. Present only with `history`.")
    left_cause: CauseOut | None = Field(
        None, description="Cause of the end of the interval. Present only with `history`."
    )


class SegmentsOfCustomerOut(BaseModel):
    model_config = describe_schema("Segments of a customer.", {"id": EXAMPLE_ID, "items": [], "as_of": EXAMPLE_INSTANT})

    id: CustomerId
    items: list[SegmentStayOut]
    as_of: Instant


class ExplanationOut(BaseModel):
    model_config = describe_schema(
        "A node of a rule, its truth and its evidence.",
        {
            "rule": {"did": "Order Completed", "at_least": 2},
            "truth": True,
            "since": EXAMPLE_INSTANT,
            "valid_until": None,
            "counted": 2,
            "needed": {"at_least": 2},
            "touchpoints": ["m-1", "m-7"],
            "nodes": [],
        },
        open=True,
    )

    rule: dict[str, Any]
    truth: bool
    since: OptionalInstant = Field(
        description="Instant since which the truth is unchanged; null before the first message."
    )
    valid_until: OptionalInstant
    nodes: list[ExplanationOut]
    counted: int | SkipJsonSchema[None] = None
    needed: dict[str, Any] | SkipJsonSchema[None] = None
    touchpoints: list[str] | SkipJsonSchema[None] = Field(
        None, description="Ids of the messages that count, at most the latest 100."
    )


class SegmentExplanationOut(BaseModel):
    model_config = describe_schema(
        "Why a customer is in a segment, or is not.",
        {
            "segment": "repeat-buyers",
            "version": 1,
            "member": False,
            "since": EXAMPLE_INSTANT,
            "valid_until": None,
            "explanation": {
                "rule": {"did": "Order Completed"},
                "truth": False,
                "since": EXAMPLE_INSTANT,
                "valid_until": None,
                "nodes": [],
            },
            "as_of": EXAMPLE_INSTANT,
        },
    )

    segment: str
    version: int
    member: bool
    since: OptionalInstant = Field(
        description="Start of the current membership, or of the current absence from the segment."
    )
    valid_until: OptionalInstant
    explanation: ExplanationOut
    as_of: Instant


class StageExplanationOut(BaseModel):
    model_config = describe_schema(
        "A stage of a journey and its rule.",
        {
            "stage": "purchase",
            "explanation": {
                "rule": {"did": "Order Completed"},
                "truth": True,
                "since": EXAMPLE_INSTANT,
                "valid_until": None,
                "nodes": [],
            },
        },
    )

    stage: str
    explanation: ExplanationOut


class JourneyExplanationOut(BaseModel):
    model_config = describe_schema(
        "Why a customer is in a stage: it is the last one whose rule is true.",
        {
            "journey": "six-stage",
            "version": 1,
            "stage": "purchase",
            "since": EXAMPLE_INSTANT,
            "valid_until": None,
            "stages": [],
            "as_of": EXAMPLE_INSTANT,
        },
    )

    journey: str
    version: int
    stage: str | None
    since: OptionalInstant
    valid_until: OptionalInstant
    stages: list[StageExplanationOut]
    as_of: Instant


class TraitExplanationOut(BaseModel):
    model_config = describe_schema(
        "Evidence for the value of a computed trait.",
        {
            "trait": "average_order",
            "version": 1,
            "value": 42.5,
            "valid_until": None,
            "explanation": {
                "rule": {"avg": "total", "of": "Order Completed"},
                "touchpoints": ["m-1", "m-7"],
            },
            "as_of": EXAMPLE_INSTANT,
        },
    )

    trait: str
    version: int
    value: Any = Field(description="null means that the customer does not have a value.")
    valid_until: OptionalInstant = Field(
        description="When the value may change if no message arrives; null means never."
    )
    explanation: dict[str, Any]
    as_of: Instant


class TouchpointOut(BaseModel):
    model_config = describe_schema(
        "One stored message.",
        {
            "message_id": "m-1",
            "source": "default",
            "type": "track",
            "name": "Order Completed",
            "channel": "web",
            "occurred_at": EXAMPLE_INSTANT,
            "received_at": EXAMPLE_INSTANT,
            "sent_at": None,
            "original_timestamp": EXAMPLE_INSTANT,
            "identities": [{"kind": "user_id", "value": "user-1"}],
            "properties": {"total": 42.5},
            "context": {},
            "traits": None,
        },
    )

    message_id: str
    source: str
    type: str
    name: str | None = Field(description="null for identify, group and alias, which are not touchpoints.")
    channel: str
    occurred_at: Instant = Field(description="When the event happened, corrected for the error of the client's clock.")
    received_at: Instant
    sent_at: OptionalInstant
    original_timestamp: str | None = Field(description="Timestamp as the client sent it.")
    identities: list[IdentityOut] = Field(description="All identities in the message.")
    properties: dict[str, Any]
    context: dict[str, Any]
    traits: dict[str, Any] | None


class TimelineOut(BaseModel):
    model_config = describe_schema(
        "Messages of a customer, newest first.", {"items": [], "next_cursor": None, "as_of": EXAMPLE_INSTANT}
    )

    items: list[TouchpointOut]
    next_cursor: str | None
    as_of: Instant


class LinkOut(BaseModel):
    model_config = describe_schema(
        "A link between two identities of the customer.",
        {
            "weaker": {"kind": "anonymous_id", "value": "anon-1"},
            "stronger": {"kind": "user_id", "value": "user-1"},
            "kind": "link",
            "joined": True,
            "vouched": True,
            "occurred_at": EXAMPLE_INSTANT,
            "message_id": "m-1",
            "source": "default",
            "undone_at": None,
        },
    )

    weaker: IdentityOut
    stronger: IdentityOut
    kind: Literal["link", "alias"]
    joined: bool = Field(description="false means that the link is a conflict and has no effect.")
    vouched: bool = Field(
        description="true means that one of the site's servers sent the link; false means that only pages claim it."
    )
    occurred_at: Instant = Field(
        description="Instant from which the link counts. A page's claim counts from its receipt at the earliest."
    )
    message_id: str
    source: str
    undone_at: OptionalInstant


class LinksOut(BaseModel):
    model_config = describe_schema(
        "Why these identities are one customer.",
        {"id": EXAMPLE_ID, "items": [], "next_cursor": None, "as_of": EXAMPLE_INSTANT},
    )

    id: CustomerId
    items: list[LinkOut]
    next_cursor: str | None
    as_of: Instant


class LinkIn(BaseModel):
    model_config = (
        describe_schema(
            "The two identities of a link.", {"weaker": "anonymous_id:anon-1", "stronger": "user_id:user-1"}
        )
        | _CLOSED
    )

    weaker: str
    stronger: str
