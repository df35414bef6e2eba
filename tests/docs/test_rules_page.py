"""Every rule on ``docs/rules.md``, in the README and on the page of the HTTP API runs as shown.

The answers to the 25 questions are compared with answers worked out by hand; all rules are compared with the reference
implementation. A case is the history of one customer and the expected answers at several instants. Each answer has the
instant at which it changes if no message arrives. All instants are UTC.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from app.config import Limits, Settings
from app.registry.default_definitions import JOURNEYS, SEGMENTS
from app.rules.engine.definition_compiler import LEVELS_MAX, POINT_NODES_MAX
from app.rules.engine.nodes.base import LOOKAHEAD_MAX, POINTS_MAX, STEPS_MAX
from app.rules.engine.operators import MATCHED_BYTES_MAX
from app.rules.language.comparison import Comparison
from app.rules.language.fields import COUNT_MAX, EVENT_CHARS_MAX, PATTERN_CHARS_MAX, PERIODS_MAX
from app.rules.language.validation import ANNIVERSARIES_MAX, HEADS, VALUE_HEADS, VALUES_PER_NODE
from app.rules.values.durations import MICROSECONDS
from tests.docs.markdown import README, REFERENCE, ROOT, blocks, read
from tests.rules.engine.test_ruleset_against_reference import is_change
from tests.support import reference_rules
from tests.support.reference_rules import Entry, TrackEntry, TraitsEntry, World, same_key
from tests.support.rule_engine import compiled, folded, journey, segment, stored, trait
from tests.support.rule_strategies import written

PAGE = ROOT / "docs" / "rules.md"
PERSON = ("user_id", "user-1")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
STAGES = {one["key"]: [(stage["key"], stage["rule"]) for stage in one["stages"]] for one in JOURNEYS}


# ---------------------------------------------------------------------------------------- cases worked out by hand


def at(text: str) -> int:
    """Parse an instant such as ``"10-06 09:00"``. The year is 1997 unless the text contains one."""
    full = text if text[4:5] == "-" else f"1997-{text}"
    return (datetime.fromisoformat(full).replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


def did(when: str, name: str, *, channel: str = "web", **properties: Any) -> Entry:
    return TrackEntry(at(when), f"{name} {when}", name, channel, "website", written(properties), "{}", "{}")


def identified(when: str, **traits: Any) -> Entry:
    return TraitsEntry(at(when), f"identified {when}", "website", traits)


def viewed(when: str, product: str = "p-1", category: str = "skincare") -> Entry:
    return did(when, "Product Viewed", product_id=product, category=category)


def ordered(when: str, total: int = 50) -> Entry:
    return did(when, "Order Completed", total=total)


PRICING = did("09-20 10:00", "page_viewed", path="/pricing")


class Expected(NamedTuple):
    """Expected truth of a rule at the instant ``clock``.

    ``until`` is the instant at which time changes it; empty means never.
    """

    clock: str
    truth: bool
    until: str = ""
    also: tuple[Entry, ...] = ()
    """Entries that are added to the history of the case."""
    instead: tuple[Entry, ...] = ()
    """Entries that replace the history of the case."""
    bucketing_key: tuple[str, str] = PERSON


@dataclass
class Case:
    history: list[Entry]
    expectations: list[Expected]
    segments: tuple[str, ...] = ()
    """Keys of the segments whose rules the page shows after the answer, in order."""


CASES: dict[str, Case] = {
    "Who looked at the same product three times this week but did not buy?": Case(
        [viewed("09-29 10:00"), viewed("09-30 10:00"), viewed("10-01 10:00")],
        [
            Expected("10-01 09:59:59.999999", False),
            Expected("10-01 10:00", True, "10-06"),
            Expected("10-02", False, also=(ordered("10-01 12:00"),)),
            Expected("10-02", True, "10-06", also=(ordered("09-28 12:00"),)),
            Expected("10-02", False, instead=(viewed("09-28 23:59"), viewed("09-30 10:00"), viewed("10-01 10:00"))),
            Expected("10-02", False, instead=(viewed("09-29"), viewed("09-30", "p-2"), viewed("10-01"))),
        ],
    ),
    "Who spent over 500 in 90 days and contacted support at least twice?": Case(
        [
            ordered("07-10 12:00", 200),
            did("08-01", "Chat Started", channel="chat"),
            ordered("09-01", 301),
            did("09-20", "Support Ticket Created", channel="support"),
        ],
        [
            Expected("09-19", False),
            Expected("09-20", True, "10-08 12:00"),
            Expected("10-08 12:00", True, "10-30", also=(ordered("10-02", 200),)),
            Expected(
                "10-01",
                True,
                "11-30",
                (did("09-21", "Support Contacted"), did("09-22", "Support Contacted")),
                (ordered("09-01", 501),),
            ),
            Expected(
                "09-20",
                False,
                instead=(ordered("09-01", 500), did("09-20", "Chat Started"), did("09-20", "Support Contacted")),
            ),
        ],
    ),
    "Whose birthday is within a week, and who has not bought since the last one?": Case(
        [identified("1990-01-01", birthday="1970-10-08")],
        [
            Expected("09-30", False, "10-01"),
            Expected("10-01", True, "10-09"),
            Expected("10-02", False, "1998-10-01", also=(ordered("04-01"),)),
            # The last purchase is in the week before the last birthday. The rule becomes true when that order is a year
            # old.
            Expected("10-01", False, "10-05 09:00", also=(ordered("1996-10-05 09:00"),)),
            Expected("10-05 09:00", True, "10-09", also=(ordered("1996-10-05 09:00"),)),
        ],
    ),
    "Who left a cart an hour ago and has not bought?": Case(
        [did("10-01 10:00", "Product Added"), did("10-01 10:20", "Checkout Started")],
        [
            Expected("10-01 11:00", False, "10-01 11:20"),
            Expected("10-01 11:20", True, "10-08 10:20"),
            Expected("10-01 11:20", False, "10-01 12:19", also=(did("10-01 11:19", "Product Added"),)),
            Expected("10-01 12:00", False, also=(ordered("10-01 11:30"),)),
            Expected(
                "10-02", True, "10-08 10:00", instead=(ordered("10-01 09:00"), did("10-01 10:00", "Product Added"))
            ),
            Expected(
                "10-02", True, "10-08 10:00", instead=(ordered("10-01 09:00"), did("10-01 10:00", "Checkout Started"))
            ),
        ],
    ),
    "Whose first order was in the last 7 days?": Case(
        [ordered("09-25 08:00"), ordered("09-30")],
        [
            Expected("09-25 08:00", True, "10-02 08:00"),
            Expected("10-01", False, also=(ordered("09-01"),)),
        ],
    ),
    "Who has lapsed: no order for 90 days, but one before?": Case(
        [ordered("05-01"), ordered("07-01")],
        [
            Expected("09-01", False, "09-29"),
            Expected("09-29", True),
            Expected("10-01", False, "12-29 12:00", also=(ordered("09-30 12:00"),)),
            Expected("09-29", False, instead=(did("07-01", "Product Viewed"),)),
        ],
    ),
    "Who buys regularly, in three of the last four months?": Case(
        [ordered("06-20 12:00"), ordered("08-10 12:00"), ordered("09-15 12:00")],
        [
            Expected("09-15 11:00", False),
            Expected("10-01", True, "10-20 12:00"),
            # Two orders are in the same month. The rule changes when the counted months no longer split there.
            Expected("10-01", False, "10-15", instead=(ordered("08-10"), ordered("09-15"), ordered("09-20"))),
        ],
    ),
    "Whose average order is above their own target?": Case(
        [identified("09-01", order_target=45), ordered("09-10", 40), ordered("09-20", 60)],
        [
            Expected("09-15", False),
            Expected("09-20", True),
            Expected("09-30", False, also=(ordered("09-30", 10),)),
            Expected("09-30", False, also=(identified("09-30", order_target=50),)),
            Expected("09-30", False, also=(identified("09-30", order_target=None),)),
        ],
    ),
    "Whose favourite category is skincare?": Case(
        [viewed("07-10"), viewed("09-01"), viewed("09-20", category="makeup")],
        [
            Expected("10-01", True, "10-08"),
            Expected("10-01", False, also=(viewed("09-30", category="makeup"),)),
            Expected("10-01", True, "12-21", also=(viewed("09-21"), viewed("09-22"))),
        ],
    ),
    "Who first came through an ad?": Case(
        [did("09-01", "Ad Clicked", channel="ads"), did("09-01 00:01", "page_viewed")],
        [
            Expected("09-02", True),
            Expected("09-02", False, also=(did("08-31", "Email Opened", channel="email"),)),
            Expected("09-02", True, also=(identified("08-31", plan="free"),)),
        ],
    ),
    "Who came back in the last 7 days, after more than 30 days away?": Case(
        [did("08-01", "page_viewed"), did("09-30 12:00", "page_viewed")],
        [
            Expected("09-30 11:59:59.999999", False),
            Expected("09-30 12:00", True, "10-07 12:00"),
            Expected("09-30 12:00", False, also=(did("08-31 12:00", "page_viewed"),)),
            Expected("09-30 12:00", True, "10-07 12:00", also=(did("08-31 11:59:59.999999", "page_viewed"),)),
            Expected(
                "09-30 12:00", False, instead=(identified("08-01", plan="free"), did("09-30 12:00", "page_viewed"))
            ),
            Expected(
                "09-30 12:00",
                True,
                "10-07 12:00",
                instead=(did("08-31", "page_viewed"), did("09-30 12:00", "page_viewed")),
            ),
        ],
        ("active",),
    ),
    "Who visited pricing twice within a day, and then nothing for 2 days?": Case(
        [PRICING, did("09-21 09:00", "page_viewed", path="/pricing")],
        [
            Expected("09-24", False, instead=(PRICING, did("09-21 09:00", "page_viewed", path="/"))),
            Expected("09-24", False, instead=(did("09-20 09:00", "page_viewed", path="/"), PRICING)),
            Expected("09-22", False, "09-23 09:00"),
            Expected("09-23 09:00", True, "10-04 10:00"),
            Expected("09-24", True, "10-04 10:00", also=(did("09-23 09:00", "page_viewed", path="/"),)),
            Expected("09-24", False, also=(did("09-23 08:59:59.999999", "page_viewed", path="/"),)),
            Expected(
                "09-24",
                False,
                instead=tuple(did(day, "page_viewed", path="/pricing") for day in ("09-20 10:00", "09-21 10:00")),
            ),
        ],
    ),
    "Who has been a VIP for at least 30 days?": Case(
        [ordered("07-01", 400), ordered("08-01", 600)],
        [
            Expected("08-02", False, "08-31"),
            Expected("08-31", True, "1998-07-01"),
            Expected("08-31", False, instead=(ordered("07-01", 400), ordered("08-01", 599))),
            # The first order is more than a year old before the sum has held for thirty days, so the count restarts.
            Expected("08-02", False, instead=(ordered("1996-08-25", 400), ordered("08-01", 600))),
            Expected(
                "08-31", False, "09-27", (ordered("08-28", 400),), (ordered("1996-08-25", 400), ordered("08-01", 600))
            ),
        ],
        ("vip",),
    ),
    "Who became a member in the last 7 days?": Case(
        [identified("09-01", membership="guest"), identified("09-28 10:00", membership="silver")],
        [
            Expected("09-28 09:00", False),
            Expected("09-28 10:00", True, "10-05 10:00"),
            Expected("10-05 10:00", False, also=(identified("10-01", membership="gold"),)),
            Expected("10-02", False, also=(identified("10-01", membership=None),)),
            Expected(
                "10-03",
                True,
                "10-09",
                also=(identified("10-01", membership=None), identified("10-02", membership="gold")),
            ),
        ],
        ("members",),
    ),
    "Who ever reached the loyalty stage?": Case(
        [ordered("08-01"), ordered("09-01")],
        [
            Expected("08-15", False),
            Expected("09-01", True),
            Expected("09-01", True, also=(did("09-01", "Order Refunded"),)),
        ],
    ),
    "Who is in a random tenth of everyone, for a test?": Case(
        [did("09-01", "page_viewed")],
        [
            Expected("09-02", True, bucketing_key=("user_id", "user-3")),
            Expected("09-02", True, bucketing_key=("user_id", "user-15")),
            Expected("09-02", True, bucketing_key=("user_id", "user-256")),
            Expected("09-02", False, bucketing_key=("user_id", "user-139")),
            Expected("09-02", False, bucketing_key=("user_id", "user-1")),
            Expected("09-02", False, bucketing_key=("user_id", "user-19")),
        ],
    ),
    "Who shops at the weekend?": Case(
        [identified("09-01", plan="free"), ordered("09-20 12:00"), ordered("09-28 23:30"), ordered("09-29")],
        [
            Expected("09-28", False),
            Expected("09-28 23:30", True, "12-19 12:00"),
            # In Lisbon it was already Monday.
            Expected("09-30", False, also=(identified("09-29 12:00", timezone="Europe/Lisbon"),)),
        ],
    ),
    "Who opens our mails but never clicks?": Case(
        [did(day, "Email Opened", channel="email") for day in ("07-10", "08-01", "09-01")],
        [
            Expected("08-31", False),
            Expected("09-01", True, "10-08"),
            Expected("09-02", False, also=(did("1996-01-01", "Email Link Clicked", channel="email"),)),
        ],
    ),
    "Whose plan changed in the last week?": Case(
        [identified("06-01", plan="free"), identified("09-28", plan="pro")],
        [
            Expected("09-27", False),
            Expected("09-28", True, "10-05"),
            Expected("10-05", False, also=(identified("10-01", plan="pro"),)),
            Expected("10-05", True, "10-08", also=(identified("10-01", plan=None),)),
            Expected("06-07", True, "06-08"),
        ],
    ),
    "Whose trial ends in the next 3 days?": Case(
        [identified("09-20", trial_ends_at="1997-10-04")],
        [
            Expected("09-30", False, "10-01"),
            Expected("10-01", True, "10-04"),
            Expected("10-01", True, "10-03 23:00", also=(identified("09-21", timezone="Europe/Lisbon"),)),
            Expected("10-02", False, also=(identified("10-02", trial_ends_at=None),)),
        ],
    ),
    "Who viewed a product and bought the same one within two weeks?": Case(
        [viewed("09-01"), viewed("09-10", "p-2"), did("09-14 23:59:59.999999", "Product Purchased", product_id="p-1")],
        [
            Expected("09-14", False),
            Expected("09-15", True),
            Expected("09-15", False, instead=(viewed("09-01"), did("09-15", "Product Purchased", product_id="p-1"))),
            Expected("09-15", False, instead=(viewed("09-01"), did("09-02", "Product Purchased", product_id="p-2"))),
            Expected("09-15", False, instead=(viewed("09-02"), did("09-01", "Product Purchased", product_id="p-1"))),
            Expected("09-15", False, instead=(did("09-01", "Product Viewed"), did("09-02", "Product Purchased"))),
        ],
    ),
    "Who is best by recency, frequency and money?": Case(
        [ordered(day, 100) for day in ("1996-11-01", "05-01", "06-01", "07-01", "09-20")],
        [
            Expected("09-19", False),
            Expected("09-20", True, "10-20"),
            Expected("10-31", True, "11-18", also=(ordered("10-19", 100),)),
            Expected("10-31", True, "11-01", also=(ordered("10-19", 0),)),
            Expected("10-31", True, "11-01", also=(ordered("10-19", 99),)),
            Expected(
                "10-31",
                True,
                "11-01",
                instead=tuple(ordered(day, 200) for day in ("1996-11-01", "05-01", "06-01", "07-01", "10-19")),
            ),
            Expected("09-20", False, instead=tuple(ordered(day, 125) for day in ("05-01", "06-01", "07-01", "09-20"))),
        ],
    ),
    "Who has only ever been in touch through one channel?": Case(
        [identified("08-01", plan="free"), did("09-01", "page_viewed"), did("09-02", "page_viewed")],
        [
            Expected("08-02", False),
            Expected("09-02", True),
            Expected("09-03", False, also=(did("09-03", "Email Opened", channel="email"),)),
        ],
    ),
    "Who has an email address of a university?": Case(
        [identified("09-01", email="user@math.Example.edu")],
        [
            Expected("09-01", True),
            Expected("09-02", False, also=(identified("09-02", email="user@notexample.edu"),)),
            Expected("09-02", False, also=(identified("09-02", email="user@example.edu.example.com"),)),
            Expected("09-02", True, also=(identified("09-02", email="user@example.edu"),)),
        ],
    ),
    "Who is tagged press or partner, but not do-not-contact?": Case(
        [identified("09-01", tags=["partner", "lisbon"])],
        [
            Expected("09-01", True),
            Expected("09-02", True, also=(identified("09-02", tags="press"),)),
            Expected("09-02", False, also=(identified("09-02", tags=["press", "do-not-contact"]),)),
            Expected("09-02", False, also=(identified("09-02", tags=["lisbon"]),)),
            Expected("09-02", False, also=(identified("09-02", tags=None),)),
        ],
    ),
}
"""Question -> history and expected answers"""


# ------------------------------------------------------------------------------------------------- the page


class Shown(NamedTuple):
    """One question of the page and the rule that answers it."""

    rule: Any
    traits: dict[str, Any]
    """Computed traits that the page shows after the rule: key -> value expression."""
    others: list[Any]
    """Rules of segments that the page shows after the rule."""


def load(text: str) -> Any:
    return json.loads(text, parse_float=Decimal)


def questions() -> dict[str, Shown]:
    part = read(PAGE).split("\n## Questions\n")[1].split("\n## ")[0]
    result = {}
    for number, section in enumerate(re.split(r"^### ", part, flags=re.MULTILINE)[1:], 1):
        heading = section.splitlines()[0]
        assert heading.startswith(f"{number}. "), heading
        rule, *below = map(load, re.findall(r"```json\n(.*?)```", section, re.DOTALL))
        traits = {one["key"]: one["value"] for one in below if "key" in one}
        result[heading.partition(". ")[2]] = Shown(rule, traits, [one for one in below if "key" not in one])
    return result


QUESTIONS = questions()


def world_of(question: str, bucketing_key: tuple[str, str] = PERSON) -> World:
    case = QUESTIONS[question]
    segments = dict(zip(CASES[question].segments, case.others, strict=True))
    return World(segments, STAGES, case.traits, "six-stage", bucketing_key=bucketing_key)


def ruleset_for(rules: Mapping[str, Any], world: World) -> Any:
    return compiled(
        *(segment(key, rule) for key, rule in {**rules, **world.segments}.items()),
        *(journey(key, stages) for key, stages in world.journeys.items()),
        *(trait(key, expression) for key, expression in world.traits.items()),
        default_journey=world.default_journey,
    )


def test_page_has_25_questions_with_a_case() -> None:
    assert len(QUESTIONS) == 25
    assert list(QUESTIONS) == list(CASES)


@pytest.mark.parametrize("question", QUESTIONS)
def test_case_expects_both_truths(question: str) -> None:
    assert {expected.truth for expected in CASES[question].expectations} == {True, False}


@pytest.mark.parametrize(
    ("question", "expected"),
    [(question, expected) for question, case in CASES.items() for expected in case.expectations],
)
def test_question_is_answered_as_worked_out_by_hand(question: str, expected: Expected) -> None:
    rule, world = QUESTIONS[question].rule, world_of(question, expected.bucketing_key)
    ruleset = ruleset_for({"tested": rule}, world)
    t = at(expected.clock)
    history = [one for one in (*(expected.instead or CASES[question].history), *expected.also) if one.t <= t]
    until = at(expected.until) if expected.until else None

    def truth_at(instant: int) -> bool:
        state = folded(ruleset, history, instant, bucketing_key=expected.bucketing_key).state
        result: bool = ruleset.holds("segment:tested", state, instant)
        assert stored(ruleset, state, "segment:tested").holds is result
        return result

    state = folded(ruleset, history, t, bucketing_key=expected.bucketing_key).state
    assert ruleset.holds("segment:tested", state, t) is expected.truth
    assert ruleset.next_change_at("segment:tested", state, t) == until
    if until is not None:
        assert (truth_at(until - 1), truth_at(until)) == (expected.truth, not expected.truth)


# ------------------------------------------------------------- all rules of the pages, and the reference evaluator

BOOKED = {"arrives_on": "1997-09-12", "email": "user@example.com"}
NEWSLETTER = {"campaign": {"source": "newsletter"}}
COMMON: list[Entry] = [
    identified("1996-12-01", plan="free", timezone="Europe/Lisbon", lifetime_value=900, contract_ends="1997-11-30"),
    TrackEntry(
        at("01-10 09:00"),
        "m-1",
        "page_viewed",
        "web",
        "website",
        written({"path": "/blog/a"}),
        written(NEWSLETTER),
        "{}",
    ),
    did("02-01 10:00", "Trial Started", account_id=7),
    ordered("02-20 10:00", 60),
    did("02-27 23:30", "Order Completed", total=Decimal("49.5"), account_id=7, currency="EUR"),
    did("03-01 12:00", "Order Updated", total=75, currency="EUR"),
    *(did(f"04-{day:02} 08:00", "App Opened", channel="app") for day in range(1, 8)),
    identified("05-01", plan="PRO", lifetime_value=1500, address={"city": "Lisboa"}),
    did("05-05 09:00", "Product Reviewed", rating=5),
    did("09-05 17:30", "Store Visited", channel="in_store"),
    did("09-06 18:59", "Store Visited", channel="in_store"),
    did("09-06 19:30", "Store Visited", channel="in_store"),
    did("09-07 16:30", "Store Visited", channel="in_store"),
    did("09-08 12:00", "Booking Made", **BOOKED),
    did("09-09 12:00", "Product Added", product_id="p-1"),
    did("09-09 13:30", "Checkout Started"),
    ordered("09-10 12:00", 120),
]
"""One year of a customer, with at least one touchpoint for each kind of rule."""
CLOCKS = [
    *("1996-12-01", "01-10 09:00", "02-28 12:00", "03-13 23:30", "04-07 08:00", "04-10", "05-04 23:00", "05-20"),
    *("06-10", "09-06 12:00", "09-08 12:00", "09-09 13:00", "09-09 15:00", "09-11", "10-10 12:00", "1998-06-01"),
]
WORLD = World(
    {
        **{one["key"]: one["rule"] for one in SEGMENTS},
        **{name: rule for question, case in CASES.items() for name, rule in world_of(question).segments.items()},
    },
    STAGES,
    {
        "average_order": {"avg": "total", "of": "Order Completed", "within": "1y"},
        **{key: value for case in QUESTIONS.values() for key, value in case.traits.items()},
    },
    "six-stage",
)


def rules_inside(document: Any) -> Iterator[Any]:
    """Yield every object under a key ``rule``, at any depth."""
    if isinstance(document, dict):
        for key, part in document.items():
            if key == "rule" and isinstance(part, dict):
                yield part
            else:
                yield from rules_inside(part)
    elif isinstance(document, list):
        for part in document:
            yield from rules_inside(part)


def rules_in_requests_and_answers(page: Path) -> Iterator[Any]:
    for language, text in blocks(page):
        if language == "json":
            yield from rules_inside(load(text))
        elif language == "sh":
            for word, data in pairwise(shlex.split(text)):
                if word == "-d" and data:
                    yield from rules_inside(load(data))


def is_rule(example: Any) -> bool:
    compares = any((info.alias or name) in example for name, info in Comparison.model_fields.items())
    return bool(set(example) & set(HEADS)) and (compares or not set(example) & set(VALUE_HEADS))


EXAMPLES = [load(text) for language, text in blocks(PAGE) if language == "json"]
RULES = [one for one in EXAMPLES if "key" not in one and is_rule(one)]
VALUES = [one.get("value", one) for one in EXAMPLES if "key" in one or not is_rule(one)]
QUESTION_RULES = [rule for case in QUESTIONS.values() for rule in (case.rule, *case.others)]
REFERENCE_RULES = [rule for rule in RULES if rule not in QUESTION_RULES]
README_RULES = list(rules_in_requests_and_answers(README))
HTTP_RULES = list(rules_in_requests_and_answers(REFERENCE / "http.md"))


def test_every_json_example_is_a_rule_or_a_value() -> None:
    assert len(RULES) + len(VALUES) == len(EXAMPLES) > 45
    assert len(VALUES) >= 5
    assert len(README_RULES) >= 3
    assert len(HTTP_RULES) >= 1


@pytest.mark.parametrize("rule", [*RULES, *README_RULES, *HTTP_RULES], ids=str)
def test_shown_rule_agrees_with_the_reference(rule: Any) -> None:
    ruleset = ruleset_for({"tested": rule}, WORLD)
    for clock in map(at, CLOCKS):
        state = folded(ruleset, COMMON, clock, bucketing_key=PERSON).state
        reading = reference_rules.Evaluator(COMMON, clock, WORLD)
        assert ruleset.holds("segment:tested", state, clock) == reading.holds(rule, clock)
        change = ruleset.next_change_at("segment:tested", state, clock)
        assert is_change(change, reading.next_change(rule, clock), reading)


@pytest.mark.parametrize("rule", REFERENCE_RULES, ids=str)
def test_rule_of_the_reference_section_becomes_true_and_false(rule: Any) -> None:
    truths = {reference_rules.holds(rule, COMMON, clock, WORLD) for clock in map(at, CLOCKS)}
    assert truths == ({True} if "everyone" in str(rule) else {True, False})


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_shown_value_agrees_with_the_reference(value: Any) -> None:
    ruleset = ruleset_for({}, World(traits={"tested": value}, default_journey="main"))
    result = set()
    for clock in map(at, CLOCKS):
        state = folded(ruleset, COMMON, clock, bucketing_key=PERSON).state
        answer = ruleset.compute_trait("tested", state, clock)[0]
        assert same_key(answer) == same_key(reference_rules.value(value, COMMON, clock, WORLD))
        result.add(same_key(answer))
    assert len(result) > 1, "the value never changes"


def test_segment_of_the_readme_counts_orders_from_40_for_90_days() -> None:
    rule = next(one for one in README_RULES if "total" in one.get("where", {}))
    ruleset = ruleset_for({"tested": rule}, WORLD)
    history = [ordered("09-01", 39), ordered("09-10", 40)]
    for clock, truth, until in (("09-09", False, None), ("09-10", True, "12-09"), ("12-09", False, None)):
        state = folded(ruleset, history, at(clock)).state
        assert ruleset.holds("segment:tested", state, at(clock)) is truth
        assert ruleset.next_change_at("segment:tested", state, at(clock)) == (at(until) if until else None)


# ------------------------------------------------------------------------------------------------- limits


def test_limits_of_rules_are_those_of_the_code() -> None:
    text = read(PAGE).split("\n### Limits\n")[1]
    limits = Limits.model_construct()
    nodes, levels = limits.rule_nodes_max, limits.rule_depth_levels_max
    assert f"| {nodes}; {levels}, and {LEVELS_MAX} with" in text
    assert f"operands and items of lists | {nodes * VALUES_PER_NODE:,} |" in text
    assert "| " + ", ".join(f"{longest} {period}s" for period, longest in PERIODS_MAX.items()) + " |" in text
    assert f"`anniversary_within` in one rule | {ANNIVERSARIES_MAX} |" in text
    assert f"| {COUNT_MAX:,}; 100 years; 1900 to 2199 |" in text
    assert f"| {EVENT_CHARS_MAX}; 500; 200; {PATTERN_CHARS_MAX} characters |" in text
    assert f"{Settings.model_fields['series_points_max'].default} instants" in text
    assert f"at most {STEPS_MAX:,} instants and looks at about {POINTS_MAX:,} points" in text
    assert f"at most {POINT_NODES_MAX} in a rule" in text
    assert f"goes {LOOKAHEAD_MAX // MICROSECONDS['d'] // 365} years" in text
    assert f"at most {MATCHED_BYTES_MAX:,} bytes" in read(PAGE)
