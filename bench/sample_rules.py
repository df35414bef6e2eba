"""Sample rules: a typical mix of segments, and the most expensive rules that the language allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from app.rules.engine.ruleset import Ruleset, compile_ruleset
from app.rules.language.definitions import parse_rule
from app.rules.language.references import Definition

Json = dict[str, Any]

SHOP: Final = ("Product Viewed", "Product Added", "Checkout Started", "Order Completed", "Email Opened", "Review Read")
LEAVES_MAX = 100  # app.rules.engine.definition_compiler.POINT_NODES_MAX
"""Maximum number of leaves in one rule.

Each leaf has a comparison with an operand, and the total stays below the limit of 500 nodes.
"""


def typical(number: int, events: Sequence[str], then: str, trait: str, least: float) -> Json:
    """Return rule ``number`` of a typical mix: counts in a window, aggregates, sequences, absences and traits.

    ``least`` is a price limit that makes the leaf differ from the leaves of other segments.
    """
    count: Json = {"did": list(events), "where": {"price": {"gte": least}}}
    aggregate: Json = {"of": list(events), "where": {"price": {"gte": least}}}
    step: Json = {"did": then, "within": "1h"}
    mix: tuple[Json, ...] = (
        {**count, "at_least": 3, "within": "30d"},
        {**count, "at_least": 2},
        {"all": [count, {"not": {**count, "at_least": 2, "within": "14d"}}]},
        {"sum": "price", **aggregate, "within": "90d", "gte": 500},
        {"distinct": "product_id", **aggregate, "within": "30d", "gte": 3},
        {"sequence": [count, step], "within": "30d"},
        {"sequence": [count, {"not": {"did": then}, "within": "1h"}], "within": "7d"},
        {"any": [{"trait": trait, "in": ["pro", "team"], "held_for": "7d"}, {**count, "at_least": 5, "within": "7d"}]},
        {"last": list(events), "where": {"price": {"gte": least}}, "before": "30d"},
        {"most_frequent": "category", **aggregate, "eq": "shoes"},
    )
    return mix[number % len(mix)]


def untouched(count: int) -> list[Json]:
    """Return rules that read events and traits that the sample messages never contain."""
    return [
        typical(number, [f"Event {number}", f"Event {number}b"], f"Event {number}c", f"trait_{number}", 1)
        for number in range(count)
    ]


def touched(count: int, events: Sequence[str] = SHOP) -> list[Json]:
    """Return rules that every sample message affects."""
    return [typical(number, events, events[-1], "plan", number / 1000) for number in range(count)]


def shop(count: int) -> list[Json]:
    """Return rules of a shop. Each reads one or two of the shop's events."""
    return [
        typical(number, sorted({SHOP[number % 6], SHOP[number // 10 % 6]}), SHOP[(number + 1) % 6], "plan", number / 10)
        for number in range(count)
    ]


def compile_segments(rules: Sequence[Json]) -> Ruleset:
    """Compile one segment for each rule."""
    definitions = [
        Definition("segment", f"s-{number}", 1, f"s-{number}", rule=parse_rule(rule))
        for number, rule in enumerate(rules)
    ]
    return compile_ruleset(definitions, revision=1, timezone="Europe/Lisbon", default_journey="six-stage")


# ------------------------------------------------------------------------------------------------ expensive rules


def expensive() -> dict[str, Json]:
    """Return valid rules of almost 500 nodes that scan every point of each leaf.

    The key is the reason for their cost.
    """
    return {
        "windows of months": _all({"did": "*", "where": _distinct(n), "within": "13mo"} for n in range(LEAVES_MAX)),
        "periods of the calendar": _all(
            {"did": "*", "where": _distinct(n), "during": "last_year", "timezone": "America/St_Johns", "at_most": 10**6}
            for n in range(LEAVES_MAX)
        ),
        "most frequent of months": _all(
            {"most_frequent": "product_id", "of": "*", "where": _distinct(n), "within": "13mo", "exists": True}
            for n in range(LEAVES_MAX)
        ),
        "exact averages of months": _all(
            {"avg": "price", "of": "*", "where": _distinct(n), "within": "13mo", "gt": 0} for n in range(LEAVES_MAX)
        ),
        "sixty months": _all(
            {"regularly": "*", "where": _distinct(n), "at_least": 1, "of_last": 60, "period": "month"}
            for n in range(LEAVES_MAX)
        ),
        "sequences of ten": _all(
            {
                "sequence": [{"did": "*", "where": _distinct(n)}, *[{"did": "*", "within": "3mo"}] * 9],
                "same": ["category"],
                "within": "13mo",
            }
            for n in range(10)
        ),
        "anniversaries": _all(
            {
                "did": "*",
                "where": {"birthday": {"anniversary_within": "1mo"}, **_distinct(n)},
                "within": "13mo",
                "at_most": n,
            }
            for n in range(5)
        ),
        "operands for each point": _all(
            {
                "did": "*",
                "where": {"price": {"lte": {"max": "price", "of": "*", "where": _distinct(n), "within": "13mo"}}},
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


def _distinct(number: int) -> Json:
    """Return a filter that matches every point.

    It is different for each ``number``, so that rules do not share a leaf.
    """
    return {"price": {"gte": -number}}


def _nested(levels: int) -> Json:
    if not levels:
        return {"price": {"gte": 0}}
    inner = {"max": "price", "of": "*", "where": _nested(levels - 1), "within": "13mo"}
    return {"price": {"lte": inner}}
