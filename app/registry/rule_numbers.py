"""Numbers of meanings: under them states keep what is decided, so that a state outlives names, versions and owners.

A number is given when a meaning comes into use and never again: it grows, so a customer's row that is complete for
one number is complete for all smaller ones. A meaning that went out of use and comes back gets a new number, because
nobody kept it up to date meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping

from app.postgres.pool import Connection
from app.rules.engine.ruleset import Ruleset

_RETIRE = """
-- These are of no use any more; the worker retracts the intervals of those that had any.
WITH gone AS (DELETE FROM rule_numbers WHERE meaning = ANY($1::text[]) RETURNING definition, number)
INSERT INTO retired (definition, meaning) SELECT definition, number FROM gone WHERE definition IS NOT NULL
"""

_INSERT_NUMBERS = "INSERT INTO rule_numbers (meaning, definition) SELECT * FROM unnest($1::text[], $2::text[])"

_NEXT_RETIRED = "SELECT definition, meaning FROM retired LIMIT 1"

_FORGET_RETIRED = "DELETE FROM retired WHERE definition = $1 AND meaning = $2"


async def renumber(connection: Connection, ruleset: Ruleset, numbers: Mapping[str, int]) -> bool:
    """Give numbers to what is new in ``ruleset`` and take them from what it no longer holds; whether any changed.

    ``numbers`` are those of now.
    """
    definitions = {meaning: _find_definition_id(ruleset, id) for id, meaning in ruleset.meanings.items()}
    retired = [meaning for meaning in numbers if meaning not in definitions]
    # In order, so that no rule has a smaller number than what it reads.
    added = {meaning: definition for meaning, definition in definitions.items() if meaning not in numbers}
    if retired:
        await connection.execute(_RETIRE, retired)
    if added:
        await connection.execute(_INSERT_NUMBERS, list(added), list(added.values()))
    return bool(retired or added)


async def find_retired_meaning(connection: Connection) -> tuple[str, int] | None:
    """Return (definition, number) of a meaning whose intervals are to be retracted, if there is one."""
    row = await connection.fetchrow(_NEXT_RETIRED)
    return None if row is None else (row["definition"], row["meaning"])


async def forget_retired_meaning(connection: Connection, definition: str, meaning: int) -> None:
    """Delete a retired meaning, of which no interval is left."""
    await connection.execute(_FORGET_RETIRED, definition, meaning)


def _find_definition_id(ruleset: Ruleset, id: str) -> str | None:
    """Of what has intervals, the name they are kept under."""
    return ruleset.resolve_definition(id)[0] if id.startswith(("segment:", "journey:")) else None
