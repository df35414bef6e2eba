"""Durability test: load, ``kill -9`` at random times, and a comparison of the log with the acknowledged messages.

Senders post each message once and record what the server acknowledged. Meanwhile the server, the postmaster of
PostgreSQL, or both are killed. :mod:`test_durability` runs this for a minute, ``bench.durability`` for longer.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from app.config import Settings
from app.postgres.embedded import EmbeddedPostgres
from app.postgres.pool import open_pool
from app.projection.project import caps_of
from app.touchpoint import DAY, HOUR
from tests.support.pipeline import item
from tests.support.reference_model import SentMessage, customers
from tests.support.server_process import Server

T0: Final = 1_740_000_000_000_000
EVENTS: Final = ("Ad Viewed", "Product Viewed", "Product Added", "Order Completed", "Email Opened", "Referral Sent")
MESSAGES_PER_PERSON: Final = 40


@dataclass
class Notes:
    """Records of the senders: messages that may have arrived (``sent``), and ids of acknowledged messages (``acked``).

    ``in_doubt`` is the number of requests whose connection broke or whose response was 503.
    """

    sent: dict[str, SentMessage] = field(default_factory=dict)
    acked: set[str] = field(default_factory=set)
    in_doubt: int = 0
    answers: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


@dataclass
class Kills:
    server: int = 0
    postmaster: int = 0
    both: int = 0
    in_doubt: int = 0
    """Number of kills that interrupted requests in flight."""
    ready_seconds: list[float] = field(default_factory=list)
    """Seconds from each start to readiness, including the recovery of PostgreSQL."""

    @property
    def total(self) -> int:
        return self.server + self.postmaster + self.both


class Traffic:
    """Random messages of customers who log in, share devices and addresses, and are merged by aliases."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._count = 0

    def batch(self) -> list[SentMessage]:
        return [self._message() for _ in range(self._rng.choice([1, 1, 5, 25]))]

    def _message(self) -> SentMessage:
        rng = self._rng
        self._count += 1
        newest = self._count // MESSAGES_PER_PERSON
        person = max(0, newest - rng.randint(0, 3))
        t = T0 + rng.randrange(60 * DAY // HOUR) * HOUR
        message_id = f"m{self._count}"
        if rng.random() < 0.01:
            previous = rng.choice([f"u{person + 1}", f"d{person}-0", f"d{person}-1"])
            return SentMessage(t, message_id, "alias", {"user_id": f"u{person}"}, previous=previous)
        own = self._ids(person)
        if rng.random() < 0.1:
            return SentMessage(t, message_id, "identify", own, traits={"plan": rng.choice(["gold", "free", None])})
        return SentMessage(
            t, message_id, "track", own, name=rng.choice(EVENTS), properties={"total": rng.randint(1, 99)}
        )

    def _ids(self, person: int) -> dict[str, str]:
        """Return the ids of a device, sometimes with ids of its owner, and sometimes with ids of another customer."""
        rng = self._rng
        device = {"anonymous_id": f"d{person + rng.choice([0, 0, 0, 0, 0, 1])}-{rng.randint(0, 2)}"}
        user, email = {"user_id": f"u{person}"}, {"email": f"p{person}@example.com"}
        return rng.choice([device, device, device | user, user, device | user | email, email, device | email])


class CrashLoad:
    """One server under load, whose processes are killed."""

    def __init__(self, server: Server, seed: int, tell: Callable[[str], None] = print) -> None:
        self.server = server
        self.notes = Notes()
        self.kills = Kills()
        self._rng = random.Random(seed)
        self._traffic = Traffic(random.Random(seed + 1))
        self._tell = tell
        self._over = asyncio.Event()

    async def run(self, kills_of: Sequence[str], senders: int = 8) -> None:
        """Kill the processes in ``kills_of`` in turn while ``senders`` send.

        At the end the server is ready and receives messages.
        """
        await asyncio.to_thread(self.server.start)
        # The messages state who their senders are, as those of the site's servers do.
        await asyncio.to_thread(self.server.change_write_key, trust="server")
        sending = [asyncio.create_task(self._send()) for _ in range(senders)]
        reading = asyncio.create_task(self._read())
        try:
            for number, victim in enumerate(kills_of, 1):
                await self._wait_until_acked()
                await asyncio.sleep(self._rng.uniform(0, 0.5))
                before = self.notes.in_doubt
                await self._kill(victim)
                started = time.monotonic()
                await self.server.wait_until_ready()
                self.kills.ready_seconds.append(time.monotonic() - started)
                self.kills.in_doubt += self.notes.in_doubt > before
                self._tell(f"{number}/{len(kills_of)} {victim}: {len(self.notes.acked)} acknowledged so far")
            await self._wait_until_acked()
        finally:
            self._over.set()
            await asyncio.gather(*sending, reading)

    async def _wait_until_acked(self) -> None:
        """Wait until more messages are acknowledged, so that the next kill happens during traffic."""
        goal = len(self.notes.acked) + self._rng.randint(1, 200)
        async with asyncio.timeout(60):
            while len(self.notes.acked) < goal:
                await asyncio.sleep(0.005)

    async def _kill(self, victim: str) -> None:
        postmaster = await asyncio.to_thread(lambda: self.server.postmaster)
        assert postmaster is not None
        if victim in ("postmaster", "both"):
            os.kill(postmaster, signal.SIGKILL)
        if victim in ("server", "both"):
            self.server.kill()
            self.server.spawn()
        else:
            await self._wait_until_restarted(postmaster)
        setattr(self.kills, victim, getattr(self.kills, victim) + 1)

    async def _wait_until_restarted(self, dead: int) -> None:
        """Wait until the server has started a new postmaster."""
        async with asyncio.timeout(60):
            while await asyncio.to_thread(lambda: self.server.postmaster) in (None, dead):
                await asyncio.sleep(0.02)

    async def _send(self) -> None:
        async with httpx.AsyncClient(base_url=self.server.url, timeout=30, limits=_ONE) as http:
            while not self._over.is_set():
                batch = self._traffic.batch()
                if not await self._was_acked(http, batch):
                    await asyncio.sleep(0.05)

    async def _was_acked(self, http: httpx.AsyncClient, batch: Sequence[SentMessage]) -> bool:
        body = {"writeKey": self.server.write_key, "batch": [item(sent_message) for sent_message in batch]}
        try:
            answer = await http.post("/v1/batch", json=body)
        except httpx.ConnectError:
            # The server has not received these messages, so the log must not contain them.
            return False
        except httpx.TransportError:
            self.notes.sent |= {sent_message.message_id: sent_message for sent_message in batch}
            self.notes.in_doubt += 1
            return False
        self.notes.sent |= {sent_message.message_id: sent_message for sent_message in batch}
        self.notes.answers[answer.status_code] += 1
        if answer.status_code == httpx.codes.OK:
            receipt = answer.json()
            if (receipt["accepted"], receipt["projected"]) != (len(batch), True):
                self.notes.faults.append(f"a batch of {len(batch)} new messages: {answer.text}")
            self.notes.acked |= {sent_message.message_id for sent_message in batch}
            return True
        self.notes.in_doubt += 1
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or not answer.headers["Retry-After"].isdecimal():
            self.notes.faults.append(f"{answer.status_code}: {answer.text}")
        return False

    async def _read(self) -> None:
        """Read a customer repeatedly. Each response must contain the customer or be a 503 with Retry-After."""
        headers = {"Authorization": f"Bearer {self.server.secret_key}"}
        allowed = {httpx.codes.OK, httpx.codes.NOT_FOUND, httpx.codes.SERVICE_UNAVAILABLE}
        async with httpx.AsyncClient(base_url=self.server.url, timeout=30, headers=headers) as http:
            while not self._over.is_set():
                with suppress(httpx.TransportError):
                    answer = await http.get("/v1/customers/user_id:u0")
                    if answer.status_code == httpx.codes.OK:
                        allowed.discard(httpx.codes.NOT_FOUND)
                    told_when = answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or "Retry-After" in answer.headers
                    if answer.status_code not in allowed or not told_when:
                        self.notes.faults.append(f"a read: {answer.status_code} {answer.text}")
                await asyncio.sleep(0.05)


_ONE: Final = httpx.Limits(max_connections=1)


async def stored_messages(siege: CrashLoad) -> list[SentMessage]:
    """Compare the log with the records of the senders, and return the messages in it. The server must have stopped."""
    notes = siege.notes
    assert notes.faults == [], notes.faults[:3]
    rows = await _fetch(siege.server, "SELECT message_id, count(*) FROM touchpoints GROUP BY message_id")
    stored: dict[str, int] = dict(rows)
    assert sorted(notes.acked - stored.keys()) == [], "acknowledged messages are lost"
    assert {message_id: count for message_id, count in stored.items() if count > 1} == {}, "messages are stored twice"
    assert sorted(stored.keys() - notes.sent.keys()) == [], "messages are stored that were not sent"
    assert await _fetch(siege.server, "SELECT count(*) FROM ledger") == [(len(stored),)]
    assert await _fetch(siege.server, "SELECT count(*) FROM deferred") == [(0,)]
    assert await _fetch(siege.server, "SELECT count(*) FROM customers WHERE stale") == [(0,)]
    return [notes.sent[message_id] for message_id in stored]


async def check_customers(server: Server, sent_message: Sequence[SentMessage]) -> None:
    """Check that identities are grouped into customers as in the reference model, given the stored messages."""
    rows = await _fetch(
        server, "SELECT customer_id, kind || ':' || value FROM identities WHERE customer_id IS NOT NULL"
    )
    groups: dict[bytes, set[str]] = {}
    for customer, name in rows:
        groups.setdefault(customer, set()).add(name)
    caps = caps_of(Settings())
    by_kind = {"anonymous_id": caps.anonymous_ids, "email": caps.contacts}
    assert {frozenset(group) for group in groups.values()} == customers(sent_message, by_kind)


def check_rebuild(server: Server) -> None:
    """Check that a rebuild from the log changes neither a state nor an interval."""
    before = asyncio.run(_fetch(server, _INTERVALS))
    done = server.command("rebuild")
    assert done.returncode == 0, done.stderr
    assert "0 customers differed from the log." in done.stdout
    assert asyncio.run(_fetch(server, _INTERVALS)) == before
    assert before, "no customer has a history"


_INTERVALS: Final = """
SELECT customer_id, definition, value, version, entered_at, left_at, entered_cause, left_cause
FROM transitions WHERE retracted_at IS NULL
ORDER BY customer_id, definition, value, entered_at
"""


async def _fetch(server: Server, statement: str) -> list[tuple[Any, ...]]:
    """Run the statement. Start the embedded cluster if it is not running."""
    with ExitStack() as stack:
        url = server.database_url or stack.enter_context(EmbeddedPostgres(server.data)).start()
        pool = await open_pool(url, 1)
        try:
            return [tuple(row) for row in await pool.fetch(statement)]
        finally:
            await pool.close()
