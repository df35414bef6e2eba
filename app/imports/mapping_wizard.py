"""Interactive inference of a mapping: ``segue import FILE --guess``.

The wizard infers a mapping, shows it with sample values, asks about unclear columns, and saves it. The user sees the
resulting messages before anything is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.imports.mapping import FileMapping, MappingRefused, check_mapping, list_places
from app.imports.mapping_inference import TIMES, ZONE, Doubt, InferredMapping, apply_answer, infer_mapping
from app.imports.rows import CsvRecords, FilePosition, ImportRow, is_csv, read_json_objects, read_mapped_rows

_ROWS_LOOKED_AT: Final = 1_000
_ROWS_SHOWN: Final = 3
_CELL_CHARS_SHOWN: Final = 40

Ask = Callable[[Doubt], str]
"""Function that asks the user about a doubt and returns the answer; if the doubt has choices, one of them."""


class FileSample(msgspec.Struct):
    """The first rows of a file, as text by column."""

    columns: list[str]
    rows: list[dict[str, str]]
    delimiter: str | None = None


def read_sample(path: Path) -> FileSample:
    """Read the first rows of a file; raise MappingRefused if the file is empty."""
    if is_csv(path):
        with CsvRecords(path, FileMapping(columns={})) as records:
            rows = [row for line, row in islice(records, _ROWS_LOOKED_AT) if line.fault is None]
            sample = FileSample(list(records.columns), rows, records.delimiter)
    else:
        objects = [_flatten(value) for value in islice(read_json_objects(path), _ROWS_LOOKED_AT)]
        sample = FileSample(list(dict.fromkeys(name for row in objects for name in row)), objects)
    if not sample.rows:
        raise MappingRefused(f"{path} has no rows")
    return sample


def infer_mapping_of_file(path: Path, answers: dict[str, str], ask: Ask | None, console: Console) -> InferredMapping:
    """Infer the mapping of a file, show it, and ask about its doubts.

    ``answers`` resolve doubts without a question. If ``ask`` is None, the remaining doubts are returned. Raise
    MappingRefused if the mapping is invalid.
    """
    sample = read_sample(path)
    inferred = infer_mapping(sample.columns, sample.rows, sample.delimiter)
    if TIMES in answers:
        inferred = apply_answer(inferred, TIMES, answers[TIMES])
    if ZONE in answers:
        inferred = apply_answer(inferred, ZONE, answers[ZONE])
    _show_mapping(sample, inferred, console)
    while inferred.doubts and ask is not None:
        doubt = inferred.doubts[0]
        try:
            inferred = apply_answer(inferred, doubt.about, ask(doubt), sample.rows)
        except MappingRefused as error:
            console.print(str(error), markup=False)
    if not inferred.doubts:
        check_mapping(inferred.mapping)
    return inferred


def show_first_messages(path: Path, mapping: FileMapping, console: Console) -> None:
    """Print the messages to which the mapping converts the first rows."""
    for line in islice(read_mapped_rows(mapping)(path, FilePosition()), _ROWS_SHOWN):
        for text in _describe_row(line):
            console.print(text, highlight=False, markup=False, soft_wrap=True)


def write_mapping(path: Path, mapping: FileMapping) -> None:
    """Save the mapping as indented JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(mapping), indent=2) + b"\n")


def _describe_row(line: ImportRow) -> list[str]:
    if line.fault is not None:
        return [f"line {line.number}: {line.fault}"]
    return [f"line {line.number}: {message.decode()}" for message in line.messages]


def _show_mapping(sample: FileSample, inferred: InferredMapping, console: Console) -> None:
    table = Table("column", "becomes", "samples", box=None, header_style="bold")
    for column in sample.columns:
        samples = list(dict.fromkeys(row[column] for row in sample.rows if row.get(column)))[:_ROWS_SHOWN]
        places = ", ".join(list_places(inferred.mapping, column)) or f"[dim]{inferred.mapping.others}[/dim]"
        table.add_row(escape(column), places, escape(", ".join(cell[:_CELL_CHARS_SHOWN] for cell in samples)))
    console.print(table)


def _flatten(value: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, inner in value.items():
        if isinstance(inner, dict):
            flat |= _flatten(inner, f"{prefix}{name}.")
        elif inner is not None and not isinstance(inner, list):
            flat[f"{prefix}{name}"] = str(inner)
    return flat
