"""Logging to stderr: one JSON object a line, or coloured text if stderr is a terminal.

Log lines contain events, counts, durations and error codes, never a payload, a key or an id of a customer. Records of
libraries are formatted in the same way. Uvicorn's access log is off, because its lines contain ids. In every line, the
values of secret query parameters are masked: tools without a signature put their token into the webhook's URL.
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
"""Libraries whose info records are too verbose or contain URLs with ids; only their warnings are logged."""


def configure(level: str = "info", *, access_log: bool = False, process: str | None = None) -> None:
    """Configure structlog and the standard library's logging; a later call replaces an earlier one.

    ``process`` is the name of this process, which every record then contains.

    Call it before uvicorn starts, and pass ``log_config=None`` to uvicorn so that it does not configure logging itself.

    Raises:
        ValueError: the level is unknown.
    """
    if level.lower() not in _LEVELS:
        raise ValueError(f"unknown log level {level!r}; use one of {', '.join(_LEVELS)}")
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        *([] if process is None else [_add_process(process)]),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        # Modules create their loggers at import, before this call; a cached logger would keep the old configuration.
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


def _add_process(name: str) -> Processor:
    def add_process(_logger: object, _method: str, event: EventDict) -> EventDict:
        return {**event, "process": name}

    return add_process


def _build_renderers() -> list[Processor]:
    drop_internals = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if sys.stderr.isatty():
        # structlog's rich tracebacks print local variables, which contain customers' data.
        console = structlog.dev.ConsoleRenderer(exception_formatter=_print_traceback)
        return [_drop_color_message, drop_internals, console, _mask_query_secrets]
    json = structlog.processors.JSONRenderer(ensure_ascii=False)
    return [
        _drop_color_message,
        drop_internals,
        structlog.processors.ExceptionRenderer(_format_traceback),
        json,
        _mask_query_secrets,
    ]


_QUERY_SECRET: Final = re.compile(
    r"([?&](?:[a-z_-]*token|[a-z_-]*secret|[a-z_-]*signature|api_?key|password|writeKey)=)[^&\s\"'<>)\\]+",
    re.IGNORECASE,
)


def _mask_query_secrets(_logger: object, _method: str, line: EventDict | str) -> str:
    """Mask the values of secret query parameters in a rendered line, also of lines that a library has logged."""
    return _QUERY_SECRET.sub(r"\1***", str(line))


_DETAIL: Final = re.compile(r"^DETAIL:.*?(?=^HINT:|^Traceback |^The above |^During |\Z)", re.MULTILINE | re.DOTALL)


def _format_traceback(exc_info: ExcInfo) -> str:
    """Format a traceback without PostgreSQL's DETAIL lines, which quote the rejected row."""
    return _DETAIL.sub("", "".join(traceback.format_exception(*exc_info))).rstrip()


def _print_traceback(out: TextIO, exc_info: ExcInfo) -> None:
    print(_format_traceback(exc_info), file=out)


def _drop_color_message(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Drop the coloured copy of the message that uvicorn adds to each record."""
    event.pop("color_message", None)
    return event
