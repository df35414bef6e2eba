"""The engine alone, without a database: what a message, a state and a question cost by the rules there are."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import mean, median
from types import FrameType
from typing import Final

import msgspec

from app.config import Settings
from app.projection.fold import fold, truncate_pending
from app.projection.log_replay import input_from_message
from app.projection.state import State, read_state, write_state
from app.rules.engine.ruleset import Ruleset
from app.rules.engine.series import Series
from app.rules.engine.touchpoint_view import TouchpointView
from app.touchpoint import DAY, HOUR, MINUTE, Identity, Message
from bench.result import Figure, Say
from bench.sample_rules import SHOP, Json, compiled, expensive, shop, touched, untouched

POINTS_MAX: Final = Settings.model_fields["series_points_max"].default
NOW: Final = 1_760_000_000_000_000
SEED: Final = 20
CUSTOMER: Final = (Identity("user_id", "customer@example.com"),)


@dataclass(frozen=True)
class Sizes:
    customers: int
    messages: int
    """Of each customer, in a round of (h)."""
    rounds: int
    measured_states: int
    points: int
    """Of each leaf in (o)."""
    question_seconds_max: float
    """What takes longer is broken off."""


FULL: Final = Sizes(50, 40, 9, 200, POINTS_MAX, 5.0)
QUICK: Final = Sizes(10, 20, 3, 10, POINTS_MAX // 8, 1.1)


def measure(wanted: Collection[str], sizes: Sizes, say: Say) -> list[Figure]:
    figures: list[Figure] = []
    if "h" in wanted:
        say("a thousand segments")
        figures.append(_thousand_segments(sizes))
    if "k" in wanted:
        say("bytes of state")
        figures += _bytes_of_state(sizes)
    if "o" in wanted:
        figures.append(_worst_question(sizes, say))
    return figures


def _stream(customer: int, messages: int, events: Sequence[str], apart: int) -> Iterator[Message]:
    """One customer's messages in order, up to ``NOW``: one in twenty an identify, the others touchpoints."""
    chance = random.Random(SEED + customer)
    t = NOW - messages * apart
    for number in range(messages):
        t += chance.randrange(apart // 2, apart)
        properties = {
            "product_id": f"sku-{chance.randrange(40):04}",
            "category": chance.choice(("shoes", "coats", "bags")),
            "price": 5 + chance.randrange(20_000) / 100,
        }
        traits = {"plan": chance.choice(("free", "pro", "team"))} if number % 20 == 10 else None
        yield Message(
            type="track" if traits is None else "identify",
            message_id=f"ajs-next-{customer:06}-{number:06}",
            source="default",
            occurred_at=t,
            received_at=t,
            identities=CUSTOMER,
            channel="web",
            name=chance.choice(events) if traits is None else None,
            properties=msgspec.json.encode(properties),
            traits=None if traits is None else msgspec.json.encode(traits),
        )


def _take(stored: bytes | None, message: Message, ruleset: Ruleset) -> bytes:
    """One message into one customer as a flush does it, the database left out."""
    state = State() if stored is None else read_state(stored, ruleset)
    fold(state, ruleset, [input_from_message(message, ruleset)], message.received_at, POINTS_MAX)
    return write_state(truncate_pending(state, POINTS_MAX), ruleset)


# ------------------------------------------------------------------------------- (h): segments nobody touches


def _thousand_segments(sizes: Sizes) -> Figure:
    few, many = compiled(touched(10)), compiled([*touched(10), *untouched(990)])
    streams = [list(_stream(number, sizes.messages, SHOP, 8 * HOUR)) for number in range(sizes.customers)]
    met = mean(_touched(message, many) for stream in streams for message in stream)
    arms: tuple[list[float], list[float]] = ([], [])
    for number in range(1 + sizes.rounds):
        for arm, ruleset in ((0, few), (1, many)) if number % 2 else ((1, many), (0, few)):
            seconds = _cpu_seconds(streams, ruleset)
            if number:  # the first round fills what is remembered
                arms[arm].append(1e6 * seconds / sizes.customers / sizes.messages)
    return Figure(
        "h",
        "CPU of a message with 1,000 segments of which it touches 10, over 10 segments",
        median(many / few for few, many in zip(*arms, strict=True)),
        "at most",
        1.5,
        f"{_spread(arms[1])} us over {_spread(arms[0])} us; state read, matched, folded, written; "
        f"{met:.1f} segments touched on average",
    )


def _touched(message: Message, ruleset: Ruleset) -> int:
    move = input_from_message(message, ruleset)
    read = ruleset.rules_reading(move.leaves, move.traits or ())
    return sum(rule_id.startswith("segment:") for rule_id in read)


def _cpu_seconds(streams: Sequence[Sequence[Message]], ruleset: Ruleset) -> float:
    """Customers take turns, as they do in traffic."""
    stored: list[bytes | None] = [None] * len(streams)
    start = time.process_time()
    for messages in zip(*streams, strict=True):
        for customer, message in enumerate(messages):
            stored[customer] = _take(stored[customer], message, ruleset)
    return time.process_time() - start


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


# ---------------------------------------------------------------------------------------- (k): bytes of a state


def _bytes_of_state(sizes: Sizes) -> list[Figure]:
    """A touchpoint every other day: windows of 7 to 90 days keep from a few of them to all."""
    segments, touchpoints = 50, 30
    ruleset = compiled(shop(segments))
    bytes_of = []
    for customer in range(sizes.measured_states):
        stored: bytes | None = None
        for message in _stream(customer, touchpoints, SHOP, 2 * DAY):
            stored = _take(stored, message, ruleset)
        assert stored is not None
        bytes_of.append(len(stored))
    size = mean(bytes_of)
    measured = f"{min(bytes_of):,} to {max(bytes_of):,}, of {len(bytes_of)} customers"
    return [
        Figure("k", f"bytes of state, {segments} segments, {touchpoints} touchpoints", size, "at most", None, measured),
        Figure("k", "the same a segment", size / segments, "at most", None, "series, values and truth"),
    ]


# ------------------------------------------------------------------------------------- (o): the dearest question


class _TooLong(Exception):
    """The question has had its time."""


def _worst_question(sizes: Sizes, say: Say) -> Figure:
    """Each rule on its own, all of its leaves full; processor time of one ``evaluate``."""
    found: dict[str, float] = {}
    broken_off: set[str] = set()
    for name, rule in expensive().items():
        say(f"the dearest question: {name}")
        took = _measure_evaluation(rule, sizes)
        found[name] = 1000 * (sizes.question_seconds_max if took is None else took)
        broken_off |= {name} if took is None else set()
    worst = sorted(found, key=lambda name: -found[name])
    return Figure(
        "o",
        f"ms of the dearest question about one rule, {sizes.points} points a leaf",
        found[worst[0]],
        "at most",
        1_000,
        ", ".join(f"{name} {'over ' if name in broken_off else ''}{found[name]:,.0f}" for name in worst),
        0,
    )


def _measure_evaluation(rule: Json, sizes: Sizes) -> float | None:
    """Seconds of processor time; None where it was broken off."""
    ruleset = compiled([rule])
    state = _full_state(ruleset, sizes.points)
    start = time.process_time()
    try:
        with _at_most(sizes.question_seconds_max):
            ruleset.evaluate("segment:s-0", state, NOW, NOW)
    except _TooLong:
        return None
    return time.process_time() - start


def _full_state(ruleset: Ruleset, points: int) -> State:
    """A touchpoint every day, so many that each leaf keeps ``points``. Nothing is decided on the way."""
    state = State(born=NOW - points * DAY)
    for number in range(points):
        t = NOW - (points - number) * DAY + MINUTE
        properties = {
            "price": number % 97 + 0.25,
            "product_id": f"sku-{number:04}",
            "category": "shoes",
            "birthday": "1990-02-28",
        }
        touchpoint = TouchpointView(
            "Product Viewed", "web", "default", t, msgspec.json.encode(properties), b"{}", b"{}"
        )
        leaf_ids, leaf_values = ruleset.match_touchpoint(touchpoint)
        for id in leaf_ids:
            series = state.series.setdefault(id, Series())
            ruleset.leaves[id].add(series, t, 0, None if leaf_values is None else leaf_values.get(id), POINTS_MAX)
    if any(series.overflowed for series in state.series.values()):
        raise RuntimeError("a leaf keeps more than it may: the question would go to the log")
    return state


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise :class:`_TooLong` inside after so much processor time; between two steps of Python code, that is."""

    def interrupt(*_: object) -> None:
        raise _TooLong

    before: Callable[[int, FrameType | None], object] | int | None = signal.signal(signal.SIGPROF, interrupt)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
