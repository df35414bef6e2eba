"""The timezone in which a node computes calendar windows and dates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from app.rules.values import durations
from app.rules.values.calendar import Length, add


class HasTraits(Protocol):
    @property
    def traits(self) -> Mapping[str, Any]: ...


class NodeTimezone:
    """Timezone of a node: from the rule, else from the customer's ``timezone`` trait, else from the workspace."""

    __slots__ = ("own", "workspace")

    def __init__(self, own: str | None, workspace: str) -> None:
        self.own, self.workspace = own, workspace

    def resolve(self, facts: HasTraits) -> str:
        if self.own is not None:
            return self.own
        zone = facts.traits.get("timezone")
        return zone if durations.is_timezone(zone) else self.workspace  # type: ignore[return-value]

    def add(self, p: int, length: Length, facts: HasTraits) -> int:
        return p + length.microseconds if length.is_exact else add(p, length, self.resolve(facts))
