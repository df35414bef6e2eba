# ruff: noqa: ARG002 - all nodes have the same methods; not every node needs every argument
"""Base classes of compiled nodes and rules, and the facts about a customer that they read.

Without a new message, a node can only change at instants that follow from the facts: a touchpoint enters or leaves a
window, a date is reached, a membership has lasted long enough. :meth:`Node.next_check_at` returns the next of these
instants. It may be early: sometimes the node is then the same as before. :class:`CompiledRule` advances from check to
check until its truth differs, so the next change of a rule is exact.

All instants are microseconds since 1970. ``t`` is the instant of the evaluation, and the facts include every message up
to ``t``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from app.rules.engine.point_series import OlderPoints
from app.rules.engine.series import Series
from app.rules.engine.sliding_window import SlidingState
from app.rules.engine.truth import Truth
from app.rules.values import durations

STEPS_MAX: Final = 1_000
POINTS_MAX: Final = 50_000
"""Limits of one search for the next change: number of checks, and number of points examined.

At a limit, the search returns the last check that it reached. Nothing changes before that instant, and the caller
searches again from there.
"""


LOOKAHEAD_MAX: Final = 18_263 * durations.MICROSECONDS["d"]
"""50 years in microseconds. The search for the next change ends there, because anniversaries recur without end."""


class EvaluationLimitExceeded(Exception):
    """A search has exceeded ``STEPS_MAX`` or ``POINTS_MAX``, or would move a sliding window into the future."""


class Facts(Protocol):
    """The facts about one customer that rules read.

    ``series`` is keyed by leaf id and ``truths`` by rule id. The fold computed each truth, which is valid until its
    ``until``. ``windows`` and ``older_points`` belong to the sliding windows of long series. ``born`` is the instant of
    the customer's earliest message. ``bucketing_key`` is (kind, value) of the identity that selects the bucket.
    ``searches`` is a cache of nodes: searches that later evaluations continue.
    """

    @property
    def series(self) -> Mapping[str, Series]: ...
    @property
    def traits(self) -> Mapping[str, Any]: ...
    @property
    def truths(self) -> Mapping[str, Truth]: ...
    @property
    def windows(self) -> dict[str, SlidingState]: ...
    @property
    def older_points(self) -> dict[str, list[OlderPoints]]: ...
    @property
    def born(self) -> int | None: ...
    @property
    def bucketing_key(self) -> tuple[str, str] | None: ...
    @property
    def searches(self) -> dict[Any, Any]: ...


class EvaluationCache(dict[tuple[str, int, str], Any]):
    """Results of rules, windows and operands within one evaluation, and counters of the work done so far."""

    __slots__ = (
        "operand_values",
        "point_intervals",
        "points_examined",
        "present",
        "scans_points",
        "steps_taken",
        "truths",
    )

    def __init__(self, present: int, *, scans_points: bool = False) -> None:
        self.present = present
        """Instant of the evaluation; a search for the next change also evaluates nodes at later instants."""
        self.scans_points = scans_points
        """True if long series are scanned too, which finds the exact next change. All points must be in memory."""
        self.steps_taken = self.points_examined = 0
        self.point_intervals: dict[tuple[int, int], Any] = {}
        self.operand_values: dict[tuple[int, int], Any] = {}
        self.truths: dict[str, tuple[int, Truth]] = {}
        """Rule id -> (latest instant evaluated, truth at that instant). A search only moves forward in time."""

    def count_step(self) -> None:
        """Count one more check; raise :class:`EvaluationLimitExceeded` above a limit."""
        self.steps_taken += 1
        if self.steps_taken > STEPS_MAX or self.points_examined > POINTS_MAX:
            raise EvaluationLimitExceeded


def earliest_instant(instants: Iterable[int | None]) -> int | None:
    """Return the earliest instant, or ``None`` if all are ``None`` (never)."""
    earliest: int | None = None
    for instant in instants:
        if instant is not None and (earliest is None or instant < earliest):
            earliest = instant
    return earliest


NextCheck = Callable[[Facts, int, EvaluationCache], int | None]


def find_next_change(
    next_check_at: NextCheck, has_changed: Callable[[int], bool], facts: Facts, t: int, cache: EvaluationCache
) -> int | None:
    """Advance from check to check until ``has_changed`` is true; return that instant, or ``None`` for never.

    If the search reaches a limit, return the last check reached: nothing changes before it.
    """
    instant = next_check_at(facts, t, cache)
    try:
        while instant is not None and not has_changed(instant) and instant - t < LOOKAHEAD_MAX:
            cache.count_step()
            instant = next_check_at(facts, instant, cache)
    except EvaluationLimitExceeded:
        pass
    return instant


class Node:
    """A compiled node. ``rule_json`` is the node as its author wrote it; ``children`` are the nodes that it reads."""

    __slots__ = ("children", "rule_json")

    def __init__(self, rule_json: dict[str, Any], children: Sequence[Node] = ()) -> None:
        self.rule_json = rule_json
        self.children = tuple(children)

    def holds(self, facts: Facts, t: int, cache: EvaluationCache) -> bool:
        """Return whether the node is true at ``t``."""
        raise NotImplementedError

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        """Return an instant after ``t`` before which the node does not change unless a message arrives.

        ``None`` means that only a message can change it.
        """
        return None

    @property
    def permanent_truth(self) -> bool | None:
        """Truth that the node keeps once it has reached it, regardless of messages and time.

        ``None`` means that the truth can always change. Example: "at least one order ever" stays true once it is true.
        """
        return None

    @property
    def next_check_is_exact(self) -> bool:
        """True if the truth always changes at the next check, so a search does not have to evaluate the node there."""
        return False


class ValueNode:
    """A compiled value, which is computed from the touchpoints or traits of a customer. ``None`` is a missing value."""

    __slots__ = ()

    def evaluate(self, facts: Facts, t: int, cache: EvaluationCache) -> Any:
        raise NotImplementedError

    def next_check_at(self, facts: Facts, t: int, cache: EvaluationCache) -> int | None:
        """Return an instant after ``t`` before which the value does not change unless a message arrives."""
        return None


class CompiledRule(Node):
    """A rule with an id. Other rules can refer to it, so its results are cached during one evaluation.

    ``initial`` is the truth of the rule for a customer without touchpoints and traits.
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
        """Always false, because the search for the next change can end early at a limit."""
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
        """Return the truth for a customer without touchpoints and traits."""
        return Truth(self.holds(empty_facts, 0, EvaluationCache(0)), 0)

    def evaluate(self, facts: Facts, t: int, since: int, cache: EvaluationCache) -> Truth:
        """Return the truth at ``t`` with its next change, as the fold stores it; ``since`` is copied into the truth."""
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
        """Return the truth that holds from ``born`` until a message or the passage of time affects the rule."""
        return Truth(self.initial.holds, born, None, self.initial.value_digest)

    def truth_at(self, facts: Facts, t: int, cache: EvaluationCache) -> Truth:
        """Return the truth at ``t`` with ``since``, by advancing the truth that the fold stored last."""
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
