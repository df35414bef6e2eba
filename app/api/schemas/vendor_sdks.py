"""What foreign SDKs send and are answered, as far as it is published: their own documentation has the rest."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from app.http.schema_types import describe_schema


class MixpanelEventIn(BaseModel):
    model_config = describe_schema(
        "One Mixpanel event or profile update, or an array of them; as JSON, or as `data=` of a form or the query, as "
        "JSON or base64.",
        {"event": "Product Viewed", "properties": {"token": "wk_demo", "distinct_id": "user-1", "time": 1795597029.7}},
        open=True,
    )


class MixpanelOut(BaseModel):
    model_config = describe_schema("With `verbose=1`; else the text `1`.", {"status": 1, "error": None})

    status: Literal[1]
    error: None = None


class MixpanelImportOut(BaseModel):
    model_config = describe_schema(
        "How many were stored or were there before. With `verbose=1` of a form as `/track`.",
        {"code": 200, "num_records_imported": 2, "status": "OK"},
    )

    code: Literal[200]
    num_records_imported: int
    status: Literal["OK"]


class MixpanelImportErrorOut(BaseModel):
    model_config = describe_schema(
        "Some events were refused; the others are stored.",
        {
            "code": 400,
            "error": "some data points in the request failed validation",
            "status": "Bad Request",
            "num_records_imported": 1,
            "failed_records": [
                {"index": 1, "insert_id": "i-2", "field": "event", "message": "a track message needs an event name"}
            ],
        },
    )

    code: Literal[400]
    error: str
    status: Literal["Bad Request"]
    num_records_imported: int
    failed_records: list[dict[str, Any]] = Field(description="`index`, `insert_id`, `field` and `message` of each.")


class PosthogBatchIn(BaseModel):
    model_config = describe_schema(
        "A PostHog batch, or one event; as JSON, gzip, or `data=` of a form as base64.",
        {
            "api_key": "wk_demo",
            "batch": [{"event": "$pageview", "distinct_id": "user-1", "uuid": "01a211ed-f913-79c3-bcde-a5adb2a110c3"}],
            "sent_at": "2026-05-04T10:00:01Z",
        },
        open=True,
    )

    api_key: str | None = Field(None, description="A write key.")


class PosthogOut(BaseModel):
    model_config = describe_schema("It was taken.", {"status": 1})

    status: Literal[1]


class PosthogResultsOut(BaseModel):
    model_config = describe_schema(
        "By uuid: ok, drop (it is in quarantine), or retry (it stood beyond a batch).",
        {"results": {"01a211ed-f913-79c3-bcde-a5adb2a110c3": {"result": "ok"}}},
    )

    results: dict[str, dict[str, str]]


class FlagsOut(BaseModel):
    model_config = describe_schema(
        "There are no feature flags.",
        {"flags": {}, "featureFlags": {}, "featureFlagPayloads": {}, "errorsWhileComputingFlags": False},
        open=True,
    )

    flags: dict[str, Any]
    featureFlags: dict[str, Any]
    featureFlagPayloads: dict[str, Any]
    errorsWhileComputingFlags: Literal[False]


class RemoteConfigOut(BaseModel):
    model_config = describe_schema(
        "What posthog-js may do here: capture events, compressed, and nothing else.",
        {"token": "wk_demo", "supportedCompression": ["gzip", "gzip-js"], "hasFeatureFlags": False},
        open=True,
    )

    token: str
    supportedCompression: list[str]
    hasFeatureFlags: Literal[False]


class MeasurementIn(BaseModel):
    model_config = describe_schema(
        "A body of GA4's Measurement Protocol.",
        {
            "client_id": "123456.7654321",
            "events": [{"name": "purchase", "params": {"currency": "EUR", "value": 42.5, "transaction_id": "T-1"}}],
        },
        open=True,
    )


class ValidationMessageOut(BaseModel):
    model_config = describe_schema(
        "One thing that would be refused.",
        {"fieldPath": "client_id", "description": "no usable identity", "validationCode": "VALUE_REQUIRED"},
    )

    fieldPath: str
    description: str
    validationCode: str


class ValidationOut(BaseModel):
    model_config = describe_schema("Empty: it would be stored whole.", {"validationMessages": []})

    validationMessages: list[ValidationMessageOut]


class SourceConfigOut(BaseModel):
    model_config = describe_schema(
        "What RudderStack's browser SDK asks for before it sends.",
        {"source": {"id": "default", "name": "default", "writeKey": "wk_demo", "enabled": True, "destinations": []}},
        open=True,
    )

    source: dict[str, Any]


class JitsuOut(BaseModel):
    model_config = describe_schema("It was taken.", {"ok": True})

    ok: Literal[True]


class CustomerioIn(BaseModel):
    model_config = describe_schema(
        "The body of a call of Customer.io's Track API: attributes of a person, or an event, device, merge or report.",
        {"name": "purchased", "data": {"price": 19.99}, "timestamp": 1795597029},
        open=True,
    )


class CustomerioOperationIn(BaseModel):
    model_config = describe_schema(
        "One operation of Customer.io's Track API, version 2.",
        {"type": "person", "action": "event", "identifiers": {"id": "user-1"}, "name": "purchased", "attributes": {}},
        open=True,
    )

    type: str = Field(description="person, object or delivery.")
    action: str


class CustomerioBatchIn(BaseModel):
    model_config = describe_schema(
        "Many of them.",
        {"batch": [{"type": "person", "action": "identify", "identifiers": {"id": "user-1"}, "attributes": {}}]},
        open=True,
    )

    batch: list[CustomerioOperationIn]


class CustomerioOut(BaseModel):
    model_config = describe_schema("It was taken.", {})


class CustomerioErrorOut(BaseModel):
    model_config = describe_schema(
        "An operation that was refused.",
        {"batch_index": 1, "reason": "required", "field": "name", "message": "a track message needs an event name"},
    )

    batch_index: int
    reason: str
    field: str
    message: str


class CustomerioErrorsOut(BaseModel):
    model_config = describe_schema("Operations that were refused; they are in quarantine.", {"errors": []})

    errors: list[CustomerioErrorOut]
