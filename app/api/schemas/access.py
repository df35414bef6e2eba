"""Schemas of sources and keys."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from app.http.schema_types import EXAMPLE_INSTANT, KEY_PATTERN, Instant, OptionalInstant, describe_schema
from app.registry.key_store import KeyTrust
from app.touchpoint import BotPolicy

_ORIGIN: Final = re.compile(r"([a-z][a-z0-9+.-]*)://((?:\*\.)?[a-z0-9._-]+|\[[0-9a-f:]+\])(?::([0-9]{1,5}))?")
_USUAL_PORTS: Final = {"http": "80", "https": "443"}


def _normalise_origin(origin: str) -> str:
    """Return the origin as browsers write it: lower case, without the default port. Raise ValueError."""
    match = _ORIGIN.fullmatch(origin.lower().removesuffix("/"))
    if match is None:
        raise ValueError(
            "write an origin such as https://shop.example.com, https://*.example.com or http://localhost:3000"
        )
    scheme, host, port = match.groups()
    return f"{scheme}://{host}" + ("" if port is None or port == _USUAL_PORTS.get(scheme) else f":{port}")


Origins = Annotated[
    list[
        Annotated[
            str,
            StringConstraints(max_length=300),
            AfterValidator(_normalise_origin),
            WithJsonSchema({"type": "string", "maxLength": 300, "examples": ["https://shop.example.com"]}),
        ]
    ],
    Field(
        max_length=100,
        description="Origins of pages that may use the key, such as https://shop.example.com or https://*.example.com "
        "(all subdomains). Empty means any origin. Checked only if the request has an Origin header, as "
        "browsers send it.",
    ),
]
_Name = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00]*$")]
_Channel = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,49}$")]
_IdentityProperties = Annotated[
    dict[
        Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]+$")],
        Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]{0,49}$")],
    ],
    Field(
        max_length=20,
        description="Event properties that identify a customer, each with the identity kind of its value.",
    ),
]
_Bots = Annotated[
    BotPolicy,
    Field(
        description="How to handle messages whose user agent is a bot: keep, quarantine (they can be replayed) or drop."
    ),
]
_TrustsIdentify = Annotated[
    bool,
    Field(
        strict=True,
        description="Whether /v1/me trusts the user id that a page claims for its visitor without a token of the "
        "site's server. If true, any visitor can claim any user id.",
    ),
]
_Trust = Annotated[
    KeyTrust,
    Field(
        description="`public`: the key may be in a page, and its claims about identities cannot harm "
        "other customers. `server`: only the site's own servers have the key, and what they send about "
        "identities takes precedence."
    ),
]
_JoinsUsers = Annotated[
    bool,
    Field(
        strict=True,
        description="Whether an alias that a public key sends may join two user ids. A server key always may.",
    ),
]

_Options = Annotated[
    dict[
        Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,49}$")],
        Annotated[str, StringConstraints(max_length=4_000, pattern=r"^[^\x00]*$")],
    ],
    Field(
        description="Options of the connector; `GET /v1/connectors` lists them. Every connector has `url`, the "
        "webhook's URL as the tool calls it, and `text`, where free text of customers is stored (private, property or "
        "none)."
    ),
]


class SourceIn(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "description": "A source of messages, such as a website, an app or a tool.",
            "examples": [{"key": "shop", "name": "Web shop", "default_channel": "web"}],
        },
    )

    key: Annotated[str, StringConstraints(pattern=KEY_PATTERN, max_length=64)]
    name: _Name = ""
    default_channel: _Channel | None = None
    identity_properties: _IdentityProperties = {}
    bots: _Bots = "quarantine"
    kind: Annotated[
        str,
        StringConstraints(pattern=KEY_PATTERN, max_length=64),
        Field(description="`sdk`, or the key of a connector from `GET /v1/connectors`. It cannot be changed later."),
    ] = "sdk"
    options: _Options = {}
    origins: Origins = []
    """Origins of the pages that may use the source's first write key."""


class SourceChangeIn(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "description": "The fields to change. Omitted fields stay as they are.",
            "examples": [{"bots": "drop"}],
        },
    )

    name: _Name = ""
    default_channel: _Channel | None = Field(None, description="null removes the default channel.")
    identity_properties: _IdentityProperties = {}
    bots: _Bots = "quarantine"
    options: _Options = {}


class KeyIn(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "description": "A new key. A write key needs a source.",
            "examples": [{"kind": "write", "source": "shop", "name": "Browser"}],
        },
    )

    kind: Literal["write", "secret"]
    source: Annotated[str, StringConstraints(pattern=KEY_PATTERN, max_length=64)] | None = None
    name: _Name = ""
    origins: Origins = []
    trusts_identify: _TrustsIdentify = False
    trust: _Trust = "public"
    joins_users: _JoinsUsers = False


class KeyChangeIn(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "description": "The fields to change. Omitted fields stay as they are.",
            "examples": [{"origins": ["https://shop.example.com", "https://*.shop.example.com"]}],
        },
    )

    name: _Name = ""
    origins: Origins = []
    trusts_identify: _TrustsIdentify = False
    trust: _Trust = "public"
    joins_users: _JoinsUsers = False


class SourceOut(BaseModel):
    model_config = describe_schema(
        "A source of messages.",
        {
            "key": "shop",
            "name": "Web shop",
            "default_channel": "web",
            "identity_properties": {},
            "created_at": EXAMPLE_INSTANT,
            "bots": "quarantine",
            "kind": "sdk",
            "options": {},
        },
    )

    key: str
    name: str
    default_channel: str | None
    identity_properties: dict[str, str]
    created_at: Instant
    bots: _Bots
    kind: str
    options: dict[str, str]
    write_key: str | SkipJsonSchema[None] = Field(
        None, description="First write key; present only in the response that creates the source."
    )


class KeyOut(BaseModel):
    model_config = describe_schema(
        "A key. A secret key is shown only in the response that creates it.",
        {
            "id": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "kind": "secret",
            "source": None,
            "name": "Reports",
            "hint": "sk_4fGh",
            "created_at": EXAMPLE_INSTANT,
            "revoked_at": None,
            "origins": [],
            "trusts_identify": False,
            "last_used_at": EXAMPLE_INSTANT,
            "trust": "public",
            "joins_users": False,
        },
    )

    id: str
    kind: Literal["write", "secret"]
    source: str | None
    name: str
    hint: str = Field(description="The whole write key, or the first characters of a secret key.")
    created_at: Instant
    revoked_at: OptionalInstant
    origins: Origins
    trusts_identify: _TrustsIdentify
    last_used_at: OptionalInstant = Field(
        description="When a request last used the key, exact to about a minute; null if never."
    )
    trust: _Trust
    joins_users: _JoinsUsers
    key: str | SkipJsonSchema[None] = Field(None, description="Present only in the response that creates the key.")


class SourcesOut(BaseModel):
    model_config = describe_schema("All sources, sorted by key.", {"items": []})

    items: list[SourceOut]


class KeysOut(BaseModel):
    model_config = describe_schema("All keys, oldest first.", {"items": []})

    items: list[KeyOut]
