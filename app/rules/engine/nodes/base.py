# ruff: noqa: ARG002 - nodes answer the same questions; not every node needs every argument
"""What every node of a compiled rule answers, and what it answers from.

Between touchpoints everything is constant but for known instants: a touchpoint enters or leaves a window, a date
comes, a dwelling is long enough. ``next_check`` names the next of them, which may turn out to change nothing; only a
named rule (:class:`CompiledRule`) walks from one to the next until its truth really differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from app.rules.engine.calendar import Length, add
from app.rules.engine.series import Series
from app.rules.engine.truth import Truth
from app.rules.language import durations

STEPS_MAX: Final = 1_000
POINTS_MAX: Final = 50_000
"""How many instants one question may try, and how many points it may look at, to find the next change.

Beyond that it is not looked for further: the answer is then an instant up to which nothing changes, to ask again.
"""


AHEAD_MAX: Final = 18_263 * durations.MICROSECONDS["d"]
"""Fifty years: an anniversary comes back for ever, and is followed that far."""


class OutOfSteps(Exception):
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
    def person(self) -> tuple[str, str] | None: ...


class Memo(dict[tuple[str, int, str], Any]):
    """Answers of named rules, of windows and of operands within one question; and the work it has taken."""

    __slots__ = ("operands", "points", "spells", "standings", "steps")

    def __init__(self) -> None:
        self.steps = self.points = 0
        self.spells: dict[tuple[int, int], Any] = {}
        self.operands: dict[tuple[int, int], Any] = {}
        self.standings: dict[str, tuple[int, Truth]] = {}
        """Rule id -> the last instant asked about, since a walk only goes on, and what was so then."""

    def step(self) -> None:
        """One more instant is tried. Raises :class:`OutOfSteps`."""
        self.steps += 1
        if self.steps > STEPS_MAX or self.points > POINTS_MAX:
            raise OutOfSteps


def earliest(instants: Iterable[int | None]) -> int | None:
    """The least of them; ``None``, which is never, where there is none."""
    found: int | None = None
    for instant in instants:
        if instant is not None and (found is None or instant < found):
            found = instant
    return found


Check = Callable[[Facts, int, Memo], int | None]


def walk(check: Check, differs: Callable[[int], bool], facts: Facts, t: int, memo: Memo) -> int | None:
    """From check to check until something differs; where that takes too much, the last check reached."""
    instant = check(facts, t, memo)
    try:
        while instant is not None and not differs(instant) and instant - t < AHEAD_MAX:
            memo.step()
            instant = check(facts, instant, memo)
    except OutOfSteps:
        pass
    return instant


class Node:
    """One head. ``rule`` is the author's node; ``children`` are what it combines."""

    __slots__ = ("children", "rule")

    def __init__(self, rule: dict[str, Any], children: Sequence[Node] = ()) -> None:
        self.rule = rule
        self.children = tuple(children)

    def holds(self, facts: Facts, t: int, memo: Memo) -> bool:
        """The truth at ``t``, given everything up to ``t``."""
        raise NotImplementedError

    def next_check(self, facts: Facts, t: int, memo: Memo) -> int | None:
        """Nothing changes in (t, this instant) unless something arrives. ``None``: never by itself."""
        return None

    @property
    def lasting(self) -> bool | None:
        """The truth that stays once it is reached, whatever arrives and however much time passes, if there is one."""
        return None

    @property
    def exact(self) -> bool:
        """Whether the truth does differ at the next check, so that nobody has to look."""
        return False


class Value:
    """What is worked out of a customer's touchpoints and traits and then compared; ``None`` is missing."""

    __slots__ = ()

    def value(self, facts: Facts, t: int, memo: Memo) -> Any:
        raise NotImplementedError

    def next_check(self, facts: Facts, t: int, memo: Memo) -> int | None:
        """As of a node: the value is the same in (t, this instant)."""
        return None


class Zone:
    """The timezone of a node: its own, else the customer's, else the workspace's."""

    __slots__ = ("own", "workspace")

    def __init__(self, own: str | None, workspace: str) -> None:
        self.own, self.workspace = own, workspace

    def of(self, facts: Facts) -> str:
        if self.own is not None:
            return self.own
        zone = facts.traits.get("timezone")
        return zone if durations.is_timezone(zone) else self.workspace  # type: ignore[return-value]

    def add(self, p: int, length: Length, facts: Facts) -> int:
        return p + length.microseconds if length.is_exact else add(p, length, self.of(facts))


class CompiledRule(Node):
    """A rule with an id of its own. Others refer to it, so its answers are kept while one question lasts.

    ``initial`` is its truth before anything has touched it.
    """

    __slots__ = ("_exact", "_lasting", "body", "initial", "rule_id")

    def __init__(self, rule_id: str, body: Node) -> None:
        super().__init__(body.rule, (body,))
        self.rule_id = rule_id
        self.body = body
        self.initial = Truth(False, 0)
        self._lasting = body.lasting
        self._exact = body.exact

    @property
    def lasting(self) -> bool | None:
        return self._lasting

    @property
    def exact(self) -> bool:
        """By the walk; but for what takes too many steps."""
        return False

    def holds(self, facts: Facts, t: int, memo: Memo) -> bool:
        key = (self.rule_id, t, "holds")
        known = memo.get(key)
        if known is None:
            known = memo[key] = self.body.holds(facts, t, memo)
        return bool(known)

    def next_check(self, facts: Facts, t: int, memo: Memo) -> int | None:
        key = (self.rule_id, t, "next")
        if key not in memo:
            memo[key] = self._next_change(facts, t, memo)
        found: int | None = memo[key]
        return found

    def at_first(self, nothing: Facts) -> Truth:
        """The truth of a customer of whom nothing is known."""
        return Truth(self.holds(nothing, 0, Memo()), 0)

    def judge(self, facts: Facts, t: int, since: int, memo: Memo) -> Truth:
        """The whole truth at ``t``, as the fold stores it."""
        return Truth(self.holds(facts, t, memo), since, self._next_change(facts, t, memo))

    def _next_change(self, facts: Facts, t: int, memo: Memo) -> int | None:
        now = self.holds(facts, t, memo)
        if now is self._lasting:
            return None
        if self._exact:
            return self.body.next_check(facts, t, memo)
        return walk(self.body.next_check, lambda u: self.holds(facts, u, memo) != now, facts, t, memo)

    def untouched(self, born: int) -> Truth:
        """The truth while nothing has touched the rule."""
        return Truth(self.initial.holds, born, None, self.initial.value_digest)

    def standing(self, facts: Facts, t: int, memo: Memo) -> Truth:
        """The truth at ``t`` with its history: carried on from what the fold decided last."""
        known = memo.standings.get(self.rule_id)
        if known is None or known[0] > t:
            decided = facts.truths.get(self.rule_id) or self.untouched(t if facts.born is None else facts.born)
        elif known[0] == t:
            return known[1]
        else:
            decided = known[1]
        truth = self._carried(decided, facts, t, memo)
        memo.standings[self.rule_id] = (t, truth)
        return truth

    def _carried(self, truth: Truth, facts: Facts, t: int, memo: Memo) -> Truth:
        while truth.until is not None and truth.until <= t:
            memo.step()
            instant = truth.until
            later = self.judge(facts, instant, truth.since, memo)
            if later.differs_from(truth):
                later.since = instant
            if later.holds is self._lasting:
                later.until = None
            truth = later
        return truth
