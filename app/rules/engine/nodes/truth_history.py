"""How long something has been so: dwelling, first reaching, holding and changing a value.

What is asked about is a rule of its own, a hidden one where no segment is it; the fold decides it at every instant
that matters, so its truth comes with ``since``.
"""

from __future__ import annotations

from app.rules.engine.calendar import Length
from app.rules.engine.json_equality import digest_value
from app.rules.engine.nodes.base import CompiledRule, Facts, Memo, Node, Value, Zone, earliest, walk
from app.rules.engine.truth import Truth


class Follows(CompiledRule):
    """A hidden rule: whether a value is there, and since when it is the one it is."""

    __slots__ = ("source",)

    def __init__(self, rule_id: str, source: Value) -> None:
        super().__init__(rule_id, _IsThere(source))
        self.source = source

    def at_first(self, nothing: Facts) -> Truth:
        value = self.source.value(nothing, 0, Memo())
        return Truth(value is not None, 0, None, digest_value(value))

    def judge(self, facts: Facts, t: int, since: int, memo: Memo) -> Truth:
        value = self.source.value(facts, t, memo)
        mark = digest_value(value)

        def differs(u: int) -> bool:
            return digest_value(self.source.value(facts, u, memo)) != mark

        return Truth(value is not None, since, walk(self.source.next_check, differs, facts, t, memo), mark)

    def next_check(self, facts: Facts, t: int, memo: Memo) -> int | None:
        return self.source.next_check(facts, t, memo)


class _IsThere(Node):
    __slots__ = ("source",)

    def __init__(self, source: Value) -> None:
        super().__init__({})
        self.source = source

    def holds(self, facts: Facts, t: int, memo: Memo) -> bool:
        return self.source.value(facts, t, memo) is not None

    def next_check(self, facts: Facts, t: int, memo: Memo) -> int | None:
        return self.source.next_check(facts, t, memo)


class _Dwelling(Node):
    """``target`` is the rule whose present truth is asked about; ``shown`` the node that explains it, if any."""

    __slots__ = ("length", "target", "zone")

    def __init__(self, rule: dict[str, object], target: CompiledRule, length: Length, zone: Zone) -> None:
        super().__init__(rule, (target,))
        self.target, self.length, self.zone = target, length, zone

    def _boundary(self, standing: Truth, facts: Facts) -> int:
        return self.zone.add(standing.since, self.length, facts)

    def counts(self, standing: Truth, facts: Facts) -> bool:  # noqa: ARG002 - ChangedWithin looks at them
        """Whether there is anything of which the length is asked."""
        return standing.holds

    def next_check(self, facts: Facts, t: int, memo: Memo) -> int | None:
        standing = self.target.standing(facts, t, memo)
        if not self.counts(standing, facts):
            return standing.until
        boundary = self._boundary(standing, facts)
        return earliest((standing.until, boundary if boundary > t else None))


class ForAtLeast(_Dwelling):
    """It holds, and has for that long without a break."""

    __slots__ = ()

    def holds(self, facts: Facts, t: int, memo: Memo) -> bool:
        standing = self.target.standing(facts, t, memo)
        return standing.holds and self._boundary(standing, facts) <= t


class EnteredWithin(_Dwelling):
    """It holds, and began to within that time."""

    __slots__ = ()

    def holds(self, facts: Facts, t: int, memo: Memo) -> bool:
        standing = self.target.standing(facts, t, memo)
        return standing.holds and t < self._boundary(standing, facts)


class ChangedWithin(_Dwelling):
    """The value that ``target`` follows is another than before, since within that time.

    A value that was missing from the beginning has not changed.
    """

    __slots__ = ()

    def counts(self, standing: Truth, facts: Facts) -> bool:
        return standing.holds or standing.since != facts.born

    def holds(self, facts: Facts, t: int, memo: Memo) -> bool:
        standing = self.target.standing(facts, t, memo)
        return self.counts(standing, facts) and t < self._boundary(standing, facts)


class EverHeld(Node):
    """The body of a hidden rule that stays true once its target has been true."""

    __slots__ = ("own_id", "target")

    def __init__(self, own_id: str, target: CompiledRule) -> None:
        super().__init__({}, (target,))
        self.own_id, self.target = own_id, target

    @property
    def lasting(self) -> bool | None:
        return True

    def holds(self, facts: Facts, t: int, memo: Memo) -> bool:
        known = facts.truths.get(self.own_id)
        return (known is not None and known.holds) or self.target.holds(facts, t, memo)

    def next_check(self, facts: Facts, t: int, memo: Memo) -> int | None:
        return self.target.next_check(facts, t, memo)


class Ever(Node):
    """Whether a hidden rule of :class:`EverHeld` holds."""

    __slots__ = ("target",)

    def __init__(self, rule: dict[str, object], target: CompiledRule) -> None:
        super().__init__(rule, (target,))
        self.target = target

    @property
    def lasting(self) -> bool | None:
        return True

    def holds(self, facts: Facts, t: int, memo: Memo) -> bool:
        return self.target.standing(facts, t, memo).holds

    def next_check(self, facts: Facts, t: int, memo: Memo) -> int | None:
        standing = self.target.standing(facts, t, memo)
        return None if standing.holds else standing.until
