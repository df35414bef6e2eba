"""Logging: one JSON object a line where a program reads it, colours where a person does. To stderr.

What is logged are events, counts, durations and error codes; never a payload, a key, or an id of a customer.
Libraries' records take the same way, and uvicorn's access log, whose lines would hold ids, is off.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from typing import Final, TextIO

import structlog
from structlog.typing import EventDict, ExcInfo, Processor

_LEVELS: Final = ("debug", "info", "warning", "error")

_QUIETED_LOGGERS: Final = ("httpx", "httpcore", "asyncio", "alembic", "asyncpg.pool", "sqlalchemy.engine")
"""Libraries that tell more than anybody asked, URLs with ids among it; their warnings are kept."""


def configure(level: str = "info", *, access_log: bool = False) -> None:
    """Set up structlog and the standard library's logging; the last call wins. Raises ValueError on another level.

    Call it before uvicorn starts and pass uvicorn ``log_config=None``, so that it keeps its hands off.
    """
    if level.lower() not in _LEVELS:
        raise ValueError(f"log level {level!r} is none of {', '.join(_LEVELS)}")
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        # Modules get their loggers at import, before this; a cached one would keep what it first saw.
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=_build_renderers()))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True
    logging.getLogger("uvicorn.access").disabled = not access_log
    for name in _QUIETED_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)


def _build_renderers() -> list[Processor]:
    drop_internals = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if sys.stderr.isatty():
        # Not the pretty tracebacks: they print local variables, and those hold what customers sent.
        console = structlog.dev.ConsoleRenderer(exception_formatter=_print_traceback)
        return [_drop_color_message, drop_internals, console]
    json = structlog.processors.JSONRenderer(ensure_ascii=False)
    return [_drop_color_message, drop_internals, structlog.processors.ExceptionRenderer(_format_traceback), json]


_DETAIL: Final = re.compile(r"^DETAIL:.*?(?=^HINT:|^Traceback |^The above |^During |\Z)", re.MULTILINE | re.DOTALL)


def _format_traceback(exc_info: ExcInfo) -> str:
    """The usual text without PostgreSQL's DETAIL, which quotes the row that was refused."""
    return _DETAIL.sub("", "".join(traceback.format_exception(*exc_info))).rstrip()


def _print_traceback(out: TextIO, exc_info: ExcInfo) -> None:
    print(_format_traceback(exc_info), file=out)


def _drop_color_message(_logger: object, _method: str, event: EventDict) -> EventDict:
    """uvicorn says everything twice, once in colours."""
    event.pop("color_message", None)
    return event
