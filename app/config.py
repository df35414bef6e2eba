"""Settings: one frozen value, read once from the environment (``SEGUE_*``, ``DATABASE_URL``), handed down.

Every limit carries its unit as the last word of its name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, BeforeValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

JUNK_IDS = (
    "",
    "-",
    "-1",
    "0",
    "00000000-0000-0000-0000-000000000000",
    "[object object]",
    "anon",
    "anonymous",
    "distinct_id",
    "false",
    "guest",
    "id",
    "n/a",
    "na",
    "nan",
    "nil",
    "none",
    "null",
    "true",
    "undefined",
    "unknown",
)
"""Ids that stand for "nobody" in real traffic, compared in lower case after trimming; zeros alone are junk too."""


Rate = Annotated[
    Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}/(second|minute|hour|day)$")] | None,
    BeforeValidator(lambda text: text or None),
]
"""Such as ``1200/minute``; empty is none. Counted in windows of that length, in each process by itself."""


class Limits(BaseSettings):
    """What one request may ask of us. All are public: they stand in the README."""

    model_config = SettingsConfigDict(frozen=True, env_prefix="SEGUE_")

    body_bytes_max: int = Field(500_000, description="Body of one request as sent, in bytes.")
    inflated_bytes_max: int = Field(4_000_000, description="Body of one request after gzip, in bytes.")
    webhook_bytes_max: int = Field(1_000_000, description="Body of one delivery of a tool, in bytes.")
    message_bytes_max: int = Field(32_768, description="One message, in bytes of JSON as sent.")
    batch_messages_max: int = Field(2_500, description="Messages in one batch; those beyond it are rejected.")
    depth_levels_max: int = Field(32, description="Nesting of one message, in levels.")
    id_chars_max: int = Field(255, description="Any id, in characters.")
    event_chars_max: int = Field(200, description="An event name, in characters.")
    future_seconds_max: int = Field(86_400, description="How far occurred_at may lie after received_at, in seconds.")
    lookup_customers_max: int = Field(500, description="Customers in one lookup.")
    page_items_max: int = Field(1_000, description="Items on one page of a list.")
    rule_nodes_max: int = Field(500, description="Nodes of one rule.")
    rule_depth_levels_max: int = Field(32, description="Nesting of one rule, in levels.")


class Settings(BaseSettings):
    model_config = SettingsConfigDict(frozen=True, env_prefix="SEGUE_")

    database_url: Annotated[
        str | None,
        Field(
            None,
            validation_alias=AliasChoices("DATABASE_URL", "SEGUE_DATABASE_URL"),
            description="PostgreSQL 16 or newer; without it the embedded PostgreSQL is started.",
        ),
    ]
    data_dir: Path = Field(Path("segue-data"), description="Where the embedded PostgreSQL keeps its data.")
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, description="Port to listen on.")
    timezone: str = Field("UTC", description="The workspace's timezone: where dates without an offset begin.")
    default_journey: str = Field("six-stage", description="Journey that a stage rule means when it names none.")
    phone_country: str | None = Field(
        None, description="ISO 3166 country of phone numbers without +; unset, such a number is no identity."
    )
    junk_ids: tuple[str, ...] = Field(JUNK_IDS, description="Ids that count as absent, in lower case.")
    anonymous_ids_per_customer_max: int = Field(1_000, description="anonymous_id identities of one customer.")
    contact_ids_per_customer_max: int = Field(
        20, description="email (and, separately, phone) identities of one customer."
    )
    other_ids_per_customer_max: int = Field(100, description="Identities of one tool's kind of one customer.")
    flush_messages_max: int = Field(500, description="Messages in one flush; whole requests, at least one.")
    queue_bytes_max: int = Field(64_000_000, description="Bytes waiting for a flush before 503 is answered.")
    series_points_max: int = Field(256, description="Instants kept for one leaf of one customer.")
    replay_messages_max: int = Field(
        20_000, description="Messages replayed inside one flush; more is left to the worker."
    )
    pool_connections_max: int = Field(8, description="Connections to PostgreSQL of one process.")
    sweep_customers_max: int = Field(200, description="Customers one sweep step takes.")
    fill_customers_max: int = Field(500, description="Customers one step of filling a definition takes.")
    busy_worker_percent_max: int = Field(
        10,
        ge=1,
        le=100,
        description="Share of the time that sweeping and filling take while messages arrive, in percent.",
    )
    public_traits: tuple[str, ...] = Field((), description="Declared traits that pages may be shown, a JSON list.")
    visitor_token_seconds: int = Field(3_600, ge=10, le=604_800, description="Life of a visitor token, in seconds.")
    streams_max: int = Field(1_000, ge=0, description="Open streams of /v1/me in one process.")
    key_rate: Rate = Field(None, description="Requests of one write key.")
    address_rate: Rate = Field(
        "1200/minute",
        description="Requests of visitors, from one address: with an `Origin` header, `GET` of a route that pages may "
        "call, a batch with a `visitor`. `POST`s of servers are not counted. An IPv6 network counts as one.",
    )
    visitor_rate: Rate = Field("300/minute", description="Requests of one visitor with a token or proof.")
    addresses: Literal["none", "truncated", "full"] = Field(
        "truncated",
        description="What is kept of visitors' addresses: none, truncated (IPv4 to /24, IPv6 to /48) or full.",
    )
    country_database: Path | None = Field(
        None, description="A country database (.mmdb); unset, no country is looked up."
    )
    secrets_keys: tuple[str, ...] = Field(
        (),
        repr=False,
        description="Fernet keys that encrypt the secrets of sources, a JSON list, the first one encrypts; "
        "none: they are kept as they are.",
    )
    log_level: str = Field("info", description="debug, info, warning or error.")
    limits: Limits = Field(default_factory=Limits)
