"""Schemas of messages and receipts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema

from app.api.schemas.visitor import MeOut, ReceiptVisitorOut
from app.errors import RejectionCode
from app.http.schema_types import describe_schema


class CallIn(BaseModel):
    model_config = describe_schema(
        "One message of Segment's spec. It needs userId or anonymousId. Additional fields are stored.",
        {
            "userId": "user-1",
            "event": "Order Completed",
            "properties": {"total": 42.5},
            "timestamp": "2026-05-04T10:00:00Z",
            "messageId": "m-1",
        },
        open=True,
    )

    messageId: str | None = Field(
        None,
        description="Identifies the message, so that a retry is not stored twice. If omitted, equal content "
        "is a retry.",
    )
    userId: str | None = None
    anonymousId: str | None = None
    event: str | None = Field(None, description="Event name; required for track.")
    properties: dict[str, Any] | None = None
    traits: dict[str, Any] | None = Field(None, description="Traits of an identify or group message.")
    context: dict[str, Any] | None = None
    timestamp: str | None = Field(None, description="When the event happened, by the client's clock.")
    sentAt: str | None = Field(
        None,
        description="When the message was sent, by the same clock. Segue uses it to correct the error of the clock.",
    )
    groupId: str | None = None
    previousId: str | None = Field(None, description="For alias: the id that userId replaces.")
    writeKey: str | None = Field(None, description="Write key, if there is no Authorization header.")


class BatchItemIn(CallIn):
    model_config = describe_schema(
        "One message with its type.",
        {"type": "identify", "userId": "user-1", "traits": {"email": "user@example.com"}},
        open=True,
    )

    type: Literal["track", "identify", "page", "screen", "group", "alias"]


class VisitorIn(BaseModel):
    model_config = describe_schema(
        "The visitor of a page. `proof` is a random secret of 32 hex digits; `id` is the beginning of its SHA-256.",
        {"id": "3eb1bd439947eb762998e566ccc2e099", "proof": "0123456789abcdef0123456789abcdef", "me": ""},
    )

    id: str | None = None
    proof: str | None = None
    token: str | None = Field(None, description="Token from an earlier receipt or from POST /v1/visitor-tokens.")
    me: str | None = Field(
        None,
        description="ETag of the profile that the page has, or an empty string. If present, the receipt contains the "
        "profile if it has changed.",
    )


class BatchIn(BaseModel):
    model_config = describe_schema(
        "Up to 2,500 messages. The `context` of the batch is merged into each message; values in the "
        "message take precedence.",
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
        "Why one message was not stored. Quarantine keeps the original, unless the source drops messages of bots.",
        {"index": 3, "messageId": "m-4", "code": "missing_event", "message": RejectionCode.MISSING_EVENT.meaning},
    )

    index: int = Field(description="Position in the batch, starting at 0.")
    messageId: str | None
    code: Annotated[
        str,
        Field(
            json_schema_extra={"enum": [code.value for code in RejectionCode]},
            description="Codes in order of precedence:\n"
            + "\n".join(f"- `{code}`: {code.meaning}" for code in RejectionCode),
        ),
    ]
    message: str


class WarningOut(BaseModel):
    model_config = describe_schema(
        "A warning about a message that was stored, but may contain a mistake.",
        {"index": 0, "messageId": "m-1", "code": "timestamp_future", "message": "the timestamp is in the future"},
    )

    index: int
    messageId: str | None
    code: str
    message: str


class ReceiptOut(BaseModel):
    model_config = describe_schema(
        "Receipt of a request that sends messages. The counts add up to the number of sent messages.",
        {"success": True, "accepted": 1, "duplicate": 0, "rejected": 0, "projected": True, "rejections": []},
    )

    success: Literal[True]
    accepted: int
    duplicate: int = Field(description="Messages whose id was already stored. The stored message is kept.")
    rejected: int
    projected: bool = Field(description="Whether stages and segments already reflect the accepted messages.")
    rejections: list[RejectionOut]
    warnings: list[WarningOut] | SkipJsonSchema[None] = Field(None, description="Present only if there are warnings.")
    visitor: ReceiptVisitorOut | SkipJsonSchema[None] = Field(
        None, description="Present if the batch contained `visitor`: a new token if one is due, or an error."
    )
    me: MeOut | SkipJsonSchema[None] = Field(
        None,
        description="Present if the batch requested the profile and it differs from the one that the page has.",
    )


class SuccessOut(BaseModel):
    model_config = describe_schema("The request succeeded.", {"success": True})

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
