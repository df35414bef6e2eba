"""Messages in, receipts out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema

from app.api.schemas.visitor import MeOut, ReceiptVisitorOut
from app.errors import RejectionCode
from app.http.schema_types import describe_schema


class CallIn(BaseModel):
    model_config = describe_schema(
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
    model_config = describe_schema(
        "One message with its type.",
        {"type": "identify", "userId": "user-1", "traits": {"email": "user@example.com"}},
        open=True,
    )

    type: Literal["track", "identify", "page", "screen", "group", "alias"]


class VisitorIn(BaseModel):
    model_config = describe_schema(
        "Who the visitor of a page is. A proof (a random secret of 32 hex digits) owns the id that begins its SHA-256.",
        {"id": "3eb1bd439947eb762998e566ccc2e099", "proof": "0123456789abcdef0123456789abcdef", "me": ""},
    )

    id: str | None = None
    proof: str | None = None
    token: str | None = Field(None, description="Of an earlier receipt, or of POST /v1/visitor-tokens.")
    me: str | None = Field(
        None, description="The etag of the answer that the page has, or empty text; without it no answer is wanted."
    )


class BatchIn(BaseModel):
    model_config = describe_schema(
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
    visitor: VisitorIn | None = None


class RejectionOut(BaseModel):
    model_config = describe_schema(
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
    model_config = describe_schema(
        "A message was stored, but not quite as sent.",
        {"index": 0, "messageId": "m-1", "code": "timestamp_future", "message": "the timestamp lies in the future"},
    )

    index: int
    messageId: str | None
    code: str
    message: str


class ReceiptOut(BaseModel):
    model_config = describe_schema(
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
    visitor: ReceiptVisitorOut | SkipJsonSchema[None] = Field(
        None, description="Where the envelope said who its visitor is: another token, when it is time for one."
    )
    me: MeOut | SkipJsonSchema[None] = Field(
        None,
        description="Where the envelope asked for it, and it is another one than the page has; as of this receipt.",
    )


class SuccessOut(BaseModel):
    model_config = describe_schema("It was taken.", {"success": True})

    success: Literal[True]


class SettingsOut(BaseModel):
    model_config = describe_schema(
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
