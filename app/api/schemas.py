"""The shapes of requests and answers as they are published.

Answers are encoded by hand on the way out; these models are their contract in the OpenAPI document, and what
generated clients read.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.json_schema import SkipJsonSchema

from app.errors import RejectionCode
from app.rules.language import JourneyIn, Rule, SegmentIn

_T = "1997-01-12T09:30:00.000000Z"
_UUID = "6b1f0d0e-8a55-4b4c-9a7e-0d7c5d0c7c11"
_KEY = r"^[a-z0-9]+(?:[_-][a-z0-9]+)*$"

Instant = Annotated[datetime, Field(examples=[_T])]
OptionalInstant = Annotated[datetime | None, Field(examples=[_T])]
CustomerId = Annotated[
    str,
    Field(description="Id of the strongest identity; every id a customer ever had keeps resolving.", examples=[_UUID]),
]


def _shape(description: str, example: dict[str, Any], *, open: bool = False) -> ConfigDict:
    return ConfigDict(
        extra="allow" if open else "ignore", json_schema_extra={"description": description, "examples": [example]}
    )


class Problem(BaseModel):
    """Every failure."""

    model_config = _shape(
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


# ------------------------------------------------------------------------------------------------- collecting


class CallIn(BaseModel):
    model_config = _shape(
        "One message as Segment's spec has it. Needs userId or anonymousId; more fields are kept.",
        {
            "userId": "user-1",
            "event": "Order Completed",
            "properties": {"total": 42.5},
            "timestamp": "2026-05-04T10:00:00Z",
            "messageId": "m-1",
        },
        open=True,
    )

    messageId: str | None = Field(None, description="Makes a retry a duplicate; without it the content decides.")
    userId: str | None = None
    anonymousId: str | None = None
    event: str | None = Field(None, description="Name of a track message.")
    properties: dict[str, Any] | None = None
    traits: dict[str, Any] | None = Field(None, description="Of identify and group.")
    context: dict[str, Any] | None = None
    timestamp: str | None = Field(None, description="When it happened, by the client's clock.")
    sentAt: str | None = Field(None, description="When it was sent, by the same clock; cancels its error.")
    groupId: str | None = None
    previousId: str | None = Field(None, description="Of alias: the id that userId replaces.")
    writeKey: str | None = Field(None, description="Instead of the Authorization header.")


class BatchItemIn(CallIn):
    model_config = _shape(
        "One message with its type.",
        {"type": "identify", "userId": "user-1", "traits": {"email": "user@example.com"}},
        open=True,
    )

    type: Literal["track", "identify", "page", "screen", "group", "alias"]


class BatchIn(BaseModel):
    model_config = _shape(
        "Up to 2,500 messages. Context of the envelope is merged under each item's own.",
        {
            "batch": [{"type": "track", "event": "Product Viewed", "anonymousId": "anon-1", "messageId": "m-2"}],
            "sentAt": "2026-05-04T10:00:01Z",
        },
        open=True,
    )

    batch: list[BatchItemIn]
    sentAt: str | None = None
    context: dict[str, Any] | None = None
    writeKey: str | None = None


class RejectionOut(BaseModel):
    model_config = _shape(
        "Why one message was not stored. Its original is kept in quarantine.",
        {"index": 3, "messageId": "m-4", "code": "missing_event", "message": RejectionCode.MISSING_EVENT.meaning},
    )

    index: int = Field(description="Place in the batch, from 0.")
    messageId: str | None
    code: Annotated[
        str,
        Field(
            json_schema_extra={"enum": [code.value for code in RejectionCode]},
            description="In order of precedence:\n"
            + "\n".join(f"- `{code}`: {code.meaning}" for code in RejectionCode),
        ),
    ]
    message: str


class WarningOut(BaseModel):
    model_config = _shape(
        "A message was stored, but not quite as sent.",
        {"index": 0, "messageId": "m-1", "code": "timestamp_future", "message": "the timestamp lies in the future"},
    )

    index: int
    messageId: str | None
    code: str
    message: str


class ReceiptOut(BaseModel):
    model_config = _shape(
        "What became of each message. The counts add up to what was sent.",
        {"success": True, "accepted": 1, "duplicate": 0, "rejected": 0, "projected": True, "rejections": []},
    )

    success: Literal[True]
    accepted: int
    duplicate: int = Field(description="Stored before; the first one stays.")
    rejected: int
    projected: bool = Field(description="Whether stages and segments reflect the accepted messages already.")
    rejections: list[RejectionOut]
    warnings: list[WarningOut] | SkipJsonSchema[None] = Field(None, description="Only where there are any.")


class SuccessOut(BaseModel):
    model_config = _shape("It was taken.", {"success": True})

    success: Literal[True]


class SettingsOut(BaseModel):
    model_config = _shape(
        "Settings of a browser SDK.",
        {
            "integrations": {
                "Segment.io": {"apiKey": "wk_demo", "retryQueue": True, "apiHost": "localhost/v1", "protocol": "http"}
            },
            "metrics": {"sampleRate": 0},
        },
    )

    integrations: dict[str, Any]
    metrics: dict[str, Any]


# -------------------------------------------------------------------------------------------------- customers


class IdentityOut(BaseModel):
    model_config = _shape("One way to name a customer.", {"kind": "email", "value": "user@example.com"})

    kind: str
    value: str


class CauseOut(BaseModel):
    model_config = _shape(
        "Why: a message, or time alone.", {"kind": "message", "message_id": "m-1", "source": "default"}
    )

    kind: Literal["message", "time"]
    message_id: str | SkipJsonSchema[None] = None
    source: str | SkipJsonSchema[None] = None


class StandingOut(BaseModel):
    model_config = _shape(
        "The place in one journey.",
        {"stage": "purchase", "since": _T, "valid_until": None, "cause": {"kind": "message", "message_id": "m-1"}},
    )

    stage: str | None = Field(description="null: in none yet, or no more.")
    since: OptionalInstant
    valid_until: OptionalInstant = Field(description="When it changes if nothing arrives; null is never.")
    cause: CauseOut | None


class MembershipOut(BaseModel):
    model_config = _shape(
        "A segment that the customer is in.", {"key": "repeat-buyers", "since": _T, "valid_until": None}
    )

    key: str
    since: Instant
    valid_until: OptionalInstant = Field(description="When it ends if nothing arrives; null is never.")


class CustomerOut(BaseModel):
    model_config = _shape(
        "A customer at the instant as_of.",
        {
            "id": _UUID,
            "identities": [{"kind": "user_id", "value": "user-1"}],
            "traits": {"plan": "pro"},
            "stages": {
                "six-stage": {
                    "stage": "purchase",
                    "since": _T,
                    "valid_until": None,
                    "cause": {"kind": "message", "message_id": "m-1", "source": "default"},
                }
            },
            "segments": [{"key": "first-time-buyers", "since": _T, "valid_until": None}],
            "as_of": _T,
        },
    )

    id: CustomerId
    identities: list[IdentityOut] = Field(description="Strongest first.")
    traits: dict[str, Any]
    stages: dict[str, StandingOut] = Field(description="By journey key.")
    segments: list[MembershipOut]
    as_of: Instant


class LookupIn(BaseModel):
    model_config = _shape("Up to 500 customers.", {"customers": ["user_id:user-1", "email:user@example.com"]})

    customers: list[str] = Field(max_length=500)


class FoundOut(BaseModel):
    model_config = _shape("One of the customers asked for.", {"ref": "user_id:user-1", "customer": None})

    ref: str
    customer: CustomerOut | None = Field(description="null: unknown.")


class LookupOut(BaseModel):
    model_config = _shape("In the order asked.", {"items": [{"ref": "user_id:user-1", "customer": None}], "as_of": _T})

    items: list[FoundOut]
    as_of: Instant


class StayOut(BaseModel):
    model_config = _shape(
        "A stay in a stage: from entered_at up to, not including, left_at.",
        {"journey": "six-stage", "stage": "awareness", "entered_at": _T, "left_at": None, "cause": {"kind": "message"}},
    )

    journey: str
    stage: str
    entered_at: Instant
    left_at: OptionalInstant
    cause: CauseOut
    left_cause: CauseOut | None = None


class HistoryOut(BaseModel):
    model_config = _shape("History of stages, oldest first.", {"id": _UUID, "items": [], "as_of": _T})

    id: CustomerId
    items: list[StayOut]
    as_of: Instant


class SegmentStayOut(BaseModel):
    model_config = _shape(
        "A segment now, or a stay in it.",
        {"key": "repeat-buyers", "since": _T, "valid_until": None},
    )

    key: str
    since: Instant
    valid_until: OptionalInstant = None
    left_at: OptionalInstant = Field(None, description="With history: the end of a stay that is over.")
    cause: CauseOut | None = Field(None, description="With history.")
    left_cause: CauseOut | None = Field(None, description="With history.")


class SegmentsOfCustomerOut(BaseModel):
    model_config = _shape("Segments of a customer.", {"id": _UUID, "items": [], "as_of": _T})

    id: CustomerId
    items: list[SegmentStayOut]
    as_of: Instant


class ExplanationOut(BaseModel):
    model_config = _shape(
        "A node of a rule, with its truth and what it rests on.",
        {
            "rule": {"did": "Order Completed", "at_least": 2},
            "truth": True,
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
    valid_until: OptionalInstant
    nodes: list[ExplanationOut]
    counted: int | SkipJsonSchema[None] = None
    needed: dict[str, Any] | SkipJsonSchema[None] = None
    touchpoints: list[str] | SkipJsonSchema[None] = Field(None, description="Message ids, the latest 100.")


class SegmentExplanationOut(BaseModel):
    model_config = _shape(
        "Why a customer is in a segment, or is not.",
        {
            "segment": "repeat-buyers",
            "version": 1,
            "member": False,
            "since": _T,
            "valid_until": None,
            "explanation": {"rule": {"did": "Order Completed"}, "truth": False, "valid_until": None, "nodes": []},
            "as_of": _T,
        },
    )

    segment: str
    version: int
    member: bool
    since: OptionalInstant = Field(description="Since when it has been so.")
    valid_until: OptionalInstant
    explanation: ExplanationOut
    as_of: Instant


class StageExplanationOut(BaseModel):
    model_config = _shape(
        "A stage of a journey and its rule.",
        {
            "stage": "purchase",
            "explanation": {"rule": {"did": "Order Completed"}, "truth": True, "valid_until": None, "nodes": []},
        },
    )

    stage: str
    explanation: ExplanationOut


class JourneyExplanationOut(BaseModel):
    model_config = _shape(
        "Why a customer is at a stage: the last one whose rule is true.",
        {
            "journey": "six-stage",
            "version": 1,
            "stage": "purchase",
            "since": _T,
            "valid_until": None,
            "stages": [],
            "as_of": _T,
        },
    )

    journey: str
    version: int
    stage: str | None
    since: OptionalInstant
    valid_until: OptionalInstant
    stages: list[StageExplanationOut]
    as_of: Instant


class TouchpointOut(BaseModel):
    model_config = _shape(
        "One message of the log.",
        {
            "message_id": "m-1",
            "source": "default",
            "type": "track",
            "name": "Order Completed",
            "channel": "web",
            "occurred_at": _T,
            "received_at": _T,
            "sent_at": None,
            "original_timestamp": _T,
            "identities": [{"kind": "user_id", "value": "user-1"}],
            "properties": {"total": 42.5},
            "context": {},
            "traits": None,
        },
    )

    message_id: str
    source: str
    type: str
    name: str | None = Field(description="null for identify, group and alias, which are no touchpoints.")
    channel: str
    occurred_at: Instant = Field(description="Corrected for the client's clock.")
    received_at: Instant
    sent_at: OptionalInstant
    original_timestamp: str | None = Field(description="As the client wrote it.")
    identities: list[IdentityOut] = Field(description="All that the message carried.")
    properties: dict[str, Any]
    context: dict[str, Any]
    traits: dict[str, Any] | None


class TimelineOut(BaseModel):
    model_config = _shape("Messages of a customer, newest first.", {"items": [], "next_cursor": None, "as_of": _T})

    items: list[TouchpointOut]
    next_cursor: str | None
    as_of: Instant


class LinkOut(BaseModel):
    model_config = _shape(
        "One row of the merge ledger.",
        {
            "weaker": {"kind": "anonymous_id", "value": "anon-1"},
            "stronger": {"kind": "user_id", "value": "user-1"},
            "kind": "link",
            "joined": True,
            "occurred_at": _T,
            "message_id": "m-1",
            "source": "default",
            "undone_at": None,
        },
    )

    weaker: IdentityOut
    stronger: IdentityOut
    kind: Literal["link", "alias"]
    joined: bool = Field(description="false: a conflict, it changed nothing.")
    occurred_at: Instant
    message_id: str
    source: str
    undone_at: OptionalInstant


class LinksOut(BaseModel):
    model_config = _shape("Why these identities are one customer.", {"id": _UUID, "items": [], "as_of": _T})

    id: CustomerId
    items: list[LinkOut]
    as_of: Instant


class LinkIn(BaseModel):
    model_config = _shape(
        "A link of the merge ledger.", {"weaker": "anonymous_id:anon-1", "stronger": "user_id:user-1"}
    )

    weaker: str
    stronger: str


# ------------------------------------------------------------------------------------------------ definitions


class FillOut(BaseModel):
    model_config = _shape(
        "How far stored answers have come. Until done, answers are worked out when asked: never wrong, only slower.",
        {"customers_total": 1000, "customers_filled": 1000, "done": True},
    )

    customers_total: int
    customers_filled: int
    done: bool


class SegmentOut(BaseModel):
    model_config = _shape(
        "The current version of a segment.",
        {
            "key": "repeat-buyers",
            "name": "Repeat buyers",
            "description": "Bought at least twice",
            "owner": "crm@example.com",
            "version": 1,
            "created_at": _T,
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


class StageOut(BaseModel):
    model_config = _shape("A stage.", {"key": "purchase", "name": "Purchase", "rule": {"did": "Order Completed"}})

    key: str
    name: str
    rule: Rule


class JourneyOut(BaseModel):
    model_config = _shape(
        "The current version of a journey.",
        {
            "key": "trial",
            "name": "Trial",
            "description": "",
            "owner": "",
            "version": 1,
            "created_at": _T,
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


class SegmentsOut(BaseModel):
    model_config = _shape("All segments, by key.", {"items": [], "next_cursor": None, "as_of": _T})

    items: list[SegmentOut]
    next_cursor: str | None
    as_of: Instant


class JourneysOut(BaseModel):
    model_config = _shape("All journeys, by key.", {"items": [], "next_cursor": None, "as_of": _T})

    items: list[JourneyOut]
    next_cursor: str | None
    as_of: Instant


class MemberOut(BaseModel):
    model_config = _shape(
        "A customer who is in the segment.",
        {"id": _UUID, "identities": [{"kind": "user_id", "value": "user-1"}], "since": _T, "valid_until": None},
    )

    id: CustomerId
    identities: list[IdentityOut]
    since: Instant
    valid_until: OptionalInstant


class MembersOut(BaseModel):
    model_config = _shape(
        "Members by customer id. While a definition is filled a page may be short: go on while there is a cursor.",
        {"items": [], "next_cursor": None, "as_of": _T},
    )

    items: list[MemberOut]
    next_cursor: str | None
    as_of: Instant


class CountOut(BaseModel):
    model_config = _shape("Equal to the length of the list as of the same instant.", {"count": 1411, "as_of": _T})

    count: int
    as_of: Instant


# ----------------------------------------------------------------------------------------------------- access


class SourceIn(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "description": "Where messages come from.",
            "examples": [{"key": "shop", "name": "Web shop", "default_channel": "web"}],
        },
    )

    key: Annotated[str, StringConstraints(pattern=_KEY, max_length=64)]
    name: Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00]*$")] = ""
    default_channel: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,49}$")] | None = None
    identity_properties: dict[
        Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]+$")],
        Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]{0,49}$")],
    ] = Field(default={}, max_length=20, description="Event property that identifies -> the kind it holds.")


class KeyIn(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "description": "A new key. A write key belongs to a source.",
            "examples": [{"kind": "write", "source": "shop", "name": "Browser"}],
        },
    )

    kind: Literal["write", "secret"]
    source: Annotated[str, StringConstraints(pattern=_KEY, max_length=64)] | None = None
    name: Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00]*$")] = ""


class SourceOut(BaseModel):
    model_config = _shape(
        "A source.",
        {"key": "shop", "name": "Web shop", "default_channel": "web", "identity_properties": {}, "created_at": _T},
    )

    key: str
    name: str
    default_channel: str | None
    identity_properties: dict[str, str]
    created_at: Instant
    write_key: str | SkipJsonSchema[None] = Field(None, description="When the source was just made.")


class KeyOut(BaseModel):
    model_config = _shape(
        "A key. The whole of it is shown once, when it is made.",
        {
            "id": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "kind": "secret",
            "source": None,
            "name": "Reports",
            "hint": "sk_4fGh",
            "created_at": _T,
            "revoked_at": None,
        },
    )

    id: str
    kind: Literal["write", "secret"]
    source: str | None
    name: str
    hint: str = Field(description="A write key whole, of a secret key the first characters.")
    created_at: Instant
    revoked_at: OptionalInstant
    key: str | SkipJsonSchema[None] = Field(None, description="When the key was just made.")


class SourcesOut(BaseModel):
    model_config = _shape("All sources, by key.", {"items": []})

    items: list[SourceOut]


class KeysOut(BaseModel):
    model_config = _shape("All keys, oldest first.", {"items": []})

    items: list[KeyOut]


class QuarantinedOut(BaseModel):
    model_config = _shape(
        "A message that was not stored.",
        {
            "id": 1,
            "source": "default",
            "received_at": _T,
            "code": "missing_event",
            "message": RejectionCode.MISSING_EVENT.meaning,
            "message_id": "m-4",
            "original": '{"type":"track","userId":"user-1","messageId":"m-4"}',
            "encoding": "utf-8",
            "replayed_at": None,
        },
    )

    id: int
    source: str
    received_at: Instant
    code: str
    message: str
    message_id: str | None
    original: str = Field(description="As the client sent it.")
    encoding: Literal["utf-8", "base64"] = Field(description="Of original: base64 where it is no text.")
    replayed_at: OptionalInstant


class QuarantineOut(BaseModel):
    model_config = _shape("Newest first.", {"items": [], "next_cursor": None, "as_of": _T})

    items: list[QuarantinedOut]
    next_cursor: str | None
    as_of: Instant


class HealthOut(BaseModel):
    model_config = _shape(
        "Whether the service can do its work.",
        {"ready": True, "database": True, "migrations": True, "sweep_lag_seconds": 0.0},
    )

    ready: bool
    database: bool
    migrations: bool
    sweep_lag_seconds: float | None


class LiveOut(BaseModel):
    model_config = _shape("The process answers.", {"live": True})

    live: Literal[True]


# ---------------------------------------------------------------------------------------------------- helpers

REQUEST_MODELS: tuple[type[BaseModel], ...] = (
    CallIn, BatchIn, SegmentIn, JourneyIn, SourceIn, KeyIn, LinkIn, LookupIn, BatchItemIn,
)  # fmt: skip
"""Bodies are read by hand, so the document is told of them by hand."""


def json_body(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """``openapi_extra`` of a route that reads its body by itself."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """``responses`` of a route: the failures it can answer with."""
    return {
        status: {
            "description": _MEANINGS[status],
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


_MEANINGS = {
    400: "The request cannot be read.",
    401: "No valid key.",
    403: "The key is of the other kind.",
    404: "There is no such thing.",
    409: "It exists already, or something else rests on it.",
    422: "It can be read but makes no sense; path and remedy say where and what to do.",
    503: "Too much is waiting, or the database is away. Send it again after Retry-After seconds.",
}

PROBLEMS_OF_COLLECTING = problems(400, 401, 403, 503)
