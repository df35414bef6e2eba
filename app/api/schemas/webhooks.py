"""Schemas of connectors, webhook secrets, webhook receipts and dry runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.api.schemas.collect import RejectionOut
from app.http.schema_types import EXAMPLE_INSTANT, Instant, OptionalInstant, describe_schema


class ConnectorOut(BaseModel):
    model_config = describe_schema(
        "A connector.",
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
        description="Name of the secret in the tool's interface. Empty means that Segue generates a token."
    )
    makes_token: bool
    steps: list[str] = Field(description="Setup steps; {url} is the URL of the webhook.")
    options: dict[str, str] = Field(description="Options of a source of this kind, each with its meaning.")
    sample: str = Field(description="A sample body.")
    sample_headers: dict[str, str]


class ConnectorsOut(BaseModel):
    model_config = describe_schema("All connectors.", {"items": []})

    items: list[ConnectorOut]


class SecretIn(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "description": "A new webhook secret of a source.",
            "examples": [{"secret": "as the tool shows it", "overlap_seconds": 86400}],
        },
    )

    secret: Annotated[str, StringConstraints(max_length=10_000)] = Field(
        "", description="The secret that the tool shows. Omit it for a tool that cannot sign: Segue generates a token."
    )
    overlap_seconds: int = Field(
        86_400, ge=0, le=2_592_000, description="How long older secrets stay valid, in seconds."
    )


class SecretOut(BaseModel):
    model_config = describe_schema(
        "A secret without its value. A generated token is shown only in the response that creates it.",
        {"id": 1, "created_at": EXAMPLE_INSTANT, "expires_at": None},
    )

    id: int
    created_at: Instant
    expires_at: OptionalInstant
    token: str | None = Field(
        None, description="Present only in the response that creates it. Append it to the webhook URL as ?token=."
    )


class SecretsOut(BaseModel):
    model_config = describe_schema("Newest first.", {"items": []})

    items: list[SecretOut]


class WebhookReceiptOut(BaseModel):
    model_config = describe_schema(
        "Result of a webhook. Rejected events are in quarantine; the tool does not have to send them again.",
        {"success": True, "accepted": 1, "duplicate": 0, "rejected": 0, "ignored": 0, "projected": True},
    )

    success: Literal[True]
    accepted: int
    duplicate: int
    rejected: int
    ignored: int = Field(description="Number of events that do not concern a customer.")
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
    identities: list[str] = Field(description="Identities as kind:value, strongest first.")
    previous_id: str | None
    properties: dict[str, Any]
    context: dict[str, Any]
    traits: dict[str, Any] | None


class DeliveryDryRunOut(BaseModel):
    model_config = describe_schema(
        "Result of a dry run: Segue ran all steps of a webhook and rolled them back.",
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
        description="`verified`: signed with the newest secret and verified. `not_checked`: only the tool can sign, "
        "or the source has no secret yet."
    )
    messages: list[DryRunMessageOut]
    accepted: int
    duplicate: int
    rejections: list[RejectionOut]
    ignored: int
    erasures: list[str] = Field(description="Identities, as kind:value, for which an erasure request would be created.")
