"""Random rules, histories and clocks, drawn from few values so that they meet each other often."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from tests.rules.oracle import Happened, World, microseconds

HOUR = 3_600_000_000
START = 875_664_000_000_000  # 1997-10-01T00:00:00Z
NAMES = ["A", "B", "C"]
CHANNELS = ["web", "email"]
SOURCES = ["site", "crm"]
ZONES = ["UTC", "Europe/Lisbon", "America/New_York", "America/Sao_Paulo", "Asia/Kolkata", "Pacific/Kiritimati"]
DAYS = ["1997-09-29", "1997-09-30", "1997-10-01", "1997-10-02", "1997-10-06"]
INSTANTS = ["1997-09-30T12:00:00Z", "1997-10-01T00:00:00+02:00", "1997-10-01T05:00:00.000001Z", "1997-10-07T00:00:00Z"]
PATHS = ["a", "a.b", "c.d", "context.page.path", "context.a", "traits.plan", "traits.a.b"]
NUMBERS = [0, 1, 2, 10, Decimal("1.0"), Decimal("1.5"), Decimal("2E1"), 2**53 + 1, -1]
TEXTS = ["1", "10", "1.0", "1e1", "-0", "x", "X", "xy", "Straße", "STRASSE", "1e500", "0x1", " 1", "01", "nan", "é"]
SCALARS: list[Any] = [*NUMBERS, *TEXTS, True, False]

scalars = st.sampled_from(SCALARS)
values = st.one_of(
    scalars,
    scalars,
    st.none(),
    st.lists(scalars, max_size=3),
    st.fixed_dictionaries({}, optional={"b": scalars, "d": scalars}),
)
documents = st.fixed_dictionaries(
    {},
    optional={
        "a": values,
        "a.b": values,
        "c": values,
        "page": st.fixed_dictionaries({"path": values}),
        "plan": values,
    },
)


def written(document: Any) -> str:
    """JSON text with exact numbers."""
    if isinstance(document, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{written(value)}" for key, value in document.items()) + "}"
    if isinstance(document, list):
        return "[" + ",".join(map(written, document)) + "]"
    return str(document) if isinstance(document, Decimal) else json.dumps(document)


instants = st.one_of(
    st.integers(-72, 72).map(lambda hours: START + hours * HOUR),
    st.integers(-72 * HOUR, 72 * HOUR).map(lambda offset: START + offset),
    st.integers(-4, 4).map(lambda offset: START + offset),
)
happened = st.builds(
    Happened,
    t=instants,
    id=st.uuids().map(str),
    name=st.sampled_from([*NAMES, "other"]),
    channel=st.sampled_from([*CHANNELS, "app"]),
    source=st.sampled_from([*SOURCES, "else"]),
    properties=documents.map(written),
    context=documents.map(written),
    traits=documents.map(written),
)
histories = st.lists(happened, max_size=12).map(lambda items: sorted(items, key=lambda item: (item.t, item.id)))


def some_of(words: list[str]) -> st.SearchStrategy[Any]:
    return st.one_of(st.sampled_from(words), st.lists(st.sampled_from(words), min_size=1, max_size=2, unique=True))


numbers_or_texts = st.one_of(st.sampled_from(NUMBERS), st.sampled_from(TEXTS))
comparisons = st.one_of(
    st.builds(lambda op, value: {op: value}, st.sampled_from(["eq", "ne"]), scalars),
    st.builds(lambda op, value: {op: value}, st.sampled_from(["gt", "gte", "lt", "lte"]), numbers_or_texts),
    st.builds(lambda low, high: {"gt": low, "lte": high}, st.sampled_from([-1, 0, 1]), st.sampled_from([2, "10", 20])),
    st.builds(lambda low, high: {"between": [low, high]}, st.sampled_from([-1, "1"]), st.sampled_from([1, "10", 20])),
    st.builds(
        lambda op, items: {op: items},
        st.sampled_from(["in", "not_in"]),
        st.lists(scalars, min_size=1, max_size=3, unique_by=lambda item: (type(item) is bool, item)),
    ),
    st.builds(lambda op, value: {op: value}, st.sampled_from(["contains", "not_contains"]), scalars),
    st.builds(lambda op, value: {op: value}, st.sampled_from(["starts_with", "ends_with"]), st.sampled_from(TEXTS)),
    st.builds(lambda flag: {"exists": flag}, st.booleans()),
    st.builds(
        lambda op, value: {op: value, "ignore_case": True},
        st.sampled_from(["eq", "ne", "contains", "not_contains", "starts_with", "ends_with"]),
        st.sampled_from(["x", "X", "strasse", "STRASSE"]),
    ),
    st.just({"in": ["X", "strasse", 1], "ignore_case": True}),
    st.just({"gte": "X", "lt": "Z", "ignore_case": True}),
    st.just({"exists": True, "ne": "x", "not_contains": 1}),
)
where = st.dictionaries(st.sampled_from(PATHS), st.one_of(scalars, comparisons), min_size=1, max_size=2)
counts = st.one_of(
    st.just({}),
    st.integers(1, 3).map(lambda n: {"at_least": n}),
    st.integers(0, 3).map(lambda n: {"at_most": n}),
    st.integers(0, 3).map(lambda n: {"exactly": n}),
    st.tuples(st.integers(0, 3), st.integers(0, 2)).map(lambda pair: {"between": [pair[0], pair[0] + pair[1]]}),
)
SHORT = ["1ms", "30s", "5m", "1h", "3h", "1d"]
LONG = ["2h", "5h", "2d", "1w"]
rolling = st.one_of(
    st.just({}),
    st.sampled_from(SHORT + LONG).map(lambda length: {"within": length}),
    st.sampled_from(SHORT + LONG).map(lambda length: {"before": length}),
    st.tuples(st.sampled_from(SHORT), st.sampled_from(LONG))
    .filter(lambda pair: microseconds(pair[0]) < microseconds(pair[1]))
    .map(lambda pair: {"before": pair[0], "within": pair[1]}),
)


@st.composite
def fixed(draw: st.DrawFn) -> dict[str, str]:
    """from and to: dates alone (floating, or in a zone), instants alone, or a mixture that is never empty."""
    kind = draw(st.sampled_from(["days", "zoned", "instants", "mixed"]))
    if kind == "mixed":
        return draw(st.sampled_from([{"from": DAYS[0], "to": INSTANTS[3]}, {"from": INSTANTS[0], "to": DAYS[4]}]))
    bounds = INSTANTS if kind == "instants" else DAYS
    start, end = sorted(draw(st.lists(st.sampled_from(range(len(bounds))), min_size=2, max_size=2, unique=True)))
    window = {"from": bounds[start], "to": bounds[end]}
    if draw(st.booleans()):
        del window[draw(st.sampled_from(["from", "to"]))]
    return window | ({"timezone": draw(st.sampled_from(ZONES))} if kind == "zoned" else {})


@st.composite
def dids(draw: st.DrawFn) -> dict[str, Any]:
    node: dict[str, Any] = {"did": draw(st.one_of(st.just("*"), some_of(NAMES)))}
    if draw(st.integers(0, 3)) == 0:
        node["where"] = draw(where)
    if draw(st.integers(0, 5)) == 0:
        node["channel"] = draw(some_of(CHANNELS))
    if draw(st.integers(0, 5)) == 0:
        node["source"] = draw(some_of(SOURCES))
    node |= draw(counts)
    if draw(st.integers(0, 3)):
        return node | draw(rolling)
    window = draw(fixed())
    floats = "timezone" not in window and any(len(bound) == 10 for bound in window.values())
    return node | window | ({} if floats else draw(rolling))


traits_read = st.builds(lambda name, asked: {"trait": name, **asked}, st.sampled_from(["a", "a.b", "c.d"]), comparisons)


def rules(references: bool) -> st.SearchStrategy[Any]:
    leaves = [dids(), dids(), dids(), traits_read, st.just({"everyone": True})]
    if references:
        leaves += [
            st.sampled_from([{"segment": "one"}, {"segment": "two"}]),
            some_of(["s1", "s2", "s3"]).map(lambda stage: {"stage": stage, "journey": "main"}),
            some_of(["s1", "s2", "s3"]).map(lambda stage: {"stage": stage}),
        ]
    return st.recursive(
        st.one_of(leaves),
        lambda inner: st.one_of(
            inner.map(lambda rule: {"not": rule}),
            st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"all": parts}),
            st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"any": parts}),
        ),
        max_leaves=5,
    )


@st.composite
def worlds(draw: st.DrawFn) -> World:
    one = draw(rules(references=False))
    zone = draw(st.sampled_from([None, 5, "", "Mars/Base", "../etc", *ZONES]))
    traits = draw(documents) | ({} if zone is None else {"timezone": zone})
    return World(
        traits={name: value for name, value in traits.items() if value is not None},
        segments={"one": one, "two": {"any": [{"not": {"segment": "one"}}, draw(dids())]}},
        journeys={"main": [("s1", draw(dids())), ("s2", {"segment": "two"}), ("s3", draw(rules(references=False)))]},
        timezone=draw(st.sampled_from(ZONES)),
    )
