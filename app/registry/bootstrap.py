"""What a new workspace starts with."""

from __future__ import annotations

import msgspec

from app.postgres.pool import Connection
from app.postgres.revisions import bump
from app.registry.default_definitions import JOURNEYS, SEGMENTS, TRAITS
from app.registry.definition_store import LOCK, as_definition, insert_version, read_definitions
from app.registry.source_store import ANY_KEY, SOURCE_EXISTS, insert_key, insert_source
from app.rules.language.definitions import JourneyIn, SegmentIn, TraitIn, parse_journey, parse_segment, parse_trait


class FirstKeys(msgspec.Struct, frozen=True):
    """What a first start made. Shown once: of the secret key only the hash is kept."""

    source: str
    write_key: str
    secret_key: str


async def bootstrap(connection: Connection) -> FirstKeys | None:
    """Fill an empty workspace: built-in definitions, one source, a key of each kind. None where there are keys."""
    async with connection.transaction():
        await connection.execute(LOCK)
        if await connection.fetchval(ANY_KEY):
            return None
        wanted: list[SegmentIn | JourneyIn | TraitIn] = [
            *(parse_journey(data) for data in JOURNEYS),
            *(parse_segment(data) for data in SEGMENTS),
            *(parse_trait(data) for data in TRAITS),
        ]
        if not (await read_definitions(connection)).current:
            for each in wanted:
                await insert_version(connection, msgspec.structs.replace(as_definition(each), version=1))
            await bump(connection, "definitions")
        if not await connection.fetchval(SOURCE_EXISTS, "default"):
            await insert_source(connection, "default", "Default", None, {})
        write = await insert_key(connection, "write", "default", "First write key")
        secret = await insert_key(connection, "secret", None, "First secret key")
        await bump(connection, "access")
    assert write.key is not None
    assert secret.key is not None
    return FirstKeys("default", write.key, secret.key)
