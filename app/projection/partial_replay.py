"""Partial replay: folds only the touchpoints that some rules can match.

The backfill and reads use it for rules that a customer's row does not contain yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec

from app.identity.bucketing_key import bucketing_keys_of
from app.postgres.pool import Connection
from app.projection.log_replay import ReplayedCustomer
from app.projection.state import Input, State
from app.projection.time_slices import TimeSlices, fold_in_slices
from app.rules.engine.ruleset import Ruleset
from app.rules.engine.touchpoint_view import TouchpointView

_CHUNK_ROWS: Final = 1_000


class _LogSelection(msgspec.Struct, frozen=True):
    """Part of the log that a ruleset reads. ``names`` are event names; None means that any event name can match."""

    names: list[str] | None
    needs_documents: bool
    needs_identifies: bool
    needs_first_messages: bool
    leaves_by_name: dict[str, tuple[str, ...]] | None
    """Event name -> ids of the leaves that it matches; None if a leaf depends on more than the name."""


def _select_log(rules: Ruleset) -> _LogSelection:
    leaves = list(rules.leaves.values())
    names: list[str] | None = sorted({name for leaf in leaves for name in leaf.event_names or ()})
    if any(leaf.event_names is None for leaf in leaves):
        names = None
    needs_only_names = all(leaf.predicate is None and leaf.extract_values is None for leaf in leaves)
    leaves_by_name = None
    if needs_only_names and names is not None:
        leaves_by_name = {name: rules.match_leaves(TouchpointView(name, "", "", 0)) for name in names}
    needs_first_messages = bool(rules.true_from_birth or rules.decided_at_birth or rules.stages_of)
    return _LogSelection(names, not needs_only_names, rules.reads_traits, needs_first_messages, leaves_by_name)


_TOUCHPOINTS = """
-- Touchpoints of these customers that rules can match; index touchpoints_of_identity. ``place`` is the customer's
-- position in $1. PostgreSQL converts the instant, because a codec in Python is slower over millions of rows.
SELECT c.place, (extract(epoch FROM t.occurred_at) * 1000000)::bigint, t.message_id, t.source, t.name, t.channel
       {documents}
FROM unnest($1::uuid[]) WITH ORDINALITY AS c (customer_id, place)
JOIN identities i ON i.customer_id = c.customer_id
JOIN touchpoints t ON t.identity_id = i.id
WHERE {names}
"""

_NAME_IN_LIST = "t.name = ANY($2::text[])"
_HAS_NAME = "t.name IS NOT NULL AND $2::text[] IS NULL"

_IDENTIFIES = """
-- Traits that identify messages set for these customers; index touchpoints_of_identity.
SELECT c.place, t.occurred_at, t.message_id, t.source, t.traits
FROM unnest($1::uuid[]) WITH ORDINALITY AS c (customer_id, place)
JOIN identities i ON i.customer_id = c.customer_id
JOIN touchpoints t ON t.identity_id = i.id
WHERE t.name IS NULL AND t.type = 'identify' AND t.traits IS NOT NULL
"""

_FIRST_MESSAGES = """
-- Messages of each customer's first instant; index touchpoints_of_identity.
SELECT c.place, t.occurred_at, t.message_id, t.source
FROM unnest($1::uuid[], $2::timestamptz[]) WITH ORDINALITY AS c (customer_id, born, place)
JOIN identities i ON i.customer_id = c.customer_id
JOIN touchpoints t ON t.identity_id = i.id AND t.occurred_at = c.born
"""

_decode_traits = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode


async def replay_for_rules(
    connection: Connection, born: Mapping[bytes, int | None], rules: Ruleset, now: int
) -> tuple[dict[bytes, ReplayedCustomer], int]:
    """Fold for each customer only the messages that ``rules`` read, up to ``now``; also return how many were read.

    ``born`` maps a customer to the instant of its first message, from its state. The result excludes customers with
    None. Requires a transaction, because a cursor reads the log.
    """
    ids = [id for id, instant in born.items() if instant is not None]
    if not ids:
        return {}, 0
    inputs_by_place, messages_read = await _read_inputs(connection, ids, born, rules)
    bucketing_keys = await bucketing_keys_of(connection, ids) if rules.reads_bucketing_key else {}
    replayed: dict[bytes, ReplayedCustomer] = {}
    slices = TimeSlices()
    for id, inputs in zip(ids, inputs_by_place, strict=True):
        await slices.give_way_if_due()
        state = State(bucketing_key=bucketing_keys.get(id))
        replayed[id] = ReplayedCustomer(state, await fold_in_slices(state, rules, inputs, now, slices))
    return replayed, messages_read


async def _read_inputs(
    connection: Connection, ids: Sequence[bytes], born: Mapping[bytes, int | None], rules: Ruleset
) -> tuple[list[list[Input]], int]:
    """Return the inputs of each customer, in the order of ``ids``, and how many messages were read.

    Each customer has an input at its first instant.
    """
    selection = rules.derive(_select_log)
    inputs_by_place: list[list[Input]] = [[] for _ in ids]
    messages_read = 0
    if rules.leaves:
        messages_read += await _add_touchpoints(inputs_by_place, connection, ids, rules, selection)
    if selection.needs_identifies:
        rows = await connection.fetch(_IDENTIFIES, ids)
        messages_read += len(rows)
        for place, at, message_id, source, traits in rows:
            inputs_by_place[place - 1].append(Input(at, message_id, source, (), _decode_traits(traits) or None))
    if selection.needs_first_messages:
        rows = await connection.fetch(_FIRST_MESSAGES, ids, [born[id] for id in ids])
        messages_read += len(rows)
        for place, at, message_id, source in rows:
            inputs_by_place[place - 1].append(Input(at, message_id, source, (), None))
    else:
        # No rule depends on the content of the first message, so a placeholder at its instant is enough.
        for customer_inputs, id in zip(inputs_by_place, ids, strict=True):
            instant = born[id]
            if instant is not None and all(input.at != instant for input in customer_inputs):
                customer_inputs.append(Input(instant, "", "", (), None))
    if selection.needs_first_messages or selection.needs_identifies:
        inputs_by_place = [merge_inputs((), customer_inputs) for customer_inputs in inputs_by_place]
    return inputs_by_place, messages_read


def _touchpoints_statement(selection: _LogSelection) -> str:
    return _TOUCHPOINTS.format(
        documents=", t.properties, t.context, t.traits" if selection.needs_documents else "",
        names=_HAS_NAME if selection.names is None else _NAME_IN_LIST,
    )


async def _add_touchpoints(
    inputs_by_place: list[list[Input]],
    connection: Connection,
    ids: Sequence[bytes],
    rules: Ruleset,
    selection: _LogSelection,
) -> int:
    """Add the touchpoints that the rules can match; return how many were read. Documents are read in small chunks."""
    slices = TimeSlices()
    touchpoints_read = 0
    leaves_by_name, match_touchpoint = selection.leaves_by_name, rules.match_touchpoint
    statement = _touchpoints_statement(selection)
    async for row in connection.cursor(statement, ids, selection.names, prefetch=_CHUNK_ROWS):
        place, at, message_id, source, name, channel, *documents = row
        touchpoints_read += 1
        if leaves_by_name is not None:
            inputs_by_place[place - 1].append(Input(at, message_id, source, leaves_by_name[name], None))
        else:
            properties, context, traits = documents or (b"{}", b"{}", None)
            leaves, leaf_values = match_touchpoint(
                TouchpointView(name, channel, source, at, properties, context, traits or b"{}")
            )
            if leaves:
                inputs_by_place[place - 1].append(Input(at, message_id, source, leaves, None, leaf_values))
        await slices.give_way_if_due()
    return touchpoints_read


def merge_inputs(inputs: Iterable[Input], more_inputs: Iterable[Input]) -> list[Input]:
    """Merge two lists of inputs, in order. A message in both lists gets the leaves and values of both."""
    merged: dict[tuple[int, str, str], Input] = {}
    for input in (*inputs, *more_inputs):
        key = (input.at, input.message_id, input.source)
        earlier = merged.get(key)
        if earlier is None:
            merged[key] = input
        else:
            leaves = tuple(dict.fromkeys((*earlier.leaves, *input.leaves)))
            values = {**(earlier.leaf_values or {}), **(input.leaf_values or {})}
            merged[key] = Input(*key, leaves, earlier.traits or input.traits, values or None)
    return [merged[key] for key in sorted(merged)]
