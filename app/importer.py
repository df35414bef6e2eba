"""A file of messages into the log: NDJSON or CSV, resumable, the faults of single lines written beside it.

Lines go through the same parser and the same flush as requests, so a line that was imported before is a duplicate
and the order of lines does not matter. How far an import has come is kept in ``FILE.progress`` and removed at the end;
what was wrong with which line is in ``FILE.errors.ndjson``.
"""

from __future__ import annotations

import asyncio
import csv
import json
import os
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from app.config import Limits, Settings
from app.db import Clock
from app.errors import Overloaded, SegueError
from app.ingest import Ingest, Receipt
from app.touchpoint import SourceView
from app.wire import segment

_BATCH_LINES: Final = 1_000
_ATTEMPTS_MAX: Final = 10


class ImportReport(msgspec.Struct):
    lines: int = 0
    accepted: int = 0
    duplicate: int = 0
    rejected: int = 0
    resumed_at_line: int = 0


class _Line(msgspec.Struct):
    number: int
    text: bytes
    end: int
    """Offset of the byte after the line: where a resumed import goes on."""
    fault: str | None = None


class _Progress(msgspec.Struct):
    """How far an import has come in the file that had this size and time of change."""

    size: int
    changed_ns: int
    offset: int = 0
    line: int = 0
    errors_bytes: int = 0


async def import_file(
    path: Path,
    ingest: Ingest,
    source: SourceView,
    settings: Settings,
    clock: Clock,
    advance: Callable[[int], None],
) -> ImportReport:
    """Import every line; ``advance`` is told the bytes done. Faults go to ``FILE.errors.ndjson``.

    Raises:
        OSError: the file cannot be read, or the files beside it cannot be written.
        Overloaded: the database went away; run it again to go on where it stopped.
    """
    report = ImportReport()
    mark = path.with_name(path.name + ".progress")
    progress = _read_progress(mark, path)
    report.resumed_at_line = progress.line
    lines_max = min(_BATCH_LINES, settings.limits.batch_messages_max)
    with errors_path(path).open("ab") as errors:
        # Faults noted after the mark will be found again.
        errors.truncate(progress.errors_bytes)
        advance(progress.offset)
        for batch in _batches(_lines(path, progress), lines_max):
            await _import_batch(batch, ingest, source, settings, clock, report, errors)
            errors.flush()
            advance(batch[-1].end - progress.offset)
            progress.offset, progress.line = batch[-1].end, batch[-1].number
            progress.errors_bytes = os.fstat(errors.fileno()).st_size
            _write_progress(mark, progress)
    if progress.errors_bytes == 0:
        errors_path(path).unlink()
    mark.unlink(missing_ok=True)
    return report


def errors_path(path: Path) -> Path:
    return path.with_name(path.name + ".errors.ndjson")


async def _import_batch(
    lines: list[_Line],
    ingest: Ingest,
    source: SourceView,
    settings: Settings,
    clock: Clock,
    report: ImportReport,
    errors: IO[bytes],
) -> None:
    sent: list[_Line] = []
    report.lines += len(lines)
    for line in lines:
        fault = line.fault or _fault(line.text, settings.limits)
        if fault is None:
            sent.append(line)
        else:
            report.rejected += 1
            _note(errors, line, "unreadable_line", fault)
    if not sent:
        return
    body = b'{"batch":[' + b",".join(line.text for line in sent) + b"]}"
    envelope = segment.read(body, "import", settings.limits)
    parsed = segment.normalise(envelope, source, clock.now(), settings)
    receipt = await _accept(ingest, source, parsed, len(body))
    report.accepted += receipt.accepted
    report.duplicate += receipt.duplicate
    report.rejected += receipt.rejected
    for rejection in receipt.rejections:
        _note(errors, sent[rejection.index], rejection.code, rejection.message)


async def _accept(ingest: Ingest, source: SourceView, parsed: segment.Parsed, size_bytes: int) -> Receipt:
    """Patient while the database is away for a moment. Raises Overloaded."""
    for attempt in range(_ATTEMPTS_MAX):
        try:
            return await ingest.accept(source.key, parsed, size_bytes)
        except Overloaded as overloaded:
            if attempt + 1 == _ATTEMPTS_MAX:
                raise Overloaded("The database went away. Run the import again: it goes on where it stopped.") from None
            await asyncio.sleep(overloaded.retry_after_seconds)
    raise AssertionError("unreachable")


def _fault(text: bytes, limits: Limits) -> str | None:
    """Why a line cannot stand in a batch; a line that could would spoil its neighbours."""
    try:
        json.loads(text)
        segment.read(b'{"batch":[' + text + b"]}", "import", limits)
    except (ValueError, RecursionError, SegueError) as error:
        return str(error)
    return None


def _note(errors: IO[bytes], line: _Line, code: str, message: str) -> None:
    original = line.text.decode("utf-8", "replace")
    errors.write(
        msgspec.json.encode({"line": line.number, "code": code, "message": message, "original": original}) + b"\n"
    )


def _lines(path: Path, progress: _Progress) -> Iterator[_Line]:
    return _csv_lines(path, progress) if path.suffix.lower() == ".csv" else _json_lines(path, progress)


def _json_lines(path: Path, progress: _Progress) -> Iterator[_Line]:
    with path.open("rb") as file:
        file.seek(progress.offset)
        number = progress.line
        # Not `for text in file`, which reads ahead and so cannot tell where it is.
        for text in iter(file.readline, b""):
            number += 1
            if number == 1:
                text = text.removeprefix(BOM_UTF8)
            if text.strip():
                yield _Line(number, text.strip(), file.tell())


def _csv_lines(path: Path, progress: _Progress) -> Iterator[_Line]:
    """Columns are fields of a message; a dotted name reaches inside: ``properties.total``, ``context.traits.email``.

    A record may spread over several lines; its number is that of the last one.
    """
    with path.open("rb") as file:
        read: list[bytes] = []

        def text_lines() -> Iterator[str]:
            for line in iter(file.readline, b""):
                read.append(line)
                yield line.decode("utf-8-sig" if file.tell() == len(line) else "utf-8", "replace")

        # The reader takes no more lines than the record needs, so the file's place is the end of the record.
        records = csv.reader(text_lines())
        header = next(records, [])
        skipped = 0
        if progress.offset:
            file.seek(progress.offset)
            skipped = progress.line - records.line_num
        while True:
            read.clear()
            fault, cells = None, []
            try:
                cells = next(records)
                if len(cells) > len(header):
                    fault = f"the line has {len(cells)} cells, the header only {len(header)}"
            except csv.Error as error:
                fault = str(error)
            except StopIteration:
                return
            number = skipped + records.line_num
            if fault is not None:
                yield _Line(number, b"".join(read).strip(), file.tell(), fault)
            elif any(cells):
                yield _Line(number, msgspec.json.encode(_message_of(header, cells)), file.tell())


def _message_of(header: list[str], cells: list[str]) -> dict[str, Any]:
    message: dict[str, Any] = {}
    for name, cell in zip(header, cells, strict=False):
        if cell == "":
            continue
        *parents, last = name.split(".")
        place = message
        for parent in parents:
            inner = place.get(parent)
            place[parent] = place = inner if isinstance(inner, dict) else {}
        place[last] = _value(cell) if parents else cell
    return message


def _value(cell: str) -> Any:
    """A cell inside properties, context or traits: a JSON number or truth value as such, anything else as text."""
    try:
        value = msgspec.json.decode(cell.encode())
    except (msgspec.DecodeError, UnicodeEncodeError):
        return cell
    if isinstance(value, bool):
        return value
    return msgspec.Raw(cell.strip().encode()) if isinstance(value, int | float) else cell


def _batches(lines: Iterator[_Line], lines_max: int) -> Iterator[list[_Line]]:
    batch: list[_Line] = []
    for line in lines:
        batch.append(line)
        if len(batch) == lines_max:
            yield batch
            batch = []
    if batch:
        yield batch


def _read_progress(mark: Path, path: Path) -> _Progress:
    """Where to go on; from the start if there is no mark, or the file is not what it was."""
    now = path.stat()
    fresh = _Progress(now.st_size, now.st_mtime_ns)
    try:
        known = msgspec.json.decode(mark.read_bytes(), type=_Progress)
    except (OSError, msgspec.DecodeError):
        return fresh
    return known if (known.size, known.changed_ns) == (fresh.size, fresh.changed_ns) else fresh


def _write_progress(path: Path, progress: _Progress) -> None:
    aside = path.with_name(path.name + ".new")
    aside.write_bytes(msgspec.json.encode(progress))
    os.replace(aside, path)
