"""``segue import`` and ``segue import-metrics``: import messages, and daily metrics of channels, from files."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.prompt import Confirm, Prompt

from app.channel_metrics.parsers.metric import MetricDefaults
from app.cli.console import (
    DatabaseUrl,
    DataDir,
    ensure_workspace,
    err,
    fail,
    load_settings,
    open_migrated_database,
    out,
)
from app.cli.runtime import create_calibrated_clock, open_workspace
from app.config import Settings
from app.connectors.tools import CONNECTORS
from app.imports.channel_metrics import MetricImport, import_metrics, parse_defaults
from app.imports.formats import file_reader_of, mapping_of
from app.imports.importer import ImportReport, ImportTarget, errors_path, import_file
from app.imports.mapping import FileMapping, MappingRefused, check_mapping
from app.imports.mapping_inference import Doubt
from app.imports.mapping_wizard import infer_mapping_of_file, show_first_messages, write_mapping
from app.ingest.submit import Ingest
from app.observability.metrics import Metrics


def add_import_commands(cli: typer.Typer) -> None:
    cli.command("import")(import_messages)
    cli.command("import-metrics")(import_channel_metrics)


def import_messages(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="NDJSON or CSV file.")],
    source: Annotated[
        str | None,
        typer.Option(help="Source of the messages (default: the value of --kind, else [bold]default[/bold])."),
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="A built-in column mapping, or the tool that exported the events.")
    ] = None,
    mapping: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Column mapping in JSON or TOML; see docs/import.md.")
    ] = None,
    guess: Annotated[
        bool, typer.Option("--guess", help="Infer the mapping, ask about unclear columns, and save it as a file.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --guess: import without asking if all is clear.")] = False,
    zone: Annotated[
        str | None, typer.Option(help="Time zone of times without an offset, such as Europe/Berlin.")
    ] = None,
    time_format: Annotated[str | None, typer.Option(help="Format of times, such as %d.%m.%Y %H:%M.")] = None,
    data: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Import messages from a file. After an interruption, run it again: it resumes and stores no message twice."""
    try:
        if guess:
            file_mapping = _infer_mapping(file, mapping, yes, zone, time_format)
        else:
            file_mapping = _read_mapping(file, kind, mapping, zone, time_format)
    except (MappingRefused, OSError) as error:
        fail(str(error))
    if guess and file_mapping is None:
        return
    settings = load_settings(data, database_url)
    with open_migrated_database(settings) as ready:
        ensure_workspace(ready, err)
        asyncio.run(_import_messages(file, source or kind or "default", ready, kind, file_mapping))


def _read_mapping(
    file: Path, kind: str | None, mapping_file: Path | None, zone: str | None, time_format: str | None
) -> FileMapping | None:
    """Return the mapping that the options select, or None if the file needs no mapping. Raise MappingRefused."""
    mapping = mapping_of(file, kind, mapping_file)
    if zone is None and time_format is None:
        return mapping
    if mapping is None:
        raise MappingRefused("--zone and --time-format apply only to files with a column mapping")
    times = mapping.times if time_format is None else [time_format]
    return check_mapping(msgspec.structs.replace(mapping, zone=zone or mapping.zone, times=times))


def _infer_mapping(
    file: Path, mapping_file: Path | None, yes: bool, zone: str | None, time_format: str | None
) -> FileMapping | None:
    """Infer the mapping and save it; return None if the import must be confirmed first. Raise MappingRefused."""
    mapping_file = mapping_file or file.with_name(f"{file.name}.mapping.json")
    is_interactive = not yes and sys.stdin.isatty()
    answers = {about: answer for about, answer in {"zone": zone, "times": time_format}.items() if answer is not None}
    inferred = infer_mapping_of_file(file, answers, _ask if is_interactive else None, out)
    write_mapping(mapping_file, inferred.mapping)
    out.print(f"Mapping saved to {mapping_file}.", soft_wrap=True, highlight=False)
    if inferred.doubts:
        questions = "\n".join(f"- {doubt.question}" for doubt in inferred.doubts)
        raise MappingRefused(f"Some columns are unclear. Complete the mapping file:\n{questions}")
    show_first_messages(file, inferred.mapping, out)
    if yes or (is_interactive and Confirm.ask("Import all rows with this mapping?", console=out, default=False)):
        return inferred.mapping
    command = f"segue import {file} --mapping {mapping_file}"
    out.print(f"Nothing imported yet. To import: {command}", soft_wrap=True, highlight=False)
    return None


def _ask(doubt: Doubt) -> str:
    return Prompt.ask(escape(doubt.question), console=out, choices=list(doubt.choices) or None) or ""


def import_channel_metrics(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Daily metrics of a channel.")],
    kind: Annotated[str, typer.Option(help="File format, such as [bold]twitter_analytics[/bold].")] = "generic",
    source: Annotated[str | None, typer.Option(help="Source of the metrics (default: the value of --kind).")] = None,
    subject: Annotated[str, typer.Option(help="Page, post or keyword, for files without that column.")] = "",
    day: Annotated[str | None, typer.Option(help="Day, for files without a date.")] = None,
    dates: Annotated[str | None, typer.Option(help="Order of dates such as 03/04/2026: dmy or mdy.")] = None,
    data: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Import daily metrics of a channel, which belong to no customer. Importing a file twice changes nothing."""
    with open_migrated_database(load_settings(data, database_url)) as ready:
        ensure_workspace(ready, err)
        key = source or kind.replace("_", "-")
        report = asyncio.run(_import_metrics(file, kind, key, parse_defaults(subject, day, dates), ready))
    _print_metric_report(report)


async def _import_metrics(
    file: Path, kind: str, source: str, defaults: MetricDefaults, settings: Settings
) -> MetricImport:
    async with open_workspace(settings) as (pool, registry):
        clock = await create_calibrated_clock(pool)
        return await import_metrics(file, kind, source, defaults, pool, registry, clock)


def _print_metric_report(report: MetricImport) -> None:
    stored, metrics = report.stored, report.metrics
    out.print(
        f"{stored.added} added, {stored.changed} changed, {report.unchanged} unchanged, {metrics.bad_count} bad rows."
    )
    for row in metrics.bad:
        where = "" if row.line is None else f"line {row.line}: "
        err.print(f"  {where}{row.reason}", markup=False, highlight=False, soft_wrap=True)


async def _import_messages(
    file: Path, source_key: str, settings: Settings, kind: str | None, mapping: FileMapping | None
) -> None:
    async with open_workspace(settings) as (pool, registry):
        if source_key not in registry.access.current.sources:
            await registry.sources.create(source_key, source_key, kind=kind if kind in CONNECTORS else "sdk")
        clock = await create_calibrated_clock(pool)
        ingest = Ingest(pool, registry, settings, clock, Metrics())
        webhook_source = registry.access.current.webhook_sources.get(source_key)
        options = {} if webhook_source is None else webhook_source.options
        reader = file_reader_of(mapping, kind, options, settings.limits, clock.now)
        target = ImportTarget(ingest, registry.access.current.sources[source_key], settings, clock)
        await ingest.start()
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=err) as progress:
            task = progress.add_task(file.name, total=file.stat().st_size)
            try:
                report = await import_file(file, reader, target, lambda advanced: progress.advance(task, advanced))
            except MappingRefused as refused:
                fail(f"{file} does not match the mapping: {refused}")
            finally:
                await ingest.stop()
    _print_import_report(report, file)


def _print_import_report(report: ImportReport, file: Path) -> None:
    if report.resumed_at_line:
        out.print(f"Resumed after line {report.resumed_at_line}.")
    out.print(f"{report.accepted} accepted, {report.duplicate} duplicate, {report.rejected} rejected.")
    if report.erasures:
        out.print(f"{report.erasures} erasure requests queued: see GET /v1/erasure-requests.")
    if report.rejected:
        out.print(f"Rejected lines and the reasons are in {errors_path(file)}.", soft_wrap=True)
