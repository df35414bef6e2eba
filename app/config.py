"""Settings: one frozen object, read once from the environment (``SEGUE_*``, ``DATABASE_URL``) and passed down.

The name of every limit contains its unit.
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
"""Ids that real clients send when they know none, compared in lower case after trimming; ids of zeros are junk too."""


Rate = Annotated[
    Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}/(second|minute|hour|day)$")] | None,
    BeforeValidator(lambda text: text or None),
]
"""A rate such as ``1200/minute``; an empty string means no limit. Each process counts on its own, in fixed windows."""


class Limits(BaseSettings):
    """Limits of one request. All are documented for clients."""

    model_config = SettingsConfigDict(frozen=True, env_prefix="SEGUE_")

    body_bytes_max: int = Field(500_000, description="Body of one request as sent, in bytes.")
    inflated_bytes_max: int = Field(4_000_000, description="Body of one request after gzip, in bytes.")
    webhook_bytes_max: int = Field(1_000_000, description="Body of one webhook, in bytes.")
    message_bytes_max: int = Field(32_768, description="One message, in bytes of JSON as sent.")
    batch_messages_max: int = Field(2_500, description="Messages in one batch; further messages are rejected.")
    depth_levels_max: int = Field(32, description="Nesting depth of one message, in levels.")
    id_chars_max: int = Field(255, description="Length of any id, in characters.")
    event_chars_max: int = Field(200, description="Length of an event name, in characters.")
    future_seconds_max: int = Field(86_400, description="How far occurred_at may be after received_at, in seconds.")
    lookup_customers_max: int = Field(500, description="Customers in one lookup request.")
    page_items_max: int = Field(1_000, description="Items on one page of a list.")
    rule_nodes_max: int = Field(500, description="Nodes of one rule.")
    rule_depth_levels_max: int = Field(32, description="Nesting depth of one rule, in levels.")


class Settings(BaseSettings):
    """All settings of one process."""

    model_config = SettingsConfigDict(frozen=True, env_prefix="SEGUE_")

    database_url: Annotated[
        str | None,
        Field(
            None,
            validation_alias=AliasChoices("DATABASE_URL", "SEGUE_DATABASE_URL"),
            description="URL of a PostgreSQL 16 or newer; if unset, Segue starts its embedded PostgreSQL.",
        ),
    ]
    data_dir: Path = Field(Path("segue-data"), description="Data directory of the embedded PostgreSQL.")
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, description="Port to listen on.")
    timezone: str = Field("UTC", description="Timezone of the workspace; dates without an offset begin in it.")
    default_journey: str = Field("six-stage", description="Journey of a stage rule that names no journey.")
    phone_country: str | None = Field(
        None, description="ISO 3166 country of phone numbers without +; if unset, such numbers identify no customer."
    )
    junk_ids: tuple[str, ...] = Field(JUNK_IDS, description="Ids that are treated as absent, in lower case.")
    anonymous_ids_per_customer_max: int = Field(1_000, description="anonymous_id identities of one customer.")
    contact_ids_per_customer_max: int = Field(
        20, description="email (and, separately, phone) identities of one customer."
    )
    other_ids_per_customer_max: int = Field(100, description="Identities of one customer of any other kind, per kind.")
    flush_messages_max: int = Field(500, description="Messages in one flush; a flush has at least one whole request.")
    queue_bytes_max: int = Field(
        64_000_000, description="Bytes of requests that wait for a flush; beyond it, requests are answered 503."
    )
    series_points_max: int = Field(256, description="Instants stored for one leaf of one customer.")
    replay_messages_max: int = Field(
        20_000, description="Messages replayed inside one flush; longer histories are left to the worker."
    )
    pool_connections_max: int = Field(8, description="Connections to PostgreSQL of one process.")
    sweep_customers_max: int = Field(200, description="Customers that one step of time expiry updates.")
    fill_customers_max: int = Field(500, description="Customers that one step of a backfill updates.")
    busy_worker_percent_max: int = Field(
        10,
        ge=1,
        le=100,
        description="Share of time that the worker may use while messages arrive, in percent.",
    )
    public_traits: tuple[str, ...] = Field((), description="Declared traits that pages may read, as a JSON list.")
    visitor_token_seconds: int = Field(3_600, ge=10, le=604_800, description="Lifetime of a visitor token, in seconds.")
    streams_max: int = Field(1_000, ge=0, description="Open streams of /v1/me in one process.")
    key_rate: Rate = Field(None, description="Requests with one write key.")
    address_rate: Rate = Field(
        "1200/minute",
        description="Visitors' requests from one address: requests with an `Origin` header, `GET` of a route that "
        "pages may call, and batches with a `visitor`. `POST`s of servers do not count. An IPv6 /64 network counts as "
        "one address.",
    )
    visitor_rate: Rate = Field("300/minute", description="Requests of one visitor with a visitor token or a proof.")
    addresses: Literal["none", "truncated", "full"] = Field(
        "truncated",
        description="How visitors' IP addresses are stored: none, truncated (IPv4 to /24, IPv6 to /48) or full.",
    )
    country_database: Path | None = Field(
        None, description="Country database (.mmdb); if unset, no country is looked up."
    )
    secrets_keys: tuple[str, ...] = Field(
        (),
        repr=False,
        description="Fernet keys for the secrets of sources, as a JSON list. The first key encrypts, all keys decrypt. "
        "Without keys, secrets are stored in plain text.",
    )
    log_level: str = Field("info", description="debug, info, warning or error.")
    limits: Limits = Field(default_factory=Limits)
