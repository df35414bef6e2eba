"""Nodes about history: for how long a rule has held, when it began to hold, whether it ever held, or a value changed.

The rule that such a node tests (the target) has an id, because the fold stores only the truths of rules with an id. If
it is not a segment, the compiler creates a hidden rule. The fold evaluates the target at every instant at which it can
change, so its stored truth has an exact ``since``.
"""

from __future__ import annotations

from app.rules.engine.json_equality import digest_value
from app.rules.engine.node_timezone import NodeTimezone
from app.rules.engine.nodes.base import (
    CompiledRule,
    EvaluationCache,
    Facts,
    Node,
    ValueNode,
    earliest_instant,
    find_next_change,
)
from app.rules.engine.truth import Truth
from app.rules.values.calendar import Length


class ValueHistoryRule(CompiledRule):
    """Hidden rule that holds if a value exists. Its ``since`` is the instant of the latest change of the value."""

    __slots__ = ("source",)

    def __init__(self, rule_id: str, source: ValueNode) -> None:
        super().__init__(rule_id, _HasValueNode(source))
        self.source = source

    def compute_initial_truth(self, empty_facts: Facts) -> Truth:
        value = self.source.evaluate(empty_facts, 0, EvaluationCache(0))
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
    """Base of nodes that compare the time since the last change of ``target`` with ``length``."""

    __slots__ = ("length", "target", "zone")

    def __init__(self, rule_json: dict[str, object], target: CompiledRule, length: Length, zone: NodeTimezone) -> None:
        super().__init__(rule_json, (target,))
        self.target, self.length, self.zone = target, length, zone

    def _boundary(self, truth: Truth, facts: Facts) -> int:
        return self.zone.add(truth.since, self.length, facts)

    def is_measurable(self, truth: Truth, facts: Facts) -> bool:  # noqa: ARG002 - ChangedWithinNode reads `facts`
        """Return whether the truth has an age that can be compared with the length."""
        return truth.holds

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        truth = self.target.truth_at(facts, t, cache)
        if not self.is_measurable(truth, facts):
            return truth.until
        boundary = self._boundary(truth, facts)
        return earliest_instant((truth.until, boundary if boundary > t else None))


class ForAtLeastNode(DurationNode):
    """True if ``target`` has held for at least ``length`` without a break."""

    __slots__ = ()

    def holds(self, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        truth = self.target.truth_at(facts, t, cache)
        return truth.holds and self._boundary(truth, facts) <= t


class EnteredWithinNode(DurationNode):
    """True if ``target`` holds and began to hold less than ``length`` ago."""

    __slots__ = ()

    def holds(self, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        truth = self.target.truth_at(facts, t, cache)
        return truth.holds and t < self._boundary(truth, facts)


class ChangedWithinNode(DurationNode):
    """True if the value that ``target`` tracks changed less than ``length`` ago.

    A value that has been missing from the beginning has not changed.
    """

    __slots__ = ()

    def is_measurable(self, truth: Truth, facts: Facts) -> bool:
        return truth.holds or truth.since != facts.born

    def holds(self, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        truth = self.target.truth_at(facts, t, cache)
        return self.is_measurable(truth, facts) and t < self._boundary(truth, facts)


class EverHeldBody(Node):
    """Body of a hidden rule that becomes true when its target becomes true, and then stays true."""

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
    """True if the hidden rule with :class:`EverHeldBody` holds."""

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
