"""A second, naive reading of the rule language, straight over the list of what happened.

It shares nothing with the engine: no series, no compiled tests, no saturation. Each question filters the whole
list again, and the next change is found by trying every instant at which any window could open or close.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

UNIT = {"ms": 1000, "s": 10**6, "m": 60 * 10**6, "h": 3600 * 10**6, "d": 86400 * 10**6, "w": 7 * 86400 * 10**6}


class Happened(NamedTuple):
    t: int
    id: str
    name: str
    channel: str
    source: str
    properties: str
    context: str
    traits: str


@dataclass
class World:
    """What a rule may refer to beside the touchpoints."""

    traits: Mapping[str, Any] = field(default_factory=dict)
    segments: Mapping[str, Any] = field(default_factory=dict)
    journeys: Mapping[str, Sequence[tuple[str, Any]]] = field(default_factory=dict)
    default_journey: str = "main"
    timezone: str = "UTC"


def holds(rule: Any, history: Sequence[Happened], t: int, world: World) -> bool:
    if "all" in rule:
        return min(holds(part, history, t, world) for part in rule["all"])
    if "any" in rule:
        return max(holds(part, history, t, world) for part in rule["any"])
    if "not" in rule:
        return not holds(rule["not"], history, t, world)
    if "everyone" in rule:
        return True
    if "trait" in rule:
        return satisfies(rule, at_path(world.traits, rule["trait"]))
    if "segment" in rule:
        return holds(world.segments[rule["segment"]], history, t, world)
    if "stage" in rule:
        stages = world.journeys[rule.get("journey", world.default_journey)]
        true = [key for key, stage in stages if holds(stage, history, t, world)]
        return bool(true) and true[-1] in as_list(rule["stage"])
    number = sum(1 for happened in history if happened.t <= t and matches(rule, happened, t, world))
    if "at_most" in rule:
        return number <= rule["at_most"]
    if "exactly" in rule:
        return number == rule["exactly"]
    if "between" in rule:
        return number in range(rule["between"][0], rule["between"][1] + 1)
    return number >= rule.get("at_least", 1)


def matches(rule: Any, happened: Happened, t: int, world: World) -> bool:
    if rule["did"] != "*" and happened.name not in as_list(rule["did"]):
        return False
    if "channel" in rule and happened.channel not in as_list(rule["channel"]):
        return False
    if "source" in rule and happened.source not in as_list(rule["source"]):
        return False
    for path, asked in rule.get("where", {}).items():
        place, name = happened.properties, path
        if re.match(r"(context|traits)\..", path):
            head, name = path.split(".", 1)
            place = happened.context if head == "context" else happened.traits
        value = at_path(json.loads(place, parse_float=Decimal), name)
        if not satisfies(asked if isinstance(asked, dict) else {"eq": asked}, value):
            return False
    if "within" in rule and not t < happened.t + microseconds(rule["within"]):
        return False
    if "before" in rule and not happened.t + microseconds(rule["before"]) <= t:
        return False
    if "from" in rule and not is_at_or_after(happened.t, rule["from"], rule, world):
        return False
    return "to" not in rule or not is_at_or_after(happened.t, rule["to"], rule, world)


def is_at_or_after(p: int, bound: str, rule: Any, world: World) -> bool:
    instant = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=p)
    if len(bound) > 10:
        return instant >= datetime.fromisoformat(bound)
    zone = rule.get("timezone")
    if zone is None:
        zone = world.traits.get("timezone")
        try:
            ZoneInfo(zone)
        except Exception:
            zone = world.timezone
    return instant.astimezone(ZoneInfo(zone)).date() >= date.fromisoformat(bound)


def at_path(values: Any, name: str) -> Any:
    if values.get(name) is not None:
        return values[name]
    for step in name.split("."):
        values = values.get(step) if isinstance(values, dict) else None
    return values


def satisfies(asked: Mapping[str, Any], value: Any) -> bool:
    fold = asked.get("ignore_case", False)
    return all(
        one(operator, operand, value, fold)
        for operator, operand in asked.items()
        if operator not in ("trait", "ignore_case")
    )


def one(operator: str, operand: Any, value: Any, fold: bool) -> bool:
    match operator:
        case "ne":
            return not one("eq", operand, value, fold)
        case "not_in":
            return not one("in", operand, value, fold)
        case "not_contains":
            return not one("contains", operand, value, fold)
        case "exists":
            return (value is not None) == operand
    if value is None:
        return False
    match operator:
        case "eq":
            return same(operand, value, fold)
        case "in":
            return any(same(item, value, fold) for item in operand)
        case "contains" if isinstance(value, list):
            return any(same(operand, item, fold) for item in value)
        case "contains" | "starts_with" | "ends_with":
            if not (isinstance(value, str) and isinstance(operand, str)):
                return False
            text, part = (value.casefold(), operand.casefold()) if fold else (value, operand)
            at = {"contains": part in text, "starts_with": text[: len(part)] == part}
            return at.get(operator, text[len(text) - len(part) :] == part if len(part) <= len(text) else False)
        case "between":
            return one("gte", operand[0], value, fold) and one("lte", operand[1], value, fold)
    left, right = orderable(value, fold), orderable(operand, fold)
    if left is None or right is None or isinstance(left, str) != isinstance(right, str):
        return False
    less, equal = left < right, left == right
    return {"gt": not less and not equal, "gte": not less, "lt": less, "lte": less or equal}[operator]


def same(operand: Any, value: Any, fold: bool) -> bool:
    def kind(thing: Any) -> str:
        return {bool: "flag", str: "text", int: "number", Decimal: "number"}.get(type(thing), "other")

    if kind(operand) != kind(value) or kind(value) == "other":
        return False
    if fold and isinstance(value, str):
        return bool(value.casefold() == operand.casefold())
    return bool(value == operand)


def orderable(value: Any, fold: bool) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
        return None
    if not isinstance(value, str):
        return value
    try:
        number = json.loads(value, parse_float=Decimal, parse_int=Decimal, parse_constant=lambda _: None)
    except ValueError:
        number = None
    if isinstance(number, Decimal) and value == value.strip() and sum(map(str.isdigit, f"{number:f}")) <= 400:
        return number
    return value.casefold() if fold else value


def next_change(rule: Any, history: Sequence[Happened], t: int, world: World) -> int | None:
    known = [happened for happened in history if happened.t <= t]
    lengths = set(lengths_in(rule))
    for other in [*world.segments.values(), *(stage for stages in world.journeys.values() for _, stage in stages)]:
        lengths |= set(lengths_in(other))
    instants = sorted({happened.t + length for happened in known for length in lengths})
    now = holds(rule, known, t, world)
    return next((u for u in instants if u > t and holds(rule, known, u, world) != now), None)


def lengths_in(rule: Any) -> Iterator[int]:
    for part in [*rule.get("all", []), *rule.get("any", []), *([rule["not"]] if "not" in rule else [])]:
        yield from lengths_in(part)
    yield from (microseconds(rule[key]) for key in ("within", "before") if key in rule)


def microseconds(length: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(\D+)", length).groups()  # type: ignore[union-attr]
    return int(number) * UNIT[unit]


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
