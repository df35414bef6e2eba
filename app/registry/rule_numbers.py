"""Rule numbers, by which customer states refer to the meanings of rules.

A meaning is a rule with everything that it reads. States refer to its number, so that they stay valid when names,
versions or owners change. Numbers ascend and are never reused: a customer's row that is complete for one number is
complete for all smaller ones. A meaning that returns after a pause gets a new number, because states were not updated
for it in the meantime.
"""

from __future__ import annotations

from collections.abc import Mapping

from app.postgres.pool import Connection
from app.rules.engine.ruleset import Ruleset

_RETIRE = """
-- These meanings are out of use; the worker retracts their intervals.
WITH gone AS (DELETE FROM rule_numbers WHERE meaning = ANY($1::text[]) RETURNING definition, number)
INSERT INTO retired (definition, meaning) SELECT definition, number FROM gone WHERE definition IS NOT NULL
"""

_INSERT_NUMBERS = "INSERT INTO rule_numbers (meaning, definition) SELECT * FROM unnest($1::text[], $2::text[])"

_NEXT_RETIRED = "SELECT definition, meaning FROM retired LIMIT 1"

_FORGET_RETIRED = "DELETE FROM retired WHERE definition = $1 AND meaning = $2"


async def renumber(connection: Connection, ruleset: Ruleset, numbers: Mapping[str, int]) -> bool:
    """Number the new meanings of a ruleset and remove those that it no longer has; return True if any changed.

    ``numbers`` are the current numbers by meaning.
    """
    definitions = {meaning: _find_definition_id(ruleset, id) for id, meaning in ruleset.meanings.items()}
    retired = [meaning for meaning in numbers if meaning not in definitions]
    # The order of the ruleset ensures that no rule has a smaller number than the rules that it reads.
    added = {meaning: definition for meaning, definition in definitions.items() if meaning not in numbers}
    if retired:
        await connection.execute(_RETIRE, retired)
    if added:
        await connection.execute(_INSERT_NUMBERS, list(added), list(added.values()))
    return bool(retired or added)


async def find_retired_meaning(connection: Connection) -> tuple[str, int] | None:
    """Return (definition, number) of a meaning whose intervals must be retracted, or None."""
    row = await connection.fetchrow(_NEXT_RETIRED)
    return None if row is None else (row["definition"], row["meaning"])


async def forget_retired_meaning(connection: Connection, definition: str, meaning: int) -> None:
    """Delete a retired meaning after its last interval has been retracted."""
    await connection.execute(_FORGET_RETIRED, definition, meaning)


def _find_definition_id(ruleset: Ruleset, id: str) -> str | None:
    """Return the definition under which the rule's intervals are stored, or None if it has no intervals."""
    return ruleset.resolve_definition(id)[0] if id.startswith(("segment:", "journey:")) else None
