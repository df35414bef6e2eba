"""Sources and keys."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.json_schema import SkipJsonSchema

from app.api.schemas.common import EXAMPLE_INSTANT, KEY_PATTERN, Instant, OptionalInstant, shape


class SourceIn(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "description": "Where messages come from.",
            "examples": [{"key": "shop", "name": "Web shop", "default_channel": "web"}],
        },
    )

    key: Annotated[str, StringConstraints(pattern=KEY_PATTERN, max_length=64)]
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
    source: Annotated[str, StringConstraints(pattern=KEY_PATTERN, max_length=64)] | None = None
    name: Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00]*$")] = ""


class SourceOut(BaseModel):
    model_config = shape(
        "A source.",
        {
            "key": "shop",
            "name": "Web shop",
            "default_channel": "web",
            "identity_properties": {},
            "created_at": EXAMPLE_INSTANT,
        },
    )

    key: str
    name: str
    default_channel: str | None
    identity_properties: dict[str, str]
    created_at: Instant
    write_key: str | SkipJsonSchema[None] = Field(None, description="When the source was just made.")


class KeyOut(BaseModel):
    model_config = shape(
        "A key. The whole of it is shown once, when it is made.",
        {
            "id": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "kind": "secret",
            "source": None,
            "name": "Reports",
            "hint": "sk_4fGh",
            "created_at": EXAMPLE_INSTANT,
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
    model_config = shape("All sources, by key.", {"items": []})

    items: list[SourceOut]


class KeysOut(BaseModel):
    model_config = shape("All keys, oldest first.", {"items": []})

    items: list[KeyOut]
