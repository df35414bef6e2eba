"""Schemas of quarantined messages, replays and health checks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.json_schema import SkipJsonSchema

from app.errors import RejectionCode
from app.http.schema_types import EXAMPLE_INSTANT, Instant, OptionalInstant, describe_schema
from app.quarantine.patch import OPERATIONS_MAX

_Text = Annotated[str, StringConstraints(max_length=1_000, pattern=r"^[^\x00]*$")] | None


class QuarantinedOut(BaseModel):
    model_config = describe_schema(
        "A message that was not stored, and why.",
        {
            "id": 1,
            "source": "default",
            "received_at": EXAMPLE_INSTANT,
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
    original: str = Field(description="The message as the client sent it.")
    encoding: Literal["utf-8", "base64"] = Field(description="Encoding of `original`: base64 if it is not UTF-8.")
    replayed_at: OptionalInstant


class QuarantineOut(BaseModel):
    model_config = describe_schema("Newest first.", {"items": [], "next_cursor": None, "as_of": EXAMPLE_INSTANT})

    items: list[QuarantinedOut]
    next_cursor: str | None
    as_of: Instant


class QuarantineFilter(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "description": "Filter for quarantined messages. An omitted field matches all messages.",
            "examples": [{"source": "default", "code": "tracking_plan", "event": "Order Completed"}],
        },
    )

    source: _Text = None
    code: _Text = None
    event: _Text = Field(
        None, description="Event name. An event from another vendor's SDK has the name that this vendor uses."
    )
    message_id: _Text = None
    from_: _Text = Field(None, alias="from", description="Received at this instant or later.")
    to: _Text = Field(None, description="Received before this instant.")
    ids: Annotated[list[Annotated[int, Field(strict=True, ge=1, lt=1 << 63)]], Field(max_length=1_000)] | None = Field(
        None, description="Only these messages, including those that were replayed before."
    )


class QuarantineReplayIn(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "description": "Filter of the quarantined messages to replay, and the patch that corrects them.",
            "examples": [
                {
                    "filter": {"code": "tracking_plan", "event": "Order Completed"},
                    "patch": [{"op": "move", "from": "/properties/value", "path": "/properties/total"}],
                    "dry_run": True,
                }
            ],
        },
    )

    filter: Annotated[
        QuarantineFilter, Field(description="Messages to replay. By default all that were not replayed yet.")
    ] = QuarantineFilter.model_construct()
    patch: Annotated[list[dict[str, Any]], Field(max_length=OPERATIONS_MAX)] = Field(
        [], description="JSON Patch (RFC 6902) for `original`. Empty means that the messages are replayed unchanged."
    )
    dry_run: Annotated[bool, Field(strict=True)] = False
    limit: Annotated[int, Field(strict=True, ge=1, le=1_000)] = 100
    after: Annotated[
        int, Field(strict=True, ge=0, lt=1 << 63, description="`next_after` of the previous response.")
    ] = 0


class ReplayResultOut(BaseModel):
    model_config = describe_schema(
        "Result of replaying one message.",
        {
            "id": 1,
            "source": "default",
            "message_id": "m-4",
            "outcome": "rejected",
            "code": "tracking_plan",
            "reason": "properties.total: the value is less than the minimum of 0",
        },
    )

    id: int
    source: str
    message_id: str | None
    outcome: Literal["accepted", "duplicate", "rejected", "unpatchable", "failed"] = Field(
        description="`failed` means that the message could not be parsed, or could not be stored now."
    )
    code: str | None
    reason: str | None
    patched: str | SkipJsonSchema[None] = Field(None, description="The patched message; present only in a dry run.")


class QuarantineReplayOut(BaseModel):
    model_config = describe_schema(
        "Results of a replay, oldest message first, and their counts.",
        {
            "accepted": 0,
            "duplicate": 0,
            "rejected": 0,
            "unpatchable": 0,
            "failed": 0,
            "dry_run": True,
            "items": [],
            "next_after": None,
        },
    )

    accepted: int
    duplicate: int
    rejected: int
    unpatchable: int
    failed: int
    dry_run: bool
    items: list[ReplayResultOut]
    next_after: int | None = Field(
        description="Pass it as `after` to continue; null means that there are no more messages."
    )


class HealthOut(BaseModel):
    model_config = describe_schema(
        "Whether the server is ready for requests.",
        {
            "ready": True,
            "database": True,
            "migrations": True,
            "writable": True,
            "reason": None,
            "background": True,
            "sweep_lag_seconds": 0.0,
        },
    )

    ready: bool
    database: bool
    migrations: bool
    writable: bool = Field(description="Whether the database accepts writes; checked at most every 5 seconds.")
    reason: (
        Literal["database_unreachable", "not_migrated", "read_only", "disk_full", "write_failed", "other_settings"]
        | None
    ) = Field(description="Why the server is not ready; null if it is.")
    background: bool | None = Field(
        description="Whether the background process runs; null if this server has no such process."
    )
    sweep_lag_seconds: float | None


class LiveOut(BaseModel):
    model_config = describe_schema("The process answers requests.", {"live": True})

    live: Literal[True]
