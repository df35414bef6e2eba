"""How long something has been so: dwelling, first reaching, holding and changing a value.

What is asked about is a rule of its own, a hidden one where no segment is it; the fold decides it at every instant
that matters, so its truth comes with ``since``.
"""

from __future__ import annotations

from app.rules.engine.json_equality import digest_value
from app.rules.engine.nodes.base import (
    CompiledRule,
    EvaluationCache,
    Facts,
    Node,
    NodeTimezone,
    ValueNode,
    earliest_instant,
    find_next_change,
)
from app.rules.engine.truth import Truth
from app.rules.values.calendar import Length


class ValueHistoryRule(CompiledRule):
    """A hidden rule: whether a value is there, and since when it is the one it is."""

    __slots__ = ("source",)

    def __init__(self, rule_id: str, source: ValueNode) -> None:
        super().__init__(rule_id, _HasValueNode(source))
        self.source = source

    def compute_initial_truth(self, empty_facts: Facts) -> Truth:
        value = self.source.evaluate(empty_facts, 0, EvaluationCache())
        return Truth(value is not None, 0, None, digest_value(value))

    def evaluate(self, facts: Facts, t: int, since: int, cache: EvaluationCache) -> Truth:
        value = self.source.evaluate(facts, t, cache)
        value_digest = digest_value(value)

        def has_changed(u: int) -> bool:
            return digest_value(self.source.evaluate(facts, u, cache)) != value_digest

        return Truth(
            value is not None,
            since,
            find_next_change(self.source.next_check_at, has_changed, facts, t, cache),
            value_digest,
        )

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        return self.source.next_check_at(facts, t, cache)


class _HasValueNode(Node):
    __slots__ = ("source",)

    def __init__(self, source: ValueNode) -> None:
        super().__init__({})
        self.source = source

    def holds(self, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        return self.source.evaluate(facts, t, cache) is not None

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        return self.source.next_check_at(facts, t, cache)


class DurationNode(Node):
    """How long the truth of ``target`` has lasted, compared with ``length``."""

    __slots__ = ("length", "target", "zone")

    def __init__(self, rule_json: dict[str, object], target: CompiledRule, length: Length, zone: NodeTimezone) -> None:
        super().__init__(rule_json, (target,))
        self.target, self.length, self.zone = target, length, zone

    def _boundary(self, truth: Truth, facts: Facts) -> int:
        return self.zone.add(truth.since, self.length, facts)

    def is_measurable(self, truth: Truth, facts: Facts) -> bool:  # noqa: ARG002 - ChangedWithinNode reads them
        """Return whether there is a truth or a change whose age can be compared with the length."""
        return truth.holds

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        truth = self.target.truth_at(facts, t, cache)
        if not self.is_measurable(truth, facts):
            return truth.until
        boundary = self._boundary(truth, facts)
        return earliest_instant((truth.until, boundary if boundary > t else None))


class ForAtLeastNode(DurationNode):
    """It holds, and has for that long without a break."""

    __slots__ = ()

    def holds(self, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        truth = self.target.truth_at(facts, t, cache)
        return truth.holds and self._boundary(truth, facts) <= t


class EnteredWithinNode(DurationNode):
    """It holds, and began to within that time."""

    __slots__ = ()

    def holds(self, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        truth = self.target.truth_at(facts, t, cache)
        return truth.holds and t < self._boundary(truth, facts)


class ChangedWithinNode(DurationNode):
    """The value that ``target`` follows is another than before, since within that time.

    A value that was missing from the beginning has not changed.
    """

    __slots__ = ()

    def is_measurable(self, truth: Truth, facts: Facts) -> bool:
        return truth.holds or truth.since != facts.born

    def holds(self, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        truth = self.target.truth_at(facts, t, cache)
        return self.is_measurable(truth, facts) and t < self._boundary(truth, facts)


class EverHeldBody(Node):
    """The body of a hidden rule that stays true once its target has been true."""

    __slots__ = ("own_id", "target")

    def __init__(self, own_id: str, target: CompiledRule) -> None:
        super().__init__({}, (target,))
        self.own_id, self.target = own_id, target

    @property
    def permanent_truth(self) -> bool | None:
        return True

    def holds(self, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        truth = facts.truths.get(self.own_id)
        return (truth is not None and truth.holds) or self.target.holds(facts, t, cache)

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        return self.target.next_check_at(facts, t, cache)


class EverHeldNode(Node):
    """Whether a hidden rule of :class:`EverHeldBody` holds."""

    __slots__ = ("target",)

    def __init__(self, rule_json: dict[str, object], target: CompiledRule) -> None:
        super().__init__(rule_json, (target,))
        self.target = target

    @property
    def permanent_truth(self) -> bool | None:
        return True

    def holds(self, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        return self.target.truth_at(facts, t, cache).holds

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        truth = self.target.truth_at(facts, t, cache)
        return None if truth.holds else truth.until
