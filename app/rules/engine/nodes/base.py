# ruff: noqa: ARG002 - nodes answer the same questions; not every node needs every argument
"""What every node of a compiled rule answers, and what it answers from.

Between touchpoints everything is constant but for known instants: a touchpoint enters or leaves a window, a date
comes, a dwelling is long enough. ``next_check_at`` names the next of them, which may turn out to change nothing; only a
named rule (:class:`CompiledRule`) walks from one to the next until its truth really differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from app.rules.engine.series import Series
from app.rules.engine.truth import Truth
from app.rules.values import durations
from app.rules.values.calendar import Length, add

STEPS_MAX: Final = 1_000
POINTS_MAX: Final = 50_000
"""How many instants one question may try, and how many points it may look at, to find the next change.

Beyond that it is not looked for further: the answer is then an instant up to which nothing changes, to ask again.
"""


LOOKAHEAD_MAX: Final = 18_263 * durations.MICROSECONDS["d"]
"""Fifty years: an anniversary comes back for ever, and is followed that far."""


class EvaluationLimitExceeded(Exception):
    """The question has taken all the work it may; what is known by then must do."""


class Facts(Protocol):
    """What is known of one customer; ``truths`` are as decided by the fold, each holding up to its ``until``."""

    @property
    def series(self) -> Mapping[str, Series]: ...
    @property
    def traits(self) -> Mapping[str, Any]: ...
    @property
    def truths(self) -> Mapping[str, Truth]: ...
    @property
    def born(self) -> int | None: ...
    @property
    def bucketing_key(self) -> tuple[str, str] | None: ...


class EvaluationCache(dict[tuple[str, int, str], Any]):
    """Answers of named rules, of windows and of operands within one question; and the work it has taken."""

    __slots__ = ("operand_values", "point_intervals", "points_examined", "steps_taken", "truths")

    def __init__(self) -> None:
        self.steps_taken = self.points_examined = 0
        self.point_intervals: dict[tuple[int, int], Any] = {}
        self.operand_values: dict[tuple[int, int], Any] = {}
        self.truths: dict[str, tuple[int, Truth]] = {}
        """Rule id -> the last instant asked about, since a walk only goes on, and what was so then."""

    def count_step(self) -> None:
        """Count one more instant. Raises :class:`EvaluationLimitExceeded`."""
        self.steps_taken += 1
        if self.steps_taken > STEPS_MAX or self.points_examined > POINTS_MAX:
            raise EvaluationLimitExceeded


def earliest_instant(instants: Iterable[int | None]) -> int | None:
    """Return the earliest of the instants that are not ``None``; ``None`` means never."""
    earliest: int | None = None
    for instant in instants:
        if instant is not None and (earliest is None or instant < earliest):
            earliest = instant
    return earliest


NextCheck = Callable[[Facts, int, EvaluationCache], int | None]


def find_next_change(
    next_check_at: NextCheck, has_changed: Callable[[int], bool], facts: Facts, t: int, cache: EvaluationCache
) -> int | None:
    """Step from check to check until something has changed; if that takes too long, return the last check reached."""
    instant = next_check_at(facts, t, cache)
    try:
        while instant is not None and not has_changed(instant) and instant - t < LOOKAHEAD_MAX:
            cache.count_step()
            instant = next_check_at(facts, instant, cache)
    except EvaluationLimitExceeded:
        pass
    return instant


class Node:
    """One head. ``rule_json`` is the node as its author wrote it; ``children`` are the nodes it combines."""

    __slots__ = ("children", "rule_json")

    def __init__(self, rule_json: dict[str, Any], children: Sequence[Node] = ()) -> None:
        self.rule_json = rule_json
        self.children = tuple(children)

    def holds(self, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        """The truth at ``t``, given everything up to ``t``."""
        raise NotImplementedError

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        """Nothing changes in (t, this instant) unless something arrives. ``None``: never by itself."""
        return None

    @property
    def permanent_truth(self) -> bool | None:
        """The truth that stays once it is reached, whatever arrives and however much time passes, if there is one."""
        return None

    @property
    def next_check_is_exact(self) -> bool:
        """Whether the truth does differ at the next check, so that nobody has to look."""
        return False


class ValueNode:
    """What is worked out of a customer's touchpoints and traits and then compared; ``None`` is missing."""

    __slots__ = ()

    def evaluate(self, facts: Facts, t: int, cache: EvaluationCache) -> Any:
        raise NotImplementedError

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        """As of a node: the value is the same in (t, this instant)."""
        return None


class NodeTimezone:
    """The timezone of a node: its own, else the customer's, else the workspace's."""

    __slots__ = ("own", "workspace")

    def __init__(self, own: str | None, workspace: str) -> None:
        self.own, self.workspace = own, workspace

    def resolve(self, facts: Facts) -> str:
        if self.own is not None:
            return self.own
        zone = facts.traits.get("timezone")
        return zone if durations.is_timezone(zone) else self.workspace  # type: ignore[return-value]

    def add(self, p: int, length: Length, facts: Facts) -> int:
        return p + length.microseconds if length.is_exact else add(p, length, self.resolve(facts))


class CompiledRule(Node):
    """A rule with an id of its own. Others refer to it, so its answers are kept while one question lasts.

    ``initial`` is its truth before anything has touched it.
    """

    __slots__ = ("_is_check_exact", "_permanent_truth", "body", "initial", "rule_id")

    def __init__(self, rule_id: str, body: Node) -> None:
        super().__init__(body.rule_json, (body,))
        self.rule_id = rule_id
        self.body = body
        self.initial = Truth(False, 0)
        self._permanent_truth = body.permanent_truth
        self._is_check_exact = body.next_check_is_exact

    @property
    def permanent_truth(self) -> bool | None:
        return self._permanent_truth

    @property
    def next_check_is_exact(self) -> bool:
        """By the walk; but for what takes too many steps."""
        return False

    def holds(self, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        key = (self.rule_id, t, "holds")
        holds = cache.get(key)
        if holds is None:
            holds = cache[key] = self.body.holds(facts, t, cache)
        return bool(holds)

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        key = (self.rule_id, t, "next")
        if key not in cache:
            cache[key] = self._find_next_change(facts, t, cache)
        change: int | None = cache[key]
        return change

    def compute_initial_truth(self, empty_facts: Facts) -> Truth:
        """The truth of a customer of whom nothing is known."""
        return Truth(self.holds(empty_facts, 0, EvaluationCache()), 0)

    def evaluate(self, facts: Facts, t: int, since: int, cache: EvaluationCache) -> Truth:
        """The whole truth at ``t``, as the fold stores it."""
        return Truth(self.holds(facts, t, cache), since, self._find_next_change(facts, t, cache))

    def _find_next_change(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        holds_now = self.holds(facts, t, cache)
        if holds_now is self._permanent_truth:
            return None
        if self._is_check_exact:
            return self.body.next_check_at(facts, t, cache)
        return find_next_change(
            self.body.next_check_at, lambda u: self.holds(facts, u, cache) != holds_now, facts, t, cache
        )

    def initial_truth(self, born: int) -> Truth:
        """The truth while nothing has touched the rule."""
        return Truth(self.initial.holds, born, None, self.initial.value_digest)

    def truth_at(self, facts: Facts, t: int, cache: EvaluationCache) -> Truth:
        """The truth at ``t`` with its history: carried on from what the fold decided last."""
        cached = cache.truths.get(self.rule_id)
        if cached is None or cached[0] > t:
            earlier = facts.truths.get(self.rule_id) or self.initial_truth(t if facts.born is None else facts.born)
        elif cached[0] == t:
            return cached[1]
        else:
            earlier = cached[1]
        truth = self._advance_truth(earlier, facts, t, cache)
        cache.truths[self.rule_id] = (t, truth)
        return truth

    def _advance_truth(self, truth: Truth, facts: Facts, t: int, cache: EvaluationCache) -> Truth:
        while truth.until is not None and truth.until <= t:
            cache.count_step()
            instant = truth.until
            later = self.evaluate(facts, instant, truth.since, cache)
            if later.differs_from(truth):
                later.since = instant
            if later.holds is self._permanent_truth:
                later.until = None
            truth = later
        return truth
