"""Schemas of visitor profiles and visitor tokens."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from app.http.schema_types import EXAMPLE_INSTANT, KEY_PATTERN, Instant, OptionalInstant, describe_schema

_EXAMPLE_VISITOR = "3eb1bd439947eb762998e566ccc2e099"
_EXAMPLE_TOKEN = "eyJzIjoic2hvcCJ9.u7ht1wGj-fB5gtEFHXvAMn_5hkDqOhg"


class MeStageOut(BaseModel):
    model_config = describe_schema(
        "Current stage in one journey.",
        {
            "stage": "consideration",
            "since": EXAMPLE_INSTANT,
            "valid_until": None,
            "content": {"banner": "Free returns"},
        },
    )

    stage: str | None
    since: OptionalInstant
    valid_until: OptionalInstant
    content: dict[str, Any] | None = Field(description="Hints for the page from the definition of the stage.")


class MeSegmentOut(BaseModel):
    model_config = describe_schema(
        "A segment that the visitor is in.", {"key": "vip", "since": EXAMPLE_INSTANT, "valid_until": None}
    )

    key: str
    since: Instant
    valid_until: OptionalInstant


class MeOut(BaseModel):
    model_config = describe_schema(
        "Profile of the visitor of a page. It contains only public journeys, segments and traits.",
        {
            "anonymous_id": _EXAMPLE_VISITOR,
            "stages": {
                "six-stage": {
                    "stage": "consideration",
                    "since": EXAMPLE_INSTANT,
                    "valid_until": None,
                    "content": {"banner": "Free returns"},
                }
            },
            "segments": [{"key": "vip", "since": EXAMPLE_INSTANT, "valid_until": None}],
            "traits": {"orders": 2},
            "valid_until": None,
            "withheld": False,
            "etag": "5f2b1a9d0c3e4f6a7b8c9d0e",
            "as_of": EXAMPLE_INSTANT,
        },
    )

    anonymous_id: str | None = Field(description="null means that the token contains only a user id.")
    stages: dict[str, MeStageOut]
    segments: list[MeSegmentOut]
    traits: dict[str, Any]
    valid_until: OptionalInstant = Field(description="When the profile changes if no message arrives.")
    withheld: bool = Field(
        description="true means that pages claim other identities for the visitor. The profile leaves out their "
        "messages, because no server has vouched for them."
    )
    etag: str
    as_of: Instant


class VisitorTokenIn(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "description": "The visitor for whom the site's server vouches. Contains anonymous_id, user_id, or both.",
            "examples": [{"source": "shop", "anonymous_id": _EXAMPLE_VISITOR, "user_id": "user-1"}],
        },
    )

    source: Annotated[str, Field(pattern=KEY_PATTERN, max_length=64)]
    anonymous_id: str | None = None
    user_id: str | None = Field(None, description="Id of the user who is logged in.")


class VisitorTokenOut(BaseModel):
    model_config = describe_schema("A visitor token.", {"token": _EXAMPLE_TOKEN, "expires_at": EXAMPLE_INSTANT})

    token: str
    expires_at: Instant


class ReceiptVisitorOut(BaseModel):
    model_config = describe_schema(
        "A new token, or the error if the claim of the page is invalid.",
        {"token": _EXAMPLE_TOKEN, "expires_at": EXAMPLE_INSTANT},
    )

    token: str | SkipJsonSchema[None] = None
    expires_at: Instant | SkipJsonSchema[None] = None
    error: str | SkipJsonSchema[None] = Field(None, description="invalid_token")
