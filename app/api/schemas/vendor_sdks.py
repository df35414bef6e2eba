"""Schemas of other vendors' SDKs, as far as they matter here; the vendors' documentation has the rest."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from app.http.schema_types import describe_schema


class MixpanelEventIn(BaseModel):
    model_config = describe_schema(
        "One Mixpanel event or profile update, or an array of them, as JSON. Segue also accepts `data=` in a form or "
        "the query, as JSON or base64.",
        {"event": "Product Viewed", "properties": {"token": "wk_demo", "distinct_id": "user-1", "time": 1795597029.7}},
        open=True,
    )


class MixpanelOut(BaseModel):
    model_config = describe_schema("Response with `verbose=1`.", {"status": 1, "error": None})

    status: Literal[1]
    error: None = None


class MixpanelImportOut(BaseModel):
    model_config = describe_schema(
        "Number of events that were stored, now or earlier.",
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
    failed_records: list[dict[str, Any]] = Field(
        description="`index`, `insert_id`, `field` and `message` of each refused event."
    )


class PosthogBatchIn(BaseModel):
    model_config = describe_schema(
        "A PostHog batch or one event, as JSON. Segue also accepts gzip, and `data=` in a form as base64.",
        {
            "api_key": "wk_demo",
            "batch": [{"event": "$pageview", "distinct_id": "user-1", "uuid": "01a211ed-f913-79c3-bcde-a5adb2a110c3"}],
            "sent_at": "2026-05-04T10:00:01Z",
        },
        open=True,
    )

    api_key: str | None = Field(None, description="A write key.")


class PosthogOut(BaseModel):
    model_config = describe_schema("The request succeeded.", {"status": 1})

    status: Literal[1]


class PosthogResultsOut(BaseModel):
    model_config = describe_schema(
        "Result by uuid: `ok`, `drop` (the event is in quarantine), or `retry` (the batch had too many events).",
        {"results": {"01a211ed-f913-79c3-bcde-a5adb2a110c3": {"result": "ok"}}},
    )

    results: dict[str, dict[str, str]]


class FlagsOut(BaseModel):
    model_config = describe_schema(
        "An empty set of feature flags, because Segue does not offer feature flags.",
        {"flags": {}, "featureFlags": {}, "featureFlagPayloads": {}, "errorsWhileComputingFlags": False},
        open=True,
    )

    flags: dict[str, Any]
    featureFlags: dict[str, Any]
    featureFlagPayloads: dict[str, Any]
    errorsWhileComputingFlags: Literal[False]


class RemoteConfigOut(BaseModel):
    model_config = describe_schema(
        "Settings of posthog-js: capture compressed events; every other feature is off.",
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
        "A reason why an event would be refused.",
        {"fieldPath": "client_id", "description": "no usable identity", "validationCode": "VALUE_REQUIRED"},
    )

    fieldPath: str
    description: str
    validationCode: str


class ValidationOut(BaseModel):
    model_config = describe_schema(
        "Problems of the body. Empty means that everything would be stored.", {"validationMessages": []}
    )

    validationMessages: list[ValidationMessageOut]


class SourceConfigOut(BaseModel):
    model_config = describe_schema(
        "Settings of RudderStack's browser SDK.",
        {"source": {"id": "default", "name": "default", "writeKey": "wk_demo", "enabled": True, "destinations": []}},
        open=True,
    )

    source: dict[str, Any]


class JitsuOut(BaseModel):
    model_config = describe_schema("The request succeeded.", {"ok": True})

    ok: Literal[True]


class CustomerioIn(BaseModel):
    model_config = describe_schema(
        "Body of Customer.io's Track API v1: attributes of a person, an event, a device, a merge or a metric.",
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
        "Several operations.",
        {"batch": [{"type": "person", "action": "identify", "identifiers": {"id": "user-1"}, "attributes": {}}]},
        open=True,
    )

    batch: list[CustomerioOperationIn]


class CustomerioOut(BaseModel):
    model_config = describe_schema("The request succeeded.", {})


class CustomerioErrorOut(BaseModel):
    model_config = describe_schema(
        "A refused operation.",
        {"batch_index": 1, "reason": "required", "field": "name", "message": "a track message needs an event name"},
    )

    batch_index: int
    reason: str
    field: str
    message: str


class CustomerioErrorsOut(BaseModel):
    model_config = describe_schema("Refused operations; they are in quarantine.", {"errors": []})

    errors: list[CustomerioErrorOut]
