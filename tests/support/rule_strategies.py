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


def questions(draw: Random, rules_count: int) -> Question:
    world = worlds(draw)
    return Question([rules(draw, 3, world) for _ in range(rules_count)], world, histories(draw))


def chance(draw: Random, one_in: int) -> bool:
    return draw.randrange(one_in) == 0


def clocks(draw: Random, rule: Any, question: Question) -> int:
    """Draw an instant at which a change is likely, or the microsecond before or after it."""
    history = question.history
    if not history or chance(draw, 12):
        return instants(draw)
    reading = Evaluator(history, max(entry.t for entry in history), question.world)
    changes = reading.instants(rule) if chance(draw, 2) else [entry.t for entry in history]
    return draw.choice(changes) + draw.choice([-1, 0, 0, 1])


# ------------------------------------------------------------------------------------------------- histories


def instants(draw: Random) -> int:
    match draw.randrange(6):
        case 0:
            return START + draw.randint(-72 * HOUR, 72 * HOUR)
        case 1:
            return START + draw.randint(-4, 4)
        case 2:
            return START + draw.randint(-10, 10) * DAY
        case _:
            return START + draw.randint(-72, 72) * HOUR


def calendar_instants(draw: Random) -> int:
    return rfc3339(draw.choice(MOMENTS) + "Z") + draw.choice([-DAY, -HOUR, -1, 0, 0, 0, 1, HOUR, DAY])


def histories(draw: Random) -> list[Entry]:
    """Draw up to eight messages, oldest first."""
    at = calendar_instants if chance(draw, 4) else instants
    entries: list[Entry] = []
    for _ in range(draw.choice([0, 1, 2, 3, 4, 5, 6, 6, 7, 8])):
        message_id = f"m{draw.randrange(1000)}"
        if chance(draw, 4):
            entries.append(TraitsEntry(at(draw), message_id, draw.choice(SOURCES), traits(draw)))
        else:
            entries.append(happened(draw, at(draw), message_id))
    return sorted(entries, key=lambda one: (one.t, one.id, one.source))


def happened(draw: Random, t: int, message_id: str) -> TrackEntry:
    parts = [written(documents(draw)) for _ in range(3)]
    source = draw.choice([*SOURCES, "else"])
    return TrackEntry(
        t, message_id, draw.choice([*NAMES, "A", "A", "B"]), draw.choice([*CHANNELS, "app"]), source, *parts
    )


def traits(draw: Random) -> dict[str, Any]:
    definitions = documents(draw)
    if chance(draw, 2):
        definitions["born"] = draw.choice([*DATES, None])
    if chance(draw, 3):
        definitions["timezone"] = draw.choice([*ZONES, *ZONES, *NO_ZONES, None])
    if chance(draw, 8):
        definitions[draw.choice(COMPUTED)] = values(draw)
    return definitions


def documents(draw: Random) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for name in ("a", "a.b", "c", "plan"):
        if chance(draw, 2):
            results[name] = values(draw)
    if chance(draw, 8):
        results["page"] = {"path": values(draw)}
    if chance(draw, 6):
        results["when"] = draw.choice(DATES)
    if chance(draw, 8):
        results["tz"] = draw.choice(ZONES)
    return results


def values(draw: Random) -> Any:
    match draw.randrange(8):
        case 0:
            return None
        case 1:
            return [draw.choice(SCALARS) for _ in range(draw.randrange(4))]
        case 2:
            return {name: draw.choice(SCALARS) for name in ("b", "d") if chance(draw, 2)}
    return draw.choice(SCALARS)


def written(document: Any) -> str:
    """Return JSON text with exact numbers."""
    if isinstance(document, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{written(value)}" for key, value in document.items()) + "}"
    if isinstance(document, list):
        return "[" + ",".join(map(written, document)) + "]"
    return str(document) if isinstance(document, Decimal) else json.dumps(document)


# ------------------------------------------------------------------------------------------------------ world


def worlds(draw: Random) -> World:
    computed: dict[str, Any] = {}
    for key in COMPUTED:
        if chance(draw, 2):
            computed[key] = expressions(draw, DECLARED)
    bare = World(traits=computed, timezone=draw.choice(ZONES))
    one = rules(draw, 1, bare)
    with_one = World(segments={"one": one}, traits=computed, timezone=bare.timezone)
    stages = [("s1", did(draw, bare)), ("s2", {"segment": "one"}), ("s3", rules(draw, 1, with_one))]
    return World(
        segments={"one": one, "two": {"any": [{"not": {"segment": "one"}}, leaf(draw, with_one)]}},
        journeys={"main": stages, "other": [("o1", leaf(draw, bare)), ("o2", leaf(draw, with_one))]},
        traits=computed,
        timezone=bare.timezone,
        bucketing_key=("email", f"{draw.randrange(9)}@example.com"),
    )


def rules(draw: Random, depth: int, world: World) -> Any:
    if depth <= 1 or chance(draw, 2):
        return leaf(draw, world)
    match draw.randrange(3):
        case 0:
            return {"not": rules(draw, depth - 1, world)}
        case 1:
            return {"all": [rules(draw, depth - 1, world) for _ in range(draw.randint(1, 3))]}
    return {"any": [rules(draw, depth - 1, world) for _ in range(draw.randint(1, 3))]}


def leaf(draw: Random, world: World) -> Any:
    kinds = [did, did, did, did, edge, aggregate, sequence, sequence, regularly, trait, trait]
    if world.segments:
        kinds += [segment, segment, segment]
    if world.journeys:
        kinds += [stage, stage]
    if chance(draw, 30):
        return draw.choice([{"everyone": True}, bucket(draw, world)])
    return draw.choice(kinds)(draw, world)


# ------------------------------------------------------------------------------------------------------ nodes


def did(draw: Random, world: World) -> Any:
    return zoned(draw, {"did": events(draw), **filters(draw, world), **counts(draw), **windows(draw)})


def edge(draw: Random, world: World) -> Any:
    head = draw.choice(["first", "last"])
    return zoned(draw, {head: events(draw), **filters(draw, world), **(windows(draw) or {"within": "1d"})})


def aggregate(draw: Random, world: World) -> Any:
    node = {draw.choice(AGGREGATES): draw.choice(PATHS), "of": events(draw), **filters(draw, world), **windows(draw)}
    return zoned(draw, node | comparisons(draw, readable(world)))


def sequence(draw: Random, world: World) -> Any:
    steps = []
    for place in range(draw.randint(1, 3)):
        step = {"did": events(draw), **(filters(draw, world) if chance(draw, 3) else {})}
        steps.append(step | (gaps(draw) if place else {}))
    if len(steps) == 1 or chance(draw, 3):
        steps.append({"not": {"did": events(draw), **filters(draw, world)}, "within": lengths(draw)})
    same = {"same": draw.sample(PATHS, draw.randint(1, 2))} if chance(draw, 4) else {}
    window = windows(draw) if chance(draw, 2) else {}
    if "within" in window and any(outlasts(step, window["within"]) for step in steps):
        del window["within"]
    return zoned(draw, {"sequence": steps, **same, **window})


def outlasts(step: dict[str, Any], within: str) -> bool:
    """Return True if a gap or the last step may exceed the window, in which case the sequence is never true."""
    waits = step.get("within") if "not" in step else step.get("after_at_least")
    return waits is not None and is_never_longer(within, waits)


def gaps(draw: Random) -> dict[str, str]:
    match draw.randrange(5):
        case 0:
            return {"within": lengths(draw)}
        case 1:
            return {"after_at_least": lengths(draw)}
        case 2:
            return {"after_at_least": draw.choice(["1ms", "5m", "1h"]), "within": draw.choice(LONG)}
    return {}


def regularly(draw: Random, world: World) -> Any:
    of_last = draw.randint(1, 3)
    bounds = {"at_least": draw.randint(1, of_last), "of_last": of_last}
    period = draw.choice(["day", "day", "week", "month"])
    return zoned(draw, {"regularly": events(draw), **filters(draw, world), **bounds, "period": period})


def trait(draw: Random, world: World) -> Any:
    name = draw.choice([*DECLARED, *world.traits])
    node: dict[str, Any] = {"trait": name, **comparisons(draw, readable(world), prefer_dates=name in ("born", "seen"))}
    if chance(draw, 3):
        node |= dwell(draw, "held_for", "changed_within")
        if chance(draw, 3):
            node = {key: part for key, part in node.items() if key in ("trait", "held_for", "changed_within")}
    return zoned(draw, node)


def segment(draw: Random, world: World) -> Any:
    return zoned(draw, {"segment": draw.choice(list(world.segments)), **membership(draw)})


def stage(draw: Random, world: World) -> Any:
    journey = draw.choice(list(world.journeys))
    keys = [key for key, _ in world.journeys[journey]]
    named = {} if journey == world.default_journey and chance(draw, 2) else {"journey": journey}
    return zoned(draw, {"stage": some_of(draw, keys), **named, **membership(draw)})


def membership(draw: Random) -> dict[str, Any]:
    if chance(draw, 4):
        return {}
    return {"ever": True} if chance(draw, 4) else dwell(draw, "for_at_least", "entered_within")


def dwell(draw: Random, least: str, most: str) -> dict[str, str]:
    match draw.randrange(5):
        case 0:
            return {least: draw.choice(SHORT), most: draw.choice(["2d", "1w", "1mo"])}
        case 1 | 2:
            return {least: lengths(draw)}
    return {most: lengths(draw)}


def bucket(draw: Random, _: World) -> Any:
    low = draw.randrange(80)
    return {"bucket": [low, low + 20], **({"salt": draw.choice(["", "autumn"])} if chance(draw, 2) else {})}


def expressions(draw: Random, names: Sequence[str]) -> Any:
    """Draw a value expression whose operands read only the given traits."""
    bare = World(traits={}, segments={}, journeys={})
    head = draw.choice([*AGGREGATES, "count", "first_at", "last_at"])
    window = windows(draw)
    conditions = filters(draw, bare) if names else {}
    if head in AGGREGATES:
        return zoned(draw, {head: draw.choice([*PATHS, "when"]), "of": events(draw), **conditions, **window})
    return zoned(draw, {head: events(draw), **conditions, **window})


# -------------------------------------------------------------------------------------------------- modifiers


def events(draw: Random) -> Any:
    return "*" if chance(draw, 4) else some_of(draw, NAMES)


def some_of(draw: Random, words: list[str]) -> Any:
    return draw.choice(words) if chance(draw, 2) else draw.sample(words, draw.randint(1, min(2, len(words))))


def filters(draw: Random, world: World) -> dict[str, Any]:
    node: dict[str, Any] = {}
    if chance(draw, 7):
        paths = draw.sample([*PATHS, "when"], draw.randint(1, 2))
        node["where"] = {
            path: draw.choice(SCALARS)
            if path != "when" and chance(draw, 3)
            else comparisons(draw, readable(world), prefer_dates=path == "when")
            for path in paths
        }
    if chance(draw, 8):
        node["channel"] = some_of(draw, CHANNELS)
    if chance(draw, 8):
        node["source"] = some_of(draw, SOURCES)
    return node


def readable(world: World) -> list[str]:
    return [*DECLARED, *world.traits]


def counts(draw: Random) -> dict[str, Any]:
    low = draw.randint(0, 3)
    match draw.randrange(6):
        case 0:
            return {"at_least": low + 1}
        case 1:
            return {"at_most": low}
        case 2:
            return {"exactly": low}
        case 3:
            return {"between": [low, low + draw.randint(0, 2)]}
    return {}


def lengths(draw: Random) -> str:
    return draw.choice([*SHORT, *LONG, *SHORT, *LONG, *CALENDAR])


def windows(draw: Random) -> dict[str, Any]:
    window: dict[str, Any] = {}
    match draw.randrange(12):
        case 0 | 1 | 2 | 8 | 9:
            window = {"within": lengths(draw)}
        case 3:
            window = {"before": lengths(draw)}
        case 4:
            young, old = draw.choice(SHORT), draw.choice([*LONG, "1mo"])
            if old == "1mo" or microseconds(young) < microseconds(old):
                window = {"before": young, "within": old}
        case 5:
            window = fixed(draw)
        case 6:
            window = fixed(draw) if chance(draw, 3) else {}
            window |= {"during": draw.choice(["weekend", {"hours": [9, 17]}, {"hours": [22, 6]}, {"hours": [0, 12]}])}
        case 7:
            periods = [f"{which}_{period}" for which in ("this", "last") for period in ("week", "month", "year")]
            window = {"during": draw.choice(["today", "yesterday", *periods])}
        case _:
            return {}
    if "within" not in window and chance(draw, 5):
        window |= {"within": "1w"} if "before" not in window else {}
    return window


def fixed(draw: Random) -> dict[str, Any]:
    """Draw ``from`` and ``to`` such that the range is not empty in any timezone."""
    if chance(draw, 4):
        return draw.choice([{"from": DAYS[0], "to": INSTANTS[3]}, {"from": INSTANTS[0], "to": DAYS[4]}])
    bounds = draw.choice([DAYS, INSTANTS])
    start, end = sorted(draw.sample(range(len(bounds)), 2))
    window = {"from": bounds[start], "to": bounds[end]}
    if chance(draw, 2):
        del window[draw.choice(["from", "to"])]
    return window


def zoned(draw: Random, node: dict[str, Any]) -> dict[str, Any]:
    """Sometimes add a timezone to a node whose result depends on one."""
    if chance(draw, 3) and depends_on_a_zone(node):
        return node | {"timezone": draw.choice(ZONES)}
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


def comparisons(draw: Random, names: Sequence[str], prefer_dates: bool = False) -> dict[str, Any]:
    if prefer_dates or chance(draw, 8):
        return date_comparisons(draw, names)
    if chance(draw, 6):
        return {draw.choice(DYNAMIC): operands(draw, names)}
    match draw.randrange(14):
        case 0:
            return {draw.choice(["eq", "ne"]): draw.choice(SCALARS)}
        case 1:
            return {draw.choice(["gt", "gte", "lt", "lte"]): draw.choice([*NUMBERS, *TEXTS])}
        case 2:
            return {"gt": draw.choice([-1, 0, 1]), "lte": draw.choice([2, "10", 20])}
        case 3:
            return {"between": [draw.choice([-1, "1"]), draw.choice([1, "10", 20])]}
        case 4:
            return {draw.choice(["in", "not_in"]): several(draw)}
        case 5:
            return {draw.choice(["any_of", "all_of", "none_of"]): several(draw)}
        case 6:
            return {draw.choice(["contains", "not_contains"]): draw.choice(SCALARS)}
        case 7:
            return {draw.choice(["starts_with", "ends_with"]): draw.choice(TEXTS)}
        case 8:
            return {"exists": chance(draw, 2)}
        case 9:
            text = draw.choice(["x", "X", "strasse", "STRASSE"])
            operators = ["eq", "ne", "contains", "not_contains", "starts_with", "ends_with"]
            return {draw.choice(operators): text, "ignore_case": True}
        case 10:
            return {"matches": draw.choice(PATTERNS), **({"ignore_case": True} if chance(draw, 2) else {})}
        case 11:
            return {draw.choice(["any_of", "none_of"]): ["X", "strasse", 1], "ignore_case": True}
        case 12:
            return draw.choice([{"in": ["X", "strasse", 1], "ignore_case": True}, {"gte": "X", "lt": "Z"}])
    return {"exists": True, "ne": "x", "not_contains": 1}


DYNAMIC = ["eq", "ne", "gt", "gte", "lt", "lte", "contains", "not_contains", "starts_with", "ends_with"]


def several(draw: Random) -> list[Any]:
    results: list[Any] = []
    for item in draw.sample(SCALARS, draw.randint(1, 3)):
        if not any(other == item and isinstance(other, bool) == isinstance(item, bool) for other in results):
            results.append(item)
    return results


def operands(draw: Random, names: Sequence[str]) -> Any:
    return {"trait": draw.choice(names)} if chance(draw, 2) else expressions(draw, [])


def date_comparisons(draw: Random, names: Sequence[str]) -> dict[str, Any]:
    match draw.randrange(6):
        case 0:
            bound = operands(draw, names) if chance(draw, 3) else draw.choice([*DAYS, *INSTANTS])
            return {draw.choice(["after", "before_date"]): bound}
        case 1:
            return {"after": DAYS[1], "before_date": INSTANTS[3]}
        case 2:
            return {"within_last": lengths(draw)}
        case 3:
            return {"within_next": lengths(draw)}
    return {"anniversary_within": draw.choice(["1h", "1d", "1w", "1mo"])}
