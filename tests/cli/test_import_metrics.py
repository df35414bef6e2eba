"""``segue import-metrics``: imports a file of daily metrics from the command line."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
from typer.testing import CliRunner, Result

from app.cli.commands import cli

BY_DAY = 'Date,Impressions,Likes\n"Mon, May 4, 2026","1,250",9\n"Tue, May 5, 2026",many,3\n'


def run(database_url: str, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["import-metrics", *arguments, "--database-url", database_url])


def rows(database_url: str) -> list[tuple[Any, ...]]:
    async def fetch() -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(database_url)
        try:
            records = await connection.fetch(
                "SELECT source, kind, metric, subject, day::text, value::text FROM channel_metrics ORDER BY metric, day"
            )
            assert await connection.fetchval("SELECT count(*) FROM customers") == 0
        finally:
            await connection.close()
        return [tuple(row) for row in records]

    return asyncio.run(fetch())


def test_import_metrics_stores_a_file_once_and_reports_bad_rows(database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "by-day.csv"
    file.write_text(BY_DAY)
    first = run(database_url, str(file), "--kind", "twitter_analytics", "--subject", "@brand")
    assert first.exit_code == 0, first.output
    assert "3 added, 0 changed, 0 unchanged, 1 bad rows." in first.output
    assert "line 3: impressions is not a readable number: 'many'" in first.output
    stored_rows = rows(database_url)
    assert stored_rows == [
        ("twitter-analytics", "twitter_analytics", "impressions", "@brand", "2026-05-04", "1250"),
        ("twitter-analytics", "twitter_analytics", "likes", "@brand", "2026-05-04", "9"),
        ("twitter-analytics", "twitter_analytics", "likes", "@brand", "2026-05-05", "3"),
    ]
    again = run(database_url, str(file), "--kind", "twitter_analytics", "--subject", "@brand")
    assert "0 added, 0 changed, 3 unchanged" in again.output
    assert rows(database_url) == stored_rows


def test_invalid_metric_options_fail_with_one_line(database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "keywords.csv"
    file.write_text("Keyword;Position\nshoes;3\n")
    for arguments, reason in (
        (("--kind", "horoscope"), "Unknown kind horoscope"),
        (("--kind", "semrush"), "the file has no column of days"),
        (("--kind", "semrush", "--day", "soon"), "soon is not a valid day"),
        (("--kind", "semrush", "--day", "2026-05-04", "--dates", "ymd"), "--dates must be dmy or mdy"),
    ):
        result = run(database_url, str(file), *arguments)
        assert result.exit_code == 1
        assert reason in " ".join(result.output.split())
        assert "Traceback" not in result.output
    assert rows(database_url) == []
    assert run(database_url, str(file), "--kind", "semrush", "--day", "2026-05-04", "--source", "seo").exit_code == 0
    assert [row[:2] for row in rows(database_url)] == [("seo", "semrush")]
