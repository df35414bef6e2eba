"""Owners of objects: which person an order belongs to. Owns the table object_owners.

An order is not an identity of a person: a person can have thousands. A message with an object and a person stores the
person as the object's owner. A later message with the object alone, such as a refund, belongs to the owner.

A message with the object alone can also arrive first. The object is then an identity of a customer of its own, and
messages that name its owner link the two customers, as they would link two identities. Messages of other persons do not
link them, so two persons with one order are never one customer.

Only servers decide who owns an object. For a public key, an object is an identity like any other, which it can claim
but not take away from its owner.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from app.postgres.pool import Connection, Pool
from app.touchpoint import Identity, Message

OBJECT_KINDS: Final = frozenset({"shopify_order"})
"""Kinds of ids that name an object of a person, not the person."""

_UPSERT = """
-- Stores owners of objects, and locks the objects until COMMIT, so that of an order and its refund in two concurrent
-- flushes the later one sees the earlier one. The first owner stays.
INSERT INTO object_owners AS o (id, kind, value, owner_kind, owner_value, is_identity)
SELECT *, owner_kind IS NULL FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[])
     AS n (id, kind, value, owner_kind, owner_value)
ORDER BY id
ON CONFLICT (id) DO UPDATE
SET owner_kind = coalesce(o.owner_kind, excluded.owner_kind),
    owner_value = coalesce(o.owner_value, excluded.owner_value)
RETURNING id, owner_kind, owner_value, is_identity
"""

_OWNERS = """
SELECT id, owner_kind, owner_value FROM object_owners WHERE id = ANY($1::uuid[]) AND owner_kind IS NOT NULL
"""


class _Owner(msgspec.Struct, frozen=True):
    """``is_identity`` is True if the object has been an identity since a message contained the object alone."""

    identity: Identity | None
    is_identity: bool


async def attribute_objects(connection: Connection, messages: Sequence[Message]) -> Sequence[Message]:
    """Store the owners of the objects in these messages, and return the messages with the identities of persons.

    An object stays an identity of its messages if a message contained it before its owner was known.
    """
    objects = {
        identity: None
        for message in messages
        if message.trust == "server"
        for identity in message.identities
        if identity.kind in OBJECT_KINDS
    }
    if not objects:
        return messages
    owners = await _store_owners(connection, messages, sorted(objects, key=lambda identity: identity.id))
    return [_attribute(message, owners) for message in messages]


async def read_owners(connection: Connection | Pool, object_ids: Sequence[bytes]) -> dict[bytes, Identity]:
    """Return the identity of the owner by object id. Objects without a known owner are missing from the result."""
    rows = await connection.fetch(_OWNERS, object_ids)
    return {id: Identity(kind, value) for id, kind, value in rows}


async def _store_owners(
    connection: Connection, messages: Sequence[Message], objects: Sequence[Identity]
) -> dict[Identity, _Owner]:
    claimed: dict[Identity, Identity] = {}
    for message in messages:
        persons, own_objects = _split(message)
        for identity in own_objects if persons else ():
            claimed.setdefault(identity, persons[0])
    rows = await connection.fetch(
        _UPSERT,
        [identity.id for identity in objects],
        [identity.kind for identity in objects],
        [identity.value for identity in objects],
        [claimed[identity].kind if identity in claimed else None for identity in objects],
        [claimed[identity].value if identity in claimed else None for identity in objects],
    )
    owner_of_id = {
        id: _Owner(None if kind is None else Identity(kind, value), is_identity)
        for id, kind, value, is_identity in rows
    }
    return {identity: owner_of_id[identity.id] for identity in objects}


def _split(message: Message) -> tuple[list[Identity], list[Identity]]:
    """Return the identities of persons in the message, strongest first, and the objects of a server's message."""
    if message.trust != "server":
        return list(message.identities), []
    persons = [identity for identity in message.identities if identity.kind not in OBJECT_KINDS]
    return persons, [identity for identity in message.identities if identity.kind in OBJECT_KINDS]


def _attribute(message: Message, owners: dict[Identity, _Owner]) -> Message:
    persons, objects = _split(message)
    if not objects:
        return message
    if persons:
        linked = [
            identity for identity in objects if owners[identity].is_identity and owners[identity].identity in persons
        ]
        identities = [*persons, *linked]
    else:
        owned_by = [owner for identity in objects if (owner := owners[identity].identity) is not None]
        identities = owned_by[:1] or objects
    return msgspec.structs.replace(message, identities=tuple(identities))
