"""Reads the rows of an imported file as messages.

Files have one of three formats: Segue's own messages (NDJSON, or CSV with dotted column names), rows that are converted
by a mapping, and exports of a tool with one event per line, which the tool's connector reads.
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
_NOT_UTF8: Final = "the line is not UTF-8"


class ImportRow(msgspec.Struct):
    """One row: its ``messages`` as JSON, or a ``fault`` that describes the error.

    A line of a tool's export may have both, because it may contain several events.
    """

    number: int
    end: int
    """Offset of the first byte after the row, at which an import may resume."""
    original: bytes
    messages: list[bytes] = []
    fault: str | None = None
    erasures: list[tuple[str, Any]] = []


class FilePosition(msgspec.Struct, frozen=True):
    """Position in a file: offset in bytes and number of lines read."""

    offset: int = 0
    line: int = 0


class FileReader(msgspec.Struct, frozen=True):
    """Reader of one file format.

    ``name`` identifies the format and its options, so that an import does not resume after a change of either.
    """

    name: str
    lines: Callable[[Path, FilePosition], Iterator[ImportRow]]

    def __call__(self, path: Path, since: FilePosition) -> Iterator[ImportRow]:
        return self.lines(path, since)


def is_csv(path: Path) -> bool:
    return path.suffix.lower() in _CSV_SUFFIXES


def read_segment_rows(limits: Limits) -> FileReader:
    """Return a reader of Segue's own messages.

    Dotted column names of CSV set nested values: ``properties.total``, ``context.traits.email``.
    """

    def lines(path: Path, since: FilePosition) -> Iterator[ImportRow]:
        rows = _read_csv_messages(path, since) if path.suffix.lower() == ".csv" else _read_json_lines(path, since)
        for line in rows:
            if line.fault is None:
                line.fault = _find_fault(line.original, limits)
                line.messages = [] if line.fault else [line.original]
            yield line

    return FileReader("messages", lines)


def read_mapped_rows(mapping: FileMapping, text_policy: TextPolicy = "private") -> FileReader:
    """Return a reader that converts rows by a mapping.

    It also reads the rows before its start position, because the id of a row depends on the number of equal rows before
    it. It raises MappingRefused if the file does not match the mapping.
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
    """Return a reader of NDJSON lines that are events of a tool, or arrays of events."""

    def lines(path: Path, since: FilePosition) -> Iterator[ImportRow]:
        if is_csv(path):
            raise MappingRefused(f"events of {connector.name} must be NDJSON, one event per line; CSV needs a mapping")
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
    """Yield the objects of an NDJSON file; skip all other lines."""
    for line in _read_json_lines(path, FilePosition()):
        if line.fault is None and isinstance(value := _parse_object(line.original), dict):
            yield value


def _parse_object(text: bytes) -> Any:
    """Return a JSON object, a string with the error if the text is not JSON, or None if it is not an object."""
    try:
        value = decode_json(text)
    except Unreadable as error:
        return str(error)
    return value if isinstance(value, dict) else None


class CsvRecords:
    """Iterator over the records of a CSV file. Each item is the row and its cells by column name.

    The delimiter and the rows to skip are those of the mapping.
    """

    def __init__(self, path: Path, mapping: FileMapping) -> None:
        """Open the file and read its header; raise MappingRefused if it is not UTF-8."""
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
                fault = f"the line has {len(cells)} cells, but the header has only {len(self.columns)}"
            elif not _is_utf8(original):
                fault = _NOT_UTF8
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
    """Skip a UTF-8 byte order mark; raise MappingRefused if the file is UTF-16."""
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
    """Return unique column names: the column's number is appended to repeated and empty names."""
    names: list[str] = []
    for place, name in enumerate((cell.strip() for cell in header), 1):
        names.append(f"{name or 'column'} {place}" if not name or name in names else name)
    return names


def _find_fault(text: bytes, limits: Limits) -> str | None:
    """Return the reason why a line cannot be part of a batch; None if it can.

    The check is needed because one invalid line would make the whole batch invalid.
    """
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
        # Do not use `for text in file`: it reads ahead, so ``tell()`` would not return the end of the line.
        for text in iter(file.readline, b""):
            number += 1
            if text.strip():
                yield ImportRow(number, file.tell(), text.strip(), fault=None if _is_utf8(text) else _NOT_UTF8)


def _read_csv_messages(path: Path, since: FilePosition) -> Iterator[ImportRow]:
    """Yield the records of a CSV file. A record that spans several lines has the number of its last line."""
    with path.open("rb") as file:
        _skip_byte_order_mark(file)
        read: list[bytes] = []

        def text_lines() -> Iterator[str]:
            for line in iter(file.readline, b""):
                read.append(line)
                yield line.decode("utf-8", "replace")

        # The reader consumes only the lines of the current record, so ``tell()`` returns the end of the record.
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
                    fault = f"the line has {len(cells)} cells, but the header has only {len(header)}"
                elif not _is_utf8(b"".join(read)):
                    fault = _NOT_UTF8
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
    """Parse a cell inside properties, context or traits: JSON numbers and booleans keep their type."""
    try:
        value = msgspec.json.decode(cell.encode())
    except (msgspec.DecodeError, UnicodeEncodeError):
        return cell
    if isinstance(value, bool):
        return value
    return msgspec.Raw(cell.strip().encode()) if isinstance(value, int | float) else cell
