"""The snapshots of one process, and every change of what they show."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import structlog

from app.config import Settings
from app.errors import BadRequest, Conflict, NotFound, OtherSettings
from app.postgres.pool import Connection, Pool, transact
from app.postgres.revisions import REVISION, REVISIONS, bump
from app.registry.definition_store import (
    ACTIVATE,
    LATEST_VERSION,
    REPLACE,
    SUPERSEDE,
    DefinitionSet,
    DefinitionVersion,
    Kind,
    as_definition,
    dependents_of,
    find,
    insert_version,
    is_same_definition,
    lock_definitions,
    read_definitions,
)
from app.registry.rule_numbers import renumber
from app.registry.source_store import (
    ANY_SIGNING_KEY,
    CHANGE_KEY,
    CHANGE_SOURCE,
    DROP_SIGNING_KEYS,
    KEY_PREFIX,
    KEYS,
    KIND_OF_KEY,
    REVOKE,
    SIGNING_LOCK,
    SOURCE_EXISTS,
    SOURCES,
    Access,
    Key,
    Source,
    WriteKeyGrant,
    digest_of,
    encode_properties,
    hash_of,
    insert_key,
    insert_signing_key,
    insert_source,
    key_of_row,
    read_access,
    source_of_row,
)
from app.registry.webhook_secrets import SecretBox, WebhookSecrets
from app.rules.engine.ruleset import Ruleset, compile_ruleset, meanings_of
from app.rules.language.definitions import JourneyIn, SegmentIn, TraitIn
from app.rules.language.references import Definition
from app.touchpoint import SourceView
from app.tracking_plan.plan_store import REVISION_NAME as TRACKING_PLAN
from app.tracking_plan.plan_store import TrackingPlans

_POLL_SECONDS: Final = 0.5

_UNKNOWN_KEY_SECONDS: Final = 0.05

_NO_RULESET: Final = -1

_NOT_OF_SECRET_KEYS: Final = "Only a write key has origins and trusts_identify; a secret key is never in a page."

Wanted = SegmentIn | JourneyIn | TraitIn

_UNFILLED = """
-- Whether a customer is not filled yet; a stale one is answered from the log anyway. Index customers_to_fill.
SELECT EXISTS (SELECT FROM customers WHERE revision < $1 AND NOT stale)
"""

_ANY_NUMBER = "SELECT EXISTS (SELECT FROM rule_numbers)"

_ANYBODY = "SELECT EXISTS (SELECT FROM customers)"

_log = structlog.get_logger(__name__)


class Registry:
    """The snapshots of one process, and every change of what they show."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._settings = settings
        self._loading = asyncio.Lock()
        self._access_read_at = float("-inf")
        self._poller: asyncio.Task[None] | None = None
        self._seal = SecretBox(settings.secrets_keys)
        self.secrets = WebhookSecrets(pool, settings, self.load_access)
        self.plans = TrackingPlans(pool)
        self.access = Access(_NO_RULESET, {}, {}, {})
        self.is_outdated = False
        """Whether this process can no longer read the definitions: it must be restarted."""
        self.has_candidates = False
        """Whether an edited definition waits for its customers to be filled."""
        self.ruleset = self._compile(DefinitionSet(_NO_RULESET, [], [], {}))

    async def load(self, *, settle: bool = True) -> None:
        """``settle``: what the definitions mean is from now on read with this process's settings.

        Without it, and with other settings than the running ones, raises :class:`OtherSettings`.
        """
        if settle or not await self._pool.fetchval(_ANY_NUMBER):
            await transact(self._pool, self._number)
        async with self._pool.acquire() as connection, connection.transaction(isolation="repeatable_read"):
            await self.current_ruleset(connection)
            self.access = await read_access(connection, self._seal)
        async with self._pool.acquire() as connection:
            await self.plans.load(connection)
        if not self.access.signing:
            await self.renew_signing_key(only_first=True)

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
                self.is_outdated = False
            except OtherSettings as error:
                self.is_outdated = True
                _log.error("registry.other_settings", reason=str(error))
            except Exception as error:  # the database may be away for a while; the snapshots stay as they are
                _log.warning("registry.poll_failed", error=type(error).__name__)

    async def _catch_up(self) -> None:
        async with self._pool.acquire() as connection:
            revisions = {row["name"]: row["value"] for row in await connection.fetch(REVISIONS)}
            if revisions.get("access", 0) != self.access.revision:
                await self._reload_access(connection)
            if revisions.get("definitions", 0) != self.ruleset.revision:
                async with connection.transaction(isolation="repeatable_read"):
                    await self.current_ruleset(connection)
            if revisions.get(TRACKING_PLAN, 0) != self.plans.plan.revision:
                await self.plans.load(connection)

    async def load_access(self) -> None:
        """Sources and keys as they are now, without the rules."""
        async with self._pool.acquire() as connection:
            if await connection.fetchval(REVISION, "access") != self.access.revision:
                await self._reload_access(connection)

    # ------------------------------------------------------------------------------------------- snapshots

    async def current_ruleset(self, connection: Connection) -> Ruleset:
        """The compiled definitions as ``connection`` sees them now; recompiled only when they have changed."""
        return await self.ruleset_at(connection, await connection.fetchval(REVISION, "definitions"))

    async def ruleset_at(self, connection: Connection, revision: int) -> Ruleset:
        """For callers that have read the revision with a statement of their own."""
        known = self.ruleset
        if revision == known.revision:
            return known
        async with self._loading:
            if self.ruleset.revision == revision:
                return self.ruleset
            stored = await read_definitions(connection)
            # Thousands of rules take a while, and requests share this event loop.
            ruleset = await asyncio.to_thread(self._compile, stored)
            if not stored.numbers.keys() >= set(ruleset.meanings.values()):
                raise OtherSettings(
                    "Another process was started later with another timezone, default journey or version: restart this."
                )
            if ruleset.revision > self.ruleset.revision:
                self.ruleset = ruleset
                self.has_candidates = bool(stored.candidates)
            return ruleset

    def _compile(self, stored: DefinitionSet) -> Ruleset:
        return compile_ruleset(
            [defined.definition for defined in stored.current],
            candidates=[defined.definition for defined in stored.candidates],
            revision=stored.revision,
            timezone=self._settings.timezone,
            default_journey=self._settings.default_journey,
            numbers=stored.numbers,
            fill=stored.fill,
        )

    async def _number(self, connection: Connection) -> None:
        """Settings or the engine may have changed since the last start, and with them what the definitions mean."""
        stored = await lock_definitions(connection)
        if await renumber(connection, self._compile(stored), stored.numbers):
            await bump(connection, "definitions")

    async def source_of(self, write_key: str) -> SourceView | None:
        known = await self.write_key(write_key)
        return None if known is None else known.source

    async def write_key(self, write_key: str) -> WriteKeyGrant | None:
        digest = hash_of(write_key)
        known = self.access.write_keys.get(digest)
        if known is None and await self._refresh_access():
            known = self.access.write_keys.get(digest)
        return known

    async def is_secret(self, key: str) -> bool:
        digest = hash_of(key)
        return digest in self.access.secret_keys or (await self._refresh_access() and digest in self.access.secret_keys)

    def knows_write_key(self, key: str) -> bool:
        """Without asking the database: to tell a caller that it holds the wrong kind of key."""
        return hash_of(key) in self.access.write_keys

    async def _refresh_access(self) -> bool:
        """An unknown key may be a new one. One look at a counter, at most every 50 ms: a forged key costs little.

        Longer would turn a key away that was made just now, and SDKs drop what was answered with 401.
        """
        now = time.monotonic()
        if now - self._access_read_at < _UNKNOWN_KEY_SECONDS:
            return False
        self._access_read_at = now
        async with self._pool.acquire() as connection:
            if await connection.fetchval(REVISION, "access") == self.access.revision:
                return False
            await self._reload_access(connection)
        return True

    async def _reload_access(self, connection: Connection) -> None:
        async with connection.transaction(isolation="repeatable_read"):
            self.access = await read_access(connection, self._seal)

    # ------------------------------------------------------------------------------------- sources and keys

    async def create_source(
        self,
        key: str,
        name: str,
        default_channel: str | None = None,
        identity_properties: Mapping[str, str] | None = None,
        bots: str = "apart",
        origins: Sequence[str] = (),
        kind: str = "sdk",
        options: Mapping[str, str] | None = None,
    ) -> tuple[Source, Key]:
        """A source and its first write key. Raises :class:`Conflict` where the key is taken."""

        async def create(connection: Connection) -> tuple[Source, Key]:
            source = await insert_source(
                connection, key, name, default_channel, identity_properties or {}, bots, kind, options
            )
            made = await insert_key(connection, "write", key, name, origins)
            await bump(connection, "access")
            return source, made

        made = await transact(self._pool, create)
        await self.load_access()
        return made

    async def sources(self) -> list[Source]:
        return [source_of_row(row) for row in await self._pool.fetch(SOURCES)]

    async def change_source(
        self,
        key: str,
        *,
        name: str | None = None,
        default_channel: str | None = None,
        identity_properties: Mapping[str, str] | None = None,
        bots: str | None = None,
        options: Mapping[str, str] | None = None,
    ) -> Source:
        """What is None stays as it is; an empty channel takes the default away. Raises :class:`NotFound`."""
        properties = None if identity_properties is None else encode_properties(identity_properties)
        told = None if options is None else encode_properties(options)

        async def change(connection: Connection) -> Source:
            row = await connection.fetchrow(CHANGE_SOURCE, key, name, default_channel, properties, bots, told)
            if row is None:
                raise NotFound(f"There is no source {key}.")
            await bump(connection, "access")
            return source_of_row(row)

        changed = await transact(self._pool, change)
        await self.load_access()
        return changed

    async def create_key(
        self,
        kind: str,
        source: str | None,
        name: str,
        origins: Sequence[str] = (),
        trusts_identify: bool = False,
    ) -> Key:
        """A key, shown whole this once. A write key belongs to a source, a secret key to none."""
        if (kind == "write") != (source is not None):
            raise BadRequest("A write key needs a source, a secret key has none.")
        if kind == "secret" and (origins or trusts_identify):
            raise BadRequest(_NOT_OF_SECRET_KEYS)

        async def create(connection: Connection) -> Key:
            if source is not None and not await connection.fetchval(SOURCE_EXISTS, source):
                raise NotFound(f"There is no source {source}.")
            key = await insert_key(connection, kind, source, name, origins, trusts_identify)
            await bump(connection, "access")
            return key

        made = await transact(self._pool, create)
        await self.load_access()
        return made

    async def keys(self) -> list[Key]:
        return [key_of_row(row) for row in await self._pool.fetch(KEYS)]

    async def change_key(
        self,
        id: str,
        *,
        name: str | None = None,
        origins: Sequence[str] | None = None,
        trusts_identify: bool | None = None,
    ) -> Key:
        """What is None stays as it is. Raises :class:`NotFound`."""
        digest = _digest(id)

        async def change(connection: Connection) -> Key:
            kind = await connection.fetchval(KIND_OF_KEY, digest)
            if kind is None:
                raise NotFound("There is no such key.")
            if kind == "secret" and (origins or trusts_identify):
                raise BadRequest(_NOT_OF_SECRET_KEYS)
            asked = None if origins is None else list(origins)
            row = await connection.fetchrow(CHANGE_KEY, digest, name, asked, trusts_identify)
            await bump(connection, "access")
            return key_of_row(row)

        changed = await transact(self._pool, change)
        await self.load_access()
        return changed

    async def renew_signing_key(self, *, only_first: bool = False, revoke: bool = False) -> None:
        """Another secret signs the tokens of visitors from now on.

        Those signed by older ones hold until they end, or with ``revoke`` no more. ``only_first``: where there is none.
        """

        async def renew(connection: Connection) -> None:
            await connection.execute(SIGNING_LOCK)
            if only_first and await connection.fetchval(ANY_SIGNING_KEY):
                return
            if revoke:
                await connection.execute(DROP_SIGNING_KEYS)
            await insert_signing_key(connection)
            await bump(connection, "access")

        await transact(self._pool, renew)
        await self.load_access()

    async def revoke_key(self, id: str) -> Key:
        """By id (SHA-256 in hex) or by the key itself. Raises :class:`NotFound`; revoking twice changes nothing."""
        digest = _digest(id)

        async def revoke(connection: Connection) -> Key:
            row = await connection.fetchrow(REVOKE, digest)
            if row is None:
                raise NotFound("There is no such key.")
            await bump(connection, "access")
            return key_of_row(row)

        revoked = await transact(self._pool, revoke)
        await self.load_access()
        return revoked

    # ----------------------------------------------------------------------------------------- definitions

    async def definitions(self, kind: Kind) -> list[DefinitionVersion]:
        """What is current, of that kind."""
        return [defined for defined in (await read_definitions(self._pool)).current if defined.definition.kind == kind]

    async def definition(self, kind: Kind, key: str) -> DefinitionVersion:
        """The current version; raises :class:`NotFound`."""
        for defined in await self.definitions(kind):
            if defined.definition.key == key:
                return defined
        raise NotFound(f"There is no {kind} {key}.")

    async def candidate(self, kind: Kind, key: str) -> DefinitionVersion | None:
        """The version that is being filled, if there is one."""
        return find((await read_definitions(self._pool)).candidates, kind, key)

    async def define(self, wanted: Wanted, *, replace: bool) -> tuple[DefinitionVersion, bool]:
        """Save a definition; True where that made a version. The same again makes none.

        A new definition is current at once, and so is an edit that changes no meaning. Any other edit is a candidate
        until every customer is filled (:meth:`activate`); a later edit takes its place.

        Raises :class:`Conflict` where it exists and ``replace`` is off, :class:`NotFound` where it does not and
        ``replace`` is on, :class:`InvalidDefinition` where the set as a whole would not compile.
        """
        new = as_definition(wanted)
        note = wanted.note

        async def save(connection: Connection) -> tuple[DefinitionVersion, bool]:
            stored = await lock_definitions(connection)
            old = find(stored.current, new.kind, new.key)
            if old is not None and not replace:
                raise Conflict(f"There is a {new.kind} {new.key} already.")
            if old is None and replace:
                raise NotFound(f"There is no {new.kind} {new.key}.")
            latest = stored.latest(new.kind, new.key)
            if latest is not None and is_same_definition(new, latest.definition):
                return latest, False
            await self._write_version(connection, stored, new, note)
            saved = (await read_definitions(connection)).latest(new.kind, new.key)
            assert saved is not None
            return saved, True

        saved = await transact(self._pool, save)
        await self._catch_up()
        return saved

    async def _write_version(self, connection: Connection, stored: DefinitionSet, new: Definition, note: str) -> None:
        version = 1 + await connection.fetchval(LATEST_VERSION, new.kind, new.key)
        defined = DefinitionVersion(msgspec.structs.replace(new, version=version), 0, note, 0)
        wanted = await self._with(connection, stored, defined)
        await insert_version(connection, defined.definition, note, candidate=defined in wanted.candidates)
        await self._settle(connection, stored, wanted)

    async def _with(self, connection: Connection, stored: DefinitionSet, defined: DefinitionVersion) -> DefinitionSet:
        """``stored`` and one definition more: as a candidate where customers must be filled before it may hold."""
        others = stored.without(defined.definition.kind, defined.definition.key)
        at_once = msgspec.structs.replace(others, current=[*others.current, defined])
        old = find(stored.current, defined.definition.kind, defined.definition.key)
        if old is None or not await connection.fetchval(_ANYBODY):
            return at_once
        before = msgspec.structs.replace(others, current=[*others.current, old])
        later = msgspec.structs.replace(before, candidates=[*others.candidates, defined])
        if self._meanings(later) == self._meanings(before):
            return at_once
        return later

    def _meanings(self, stored: DefinitionSet) -> dict[str, str]:
        """Of every rule, as it will be when the candidates are current."""
        definitions = [defined.definition for defined in stored.switched().current]
        return meanings_of(
            definitions, timezone=self._settings.timezone, default_journey=self._settings.default_journey
        )

    async def _settle(self, connection: Connection, before: DefinitionSet, after: DefinitionSet) -> None:
        """Check that ``after`` compiles, now and when its candidates are current, and give its meanings numbers."""
        if after.candidates:
            await asyncio.to_thread(self._compile, after.switched())
        await renumber(connection, await asyncio.to_thread(self._compile, after), before.numbers)
        await bump(connection, "definitions")

    async def archive(self, kind: Kind, key: str) -> None:
        """Take a definition out of use; its versions stay. Raises :class:`Conflict` while another one reads it."""

        async def archive(connection: Connection) -> None:
            stored = await lock_definitions(connection)
            if find(stored.current, kind, key) is None:
                raise NotFound(f"There is no {kind} {key}.")
            readers: dict[str, None] = {}
            for each in (stored.current, stored.switched().current):
                readers |= dict.fromkeys(dependents_of(each, kind, key, self._settings.default_journey))
            if readers:
                raise Conflict(f"The {kind} {key} is read by {', '.join(readers)}.", readers=list(readers))
            await connection.execute(SUPERSEDE, kind, key)
            await self._settle(connection, stored, stored.without(kind, key))

        await transact(self._pool, archive)
        await self._catch_up()

    async def activate(self) -> bool:
        """Make the candidates current, all at once, if every customer is filled; whether that was so."""

        async def activate(connection: Connection) -> bool:
            stored = await lock_definitions(connection)
            if not stored.candidates or await connection.fetchval(_UNFILLED, stored.fill):
                return False
            await connection.execute(REPLACE)
            await connection.execute(ACTIVATE)
            await self._settle(connection, stored, stored.switched())
            return True

        activated = await transact(self._pool, activate)
        if activated:
            await self._catch_up()
        return activated


def _digest(id: str) -> bytes:
    """Of a key by its id (SHA-256 in hex) or by itself."""
    return hash_of(id) if id.startswith(tuple(KEY_PREFIX.values())) else digest_of(id)
