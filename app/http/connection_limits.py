"""Limits of the connections, memory and time that the clients of one process occupy.

Clients occupy them with requests that are incomplete, and with responses that they do not read.

:class:`app.http.server_protocol.BoundedProtocol` reports the phase of each connection and the bytes that it holds. If a
bound is reached, the connection that has waited longest gives way, so that a client which holds many resources does not
keep others out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from enum import Enum
from typing import Final, Literal, Protocol

from app.config import Settings
from app.errors import Overloaded, SegueError, TooManyConnections
from app.http.rate_limits import group_address
from app.observability.metrics import Metrics

CLOSING_SECONDS_MAX: Final = 2.0
"""Seconds for which a refused client can still read the response and end its request, before the connection is cut."""
STALLED_SECONDS_MAX: Final = 60.0
"""Seconds for which a client may leave a response unread."""
_SWEEP_SECONDS: Final = 0.5
_RETRY_SECONDS: Final = 1

Refusal = Literal[
    "malformed",
    "head_size",
    "head_time",
    "body_time",
    "body_memory",
    "connections",
    "address_connections",
    "stalled",
    "unread_memory",
]
"""Reasons for refusing a client, which are the labels of ``segue_clients_refused_total``."""


class Phase(Enum):
    """The event for which a connection waits."""

    IDLE = "the next request"
    HEAD = "the end of a request's head"
    BODY = "the end of a request's body"
    RESPONSE = "the handler"
    CLOSING = "the client to read the refusal and to close"


class LimitedConnection(Protocol):
    """A connection, as :class:`ConnectionLimits` sees it."""

    address: str | None

    def end_phase(self, phase: Phase) -> None:
        """End a phase that takes too long: refuse the request or close the connection."""

    def give_way(self) -> None:
        """Release everything that the connection holds, because others need it."""

    def cut(self) -> None:
        """Close the connection, and discard what the client has not read."""


class ConnectionLimits:
    """The connections of one process with their phases, in the order in which they entered the phase."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.limits = settings.limits
        self._metrics = metrics
        self._connections_max = settings.connections_max
        self._address_connections_max = settings.address_connections_max
        self._held_bytes_max = settings.unfinished_bytes_max
        self._unread_bytes_max = settings.unread_bytes_max
        self._seconds_max = {
            Phase.IDLE: settings.idle_seconds_max,
            Phase.HEAD: settings.head_seconds_max,
            Phase.BODY: settings.body_seconds_max,
            Phase.CLOSING: CLOSING_SECONDS_MAX,
        }
        self._phases: dict[LimitedConnection, Phase] = {}
        self._deadlines: dict[Phase, dict[LimitedConnection, float]] = {phase: {} for phase in Phase}
        self._stalled: dict[LimitedConnection, float] = {}
        self._of_address: dict[str, dict[LimitedConnection, None]] = {}
        self._held: dict[LimitedConnection, int] = {}
        self._held_bytes = 0
        self._unread: dict[LimitedConnection, int] = {}
        self._unread_bytes = 0
        self._sweep: asyncio.TimerHandle | None = None
        metrics.watch_connections(lambda: len(self._phases), lambda: self._held_bytes, lambda: self._unread_bytes)

    def refuse(self, reason: Refusal) -> None:
        """Count a refusal."""
        self._metrics.count_refused_client(reason)

    def admit(self, connection: LimitedConnection, trusted_proxies: Collection[str]) -> SegueError | None:
        """Register a new connection, or return the error with which to refuse it.

        All clients of a trusted proxy share its address, so the limit of one address does not apply to it.
        """
        address = connection.address
        if address is not None and address not in trusted_proxies:
            of_address = self._of_address.setdefault(group_address(address), {})
            if len(of_address) >= self._address_connections_max and not self._make_room(of_address):
                self.refuse("address_connections")
                return TooManyConnections()
            of_address[connection] = None
        if len(self._phases) >= self._connections_max and not self._make_room(self._phases):
            self._leave_address(connection)
            self.refuse("connections")
            return Overloaded("The server has too many open connections; try again later.", _RETRY_SECONDS)
        self._phases[connection] = Phase.RESPONSE
        self.enter(connection, Phase.HEAD)
        return None

    def enter(self, connection: LimitedConnection, phase: Phase) -> None:
        """Note that a registered connection is in another phase, or starts the same phase again."""
        previous = self._phases.get(connection)
        if previous is None:
            return
        self._deadlines[previous].pop(connection, None)
        self._phases[connection] = phase
        seconds_max = self._seconds_max.get(phase)
        if seconds_max is not None:
            loop = asyncio.get_running_loop()
            self._deadlines[phase][connection] = loop.time() + seconds_max
            if self._sweep is None:
                self._sweep = loop.call_later(_SWEEP_SECONDS, self._end_late_phases, loop)

    def hold(self, connection: LimitedConnection, held_bytes: int) -> None:
        """Note the memory that the unfinished request of a connection occupies, in bytes.

        If all connections together hold too much, those give way whose requests have been unfinished longest. So a
        request that arrives quickly is served also while one client holds all memory.
        """
        held_before = self._held.get(connection, 0)
        if held_bytes == held_before:
            return
        if held_bytes:
            self._held[connection] = held_bytes
        else:
            del self._held[connection]
        self._held_bytes += held_bytes - held_before
        while self._held_bytes > self._held_bytes_max:
            oldest = next(iter(self._held))
            self.hold(oldest, 0)
            self.refuse("body_memory")
            oldest.give_way()

    def stall(self, connection: LimitedConnection, unread_bytes: int) -> None:
        """Note that the client does not read its response, of which ``unread_bytes`` wait in memory.

        If the responses of all clients together hold too much, those are cut that have waited longest.
        """
        self._stalled[connection] = asyncio.get_running_loop().time() + STALLED_SECONDS_MAX
        self._unread[connection] = unread_bytes
        self._unread_bytes += unread_bytes
        while self._unread_bytes > self._unread_bytes_max and len(self._unread) > 1:
            self._cut_stalled(next(iter(self._unread)), "unread_memory")

    def unstall(self, connection: LimitedConnection) -> None:
        self._stalled.pop(connection, None)
        self._unread_bytes -= self._unread.pop(connection, 0)

    def _cut_stalled(self, connection: LimitedConnection, reason: Refusal) -> None:
        self.unstall(connection)
        self.refuse(reason)
        connection.cut()

    def forget(self, connection: LimitedConnection) -> None:
        """Remove a closed connection."""
        self._release_place(connection)
        for deadlines in self._deadlines.values():
            deadlines.pop(connection, None)
        self.unstall(connection)
        self.hold(connection, 0)

    def _release_place(self, connection: LimitedConnection) -> None:
        """Count the connection no longer; its deadline stays."""
        self._phases.pop(connection, None)
        self._leave_address(connection)

    def _leave_address(self, connection: LimitedConnection) -> None:
        if connection.address is None:
            return
        group = group_address(connection.address)
        of_address = self._of_address.get(group)
        if of_address is not None:
            of_address.pop(connection, None)
            if not of_address:
                del self._of_address[group]

    def _make_room(self, candidates: Collection[LimitedConnection]) -> bool:
        """Close one of the connections that wait for their client, the longest waiting first. Return whether one did.

        An idle connection goes first, because its client loses nothing; then one whose response waits to be read. A
        request that a handler works on never does.
        """
        for waiting, gives_way in (
            (self._deadlines[Phase.IDLE], False),
            (self._deadlines[Phase.CLOSING], False),
            (self._stalled, False),
            (self._deadlines[Phase.HEAD], True),
            (self._deadlines[Phase.BODY], True),
        ):
            connection = next(self._in_order(waiting, candidates), None)
            if connection is None:
                continue
            if gives_way or waiting is self._stalled:
                self.refuse("connections")
            if gives_way:
                connection.give_way()
                self._release_place(connection)  # It is cut later if the client does not close it.
            else:
                connection.cut()
                self.forget(connection)
            return True
        return False

    def _in_order(
        self, waiting: dict[LimitedConnection, float], candidates: Collection[LimitedConnection]
    ) -> Iterator[LimitedConnection]:
        if candidates is self._phases:
            return iter(waiting)
        return iter(sorted((one for one in candidates if one in waiting), key=waiting.__getitem__))

    def _end_late_phases(self, loop: asyncio.AbstractEventLoop) -> None:
        """End all phases whose deadline has passed. A sweep costs less than a timer for each phase of a request."""
        now = loop.time()
        for phase, deadlines in self._deadlines.items():
            for connection in _pop_late(deadlines, now):
                connection.end_phase(phase)
        for connection in _pop_late(self._stalled, now):
            self._cut_stalled(connection, "stalled")
        self._sweep = (
            loop.call_later(_SWEEP_SECONDS, self._end_late_phases, loop)
            if self._phases or self._deadlines[Phase.CLOSING]
            else None
        )


def _pop_late(deadlines: dict[LimitedConnection, float], now: float) -> list[LimitedConnection]:
    """Remove and return the connections whose deadline has passed; the first ones in the dictionary are the oldest."""
    late: list[LimitedConnection] = []
    for connection, deadline in deadlines.items():
        if deadline > now:
            break
        late.append(connection)
    for connection in late:
        del deadlines[connection]
    return late
