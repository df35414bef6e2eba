"""The lines of a file that is imported: what messages each holds, or what is wrong with it.

There are three forms of files: our own messages (NDJSON, or CSV with dotted names of columns), rows that a mapping
reads, and exports of a tool whose adapter reads them, one event a line.
"""

from __future__ import annotations

import csv
import json
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from app.config import Limits
from app.connectors import webhook_parser
from app.connectors.adapter import Connector, TextPolicy, to_segment_message
from app.connectors.webhook_request import Unreadable, WebhookRequest, decode_json
from app.errors import SegueError
from app.formats import segment
from app.imports.mapping import DELIMITERS, FileMapping, MappingRefused, RowReader

_CSV_SUFFIXES: Final = (".csv", ".tsv", ".txt")
_HEADER_BYTES_MAX: Final = 1 << 20


class ImportRow(msgspec.Struct):
    """A record of the file: ``messages`` of ours as JSON, or a ``fault``; a tool's line may have both."""

    number: int
    end: int
    """Offset of the byte after the line: where a resumed import goes on."""
    original: bytes
    messages: list[bytes] = []
    fault: str | None = None
    erasures: list[tuple[str, Any]] = []


class FilePosition(msgspec.Struct, frozen=True):
    """How far a file has been imported."""

    offset: int = 0
    line: int = 0


class FileReader(msgspec.Struct, frozen=True):
    """How a file is read, from a place on. ``name`` is another one where a file's lines become something else."""

    name: str
    lines: Callable[[Path, FilePosition], Iterator[ImportRow]]

    def __call__(self, path: Path, since: FilePosition) -> Iterator[ImportRow]:
        return self.lines(path, since)


def is_csv(path: Path) -> bool:
    return path.suffix.lower() in _CSV_SUFFIXES


def read_segment_rows(limits: Limits) -> FileReader:
    """Messages of ours. A dotted column of CSV reaches inside: ``properties.total``, ``context.traits.email``."""

    def lines(path: Path, since: FilePosition) -> Iterator[ImportRow]:
        rows = _read_csv_messages(path, since) if path.suffix.lower() == ".csv" else _read_json_lines(path, since)
        for line in rows:
            if line.fault is None:
                line.fault = _find_fault(line.original, limits)
                line.messages = [] if line.fault else [line.original]
            yield line

    return FileReader("messages", lines)


def read_mapped_rows(mapping: FileMapping, text_policy: TextPolicy = "private") -> FileReader:
    """Rows by a mapping. The rows before the place are read too, for equal rows are told apart by their number.

    Raises MappingRefused where the file and the mapping do not fit.
    """

    def lines(path: Path, since: FilePosition) -> Iterator[ImportRow]:
        if is_csv(path):
            with CsvRecords(path, mapping) as records:
                yield from _map_rows(records, RowReader(mapping, records.columns), since, text_policy)
        else:
            rows = ((line, _parse_object(line.original)) for line in _read_json_lines(path, FilePosition()))
            yield from _map_rows(rows, RowReader(mapping), since, text_policy)

    return FileReader(f"mapping {text_policy} {msgspec.json.encode(mapping, order='sorted').decode()}", lines)


def read_connector_rows(connector: Connector, options: Mapping[str, str], now: Callable[[], int]) -> FileReader:
    """Lines that are each an event of a tool, or an array of its events."""

    def lines(path: Path, since: FilePosition) -> Iterator[ImportRow]:
        if is_csv(path):
            raise MappingRefused(f"{connector.name} is read from NDJSON, one event a line; for CSV give a mapping")
        for line in _read_json_lines(path, since):
            try:
                parsed = _parse_line(connector, line.original, options, now())
            except SegueError as error:
                line.fault = error.message
            else:
                rejections = parsed.envelope.rejections
                line.messages, line.erasures = parsed.envelope.items, parsed.envelope.erasures
                line.fault = "; ".join(rejection.message for rejection in rejections) or None
            yield line

    return FileReader(f"tool {connector.key} {json.dumps(dict(options), sort_keys=True)}", lines)


def _parse_line(
    connector: Connector, text: bytes, options: Mapping[str, str], received_at: int
) -> webhook_parser.ParsedWebhook:
    if text.startswith(b"{"):
        parsed = webhook_parser.reparse(f"webhook/{connector.key}", text, received_at, options)
        assert parsed is not None
        return parsed
    headers = dict(connector.sample_headers)
    return webhook_parser.parse(
        connector, WebhookRequest(body=text, headers=headers, received_at=received_at, options=options)
    )


def _map_rows(
    rows: Iterable[tuple[ImportRow, Any]], reader: RowReader, since: FilePosition, text_policy: TextPolicy
) -> Iterator[ImportRow]:
    for line, row in rows:
        if line.fault is None:
            try:
                if not isinstance(row, dict):
                    raise Unreadable("the line must be a JSON object" if row is None else str(row))
                line.messages = [to_segment_message(call, text_policy) for call in reader.map_row(row)]
            except Unreadable as error:
                line.fault = str(error)
        if line.end > since.offset:
            yield line


def read_json_objects(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of an NDJSON file, without what is none."""
    for line in _read_json_lines(path, FilePosition()):
        if isinstance(value := _parse_object(line.original), dict):
            yield value


def _parse_object(text: bytes) -> Any:
    """A JSON object, or why it is none."""
    try:
        value = decode_json(text)
    except Unreadable as error:
        return str(error)
    return value if isinstance(value, dict) else None


class CsvRecords:
    """The records of a CSV file by a mapping's delimiter and rows to skip, as (line, cells by column)."""

    def __init__(self, path: Path, mapping: FileMapping) -> None:
        """Raises MappingRefused for a file that is no UTF-8 at all."""
        self._file: IO[bytes] = path.open("rb")
        self._read: list[bytes] = []
        self._skip_after = mapping.skip_rows_after_header
        try:
            _skip_byte_order_mark(self._file)
            self.delimiter = mapping.delimiter or self._likely_delimiter(mapping.skip_rows)
            self._reader = csv.reader(self._text_lines(), delimiter=self.delimiter)
            for _ in range(mapping.skip_rows):
                next(self._reader, None)
            self._read.clear()
            self.columns = _name_columns(next(self._reader, []))
            _require_utf8_header(self._read)
        except (MappingRefused, csv.Error) as error:
            self._file.close()
            raise MappingRefused(str(error)) from None

    def __enter__(self) -> CsvRecords:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[tuple[ImportRow, dict[str, str]]]:
        for _ in range(self._skip_after):
            next(self._reader, None)
        while True:
            self._read.clear()
            fault, cells = None, []
            try:
                cells = next(self._reader)
            except csv.Error as error:
                fault = str(error)
            except StopIteration:
                return
            original = b"".join(self._read).rstrip(b"\r\n")
            if len(cells) > len(self.columns):
                fault = f"the line has {len(cells)} cells, the header only {len(self.columns)}"
            elif not _is_utf8(original):
                fault = "the line is not UTF-8"
            if fault is not None or any(cells):
                line = ImportRow(self._reader.line_num, self._file.tell(), original, fault=fault)
                yield line, dict(zip(self.columns, cells, strict=False))

    def _text_lines(self) -> Iterator[str]:
        for line in iter(self._file.readline, b""):
            self._read.append(line)
            yield line.decode("utf-8", "replace")

    def _likely_delimiter(self, skipped: int) -> str:
        place = self._file.tell()
        text = self._file.read(_HEADER_BYTES_MAX).decode("utf-8", "replace")
        self._file.seek(place)
        header = (text.splitlines() or [""])[skipped : skipped + 1]
        return max(DELIMITERS, key=lambda delimiter: len(next(csv.reader(header, delimiter=delimiter), [])))


def _skip_byte_order_mark(file: IO[bytes]) -> None:
    """Raises MappingRefused for a file that is no UTF-8 at all."""
    start = file.read(len(BOM_UTF8))
    if start.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        raise MappingRefused("the file is UTF-16; save it as UTF-8")
    file.seek(len(BOM_UTF8) if start == BOM_UTF8 else 0)


def _require_utf8_header(read: list[bytes]) -> None:
    if not _is_utf8(b"".join(read)):
        raise MappingRefused("the header is not UTF-8; save the file as UTF-8")


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _name_columns(header: list[str]) -> list[str]:
    """Names of columns; the second of one name gets its number, and one without a name too."""
    names: list[str] = []
    for place, name in enumerate((cell.strip() for cell in header), 1):
        names.append(f"{name or 'column'} {place}" if not name or name in names else name)
    return names


def _find_fault(text: bytes, limits: Limits) -> str | None:
    """Why a line cannot stand in a batch; a line that could would spoil its neighbours."""
    try:
        json.loads(text)
        segment.read(b'{"batch":[' + text + b"]}", "import", limits)
    except (ValueError, RecursionError, SegueError) as error:
        return str(error)
    return None


def _read_json_lines(path: Path, since: FilePosition) -> Iterator[ImportRow]:
    with path.open("rb") as file:
        _skip_byte_order_mark(file)
        if since.offset:
            file.seek(since.offset)
        number = since.line
        # Not `for text in file`, which reads ahead and so cannot tell where it is.
        for text in iter(file.readline, b""):
            number += 1
            if text.strip():
                yield ImportRow(number, file.tell(), text.strip())


def _read_csv_messages(path: Path, since: FilePosition) -> Iterator[ImportRow]:
    """A record may spread over several lines; its number is that of the last one."""
    with path.open("rb") as file:
        _skip_byte_order_mark(file)
        read: list[bytes] = []

        def text_lines() -> Iterator[str]:
            for line in iter(file.readline, b""):
                read.append(line)
                yield line.decode("utf-8", "replace")

        # The reader takes no more lines than the record needs, so the file's place is the end of the record.
        records = csv.reader(text_lines())
        header = next(records, [])
        _require_utf8_header(read)
        skipped = 0
        if since.offset:
            file.seek(since.offset)
            skipped = since.line - records.line_num
        while True:
            read.clear()
            fault, cells = None, []
            try:
                cells = next(records)
                if len(cells) > len(header):
                    fault = f"the line has {len(cells)} cells, the header only {len(header)}"
                elif not _is_utf8(b"".join(read)):
                    fault = "the line is not UTF-8"
            except csv.Error as error:
                fault = str(error)
            except StopIteration:
                return
            number = skipped + records.line_num
            if fault is not None:
                yield ImportRow(number, file.tell(), b"".join(read).strip(), fault=fault)
            elif any(cells):
                yield ImportRow(number, file.tell(), msgspec.json.encode(_build_message(header, cells)))


def _build_message(header: list[str], cells: list[str]) -> dict[str, Any]:
    message: dict[str, Any] = {}
    for name, cell in zip(header, cells, strict=False):
        if cell == "":
            continue
        *parents, last = name.split(".")
        place = message
        for parent in parents:
            inner = place.get(parent)
            place[parent] = place = inner if isinstance(inner, dict) else {}
        place[last] = _parse_cell(cell) if parents else cell
    return message


def _parse_cell(cell: str) -> Any:
    """A cell inside properties, context or traits: a JSON number or truth value as such, anything else as text."""
    try:
        value = msgspec.json.decode(cell.encode())
    except (msgspec.DecodeError, UnicodeEncodeError):
        return cell
    if isinstance(value, bool):
        return value
    return msgspec.Raw(cell.strip().encode()) if isinstance(value, int | float) else cell
