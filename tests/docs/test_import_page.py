"""The examples of ``docs/import.md`` and ``docs/shops.md`` can be imported, and their tables are complete."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from app.config import Limits
from app.connectors.tools import CONNECTORS
from app.connectors.tools.shop import EVENT_NAMES, ID_MEMBERS
from app.connectors.webhook_parser import parse
from app.connectors.webhook_request import WebhookRequest
from app.imports.formats import built_in_mappings, file_reader_of, read_mapping
from app.imports.mapping import FileMapping
from app.imports.rows import FilePosition
from tests.docs.markdown import ROOT, blocks, in_first_column, rows

IMPORT, SHOPS = ROOT / "docs" / "import.md", ROOT / "docs" / "shops.md"


def test_example_mapping_reads_the_example_file(tmp_path: Path) -> None:
    mapping, message = (block.text for block in blocks(IMPORT) if block.language == "json")
    (table,) = (block.text for block in blocks(IMPORT) if block.language == "text")
    (tmp_path / "till.json").write_text(mapping)
    (tmp_path / "till.csv").write_text(table)
    form = file_reader_of(read_mapping(tmp_path / "till.json"), None, {}, Limits(), lambda: 0)
    (line,) = form(tmp_path / "till.csv", FilePosition())
    assert [json.loads(text) for text in line.messages] == [json.loads(message)]


def test_example_mapping_is_equal_in_toml(tmp_path: Path) -> None:
    text = next(block.text for block in blocks(IMPORT) if block.language == "json")
    mapping = json.loads(text)
    flat = {name: value for name, value in mapping.items() if not isinstance(value, dict)}
    tables = {"columns": mapping["columns"], "constants": mapping["constants"], **_inside(mapping, "values")}
    (tmp_path / "till.json").write_text(text)
    (tmp_path / "till.toml").write_text(
        _toml(flat) + "".join(f"[{name}]\n{_toml(fields)}" for name, fields in tables.items())
    )
    assert read_mapping(tmp_path / "till.json") == read_mapping(tmp_path / "till.toml")


def _inside(mapping: dict[str, Any], name: str) -> dict[str, Any]:
    return {f"{name}.{inner}": fields for inner, fields in mapping[name].items()}


def _toml(fields: dict[str, Any]) -> str:
    """Write a flat object as TOML, in which its keys and scalars look the same as in JSON."""
    return "".join(f"{json.dumps(name)} = {json.dumps(value)}\n" for name, value in fields.items())


def test_mapping_fields_and_built_in_mappings_are_listed() -> None:
    assert set(FileMapping.__struct_fields__) | set(built_in_mappings()) == in_first_column(IMPORT)


def test_shop_examples_are_read_as_listed() -> None:
    listed = {row[0].strip("`"): (row[1].partition(",")[0], row[2].strip("`")) for row in rows(SHOPS) if len(row) == 3}
    for kind, name in EVENT_NAMES.items():
        assert listed[kind] == (name, ID_MEMBERS.get(kind, "its content"))
    for block in (block for block in blocks(SHOPS) if block.language == "json"):
        intake = parse(CONNECTORS["shop"], WebhookRequest(body=block.text.encode()))
        assert len(intake.envelope.items) == 1
        assert intake.envelope.rejections == []
