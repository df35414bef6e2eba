"""Settings: one frozen object, read once from the environment (``SEGUE_*``, ``DATABASE_URL``) and passed down.

The name of every limit contains its unit.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field
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
    "n.a",
    "n.a.",
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
"""Placeholders that real clients send instead of an id, in lower case.

Ids are compared after trimming. An id that consists of zeros is junk too.
"""

JUNK_PATTERNS = (
    r"\{\{.*\}\}|\{%.*%\}|<%.*%>|\$\{.*\}|#\{.*\}|\[\[.*\]\]|\*\|.*\|\*",
    r"%%?[a-z][a-z0-9_. -]*%%?",
    r"(your|my|insert|enter|replace)[_ -]?(with[_ -]?)?(your[_ -]?)?(user|customer|anonymous|visitor|client|account)"
    r"[_ -]?id([_ -]?here)?",
    r"[(<{\[](null|nil|none|undefined|unknown|empty|na|n/a|not set|"
    r"(user|customer|anonymous|visitor|client)[_ -]?id)[)>}\]]",
    r"\\+n",
)
"""Regular expressions of ids that a template or an export left unfilled, compared like JUNK_IDS."""


Rate = Annotated[
    Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}/(second|minute|hour|day)$")] | None,
    BeforeValidator(lambda text: text or None),
]
"""A rate such as ``1200/minute``; an empty string means no limit. Each process counts on its own, in fixed windows."""


def _check_pattern(pattern: str) -> str:
    """Raise ValueError if the text is not a regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return pattern


class Limits(BaseSettings):
    """Limits of one request. All are documented for clients."""

    model_config = SettingsConfigDict(frozen=True, env_prefix="SEGUE_")

    head_bytes_max: int = Field(
        65_536, description="Maximum size of the head of a request, and of the trailers of a chunked body, in bytes."
    )
    headers_max: int = Field(100, description="Maximum number of headers of a request, and of trailers.")
    body_bytes_max: int = Field(500_000, description="Maximum size of a request body as sent, in bytes.")
    inflated_bytes_max: int = Field(
        4_000_000, description="Maximum size of a request body after decompression, in bytes."
    )
    webhook_bytes_max: int = Field(1_000_000, description="Maximum size of a webhook body, in bytes.")
    message_bytes_max: int = Field(32_768, description="Maximum size of one message, in bytes of JSON as sent.")
    batch_messages_max: int = Field(
        2_500, description="Maximum number of messages in one batch; further messages are rejected."
    )
    depth_levels_max: int = Field(32, description="Maximum nesting depth of one message, in levels.")
    id_chars_max: int = Field(255, description="Maximum length of any id, in characters.")
    event_chars_max: int = Field(200, description="Maximum length of an event name, in characters.")
    future_seconds_max: int = Field(
        86_400, description="Maximum time by which occurred_at may be after received_at, in seconds."
    )
    lookup_customers_max: int = Field(500, description="Maximum number of customers in one lookup request.")
    page_items_max: int = Field(1_000, description="Maximum number of items on one page of a list.")
    rule_nodes_max: int = Field(500, description="Maximum number of nodes in one rule.")
    rule_depth_levels_max: int = Field(32, description="Maximum nesting depth of one rule, in levels.")


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
    timezone: str = Field(
        "UTC", description="Timezone of the workspace; dates without an offset are interpreted in it."
    )
    default_journey: str = Field(
        "six-stage", description="Journey that applies to stage rules that do not specify one."
    )
    phone_country: str | None = Field(
        None,
        description="ISO 3166 country of phone numbers without +; if unset, such numbers do not identify customers.",
    )
    junk_ids: tuple[str, ...] = Field(JUNK_IDS, description="Ids that are treated as absent, in lower case.")
    junk_patterns: tuple[Annotated[str, AfterValidator(_check_pattern)], ...] = Field(
        JUNK_PATTERNS,
        description="Regular expressions of ids that are treated as absent; each must match a whole id in lower case.",
    )
    user_ids_per_customer_max: int = Field(
        100, description="Maximum number of user_id identities per customer; only aliases join several."
    )
    anonymous_ids_per_customer_max: int = Field(
        1_000, description="Maximum number of anonymous_id identities per customer."
    )
    contact_ids_per_customer_max: int = Field(
        20, description="Maximum number of email identities, and of phone identities, per customer."
    )
    other_ids_per_customer_max: int = Field(
        100, description="Maximum number of identities of each other kind per customer."
    )
    identities_per_customer_max: int = Field(
        2_000, description="Maximum number of identities of all kinds per customer."
    )
    neighbours_max: int = Field(
        1_000,
        description="Maximum number of identities that a flush reads to decide a link; the worker decides the others.",
    )
    flush_messages_max: int = Field(
        500, description="Maximum number of messages in one flush; a flush contains at least one whole request."
    )
    queue_bytes_max: int = Field(
        64_000_000,
        description="Maximum size of all requests that wait for a flush, and of all large bodies that wait to be "
        "parsed, in bytes; beyond it, requests are answered 503.",
    )
    connections_max: int = Field(
        2_000,
        ge=1,
        description="Maximum number of open connections per process; beyond it, the connection that has waited longest "
        "for its client is closed, or else the new one is answered 503.",
    )
    address_connections_max: int = Field(
        250,
        ge=1,
        description="Maximum number of open connections from one address; an IPv6 /64 network counts as one address. "
        "It does not apply to proxies in `FORWARDED_ALLOW_IPS`.",
    )
    unfinished_bytes_max: int = Field(
        12_000_000,
        description="Maximum memory of all requests that have not arrived completely, in bytes; beyond it, those that "
        "began first are answered 503. The same maximum applies to large bodies that wait to be parsed before their "
        "key is known.",
    )
    unread_bytes_max: int = Field(
        12_000_000,
        description="Maximum size of all responses that clients have not read, in bytes; beyond it, the connections "
        "that have waited longest are closed. One response may be larger.",
    )
    idle_seconds_max: float = Field(
        65, gt=0, description="Maximum time between two requests on one connection, in seconds."
    )
    head_seconds_max: float = Field(
        10, gt=0, description="Maximum time in which the head of a request arrives, in seconds."
    )
    body_seconds_max: float = Field(
        60, gt=0, description="Maximum time in which the body of a request arrives, in seconds."
    )
    series_points_max: int = Field(256, description="Maximum number of instants stored per customer and leaf.")
    replay_messages_max: int = Field(
        2_000, description="Maximum number of messages replayed inside one flush; the worker replays longer histories."
    )
    flush_evaluations_max: int = Field(
        50_000,
        description="Maximum number of rules evaluated for one customer inside one flush. Beyond it, the messages are "
        "stored, the worker projects the customer, and the receipt has `projected: false`.",
    )
    read_messages_max: int = Field(
        1_000,
        description="Maximum number of messages that one read replays in the process that serves ingestion; the "
        "background process answers reads of longer histories.",
    )
    background_process: bool = Field(
        True,
        description="Whether `segue serve` runs the worker and heavy reads in a process of their own. Without it, both "
        "share the process that serves ingestion.",
    )
    background_memory_bytes_max: int = Field(
        1_000_000_000,
        ge=100_000_000,
        description="Maximum resident memory of the background process, in bytes; beyond it, its reads fail and it "
        "restarts.",
    )
    heavy_read_seconds_max: int = Field(
        120, ge=1, description="Maximum duration of one read in the background process, in seconds."
    )
    pool_connections_max: int = Field(8, description="Maximum number of connections to PostgreSQL per process.")
    sweep_customers_max: int = Field(
        200, description="Maximum number of customers that one step of time expiry updates."
    )
    fill_customers_max: int = Field(500, description="Maximum number of customers that one step of a backfill updates.")
    busy_worker_percent_max: int = Field(
        10,
        ge=1,
        le=100,
        description="Maximum share of time that backfills use while at least 50 messages arrive per second, in "
        "percent. Changes of customers that are due may use three times as much.",
    )
    public_traits: tuple[str, ...] = Field((), description="Declared traits that pages may read, as a JSON list.")
    visitor_token_seconds: int = Field(3_600, ge=10, le=604_800, description="Lifetime of a visitor token, in seconds.")
    streams_max: int = Field(1_000, ge=0, description="Maximum number of open streams of /v1/me per process.")
    key_rate: Rate = Field(
        "60000/minute",
        description="Rate limit of requests with one public write key; beyond it, addresses that have sent more than a "
        "hundredth of it are refused.",
    )
    server_key_rate: Rate = Field("600000/minute", description="Rate limit of requests with one server key.")
    address_rate: Rate = Field(
        "1200/minute",
        description="Rate limit of visitors' requests from one address: requests with an `Origin` header, `GET` of a "
        "route that pages may call, and batches with a `visitor`. An IPv6 /64 network counts as one address.",
    )
    server_address_rate: Rate = Field(
        "60000/minute",
        description="Rate limit of all other requests from one address. Requests with a server key in the "
        "`Authorization` header do not count.",
    )
    visitor_rate: Rate = Field(
        "300/minute", description="Rate limit of requests of one visitor with a visitor token or a proof."
    )
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
    log_level: str = Field("info", description="Minimum level of log records: debug, info, warning or error.")
    limits: Limits = Field(default_factory=Limits)
