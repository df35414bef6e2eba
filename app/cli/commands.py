"""Command line interface: ``segue serve`` and the operator's commands."""

from __future__ import annotations

import asyncio
import signal
from contextlib import ExitStack
from typing import Annotated
from uuid import UUID

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from app import __version__
from app.background.process import run_background_process
from app.background.worker import Worker
from app.cli.console import (
    DatabaseUrl,
    DataDir,
    bind_port,
    ensure_workspace,
    err,
    load_settings,
    open_migrated_database,
    out,
)
from app.cli.import_files import add_import_commands
from app.cli.keys import keys_cli
from app.cli.runtime import create_calibrated_clock, open_workspace
from app.config import Settings
from app.insight.verification import SegmentVerifier, VerificationResult
from app.observability.metrics import Metrics
from app.postgres.pool import Clock
from app.projection.rebuild import rebuild_customers

cli = typer.Typer(
    name="segue",
    help="Real-time customer journeys: ingest events, resolve customers, and query their stages and segments. "
    "Start with [bold]segue serve[/bold].",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
cli.add_typer(keys_cli, name="keys")


@cli.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. [dim]env SEGUE_HOST[/dim]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on. [dim]env SEGUE_PORT[/dim]")] = None,
    data: DataDir = None,
    database_url: DatabaseUrl = None,
    worker: Annotated[bool, typer.Option(help="Run the background worker.")] = True,
) -> None:
    """Serve the API. Starts the embedded PostgreSQL unless a database URL is set, migrates it, and listens.

    Ctrl-C stops accepting requests, answers those in flight, and exits.
    """
    settings = load_settings(data, database_url, host, port)
    # Bind the port first: a server that cannot listen must not create keys, which are shown only once.
    with bind_port(settings) as listener, open_migrated_database(settings) as ready, ExitStack() as stack:
        ensure_workspace(ready, out)
        background = (
            stack.enter_context(run_background_process(ready, worker=worker)) if ready.background_process else None
        )
        port = listener.getsockname()[1]
        out.print(f"[bold green]Segue {__version__}[/bold green] on [bold]http://{ready.host}:{port}[/bold]")
        # Imported here, because both processes then import the application at the same time.
        from app.cli.server import run_server

        has_started = run_server(ready, background, listener, worker=worker)
    if not has_started:
        raise typer.Exit(1)


@cli.command()
def worker(data: DataDir = None, database_url: DatabaseUrl = None) -> None:
    """Run only the background worker: time expiry, backfills and deferred messages.

    Any number of workers may run beside [bold]serve[/bold].
    """
    settings = load_settings(data, database_url)
    with open_migrated_database(settings) as ready:
        asyncio.run(_run_worker(ready))


@cli.command("migrate")
def migrate(data: DataDir = None, database_url: DatabaseUrl = None) -> None:
    """Migrate the database to the current schema."""
    with open_migrated_database(load_settings(data, database_url)):
        out.print("The schema is up to date.")


@cli.command()
def rebuild(
    customer: Annotated[str | None, typer.Option(help="Rebuild only this customer, such as user_id:42.")] = None,
    data: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Rebuild every customer from the log and report how many differed (expected: 0)."""
    with open_migrated_database(load_settings(data, database_url)) as ready:
        differing = asyncio.run(_rebuild(ready, customer))
    out.print(f"{differing} customers differed from the log.")


@cli.command()
def verify(
    key: Annotated[str | None, typer.Argument(help="Key of the segment (default: all segments).")] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Verify this many randomly chosen customers.")] = None,
    data: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Recompute the members of a segment from the log and compare them with the stored ones.

    Exits with status 1 if any customer differs.
    """
    with open_migrated_database(load_settings(data, database_url)) as ready:
        results = asyncio.run(_verify(ready, key, sample))
    for name, verified in results.items():
        out.print(
            f"{name}: {verified.customers} customers, {verified.members} members, {verified.differing} differ.",
            highlight=False,
        )
        for difference in verified.differences:
            out.print(f"  {UUID(bytes=difference.customer)}", highlight=False)
    if any(verified.differing for verified in results.values()):
        raise typer.Exit(1)


async def _run_worker(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with open_workspace(settings, settle=True) as (pool, registry):
        background = Worker(pool, registry, settings, await create_calibrated_clock(pool), Metrics())
        await background.start()
        out.print("Worker started. Press Ctrl-C to stop.")
        await stop.wait()
        await background.stop()


async def _rebuild(settings: Settings, customer: str | None) -> int:
    async with open_workspace(settings) as (pool, registry):
        columns = (TextColumn("Rebuilding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=err) as progress:
            task = progress.add_task("customers", total=None)

            def advance(done: int, total: int) -> None:
                progress.update(task, completed=done, total=total)

            clock = Clock()
            return await rebuild_customers(pool, registry.rules.current, clock, settings, customer, advance)


async def _verify(settings: Settings, key: str | None, sample: int | None) -> dict[str, VerificationResult]:
    async with open_workspace(settings) as (pool, registry):
        verifier = SegmentVerifier(pool, registry, settings, await create_calibrated_clock(pool))
        keys = [segment.key for segment in registry.rules.current.segments] if key is None else [key]
        results: dict[str, VerificationResult] = {}
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=err) as progress:
            for segment in keys:
                task = progress.add_task(segment, total=None)

                def advance(done: int, total: int, task: TaskID = task) -> None:
                    progress.update(task, completed=done, total=total)

                results[segment] = await verifier.verify_segment(segment, sample, advance)
        return results


add_import_commands(cli)


def main() -> None:
    """Run the console script. SIGTERM, which supervisors and containers send, stops a command like Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    cli()
