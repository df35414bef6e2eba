# ruff: noqa: ARG002 - nodes answer the same questions; not every node needs every argument
"""Compiled rule trees: the truth of a node at an instant, and when it next changes by itself.

Between touchpoints a truth is constant but for the instants at which a touchpoint enters or leaves a window.
``next_change`` gives the earliest of these, later than ``t``, at which the truth differs from that at ``t``.
Nodes hold no state of a customer: everything comes in as :class:`Facts`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from app.rules import lengths
from app.rules.comparison import Test
from app.rules.document import look_up
from app.rules.leaves import Span
from app.rules.series import EMPTY, Series

INFINITE: Final = 1 << 62
Memo = dict[tuple[str, int, bool], Any]
"""Answers of segments and stages within one question: (rule id, instant, whether it is about change)."""


class Facts(Protocol):
    """What is known of one customer: a series for each leaf that matched anything, and the traits as parsed JSON."""

    @property
    def series(self) -> Mapping[str, Series]: ...
    @property
    def traits(self) -> Mapping[str, Any]: ...


class Node:
    """One head. ``rule`` is the author's node; ``children`` are what it combines."""

    __slots__ = ("children", "rule")

    def __init__(self, rule: dict[str, Any], children: Sequence[Node] = ()) -> None:
        self.rule = rule
        self.children = tuple(children)

    def holds(self, facts: Facts, t: int, memo: Memo) -> bool:
        raise NotImplementedError

    def next_change(self, facts: Facts, t: int, memo: Memo) -> int | None:
        """``None`` where nothing but a new message can change the truth."""
        return None

    @property
    def lasting(self) -> bool | None:
        """The truth that stays once it is reached, whatever arrives and however much time passes, if there is one."""
        return None


class Everyone(Node):
    __slots__ = ()

    @property
    def lasting(self) -> bool | None:
        return True

    def holds(self, facts: Facts, t: int, memo: Memo) -> bool:
        return True


class Trait(Node):
    __slots__ = ("name", "path", "test")

    def __init__(self, rule: dict[str, Any], name: str, test: Test) -> None:
        super().__init__(rule)
        self.name, self.path, self.test = name, tuple(name.split(".")), test

    def value(self, facts: Facts) -> Any:
        return look_up(facts.traits, self.name, self.path)

    def holds(self, facts: Facts, t: int, memo: Memo) -> bool:
        return self.test(look_up(facts.traits, self.name, self.path))


# ----------------------------------------------------------------------------------------- combinations


class Combination(Node):
    """A truth that follows from the truths of its children at the same instant.

    ``decisive`` is the truth of a single child that decides the whole, if there is one.
    """

    __slots__ = ()
    decisive: bool | None = None

    def combine(self, truths: Sequence[bool]) -> bool:
        raise NotImplementedError

    def is_settled(self, truths: Sequence[bool], changes: Sequence[int | None]) -> bool:
        """Whether no later change of a child can change the combination."""
        decisive = self.decisive
        return any(change is None and truth is decisive for truth, change in zip(truths, changes, strict=True))

    def _common_lasting(self) -> bool | None:
        """For combinations that grow with their children: what lasts in all of them lasts in the whole."""
        found = {child.lasting for child in self.children}
        return found.pop() if len(found) == 1 else None

    def next_change(self, facts: Facts, t: int, memo: Memo) -> int | None:
        """Walk from change to change of the children until the combination differs."""
        changes: list[int | None] = []
        truths: list[bool] = []
        for child in self.children:
            change, truth = child.next_change(facts, t, memo), child.holds(facts, t, memo)
            if change is None and truth is self.decisive:
                return None
            changes.append(change)
            truths.append(truth)
        instant = min([change for change in changes if change is not None], default=None)
        if instant is None:
            return None
        now = self.combine(truths)
        while instant is not None and not self.is_settled(truths, changes):
            for index, change in enumerate(changes):
                if change == instant:
                    truths[index] = not truths[index]
                    changes[index] = self.children[index].next_change(facts, instant, memo)
            if self.combine(truths) != now:
                return instant
            instant = min((change for change in changes if change is not None), default=None)
        return None


class All(Combination):
    __slots__ = ()
    decisive = False

    @property
    def lasting(self) -> bool | None:
        return self._common_lasting()

    def holds(self, facts: Facts, t: int, memo: Memo) -> bool:
        for child in self.children:  # noqa: SIM110 - a loop is twice as fast as all() of a generator
            if not child.holds(facts, t, memo):
                return False
        return True

    def combine(self, truths: Sequence[bool]) -> bool:
        return False not in truths


class AnyOf(Combination):
    __slots__ = ()
    decisive = True

    @property
    def lasting(self) -> bool | None:
        return self._common_lasting()

    def holds(self, facts: Facts, t: int, memo: Memo) -> bool:
        for child in self.children:  # noqa: SIM110 - as above
            if child.holds(facts, t, memo):
                return True
        return False

    def combine(self, truths: Sequence[bool]) -> bool:
        return True in truths


class Not(Node):
    __slots__ = ()

    @property
    def lasting(self) -> bool | None:
        inner = self.children[0].lasting
        return None if inner is None else not inner

    def holds(self, facts: Facts, t: int, memo: Memo) -> bool:
        return not self.children[0].holds(facts, t, memo)

    def next_change(self, facts: Facts, t: int, memo: Memo) -> int | None:
        return self.children[0].next_change(facts, t, memo)


class Definition(Node):
    """A rule that has a name of its own. Others refer to it, so its answers are kept while one question lasts."""

    __slots__ = ("_lasting", "rule_id")

    def __init__(self, rule_id: str, body: Node) -> None:
        super().__init__(body.rule, (body,))
        self.rule_id = rule_id
        self._lasting = body.lasting

    @property
    def lasting(self) -> bool | None:
        return self._lasting

    def holds(self, facts: Facts, t: int, memo: Memo) -> bool:
        key = (self.rule_id, t, False)
        known = memo.get(key)
        if known is None:
            known = memo[key] = self.children[0].holds(facts, t, memo)
        return bool(known)

    def next_change(self, facts: Facts, t: int, memo: Memo) -> int | None:
        key = (self.rule_id, t, True)
        if key not in memo:
            memo[key] = self.children[0].next_change(facts, t, memo)
        found: int | None = memo[key]
        return found


class InSegment(Node):
    __slots__ = ()

    @property
    def lasting(self) -> bool | None:
        return self.children[0].lasting

    def holds(self, facts: Facts, t: int, memo: Memo) -> bool:
        return self.children[0].holds(facts, t, memo)

    def next_change(self, facts: Facts, t: int, memo: Memo) -> int | None:
        return self.children[0].next_change(facts, t, memo)


class AtStage(Combination):
    """Children are the definitions of all stages of the journey, in order; ``asked`` are places among them."""

    __slots__ = ("asked", "keys")

    def __init__(
        self, rule: dict[str, Any], stages: Sequence[Node], keys: Sequence[str], asked: frozenset[int]
    ) -> None:
        super().__init__(rule, stages)
        self.keys, self.asked = tuple(keys), asked

    def current(self, facts: Facts, t: int, memo: Memo) -> int | None:
        """The place of the last stage that holds."""
        for place in range(len(self.children) - 1, -1, -1):
            if self.children[place].holds(facts, t, memo):
                return place
        return None

    def holds(self, facts: Facts, t: int, memo: Memo) -> bool:
        return self.current(facts, t, memo) in self.asked

    def combine(self, truths: Sequence[bool]) -> bool:
        last = next((place for place in range(len(truths) - 1, -1, -1) if truths[place]), None)
        return last in self.asked


# ------------------------------------------------------------------------------------------------- did


class Did(Node):
    """Counts the touchpoints of one leaf that are inside. Without a window, only new ones change the count."""

    __slots__ = ("high", "leaf", "low")

    def __init__(self, rule: dict[str, Any], leaf: str, low: int, high: int | None) -> None:
        super().__init__(rule)
        self.leaf, self.low, self.high = leaf, low, INFINITE if high is None else high

    @property
    def lasting(self) -> bool | None:
        """A number that only grows stays above its lower bound, and beyond its upper one."""
        if self.high == INFINITE:
            return True
        return False if self.low == 0 else None

    def count(self, facts: Facts, t: int) -> int:
        """How many are inside at ``t``; may saturate one above the largest number that the rule names."""
        return facts.series.get(self.leaf, EMPTY).count

    def holds(self, facts: Facts, t: int, memo: Memo) -> bool:
        return self.low <= self.count(facts, t) <= self.high

    def inside(self, p: int, facts: Facts, t: int) -> bool:
        """Whether a touchpoint of the leaf, of instant ``p``, is in the window at ``t``."""
        return p <= t


class DidWithin(Did):
    """p <= t < p + within: touchpoints only leave, the oldest first, and the latest ones decide."""

    __slots__ = ("within",)

    def __init__(self, rule: dict[str, Any], leaf: str, low: int, high: int | None, within: int) -> None:
        super().__init__(rule, leaf, low, high)
        self.within = within

    @property
    def lasting(self) -> bool | None:
        return None

    def count(self, facts: Facts, t: int) -> int:
        points = facts.series.get(self.leaf, EMPTY).latest
        return len(points) - bisect_right(points, t - self.within)

    def inside(self, p: int, facts: Facts, t: int) -> bool:
        return p <= t < p + self.within

    def next_change(self, facts: Facts, t: int, memo: Memo) -> int | None:
        points = facts.series.get(self.leaf, EMPTY).latest
        count = len(points) - bisect_right(points, t - self.within)
        if count < self.low:
            return None
        if count <= self.high:
            return points[-self.low] + self.within if self.low else None
        instant = points[-self.high - 1] + self.within
        # Touchpoints of one instant leave together, which may skip the numbers that would do.
        return instant if len(points) - bisect_right(points, instant - self.within) >= self.low else None


class DidBefore(Did):
    """p + before <= t: touchpoints only enter, the oldest first, and the earliest ones decide."""

    __slots__ = ("before",)

    def __init__(self, rule: dict[str, Any], leaf: str, low: int, high: int | None, before: int) -> None:
        super().__init__(rule, leaf, low, high)
        self.before = before

    def count(self, facts: Facts, t: int) -> int:
        return bisect_right(facts.series.get(self.leaf, EMPTY).earliest, t - self.before)

    def inside(self, p: int, facts: Facts, t: int) -> bool:
        return p + self.before <= t

    def next_change(self, facts: Facts, t: int, memo: Memo) -> int | None:
        points = facts.series.get(self.leaf, EMPTY).earliest
        count = bisect_right(points, t - self.before)
        if count > self.high:
            return None
        if count >= self.low:
            return points[self.high] + self.before if len(points) > self.high else None
        if len(points) < self.low:
            return None
        instant = points[self.low - 1] + self.before
        return instant if bisect_right(points, instant - self.before) <= self.high else None


class DidWithinBefore(Did):
    """p + before <= t < p + within: touchpoints enter and leave, so every instant of the window is walked."""

    __slots__ = ("before", "within")

    def __init__(
        self, rule: dict[str, Any], leaf: str, low: int, high: int | None, *, within: int, before: int
    ) -> None:
        super().__init__(rule, leaf, low, high)
        self.within, self.before = within, before

    @property
    def lasting(self) -> bool | None:
        return None

    def count(self, facts: Facts, t: int) -> int:
        points = facts.series.get(self.leaf, EMPTY).latest
        return bisect_right(points, t - self.before) - bisect_right(points, t - self.within)

    def inside(self, p: int, facts: Facts, t: int) -> bool:
        return p + self.before <= t < p + self.within

    def next_change(self, facts: Facts, t: int, memo: Memo) -> int | None:
        points = facts.series.get(self.leaf, EMPTY).latest
        entered = bisect_right(points, t - self.before)
        left = bisect_right(points, t - self.within)
        now = self.low <= entered - left <= self.high
        while left < len(points):
            instant = points[left] + self.within
            if entered < len(points):
                instant = min(instant, points[entered] + self.before)
            while entered < len(points) and points[entered] + self.before <= instant:
                entered += 1
            while left < len(points) and points[left] + self.within <= instant:
                left += 1
            if (self.low <= entered - left <= self.high) != now:
                return instant
        return None


class DidBetweenDates(Did):
    """from <= p < to, with dates that begin in the customer's timezone: only the edges depend on which it is."""

    __slots__ = ("span", "timezone")

    def __init__(
        self, rule: dict[str, Any], leaf: str, low: int, high: int | None, *, span: Span, timezone: str
    ) -> None:
        super().__init__(rule, leaf, low, high)
        self.span, self.timezone = span, timezone

    @property
    def lasting(self) -> bool | None:
        """None: the customer's timezone may change, and with it what is inside."""
        return None

    def _bounds(self, facts: Facts) -> tuple[int, int]:
        zone = facts.traits.get("timezone")
        start, end = self.span.inside(zone if lengths.is_zone(zone) else self.timezone)  # type: ignore[arg-type]
        return -INFINITE if start is None else start, INFINITE if end is None else end

    def count(self, facts: Facts, t: int) -> int:
        series = facts.series.get(self.leaf, EMPTY)
        if not series.edges:
            return series.count
        start, end = self._bounds(facts)
        return series.count + sum(start <= p < end for p in series.edges)

    def inside(self, p: int, facts: Facts, t: int) -> bool:
        start, end = self._bounds(facts)
        return p <= t and start <= p < end
