"""Command line of the benchmarks: ``python -m bench`` measures, ``python -m bench --profile`` profiles the server."""

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
from bench.browser_libraries import BrowserUnavailable
from bench.load_generator import Generator, RequestKind
from bench.machine import describe_machine
from bench.result import ENGINE, HTTP, LARGE_DATASET, SNIPPET, TIME, Benchmark, Progress, Result
from bench.testbed import Testbed, start_testbed
from bench.throughput import BATCH_IN_FLIGHT, BATCH_MESSAGES, SINGLE_IN_FLIGHT

PROFILED_BATCHES: Final = 200
PROFILED_SINGLES: Final = 10_000
PROFILE_LINES: Final = 45
FILE_COLUMNS: Final = 400
"""Width of redirected output, so that each result stays on one line and the table can be pasted into README.md."""
ALL: Final = ",".join(Benchmark)

cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class ProfiledLoad(StrEnum):
    BATCH = "batch"
    SINGLE = "single"


@cli.command()
def main(
    quick: Annotated[
        bool, typer.Option(help="Run everything once with little data: a smoke test, its values mean nothing.")
    ] = False,
    only: Annotated[
        str, typer.Option(help="Comma-separated names of benchmarks to run, such as batch,read.", show_default=False)
    ] = ALL,
    profile: Annotated[
        ProfiledLoad | None, typer.Option(help="Profile the server under this load instead of measuring.")
    ] = None,
    dump: Annotated[Path | None, typer.Option(help="Write the profile of --profile to this file.")] = None,
) -> None:
    """Benchmark Segue and its browser snippet.

    Segue is compared with COPY, a typical FastAPI service and no-op routes; the snippet with other browser SDKs.
    All ratios come from one run on this machine.
    """
    if profile is not None:
        _profile(profile, dump)
        return
    selected = _parse_names(only)
    console = Console(width=None if Console().is_terminal else FILE_COLUMNS)
    start = time.monotonic()
    load_before = psutil.getloadavg()
    with Generator() as generator, console.status("starting") as status:
        results, skipped = _measure(selected, quick, generator, status.update)
        _print_table(console, results)
        for reason in skipped:
            console.print(f"- not measured: {reason}", highlight=False, soft_wrap=True)
        for label, text in describe_machine(load_before):
            console.print(f"- {label}: {text}", highlight=False, soft_wrap=True)
    share = generator.cpu_seconds / max(generator.seconds, 1e-9)
    console.print(
        f"- load generator: {generator.cpu_seconds:.1f} s of CPU time in {generator.seconds:.1f} s of sending "
        f"({share:.0%} of one core); the whole run took {time.monotonic() - start:.0f} s",
        highlight=False,
        soft_wrap=True,
    )


def _parse_names(only: str) -> frozenset[Benchmark]:
    names = [name.strip() for name in only.split(",") if name.strip()]
    unknown = [name for name in names if name not in set(Benchmark)]
    if unknown or not names:
        problem = f"unknown benchmark {unknown[0]!r}" if unknown else "no benchmark given"
        raise typer.BadParameter(f"{problem}; choose from {', '.join(Benchmark)}", param_hint="--only")
    return frozenset(map(Benchmark, names))


def _measure(
    selected: frozenset[Benchmark], quick: bool, generator: Generator, progress: Progress
) -> tuple[list[Result], list[str]]:
    """Run the selected benchmarks, cheapest first. Each group gets fresh databases and servers.

    Return the results, and the reasons for skipped benchmarks.
    """
    results: list[Result] = []
    skipped: list[str] = []
    if selected & ENGINE:
        results += engine.measure(selected, engine.QUICK if quick else engine.FULL, progress)
    if selected & SNIPPET:
        try:
            results += browser.measure(selected, browser.QUICK if quick else browser.FULL, progress)
        except BrowserUnavailable as reason:
            skipped.append(f"{', '.join(name for name in Benchmark if name in selected & SNIPPET)}: {reason}")
    if selected & HTTP:
        with start_testbed(generator) as testbed:
            results += throughput.measure(testbed, selected, throughput.QUICK if quick else throughput.FULL, progress)
    if Benchmark.WEBHOOKS in selected:
        with start_testbed(generator) as testbed:
            results += webhooks.measure(testbed, webhooks.QUICK if quick else webhooks.FULL, progress)
    if selected & LARGE_DATASET:
        results += backfill.measure(selected, backfill.QUICK if quick else backfill.FULL, progress)
    if selected & TIME:
        results += expiry.measure(selected, generator, expiry.QUICK if quick else expiry.FULL, progress)
    return results, skipped


def _print_table(console: Console, results: list[Result]) -> None:
    order = list(Benchmark)
    table = Table("benchmark", "value", "measured", "limit", "", "detail", box=box.MARKDOWN)
    for result in sorted(results, key=lambda result: order.index(result.benchmark)):
        table.add_row(
            result.benchmark,
            result.description,
            f"{result.value:,.{result.digits}f}",
            "" if result.limit is None else f"{result.bound} {result.limit:g}",
            "" if result.limit is None else "OK" if result.is_within_limit else "SHORT",
            result.detail,
            style=None if result.is_within_limit else "red",
        )
    console.print(table)


def _profile(load: ProfiledLoad, dump: Path | None) -> None:
    """Print the functions that take the most time. cProfile slows Python more than C: compare shares, not seconds."""
    with tempfile.TemporaryDirectory() as directory:
        path = dump or Path(directory) / "server.prof"
        with Generator() as generator, start_testbed(generator, profile=path.resolve()) as testbed:
            _send(testbed, load, 0.1)
            psutil.Process(testbed.segue.pid).send_signal(signal.SIGUSR1)  # start the profiler after the warm-up
            _send(testbed, load, 1)
        statistics = pstats.Stats(str(path))
    for order in ("tottime", "cumulative"):
        statistics.sort_stats(order).print_stats(PROFILE_LINES)


def _send(testbed: Testbed, load: ProfiledLoad, share: float) -> None:
    if load is ProfiledLoad.BATCH:
        plan = testbed.plan(RequestKind.BATCH, int(PROFILED_BATCHES * share), BATCH_IN_FLIGHT, BATCH_MESSAGES)
    else:
        plan = testbed.plan(RequestKind.SINGLE, int(PROFILED_SINGLES * share), SINGLE_IN_FLIGHT)
    measured = testbed.generator.run(plan)
    typer.echo(f"{measured.rate:,.0f} messages/s{' under cProfile' if share == 1 else ''}")


if __name__ == "__main__":
    cli()
