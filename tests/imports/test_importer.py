"""Import of files by a mapping or a connector: each row is stored exactly once."""

from __future__ import annotations

import csv
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from app.imports.formats import built_in_mappings, file_reader_of, mapping_of
from app.imports.importer import ImportReport, ImportTarget, errors_path, import_file
from app.imports.mapping import FileMapping, MappingRefused, check_mapping
from tests.support.pipeline import Pipeline, running_pipeline

NOW = 1_777_982_400_000_000
"""2026-05-05T12:00:00Z"""
TABLES = "ledger, touchpoints, identities, links, customers, transitions"
COLUMNS: dict[str, str | list[str]] = {
    "Customer": "user_id",
    "Mail": "email",
    "Card": "ids.loyalty_card",
    "When": "timestamp",
    "What": "event",
}
MAPPING = check_mapping(FileMapping(columns=COLUMNS, zone="Europe/Berlin"))


@dataclass
class Importer:
    pipeline: Pipeline

    async def __call__(
        self,
        path: Path,
        mapping: FileMapping | None = MAPPING,
        kind: str | None = None,
        source: str = "default",
        **options: str,
    ) -> ImportReport:
        pipeline = self.pipeline
        if kind is not None and mapping is MAPPING:
            mapping = mapping_of(path, kind, None)
        form = file_reader_of(mapping, kind, options, pipeline.settings.limits, pipeline.clock.now)
        into = ImportTarget(
            pipeline.ingest, pipeline.registry.access.current.sources[source], pipeline.settings, pipeline.clock
        )
        return await import_file(path, form, into, lambda _: None)

    async def stored(self) -> Any:
        touchpoints = await self.pipeline.pool.fetch(
            "SELECT message_id, carried, name, channel, occurred_at, properties, context FROM touchpoints ORDER BY 1"
        )
        return [tuple(row) for row in touchpoints], await self.pipeline.rows("")


@asynccontextmanager
async def importing(database_url: str) -> AsyncIterator[Importer]:
    async with running_pipeline(database_url, NOW) as pipeline:
        yield Importer(pipeline)


@pytest.fixture
async def importer(database_url: str) -> AsyncIterator[Importer]:
    async with importing(database_url) as running:
        yield running


def faults(path: Path) -> list[tuple[int, str]]:
    if not errors_path(path).exists():
        return []
    lines = map(json.loads, errors_path(path).read_text().splitlines())
    return [(line["line"], line["message"]) for line in lines]


# ------------------------------------------------------------------------------------------------- exactly once


def _rows(rng: Random) -> list[dict[str, str]]:
    """Return random rows of a few customers. Some rows are equal, and some have a message id."""
    rows = []
    for number in range(rng.randint(20, 60)):
        rows.append(
            {
                "Customer": rng.choice(["", "c1", "c2", "c3"]),
                "Mail": rng.choice(["", "a@example.com", "B@example.com"]),
                "Card": rng.choice(["", "LC-1", "LC-2"]) or "LC-3",
                "When": f"2026-05-0{rng.randint(1, 4)} 1{rng.randint(0, 9)}:00:00",
                "What": rng.choice(["Order Completed", "Store Visited", "größer"]),
                "Total": rng.choice(["", "19.90", "007", "1e3", 'a "quote",\nand a line']),
                "Id": rng.choice(["", "", f"own-{number}"]),
            }
        )
    return rows + rng.choices(rows, k=15)


def _write(path: Path, rows: list[dict[str, str]], rng: Random) -> None:
    columns = rng.sample(list(rows[0]), len(rows[0]))
    with path.open("w", newline="", encoding=rng.choice(["utf-8", "utf-8-sig"])) as file:
        out = csv.DictWriter(file, columns, delimiter=rng.choice(",;\t"), lineterminator=rng.choice(["\n", "\r\n"]))
        out.writeheader()
        out.writerows(rows)


@pytest.mark.parametrize("seed", range(6))
async def test_import_is_independent_of_order_splits_and_repetition(
    database_url: str, tmp_path: Path, seed: int
) -> None:
    rng = Random(seed)
    mapping = msgspec.structs.replace(MAPPING, columns={**COLUMNS, "Id": "message_id"})
    async with importing(database_url) as importer:
        rows = _rows(rng)
        whole = tmp_path / "whole.csv"
        _write(whole, rows, rng)
        first = await importer(whole, mapping)
        own = {row["Id"] for row in rows if row["Id"]}
        assert first.accepted == len(own) + sum(not row["Id"] for row in rows)
        assert (await importer(whole, mapping)).accepted == 0
        expected = await importer.stored()
        assert len(expected[0]) == first.accepted

        await importer.pipeline.pool.execute(f"TRUNCATE {TABLES}")
        rng.shuffle(rows)
        # Equal rows must stay in one file, because their ids contain the number of the copy within the file.
        kinds = sorted({repr(row) for row in rows})
        left = set(rng.sample(kinds, len(kinds) // 2))
        parts = [tmp_path / "left.csv", tmp_path / "right.csv"]
        for path, is_left in zip(parts, (True, False), strict=True):
            _write(path, [row for row in rows if (repr(row) in left) == is_left], rng)
        accepted = [(await importer(path, mapping)).accepted for path in (*parts[::-1], *parts)]
        assert sum(accepted) == first.accepted
        assert accepted[2:] == [0, 0]
        assert await importer.stored() == expected


async def test_resumed_import_numbers_equal_rows_as_before(importer: Importer, tmp_path: Path) -> None:
    path = tmp_path / "equal.csv"
    path.write_text("Customer;When;What\n" + "c1;2026-05-04 10:00:00;Bought\n" * 2_500)
    stopped = importer.pipeline.ingest.submit
    batches = 0

    async def submit(submission: Any) -> Any:
        nonlocal batches
        batches += 1
        if batches == 2:
            raise KeyboardInterrupt
        return await stopped(submission)

    importer.pipeline.ingest.submit = submit  # type: ignore[method-assign]  # raises as Ctrl-C between two batches does
    with pytest.raises(KeyboardInterrupt):
        await importer(path)
    report = await importer(path)
    assert (report.resumed_at_line, report.accepted, report.duplicate) == (1_001, 1_500, 0)
    assert (await importer(path)).duplicate == 2_500


async def _stop_after_a_batch(importer: Importer, path: Path, mapping: FileMapping) -> None:
    """Import the first batch, then raise KeyboardInterrupt as Ctrl-C would."""
    going = importer.pipeline.ingest.submit

    async def submit(submission: Any) -> Any:
        if b"m-1001" in submission.envelope.items[0]:
            raise KeyboardInterrupt
        return await going(submission)

    importer.pipeline.ingest.submit = submit  # type: ignore[method-assign]  # raises as Ctrl-C between two batches does
    try:
        with pytest.raises(KeyboardInterrupt):
            await importer(path, mapping)
    finally:
        importer.pipeline.ingest.submit = going  # type: ignore[method-assign]


async def test_changed_mapping_or_source_restarts_the_import(importer: Importer, tmp_path: Path) -> None:
    path = tmp_path / "till.csv"
    rows = [f"m-{number};c{number};{'2026-05-04 10:00:00' + 'Z' * (number > 10)};Bought" for number in range(1, 1_501)]
    path.write_text("Id;Customer;When;What\n" + "\n".join(rows))
    mended = msgspec.structs.replace(MAPPING, columns={**COLUMNS, "Id": "message_id"})
    without_zone = msgspec.structs.replace(mended, zone=None)
    await _stop_after_a_batch(importer, path, without_zone)
    assert len(faults(path)) == 10
    report = await importer(path, mended)
    assert (report.resumed_at_line, report.accepted, report.duplicate) == (0, 510, 990)
    assert faults(path) == []

    await _stop_after_a_batch(importer, path, mended)
    await importer.pipeline.registry.sources.create("till", "till")
    report = await importer(path, mended, source="till")
    assert (report.resumed_at_line, report.lines) == (0, 1_500)


# ------------------------------------------------------------------------------------------------- forms of files


async def test_skipped_rows_quotes_and_invalid_rows(importer: Importer, tmp_path: Path) -> None:
    path = tmp_path / "export.csv"
    path.write_bytes(
        b"\xef\xbb\xbfReport of May\n"
        b"Customer;When;What;Note;Note;\n"
        b";;;(why);;\n"
        b'c1;"2026-05-04 12:00:00";Bought;"two\nlines; quoted";b;c\n'
        b"c1;2026-05-04 12:00:00;Bought;1;2;3;4\n"
        b"c1;04/05/2026;Bought\n"
        b";2026-05-04 12:00:00;Bought\n"
        b"c1;2026-05-04 12:00:00;\n"
        b"c1;2026-05-04 12:00:00;Bought;gr\xf6\xdfer\n"
        b"\n"
        b"c1;1777888800.5;Bought"
    )
    mapping = msgspec.structs.replace(MAPPING, delimiter=";", skip_rows=1, skip_rows_after_header=1)
    report = await importer(path, mapping)
    assert (report.accepted, report.rejected) == (2, 5)
    assert [line for line, _ in sorted(faults(path))] == [6, 7, 8, 9, 10]
    errors = dict(faults(path))
    assert "7 cells, but the header has only 6" in errors[6]
    assert "add its format" in errors[7]
    assert "no usable id" in errors[8]
    assert "neither an event" in errors[9]
    assert "UTF-8" in errors[10]
    originals = [json.loads(line)["original"] for line in errors_path(path).read_text().splitlines()]
    assert "c1;04/05/2026;Bought" in originals
    rows = await importer.pipeline.pool.fetch("SELECT properties, occurred_at FROM touchpoints ORDER BY occurred_at")
    assert [json.loads(row["properties"]) for row in rows] == [
        {"note": "two\nlines; quoted", "note_5": "b", "column_6": "c"},
        {},
    ]


async def test_file_that_does_not_match_leaves_no_progress_file(importer: Importer, tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(MappingRefused, match="an identity as target"):
        await importer(path)
    path.write_bytes("Customer,When,What\n".encode("utf-16"))
    with pytest.raises(MappingRefused, match="UTF-16"):
        await importer(path)
    assert [item.name for item in tmp_path.iterdir()] == ["other.csv"]


async def test_ndjson_is_imported_by_a_mapping(importer: Importer, tmp_path: Path) -> None:
    path = tmp_path / "export.ndjson"
    lines = ['{"user":{"id":1},"when":1777888800,"what":"Bought","n":"1"}', "[1]", "{", '{"user":{"id":2},"what":"x"}']
    path.write_text("\n".join(lines))
    mapping = check_mapping(FileMapping(columns={"user.id": "user_id", "when": "timestamp", "what": "event"}))
    report = await importer(path, mapping)
    assert (report.accepted, report.rejected) == (1, 3)
    assert [line for line, _ in faults(path)] == [2, 3, 4]
    assert (await importer(path, mapping)).duplicate == 1


async def test_export_of_a_tool_is_read_by_its_connector(importer: Importer, tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"
    event = {"email": "user@example.com", "timestamp": 1777888800, "event": "open", "sg_event_id": "e-1"}
    lines = [
        event,
        {**event, "sg_event_id": "e-2"},
        [{**event, "sg_event_id": "e-3"}, 7],
        {"email": "x@example.com"},
        event,
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    report = await importer(path, kind="sendgrid")
    assert (report.accepted, report.duplicate, report.rejected) == (3, 1, 2)
    assert [line for line, _ in faults(path)] == [3, 4]
    names = await importer.pipeline.pool.fetch("SELECT DISTINCT name, channel FROM touchpoints")
    assert [tuple(row) for row in names] == [("email.opened", "email")]
    with pytest.raises(MappingRefused, match="no built-in mapping reads CSV files of sendgrid"):
        await importer(tmp_path / "events.csv", kind="sendgrid")
    with pytest.raises(MappingRefused, match="unknown kind 'nonsense'"):
        await importer(path, kind="nonsense")


async def test_erasure_requests_in_an_export_are_queued(importer: Importer, tmp_path: Path) -> None:
    path = tmp_path / "shopify.ndjson"
    payload = {"shop_domain": "shop.example.com", "customer": {"id": 115}}
    path.write_text(json.dumps({"topic": "customers/redact", "payload": payload}))
    assert (await importer(path, kind="shopify")).erasures == 1
    row = await importer.pipeline.pool.fetchrow("SELECT kind, value FROM erasure_requests")
    assert row is not None
    assert tuple(row) == ("shopify_customer", "115")


async def test_latin_1_csv_does_not_merge_customers(importer: Importer, tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    header, rest = "userId,type,event,timestamp,messageId", "track,Bought,2026-05-04T10:00:00Z"
    path.write_bytes(f"{header}\nMüller,{rest},1\nMöller,{rest},2\nMeier,{rest},3\n".encode("latin-1"))
    report = await importer(path, None)
    assert (report.accepted, report.rejected) == (1, 2)
    assert faults(path) == [(2, "the line is not UTF-8"), (3, "the line is not UTF-8")]
    path.write_bytes(f"{header},größe\nMeier,{rest},4,5\n".encode("latin-1"))
    with pytest.raises(MappingRefused, match="header is not UTF-8"):
        await importer(path, None)
    path.write_bytes(f"\ufeff{header}\nMüller,{rest},5\n".encode())
    assert (await importer(path, None)).accepted == 1


@pytest.mark.parametrize("name", ["own.csv", "own.ndjson"])
async def test_utf_16_file_is_refused(importer: Importer, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes("userId,type\nuser-1,track\n".encode("utf-16"))
    with pytest.raises(MappingRefused, match="UTF-16"):
        await importer(path, None)
    assert [item.name for item in tmp_path.iterdir()] == [name]


# ------------------------------------------------------------------------------------------------- ready mappings


def test_every_built_in_mapping_is_valid() -> None:
    kinds = built_in_mappings()
    assert {"orders", "returns", "deliveries", "store_purchases", "loyalty_cards", "customers"} <= set(kinds)
    assert all(about for about in kinds.values())


async def test_built_in_mappings_resolve_to_one_customer(importer: Importer, tmp_path: Path) -> None:
    who = "user@example.com"
    files = {
        "orders": f"order id,ordered at,email,total,currency,items\n0042,2026-05-01T10:00:00Z,{who},19.90,EUR,2\n",
        "deliveries": f"Order ID;Shipment ID;Delivered at;Email\n0042;S-1;2026-05-02T10:00:00Z;{who}\n",
        "returns": f"order_id,return_id,returned_at,email,reason\n0042,R-1,2026-05-03T10:00:00Z,{who},zu groß\n",
        "store_purchases": "receipt\tsold_at\tcard_number\tstore\ttotal\nB-7\t2026-05-04T10:00:00Z\tLC-9\tBerlin\t5\n",
        "loyalty_cards": f"card,email,tier,issued_at\nLC-9,{who},gold,2026-04-01T10:00:00Z\n",
    }
    for kind, text in files.items():
        path = tmp_path / f"{kind}.csv"
        path.write_text(text)
        report = await importer(path, kind=kind)
        assert (report.accepted, faults(path)) == (1, [])
    rows = await importer.pipeline.pool.fetch(
        "SELECT name, channel, properties, context FROM touchpoints WHERE name IS NOT NULL ORDER BY occurred_at"
    )
    errors = [(row["name"], row["channel"], json.loads(row["properties"])) for row in rows]
    assert errors == [
        ("Order Completed", "shop", {"order_id": "0042", "total": 19.9, "currency": "EUR", "items": 2}),
        ("Order Delivered", "shop", {"order_id": "0042", "shipment_id": "S-1"}),
        ("Order Returned", "shop", {"order_id": "0042", "return_id": "R-1"}),
        ("Order Completed", "in_store", {"order_id": "B-7", "store": "Berlin", "total": 5}),
    ]
    assert json.loads(rows[2]["context"])["private"] == {"reason": "zu groß"}
    groups = await importer.pipeline.groups("")
    assert groups == {frozenset({"email:user@example.com", "loyalty_card:LC-9"})}
