"""Tests of rulesets: shared leaves, dependencies, references, cycles, explanations, series."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest

from app.errors import InvalidDefinition
from app.rules.engine.ruleset import compile_ruleset
from app.rules.engine.series import Retention, Series
from app.rules.engine.touchpoint_view import TouchpointView
from app.rules.values import durations
from tests.support.reference_rules import UNIT, TrackEntry
from tests.support.rule_engine import compiled, fold, journey, segment

DAY = UNIT["d"]


def touchpoint_entry(t: int, name: str = "A", **properties: Any) -> TrackEntry:
    return TrackEntry(t, f"m{t}", name, "web", "site", json.dumps(properties), "{}", "{}")


def test_equivalent_filters_share_a_leaf() -> None:
    rules = compiled(
        segment("a", {"did": ["A", "B"], "where": {"p": 1}, "within": "3d", "at_least": 4}),
        segment("b", {"not": {"did": ["B", "A"], "where": {"p": {"eq": 1.0}}, "within": "9d"}}),
        segment("c", {"did": ["B", "A"], "where": {"p": {"eq": 1}}, "before": "9d", "at_most": 2}),
        segment("d", {"did": ["B", "A"], "where": {"p": {"eq": "1"}}}),
    )
    shared, other = rules.leaves.values()
    assert shared.retention == Retention(latest=5, earliest=3, window=None, edges=())
    assert other.retention == Retention(latest=0, earliest=0, window=None, edges=())
    assert rules.rules_reading([shared.id], ()) == ("segment:a", "segment:b", "segment:c")
    assert len(shared.id) == 12


def test_leaf_id_is_stable() -> None:
    (leaf,) = compiled(segment("a", {"did": "Order Completed", "within": "90d"})).leaves
    assert leaf == "091c023b663b", "stored series use this id; a different id would orphan them"


def test_tracked_sequence_leaf_id_is_stable() -> None:
    steps = [
        {"did": "A"},
        {"did": "B", "within": "1h", "after_at_least": "5m"},
        {"not": {"did": "C"}, "within": "2d"},
    ]
    (leaf,) = compiled(segment("a", {"sequence": steps, "same": ["x"]})).leaves
    assert leaf == "66ae88344cd3", "the id contains the gaps; a different form would orphan stored series"


def test_match_leaves_by_event_name_and_for_any_event() -> None:
    rules = compiled(
        segment("a", {"did": "A"}),
        segment("any", {"did": "*", "channel": "web"}),
        segment("b", {"did": "B", "where": {"p": {"exists": True}}}),
    )

    def rules_reading(name: str, channel: str = "web", properties: bytes = b"{}") -> set[str]:
        return set(rules.rules_reading(rules.match_leaves(TouchpointView(name, channel, "s", 0, properties)), ()))

    assert rules_reading("A") == {"segment:a", "segment:any"}
    assert rules_reading("A", "app") == {"segment:a"}
    assert rules_reading("B") == {"segment:any"}
    assert rules_reading("B", properties=b'{"p": 0}') == {"segment:b", "segment:any"}
    assert rules_reading("C", "app") == set()


def test_dependencies_include_segments_and_stages() -> None:
    rules = compiled(
        segment("base", {"all": [{"did": "A"}, {"trait": "plan.name", "eq": "pro"}]}),
        segment("over", {"not": {"segment": "base"}}),
        journey("main", [("one", {"segment": "over"}), ("two", {"did": "B"})]),
        segment("at", {"stage": "one"}),
        segment("dates", {"did": "A", "from": "2024-01-01"}),
    )
    everything = ("segment:base", "segment:over", "stage:main:one", "segment:at")
    leaf = rules.match_leaves(TouchpointView("A", "web", "s", 1_704_200_000_000_000))
    assert set(rules.rules_reading(leaf, ())) == {*everything, "segment:dates"}
    assert rules.rules_reading((), ("plan",)) == everything
    assert rules.rules_reading((), ("plan.name",)) == everything
    assert rules.rules_reading((), ("timezone",)) == ("segment:dates",)
    assert rules.reads_trait("plan")
    assert not rules.reads_trait("name")
    assert rules.initial == {
        "segment:base": False,
        "segment:over": True,
        "stage:main:one": True,
        "stage:main:two": False,
        "segment:at": True,
        "segment:dates": False,
    }
    assert rules.stages_of == {"main": (("one", "stage:main:one"), ("two", "stage:main:two"))}


@pytest.mark.parametrize(
    ("definitions", "path", "expected_text"),
    [
        ([segment("a", {"all": [{"segment": "b"}]})], "/rule/all/0/segment", "segment `b`"),
        ([segment("a", {"segment": "a"})], "/rule", "segment:a > segment:a"),
        ([segment("a", {"segment": "b"}), segment("b", {"not": {"segment": "a"}})], "/rule/not", "b > segment:a"),
        ([segment("a", {"stage": "s"})], "/rule/stage", "journey `main`"),
        ([segment("a", {"stage": "s", "journey": "j"})], "/rule/journey", "journey `j`"),
        ([segment("a", {"stage": ["x"]}), journey("main", [("s", {"did": "A"})])], "/rule/stage", "no stage `x`"),
        ([journey("main", [("s", {"not": {"stage": "s"}})])], "/stages/0/rule/not", "cycle"),
        (
            [journey("main", [("s", {"did": "A"}), ("t", {"segment": "a"})]), segment("a", {"stage": "s"})],
            "/rule",
            "cycle",
        ),
        ([segment("a", {"did": "A"}), segment("a", {"did": "B"})], "/key", "`segment:a` is defined twice"),
        (
            [journey("main", [("s", {"did": "A"}), ("s", {"did": "B"})])],
            "/stages/1/key",
            "`stage:main:s` is defined twice",
        ),
    ],
)
def test_inconsistent_definitions_are_refused(definitions: Any, path: str, expected_text: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        compiled(*definitions)
    assert caught.value.path == path
    assert expected_text in caught.value.message


def test_long_segment_chain_is_refused_and_shared_segments_are_fast() -> None:
    chain = [segment("s0", {"did": "A"}), *(segment(f"s{n}", {"segment": f"s{n - 1}"}) for n in range(1, 2000))]
    with pytest.raises(InvalidDefinition, match="deeper than 150"):
        compiled(*chain)
    shared_segments = [
        segment("s0", {"did": "A", "within": "1d"}),
        *(segment(f"s{n}", {"all": [{"segment": f"s{n - 1}"}, {"segment": f"s{n - 1}"}]}) for n in range(1, 40)),
    ]
    rules = compiled(*shared_segments)
    facts = fold(rules, [touchpoint_entry(5)], 5, {}, 8)
    assert rules.holds("segment:s39", facts, 5)
    assert rules.next_change_at("segment:s39", facts, 5) == 5 + DAY
    assert len(json.dumps(rules.explain_rule("segment:s39", facts, 5, None))) < 100_000


def test_unknown_workspace_timezone_is_refused() -> None:
    with pytest.raises(InvalidDefinition, match="Mars"):
        compile_ruleset([], revision=1, timezone="Mars/Base", default_journey="main")


def test_explanation_lists_touchpoints_and_validity() -> None:
    rules = compiled(
        segment("s", {"all": [{"did": "A", "at_least": 2, "within": "2d"}, {"trait": "plan", "eq": "pro"}]}),
        journey("main", [("one", {"segment": "s"})]),
        segment("at", {"stage": "one"}),
    )
    history = [touchpoint_entry(0), touchpoint_entry(DAY), touchpoint_entry(2 * DAY)]
    facts = fold(rules, history, 2 * DAY, {"plan": "pro"}, 10**9, unlimited=True)
    explanation = rules.explain_rule("segment:at", facts, 2 * DAY, lambda _: [(item.t, item.id) for item in history])
    assert explanation["truth"] is True
    assert explanation["current"] == "one"
    assert explanation["valid_until"] == 3 * DAY
    stage = explanation["nodes"][0]
    assert stage["definition"] == "stage:main:one"
    did, trait = stage["nodes"][0]["nodes"]
    assert did["rule"] == {"did": "A", "at_least": 2, "within": "2d"}
    assert (did["counted"], did["needed"], did["touchpoints"]) == (2, {"at_least": 2}, [f"m{DAY}", f"m{2 * DAY}"])
    assert (trait["value"], trait["valid_until"]) == ("pro", None)


def test_series_keeps_only_required_instants() -> None:
    series = Series()
    for t in range(100):
        series.add(t, Retention(latest=3, earliest=2, window=None, edges=()), 256)
    assert (series.count, series.latest, series.earliest, series.overflowed) == (100, [97, 98, 99], [0, 1], False)
    rolling = Series()
    for t in range(100):
        rolling.add(t, Retention(latest=1, earliest=0, window=5, edges=()), 256)
    assert rolling.latest == [95, 96, 97, 98, 99]
    rolling.add(1_000, Retention(latest=1, earliest=0, window=5, edges=()), 256)
    assert rolling.latest == [1_000]


def test_series_above_limit_is_overflowed() -> None:
    retention = Retention(latest=3, earliest=3, window=None, edges=((500, 600),))
    series = Series()
    for t in (1, 2):
        series.add(t, retention, 2)
    assert not series.overflowed
    series.add(3, retention, 2)
    assert (series.overflowed, series.latest, series.earliest) == (True, [2, 3], [1, 2])
    edges = Series()
    for t in (500, 501, 502):
        edges.add(t, retention, 2)
    assert (edges.overflowed, edges.edges, edges.count) == (True, [500, 501], 0)


@pytest.mark.parametrize(
    ("day", "zone", "instant"),
    [
        ("2024-01-01", "UTC", "2024-01-01T00:00:00Z"),
        ("2024-01-01", "Asia/Kolkata", "2023-12-31T18:30:00Z"),
        (
            "2018-11-04",
            "America/Sao_Paulo",
            "2018-11-04T03:00:00Z",
        ),  # The clock skipped 00:00, so the day began at 01:00.
        ("2011-12-30", "Pacific/Apia", "2011-12-30T10:00:00Z"),  # The zone skipped the whole day.
        ("2011-12-31", "Pacific/Apia", "2011-12-30T10:00:00Z"),
        ("2023-11-05", "America/Havana", "2023-11-05T04:00:00Z"),  # 00:00 occurred twice; the first counts.
        ("1919-03-31", "America/Toronto", "1919-03-31T04:30:00Z"),  # The clock moved from 23:30 to 00:30.
    ],
)
def test_first_instant_of_day(day: str, zone: str, instant: str) -> None:
    assert durations.first_instant_of_day(date.fromisoformat(day), zone) == durations.parse_moment(instant)
    distance = durations.first_instant_of_day(date.fromisoformat(day), zone) - durations.utc_midnight_of(
        date.fromisoformat(day)
    )
    assert abs(distance) < durations.ZONE_SHIFT_MAX


@pytest.mark.parametrize("text", ["2024-01-01T02:00:00.1234567+02:00", "2024-01-01t00:00:00.123456z"])
def test_instant_is_cut_to_microseconds(text: str) -> None:
    assert durations.parse_moment(text) == 1_704_067_200_123_456


def test_journey_in_backfill_has_its_own_stages() -> None:
    """The second stage has the same meaning in both versions, so both journeys share one rule for it."""
    old = journey("main", [("seen", {"did": "A"}), ("bought", {"did": "B"})])
    new = journey("main", [("seen", {"did": "C"}), ("bought", {"did": "B"})])
    rules = compile_ruleset([old], revision=1, timezone="UTC", default_journey="main", candidates=[new], fill=7)
    assert rules.stages_of.keys() == {"main", "main@7"}
    assert rules.journeys_of["stage:main:bought"] == {"main", "main@7"}
    assert rules.journeys_of["stage:main:seen@7"] == {"main@7"}
