"""``segue import FILE --guess``: a mapping guessed, shown with samples, its doubts asked, and written down.

Nothing is imported before somebody has seen what the rows become.
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

from app.imports.mapping import FileMapping, MappingRefused, checked, places_of
from app.imports.mapping_inference import TIMES, ZONE, Doubt, Guess, answered, guess
from app.imports.rows import Line, Place, Records, is_csv, json_objects, mapped_form

_ROWS_LOOKED_AT: Final = 1_000
_ROWS_SHOWN: Final = 3
_CELL_CHARS_SHOWN: Final = 40

Ask = Callable[[Doubt], str]
"""Puts a doubt to somebody; the answer is one of its choices where it has any."""


class Looked(msgspec.Struct):
    """The first rows of a file, as text by column."""

    columns: list[str]
    rows: list[dict[str, str]]
    delimiter: str | None = None


def look(path: Path) -> Looked:
    """Raises MappingRefused for a file without rows."""
    if is_csv(path):
        with Records(path, FileMapping(columns={})) as records:
            rows = [row for line, row in islice(records, _ROWS_LOOKED_AT) if line.fault is None]
            looked = Looked(list(records.columns), rows, records.delimiter)
    else:
        objects = [_flat(each) for each in islice(json_objects(path), _ROWS_LOOKED_AT)]
        looked = Looked(list(dict.fromkeys(name for each in objects for name in each)), objects)
    if not looked.rows:
        raise MappingRefused(f"{path} has no rows to guess from")
    return looked


def mapping_by_guess(path: Path, given: dict[str, str], ask: Ask | None, console: Console) -> Guess:
    """The mapping for ``path``, shown on the way, and the doubts that are left where there is nobody to ask.

    ``given`` answers doubts before they are asked. Raises MappingRefused for a mapping that cannot be meant.
    """
    looked = look(path)
    guessed = guess(looked.columns, looked.rows, looked.delimiter)
    if TIMES in given:
        guessed = answered(guessed, TIMES, given[TIMES])
    if ZONE in given:
        guessed = answered(guessed, ZONE, given[ZONE])
    _show(looked, guessed, console)
    while guessed.doubts and ask is not None:
        doubt = guessed.doubts[0]
        try:
            guessed = answered(guessed, doubt.about, ask(doubt), looked.rows)
        except MappingRefused as refused:
            console.print(str(refused), markup=False)
    if not guessed.doubts:
        checked(guessed.mapping)
    return guessed


def show_first_messages(path: Path, mapping: FileMapping, console: Console) -> None:
    """What the first rows become."""
    for line in islice(mapped_form(mapping)(path, Place()), _ROWS_SHOWN):
        for text in _told(line):
            console.print(text, highlight=False, markup=False, soft_wrap=True)


def write_mapping(path: Path, mapping: FileMapping) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(mapping), indent=2) + b"\n")


def _told(line: Line) -> list[str]:
    if line.fault is not None:
        return [f"line {line.number}: {line.fault}"]
    return [f"line {line.number}: {message.decode()}" for message in line.messages]


def _show(looked: Looked, guessed: Guess, console: Console) -> None:
    table = Table("column", "becomes", "samples", box=None, header_style="bold")
    for column in looked.columns:
        samples = list(dict.fromkeys(row[column] for row in looked.rows if row.get(column)))[:_ROWS_SHOWN]
        places = ", ".join(places_of(guessed.mapping, column)) or f"[dim]{guessed.mapping.others}[/dim]"
        table.add_row(escape(column), places, escape(", ".join(each[:_CELL_CHARS_SHOWN] for each in samples)))
    console.print(table)


def _flat(value: dict[str, Any], before: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, inner in value.items():
        if isinstance(inner, dict):
            flat |= _flat(inner, f"{before}{name}.")
        elif inner is not None and not isinstance(inner, list):
            flat[f"{before}{name}"] = str(inner)
    return flat
