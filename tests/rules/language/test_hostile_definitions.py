"""Mutation tests of the parser: thousands of invalid rules are refused, each with a path that exists and a remedy.

A corpus of valid rules contains every head and every key. Each mutation turns a valid rule into an invalid one, so the
parser must refuse every mutant.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from pydantic import TypeAdapter

from app.errors import InvalidDefinition
from app.rules.language.definitions import parse_rule
from app.rules.language.nodes import Rule
from app.rules.language.validation import HEADS, VALUE_HEADS

SEED = 19_971_001
Step = str | int
Location = tuple[Step, ...]
Case = tuple[Any, Location]
"""(document, location of the changed value in it)"""

FILTER: dict[str, Any] = {
    "where": {"total": {"gte": 50, "lt": {"trait": "budget"}}, "context.page.path": {"matches": "^/blog"}, "sku": 7},
    "channel": ["web", "app"],
    "source": "shop",
}
WINDOWS: list[dict[str, Any]] = [
    {"within": "90d", "before": "1d"},
    {"within": "3mo", "timezone": "Europe/Lisbon"},
    {"from": "1997-01-01", "to": "1997-10-01T00:00:00Z"},
    {"during": "last_month"},
    {"during": {"hours": [9, 17]}, "timezone": "UTC"},
]
CORPUS: list[Any] = [
    {"everyone": True},
    {"all": [{"did": "A"}, {"not": {"any": [{"did": "B"}, {"segment": "a"}]}}]},
    {"did": "*", **FILTER, "at_least": 2, "within": "7d"},
    {"did": ["A", "B"], "at_most": 3, "before": "1w"},
    {"did": "A", "exactly": 1, **WINDOWS[2]},
    {"did": "A", "between": [2, 4], **WINDOWS[4]},
    *({"first": "A", **window} for window in WINDOWS),
    {"last": ["A", "B"], **FILTER, **WINDOWS[0]},
    {"sum": "total", "of": "A", **FILTER, **WINDOWS[1], "gte": 500, "lt": {"avg": "total", "of": "B"}},
    {"avg": "total", "of": ["A", "B"], "between": [10, 20.5]},
    {"min": "rating", "of": "A", "lte": 2},
    {"max": "total", "of": "A", "within": "30d", "gt": {"trait": "budget"}},
    {"distinct": "touchpoint.channel", "of": "*", "gte": 3},
    {"first_value": "touchpoint.channel", "of": "*", "in": ["ads", "search"]},
    {"last_value": "renews_on", "of": "A", "within_next": "30d", "timezone": "UTC"},
    {"most_frequent": "category", "of": "A", "any_of": ["serum", "cream"], "ignore_case": True},
    {
        "sequence": [
            {"did": "A", "channel": "web"},
            {"did": ["B", "C"], "source": ["shop"], "within": "1h", "after_at_least": "5m"},
            {"not": {"did": "D", **FILTER}, "within": "1d"},
        ],
        "same": ["product_id", "touchpoint.name"],
        "within": "30d",
    },
    {
        "sequence": [{"did": "A"}, {"did": "B", "where": {"p": {"after": "1997-01-01"}}, "within": "1mo"}],
        "to": "1998-01-01",
    },
    {"regularly": "A", **FILTER, "at_least": 3, "of_last": 4, "period": "month", "timezone": "UTC"},
    {"regularly": ["A", "B"], "at_least": 1, "of_last": 2, "period": "week"},
    {"trait": "plan", "in": ["pro", "team"], "held_for": "30d"},
    {"trait": "plan", "held_for": "1d", "changed_within": "2mo", "timezone": "UTC"},
    {"trait": "plan", "not_contains": "x", "not_in": ["a", 1], "starts_with": "p", "ends_with": "o"},
    {"trait": "plan", "exists": True, "ne": {"trait": "other"}, "none_of": ["x", 2]},
    {"trait": "tags", "all_of": ["a", "b"], "contains": {"last_value": "tag", "of": "A"}},
    {"trait": "born", "anniversary_within": "7d", "timezone": "Europe/Lisbon"},
    {
        "trait": "seen",
        "within_last": "30d",
        "after": {"first_at": "A", **FILTER},
        "before_date": {"last_at": ["A", "B"]},
    },
    {"trait": "seen", "eq": {"min": "p", "of": "A"}, "gt": {"count": "A", **FILTER, **WINDOWS[0]}},
    {
        "trait": "seen",
        "lt": {"max": "p", "of": "A"},
        "gte": {"distinct": "p", "of": "A"},
        "lte": {"sum": "p", "of": "A"},
    },
    {"trait": "seen", "ne": {"first_value": "p", "of": "A"}, "contains": {"most_frequent": "p", "of": "A"}},
    {"segment": "repeat-buyers", "for_at_least": "30d", "entered_within": "6mo", "timezone": "UTC"},
    {"segment": "repeat-buyers", "ever": True},
    {"stage": ["purchase", "loyalty"], "journey": "six-stage", "entered_within": "7d"},
    {"stage": "purchase", "for_at_least": "1mo", "timezone": "UTC"},
    {"bucket": [0, 50], "salt": "welcome"},
]


# ------------------------------------------------------------------------------------ walking and changing documents


def walk_values(document: Any, at: Location = ()) -> Iterator[tuple[Location, Any]]:
    yield at, document
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in inner:
        yield from walk_values(value, (*at, key))


def apply_at(document: Any, at: Location, change: Callable[..., Any]) -> Any:
    """Return a copy of the document with the value at the location changed."""
    if not at:
        return change(deepcopy(document))
    copy = deepcopy(document)
    parent = copy
    for step in at[:-1]:
        parent = parent[step]
    parent[at[-1]] = change(parent[at[-1]])
    return copy


def replace_value(document: Any, at: Location, value: Any) -> Case:
    return apply_at(document, at, lambda _: value), at


def key_of(at: Location) -> str:
    """Return the key of the value at the location. For an item of a list, return the key of the list."""
    return next((step for step in reversed(at) if isinstance(step, str)), "")


def is_where_map(at: Location) -> bool:
    """Return True for the object under ``where``, which is the only object with arbitrary keys."""
    return bool(at) and at[-1] == "where"


def walk_objects(document: Any) -> Iterator[tuple[Location, dict[str, Any]]]:
    """Yield the objects in which only keys of the language are valid."""
    yield from ((at, value) for at, value in walk_values(document) if isinstance(value, dict) and not is_where_map(at))


def is_value_expression(at: Location) -> bool:
    """Return True if an object at the location must be a value expression instead of a rule."""
    return bool(at) and at[-1] in OPERANDS


SCHEMA = TypeAdapter(Rule).json_schema()["$defs"]
KEYS = {name: set(model["properties"]) for name, model in SCHEMA.items() if "properties" in model}
COMPARISON = KEYS["Comparison"]
OPERANDS = ("eq", "ne", "gt", "gte", "lt", "lte", "contains", "not_contains", "after", "before_date")
LENGTHS = ("within", "before", "held_for", "changed_within", "for_at_least", "entered_within", "after_at_least")
DATE_LENGTHS = ("within_last", "within_next", "anniversary_within")
EVENTS = ("did", "first", "last", "of", "regularly", "count", "first_at", "last_at")
WORD_LISTS = (*EVENTS, "channel", "source", "stage", "in", "not_in", "any_of", "all_of", "none_of", "same")
AGGREGATES = ("sum", "avg", "min", "max", "distinct", "first_value", "last_value", "most_frequent")
INJECTION = "'; DROP TABLE customers; --"


def head_of(node: dict[str, Any]) -> str | None:
    return next((key for key in node if key in HEADS or key in VALUE_HEADS), None)


# ------------------------------------------------------------- mutations; every result is invalid


def replace_with_null(document: Any) -> Iterator[Case]:
    yield from (replace_value(document, at, None) for at, _ in walk_values(document))


def replace_with_non_json(document: Any) -> Iterator[Case]:
    for wrong in (b"A", {1, 2}, object(), 1j):
        yield from (replace_value(document, at, wrong) for at, _ in walk_values(document))


def insert_nul_or_surrogate(document: Any) -> Iterator[Case]:
    """Texts and keys must not contain NUL or a lone surrogate."""
    for at, value in walk_values(document):
        if isinstance(value, str):
            for wrong in ("\0", f"{value}\0", "\ud800", f"\udfff{value}"):
                yield replace_value(document, at, wrong)
        if isinstance(value, dict):
            for wrong in ("a\0", "\udc00"):
                yield apply_at(document, at, lambda node, key=wrong: node | {key: 1}), (*at, wrong)


def add_unknown_key(document: Any) -> Iterator[Case]:
    for at, _ in walk_objects(document):
        for key in ("zz", "__proto__", "$where", "a/b~c", INJECTION, "", "k" * 5_000):
            yield apply_at(document, at, lambda node, key=key: node | {key: 1}), (*at, key)


def misspell_key(document: Any) -> Iterator[Case]:
    """All keys are in lower case. None ends in a space, and none is a different key repeated."""
    for at, node in walk_objects(document):
        for key in node:
            for wrong in (key.upper(), f"{key} ", key + key, f"{key}_"):
                yield (
                    apply_at(document, at, lambda old, a=key, b=wrong: {b if k == a else k: v for k, v in old.items()}),
                    at,
                )


def add_foreign_modifier(document: Any) -> Iterator[Case]:
    """Add a key that is valid in other nodes but, according to the published schema, not in this node."""
    all_keys = set().union(*KEYS.values()) - set(HEADS) - set(VALUE_HEADS)
    for at, node in walk_objects(document):
        models = [name for name, keys in KEYS.items() if set(node) <= keys]
        allowed = set().union(*(KEYS[name] for name in models))
        for key in sorted(all_keys - allowed):
            yield apply_at(document, at, lambda old, key=key: old | {key: "1d"}), (*at, key)


def remove_required_key(document: Any) -> Iterator[Case]:
    """Remove the head or another required key."""
    for at, node in walk_objects(document):
        required = {"of", "of_last", "period", "hours", head_of(node) or ""}
        if "regularly" in node:
            required |= {"at_least"}
        if "not" in node and "within" in node:
            required |= {"within"}
        for key in required & set(node):
            yield apply_at(document, at, lambda old, key=key: {k: v for k, v in old.items() if k != key}), (*at, key)


def add_second_head(document: Any) -> Iterator[Case]:
    for at, node in walk_objects(document):
        head = head_of(node)
        for other in (*HEADS, *VALUE_HEADS):
            if head is not None and other not in node:
                yield apply_at(document, at, lambda old, key=other: old | {key: "A"}), (*at, other)


def replace_with_empty(document: Any) -> Iterator[Case]:
    """Lists and objects must not be empty."""
    for at, _ in walk_values(document):
        yield replace_value(document, at, [])
        yield replace_value(document, at, {})


def replace_with_wrong_object(document: Any) -> Iterator[Case]:
    for at, _ in walk_values(document):
        if not is_where_map(at):
            yield replace_value(document, at, {"x": {"y": 1}})
            yield replace_value(document, at, {"hour": [9, 17]})


def nest_in_lists(document: Any) -> Iterator[Case]:
    """Lists must not contain lists."""
    yield from (replace_value(document, at, [[value]]) for at, value in walk_values(document))


def replace_with_impossible_number(document: Any) -> Iterator[Case]:
    wrong = (float("inf"), float("nan"), Decimal("1E+400"), Decimal("-1E-500"), Decimal("sNaN"), 10**400, -(10**4_000))
    for at, value in walk_values(document):
        if not isinstance(value, dict | list):
            yield from (replace_value(document, at, number) for number in wrong)


def replace_text_with_number(document: Any) -> Iterator[Case]:
    textual = {*LENGTHS, *DATE_LENGTHS, *EVENTS, *AGGREGATES, "from", "to", "during", "timezone", "period", "same"}
    textual |= {
        "channel",
        "source",
        "trait",
        "segment",
        "stage",
        "journey",
        "salt",
        "matches",
        "starts_with",
        "ends_with",
    }
    for at, value in walk_values(document):
        if isinstance(value, str) and key_of(at) in textual:
            yield from (replace_value(document, at, wrong) for wrong in (0, -1, 10**30, 1.5, Decimal("1E+30"), True))


def replace_with_invalid_count(document: Any) -> Iterator[Case]:
    """Replace a count with a boolean, fraction, text or number out of range."""
    for at, value in walk_values(document):
        is_counted = key_of(at) in ("at_least", "at_most", "exactly", "of_last", "bucket", "hours")
        is_counted |= key_of(at) == "between" and "did" in next(
            node for location, node in walk_values(document) if location == at[:-2]
        )
        if is_counted and isinstance(value, int):
            yield from (
                replace_value(document, at, wrong)
                for wrong in (True, False, "2", 1.5, Decimal("2.5"), -1, 10**9, 10**300)
            )


def replace_with_unordered_operand(document: Any) -> Iterator[Case]:
    for at, value in walk_values(document):
        if key_of(at) in ("gt", "gte", "lt", "lte") and at[-1] == key_of(at) and not isinstance(value, dict):
            yield from (replace_value(document, at, wrong) for wrong in (True, False, [1], [value, value]))
        if at and at[-1] == "between":
            yield from (
                replace_value(document, at, wrong)
                for wrong in ([4, 2], [1], [1, 2, 3], 3, "1-3", [True, False], [0, "x"])
            )


def replace_with_invalid_length(document: Any) -> Iterator[Case]:
    wrong: tuple[str, ...] = (
        "",
        "0d",
        "-1d",
        "+1d",
        "1.5d",
        "1 d",
        " 1d",
        "1D",
        "d",
        "90",
        "01d",
        "1us",
        "1h30m",
        "P1D",
        "36526d",
        "1e3d",
    )
    wrong += ("1201mo", "101y", "9" * 400 + "d", "\u0661d", "1d\n", "infinity", "NaN", INJECTION)
    for at, _ in walk_values(document):
        if at and at[-1] in (*LENGTHS, *DATE_LENGTHS):
            yield from (replace_value(document, at, text) for text in wrong)


def replace_with_invalid_moment(document: Any) -> Iterator[Case]:
    wrong: tuple[str, ...] = (
        "",
        "yesterday",
        "now()",
        "infinity",
        "-infinity",
        "epoch",
        "1997-13-01",
        "1997-02-29",
        "19970101",
        "97-01-01",
    )
    wrong += (
        "1997-01-01T00:00:00",
        "1997-01-01 00:00:00Z",
        "1997-01-01T25:00:00Z",
        "1997-01-01T00:00:60Z",
        "0000-01-01",
    )
    wrong += ("1997-01-01T00:00:00+24:00", "9999-12-31", "\u0661997-01-01", "1997-01-01\n", INJECTION)
    for at, value in walk_values(document):
        if at and at[-1] in ("from", "to", "after", "before_date"):
            yield from (replace_value(document, at, text) for text in wrong)
        if isinstance(value, dict) and "during" in value:
            yield from (
                replace_value(document, (*at, "during"), text) for text in (*wrong[2:], "TODAY", "week", "tomorrow")
            )


def replace_with_invalid_timezone(document: Any) -> Iterator[Case]:
    wrong: tuple[str, ...] = (
        "",
        "Mars/Base",
        "lisbon",
        "europe/lisbon",
        "GMT+25",
        "+01:00",
        "../../etc/passwd",
        "/etc/localtime",
        INJECTION,
    )
    for at, _ in walk_values(document):
        if at and at[-1] == "timezone":
            yield from (replace_value(document, at, text) for text in wrong)


def replace_with_invalid_key(document: Any) -> Iterator[Case]:
    """Keys and channels allow only some characters, so injected SQL or HTML is refused."""
    for at, value in walk_values(document):
        if isinstance(value, str) and key_of(at) in ("segment", "stage", "journey", "channel"):
            wrong = (INJECTION, "", "A B", "É", "-", "a--b", "a/b", "*", "x" * 256, "a\n", "a'", "<script>")
            yield from (replace_value(document, at, text) for text in wrong)


def repeat_list_item(document: Any) -> Iterator[Case]:
    for at, value in walk_values(document):
        if isinstance(value, list) and at and at[-1] in WORD_LISTS:
            yield replace_value(document, at, [*value, value[0]])


def set_contradictory_window(document: Any) -> Iterator[Case]:
    pairs: tuple[dict[str, Any], ...] = (
        {"within": "1d", "before": "24h"},
        {"within": "2h", "before": "1w"},
        {"within": "1mo", "before": "2mo"},
        {"within": "11mo", "before": "1y"},
        {"from": "1997-01-02", "to": "1997-01-01"},
        {"from": "1997-01-01", "to": "1997-01-01"},
        {"from": "1997-01-01T00:00:00Z", "to": "1996-12-31T23:59:59.999999Z"},
        {"from": "1900-01-01", "to": "2199-01-01"},
        {"during": "yesterday", "before": "1w"},
    )
    for at, node in walk_objects(document):
        if any("within" in KEYS[name] and "before" in KEYS[name] and set(node) <= KEYS[name] for name in KEYS):
            bare = {key: part for key, part in node.items() if key not in ("within", "before", "from", "to", "during")}
            yield from ((apply_at(document, at, lambda _, b=bare, p=pair: b | p), at) for pair in pairs)


def add_timezone_without_effect(document: Any) -> Iterator[Case]:
    """Add a timezone to a node whose lengths are all exact, because a timezone has no effect there."""
    for at, node in walk_objects(document):
        head = head_of(node)
        if head in (*EVENTS, *AGGREGATES, "segment", "stage") and head != "of" and "sequence" not in at:
            modifiers = {
                key: part for key, part in node.items() if key in (head, "of", "channel", "eq", "gte", "at_most")
            }
            plain = {key: part for key, part in modifiers.items() if not isinstance(part, dict)}
            timed = {"for_at_least": "1d"} if head in ("segment", "stage") else {"within": "1d"}
            yield apply_at(document, at, lambda _, p=plain, t=timed: p | t | {"timezone": "UTC"}), at


def set_contradictory_durations(document: Any) -> Iterator[Case]:
    for at, node in walk_objects(document):
        for long, short in (("1w", "7d"), ("31d", "1h"), ("2y", "24mo"), ("1y", "30d")):
            if "segment" in node or "stage" in node:
                yield (
                    apply_at(document, at, lambda old, a=long, b=short: old | {"for_at_least": a, "entered_within": b}),
                    at,
                )
            if "trait" in node and not is_value_expression(at):
                times = {"held_for": long, "changed_within": short}
                yield apply_at(document, at, lambda old, t=times: {"trait": old["trait"]} | t), at
        if "ever" in node:
            yield apply_at(document, at, lambda old: old | {"for_at_least": "1d"}), at


def misplace_comparison(document: Any) -> Iterator[Case]:
    """An aggregate must have a comparison if it is a rule, and must not have one if it is a value expression."""
    for at, node in walk_objects(document):
        if head_of(node) in VALUE_HEADS and is_value_expression(at):
            for key in ("eq", "in", "exists", "within_last", "ignore_case"):
                yield apply_at(document, at, lambda old, key=key: old | {key: True}), at
        elif head_of(node) in AGGREGATES:
            yield apply_at(document, at, lambda old: {k: v for k, v in old.items() if k not in COMPARISON}), at


def set_conflicting_operators(document: Any) -> Iterator[Case]:
    pairs: tuple[dict[str, Any], ...] = (
        {"eq": 1, "gt": 0},
        {"eq": "a", "matches": "a"},
        {"in": [1, 2], "lt": 5},
        {"exists": False, "ne": 1},
        {"exists": True, "gte": 1},
        {"gt": 1, "gte": 2},
        {"gt": 2, "lt": 1},
        {"gt": "b", "lte": "b"},
        {"between": [1, 2], "lte": 3},
        {"ne": 1, "not_in": [2]},
        {"within_last": "1d", "within_next": "1d"},
        {"after": "1997-02-01", "before_date": "1997-01-01"},
        {"lt": 1, "ignore_case": True},
        {"within_last": "1d", "ignore_case": True},
        {"ignore_case": True},
        {"matches": "("},
        {"matches": "(?!a)"},
        {"matches": "a{1001}"},
        {"matches": "x" * 501},
        {"in": [{"trait": "x"}]},
        {"any_of": [{"count": "A"}, 1]},
        {"between": [{"trait": "x"}, {"trait": "y"}]},
        {"eq": {"trait": "x", "timezone": "UTC"}},
        {"eq": {"did": "A"}},
        {"eq": {"all": [{"did": "A"}]}},
        {"eq": {"sum": "p"}},
    )
    for at, node in walk_objects(document):
        is_compared = (len(at) > 1 and at[-2] == "where") or "trait" in node or head_of(node) in AGGREGATES
        if is_compared and not is_value_expression(at):
            bare = {
                key: part
                for key, part in node.items()
                if key not in COMPARISON and key not in ("held_for", "changed_within")
            }
            bare.pop("timezone", None)
            yield from ((apply_at(document, at, lambda _, b=bare, p=pair: b | p), at) for pair in pairs)


def add_invalid_condition(document: Any) -> Iterator[Case]:
    for at, value in walk_values(document):
        if is_where_map(at):
            for wrong in ([1], [], {}, {"trait": "x"}, {"sum": "p", "of": "A"}, {"first_at": "A"}, {"all": [value]}):
                yield apply_at(document, at, lambda old, w=wrong: old | {"zz": w}), (*at, "zz")
            for path in ("touchpoint.id", "touchpoint.", "", "p" * 501):
                yield apply_at(document, at, lambda old, p=path: old | {p: 1}), (*at, path)


def break_sequence(document: Any) -> Iterator[Case]:
    not_step = {"not": {"did": "N"}, "within": "1h"}
    for at, node in walk_objects(document):
        steps = node.get("sequence")
        if steps is None:
            continue
        wrong: list[Any] = [
            steps[:1],
            [not_step],
            [not_step, *steps],
            [*steps[:1], not_step, *steps[:1]],
            steps[:1] * 11,
        ]
        wrong += [[{**steps[0], "within": "1h"}, *steps[1:]], [*steps[:1], {"not": {"did": "N"}}]]
        wrong += [
            [*steps[:1], {"did": "B", "within": "1h", "after_at_least": "2h"}],
            [*steps[:1], {"all": [{"did": "B"}]}],
        ]
        wrong += [
            [*steps[:1], {"did": "B", "at_least": 2}],
            [*steps[:1], {"not": {"not": {"did": "N"}}, "within": "1h"}],
        ]
        yield from (replace_value(document, (*at, "sequence"), steps_json) for steps_json in wrong)
        yield apply_at(document, at, lambda old: old | {"same": ["a", "b", "c", "d", "e", "f"]}), at


def enlarge_list(document: Any) -> Iterator[Case]:
    """Exceed the maximum number of values in a rule."""
    for at, value in walk_values(document):
        if isinstance(value, list) and len(at) == 1:
            yield replace_value(document, at, value * 20_000)
            yield replace_value(document, at, [f"{item}" for item in range(20_000)])


MUTATIONS: tuple[Callable[[Any], Iterator[Case]], ...] = (
    replace_with_null,
    replace_with_non_json,
    insert_nul_or_surrogate,
    add_unknown_key,
    misspell_key,
    add_foreign_modifier,
    remove_required_key,
    add_second_head,
    replace_with_empty,
    replace_with_wrong_object,
    nest_in_lists,
    replace_with_impossible_number,
    replace_text_with_number,
    replace_with_invalid_count,
    replace_with_unordered_operand,
    replace_with_invalid_length,
    replace_with_invalid_moment,
    replace_with_invalid_timezone,
    replace_with_invalid_key,
    repeat_list_item,
    set_contradictory_window,
    add_timezone_without_effect,
    set_contradictory_durations,
    misplace_comparison,
    set_conflicting_operators,
    add_invalid_condition,
    break_sequence,
    enlarge_list,
)


def wrap_in_valid_rule(rng: Random, rule: Any, at: Location) -> Case:
    """Return the invalid rule alone or, often, nested in a valid rule."""
    match rng.randrange(5):
        case 0:
            return {"all": [{"did": "A"}, rule]}, ("all", 1, *at)
        case 1:
            return {"any": [rule, {"everyone": True}]}, ("any", 0, *at)
        case 2:
            return {"not": {"all": [rule]}}, ("not", "all", 0, *at)
    return rule, at


def make_mutants(change: Callable[[Any], Iterator[Case]], limit: int = 400) -> list[Case]:
    """Return different mutants of one mutation. If there are more than ``limit``, return a random sample."""
    rng = Random(f"{SEED} {change.__name__}")
    mutants = {repr(document): (document, at) for rule in CORPUS for document, at in change(rule)}
    chosen = rng.sample(list(mutants.values()), min(limit, len(mutants)))
    return [wrap_in_valid_rule(rng, document, at) for document, at in chosen]


# --------------------------------------------------------------------------------------------------- the tests


@pytest.mark.parametrize("rule", CORPUS, ids=str)
def test_corpus_rule_is_valid(rule: Any) -> None:
    parse_rule(rule)


def test_corpus_contains_every_key() -> None:
    corpus_keys = {key for rule in CORPUS for _, node in walk_values(rule) if isinstance(node, dict) for key in node}
    assert set().union(*KEYS.values()) - corpus_keys == set()
    assert set(HEADS) | set(VALUE_HEADS) <= corpus_keys


@pytest.mark.parametrize("change", MUTATIONS, ids=lambda change: change.__name__)
def test_mutated_rule_is_refused_with_existing_path(change: Callable[[Any], Iterator[Case]]) -> None:
    mutants = make_mutants(change)
    assert mutants
    for document, at in mutants:
        check_refused_with_path(document, at)


def check_refused_with_path(document: Any, at: Location) -> None:
    try:
        parse_rule(document)
    except InvalidDefinition as error:
        refusal = error
    else:
        pytest.fail(f"accepted: {str(document)[:1_000]}")
    details = f"{str(document)[:500]} -> {str(refusal)[:300]}"
    assert refusal.remedy.strip(), details
    assert refusal.path == "/rule" or refusal.path.startswith("/rule/"), details
    steps = refusal.path.split("/")[2:]
    assert path_exists(document, steps) or path_exists(document, steps[:-1]), details
    assert is_near(steps, at), f"{at}: {details}"
    json.dumps(refusal.to_problem()).encode()


def path_exists(document: Any, steps: list[str]) -> bool:
    for step in steps:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(document, list) and key.isdigit() and int(key) < len(document):
            document = document[int(key)]
        elif isinstance(document, dict) and key in document:
            document = document[key]
        else:
            return False
    return True


def is_near(steps: list[str], at: Location) -> bool:
    """Return True if the error's path leads to the changed location or to a sibling of one of its parents."""
    changed_at = [str(step).replace("~", "~0").replace("/", "~1") for step in at]
    common = min(len(steps), len(changed_at)) - 1
    return common < 0 or steps[:common] == changed_at[:common]


def test_mutations_make_thousands_of_different_rules() -> None:
    mutants = {repr(document) for change in MUTATIONS for document, _ in make_mutants(change)}
    assert len(mutants) >= 4_000


NESTING_NODES: tuple[Callable[[Any], Any], ...] = (
    lambda inner: {"not": inner},
    lambda inner: {"all": [inner]},
    lambda inner: {"any": [{"did": "A"}, inner]},
    lambda inner: {"did": "A", "where": {"p": inner}},
    lambda inner: {"did": "A", "where": inner},
    lambda inner: {"trait": "p", "gt": inner},
    lambda inner: {"count": "A", "where": {"p": {"gt": inner}}},
    lambda inner: {"sum": "p", "of": "A", "eq": inner},
    lambda inner: {"sequence": [{"did": "A"}, inner]},
    lambda inner: {"during": inner},
    lambda inner: {"did": inner},
    lambda inner: [inner],
    lambda inner: {"x": inner},
)


@pytest.mark.parametrize("root", [{"did": "A"}, 1, None, []], ids=str)
@pytest.mark.parametrize("node_number", range(len(NESTING_NODES)))
def test_deeply_nested_rule_is_refused(node_number: int, root: Any) -> None:
    rule = root
    for _ in range(100_000):
        rule = NESTING_NODES[node_number](rule)
    check_refused(rule)


def test_deeply_nested_mix_of_nodes_is_refused() -> None:
    rng = Random(SEED)
    for _ in range(20):
        rule: Any = {"did": "A"}
        for _ in range(5_000):
            rule = rng.choice(NESTING_NODES)(rule)
        check_refused(rule)


def check_refused(rule: Any) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        parse_rule(rule)
    assert caught.value.path.startswith("/rule")
    assert caught.value.remedy
