"""Rule engine benchmarks without a database: CPU time of a message, size of a state, worst-case evaluation."""

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
from app.projection.fold import fold
from app.projection.log_replay import input_from_message
from app.projection.state import State, read_state, write_state
from app.projection.state_limits import limit_pending, split_long_series
from app.rules.engine.ruleset import Ruleset
from app.rules.engine.series import Series
from app.rules.engine.touchpoint_view import TouchpointView
from app.touchpoint import DAY, HOUR, MINUTE, Identity, Message
from bench.result import Benchmark, Progress, Result
from bench.sample_rules import SHOP, Json, compile_segments, expensive, shop, touched, untouched

POINTS_MAX: Final = Settings.model_fields["series_points_max"].default
NOW: Final = 1_760_000_000_000_000
SEED: Final = 20
CUSTOMER: Final = (Identity("user_id", "customer@example.com"),)


@dataclass(frozen=True)
class Sizes:
    customers: int
    messages: int
    """Number of messages of each customer in each round of the benchmark ``segments``."""
    rounds: int
    measured_states: int
    points: int
    """Number of points in each leaf in the benchmark ``evaluation``."""
    evaluation_seconds_max: float
    """CPU seconds after which an evaluation is interrupted."""


FULL: Final = Sizes(50, 40, 9, 200, POINTS_MAX, 5.0)
QUICK: Final = Sizes(10, 20, 3, 10, POINTS_MAX // 8, 1.1)


def measure(selected: Collection[Benchmark], sizes: Sizes, progress: Progress) -> list[Result]:
    results: list[Result] = []
    if Benchmark.SEGMENTS in selected:
        progress("CPU of a message with 1,000 segments")
        results.append(_measure_segments(sizes))
    if Benchmark.STATE in selected:
        progress("size of a customer state")
        results += _measure_state(sizes)
    if Benchmark.EVALUATION in selected:
        results.append(_measure_worst_evaluation(sizes, progress))
    return results


def _stream(customer: int, messages: int, events: Sequence[str], interval: int) -> Iterator[Message]:
    """Yield one customer's messages in order until ``NOW``. One message in twenty is an identify call."""
    rng = random.Random(SEED + customer)
    t = NOW - messages * interval
    for number in range(messages):
        t += rng.randrange(interval // 2, interval)
        properties = {
            "product_id": f"sku-{rng.randrange(40):04}",
            "category": rng.choice(("shoes", "coats", "bags")),
            "price": 5 + rng.randrange(20_000) / 100,
        }
        traits = {"plan": rng.choice(("free", "pro", "team"))} if number % 20 == 10 else None
        yield Message(
            type="track" if traits is None else "identify",
            message_id=f"ajs-next-{customer:06}-{number:06}",
            source="default",
            occurred_at=t,
            received_at=t,
            identities=CUSTOMER,
            channel="web",
            name=rng.choice(events) if traits is None else None,
            properties=msgspec.json.encode(properties),
            traits=None if traits is None else msgspec.json.encode(traits),
        )


def _apply(stored: bytes | None, message: Message, ruleset: Ruleset) -> bytes:
    """Apply one message to a stored state as a flush does, but without the database."""
    state = State() if stored is None else read_state(stored, ruleset)
    fold(state, ruleset, [input_from_message(message, ruleset)], message.received_at, POINTS_MAX)
    split_long_series(state, ruleset, POINTS_MAX)
    limit_pending(state, POINTS_MAX)
    return write_state(state, ruleset)


# ---------------------------------------------------------- CPU of a message with many segments it does not touch


def _measure_segments(sizes: Sizes) -> Result:
    few, many = compile_segments(touched(10)), compile_segments([*touched(10), *untouched(990)])
    streams = [list(_stream(number, sizes.messages, SHOP, 8 * HOUR)) for number in range(sizes.customers)]
    touched_count = mean(_count_touched(message, many) for stream in streams for message in stream)
    arms: tuple[list[float], list[float]] = ([], [])
    for number in range(1 + sizes.rounds):
        for arm, ruleset in ((0, few), (1, many)) if number % 2 else ((1, many), (0, few)):
            seconds = _cpu_seconds(streams, ruleset)
            if number:  # The first round warms the caches.
                arms[arm].append(1e6 * seconds / sizes.customers / sizes.messages)
    return Result(
        Benchmark.SEGMENTS,
        "CPU of a message with 1,000 segments (10 of them touched) over 10 segments",
        median(many / few for few, many in zip(*arms, strict=True)),
        "at most",
        1.5,
        f"{_spread(arms[1])} us over {_spread(arms[0])} us; read state, match, fold, write; "
        f"{touched_count:.1f} segments touched on average",
    )


def _count_touched(message: Message, ruleset: Ruleset) -> int:
    move = input_from_message(message, ruleset)
    read = ruleset.rules_reading(move.leaves, move.traits or ())
    return sum(rule_id.startswith("segment:") for rule_id in read)


def _cpu_seconds(streams: Sequence[Sequence[Message]], ruleset: Ruleset) -> float:
    """Return the CPU seconds that all messages take. Customers take turns, as in real traffic."""
    stored: list[bytes | None] = [None] * len(streams)
    start = time.process_time()
    for messages in zip(*streams, strict=True):
        for customer, message in enumerate(messages):
            stored[customer] = _apply(stored[customer], message, ruleset)
    return time.process_time() - start


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


# -------------------------------------------------------------------------------------- size of a customer state


def _measure_state(sizes: Sizes) -> list[Result]:
    """Measure the size of states with a touchpoint every other day.

    Windows of 7 to 90 days therefore contain between a few and all of the touchpoints.
    """
    segments, touchpoints = 50, 30
    ruleset = compile_segments(shop(segments))
    sizes_bytes = []
    for customer in range(sizes.measured_states):
        stored: bytes | None = None
        for message in _stream(customer, touchpoints, SHOP, 2 * DAY):
            stored = _apply(stored, message, ruleset)
        assert stored is not None
        sizes_bytes.append(len(stored))
    size = mean(sizes_bytes)
    spread = f"{min(sizes_bytes):,} to {max(sizes_bytes):,}, of {len(sizes_bytes)} customers"
    total = f"bytes of state, {segments} segments, {touchpoints} touchpoints"
    return [
        Result(Benchmark.STATE, total, size, "at most", None, spread),
        Result(Benchmark.STATE, "bytes of state per segment", size / segments, "at most", None, "series, values"),
    ]


# ---------------------------------------------------------------------------------------- worst-case evaluation


class _EvaluationTimeout(Exception):
    """Raised when an evaluation uses more CPU time than allowed."""


def _measure_worst_evaluation(sizes: Sizes, progress: Progress) -> Result:
    """Measure the CPU time of one ``evaluate`` for each expensive rule, with all leaves full."""
    milliseconds: dict[str, float] = {}
    interrupted: set[str] = set()
    for name, rule in expensive().items():
        progress(f"worst-case evaluation: {name}")
        seconds = _measure_evaluation(rule, sizes)
        milliseconds[name] = 1000 * (sizes.evaluation_seconds_max if seconds is None else seconds)
        interrupted |= {name} if seconds is None else set()
    worst = sorted(milliseconds, key=lambda name: -milliseconds[name])
    return Result(
        Benchmark.EVALUATION,
        f"ms of the slowest evaluation of one rule, {sizes.points} points per leaf",
        milliseconds[worst[0]],
        "at most",
        1_000,
        ", ".join(f"{name} {'over ' if name in interrupted else ''}{milliseconds[name]:,.0f}" for name in worst),
        0,
    )


def _measure_evaluation(rule: Json, sizes: Sizes) -> float | None:
    """Return the CPU seconds of one evaluation, or None if the evaluation was interrupted."""
    ruleset = compile_segments([rule])
    state = _full_state(ruleset, sizes.points)
    start = time.process_time()
    try:
        with _limit_cpu(sizes.evaluation_seconds_max):
            ruleset.evaluate("segment:s-0", state, NOW, NOW)
    except _EvaluationTimeout:
        return None
    return time.process_time() - start


def _full_state(ruleset: Ruleset, points: int) -> State:
    """Return a state with one touchpoint a day and ``points`` points in each leaf. No rule is evaluated for it."""
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
        raise RuntimeError("a leaf exceeds its size limit, so the evaluation would read the log")
    return state


@contextmanager
def _limit_cpu(seconds: float) -> Iterator[None]:
    """Raise _EvaluationTimeout in the block, between two Python instructions, after ``seconds`` of CPU time."""

    def interrupt(*_: object) -> None:
        raise _EvaluationTimeout

    before: Callable[[int, FrameType | None], object] | int | None = signal.signal(signal.SIGPROF, interrupt)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
