"""``python -m bench``: the figures of one run on this machine; ``--profile``: where the server's time goes."""

from __future__ import annotations

import pstats
import signal
import tempfile
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import asyncpg
import psutil
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from bench.figures import BATCH_IN_FLIGHT, BATCH_MESSAGES, FULL, QUICK, SINGLE_IN_FLIGHT, Figure, measure
from bench.load import Kind
from bench.machine import described
from bench.stage import Stage, set_up

PROFILED_BATCHES: Final = 200
PROFILED_SINGLES: Final = 10_000
PROFILE_LINES: Final = 45
FILE_COLUMNS: Final = 400
"""Into a file each figure goes on one line, so that the table can be pasted into README.md."""


cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Profiled(StrEnum):
    BATCH = "batch"
    SINGLE = "single"


@cli.command()
def main(
    quick: Annotated[bool, typer.Option(help="See that everything runs; the figures mean nothing.")] = False,
    profile: Annotated[Profiled | None, typer.Option(help="Run the server under cProfile instead.")] = None,
    dump: Annotated[Path | None, typer.Option(help="Keep what cProfile saw in this file.")] = None,
) -> None:
    """Measure Segue beside raw COPY, a usual FastAPI service, and its own no-op routes."""
    if profile is not None:
        _profile(profile, dump)
        return
    console = Console(width=None if Console().is_terminal else FILE_COLUMNS)
    start = time.monotonic()
    load_before = psutil.getloadavg()
    with set_up() as stage, console.status("starting") as status:
        version = stage.query("segue", _version)
        figures = measure(stage, QUICK if quick else FULL, status.update)
    _show(console, figures)
    for word, what in described(version, load_before):
        console.print(f"- {word}: {what}", highlight=False, soft_wrap=True)
    generator = stage.generator
    share = generator.cpu_seconds / generator.seconds
    console.print(
        f"- load generator: {generator.cpu_seconds:.1f} s of processor time in {generator.seconds:.1f} s of sending "
        f"({share:.0%} of one core); the whole run took {time.monotonic() - start:.0f} s",
        highlight=False,
        soft_wrap=True,
    )


async def _version(connection: asyncpg.Connection[asyncpg.Record]) -> str:
    version: str = await connection.fetchval("SHOW server_version")
    sync: str = await connection.fetchval("SHOW fsync")
    return f"{version}, fsync {sync}"


def _show(console: Console, figures: list[Figure]) -> None:
    table = Table("", "figure", "measured", "limit", "", "from", box=box.MARKDOWN)
    for figure in sorted(figures, key=lambda figure: figure.letter):
        table.add_row(
            figure.letter,
            figure.what,
            f"{figure.value:,.{figure.digits}f}",
            f"{figure.bound} {figure.limit:g}",
            "OK" if figure.holds else "SHORT",
            figure.detail,
            style=None if figure.holds else "red",
        )
    console.print(table)


def _profile(what: Profiled, dump: Path | None) -> None:
    """cProfile slows Python code more than C code: read the shares, not the seconds."""
    with tempfile.TemporaryDirectory() as directory:
        path = dump or Path(directory) / "server.prof"
        with set_up(profile=path.resolve()) as stage:
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
