"""Table ownership, read from the SQL in ``app/``: one module writes each table, and query packages write none."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from app.postgres.schema import metadata
from tests.support.source_tree import source_modules

ROOT = Path(__file__).parents[2]

READERS = ("app.queries", "app.insight", "app.data_quality", "app.api", "app.http")
"""Packages that only read tables."""

_WRITE = re.compile(
    r"\b(?:INSERT\s+INTO|MERGE\s+INTO|UPDATE(?:\s+ONLY)?|DELETE\s+FROM(?:\s+ONLY)?|COPY|TRUNCATE(?:\s+TABLE)?)\s+"
    r'(?:public\.)?"?(\w+|\{\})',
    re.IGNORECASE,
)
_COMMENT = re.compile(r"--[^\n]*")


def tables_written(source: str) -> set[str]:
    """Return the tables that SQL and COPY calls of a module write. ``{}`` stands for a table name that is computed."""
    return _tables_written(ast.parse(source))


def _tables_written(tree: ast.Module) -> set[str]:
    names = {name for text in _texts(tree) for name in _WRITE.findall(_COMMENT.sub("", text))}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr.startswith("copy_"):
            names |= {argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)}
    return names & {*metadata.tables, "{}"}


def _texts(tree: ast.Module) -> Iterator[str]:
    """Yield all strings of a module except docstrings. ``{}`` replaces each placeholder of an f-string."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(id(node.value))
        elif isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.value


@cache
def writers_by_table() -> dict[str, set[str]]:
    writers: dict[str, set[str]] = {}
    for module in source_modules().values():
        for table in _tables_written(module.tree):
            writers.setdefault(table, set()).add(module.name)
    return writers


def test_tables_have_one_writing_module() -> None:
    writers = dict(writers_by_table())
    assert writers.pop("{}", set()) == set(), "name the table in the SQL"
    shared = {table: modules for table, modules in writers.items() if len(modules) > 1}
    assert shared == {}, "call a function of the module that owns the table"
    assert writers.keys() == metadata.tables.keys()


def test_query_packages_write_no_table() -> None:
    writing = {module for modules in writers_by_table().values() for module in modules}
    assert {module for module in writing if module.startswith(READERS)} == set()


def test_writes_are_detected_in_every_kind_of_statement() -> None:
    source = '''
"""INSERT INTO ledger is only described here."""
A = """
-- UPDATE keys is a comment
WITH gone AS (DELETE FROM links RETURNING weaker) INSERT INTO identities SELECT 1
ON CONFLICT (id) DO UPDATE SET kind = excluded.kind
"""
B = f"UPDATE customers c SET stale = {A}"
C = f"DELETE FROM {A}"
D = "SELECT 1 FROM deferred FOR UPDATE SKIP LOCKED"
async def store(connection): await connection.copy_records_to_table("touchpoints", records=[])
'''
    assert tables_written(source) == {"links", "identities", "customers", "touchpoints", "{}"}


def test_architecture_page_lists_the_writer_of_each_table() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|[^|]*\| `(app/[\w/]+\.py)` \|$", page, re.MULTILINE)
    named = {table: path for tables, path in rows for table in re.findall(r"\w+", tables)}
    written = {
        table: f"{writer.replace('.', '/')}.py" for table, (writer,) in writers_by_table().items() if table != "{}"
    }
    assert named == written
