"""Random rules over the whole grammar, random histories and clocks. Few distinct values make matches likely.

All functions draw from a ``random.Random``. It is seeded for many cases, or comes from Hypothesis, which can reduce
failing cases. All rules are valid: modifiers that have no effect or contradict each other are never drawn, because the
language refuses them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Any

from app.rules.language.fields import is_never_longer
from tests.support.reference_rules import (
    AGGREGATES,
    DATE_OPERATORS,
    Entry,
    Evaluator,
    TrackEntry,
    TraitsEntry,
    World,
    microseconds,
    rfc3339,
)

HOUR = 3_600_000_000
DAY = 24 * HOUR
START = 875_664_000_000_000  # 1997-10-01T00:00:00Z
NAMES = ["A", "B", "C"]
CHANNELS = ["web", "email"]
SOURCES = ["site", "crm"]
ZONES = [
    *("UTC", "Europe/Lisbon", "America/New_York", "America/Sao_Paulo", "Asia/Kolkata", "Pacific/Kiritimati"),
    *("America/St_Johns", "Australia/Lord_Howe"),
]
NO_ZONES = ["Mars/Base", "../etc", "", 5, "Factory"]
DAYS = ["1997-09-29", "1997-09-30", "1997-10-01", "1997-10-02", "1997-10-06"]
INSTANTS = ["1997-09-30T12:00:00Z", "1997-10-01T00:00:00+02:00", "1997-10-01T05:00:00.000001Z", "1997-10-07T00:00:00Z"]
PATHS = ["a", "a.b", "c.d", "context.page.path", "context.a", "traits.plan", "touchpoint.name", "touchpoint.channel"]
NUMBERS = [0, 1, 2, 10, Decimal("1.0"), Decimal("1.5"), Decimal("2E1"), 2**53 + 1, -1]
TEXTS = ["1", "10", "1.0", "1e1", "-0", "x", "X", "xy", "Straße", "STRASSE", "1e500", "0x1", " 1", "01", "nan", "é"]
SCALARS: list[Any] = [*NUMBERS, *TEXTS, True, False]
DATES: list[Any] = [
    *("1997-09-30", "1997-10-01", "1997-10-05", "1996-02-29", "1990-10-02", "1997-11-02"),
    *("1997-10-01T12:00:00Z", "1997-10-01t00:00:00.0000019+02:00", "1991-10-01T23:30:00-05:00"),
    *(875_664_000, Decimal("875664000.5"), 875_664_000_000, 875_664_000_000_000, 875_664_000_000_000_000),
    *("875664000", "1997-10-01T12:00:00", "1997-02-30", 10**30, True),
]
PATTERNS = ["^x", "y$", "1", "[xy]+", "ss", "^(a|X)", "."]
SHORT = ["1ms", "30s", "5m", "1h", "3h", "1d"]
LONG = ["2h", "5h", "2d", "1w"]
CALENDAR = ["1mo", "2mo", "1y"]
DECLARED = ["a", "a.b", "c.d", "plan", "born"]
COMPUTED = ["n", "total", "seen", "liked"]
MOMENTS = [  # near ends of months and changes of clocks
    *("1997-01-31T12:00:00", "1997-02-28T00:00:00", "1997-03-30T01:30:00", "1997-03-31T00:00:00"),
    *(
        "1997-04-06T07:30:00",
        "1997-10-05T03:00:00",
        "1997-10-26T00:30:00",
        "1997-10-26T05:30:00",
        "1997-12-31T23:59:59",
    ),
]


@dataclass
class Question:
    """Rules, the definitions to which they refer, and the messages of one customer."""

    rules: list[Any]
    world: World
    history: list[Entry]


def questions(rng: Random, rules_count: int) -> Question:
    world = worlds(rng)
    return Question([rules(rng, 3, world) for _ in range(rules_count)], world, histories(rng))


def one_in(rng: Random, times: int) -> bool:
    """Return True once in ``times`` calls on average."""
    return rng.randrange(times) == 0


def clocks(rng: Random, rule: Any, question: Question) -> int:
    """Draw an instant at which a change is likely, or the microsecond before or after it."""
    history = question.history
    if not history or one_in(rng, 12):
        return instants(rng)
    evaluator = Evaluator(history, max(entry.t for entry in history), question.world)
    changes = evaluator.instants(rule) if one_in(rng, 2) else [entry.t for entry in history]
    return rng.choice(changes) + rng.choice([-1, 0, 0, 1])


# ------------------------------------------------------------------------------------------------- histories


def instants(rng: Random) -> int:
    match rng.randrange(6):
        case 0:
            return START + rng.randint(-72 * HOUR, 72 * HOUR)
        case 1:
            return START + rng.randint(-4, 4)
        case 2:
            return START + rng.randint(-10, 10) * DAY
        case _:
            return START + rng.randint(-72, 72) * HOUR


def calendar_instants(rng: Random) -> int:
    return rfc3339(rng.choice(MOMENTS) + "Z") + rng.choice([-DAY, -HOUR, -1, 0, 0, 0, 1, HOUR, DAY])


def histories(rng: Random) -> list[Entry]:
    """Draw up to eight messages, oldest first."""
    at = calendar_instants if one_in(rng, 4) else instants
    entries: list[Entry] = []
    for _ in range(rng.choice([0, 1, 2, 3, 4, 5, 6, 6, 7, 8])):
        message_id = f"m{rng.randrange(1000)}"
        if one_in(rng, 4):
            entries.append(TraitsEntry(at(rng), message_id, rng.choice(SOURCES), traits(rng)))
        else:
            entries.append(happened(rng, at(rng), message_id))
    return sorted(entries, key=lambda one: (one.t, one.id, one.source))


def happened(rng: Random, t: int, message_id: str) -> TrackEntry:
    parts = [written(documents(rng)) for _ in range(3)]
    source = rng.choice([*SOURCES, "else"])
    return TrackEntry(
        t, message_id, rng.choice([*NAMES, "A", "A", "B"]), rng.choice([*CHANNELS, "app"]), source, *parts
    )


def traits(rng: Random) -> dict[str, Any]:
    definitions = documents(rng)
    if one_in(rng, 2):
        definitions["born"] = rng.choice([*DATES, None])
    if one_in(rng, 3):
        definitions["timezone"] = rng.choice([*ZONES, *ZONES, *NO_ZONES, None])
    if one_in(rng, 8):
        definitions[rng.choice(COMPUTED)] = values(rng)
    return definitions


def documents(rng: Random) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for name in ("a", "a.b", "c", "plan"):
        if one_in(rng, 2):
            results[name] = values(rng)
    if one_in(rng, 8):
        results["page"] = {"path": values(rng)}
    if one_in(rng, 6):
        results["when"] = rng.choice(DATES)
    if one_in(rng, 8):
        results["tz"] = rng.choice(ZONES)
    return results


def values(rng: Random) -> Any:
    match rng.randrange(8):
        case 0:
            return None
        case 1:
            return [rng.choice(SCALARS) for _ in range(rng.randrange(4))]
        case 2:
            return {name: rng.choice(SCALARS) for name in ("b", "d") if one_in(rng, 2)}
    return rng.choice(SCALARS)


def written(document: Any) -> str:
    """Return JSON text with exact numbers."""
    if isinstance(document, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{written(value)}" for key, value in document.items()) + "}"
    if isinstance(document, list):
        return "[" + ",".join(map(written, document)) + "]"
    return str(document) if isinstance(document, Decimal) else json.dumps(document)


# ------------------------------------------------------------------------------------------------------ world


def worlds(rng: Random) -> World:
    computed: dict[str, Any] = {}
    for key in COMPUTED:
        if one_in(rng, 2):
            computed[key] = expressions(rng, DECLARED)
    bare = World(traits=computed, timezone=rng.choice(ZONES))
    one = rules(rng, 1, bare)
    with_one = World(segments={"one": one}, traits=computed, timezone=bare.timezone)
    stages = [("s1", did(rng, bare)), ("s2", {"segment": "one"}), ("s3", rules(rng, 1, with_one))]
    return World(
        segments={"one": one, "two": {"any": [{"not": {"segment": "one"}}, leaf(rng, with_one)]}},
        journeys={"main": stages, "other": [("o1", leaf(rng, bare)), ("o2", leaf(rng, with_one))]},
        traits=computed,
        timezone=bare.timezone,
        bucketing_key=("email", f"{rng.randrange(9)}@example.com"),
    )


def rules(rng: Random, depth: int, world: World) -> Any:
    if depth <= 1 or one_in(rng, 2):
        return leaf(rng, world)
    match rng.randrange(3):
        case 0:
            return {"not": rules(rng, depth - 1, world)}
        case 1:
            return {"all": [rules(rng, depth - 1, world) for _ in range(rng.randint(1, 3))]}
    return {"any": [rules(rng, depth - 1, world) for _ in range(rng.randint(1, 3))]}


def leaf(rng: Random, world: World) -> Any:
    kinds = [did, did, did, did, edge, aggregate, sequence, sequence, regularly, trait, trait]
    if world.segments:
        kinds += [segment, segment, segment]
    if world.journeys:
        kinds += [stage, stage]
    if one_in(rng, 30):
        return rng.choice([{"everyone": True}, bucket(rng, world)])
    return rng.choice(kinds)(rng, world)


# ------------------------------------------------------------------------------------------------------ nodes


def did(rng: Random, world: World) -> Any:
    return zoned(rng, {"did": events(rng), **filters(rng, world), **counts(rng), **windows(rng)})


def edge(rng: Random, world: World) -> Any:
    head = rng.choice(["first", "last"])
    return zoned(rng, {head: events(rng), **filters(rng, world), **(windows(rng) or {"within": "1d"})})


def aggregate(rng: Random, world: World) -> Any:
    node = {rng.choice(AGGREGATES): rng.choice(PATHS), "of": events(rng), **filters(rng, world), **windows(rng)}
    return zoned(rng, node | comparisons(rng, readable(world)))


def sequence(rng: Random, world: World) -> Any:
    steps = []
    for place in range(rng.randint(1, 3)):
        step = {"did": events(rng), **(filters(rng, world) if one_in(rng, 3) else {})}
        steps.append(step | (gaps(rng) if place else {}))
    if len(steps) == 1 or one_in(rng, 3):
        steps.append({"not": {"did": events(rng), **filters(rng, world)}, "within": lengths(rng)})
    same = {"same": rng.sample(PATHS, rng.randint(1, 2))} if one_in(rng, 4) else {}
    window = windows(rng) if one_in(rng, 2) else {}
    if "within" in window and any(outlasts(step, window["within"]) for step in steps):
        del window["within"]
    return zoned(rng, {"sequence": steps, **same, **window})


def outlasts(step: dict[str, Any], within: str) -> bool:
    """Return True if a gap or the last step may exceed the window, in which case the sequence is never true."""
    waits = step.get("within") if "not" in step else step.get("after_at_least")
    return waits is not None and is_never_longer(within, waits)


def gaps(rng: Random) -> dict[str, str]:
    match rng.randrange(5):
        case 0:
            return {"within": lengths(rng)}
        case 1:
            return {"after_at_least": lengths(rng)}
        case 2:
            return {"after_at_least": rng.choice(["1ms", "5m", "1h"]), "within": rng.choice(LONG)}
    return {}


def regularly(rng: Random, world: World) -> Any:
    of_last = rng.randint(1, 3)
    bounds = {"at_least": rng.randint(1, of_last), "of_last": of_last}
    period = rng.choice(["day", "day", "week", "month"])
    return zoned(rng, {"regularly": events(rng), **filters(rng, world), **bounds, "period": period})


def trait(rng: Random, world: World) -> Any:
    name = rng.choice([*DECLARED, *world.traits])
    node: dict[str, Any] = {"trait": name, **comparisons(rng, readable(world), prefer_dates=name in ("born", "seen"))}
    if one_in(rng, 3):
        node |= dwell(rng, "held_for", "changed_within")
        if one_in(rng, 3):
            node = {key: part for key, part in node.items() if key in ("trait", "held_for", "changed_within")}
    return zoned(rng, node)


def segment(rng: Random, world: World) -> Any:
    return zoned(rng, {"segment": rng.choice(list(world.segments)), **membership(rng)})


def stage(rng: Random, world: World) -> Any:
    journey = rng.choice(list(world.journeys))
    keys = [key for key, _ in world.journeys[journey]]
    named = {} if journey == world.default_journey and one_in(rng, 2) else {"journey": journey}
    return zoned(rng, {"stage": some_of(rng, keys), **named, **membership(rng)})


def membership(rng: Random) -> dict[str, Any]:
    if one_in(rng, 4):
        return {}
    return {"ever": True} if one_in(rng, 4) else dwell(rng, "for_at_least", "entered_within")


def dwell(rng: Random, least: str, most: str) -> dict[str, str]:
    match rng.randrange(5):
        case 0:
            return {least: rng.choice(SHORT), most: rng.choice(["2d", "1w", "1mo"])}
        case 1 | 2:
            return {least: lengths(rng)}
    return {most: lengths(rng)}


def bucket(rng: Random, _: World) -> Any:
    low = rng.randrange(80)
    return {"bucket": [low, low + 20], **({"salt": rng.choice(["", "autumn"])} if one_in(rng, 2) else {})}


def expressions(rng: Random, names: Sequence[str]) -> Any:
    """Draw a value expression whose operands read only the given traits."""
    bare = World(traits={}, segments={}, journeys={})
    head = rng.choice([*AGGREGATES, "count", "first_at", "last_at"])
    window = windows(rng)
    conditions = filters(rng, bare) if names else {}
    if head in AGGREGATES:
        return zoned(rng, {head: rng.choice([*PATHS, "when"]), "of": events(rng), **conditions, **window})
    return zoned(rng, {head: events(rng), **conditions, **window})


# -------------------------------------------------------------------------------------------------- modifiers


def events(rng: Random) -> Any:
    return "*" if one_in(rng, 4) else some_of(rng, NAMES)


def some_of(rng: Random, words: list[str]) -> Any:
    return rng.choice(words) if one_in(rng, 2) else rng.sample(words, rng.randint(1, min(2, len(words))))


def filters(rng: Random, world: World) -> dict[str, Any]:
    node: dict[str, Any] = {}
    if one_in(rng, 7):
        paths = rng.sample([*PATHS, "when"], rng.randint(1, 2))
        node["where"] = {
            path: rng.choice(SCALARS)
            if path != "when" and one_in(rng, 3)
            else comparisons(rng, readable(world), prefer_dates=path == "when")
            for path in paths
        }
    if one_in(rng, 8):
        node["channel"] = some_of(rng, CHANNELS)
    if one_in(rng, 8):
        node["source"] = some_of(rng, SOURCES)
    return node


def readable(world: World) -> list[str]:
    return [*DECLARED, *world.traits]


def counts(rng: Random) -> dict[str, Any]:
    low = rng.randint(0, 3)
    match rng.randrange(6):
        case 0:
            return {"at_least": low + 1}
        case 1:
            return {"at_most": low}
        case 2:
            return {"exactly": low}
        case 3:
            return {"between": [low, low + rng.randint(0, 2)]}
    return {}


def lengths(rng: Random) -> str:
    return rng.choice([*SHORT, *LONG, *SHORT, *LONG, *CALENDAR])


def windows(rng: Random) -> dict[str, Any]:
    window: dict[str, Any] = {}
    match rng.randrange(12):
        case 0 | 1 | 2 | 8 | 9:
            window = {"within": lengths(rng)}
        case 3:
            window = {"before": lengths(rng)}
        case 4:
            young, old = rng.choice(SHORT), rng.choice([*LONG, "1mo"])
            if old == "1mo" or microseconds(young) < microseconds(old):
                window = {"before": young, "within": old}
        case 5:
            window = fixed(rng)
        case 6:
            window = fixed(rng) if one_in(rng, 3) else {}
            window |= {"during": rng.choice(["weekend", {"hours": [9, 17]}, {"hours": [22, 6]}, {"hours": [0, 12]}])}
        case 7:
            periods = [f"{which}_{period}" for which in ("this", "last") for period in ("week", "month", "year")]
            window = {"during": rng.choice(["today", "yesterday", *periods])}
        case _:
            return {}
    if "within" not in window and one_in(rng, 5):
        window |= {"within": "1w"} if "before" not in window else {}
    return window


def fixed(rng: Random) -> dict[str, Any]:
    """Draw ``from`` and ``to`` such that the range is not empty in any timezone."""
    if one_in(rng, 4):
        return rng.choice([{"from": DAYS[0], "to": INSTANTS[3]}, {"from": INSTANTS[0], "to": DAYS[4]}])
    bounds = rng.choice([DAYS, INSTANTS])
    start, end = sorted(rng.sample(range(len(bounds)), 2))
    window = {"from": bounds[start], "to": bounds[end]}
    if one_in(rng, 2):
        del window[rng.choice(["from", "to"])]
    return window


def zoned(rng: Random, node: dict[str, Any]) -> dict[str, Any]:
    """Sometimes add a timezone to a node whose result depends on one."""
    if one_in(rng, 3) and depends_on_a_zone(node):
        return node | {"timezone": rng.choice(ZONES)}
    return node


def depends_on_a_zone(node: dict[str, Any]) -> bool:
    tested = [
        node,
        *(step for step in node.get("sequence", [])),
        *(s["not"] for s in node.get("sequence", []) if "not" in s),
    ]
    for part in tested:
        if "during" in part or part.get("period") == "month":
            return True
        if any(len(part.get(bound, "")) == 10 for bound in ("from", "to")):
            return True
        keys = ("within", "before", "after_at_least", "for_at_least", "entered_within", "held_for", "changed_within")
        if any(part.get(key) in CALENDAR for key in keys):
            return True
        conditions = [part, *(one for one in part.get("where", {}).values() if isinstance(one, dict))]
        if any(operator in one for one in conditions for operator in DATE_OPERATORS):
            return True
    return False


# ------------------------------------------------------------------------------------------------ comparisons


def comparisons(rng: Random, names: Sequence[str], prefer_dates: bool = False) -> dict[str, Any]:
    if prefer_dates or one_in(rng, 8):
        return date_comparisons(rng, names)
    if one_in(rng, 6):
        return {rng.choice(DYNAMIC): operands(rng, names)}
    match rng.randrange(14):
        case 0:
            return {rng.choice(["eq", "ne"]): rng.choice(SCALARS)}
        case 1:
            return {rng.choice(["gt", "gte", "lt", "lte"]): rng.choice([*NUMBERS, *TEXTS])}
        case 2:
            return {"gt": rng.choice([-1, 0, 1]), "lte": rng.choice([2, "10", 20])}
        case 3:
            return {"between": [rng.choice([-1, "1"]), rng.choice([1, "10", 20])]}
        case 4:
            return {rng.choice(["in", "not_in"]): several(rng)}
        case 5:
            return {rng.choice(["any_of", "all_of", "none_of"]): several(rng)}
        case 6:
            return {rng.choice(["contains", "not_contains"]): rng.choice(SCALARS)}
        case 7:
            return {rng.choice(["starts_with", "ends_with"]): rng.choice(TEXTS)}
        case 8:
            return {"exists": one_in(rng, 2)}
        case 9:
            text = rng.choice(["x", "X", "strasse", "STRASSE"])
            operators = ["eq", "ne", "contains", "not_contains", "starts_with", "ends_with"]
            return {rng.choice(operators): text, "ignore_case": True}
        case 10:
            return {"matches": rng.choice(PATTERNS), **({"ignore_case": True} if one_in(rng, 2) else {})}
        case 11:
            return {rng.choice(["any_of", "none_of"]): ["X", "strasse", 1], "ignore_case": True}
        case 12:
            return rng.choice([{"in": ["X", "strasse", 1], "ignore_case": True}, {"gte": "X", "lt": "Z"}])
    return {"exists": True, "ne": "x", "not_contains": 1}


DYNAMIC = ["eq", "ne", "gt", "gte", "lt", "lte", "contains", "not_contains", "starts_with", "ends_with"]


def several(rng: Random) -> list[Any]:
    results: list[Any] = []
    for item in rng.sample(SCALARS, rng.randint(1, 3)):
        if not any(other == item and isinstance(other, bool) == isinstance(item, bool) for other in results):
            results.append(item)
    return results


def operands(rng: Random, names: Sequence[str]) -> Any:
    return {"trait": rng.choice(names)} if one_in(rng, 2) else expressions(rng, [])


def date_comparisons(rng: Random, names: Sequence[str]) -> dict[str, Any]:
    match rng.randrange(6):
        case 0:
            bound = operands(rng, names) if one_in(rng, 3) else rng.choice([*DAYS, *INSTANTS])
            return {rng.choice(["after", "before_date"]): bound}
        case 1:
            return {"after": DAYS[1], "before_date": INSTANTS[3]}
        case 2:
            return {"within_last": lengths(rng)}
        case 3:
            return {"within_next": lengths(rng)}
    return {"anniversary_within": rng.choice(["1h", "1d", "1w", "1mo"])}
