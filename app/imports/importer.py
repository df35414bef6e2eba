"""Resumable import of a file into the log.

Messages pass through the same pipeline as those of requests. Lines that were imported before are duplicates, and the
order of lines does not matter. ``FILE.progress`` stores the position of an import until it ends; with another source or
mapping the import starts at the beginning. ``FILE.errors.ndjson`` lists the rejected lines with their reasons.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import IO, Final

import msgspec

from app.config import Settings
from app.errors import Overloaded
from app.formats import segment
from app.imports.rows import FilePosition, FileReader, ImportRow
from app.ingest.pending_request import Receipt
from app.ingest.submit import Ingest, Submission
from app.postgres.pool import Clock
from app.touchpoint import SourceView

_BATCH_MESSAGES: Final = 1_000
_ATTEMPTS_MAX: Final = 10


class ImportReport(msgspec.Struct):
    """Counts of one import.

    ``lines`` counts lines of the file; ``accepted``, ``duplicate`` and ``rejected`` count messages. An unreadable line
    counts as one rejected message.
    """

    lines: int = 0
    accepted: int = 0
    duplicate: int = 0
    rejected: int = 0
    resumed_at_line: int = 0
    erasures: int = 0
    """Number of erasure requests in the file. They are queued like those of a webhook."""


class _Progress(msgspec.Struct):
    """Position of an import. It is valid only if file (size and change time), source and format are unchanged."""

    size: int
    changed_ns: int
    manner: str
    offset: int = 0
    line: int = 0
    errors_bytes: int = 0


class ImportTarget(msgspec.Struct, frozen=True):
    """Destination of the messages: the ingest pipeline and the source they are stored under."""

    ingest: Ingest
    source: SourceView
    settings: Settings
    clock: Clock


async def import_file(
    path: Path, form: FileReader, target: ImportTarget, advance: Callable[[int], None]
) -> ImportReport:
    """Import every line; call ``advance`` with the number of bytes that were read since its previous call.

    Raises:
        OSError: the file cannot be read, or the files beside it cannot be written.
        MappingRefused: the file does not match its mapping.
        Overloaded: the database cannot be reached; another call resumes the import.
    """
    report = ImportReport()
    progress_path = path.with_name(path.name + ".progress")
    progress = _read_progress(progress_path, path, _hash_manner(form, target.source))
    report.resumed_at_line = progress.line
    messages_max = min(_BATCH_MESSAGES, target.settings.limits.batch_messages_max)
    try:
        with errors_path(path).open("ab") as errors:
            # Lines after the stored position are read again, so drop the errors that they caused before.
            errors.truncate(progress.errors_bytes)
            advance(progress.offset)
            for batch in _split_into_batches(form(path, FilePosition(progress.offset, progress.line)), messages_max):
                await _import_batch(batch, target, report, errors)
                errors.flush()
                advance(batch[-1].end - progress.offset)
                progress.offset, progress.line = batch[-1].end, batch[-1].number
                progress.errors_bytes = os.fstat(errors.fileno()).st_size
                _write_progress(progress_path, progress)
    finally:
        if errors_path(path).exists() and errors_path(path).stat().st_size == 0:
            errors_path(path).unlink()
    progress_path.unlink(missing_ok=True)
    return report


def errors_path(path: Path) -> Path:
    """Return the path of the file that lists rejected lines."""
    return path.with_name(path.name + ".errors.ndjson")


async def _import_batch(lines: list[ImportRow], target: ImportTarget, report: ImportReport, errors: IO[bytes]) -> None:
    report.lines += len(lines)
    for line in lines:
        if line.fault is not None:
            report.rejected += 1
            _write_error(errors, line, "unreadable_line", line.fault)
    sent = [(line, message) for line in lines for message in line.messages]
    body = b'{"batch":[' + b",".join(message for _, message in sent) + b"]}"
    envelope = segment.read(body, "import", target.settings.limits)
    envelope.erasures = [erasure for line in lines for erasure in line.erasures]
    receipt = await _submit(
        target.ingest,
        Submission(
            source=msgspec.structs.replace(target.source, trust="server"),
            envelope=envelope,
            received_at=target.clock.now(),
            size_bytes=len(body),
        ),
    )
    report.erasures += receipt.erasures
    report.accepted += receipt.accepted
    report.duplicate += receipt.duplicate
    report.rejected += receipt.rejected
    for rejection in receipt.rejections:
        _write_error(errors, sent[rejection.index][0], rejection.code, rejection.message)


async def _submit(ingest: Ingest, submission: Submission) -> Receipt:
    """Submit, and retry while the database cannot be reached; raise Overloaded after the last attempt."""
    for attempt in range(_ATTEMPTS_MAX):
        try:
            return await ingest.submit(submission)
        except Overloaded as overloaded:
            if attempt + 1 == _ATTEMPTS_MAX:
                raise Overloaded("The database cannot be reached. Run the import again to resume it.") from None
            await asyncio.sleep(overloaded.retry_after_seconds)
    raise AssertionError("unreachable")


def _write_error(errors: IO[bytes], line: ImportRow, code: str, message: str) -> None:
    original = line.original.decode("utf-8", "replace")
    errors.write(
        msgspec.json.encode({"line": line.number, "code": code, "message": message, "original": original}) + b"\n"
    )


def _split_into_batches(lines: Iterator[ImportRow], messages_max: int) -> Iterator[list[ImportRow]]:
    """Yield batches of whole lines, because an import can resume only after a whole line.

    An invalid line counts as one message.
    """
    batch: list[ImportRow] = []
    size = 0
    for line in lines:
        more = max(len(line.messages), 1)
        if batch and size + more > messages_max:
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += more
    if batch:
        yield batch


def _hash_manner(form: FileReader, source: SourceView) -> str:
    """Return a hash of source and format: an import resumes only if both are unchanged."""
    return blake2b(f"{source.key}\n{form.name}".encode("utf-8", "replace"), digest_size=16).hexdigest()


def _read_progress(progress_path: Path, path: Path, manner: str) -> _Progress:
    """Read the stored position.

    Return the beginning of the file if the position is missing, or if file, source or format have changed.
    """
    now = path.stat()
    fresh = _Progress(now.st_size, now.st_mtime_ns, manner)
    try:
        stored = msgspec.json.decode(progress_path.read_bytes(), type=_Progress)
    except (OSError, msgspec.DecodeError):
        return fresh
    is_same = (stored.size, stored.changed_ns, stored.manner) == (fresh.size, fresh.changed_ns, manner)
    return stored if is_same else fresh


def _write_progress(path: Path, progress: _Progress) -> None:
    aside = path.with_name(path.name + ".new")
    aside.write_bytes(msgspec.json.encode(progress))
    os.replace(aside, path)
