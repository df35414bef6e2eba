"""Limit of open files of the server process: every connection of a client is an open file."""

from __future__ import annotations

import resource
from typing import Final

import structlog

from app.config import Settings

_OTHER_FILES: Final = 100
"""Open files beside the connections: the listening socket, logs, libraries, and the background process."""

log = structlog.get_logger(__name__)


def raise_open_files_limit(settings: Settings) -> None:
    """Raise the soft limit as far as the connection limits need it, and log a warning if the hard limit is lower."""
    needed = settings.connections_max + settings.pool_connections_max + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    if limit < needed:
        log.warning(
            "open_files.limited",
            limit=limit,
            needed=needed,
            remedy="Raise the hard limit of open files (ulimit -Hn), or lower SEGUE_CONNECTIONS_MAX.",
        )
