"""The reference evaluator: cases worked out by hand, and a check that it tries every instant of change."""

from __future__ import annotations

from datetime import date
from fractions import Fraction
from random import Random
from typing import Any

import pytest

from tests.support import reference_rules
from tests.support.reference_rules import Evaluator, TrackEntry, TraitsEntry, World
from tests.support.rule_strategies import DAY, HOUR, START, clocks, questions, written

NOTHING = World()


def did(t: int, **properties: Any) -> TrackEntry:
    return TrackEntry(START + t, f"m{t}", "A", "web", "site", written(properties), "{}", "{}")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ({"sum": "v", "of": "A"}, Fraction(9, 2)),
        ({"avg": "v", "of": "A"}, Fraction(3, 2)),
        ({"min": "v", "of": "A"}, Fraction(1)),
        ({"max": "v", "of": "A"}, Fraction(5, 2)),
        ({"distinct": "v", "of": "A"}, 4),
        ({"first_value": "v", "of": "A"}, 1),
        ({"last_value": "v", "of": "A"}, "x"),
        ({"most_frequent": "w", "of": "A"}, "b"),
        ({"count": "A"}, 6),
        ({"last_at": "A", "before": "1h"}, "1997-10-01T00:00:00.000004Z"),
        ({"sum": "v", "of": "B"}, 0),
        ({"avg": "v", "of": "B"}, None),
    ],
)
def test_values(expression: Any, expected: Any) -> None:
    """The property v is 1, "1", 2.5, missing, null and "x", which are three numbers.

    The values a and b of w are equally frequent; b wins because it occurs later.
    """
    properties: list[dict[str, Any]] = [
        {"v": 1, "w": "a"},
        {"v": "1", "w": "b"},
        {"v": 2.5, "w": "a"},
        {"w": "b"},
        {"v": None},
        {"v": "x"},
    ]
    history = [did(n, **one) for n, one in enumerate(properties)]
    result = reference_rules.value(expression, history, START + HOUR + 4, NOTHING)
    assert reference_rules.same_key(result) == reference_rules.same_key(expected)


@pytest.mark.parametrize(
    ("day", "zone", "instant"),
    [
        ("2018-11-04", "America/Sao_Paulo", "2018-11-04T03:00:00Z"),  # 00:00 was skipped
        ("2011-12-30", "Pacific/Apia", "2011-12-30T10:00:00Z"),  # the whole day was skipped
        ("2011-12-31", "Pacific/Apia", "2011-12-30T10:00:00Z"),
        ("2023-11-05", "America/Havana", "2023-11-05T04:00:00Z"),  # 00:00 occurred twice; the first counts
        ("1987-10-25", "America/St_Johns", "1987-10-25T02:30:00Z"),  # the clock went back from 00:01 to 23:01
    ],
)
def test_first_instant_of_a_day(day: str, zone: str, instant: str) -> None:
    assert reference_rules.first_instant(date.fromisoformat(day), zone) == reference_rules.rfc3339(instant)


@pytest.mark.parametrize(
    ("instant", "length", "zone", "expected"),
    [
        ("1997-01-31T12:00:00Z", "1mo", "UTC", "1997-02-28T12:00:00Z"),
        ("1996-02-29T12:00:00Z", "1y", "UTC", "1997-02-28T12:00:00Z"),
        ("1997-02-28T01:30:00Z", "1mo", "UTC", "1997-03-28T01:30:00Z"),
        ("2024-02-10T07:30:00Z", "1mo", "America/New_York", "2024-03-10T07:30:00Z"),  # 02:30 was skipped, so 03:30
        # 01:30 occurred twice; the first counts.
        ("2024-10-03T05:30:00Z", "1mo", "America/New_York", "2024-11-03T05:30:00Z"),
    ],
)
def test_add_months(instant: str, length: str, zone: str, expected: str) -> None:
    assert reference_rules.add(reference_rules.rfc3339(instant), length, zone) == reference_rules.rfc3339(expected)


def test_nothing_holds_before_the_first_message() -> None:
    history = [TraitsEntry(START, "m", "site", {})]
    assert not reference_rules.holds({"everyone": True}, history, START - 1, NOTHING)
    assert reference_rules.holds({"not": {"did": "*"}}, history, START, NOTHING)
    assert reference_rules.since({"everyone": True}, history, START + DAY, NOTHING) == START


def test_later_messages_are_ignored() -> None:
    history = [did(0), did(HOUR)]
    assert reference_rules.next_change({"did": "A", "within": "2h"}, history, START, NOTHING) == START + 2 * HOUR
    assert reference_rules.next_change({"did": "A", "within": "2h"}, history, START + HOUR, NOTHING) == START + 3 * HOUR


@pytest.mark.parametrize("seed", range(60))
def test_truth_does_not_change_between_tried_instants(seed: int) -> None:
    """Try random instants between them. The reference evaluator has missed an instant if the truth changes there."""
    rng = Random(seed)
    question = questions(rng, 2)
    for rule in question.rules:
        t = clocks(rng, rule, question)
        reading = Evaluator(question.history, t, question.world)
        change = reading.next_change(rule, t)
        for _ in range(20):
            u = t + rng.choice([1, HOUR // 60, HOUR, DAY, 30 * DAY]) * rng.randint(1, 30)
            if u < min(reading.horizon, change or reading.horizon):
                assert reading.holds(rule, u) == reading.holds(rule, t), (rule, u)
