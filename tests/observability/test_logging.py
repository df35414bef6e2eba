"""Logging: one JSON object per line, without personal data."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
import structlog

from app.observability.logging import configure


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_library_log_lines_have_the_same_format(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info")
    structlog.get_logger("app.ingest").info("flushed", messages=3)
    logging.getLogger("uvicorn.error").info("Started server process [%d]", 7, extra={"color_message": "twice"})
    own_line, library_line = lines(capsys)
    assert own_line.items() >= {"event": "flushed", "messages": 3, "level": "info", "logger": "app.ingest"}.items()
    assert library_line["event"] == "Started server process [7]"
    assert own_line.keys() - {"messages"} == library_line.keys()


def test_log_level_applies_and_access_log_is_off(capsys: pytest.CaptureFixture[str]) -> None:
    configure("warning")
    structlog.get_logger("app").info("not this")
    logging.getLogger("uvicorn.access").error("GET /v1/customers/someone@example.com")
    structlog.get_logger("app").warning("this")
    assert [line["event"] for line in lines(capsys)] == ["this"]


def test_secrets_in_queries_are_masked(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    logging.getLogger("uvicorn.error").warning('"GET /v1/sources/tool/webhook?a=1&token=hidden-1&b=2 HTTP/1.1"')
    try:
        raise ValueError("https://example.com/?access_token=hidden-2")
    except ValueError:
        structlog.get_logger("app").exception("request.failed", url="https://example.com/?X-Amz-Signature=hidden-3")
    warning, failure = lines(capsys)
    assert warning["event"] == '"GET /v1/sources/tool/webhook?a=1&token=***&b=2 HTTP/1.1"'
    assert failure["url"] == "https://example.com/?X-Amz-Signature=***"
    assert "hidden" not in failure["exception"]


def test_database_error_details_are_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    error = asyncpg.UniqueViolationError("duplicate key")
    error.detail = "Key (value)=(someone@example.com)\nalready exists."
    try:
        try:
            raise error
        except asyncpg.UniqueViolationError as refused:
            raise RuntimeError("flush failed") from refused
    except RuntimeError:
        structlog.get_logger("app").exception("flush_failed")
    (line,) = lines(capsys)
    assert "duplicate key" in line["exception"]
    assert "flush failed" in line["exception"]
    assert "someone" not in line["exception"]


def test_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="use one of debug"):
        configure("loud")
