"""Limit of the messages that one read replays, so that long histories are read outside the serving process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from app.projection.state import count_messages

UNLIMITED: Final = 10**12
"""Value of ``read_messages_max`` in a process that answers every read itself."""


class HeavyRead(Exception):
    """A read would occupy the process that serves ingestion for too long. The background process must answer it."""


class HeavyPageRead(HeavyRead):
    """A heavy read of a page. Anyone can cause such reads, so fewer of them may wait for the background process."""


def check_replay_length(states: Iterable[bytes], messages_max: int, messages_skipped: int = 0) -> None:
    """Raise :class:`HeavyRead` if the customers with these stored states have more than ``messages_max`` messages.

    ``messages_skipped`` of them are in checkpoints, from which a read continues.
    """
    if sum(map(count_messages, states)) - messages_skipped > messages_max:
        raise HeavyRead
