"""Default journeys and segments, on the histories that they describe."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.registry.default_definitions import JOURNEYS, SEGMENTS
from app.rules.engine.ruleset import compile_ruleset
from app.rules.language.definitions import parse_journey, parse_segment
from app.rules.language.references import Definition
from tests.support.reference_rules import UNIT, TrackEntry
from tests.support.rule_engine import fold

HOUR, DAY = UNIT["h"], UNIT["d"]
START = 1_700_000_000_000_000

DEFINITIONS = [
    *(
        Definition(
            "segment",
            definition.key,
            1,
            definition.name,
            definition.description,
            definition.owner,
            rule=definition.rule,
        )
        for definition in map(parse_segment, SEGMENTS)
    ),
    *(
        Definition(
            "journey",
            definition.key,
            1,
            definition.name,
            stages=tuple((stage.key, stage.name, stage.rule) for stage in definition.stages),
        )
        for definition in map(parse_journey, JOURNEYS)
    ),
]
RULES = compile_ruleset(DEFINITIONS, revision=1, timezone="UTC", default_journey="six-stage")


def at(t: int, name: str, channel: str = "web", /, **properties: Any) -> TrackEntry:
    return TrackEntry(t, f"m{t}", name, channel, "site", json.dumps(properties), "{}", "{}")


def stage(history: list[TrackEntry], t: int, journey: str = "six-stage") -> str | None:
    state = fold(RULES, history, t, {}, 256)
    return next((key for key, rule in reversed(RULES.stages_of[journey]) if RULES.holds(rule, state, t)), None)


def segments(history: list[TrackEntry], t: int) -> set[str]:
    state = fold(RULES, history, t, {}, 256)
    return {definition.key for definition in RULES.segments if RULES.holds(f"segment:{definition.key}", state, t)}


STORY = [
    (at(START, "Ad Viewed", "social", network="instagram"), "awareness"),
    (at(START + DAY, "page_viewed", category="blog", name="Five steps for dry skin"), "consideration"),
    (at(START + 2 * DAY, "Review Read", product="Serum"), "consideration"),
    (at(START + 3 * DAY, "Email Opened", "email", email_subject="A special offer for you"), "consideration"),
    (at(START + 3 * DAY + HOUR, "Product Added", product="Serum"), "decision"),
    (at(START + 4 * DAY, "Order Completed", total=49.9), "purchase"),
    (at(START + 5 * DAY, "Email Opened", "email", email_subject="Thank you, and tips for your serum"), "post-purchase"),
    (at(START + 9 * DAY, "Support Ticket Created", "support", topic="usage"), "post-purchase"),
    (at(START + 40 * DAY, "Order Completed", total=59.9), "loyalty"),
    (at(START + 50 * DAY, "Referral Sent", "email"), "loyalty"),
]


@pytest.mark.parametrize("count", range(1, len(STORY) + 1))
def test_six_stage_journey_of_a_skincare_customer(count: int) -> None:
    history = [item for item, _ in STORY[:count]]
    assert stage(history, history[-1].t) == STORY[count - 1][1]


def test_other_journeys_of_a_skincare_customer() -> None:
    def stages(journey: str) -> list[str | None]:
        return [stage([item for item, _ in STORY[: n + 1]], STORY[n][0].t, journey) for n in range(len(STORY))]

    assert stages("five-stage") == [
        "awareness",
        *["consideration"] * 4,
        "purchase",
        *["retention"] * 3,
        "advocacy",
    ]
    assert stages("content-4") == ["awareness", *["consideration"] * 3, "decision", *["retention"] * 5]


def test_customer_without_touchpoints_has_no_stage_or_segment() -> None:
    assert stage([], START) is None
    assert segments([], START) == set()
    assert not any(RULES.initial.values())


def test_new_visitors_lasts_seven_days() -> None:
    history = [at(START, "page_viewed"), at(START + 6 * DAY, "page_viewed")]
    assert "new-visitors" in segments(history, START + 7 * DAY - 1)
    assert "new-visitors" not in segments(history, START + 7 * DAY)


def test_cart_abandoners_begin_an_hour_without_an_order() -> None:
    cart = [at(START, "Product Added")]
    assert "cart-abandoners" not in segments(cart, START + HOUR - 1)
    assert "cart-abandoners" in segments(cart, START + HOUR)
    assert "cart-abandoners" not in segments(cart, START + 7 * DAY)
    bought = [*cart, at(START + 2 * HOUR, "Order Completed")]
    assert "cart-abandoners" not in segments(bought, START + 3 * HOUR)


def test_buyer_segments() -> None:
    one, two = at(START, "Order Completed"), at(START + DAY, "Order Completed")
    assert {"first-time-buyers"} <= segments([one], START)
    assert {"repeat-buyers"} <= segments([one, two], START + DAY)
    assert "first-time-buyers" not in segments([one, two], START + DAY)
    assert "at-risk" not in segments([one, two], START + 91 * DAY - 1)
    assert "at-risk" in segments([one, two], START + 91 * DAY)
    state = fold(RULES, [one, two], START + DAY, {}, 256)
    assert RULES.next_change_at("segment:at-risk", state, START + DAY) == START + 91 * DAY


def test_email_engaged_ends_with_unsubscribing() -> None:
    mails = [at(START, "Email Opened", "email"), at(START + DAY, "Email Link Clicked", "email")]
    assert "email-engaged" in segments(mails, START + DAY)
    assert "email-engaged" not in segments([*mails, at(START + 2 * DAY, "Unsubscribed", "email")], START + 2 * DAY)


def test_events_of_tools_count_unless_a_machine_caused_them() -> None:
    def mails(machine: bool) -> list[TrackEntry]:
        return [at(START + day * DAY, "email.clicked", "email", machine=machine) for day in range(5)]

    assert {"email-engaged", "engaged"} <= segments(mails(False), START + 5 * DAY)
    assert not {"email-engaged", "engaged"} & segments(mails(True), START + 5 * DAY)
    for name in ("email.unsubscribed", "email.complained"):
        assert "email-engaged" not in segments([*mails(False), at(START + 5 * DAY, name, "email")], START + 5 * DAY)
    assert "unhappy" in segments(
        [at(START + day * DAY, "ticket.created", "support") for day in range(3)], START + 3 * DAY
    )


def test_engaged_needs_five_events_in_thirty_days() -> None:
    visits = [at(START + day * DAY, "Product Viewed") for day in range(5)]
    assert "engaged" in segments(visits, START + 30 * DAY - 1)
    assert "engaged" not in segments(visits, START + 30 * DAY)


@pytest.mark.parametrize(
    ("item", "unhappy"),
    [
        (at(START, "Support Rated", "support", rating=1), True),
        (at(START, "Support Rated", "support", rating="2"), True),
        (at(START, "Support Rated", "support", rating=5), False),
        (at(START, "Support Rated", "support"), False),
        (at(START, "Support Ticket Solved", "support", satisfaction="Bad"), True),
        (at(START, "Support Ticket Created", "support"), False),
        (at(START, "csat.submitted", "support", rating=2, scale=5), True),
        (at(START, "csat.submitted", "support", rating=3, scale=5), False),
        (at(START, "ticket.created", "support"), False),
    ],
)
def test_unhappy_after_a_bad_support_experience(item: TrackEntry, unhappy: bool) -> None:
    assert ("unhappy" in segments([item], START)) == unhappy


def test_better_rating_ends_unhappy() -> None:
    low, better = (
        at(START + day * DAY, "csat.submitted", "support", rating=rating) for day, rating in ((0, 1), (5, 4))
    )
    unrated = at(START + 6 * DAY, "csat.submitted", "support")
    assert "unhappy" in segments([low, unrated], START + 6 * DAY)
    assert "unhappy" not in segments([low, better], START + 6 * DAY)
    assert "unhappy" in segments([low], START + 90 * DAY - 1)
    assert "unhappy" not in segments([low], START + 90 * DAY)
