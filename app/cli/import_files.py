"""``segue import`` and ``segue import-metrics``: files into the log, and metrics of channels."""

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
    """The mapping that the options name; None if the file needs none. Raises MappingRefused."""
    mapping = mapping_of(file, kind, mapping_file)
    if zone is None and time_format is None:
        return mapping
    if mapping is None:
        raise MappingRefused("--zone and --time-format are for files that a mapping reads")
    times = mapping.times if time_format is None else [time_format]
    return check_mapping(msgspec.structs.replace(mapping, zone=zone or mapping.zone, times=times))


def _infer_mapping(
    file: Path, mapping_file: Path | None, yes: bool, zone: str | None, time_format: str | None
) -> FileMapping | None:
    """Infer the mapping and write it down; None if nothing is to be imported yet. Raises MappingRefused."""
    mapping_file = mapping_file or file.with_name(f"{file.name}.mapping.json")
    is_interactive = not yes and sys.stdin.isatty()
    answers = {about: answer for about, answer in {"zone": zone, "times": time_format}.items() if answer is not None}
    inferred = infer_mapping_of_file(file, answers, _ask if is_interactive else None, out)
    write_mapping(mapping_file, inferred.mapping)
    out.print(f"The mapping is in {mapping_file}.", soft_wrap=True, highlight=False)
    if inferred.doubts:
        questions = "\n".join(f"- {doubt.question}" for doubt in inferred.doubts)
        raise MappingRefused(f"Some of it is not to be guessed; complete it there:\n{questions}")
    show_first_messages(file, inferred.mapping, out)
    if yes or (is_interactive and Confirm.ask("Import all rows like this?", console=out, default=False)):
        return inferred.mapping
    out.print(f"Nothing is imported yet: segue import {file} --mapping {mapping_file}", soft_wrap=True, highlight=False)
    return None


def _ask(doubt: Doubt) -> str:
    return Prompt.ask(escape(doubt.question), console=out, choices=list(doubt.choices) or None) or ""


def import_channel_metrics(
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
    stored, metrics = report.stored, report.figures
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
                fail(f"{file} does not fit: {refused}")
            finally:
                await ingest.stop()
    _print_import_report(report, file)


def _print_import_report(report: ImportReport, file: Path) -> None:
    if report.resumed_at_line:
        out.print(f"Went on after line {report.resumed_at_line}.")
    out.print(f"{report.accepted} accepted, {report.duplicate} duplicate, {report.rejected} rejected.")
    if report.erasures:
        out.print(f"{report.erasures} people ask to be forgotten: see GET /v1/erasure-requests.")
    if report.rejected:
        out.print(f"The rejected lines and their faults are in {errors_path(file)}.", soft_wrap=True)
