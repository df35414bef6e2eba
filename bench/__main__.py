"""``python -m bench``: the figures of one run on this machine; ``--profile``: where the server's time goes."""

from __future__ import annotations

import pstats
import signal
import tempfile
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import psutil
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from bench import backfill, browser, engine, expiry, throughput, webhooks
from bench.browser_libraries import Unavailable
from bench.load_generator import Generator, Kind
from bench.machine import described
from bench.result import Figure, Say
from bench.testbed import Stage, set_up
from bench.throughput import BATCH_IN_FLIGHT, BATCH_MESSAGES, SINGLE_IN_FLIGHT

PROFILED_BATCHES: Final = 200
PROFILED_SINGLES: Final = 10_000
PROFILE_LINES: Final = 45
FILE_COLUMNS: Final = 400
"""Into a file each figure goes on one line, so that the table can be pasted into README.md."""
LETTERS: Final = "abcdefghijklmnopqrst"
OF_BROWSER: Final = "pqrs"


cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Profiled(StrEnum):
    BATCH = "batch"
    SINGLE = "single"


@cli.command()
def main(
    quick: Annotated[bool, typer.Option(help="See that everything runs; the figures mean nothing.")] = False,
    only: Annotated[str, typer.Option(help="Letters of the figures to measure, such as h,i.")] = LETTERS,
    profile: Annotated[Profiled | None, typer.Option(help="Run the server under cProfile instead.")] = None,
    dump: Annotated[Path | None, typer.Option(help="Keep what cProfile saw in this file.")] = None,
) -> None:
    """Measure Segue beside raw COPY, a usual FastAPI service, its own no-op routes, and itself with more to do; and its
    snippet beside the browser libraries of others."""
    if profile is not None:
        _profile(profile, dump)
        return
    wanted = _letters(only)
    console = Console(width=None if Console().is_terminal else FILE_COLUMNS)
    start = time.monotonic()
    load_before = psutil.getloadavg()
    with Generator() as generator, console.status("starting") as status:
        found, missing = _measure(wanted, quick, generator, status.update)
        _show(console, found)
        for reason in missing:
            console.print(f"- not measured: {reason}", highlight=False, soft_wrap=True)
        for word, what in described(load_before):
            console.print(f"- {word}: {what}", highlight=False, soft_wrap=True)
    share = generator.cpu_seconds / max(generator.seconds, 1e-9)
    console.print(
        f"- load generator: {generator.cpu_seconds:.1f} s of processor time in {generator.seconds:.1f} s of sending "
        f"({share:.0%} of one core); the whole run took {time.monotonic() - start:.0f} s",
        highlight=False,
        soft_wrap=True,
    )


def _letters(only: str) -> str:
    wanted = "".join(sorted(set(only) - {",", " "}))
    if not wanted or not set(wanted) <= set(LETTERS):
        raise typer.BadParameter(f"figures are {LETTERS[0]} to {LETTERS[-1]}", param_hint="--only")
    return wanted


def _measure(wanted: str, quick: bool, generator: Generator, say: Say) -> tuple[list[Figure], list[str]]:
    """Each group on a stage of its own, so that none finds what another left behind; the lightest first.

    The second answer says what this machine cannot measure, and why.
    """
    found: list[Figure] = []
    missing: list[str] = []
    if set(wanted) & set("hko"):
        found += engine.measure(wanted, engine.QUICK if quick else engine.FULL, say)
    if set(wanted) & set(OF_BROWSER):
        try:
            found += browser.measure(wanted, browser.QUICK if quick else browser.FULL, say)
        except Unavailable as reason:
            missing.append(f"{OF_BROWSER[0]} to {OF_BROWSER[-1]}, {reason}")
    if set(wanted) & set("abcdefg"):
        with set_up(generator) as stage:
            found += throughput.measure(stage, wanted, throughput.QUICK if quick else throughput.FULL, say)
    if "t" in wanted:
        with set_up(generator) as stage:
            found += webhooks.measure(stage, webhooks.QUICK if quick else webhooks.FULL, say)
    if set(wanted) & set("imn"):
        found += backfill.measure(wanted, backfill.QUICK if quick else backfill.FULL, say)
    if set(wanted) & set("jl"):
        found += expiry.measure(wanted, generator, expiry.QUICK if quick else expiry.FULL, say)
    return found, missing


def _show(console: Console, found: list[Figure]) -> None:
    table = Table("", "figure", "measured", "limit", "", "from", box=box.MARKDOWN)
    for figure in sorted(found, key=lambda figure: figure.letter):
        table.add_row(
            figure.letter,
            figure.what,
            f"{figure.value:,.{figure.digits}f}",
            "" if figure.limit is None else f"{figure.bound} {figure.limit:g}",
            "" if figure.limit is None else "OK" if figure.holds else "SHORT",
            figure.detail,
            style=None if figure.holds else "red",
        )
    console.print(table)


def _profile(what: Profiled, dump: Path | None) -> None:
    """cProfile slows Python code more than C code: read the shares, not the seconds."""
    with tempfile.TemporaryDirectory() as directory:
        path = dump or Path(directory) / "server.prof"
        with Generator() as generator, set_up(generator, profile=path.resolve()) as stage:
            _send(stage, what, 0.1)
            psutil.Process(stage.segue.pid).send_signal(signal.SIGUSR1)  # from here on the server is watched
            _send(stage, what, 1)
        statistics = pstats.Stats(str(path))
    for order in ("tottime", "cumulative"):
        statistics.sort_stats(order).print_stats(PROFILE_LINES)


def _send(stage: Stage, what: Profiled, share: float) -> None:
    if what is Profiled.BATCH:
        plan = stage.plan(Kind.BATCH, int(PROFILED_BATCHES * share), BATCH_IN_FLIGHT, BATCH_MESSAGES)
    else:
        plan = stage.plan(Kind.SINGLE, int(PROFILED_SINGLES * share), SINGLE_IN_FLIGHT)
    load = stage.generator.run(plan)
    typer.echo(f"{load.rate:,.0f} messages/s{' under cProfile' if share == 1 else ''}")


if __name__ == "__main__":
    cli()
