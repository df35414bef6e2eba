"""Random sequences and histories in which their steps, gaps and windows often meet exactly at a boundary."""

from __future__ import annotations

from random import Random
from typing import Any, Final

from app.errors import InvalidDefinition
from app.rules.language.definitions import parse_rule
from tests.support.reference_rules import Entry, TrackEntry, TraitsEntry, World, order
from tests.support.rule_strategies import START, Question, one_in, written

SECOND: Final = 1_000_000
DAY: Final = 86_400 * SECOND
EXACT_LENGTHS: Final = ["1s", "2s", "3s", "5s", "8s", "13s", "20s"]
CALENDAR_LENGTHS: Final = ["1d", "3d", "1mo", "1mo", "2mo", "30d"]
ZONES: Final = ["UTC", "Europe/Lisbon", "America/New_York"]
MONTH_END: Final = START + 28 * DAY  # 1997-10-29T00:00:00Z: the same days of later months are cut to 30 or 28.


def sequence_questions(rng: Random, rule_count: int, entry_count: int) -> Question:
    """Draw sequences of one scale of time, and a history of that scale with up to ``entry_count`` messages."""
    is_calendar = one_in(rng, 4)
    lengths = CALENDAR_LENGTHS if is_calendar else EXACT_LENGTHS
    rules = [sequence_of(rng, lengths) for _ in range(rule_count)]
    world = World(timezone=rng.choice(ZONES))
    return Question(rules, world, history_of(rng, rng.randint(entry_count // 2, entry_count), is_calendar))


def sequence_of(rng: Random, lengths: list[str]) -> Any:
    """Draw a valid sequence; the language refuses some combinations of lengths."""
    while True:
        rule = _draw_sequence(rng, lengths)
        try:
            parse_rule(rule)
        except InvalidDefinition:
            continue
        return rule


def _draw_sequence(rng: Random, lengths: list[str]) -> Any:
    steps: list[dict[str, Any]] = []
    for number in range(rng.randint(1, 3)):
        gaps = {key: rng.choice(lengths) for key in ("within", "after_at_least") if number and one_in(rng, 2)}
        steps.append({"did": _events(rng), **_conditions(rng), **gaps})
    if len(steps) == 1 or one_in(rng, 3):
        steps.append({"not": {"did": _events(rng), **_conditions(rng)}, "within": rng.choice(lengths)})
    window = {key: rng.choice(lengths) for key, times in (("within", 2), ("before", 4)) if not one_in(rng, times)}
    if "before" in window and not one_in(rng, 3):
        del window["before"]
    if one_in(rng, 8):
        window["during"] = rng.choice(["weekend", "this_week", "last_week", "today"])
    same = {"same": ["a"]} if one_in(rng, 3) else {}
    return {"sequence": steps, **window, **same}


def _events(rng: Random) -> Any:
    return rng.choice(["A", "A", "B", "C", ["A", "B"], "*"])


def _conditions(rng: Random) -> dict[str, Any]:
    """Draw sometimes a condition, and rarely one whose operand is a trait."""
    if one_in(rng, 12):
        return {"where": {"a": {"gte": {"trait": "least"}}}}
    return {"where": {"a": 1}} if one_in(rng, 6) else {}


def history_of(rng: Random, entry_count: int, is_calendar: bool) -> list[Entry]:
    unit, start = (DAY // 2, MONTH_END) if is_calendar else (SECOND, START)
    entries: list[Entry] = []
    for number in range(entry_count):
        t = start + rng.randint(0, max(entry_count, 12)) * unit + rng.choice([0, 0, 0, 0, -1, 1])
        message_id = f"m{rng.randrange(100)}-{number}"
        if one_in(rng, 12):
            entries.append(TraitsEntry(t, message_id, "site", {"least": rng.choice([1, 2, None])}))
        elif one_in(rng, 30):
            entries.append(TraitsEntry(t, message_id, "site", {"timezone": rng.choice(ZONES)}))
        else:
            properties = {} if one_in(rng, 12) else {"a": rng.choice([1, 1, 2])}
            entries.append(
                TrackEntry(t, message_id, rng.choice("AABBC"), "web", "site", written(properties), "{}", "{}")
            )
    return sorted(entries, key=order)
