"""First content of a new workspace: default definitions, one source and two keys."""

from __future__ import annotations

import msgspec

from app.postgres.pool import Connection
from app.postgres.revisions import bump_revision
from app.registry.default_definitions import JOURNEYS, SEGMENTS, TRAITS
from app.registry.definition_rows import lock_definitions
from app.registry.definition_store import ParsedDefinition, build_definition, insert_version
from app.registry.key_store import has_keys, insert_key
from app.registry.source_store import insert_source, source_exists
from app.rules.language.definitions import parse_journey, parse_segment, parse_trait


class FirstKeys(msgspec.Struct, frozen=True):
    """The first source and its keys. They are shown once, because only the hash of the secret key is stored."""

    source: str
    write_key: str
    secret_key: str


async def bootstrap(connection: Connection) -> FirstKeys | None:
    """Create default definitions, a source and a key of each kind; return None if the workspace already has keys."""
    async with connection.transaction():
        definitions = await lock_definitions(connection)
        if await has_keys(connection):
            return None
        if not definitions.current:
            await _insert_default_definitions(connection)
        if not await source_exists(connection, "default"):
            await insert_source(connection, "default", "Default", None, {})
        write = await insert_key(connection, "write", "default", "First write key")
        secret = await insert_key(connection, "secret", None, "First secret key")
        await bump_revision(connection, "access")
    assert write.key is not None
    assert secret.key is not None
    return FirstKeys("default", write.key, secret.key)


async def _insert_default_definitions(connection: Connection) -> None:
    defaults: list[ParsedDefinition] = [
        *(parse_journey(data) for data in JOURNEYS),
        *(parse_segment(data) for data in SEGMENTS),
        *(parse_trait(data) for data in TRAITS),
    ]
    for parsed in defaults:
        await insert_version(connection, msgspec.structs.replace(build_definition(parsed), version=1))
    await bump_revision(connection, "definitions")
