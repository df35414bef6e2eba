"""Kinds of sources, their secrets, webhooks and trying one out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.api.schemas.collect import RejectionOut
from app.http.schema_types import EXAMPLE_INSTANT, Instant, OptionalInstant, describe_schema


class ConnectorOut(BaseModel):
    model_config = describe_schema(
        "A kind of source.",
        {
            "key": "typeform",
            "name": "Typeform",
            "family": "survey",
            "secret": "Secret of the webhook",
            "makes_token": False,
            "steps": ["Open Connect, Webhooks, and add one with the address {url}."],
            "options": {},
            "sample": '{"event_id":"01H","event_type":"form_response"}',
            "sample_headers": {"content-type": "application/json"},
        },
    )

    key: str
    name: str
    family: str
    secret: str = Field(
        description="What to enter as the secret, in the tool's words; empty where Segue makes a token."
    )
    makes_token: bool
    steps: list[str] = Field(description="How to set it up; {url} is the webhook's address.")
    options: dict[str, str] = Field(description="What a source of this kind may be told, and what it means.")
    sample: str = Field(description="A body as the tool sends it.")
    sample_headers: dict[str, str]


class ConnectorsOut(BaseModel):
    model_config = describe_schema("All kinds of sources.", {"items": []})

    items: list[ConnectorOut]


class SecretIn(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "description": "A new secret of a source.",
            "examples": [{"secret": "as the tool shows it", "overlap_seconds": 86400}],
        },
    )

    secret: Annotated[str, StringConstraints(max_length=10_000)] = Field(
        "", description="As the tool shows it; left out for a tool that cannot sign: then a token is made."
    )
    overlap_seconds: int = Field(86_400, ge=0, le=2_592_000, description="How long the older secrets still hold.")


class SecretOut(BaseModel):
    model_config = describe_schema(
        "A secret, never itself; of a token that was made just now the token, this once.",
        {"id": 1, "created_at": EXAMPLE_INSTANT, "expires_at": None},
    )

    id: int
    created_at: Instant
    expires_at: OptionalInstant
    token: str | None = Field(None, description="Only in the answer that makes it: the webhook is called with ?token=.")


class SecretsOut(BaseModel):
    model_config = describe_schema("Newest first.", {"items": []})

    items: list[SecretOut]


class WebhookReceiptOut(BaseModel):
    model_config = describe_schema(
        "What became of a delivery. What was rejected is in quarantine and need not be sent again.",
        {"success": True, "accepted": 1, "duplicate": 0, "rejected": 0, "ignored": 0, "projected": True},
    )

    success: Literal[True]
    accepted: int
    duplicate: int
    rejected: int
    ignored: int = Field(description="Events that concern no person.")
    projected: bool


class DryRunMessageOut(BaseModel):
    model_config = describe_schema(
        "A message as it would be stored.",
        {
            "type": "track",
            "message_id": "e-1",
            "name": "email.clicked",
            "channel": "email",
            "occurred_at": EXAMPLE_INSTANT,
            "identities": ["email:user@example.com"],
            "previous_id": None,
            "properties": {"link": "https://example.com/p"},
            "context": {"channel": "email"},
            "traits": None,
        },
    )

    type: str
    message_id: str
    name: str | None
    channel: str
    occurred_at: Instant
    identities: list[str] = Field(description="kind:value, strongest first.")
    previous_id: str | None
    properties: dict[str, Any]
    context: dict[str, Any]
    traits: dict[str, Any] | None


class DeliveryDryRunOut(BaseModel):
    model_config = describe_schema(
        "What a delivery would become: the whole way was gone, and nothing of it was kept.",
        {
            "signature": "verified",
            "messages": [],
            "accepted": 0,
            "duplicate": 0,
            "rejections": [],
            "ignored": 1,
            "erasures": [],
        },
    )

    signature: Literal["verified", "not_checked"] = Field(
        description="verified: signed with the source's newest secret and verified. not_checked: the tool's part needs "
        "a key that only the tool has, or the source has no secret yet."
    )
    messages: list[DryRunMessageOut]
    accepted: int
    duplicate: int
    rejections: list[RejectionOut]
    ignored: int
    erasures: list[str] = Field(description="kind:value of people who would be queued for erasure.")
