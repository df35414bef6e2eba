"""Which form a file that is imported has: by the kind that is named, a mapping of one's own, or as messages of ours."""

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
    """What mappings come along: kind to what it is about."""
    names = sorted(file.name for file in _BUILT_IN.iterdir() if file.name.endswith(".json"))
    return {name.removesuffix(".json"): _load_built_in(name.removesuffix(".json")).about for name in names}


def read_mapping(path: Path) -> FileMapping:
    """JSON, or TOML by the file's name. Raises MappingRefused, or OSError."""
    text = path.read_bytes()
    try:
        if path.suffix.lower() == ".toml":
            return check_mapping(msgspec.convert(tomllib.loads(text.decode()), FileMapping))
        return check_mapping(msgspec.json.decode(text, type=FileMapping))
    except MappingRefused:
        raise
    except (msgspec.MsgspecError, ValueError) as error:
        raise MappingRefused(f"{path} is no mapping: {error}") from None


def mapping_of(path: Path, kind: str | None, own: Path | None) -> FileMapping | None:
    """The mapping that reads ``path``: one's own, or the one of its kind; None where no mapping does.

    Raises MappingRefused for a kind that nobody knows.
    """
    if own is not None:
        return read_mapping(own)
    if kind is None or (kind in CONNECTORS and not is_csv(path)):
        return None
    if kind in built_in_mappings():
        return _load_built_in(kind)
    if kind in CONNECTORS:
        raise MappingRefused(f"there is no ready mapping for CSV of {kind}: give --mapping, or --guess one")
    raise MappingRefused(
        f"there is no kind {kind!r}; of CSV: {', '.join(built_in_mappings())}; of NDJSON also the tools'"
    )


def file_reader_of(
    mapping: FileMapping | None, kind: str | None, options: Mapping[str, str], limits: Limits, now: Callable[[], int]
) -> FileReader:
    """``options`` are the source's: one says where free text goes."""
    if mapping is not None:
        return read_mapped_rows(mapping, text_policy_of(options))
    return read_segment_rows(limits) if kind is None else read_connector_rows(CONNECTORS[kind], options, now)


def _load_built_in(kind: str) -> FileMapping:
    return check_mapping(msgspec.json.decode((_BUILT_IN / f"{kind}.json").read_bytes(), type=FileMapping))
