"""Reference evaluator of the whole rule language, directly over the list of messages.

It shares no code with the engine, and has no series, compiled tests or inverted windows. Each evaluation filters the
whole list. Questions about the past (since when, ever, changed) are answered by evaluating at every instant at which a
result could have changed, and the next change by trying every later instant of that kind. An unnecessary instant only
costs time, while a missing one causes a wrong result, so the set of instants is generous.
"""

from __future__ import annotations

import hashlib
import json
import re
from calendar import monthrange
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import cache, lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

UNIT = {"ms": 1000, "s": 10**6, "m": 60 * 10**6, "h": 3600 * 10**6, "d": 86400 * 10**6, "w": 7 * 86400 * 10**6}
AGGREGATES = ("sum", "avg", "min", "max", "distinct", "first_value", "last_value", "most_frequent")
VALUE_HEADS = (*AGGREGATES, "count", "first_at", "last_at")
DATE_OPERATORS = ("after", "before_date", "within_last", "within_next", "anniversary_within")
OPERATORS = (
    *("eq", "ne", "gt", "gte", "lt", "lte", "between", "in", "not_in", "contains", "not_contains", "starts_with"),
    *("ends_with", "matches", "exists", "any_of", "all_of", "none_of"),
    *DATE_OPERATORS,
)
YEARS_AHEAD = 9
"""Number of years in which the next change is sought, because anniversaries recur forever.

They include a 29 February.
"""


class TrackEntry(NamedTuple):
    """A message that is a touchpoint."""

    t: int
    id: str
    name: str
    channel: str
    source: str
    properties: str
    context: str
    traits: str


class TraitsEntry(NamedTuple):
    """A message that is not a touchpoint, with the traits that it sets. ``None`` removes a trait."""

    t: int
    id: str
    source: str
    traits: Mapping[str, Any]


Entry = TrackEntry | TraitsEntry


@dataclass
class World:
    """Definitions to which a rule may refer. ``traits`` maps keys of computed traits to value expressions."""

    segments: Mapping[str, Any] = field(default_factory=dict)
    journeys: Mapping[str, Sequence[tuple[str, Any]]] = field(default_factory=dict)
    traits: Mapping[str, Any] = field(default_factory=dict)
    default_journey: str = "main"
    timezone: str = "UTC"
    bucketing_key: tuple[str, str] | None = ("user_id", "u1")


def holds(rule: Any, history: Sequence[Entry], t: int, world: World) -> bool:
    return Evaluator(history, t, world).holds(rule, t)


def value(expression: Any, history: Sequence[Entry], t: int, world: World) -> Any:
    return Evaluator(history, t, world).value(expression, t)


def next_change(rule: Any, history: Sequence[Entry], t: int, world: World) -> int | None:
    return Evaluator(history, t, world).next_change(rule, t)


def since(rule: Any, history: Sequence[Entry], t: int, world: World) -> int | None:
    """Return the instant since which the rule has had the truth that it has at ``t``. None before the first message."""
    return Evaluator(history, t, world).since(rule, t)


def stage(journey: str, history: Sequence[Entry], t: int, world: World) -> str | None:
    return Evaluator(history, t, world).stage(journey, t)


def counted(node: Any, history: Sequence[Entry], t: int, world: World) -> list[TrackEntry]:
    """Return the touchpoints that a node with a window counts at ``t``."""
    return Evaluator(history, t, world).inside(node, t)


class Evaluator:
    """Evaluates rules for one customer, given the messages up to ``cut``. Instants after ``cut`` are allowed."""

    def __init__(self, history: Sequence[Entry], cut: int, world: World) -> None:
        self.past_entries = sorted(
            (entry for entry in history if entry.t <= cut), key=lambda entry: (entry.t, entry.id, entry.source)
        )
        self.touchpoints = [entry for entry in self.past_entries if isinstance(entry, TrackEntry)]
        self.born = min((entry.t for entry in self.past_entries), default=None)
        self.cut = cut
        self.world = world
        self._answers: dict[tuple[str, int, int], Any] = {}
        self._kept: list[Any] = []

    # ------------------------------------------------------------------------------------------- questions

    def holds(self, rule: Any, t: int) -> bool:
        if self.born is None or t < self.born:
            return False
        return bool(self._once("holds", rule, t, lambda: self._holds(rule, t)))

    def value(self, expression: Any, t: int) -> Any:
        return self._once("value", expression, t, lambda: self._value(expression, t))

    def _once(self, question: str, node: Any, t: int, answer: Callable[[], Any]) -> Any:
        """Cache the result of a question about a node. Two nodes are the same only if they are the same object."""
        key = (question, id(node), t)
        if key not in self._answers:
            self._kept.append(node)
            self._answers[key] = answer()
        return self._answers[key]

    def next_change(self, rule: Any, t: int) -> int | None:
        if self.born is None or t < self.born:
            return None
        now = self.holds(rule, t)
        ahead = (u for u in self.instants(rule) if t < u <= self.horizon)
        return next((u for u in ahead if self.holds(rule, u) != now), None)

    @property
    def horizon(self) -> int:
        """Latest instant at which the next change is sought, because anniversaries recur forever."""
        return first_instant(date(wall(self.cut, "UTC").year + YEARS_AHEAD - 1, 1, 1), "UTC")

    def since(self, rule: Any, t: int) -> int | None:
        if self.born is None or t < self.born:
            return None
        return self._run(t, self.instants(rule), lambda u: self.holds(rule, u))[1]

    def stage(self, journey: str, t: int) -> str | None:
        if self.born is None or t < self.born:
            return None
        actual = None
        for key, rule in self.world.journeys[journey]:
            if self.holds(rule, t):
                actual = key
        return actual

    def _run(self, t: int, instants: Sequence[int], required: Any) -> tuple[Any, int]:
        """Return the result of ``required`` at ``t``, and the instant since which the result has been the same."""
        assert self.born is not None
        before, start = required(self.born), self.born
        for u in [u for u in instants if self.born < u <= t]:
            now = required(u)
            if now != before:
                before, start = now, u
        assert required(t) == before, "an instant of change is missing"
        return before, start

    # ----------------------------------------------------------------------------------------------- rules

    def _holds(self, rule: Any, t: int) -> bool:
        head = head_of(rule)
        match head:
            case "all":
                return min(self.holds(part, t) for part in rule["all"])
            case "any":
                return max(self.holds(part, t) for part in rule["any"])
            case "not":
                return not self.holds(rule["not"], t)
            case "everyone":
                return True
            case "did":
                return in_count(rule, len(self.inside(rule, t)))
            case "first" | "last":
                matching = self.matching(rule, rule[head], t)
                return bool(matching) and self.in_window(rule, matching[0 if head == "first" else -1].t, t)
            case "sequence":
                return self._sequence(rule, t)
            case "regularly":
                return self._regularly(rule, t)
            case "trait":
                return self._trait(rule, t)
            case "segment":
                segment = self.world.segments[rule["segment"]]
                return self._dwells(rule, t, self.instants(segment), lambda u: self.holds(segment, u))
            case "stage":
                journey = rule.get("journey", self.world.default_journey)
                required = as_list(rule["stage"])
                return self._dwells(
                    rule, t, self._journey_instants(journey), lambda u: self.stage(journey, u) in required
                )
            case "bucket":
                low, high = rule["bucket"]
                return (
                    self.world.bucketing_key is not None
                    and low <= bucket(rule.get("salt", ""), *self.world.bucketing_key) < high
                )
        return self.satisfies(rule, self.value(rule, t), t, self.zone(rule, t), t)

    def _dwells(self, rule: Any, t: int, instants: Sequence[int], member: Any) -> bool:
        if rule.get("ever"):
            return any(member(u) for u in [*instants, t] if u <= t)
        if not member(t):
            return False
        zone = self.zone(rule, t)
        if "for_at_least" not in rule and "entered_within" not in rule:
            return True
        start = self._run(t, instants, member)[1]
        if "for_at_least" in rule and not add(start, rule["for_at_least"], zone) <= t:
            return False
        return "entered_within" not in rule or t < add(start, rule["entered_within"], zone)

    def _trait(self, rule: Any, t: int) -> bool:
        def compared(u: int) -> bool:
            return self.satisfies(rule, self.trait(rule["trait"], u), u, self.zone(rule, u), u)

        if not compared(t):
            return False
        zone = self.zone(rule, t)
        if "held_for" in rule and any(operator in rule for operator in OPERATORS):
            undwelt = self._once("undwelt", rule, 0, lambda: without(rule, "held_for", "changed_within"))
            start = self._run(t, self.instants(undwelt), compared)[1]
            if not add(start, rule["held_for"], zone) <= t:
                return False
        elif "held_for" in rule:
            if self.trait(rule["trait"], t) is None:
                return False
            if not add(self._last_change(rule, t), rule["held_for"], zone) <= t:
                return False
        if "changed_within" not in rule:
            return True
        changed = self._last_change(rule, t)
        return changed is not None and t < add(changed, rule["changed_within"], zone)

    def _last_change(self, rule: Any, t: int) -> int | None:
        assert self.born is not None
        bare = self._once("bare", rule, 0, lambda: {"trait": rule["trait"]})
        before, actual = same_key(None), None
        for u in [u for u in self.instants(bare) if self.born <= u <= t]:
            now = same_key(self.trait(rule["trait"], u))
            if now != before:
                before, actual = now, u
        assert same_key(self.trait(rule["trait"], t)) == before, "an instant of change is missing"
        return actual

    def _regularly(self, rule: Any, t: int) -> bool:
        matching = self.matching(rule, rule["regularly"], t)
        zone = self.zone(rule, t)

        def back(periods: int) -> int:
            if rule["period"] == "month" and periods:
                return add_months(t, -periods, zone)
            return t - periods * UNIT[rule["period"][0]]

        hit = [i for i in range(rule["of_last"]) if any(back(i + 1) < entry.t <= back(i) for entry in matching)]
        return bool(len(hit) >= rule["at_least"])

    def _sequence(self, rule: Any, t: int) -> bool:
        zone = self.zone(rule, t)
        steps = rule["sequence"]
        closing = steps[-1] if "not" in steps[-1] else None
        positive = steps[:-1] if closing else steps
        columns = [
            [entry for entry in self.matching(step, step["did"], t, rule) if self.in_window(rule, entry.t, t)]
            for step in positive
        ]
        spoiling = self.matching(closing["not"], closing["not"]["did"], t, rule) if closing else []

        def alike(entry: TrackEntry, other: TrackEntry) -> bool:
            pairs = [(read(entry, path), read(other, path)) for path in rule.get("same", [])]
            return all(a is not None and b is not None and same_key(a) == same_key(b) for a, b in pairs)

        def follows(step: Any, p: TrackEntry, q: TrackEntry) -> bool:
            if not (order(p) < order(q) and alike(p, q)):
                return False
            if "within" in step and not q.t < add(p.t, step["within"], zone):
                return False
            return "after_at_least" not in step or add(p.t, step["after_at_least"], zone) <= q.t

        @cache
        def complete(place: int, last: TrackEntry) -> bool:
            if place < len(positive):
                return any(
                    follows(positive[place], last, entry) and complete(place + 1, entry) for entry in columns[place]
                )
            if closing is None:
                return True
            end = add(last.t, closing["within"], zone)
            after = [entry for entry in spoiling if order(last) < order(entry) and entry.t < end and alike(last, entry)]
            return end <= t and not after

        return any(complete(1, first) for first in columns[0] if alike(first, first))

    # ---------------------------------------------------------------------------------------------- values

    def _value(self, expression: Any, t: int) -> Any:
        head = head_of(expression)
        if head in ("count", "first_at", "last_at"):
            inside = self.inside(expression, t)
            if head == "count":
                return len(inside)
            return written_instant(inside[0 if head == "first_at" else -1].t) if inside else None
        values = [
            actual for entry in self.inside(expression, t) if (actual := read(entry, expression[head])) is not None
        ]
        numbers = [number for actual in values if (number := as_number(actual)) is not None]
        keys = [same_key(actual) for actual in values]
        match head:
            case "sum":
                return sum(numbers, Fraction(0))
            case "avg":
                return sum(numbers, Fraction(0)) / len(numbers) if numbers else None
            case "min":
                return min(numbers, default=None)
            case "max":
                return max(numbers, default=None)
            case "distinct":
                return len(set(keys))
            case "first_value":
                return values[0] if values else None
            case "last_value":
                return values[-1] if values else None
        best = max(keys, key=lambda key: (keys.count(key), place_of_last(keys, key)), default=None)
        return None if best is None else values[keys.index(best)]

    def declared(self, t: int) -> dict[str, Any]:
        traits: dict[str, Any] = {}
        for entry in self.past_entries:
            if isinstance(entry, TraitsEntry) and entry.t <= t:
                traits |= entry.traits
        return {name: actual for name, actual in traits.items() if actual is not None}

    def trait(self, name: str, t: int) -> Any:
        trait_names = {name, name.split(".")[0]} & self.world.traits.keys()
        return at_path(self.declared(t) | {key: self.value(self.world.traits[key], t) for key in trait_names}, name)

    def zone(self, node: Any, t: int) -> str:
        if not self._needs_zone(node):
            return "UTC"
        if "timezone" in node:
            return str(node["timezone"])
        theirs = self.trait("timezone", t)
        return theirs if is_zone(theirs) else self.world.timezone

    # ----------------------------------------------------------------------------------------- touchpoints

    def inside(self, node: Any, t: int) -> list[TrackEntry]:
        events = node["of"] if "of" in node else node[head_of(node)]
        return [entry for entry in self.matching(node, events, t) if self.in_window(node, entry.t, t)]

    def matching(self, node: Any, events: Any, t: int, outer: Any = None) -> list[TrackEntry]:
        """Return the touchpoints up to ``t`` that pass the filter of ``node``. ``outer`` determines the timezone."""
        return [
            entry for entry in self.touchpoints if entry.t <= t and self._matches(node, events, entry, t, outer or node)
        ]

    def _matches(self, node: Any, events: Any, entry: TrackEntry, t: int, outer: Any) -> bool:
        if events != "*" and entry.name not in as_list(events):
            return False
        if "channel" in node and entry.channel not in as_list(node["channel"]):
            return False
        if "source" in node and entry.source not in as_list(node["source"]):
            return False
        return all(
            self.satisfies(
                required if isinstance(required, dict) else {"eq": required},
                read(entry, path),
                entry.t,
                self.zone(outer, t),
                t,
            )
            for path, required in node.get("where", {}).items()
        )

    def in_window(self, node: Any, p: int, t: int) -> bool:
        zone = self.zone(node, t)
        if "within" in node and not t < add(p, node["within"], zone):
            return False
        if "before" in node and not add(p, node["before"], zone) <= t:
            return False
        if "from" in node and not p >= moment(node["from"], zone):
            return False
        if "to" in node and not p < moment(node["to"], zone):
            return False
        return "during" not in node or is_during(node["during"], p, t, zone)

    # ----------------------------------------------------------------------------------------- comparisons

    def satisfies(self, required: Mapping[str, Any], actual: Any, now: int, zone: str, t: int) -> bool:
        """Return True if ``actual`` satisfies the comparison.

        Dates are compared with ``now``; operands are evaluated at ``t``.
        """

        def operand(written: Any) -> Any:
            if not isinstance(written, dict):
                return written
            return self.trait(written["trait"], t) if "trait" in written else self.value(written, t)

        fold = required.get("ignore_case", False)
        return all(
            date_test(operator, operand(required[operator]), actual, now, zone)
            if operator in DATE_OPERATORS
            else compare(operator, operand(required[operator]), actual, fold)
            for operator in OPERATORS
            if operator in required
        )

    # -------------------------------------------------------------------------------- instants of change

    def instants(self, node: Any) -> list[int]:
        """Return the sorted instants at which the truth or value of the node may change."""
        return list(self._once("instants", node, 0, lambda: sorted(set(self._instants_of(node)))))

    def _journey_instants(self, journey: str) -> list[int]:
        return sorted({u for _, rule in self.world.journeys[journey] for u in self.instants(rule)})

    def _instants_of(self, node: Any) -> Iterator[int]:
        yield from (entry.t for entry in self.past_entries)
        if self._needs_zone(node) and "timezone" in self.world.traits:
            yield from self.instants(self.world.traits["timezone"])
        head = head_of(node)
        for part in as_list(node[head]) if head in ("all", "any", "not") else ():
            yield from self.instants(part)
        if head == "segment":
            yield from self._dwelling(node, self.instants(self.world.segments[node["segment"]]))
        if head == "stage":
            yield from self._dwelling(node, self._journey_instants(node.get("journey", self.world.default_journey)))
        if head == "trait":
            yield from self._trait_instants(node)
        for filtered in [node, *steps_of(node)]:
            for required in filtered.get("where", {}).values():
                yield from self._operand_instants(required)
        if head in VALUE_HEADS:
            yield from self._operand_instants(node)
            yield from self._date_instants(node, without(node, *OPERATORS))
        for p in {entry.t for entry in self.touchpoints}:
            for zone in self.zones(node):
                yield from self._window_instants(node, head, p, zone)

    def _window_instants(self, node: Any, head: str, p: int, zone: str) -> Iterator[int]:
        for key in ("within", "before"):
            if key in node:
                yield add(p, node[key], zone)
        if isinstance(node.get("during"), str) and node["during"] != "weekend":
            for period in ("day", "week", "month", "year"):
                start = next_period(period, day_of(p, zone))
                yield first_instant(start, zone)
                yield first_instant(next_period(period, start), zone)
        if head == "sequence" and "not" in node["sequence"][-1]:
            yield add(p, node["sequence"][-1]["within"], zone)
        if head == "regularly":
            for i in range(node["of_last"] + 1):
                if node["period"] == "month":
                    yield from month_crossings(p, -i, zone)
                else:
                    yield p + i * UNIT[node["period"][0]]

    def _dwelling(self, node: Any, instants: Sequence[int]) -> Iterator[int]:
        yield from instants
        for key in ("for_at_least", "entered_within", "held_for", "changed_within"):
            if key in node:
                yield from (add(u, node[key], zone) for u in instants for zone in self.zones(node))

    def _operand_instants(self, required: Any) -> Iterator[int]:
        for written in (required.get(operator) for operator in OPERATORS) if isinstance(required, dict) else ():
            if isinstance(written, dict):
                yield from self._trait_instants(written) if "trait" in written else self.instants(written)

    def _trait_instants(self, node: Any) -> Iterator[int]:
        own = {entry.t for entry in self.past_entries}
        for key in {node["trait"], node["trait"].split(".")[0]} & self.world.traits.keys():
            own |= set(self.instants(self.world.traits[key]))
        if self._needs_zone(node) and "timezone" in self.world.traits:
            own |= set(self.instants(self.world.traits["timezone"]))
        own |= set(self._operand_instants(node))
        own |= set(self._date_instants(node, {"trait": node["trait"]}))
        yield from self._dwelling(node, sorted(own))

    def _date_instants(self, node: Any, read_from: Any) -> Iterator[int]:
        """Return the instants at which time alone changes date operators, for all values in the history."""
        operators = [name for name in ("within_last", "within_next", "anniversary_within") if name in node]
        if not operators:
            return
        values = [
            self.trait(node["trait"], u) if "trait" in read_from else self.value(node, u)
            for u in self.instants(read_from)
        ]
        for zone in self.zones(node):
            for actual in {same_key(entry): entry for entry in values}.values():
                v = as_instant(actual, zone)
                for operator in operators if v is not None else ():
                    yield from self._edges(operator, node[operator], v, actual, zone)  # type: ignore[arg-type]

    def _edges(self, operator: str, length: str, v: int, actual: Any, zone: str) -> Iterator[int]:
        yield v
        if operator == "within_last":
            yield add(v, length, zone)
        elif operator == "within_next":
            months = months_in(length)
            yield from month_crossings(v, months, zone) if months else [v - microseconds(length)]
        else:
            years = {wall(u, zone).year for u in (self.cut, *(entry.t for entry in self.past_entries))}
            ahead = 2 + YEARS_AHEAD + months_in(length) // 12 + microseconds(length) // (365 * UNIT["d"])
            for year in range(min(years) - 1, max(years) + ahead):
                yield from anniversary(as_day(actual, zone), year, length, zone)

    def zones(self, node: Any) -> list[str]:
        """Return all timezones that apply to the node at some instant."""
        if not self._needs_zone(node):
            return ["UTC"]
        if "timezone" in node:
            return [node["timezone"]]
        documents = [
            entry.traits if isinstance(entry, TraitsEntry) else load(entry.properties) for entry in self.past_entries
        ]
        texts = {self.world.timezone, *texts_in(documents)}
        return [text for text in sorted(texts) if is_zone(text)]

    def _needs_zone(self, node: Any) -> bool:
        return bool(self._once("zone", node, 0, lambda: needs_zone(node)))


RULE_HEADS = ("all", "any", "not", "everyone", "did", "first", "last", "sequence", "regularly", "trait", "segment")
HEADS = (*RULE_HEADS, "stage", "bucket", *VALUE_HEADS)


def head_of(node: Any) -> str:
    return next(head for head in HEADS if head in node)


def needs_zone(node: Any) -> bool:
    """Return True if the result of the node may depend on a timezone. A wrong True is harmless."""
    text = json.dumps({key: part for key, part in node.items() if key not in ("all", "any", "not")}, default=str)
    return bool(re.search(r'"[0-9]+(mo|y)"|"during"|"month"|"[0-9]{4}-[0-9-]{5}"|' + "|".join(DATE_OPERATORS), text))


def steps_of(node: Any) -> list[Any]:
    return [part for step in node.get("sequence", []) for part in (step, step.get("not", {}))]


def without(node: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: part for key, part in node.items() if key not in keys}


def in_count(rule: Any, number: int) -> bool:
    if "at_most" in rule:
        return bool(number <= rule["at_most"])
    if "exactly" in rule:
        return bool(number == rule["exactly"])
    if "between" in rule:
        return number in range(rule["between"][0], rule["between"][1] + 1)
    return bool(number >= rule.get("at_least", 1))


def bucket(salt: str, kind: str, name: str) -> int:
    return int(hashlib.sha256("\0".join([salt, kind, name]).encode()).hexdigest()[:16], 16) % 100


def order(entry: Entry) -> tuple[int, str, str]:
    return (entry.t, entry.id, entry.source)


def as_list(entry: Any) -> list[Any]:
    return entry if isinstance(entry, list) else [entry]


def place_of_last(keys: list[Any], key: Any) -> int:
    return max(place for place, other in enumerate(keys) if other == key)


# --------------------------------------------------------------------------------------------------- reading


@lru_cache(maxsize=10_000)
def load(text: str) -> Any:
    return json.loads(text, parse_float=Decimal)


def read(entry: TrackEntry, path: str) -> Any:
    head, _, rest = path.partition(".")
    if rest and head == "touchpoint":
        return getattr(entry, rest)
    if rest and head in ("context", "traits"):
        return at_path(load(entry.context if head == "context" else entry.traits), rest)
    return at_path(load(entry.properties), path)


def at_path(values: Any, name: str) -> Any:
    if values.get(name) is not None:
        return values[name]
    for step in name.split("."):
        values = values.get(step) if isinstance(values, dict) else None
    return values


def texts_in(document: Any) -> Iterator[str]:
    if isinstance(document, str):
        yield document
    elif isinstance(document, Mapping | list):
        for part in document.values() if isinstance(document, Mapping) else document:
            yield from texts_in(part)


def same_key(actual: Any) -> Any:
    """Return a key that is equal for equal JSON values.

    1 equals 1.0, true differs from 1, and the order of keys is ignored.
    """
    if actual is None or isinstance(actual, bool):
        return ("constant", actual)
    if isinstance(actual, str):
        return ("text", actual)
    if isinstance(actual, list):
        return ("list", *(same_key(item) for item in actual))
    if isinstance(actual, Mapping):
        return ("object", *sorted(((name, same_key(item)) for name, item in actual.items()), key=lambda pair: pair[0]))
    return ("number", Fraction(actual))


def as_number(actual: Any) -> Fraction | None:
    """Return the value as a number if it is a number or numeric text, else None."""
    if isinstance(actual, bool) or not isinstance(actual, int | Decimal | Fraction | str):
        return None
    if not isinstance(actual, str):
        return Fraction(actual)
    try:
        number = json.loads(actual, parse_float=Decimal, parse_int=Decimal, parse_constant=lambda _: None)
    except ValueError:
        return None
    if isinstance(number, Decimal) and actual == actual.strip() and sum(map(str.isdigit, f"{number:f}")) <= 400:
        return Fraction(number)
    return None


# ----------------------------------------------------------------------------------------------- comparisons


def compare(operator: str, operand: Any, actual: Any, fold: bool) -> bool:
    opposite = {"ne": "eq", "not_in": "in", "not_contains": "contains", "none_of": "any_of"}.get(operator)
    if opposite:
        return not compare(opposite, operand, actual, fold)
    if operator == "exists":
        return (actual is not None) is operand
    if actual is None or operand is None:
        return False
    match operator:
        case "eq":
            return same(operand, actual, fold)
        case "in":
            return any(same(item, actual, fold) for item in operand)
        case "any_of":
            return any(same(required, item, fold) for required in operand for item in as_list(actual))
        case "all_of":
            return all(any(same(required, item, fold) for item in as_list(actual)) for required in operand)
        case "contains" if isinstance(actual, list):
            return any(same(operand, item, fold) for item in actual)
        case "contains" | "starts_with" | "ends_with":
            if not (isinstance(actual, str) and isinstance(operand, str)):
                return False
            text, part = (actual.casefold(), operand.casefold()) if fold else (actual, operand)
            places = [place for place in range(len(text) + 1) if text[place : place + len(part)] == part]
            trait_names = {"starts_with": 0, "ends_with": len(text) - len(part)}.get(operator)
            return bool(places) if trait_names is None else trait_names in places
        case "matches":
            return isinstance(actual, str) and bool(re.search(operand, actual, re.IGNORECASE if fold else 0))
        case "between":
            return compare("gte", operand[0], actual, fold) and compare("lte", operand[1], actual, fold)
    left, right = orderable(actual, fold), orderable(operand, fold)
    if left is None or right is None or isinstance(left, str) != isinstance(right, str):
        return False
    less, equal = left < right, left == right
    return bool({"gt": not less and not equal, "gte": not less, "lt": less, "lte": less or equal}[operator])


def same(operand: Any, actual: Any, fold: bool) -> bool:
    """Return True if the values are strictly equal. Arrays and objects are compared as JSON."""
    if actual is None:
        return False
    if fold and isinstance(operand, str) and isinstance(actual, str):
        return actual.casefold() == operand.casefold()
    return bool(same_key(operand) == same_key(actual))


def orderable(actual: Any, fold: bool) -> Any:
    number = as_number(actual)
    if number is not None or not isinstance(actual, str):
        return number
    return actual.casefold() if fold else actual


def date_test(operator: str, operand: Any, actual: Any, now: int, zone: str) -> bool:
    v = as_instant(actual, zone)
    if v is None or operand is None:
        return False
    match operator:
        case "after" | "before_date":
            other = as_instant(operand, zone)
            return other is not None and (v > other if operator == "after" else v < other)
        case "within_last":
            return v <= now < add(v, operand, zone)
        case "within_next":
            return now < v <= add(now, operand, zone)
    day = as_day(actual, zone)
    ahead = months_in(operand) // 12 + microseconds(operand) // (365 * UNIT["d"])
    around = range(wall(now, zone).year - 1, wall(now, zone).year + ahead + 3)
    spans = [anniversary(day, year, operand, zone) for year in around if year > day.year]
    return any(start <= now < end for start, end in spans)


def anniversary(day: date, year: int, length: str, zone: str) -> tuple[int, int]:
    """Return the range [start, end) of instants within ``length`` of the anniversary in that year."""
    that = date(year, day.month, min(day.day, monthrange(year, day.month)[1]))
    start, end = first_instant(that, zone), first_instant(that + timedelta(1), zone)
    if not months_in(length):
        return start - microseconds(length), end
    return instant_of(moved(datetime.combine(that, time()), -months_in(length)), zone), end


def as_instant(actual: Any, zone: str) -> int | None:
    """Return the value as an instant if it can be read as a date, else None."""
    try:
        if isinstance(actual, str):
            if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", actual):
                return first_instant(date.fromisoformat(actual), zone)
            return rfc3339(actual)
        if isinstance(actual, bool) or not isinstance(actual, int | Decimal | Fraction):
            return None
        number = Fraction(actual)
        per_unit = Fraction(10**6)
        for least, smaller in ((10**11, Fraction(1000)), (10**14, Fraction(1)), (10**17, Fraction(1, 1000))):
            per_unit = smaller if abs(number) >= least else per_unit
        instant = (number * per_unit).__floor__()
        wall(instant, "UTC")
        return int(instant)
    except (ValueError, OverflowError):
        return None


def as_day(actual: Any, zone: str) -> date:
    if isinstance(actual, str) and len(actual) == 10:
        return date.fromisoformat(actual)
    return day_of(as_instant(actual, zone), zone)


def rfc3339(text: str) -> int:
    match = re.fullmatch(r"(....-..-..)[Tt](..:..:..)(?:\.([0-9]+))?([Zz]|[+-][0-9]{2}:[0-5][0-9])", text, re.ASCII)
    if match is None or not re.fullmatch(r"[0-9:+TtZz.-]*", text):
        raise ValueError(text)
    day, clock, fraction, offset = match.groups()
    at = datetime.fromisoformat(f"{day}T{clock}.{(fraction or '')[:6].ljust(6, '0')}{offset.upper()}")
    return (at.astimezone(UTC) - EPOCH) // timedelta(microseconds=1)


def written_instant(t: int) -> str:
    return wall(t, "UTC").strftime("%Y-%m-%dT%H:%M:%S.%fZ")


# -------------------------------------------------------------------------------------------------- calendar

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones()) - {"localtime", "Factory"}


def is_zone(name: Any) -> bool:
    return isinstance(name, str) and name in _zones()


@cache
def microseconds(length: str) -> int:
    """Return the microseconds of an exact length, or None for a calendar length."""
    number, unit = re.fullmatch(r"(\d+)(\D+)", length).groups()  # type: ignore[union-attr]
    return int(number) * UNIT.get(unit, 0)


@cache
def months_in(length: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(\D+)", length).groups()  # type: ignore[union-attr]
    return int(number) * {"mo": 1, "y": 12}.get(unit, 0)


def wall(t: int, zone: str) -> datetime:
    """Return the local time at ``t``."""
    return (EPOCH + timedelta(microseconds=t)).astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0)


def instant_of(local_time: datetime, zone: str, fold: int = 0) -> int:
    """Return the instant of a local time.

    A skipped time moves forward; of a repeated time the first occurrence counts.
    """
    return (local_time.replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC) - EPOCH) // timedelta(microseconds=1)


def moved(local_time: datetime, months: int) -> datetime:
    year, month = divmod(local_time.year * 12 + local_time.month - 1 + months, 12)
    return local_time.replace(year=year, month=month + 1, day=min(local_time.day, monthrange(year, month + 1)[1]))


def add_months(t: int, months: int, zone: str) -> int:
    return instant_of(moved(wall(t, zone), months), zone)


@lru_cache(maxsize=100_000)
def add(t: int, length: str, zone: str) -> int:
    months = months_in(length)
    return add_months(t, months, zone) if months else t + microseconds(length)


def transitions(around: int, zone: str, days: int) -> list[int]:
    """Return the instants within about ``days`` days at which the UTC offset changes."""
    day = around // UNIT["d"]
    return [u for n in range(day - days, day + days + 1) for u in _transitions_of(n, zone)]


@lru_cache(maxsize=100_000)
def _transitions_of(day: int, zone: str) -> tuple[int, ...]:
    def offset(t: int) -> int:
        return instant_of(wall(t, zone), "UTC") - t

    actual = []
    for hour in range(24):
        low = day * UNIT["d"] + hour * UNIT["h"]
        high = low + UNIT["h"]
        if offset(low) != offset(high):
            before = offset(low)
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(middle) == before else (low, middle)
            actual.append(high)
    return tuple(actual)


@lru_cache(maxsize=10_000)
def first_instant(day: date, zone: str) -> int:
    """Return the first instant of a local day, or of the next day if the timezone skips it."""
    midnight = datetime.combine(day, time())
    nominal = instant_of(midnight, "UTC")
    local_time = [instant_of(midnight, zone, fold) for fold in (0, 1)]
    return min(u for u in (*local_time, *transitions(nominal, zone, 2)) if wall(u, zone) >= midnight)


@lru_cache(maxsize=10_000)
def day_of(t: int, zone: str) -> date:
    day = wall(t, zone).date() + timedelta(2)
    while first_instant(day, zone) > t:
        day -= timedelta(1)
    return day


def period_start(period: str, day: date) -> date:
    match period:
        case "week":
            return day - timedelta(day.weekday())
        case "month":
            return day.replace(day=1)
        case "year":
            return day.replace(month=1, day=1)
    return day


def next_period(period: str, day: date) -> date:
    start = period_start(period, day)
    days = {"day": 1, "week": 7, "month": 31, "year": 366}[period]
    return period_start(period, start + timedelta(days))


def is_during(during: Any, p: int, t: int, zone: str) -> bool:
    if isinstance(during, dict):
        low, high = during["hours"]
        local_time = wall(p, zone)
        hour = Fraction(
            instant_of(local_time, "UTC") - instant_of(datetime.combine(local_time, time()), "UTC"), UNIT["h"]
        )
        return bool(low <= hour < high if low < high else hour >= low or hour < high)
    theirs, now = day_of(p, zone), day_of(t, zone)
    if during == "weekend":
        return theirs.weekday() >= 5
    period = {"today": "day", "yesterday": "day"}.get(during) or during.split("_")[1]
    if during in ("yesterday", "last_week", "last_month", "last_year"):
        return next_period(period, theirs) == period_start(period, now)
    return period_start(period, theirs) == period_start(period, now)


def moment(text: str, zone: str) -> int:
    return first_instant(date.fromisoformat(text), zone) if len(text) == 10 else rfc3339(text)


def month_crossings(target: int, months: int, zone: str) -> Iterator[int]:
    """Return instants u around which ``add_months(u, months, zone) >= target`` may change."""
    if months == 0:
        yield target
    near = transitions(target, zone, 1)
    local_time = wall(target, zone)
    times = {local_time.time(), time()}
    for change in near:
        readings = [wall(change, zone), wall(change - 1, zone) + timedelta(microseconds=1)]
        jump = readings[0] - readings[1]
        times |= {reading.time() for reading in (*readings, local_time + jump, local_time - jump)}
    base = moved(local_time, -months)
    for days in range(-4, 5):
        for clock in times:
            there = datetime.combine(base + timedelta(days), clock)
            yield from (instant_of(there, zone, fold) for fold in (0, 1))
    yield from transitions(instant_of(base, "UTC"), zone, 6)
