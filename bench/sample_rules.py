"""The segments that are measured: a mix as teams write them, and rules that cost as much as the language allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from app.rules.engine.ruleset import Ruleset, compile_ruleset
from app.rules.language.definitions import parse_rule
from app.rules.language.references import Definition

Json = dict[str, Any]

SHOP: Final = ("Product Viewed", "Product Added", "Checkout Started", "Order Completed", "Email Opened", "Review Read")
LEAVES_MAX = 100  # app.rules.engine.definition_compiler.POINT_NODES_MAX
"""A rule has at most 500 nodes; a list of so many, each with a comparison and its operand, stays below."""


def typical(number: int, events: Sequence[str], then: str, trait: str, least: float) -> Json:
    """Segment ``number`` of a typical mix: a third counts in a window, a third adds up, the others follow an order,
    an absence or a trait. ``least`` makes its leaf its own."""
    asked: Json = {"did": list(events), "where": {"price": {"gte": least}}}
    of: Json = {"of": list(events), "where": {"price": {"gte": least}}}
    step: Json = {"did": then, "within": "1h"}
    mix: tuple[Json, ...] = (
        {**asked, "at_least": 3, "within": "30d"},
        {**asked, "at_least": 2},
        {"all": [asked, {"not": {**asked, "at_least": 2, "within": "14d"}}]},
        {"sum": "price", **of, "within": "90d", "gte": 500},
        {"distinct": "product_id", **of, "within": "30d", "gte": 3},
        {"sequence": [asked, step], "within": "30d"},
        {"sequence": [asked, {"not": {"did": then}, "within": "1h"}], "within": "7d"},
        {"any": [{"trait": trait, "in": ["pro", "team"], "held_for": "7d"}, {**asked, "at_least": 5, "within": "7d"}]},
        {"last": list(events), "where": {"price": {"gte": least}}, "before": "30d"},
        {"most_frequent": "category", **of, "eq": "shoes"},
    )
    return mix[number % len(mix)]


def untouched(count: int) -> list[Json]:
    """Segments that read neither an event nor a trait of the stream."""
    return [
        typical(number, [f"Event {number}", f"Event {number}b"], f"Event {number}c", f"trait_{number}", 1)
        for number in range(count)
    ]


def touched(count: int, events: Sequence[str] = SHOP) -> list[Json]:
    """Segments that every message of the stream touches."""
    return [typical(number, events, events[-1], "plan", number / 1000) for number in range(count)]


def shop(count: int) -> list[Json]:
    """Segments of a shop: each reads one or two of its events."""
    return [
        typical(number, sorted({SHOP[number % 6], SHOP[number // 10 % 6]}), SHOP[(number + 1) % 6], "plan", number / 10)
        for number in range(count)
    ]


def compiled(rules: Sequence[Json]) -> Ruleset:
    """One segment for each of the rules."""
    definitions = [
        Definition("segment", f"s-{number}", 1, f"s-{number}", rule=parse_rule(rule))
        for number, rule in enumerate(rules)
    ]
    return compile_ruleset(definitions, revision=1, timezone="Europe/Lisbon", default_journey="six-stage")


# ----------------------------------------------------------------------------------------- the most expensive ones


def expensive() -> dict[str, Json]:
    """Legal rules of close to 500 nodes that look at every point of each of their leaves, by what is dear in them."""
    return {
        "windows of months": _all({"did": "*", "where": _own(n), "within": "13mo"} for n in range(LEAVES_MAX)),
        "periods of the calendar": _all(
            {"did": "*", "where": _own(n), "during": "last_year", "timezone": "America/St_Johns", "at_most": 10**6}
            for n in range(LEAVES_MAX)
        ),
        "most frequent of months": _all(
            {"most_frequent": "product_id", "of": "*", "where": _own(n), "within": "13mo", "exists": True}
            for n in range(LEAVES_MAX)
        ),
        "exact averages of months": _all(
            {"avg": "price", "of": "*", "where": _own(n), "within": "13mo", "gt": 0} for n in range(LEAVES_MAX)
        ),
        "sixty months": _all(
            {"regularly": "*", "where": _own(n), "at_least": 1, "of_last": 60, "period": "month"}
            for n in range(LEAVES_MAX)
        ),
        "sequences of ten": _all(
            {
                "sequence": [{"did": "*", "where": _own(n)}, *[{"did": "*", "within": "3mo"}] * 9],
                "same": ["category"],
                "within": "13mo",
            }
            for n in range(10)
        ),
        "anniversaries": _all(
            {
                "did": "*",
                "where": {"birthday": {"anniversary_within": "1mo"}, **_own(n)},
                "within": "13mo",
                "at_most": n,
            }
            for n in range(5)
        ),
        "operands for each point": _all(
            {
                "did": "*",
                "where": {"price": {"lte": {"max": "price", "of": "*", "where": _own(n), "within": "13mo"}}},
                "within": "13mo",
            }
            for n in range(50)
        ),
        "operands of operands": {
            "did": "*",
            "where": {"price": {"lte": {"max": "price", "of": "*", "where": _nested(2), "within": "13mo"}}},
            "within": "13mo",
        },
    }


def _all(rules: Any) -> Json:
    return {"all": list(rules)}


def _own(number: int) -> Json:
    """A filter that every point passes and no other leaf has."""
    return {"price": {"gte": -number}}


def _nested(levels: int) -> Json:
    if not levels:
        return {"price": {"gte": 0}}
    inner = {"max": "price", "of": "*", "where": _nested(levels - 1), "within": "13mo"}
    return {"price": {"lte": inner}}
