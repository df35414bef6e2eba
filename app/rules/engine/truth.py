"""The stored result of evaluating one rule for one customer."""

from __future__ import annotations

import msgspec


class Truth(msgspec.Struct, gc=False, array_like=True):
    """Result of a rule for a customer: whether it holds, and the interval in which this result is valid.

    ``since`` and ``until`` are microseconds since 1970; ``until`` is ``None`` if only a message can change the result.
    ``value_digest`` identifies the current value, for rules that track the history of a value
    (:class:`~app.rules.engine.nodes.truth_history.ValueHistoryRule`).
    """

    holds: bool
    since: int
    until: int | None = None
    value_digest: str | None = None

    def differs_from(self, other: Truth) -> bool:
        return self.holds != other.holds or self.value_digest != other.value_digest
