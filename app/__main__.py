"""The command line: ``segue serve`` and everything an operator does beside it."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, NoReturn
from uuid import UUID

import asyncpg
import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.prompt import Confirm, Prompt
from rich.table import Table

from app import __version__
from app.background.worker import Worker
from app.cli.runtime import bootstrap_if_empty, database, open_workspace, with_registry
from app.config import Settings
from app.connectors.tools import CONNECTORS
from app.errors import BadRequest, NotFound, SegueError
from app.formats.timestamps import rfc3339
from app.imports.channel_metrics import MetricImport, import_metrics, parse_defaults
from app.imports.formats import file_reader_of, mapping_of
from app.imports.importer import ImportReport, ImportTarget, errors_path, import_file
from app.imports.mapping import FileMapping, MappingRefused, check_mapping
from app.imports.mapping_inference import Doubt
from app.imports.mapping_wizard import infer_mapping_of_file, show_first_messages, write_mapping
from app.ingest.submit import Ingest
from app.insight.verification import SegmentVerifier, VerificationResult
from app.observability import logging
from app.observability.metrics import Metrics
from app.postgres.embedded import EmbeddedPostgresError
from app.postgres.pool import Clock
from app.projection.rebuild import rebuild_customers
from app.registry.bootstrap import FirstKeys
from app.registry.registry import Registry

cli = typer.Typer(
    name="segue",
    help="Touchpoints in; journey stages and segments out. [bold]segue serve[/bold] is all it takes to start.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
keys_cli = typer.Typer(help="Make, list and revoke keys.", no_args_is_help=True)
cli.add_typer(keys_cli, name="keys")

_LINE_CHARS_MAX: Final = 500

out = Console()
err = Console(stderr=True)

DataDir = Annotated[
    Path | None, typer.Option("--data", help="Directory of the embedded PostgreSQL. [dim]env SEGUE_DATA_DIR[/dim]")
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option("--database-url", help="A PostgreSQL 16+ instead of the embedded one. [dim]env DATABASE_URL[/dim]"),
]


class KeyKind(StrEnum):
    WRITE = "write"
    SECRET = "secret"


@cli.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. [dim]env SEGUE_HOST[/dim]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on. [dim]env SEGUE_PORT[/dim]")] = None,
    data: DataDir = None,
    database_url: DatabaseUrl = None,
    worker: Annotated[bool, typer.Option(help="Sweep, fill and project in this process too.")] = True,
) -> None:
    """Serve the API: starts the embedded PostgreSQL if need be, migrates, and listens. Ctrl-C drains and stops."""
    import uvicorn

    from app.main import create_app

    settings = _settings(data, database_url, host, port)
    with _database(settings) as ready:
        _fill_workspace(ready, out)
        out.print(f"[bold green]Segue {__version__}[/bold green] on [bold]http://{ready.host}:{ready.port}[/bold]")
        uvicorn.run(
            create_app(ready, worker=worker, tune_gc=True),
            host=ready.host,
            port=ready.port,
            loop="uvloop",
            http="httptools",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=30,
            server_header=False,
        )


@cli.command()
def worker(data: DataDir = None, database_url: DatabaseUrl = None) -> None:
    """Only the background work: sweep, fill, deferred projection. Any number may run beside [bold]serve[/bold]."""
    settings = _settings(data, database_url)
    with _database(settings) as ready:
        asyncio.run(_work(ready))


@cli.command("migrate")
def migrate_command(data: DataDir = None, database_url: DatabaseUrl = None) -> None:
    """Bring the database to the current schema."""
    with _database(_settings(data, database_url)):
        out.print("The schema is current.")


@keys_cli.command("create")
def keys_create(
    kind: Annotated[KeyKind, typer.Argument(help="[bold]write[/bold] appends, [bold]secret[/bold] reads and defines.")],
    source: Annotated[str, typer.Option(help="Source of a write key; made if there is none yet.")] = "default",
    name: Annotated[str, typer.Option(help="What the key is for.")] = "",
    data: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Make a key. A secret key is shown this once: only its hash is kept."""

    async def create(registry: Registry) -> str:
        if kind is KeyKind.SECRET:
            made = await registry.keys.create("secret", None, name)
        elif source not in registry.access.current.sources:
            _, made = await registry.sources.create(source, name or source)
        else:
            made = await registry.keys.create("write", source, name)
        assert made.key is not None
        return made.key

    with _database(_settings(data, database_url)) as ready:
        _fill_workspace(ready, err)
        out.print(asyncio.run(with_registry(ready, create)), highlight=False)


@keys_cli.command("list")
def keys_list(data: DataDir = None, database_url: DatabaseUrl = None) -> None:
    """List all keys, revoked ones too."""
    with _database(_settings(data, database_url)) as ready:
        keys = asyncio.run(with_registry(ready, lambda registry: registry.keys.list_all()))
    table = Table("id", "kind", "source", "name", "key", "created", "revoked", box=None, header_style="bold")
    for key in keys:
        table.add_row(
            key.id[:12],
            key.kind,
            key.source or "",
            key.name,
            key.hint if key.kind == "write" else f"{key.hint}…",
            rfc3339(key.created_at)[:19],
            "" if key.revoked_at is None else rfc3339(key.revoked_at)[:19],
        )
    # As wide as it needs to be: a shortened key is of no use, and a program may read this.
    Console(width=_LINE_CHARS_MAX).print(table)


@keys_cli.command("revoke")
def keys_revoke(
    key: Annotated[str, typer.Argument(help="The key itself, or the beginning of its id from [bold]keys list[/bold].")],
    data: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Revoke a key; every process follows within a second."""

    async def revoke(registry: Registry) -> None:
        await registry.keys.revoke(await _key_id(registry, key))

    with _database(_settings(data, database_url)) as ready:
        asyncio.run(with_registry(ready, revoke))
    out.print("Revoked.")


@keys_cli.command("rotate")
def keys_rotate(
    revoke: Annotated[bool, typer.Option("--revoke", help="Tokens that older secrets signed hold no more.")] = False,
    data: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Sign the tokens of visitors with a new secret; every process follows within a second. Pages notice nothing."""
    with _database(_settings(data, database_url)) as ready:
        asyncio.run(with_registry(ready, lambda registry: registry.keys.renew_signing_key(revoke=revoke)))
    out.print("Rotated.")


@cli.command("import")
def import_command(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="NDJSON, or CSV with dotted column names.")],
    source: Annotated[
        str | None, typer.Option(help="Source that the messages come from; the kind's name, or [bold]default[/bold].")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="A ready mapping of columns, or the tool whose exported events the lines are.")
    ] = None,
    mapping: Annotated[
        Path | None, typer.Option(dir_okay=False, help="What each column means, JSON or TOML; see docs/import.md.")
    ] = None,
    guess: Annotated[
        bool, typer.Option("--guess", help="Guess the mapping, show it, ask what is unsure, and write it down.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --guess: ask nothing, import if nothing is unsure.")] = False,
    zone: Annotated[str | None, typer.Option(help="Time zone of times without one, such as Europe/Berlin.")] = None,
    time_format: Annotated[str | None, typer.Option(help="How times are written, such as %d.%m.%Y %H:%M.")] = None,
    data: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Import messages from a file. Run it again after an interruption: it goes on where it stopped, nothing doubles."""
    try:
        if guess:
            known = _guessed_mapping(file, mapping, yes, zone, time_format)
        else:
            known = _known_mapping(file, kind, mapping, zone, time_format)
    except (MappingRefused, OSError) as error:
        _fail(str(error))
    if guess and known is None:
        return
    settings = _settings(data, database_url)
    with _database(settings) as ready:
        _fill_workspace(ready, err)
        asyncio.run(_import(file, source or kind or "default", ready, kind, known))


def _known_mapping(
    file: Path, kind: str | None, own: Path | None, zone: str | None, time_format: str | None
) -> FileMapping | None:
    """Raises MappingRefused."""
    known = mapping_of(file, kind, own)
    if zone is None and time_format is None:
        return known
    if known is None:
        raise MappingRefused("--zone and --time-format are for files that a mapping reads")
    times = known.times if time_format is None else [time_format]
    return check_mapping(msgspec.structs.replace(known, zone=zone or known.zone, times=times))


def _guessed_mapping(
    file: Path, written_to: Path | None, yes: bool, zone: str | None, time_format: str | None
) -> FileMapping | None:
    """Written down in any case; None where it is not to be imported by at once. Raises MappingRefused."""
    written_to = written_to or file.with_name(f"{file.name}.mapping.json")
    asks = not yes and sys.stdin.isatty()
    given = {"zone": zone, "times": time_format}
    ask = _ask if asks else None
    guessed = infer_mapping_of_file(file, {about: each for about, each in given.items() if each is not None}, ask, out)
    write_mapping(written_to, guessed.mapping)
    out.print(f"The mapping is in {written_to}.", soft_wrap=True, highlight=False)
    if guessed.doubts:
        questions = "\n".join(f"- {doubt.question}" for doubt in guessed.doubts)
        raise MappingRefused(f"Some of it is not to be guessed; complete it there:\n{questions}")
    show_first_messages(file, guessed.mapping, out)
    if yes or (asks and Confirm.ask("Import all rows like this?", console=out, default=False)):
        return guessed.mapping
    out.print(f"Nothing is imported yet: segue import {file} --mapping {written_to}", soft_wrap=True, highlight=False)
    return None


def _ask(doubt: Doubt) -> str:
    return Prompt.ask(escape(doubt.question), console=out, choices=list(doubt.choices) or None) or ""


@cli.command("import-figures")
def import_figures_command(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Figures of a channel by day.")],
    kind: Annotated[str, typer.Option(help="Whose file it is, such as [bold]twitter_analytics[/bold].")] = "generic",
    source: Annotated[str | None, typer.Option(help="Source that they are of; the kind's name if not said.")] = None,
    subject: Annotated[str, typer.Option(help="Page, post or keyword, where the file does not say it.")] = "",
    day: Annotated[str | None, typer.Option(help="The day, where the file names none.")] = None,
    dates: Annotated[str | None, typer.Option(help="How 03/04/2026 is meant: dmy or mdy.")] = None,
    data: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Import figures of a channel that belong to nobody. The same file again changes nothing."""
    with _database(_settings(data, database_url)) as ready:
        _fill_workspace(ready, err)
        key = source or kind.replace("_", "-")
        report = asyncio.run(import_metrics(file, kind, key, parse_defaults(subject, day, dates), ready))
    _tell_figures(report)


def _tell_figures(report: MetricImport) -> None:
    stored, figures = report.stored, report.figures
    out.print(
        f"{stored.added} added, {stored.changed} changed, {report.unchanged} unchanged, {figures.bad_count} bad rows."
    )
    for row in figures.bad:
        where = "" if row.line is None else f"line {row.line}: "
        err.print(f"  {where}{row.reason}", markup=False, highlight=False, soft_wrap=True)


@cli.command()
def rebuild(
    customer: Annotated[str | None, typer.Option(help="Only this one, such as user_id:42.")] = None,
    data: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Make every customer anew from the log, and say how many were not what the log says (it must be none)."""
    with _database(_settings(data, database_url)) as ready:
        differing = asyncio.run(_rebuild(ready, customer))
    out.print(f"{differing} differed." if differing else "Every customer was what the log says.")


@cli.command()
def verify(
    key: Annotated[str | None, typer.Argument(help="Key of a segment; without it, all of them.")] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Only so many customers, chosen at random.")] = None,
    data: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Recompute who is in a segment from the log and compare with the answers. Exits with 1 if anything differs."""
    with _database(_settings(data, database_url)) as ready:
        found = asyncio.run(_verify(ready, key, sample))
    for name, verified in found.items():
        out.print(
            f"{name}: {verified.customers} customers, {verified.members} members, {verified.differing} differ.",
            highlight=False,
        )
        for difference in verified.differences:
            out.print(f"  {UUID(bytes=difference.customer)}", highlight=False)
    if any(verified.differing for verified in found.values()):
        raise typer.Exit(1)


def _settings(
    data: Path | None, database_url: str | None, host: str | None = None, port: int | None = None
) -> Settings:
    """What the environment says, under what the command line says."""
    given = {"data_dir": data, "database_url": database_url, "host": host, "port": port}
    try:
        settings = Settings().model_copy(update={name: value for name, value in given.items() if value is not None})
        logging.configure(settings.log_level)
    except ValueError as error:
        _fail(str(error))
    return settings


@contextmanager
def _database(settings: Settings) -> Iterator[Settings]:
    """Settings with the URL of a migrated database; a failure ends the command with one line instead of a traceback."""
    try:
        with database(settings) as ready:
            yield ready
    except (EmbeddedPostgresError, SegueError) as error:
        _fail(str(error))
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        ours = isinstance(error, OSError) and error.filename is not None
        _fail(str(error) if ours else f"The database cannot be used: {error}")


def _fail(reason: str) -> NoReturn:
    err.print(f"[red]{escape(reason)}[/red]", soft_wrap=True)
    raise typer.Exit(1)


def _fill_workspace(settings: Settings, console: Console) -> None:
    first = asyncio.run(bootstrap_if_empty(settings))
    if first is not None:
        _show_first_keys(first, console)


def _show_first_keys(first: FirstKeys, console: Console) -> None:
    console.print(
        Panel(
            f"write key   [bold]{first.write_key}[/bold]\n"
            f"secret key  [bold]{first.secret_key}[/bold]\n\n"
            "The secret key is shown this once. The write key may stand in web pages.",
            title="Your first keys",
            expand=False,
        )
    )


async def _work(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with open_workspace(settings, settle=True) as (pool, registry):
        clock = Clock()
        background = Worker(pool, registry, settings, clock, Metrics())
        async with pool.acquire() as connection:
            await clock.calibrate(connection)
        await background.start()
        out.print("Working. Ctrl-C stops.")
        await stop.wait()
        await background.stop()


async def _key_id(registry: Registry, key: str) -> str:
    """The key that is meant, by its whole id. Raises NotFound or BadRequest."""
    if key.startswith(("wk_", "sk_")):
        return key
    meant = [known.id for known in await registry.keys.list_all() if known.id.startswith(key.lower())]
    if not meant:
        raise NotFound("There is no such key.")
    if len(meant) > 1:
        raise BadRequest("More than one key begins like this; give more of its id.")
    return meant[0]


async def _import(file: Path, key: str, settings: Settings, kind: str | None, mapping: FileMapping | None) -> None:
    async with open_workspace(settings) as (pool, registry):
        if key not in registry.access.current.sources:
            await registry.sources.create(key, key, kind=kind if kind in CONNECTORS else "sdk")
        clock = Clock()
        async with pool.acquire() as connection:
            await clock.calibrate(connection)
        ingest = Ingest(pool, registry, settings, clock, Metrics())
        hook = registry.access.current.webhook_sources.get(key)
        form = file_reader_of(mapping, kind, {} if hook is None else hook.options, settings.limits, clock.now)
        into = ImportTarget(ingest, registry.access.current.sources[key], settings, clock)
        await ingest.start()
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=err) as progress:
            task = progress.add_task(file.name, total=file.stat().st_size)
            try:
                report = await import_file(file, form, into, lambda advanced: progress.advance(task, advanced))
            except MappingRefused as refused:
                _fail(f"{file} does not fit: {refused}")
            finally:
                await ingest.stop()
    _tell(report, file)


def _tell(report: ImportReport, file: Path) -> None:
    if report.resumed_at_line:
        out.print(f"Went on after line {report.resumed_at_line}.")
    out.print(f"{report.accepted} accepted, {report.duplicate} duplicate, {report.rejected} rejected.")
    if report.erasures:
        out.print(f"{report.erasures} people ask to be forgotten: see GET /v1/erasure-requests.")
    if report.rejected:
        out.print(f"The rejected lines and their faults are in {errors_path(file)}.", soft_wrap=True)


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
        clock = Clock()
        async with pool.acquire() as connection:
            await clock.calibrate(connection)
        views = SegmentVerifier(pool, registry, settings, clock)
        keys = [each.key for each in registry.rules.current.segments] if key is None else [key]
        found: dict[str, VerificationResult] = {}
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=err) as progress:
            for each in keys:
                task = progress.add_task(each, total=None)

                def advance(done: int, total: int, task: TaskID = task) -> None:
                    progress.update(task, completed=done, total=total)

                found[each] = await views.segment(each, sample, advance)
        return found


def main() -> None:
    """The console script. SIGTERM, which supervisors and containers send, ends every command as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    cli()


if __name__ == "__main__":
    main()
