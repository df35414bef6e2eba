"""A file of messages into the log: NDJSON or CSV, resumable, the faults of single lines written beside it.

Lines go through the same parser and the same flush as requests, so a line that was imported before is a duplicate
and the order of lines does not matter. How far an import has come is kept in ``FILE.progress`` and removed at the end.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from app.config import Limits, Settings
from app.db import Clock
from app.errors import SegueError
from app.ingest import Ingest
from app.touchpoint import SourceView
from app.wire import segment

_BATCH_LINES: Final = 1_000


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


class _Progress(msgspec.Struct):
    size: int
    offset: int
    line: int


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
    progress_path = path.with_name(path.name + ".progress")
    progress = _read_progress(progress_path, path.stat().st_size)
    report.resumed_at_line = progress.line
    # Errors of lines before the mark are on disk already; a resumed import appends to them.
    with path.with_name(path.name + ".errors.ndjson").open("ab" if progress.offset else "wb") as errors:
        advance(progress.offset)
        done = progress.offset
        for batch in _batches(_lines(path, progress)):
            await _import_batch(batch, ingest, source, settings, clock, report, errors)
            advance(batch[-1].end - done)
            done = batch[-1].end
            errors.flush()
            _write_progress(progress_path, _Progress(progress.size, done, batch[-1].number))
        empty = errors.tell() == 0
    if empty:
        path.with_name(path.name + ".errors.ndjson").unlink()
    progress_path.unlink(missing_ok=True)
    return report


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
        fault = _fault(line.text, settings.limits)
        if fault is None:
            sent.append(line)
        else:
            report.rejected += 1
            _note(errors, line, "invalid_json", fault)
    if not sent:
        return
    body = b'{"batch":[' + b",".join(line.text for line in sent) + b"]}"
    envelope = segment.read(body, "import", settings.limits)
    parsed = segment.normalise(envelope, source, clock.now(), settings)
    receipt = await ingest.accept(source.key, parsed, len(body))
    report.accepted += receipt.accepted
    report.duplicate += receipt.duplicate
    report.rejected += receipt.rejected
    for rejection in receipt.rejections:
        _note(errors, sent[rejection.index], rejection.code, rejection.message)


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
        for text in file:
            number += 1
            if text.strip():
                yield _Line(number, text.strip(), file.tell())


def _csv_lines(path: Path, progress: _Progress) -> Iterator[_Line]:
    """Columns are fields of a message; a dotted name reaches inside: ``properties.total``, ``context.traits.email``."""
    with path.open("rb") as file:
        header = next(csv.reader([file.readline().decode("utf-8-sig")]), [])
        number = 1
        if progress.offset:
            file.seek(progress.offset)
            number = progress.line
        for record in _records(file):
            number += 1
            cells = next(csv.reader(io.StringIO(record.decode("utf-8", "replace"), newline="")), [])
            if cells:
                yield _Line(number, msgspec.json.encode(_message_of(header, cells)), file.tell())


def _records(file: IO[bytes]) -> Iterator[bytes]:
    """CSV records, which a quoted line break may spread over several lines."""
    record = b""
    for line in iter(file.readline, b""):
        record += line
        if record.count(b'"') % 2 == 0:
            yield record
            record = b""
    if record:
        yield record


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


def _batches(lines: Iterator[_Line]) -> Iterator[list[_Line]]:
    batch: list[_Line] = []
    for line in lines:
        batch.append(line)
        if len(batch) == _BATCH_LINES:
            yield batch
            batch = []
    if batch:
        yield batch


def _read_progress(path: Path, size: int) -> _Progress:
    """Where to go on; from the start if there is no mark, or the file is not the one it was made for."""
    try:
        progress = msgspec.json.decode(path.read_bytes(), type=_Progress)
    except (OSError, msgspec.DecodeError):
        return _Progress(size, 0, 0)
    return progress if progress.size == size else _Progress(size, 0, 0)


def _write_progress(path: Path, progress: _Progress) -> None:
    aside = path.with_name(path.name + ".new")
    aside.write_bytes(msgspec.json.encode(progress))
    os.replace(aside, path)
