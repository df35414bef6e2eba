"""Sources, keys and definitions: who may send, who may ask, and what is asked. Owns their four tables.

Each process keeps two snapshots and replaces them whole: :class:`Access` and the compiled ruleset. A counter in
``revisions``, raised in the same transaction as every change, tells a process that its snapshot is out of date.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final, Literal

import msgspec
import structlog

from app.config import Settings
from app.db import Connection, Pool, transact
from app.errors import BadRequest, Conflict, NotFound
from app.rules.language import JourneyIn, SegmentIn, parse_rule, rule_to_json
from app.rules.references import Definition, named_rules, references, segment_id, stages_of
from app.rules.ruleset import Ruleset, compile_ruleset
from app.touchpoint import SourceView

Kind = Literal["segment", "journey"]

KEY_PREFIX: Final = {"write": "wk_", "secret": "sk_"}
_ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
"""Base 58: no two characters look alike, and a double click selects the whole key."""

_KEY_CHARS: Final = 32
_HINT_CHARS: Final = 7
_POLL_SECONDS: Final = 0.5
_UNKNOWN_KEY_SECONDS: Final = 1.0
_NO_RULESET: Final = -1

_log = structlog.get_logger(__name__)


class Access(msgspec.Struct, frozen=True):
    """Who may do what, at one revision. Keys are looked up by their SHA-256."""

    revision: int
    sources: Mapping[str, SourceView]
    write_keys: Mapping[bytes, SourceView]
    secret_keys: Mapping[bytes, str]


class Source(msgspec.Struct, frozen=True):
    key: str
    name: str
    default_channel: str | None
    identity_properties: Mapping[str, str]
    created_at: int


class Key(msgspec.Struct, frozen=True):
    """A key as it is listed. ``id`` is its SHA-256 in hex; ``key`` is whole only just after it was made."""

    id: str
    kind: str
    source: str | None
    name: str
    hint: str
    created_at: int
    revoked_at: int | None
    key: str | None = None


class Defined(msgspec.Struct, frozen=True):
    """The current version of a definition, with when it was saved."""

    definition: Definition
    created_at: int


class FirstKeys(msgspec.Struct, frozen=True):
    """What a first start made. Shown once: of the secret key only the hash is kept."""

    source: str
    write_key: str
    secret_key: str


class Registry:
    """The snapshots of one process, and every change of what they show."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._settings = settings
        self._loading = asyncio.Lock()
        self._access_read_at = float("-inf")
        self._poller: asyncio.Task[None] | None = None
        self.access = Access(_NO_RULESET, {}, {}, {})
        self.ruleset = compile_ruleset(
            (), revision=_NO_RULESET, timezone=settings.timezone, default_journey=settings.default_journey
        )

    async def load(self) -> None:
        async with self._pool.acquire() as connection, connection.transaction(isolation="repeatable_read"):
            await self.current_ruleset(connection)
            self.access = await _read_access(connection)

    def start(self) -> None:
        """Follow what other processes change: a key that was revoked elsewhere stops here within a second."""
        self._poller = asyncio.create_task(self._follow(), name="registry")

    async def stop(self) -> None:
        if self._poller is not None:
            self._poller.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._poller

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            try:
                await self._catch_up()
            except Exception as error:  # the database may be away for a while; the snapshots stay as they are
                _log.warning("registry.poll_failed", error=type(error).__name__)

    async def _catch_up(self) -> None:
        async with self._pool.acquire() as connection:
            revisions = {row["name"]: row["value"] for row in await connection.fetch(_REVISIONS)}
            if revisions.get("access", 0) != self.access.revision:
                await self._reload_access(connection)
            if revisions.get("definitions", 0) != self.ruleset.revision:
                async with connection.transaction(isolation="repeatable_read"):
                    await self.current_ruleset(connection)

    # ------------------------------------------------------------------------------------------- snapshots

    async def current_ruleset(self, connection: Connection) -> Ruleset:
        """The compiled definitions as ``connection`` sees them now; recompiled only when they have changed."""
        return await self.ruleset_at(connection, await connection.fetchval(_REVISION, "definitions"))

    async def ruleset_at(self, connection: Connection, revision: int) -> Ruleset:
        """For callers that have read the revision with a statement of their own."""
        known = self.ruleset
        if revision == known.revision:
            return known
        async with self._loading:
            if self.ruleset.revision == revision:
                return self.ruleset
            read, definitions = await _read_definitions(connection)
            ruleset = self._compile(definitions, read)
            if ruleset.revision > self.ruleset.revision:
                self.ruleset = ruleset
            return ruleset

    def _compile(self, definitions: Sequence[Defined], revision: int) -> Ruleset:
        return compile_ruleset(
            [defined.definition for defined in definitions],
            revision=revision,
            timezone=self._settings.timezone,
            default_journey=self._settings.default_journey,
        )

    async def source_of(self, write_key: str) -> SourceView | None:
        digest = _hash(write_key)
        known = self.access.write_keys.get(digest)
        if known is None and await self._refresh_access():
            known = self.access.write_keys.get(digest)
        return known

    async def is_secret(self, key: str) -> bool:
        digest = _hash(key)
        return digest in self.access.secret_keys or (await self._refresh_access() and digest in self.access.secret_keys)

    def knows_secret(self, key: str) -> bool:
        """Without asking the database: to tell a caller that it holds the wrong kind of key."""
        return _hash(key) in self.access.secret_keys

    def knows_write_key(self, key: str) -> bool:
        return _hash(key) in self.access.write_keys

    async def _refresh_access(self) -> bool:
        """An unknown key may be a new one. Asked at most once a second, so that forged keys cost nothing."""
        now = time.monotonic()
        if now - self._access_read_at < _UNKNOWN_KEY_SECONDS:
            return False
        self._access_read_at = now
        async with self._pool.acquire() as connection:
            if await connection.fetchval(_REVISION, "access") == self.access.revision:
                return False
            await self._reload_access(connection)
        return True

    async def _reload_access(self, connection: Connection) -> None:
        async with connection.transaction(isolation="repeatable_read"):
            self.access = await _read_access(connection)

    # ------------------------------------------------------------------------------------- sources and keys

    async def create_source(
        self,
        key: str,
        name: str,
        default_channel: str | None = None,
        identity_properties: Mapping[str, str] | None = None,
    ) -> tuple[Source, Key]:
        """A source and its first write key. Raises :class:`Conflict` where the key is taken."""

        async def create(connection: Connection) -> tuple[Source, Key]:
            source = await _insert_source(connection, key, name, default_channel, identity_properties or {})
            made = await _insert_key(connection, "write", key, name)
            await _bump(connection, "access")
            return source, made

        made = await transact(self._pool, create)
        await self._catch_up()
        return made

    async def sources(self) -> list[Source]:
        return [_source(row) for row in await self._pool.fetch(_SOURCES)]

    async def create_key(self, kind: str, source: str | None, name: str) -> Key:
        """A key, shown whole this once. A write key belongs to a source, a secret key to none."""
        if (kind == "write") != (source is not None):
            raise BadRequest("A write key needs a source, a secret key has none.")

        async def create(connection: Connection) -> Key:
            if source is not None and not await connection.fetchval(_SOURCE_EXISTS, source):
                raise NotFound(f"There is no source {source}.")
            key = await _insert_key(connection, kind, source, name)
            await _bump(connection, "access")
            return key

        made = await transact(self._pool, create)
        await self._catch_up()
        return made

    async def keys(self) -> list[Key]:
        return [_key(row) for row in await self._pool.fetch(_KEYS)]

    async def revoke_key(self, id: str) -> Key:
        """By id (SHA-256 in hex) or by the key itself. Raises :class:`NotFound`; revoking twice changes nothing."""
        digest = _hash(id) if id.startswith(tuple(KEY_PREFIX.values())) else _digest(id)

        async def revoke(connection: Connection) -> Key:
            row = await connection.fetchrow(_REVOKE, digest)
            if row is None:
                raise NotFound("There is no such key.")
            await _bump(connection, "access")
            return _key(row)

        revoked = await transact(self._pool, revoke)
        await self._catch_up()
        return revoked

    # ----------------------------------------------------------------------------------------- definitions

    async def definitions(self, kind: Kind) -> list[Defined]:
        _, found = await _read_definitions(self._pool)
        return [defined for defined in found if defined.definition.kind == kind]

    async def definition(self, kind: Kind, key: str) -> Defined:
        """The current version; raises :class:`NotFound`."""
        for defined in await self.definitions(kind):
            if defined.definition.key == key:
                return defined
        raise NotFound(f"There is no {kind} {key}.")

    async def define(self, wanted: SegmentIn | JourneyIn, *, replace: bool) -> tuple[Defined, bool]:
        """Save a definition; True where that made a version. The same again makes none.

        Raises :class:`Conflict` where it exists and ``replace`` is off, :class:`NotFound` where it does not and
        ``replace`` is on, :class:`InvalidDefinition` where the set as a whole would not compile.
        """
        new = _as_definition(wanted)

        async def save(connection: Connection) -> tuple[Defined, bool]:
            revision, current = await _lock_definitions(connection)
            old = _find(current, new.kind, new.key)
            if old is not None and not replace:
                raise Conflict(f"There is a {new.kind} {new.key} already.")
            if old is None and replace:
                raise NotFound(f"There is no {new.kind} {new.key}.")
            if old is not None and msgspec.structs.replace(new, version=old.definition.version) == old.definition:
                return old, False
            await self._write_version(connection, current, new, revision)
            saved = _find(await _current(connection), new.kind, new.key)
            assert saved is not None
            return saved, True

        saved = await transact(self._pool, save)
        await self._catch_up()
        return saved

    async def _write_version(
        self, connection: Connection, current: Sequence[Defined], new: Definition, revision: int
    ) -> None:
        version = 1 + await connection.fetchval(_LATEST_VERSION, new.kind, new.key)
        versioned = msgspec.structs.replace(new, version=version)
        others = [
            defined for defined in current if (defined.definition.kind, defined.definition.key) != (new.kind, new.key)
        ]
        self._compile([*others, Defined(versioned, 0)], revision + 1)
        await _insert_version(connection, versioned)
        await _bump(connection, "definitions")

    async def archive(self, kind: Kind, key: str) -> None:
        """Take a definition out of use; its versions stay. Raises :class:`Conflict` while another one reads it."""

        async def archive(connection: Connection) -> None:
            revision, current = await _lock_definitions(connection)
            if _find(current, kind, key) is None:
                raise NotFound(f"There is no {kind} {key}.")
            readers = _readers(current, kind, key, self._settings.default_journey)
            if readers:
                raise Conflict(f"The {kind} {key} is read by {', '.join(readers)}.", readers=readers)
            self._compile([defined for defined in current if defined is not _find(current, kind, key)], revision + 1)
            await connection.execute(_SUPERSEDE, kind, key)
            await _bump(connection, "definitions")

        await transact(self._pool, archive)
        await self._catch_up()


async def bootstrap(connection: Connection) -> FirstKeys | None:
    """Fill an empty workspace: built-in definitions, one source, a key of each kind. None where there are keys."""
    from app.builtin import JOURNEYS, SEGMENTS
    from app.rules.language import parse_journey, parse_segment

    async with connection.transaction():
        await connection.execute(_LOCK)
        if await connection.fetchval(_ANY_KEY):
            return None
        wanted: list[SegmentIn | JourneyIn] = [
            *(parse_journey(data) for data in JOURNEYS),
            *(parse_segment(data) for data in SEGMENTS),
        ]
        if not await _current(connection):
            for each in wanted:
                await _insert_version(connection, msgspec.structs.replace(_as_definition(each), version=1))
            await _bump(connection, "definitions")
        if not await connection.fetchval(_SOURCE_EXISTS, "default"):
            await _insert_source(connection, "default", "Default", None, {})
        write = await _insert_key(connection, "write", "default", "First write key")
        secret = await _insert_key(connection, "secret", None, "First secret key")
        await _bump(connection, "access")
    assert write.key is not None
    assert secret.key is not None
    return FirstKeys("default", write.key, secret.key)


# --------------------------------------------------------------------------------------------- statements

_REVISIONS = "SELECT name, value FROM revisions"

_REVISION = "SELECT coalesce((SELECT value FROM revisions WHERE name = $1), 0)"

_BUMP = """
INSERT INTO revisions (name, value) VALUES ($1, 1)
ON CONFLICT (name) DO UPDATE SET value = revisions.value + 1
"""

_LOCK = """
-- One change of definitions at a time: each is checked against all the others.
SELECT pg_advisory_xact_lock(hashtext('segue.definitions'))
"""

_ACCESS = """
SELECT k.hash, k.kind, k.source, k.name FROM keys k WHERE k.revoked_at IS NULL
"""

_SOURCES = "SELECT key, name, default_channel, identity_properties, created_at FROM sources ORDER BY key"

_SOURCE_EXISTS = "SELECT EXISTS (SELECT FROM sources WHERE key = $1)"

_INSERT_SOURCE = """
INSERT INTO sources (key, name, default_channel, identity_properties) VALUES ($1, $2, $3, $4)
ON CONFLICT (key) DO NOTHING
RETURNING key, name, default_channel, identity_properties, created_at
"""

_KEYS = """
SELECT hash, kind, source, name, hint, created_at, revoked_at FROM keys ORDER BY created_at, hash
"""

_ANY_KEY = "SELECT EXISTS (SELECT FROM keys)"

_INSERT_KEY = """
INSERT INTO keys (hash, kind, source, name, hint) VALUES ($1, $2, $3, $4, $5)
RETURNING hash, kind, source, name, hint, created_at, revoked_at
"""

_REVOKE = """
UPDATE keys SET revoked_at = coalesce(revoked_at, now()) WHERE hash = $1
RETURNING hash, kind, source, name, hint, created_at, revoked_at
"""

_DEFINITIONS = """
-- All current versions, with the revision they make up: one statement, so that the two belong together.
SELECT r.value AS revision, d.kind, d.key, d.version, d.name, d.description, d.owner, d.body, d.created_at
FROM (SELECT coalesce((SELECT value FROM revisions WHERE name = 'definitions'), 0) AS value) r
LEFT JOIN definitions d ON d.superseded_at IS NULL
ORDER BY d.kind, d.key
"""

_LATEST_VERSION = "SELECT coalesce(max(version), 0) FROM definitions WHERE kind = $1 AND key = $2"

_SUPERSEDE = "UPDATE definitions SET superseded_at = now() WHERE kind = $1 AND key = $2 AND superseded_at IS NULL"

_INSERT_VERSION = """
INSERT INTO definitions (kind, key, version, name, description, owner, body) VALUES ($1, $2, $3, $4, $5, $6, $7)
"""

_decode = msgspec.json.Decoder(float_hook=Decimal).decode
_encode = msgspec.json.Encoder(decimal_format="number").encode


async def _bump(connection: Connection, name: str) -> None:
    await connection.execute(_BUMP, name)


async def _read_access(connection: Connection) -> Access:
    """Needs a transaction of one snapshot, so that the revision belongs to what is read."""
    revision: int = await connection.fetchval(_REVISION, "access")
    sources = {}
    for row in await connection.fetch(_SOURCES):
        source = _source(row)
        sources[source.key] = SourceView(source.key, source.default_channel, dict(source.identity_properties))
    write: dict[bytes, SourceView] = {}
    secret: dict[bytes, str] = {}
    for digest, kind, source_key, name in await connection.fetch(_ACCESS):
        if kind == "secret":
            secret[digest] = name
        elif source_key in sources:
            write[digest] = sources[source_key]
    return Access(revision, sources, write, secret)


async def _insert_source(
    connection: Connection, key: str, name: str, default_channel: str | None, identity_properties: Mapping[str, str]
) -> Source:
    row = await connection.fetchrow(_INSERT_SOURCE, key, name, default_channel, _encode(dict(identity_properties)))
    if row is None:
        raise Conflict(f"There is a source {key} already.")
    return _source(row)


async def _insert_key(connection: Connection, kind: str, source: str | None, name: str) -> Key:
    key = KEY_PREFIX[kind] + "".join(secrets.choice(_ALPHABET) for _ in range(_KEY_CHARS))
    hint = key if kind == "write" else key[:_HINT_CHARS]
    row = await connection.fetchrow(_INSERT_KEY, _hash(key), kind, source, name, hint)
    return msgspec.structs.replace(_key(row), key=key)


def _source(row: Any) -> Source:
    key, name, default_channel, identity_properties, created_at = row
    return Source(key, name, default_channel, _decode(identity_properties), created_at)


def _key(row: Any) -> Key:
    digest, *rest = row
    return Key(digest.hex(), *rest)


def _hash(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogatepass")).digest()


def _digest(id: str) -> bytes:
    try:
        return bytes.fromhex(id)
    except ValueError:
        raise NotFound("There is no such key.") from None


# ---------------------------------------------------------------------------------- definitions and rows


async def _lock_definitions(connection: Connection) -> tuple[int, list[Defined]]:
    await connection.execute(_LOCK)
    return await _read_definitions(connection)


async def _current(connection: Connection) -> list[Defined]:
    return (await _read_definitions(connection))[1]


async def _read_definitions(connection: Connection | Pool) -> tuple[int, list[Defined]]:
    rows = await connection.fetch(_DEFINITIONS)
    return rows[0]["revision"], [_defined(row) for row in rows if row["key"] is not None]


def _defined(row: Any) -> Defined:
    _, kind, key, version, name, description, owner, body, created_at = row
    data = _decode(body)
    if kind == "segment":
        definition = Definition(kind, key, version, name, description, owner, parse_rule(data), ())
    else:
        stages = tuple((stage["key"], stage["name"], parse_rule(stage["rule"])) for stage in data)
        definition = Definition(kind, key, version, name, description, owner, None, stages)
    return Defined(definition, created_at)


def _as_definition(wanted: SegmentIn | JourneyIn) -> Definition:
    if isinstance(wanted, SegmentIn):
        return Definition("segment", wanted.key, 0, wanted.name, wanted.description, wanted.owner, wanted.rule, ())
    stages = tuple((stage.key, stage.name, stage.rule) for stage in wanted.stages)
    return Definition("journey", wanted.key, 0, wanted.name, wanted.description, wanted.owner, None, stages)


async def _insert_version(connection: Connection, definition: Definition) -> None:
    await connection.execute(_SUPERSEDE, definition.kind, definition.key)
    await connection.execute(
        _INSERT_VERSION,
        definition.kind,
        definition.key,
        definition.version,
        definition.name,
        definition.description,
        definition.owner,
        _encode(body_of(definition)),
    )


def body_of(definition: Definition) -> Any:
    """What is stored, and shown: the rule of a segment, the stages of a journey, as the author wrote them."""
    if definition.rule is not None:
        return rule_to_json(definition.rule)
    return [{"key": key, "name": name, "rule": rule_to_json(rule)} for key, name, rule in definition.stages]


def _find(definitions: Sequence[Defined], kind: str, key: str) -> Defined | None:
    return next((each for each in definitions if (each.definition.kind, each.definition.key) == (kind, key)), None)


def _readers(definitions: Sequence[Defined], kind: Kind, key: str, default_journey: str) -> list[str]:
    """Which other definitions name this one in a rule."""
    plain = [each.definition for each in definitions]
    stages = stages_of(plain)
    targets = {segment_id(key)} if kind == "segment" else {rule_id for _, rule_id in stages.get(key, ())}
    read = references(named_rules(plain), stages, default_journey)
    readers: dict[str, None] = {}
    for rule_id, found in read.items():
        reader_kind, reader_key = rule_id.split(":")[:2]
        reader_kind = "journey" if reader_kind == "stage" else reader_kind
        if (reader_kind, reader_key) != (kind, key) and any(targets.intersection(each.targets) for each in found):
            readers[f"{reader_kind} {reader_key}"] = None
    return list(readers)
