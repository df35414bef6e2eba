"""Formats of imported files: Segue's own messages, rows with a column mapping, or exported events of a tool."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Final

import msgspec

from app.config import Limits
from app.connectors.adapter import text_policy_of
from app.connectors.tools import CONNECTORS
from app.imports.mapping import FileMapping, MappingRefused, check_mapping
from app.imports.rows import FileReader, is_csv, read_connector_rows, read_mapped_rows, read_segment_rows

_BUILT_IN: Final = files("app.imports") / "mappings"


def built_in_mappings() -> dict[str, str]:
    """Return the description of each built-in mapping by its kind."""
    names = sorted(file.name for file in _BUILT_IN.iterdir() if file.name.endswith(".json"))
    return {name.removesuffix(".json"): _load_built_in(name.removesuffix(".json")).about for name in names}


def read_mapping(path: Path) -> FileMapping:
    """Read a mapping from a JSON file, or from TOML if the name ends in .toml.

    Raises:
        OSError: the file cannot be read.
        MappingRefused: it is not a valid mapping.
    """
    text = path.read_bytes()
    try:
        if path.suffix.lower() == ".toml":
            return check_mapping(msgspec.convert(tomllib.loads(text.decode()), FileMapping))
        return check_mapping(msgspec.json.decode(text, type=FileMapping))
    except MappingRefused:
        raise
    except (msgspec.MsgspecError, ValueError) as error:
        raise MappingRefused(f"{path} is not a valid mapping: {error}") from None


def mapping_of(path: Path, kind: str | None, own: Path | None) -> FileMapping | None:
    """Return the mapping for a file: the user's ``own``, else the built-in one of its kind.

    Return None if the file needs no mapping. Raise MappingRefused if the kind is unknown.
    """
    if own is not None:
        return read_mapping(own)
    if kind is None or (kind in CONNECTORS and not is_csv(path)):
        return None
    if kind in built_in_mappings():
        return _load_built_in(kind)
    if kind in CONNECTORS:
        raise MappingRefused(f"no built-in mapping reads CSV files of {kind}: use --mapping or --guess")
    raise MappingRefused(
        f"unknown kind {kind!r}; for CSV use one of {', '.join(built_in_mappings())}; for NDJSON also any tool"
    )


def file_reader_of(
    mapping: FileMapping | None, kind: str | None, options: Mapping[str, str], limits: Limits, now: Callable[[], int]
) -> FileReader:
    """Return the reader for the file. ``options`` are the options of the source; ``now`` returns microseconds."""
    if mapping is not None:
        return read_mapped_rows(mapping, text_policy_of(options))
    return read_segment_rows(limits) if kind is None else read_connector_rows(CONNECTORS[kind], options, now)


def _load_built_in(kind: str) -> FileMapping:
    return check_mapping(msgspec.json.decode((_BUILT_IN / f"{kind}.json").read_bytes(), type=FileMapping))
