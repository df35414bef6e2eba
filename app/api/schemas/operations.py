"""Quarantine and health."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from app.api.schemas.common import EXAMPLE_INSTANT, Instant, OptionalInstant, shape
from app.errors import RejectionCode


class QuarantinedOut(BaseModel):
    model_config = shape(
        "A message that was not stored.",
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
    original: str = Field(description="As the client sent it.")
    encoding: Literal["utf-8", "base64"] = Field(description="Of original: base64 where it is no text.")
    replayed_at: OptionalInstant


class QuarantineOut(BaseModel):
    model_config = shape("Newest first.", {"items": [], "next_cursor": None, "as_of": EXAMPLE_INSTANT})

    items: list[QuarantinedOut]
    next_cursor: str | None
    as_of: Instant


class HealthOut(BaseModel):
    model_config = shape(
        "Whether the service can do its work.",
        {"ready": True, "database": True, "migrations": True, "sweep_lag_seconds": 0.0},
    )

    ready: bool
    database: bool
    migrations: bool
    sweep_lag_seconds: float | None


class LiveOut(BaseModel):
    model_config = shape("The process answers.", {"live": True})

    live: Literal[True]
