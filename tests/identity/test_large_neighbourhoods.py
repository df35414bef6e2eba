"""Links of identities with many other links: a flush does not read the whole graph, and the worker decides them."""

from __future__ import annotations

import asyncio
import json

import msgspec

from app.formats import segment
from app.ingest.pending_request import Receipt
from app.ingest.submit import Submission
from app.touchpoint import SECOND
from tests.support.pipeline import Pipeline, item, running_pipeline
from tests.support.reference_model import SentMessage, customers

T = 1_700_000_000_000_000
NOW = T + 3_600 * SECOND
CAPS = {"user_id": 3, "anonymous_id": 1_000, "email": 20, "phone": 20, "tool": 100, "total": 2_000}
NEIGHBOURS_MAX = 20


def claim(second: int, user: str, device: str | None = None, previous: str | None = None) -> SentMessage:
    ids = {"user_id": user} if device is None else {"user_id": user, "anonymous_id": device}
    kind = "track" if previous is None else "alias"
    return SentMessage(T + second * SECOND, f"m{second}-{user}", kind, ids, name="viewed", previous=previous)


async def send_all(pipeline: Pipeline, messages: list[SentMessage]) -> bool:
    """Send the messages one by one; return whether all were projected at once."""
    receipts = [await pipeline.send([item(message)]) for message in messages]
    return all(receipt.projected for receipt in receipts)


async def dry_run(pipeline: Pipeline, message: SentMessage) -> Receipt:
    body = json.dumps({"batch": [item(message)]}).encode()
    view = msgspec.structs.replace(pipeline.registry.access.current.sources["default"], trust="server")
    envelope = segment.read(body, "batch", pipeline.settings.limits)
    submission = Submission(source=view, envelope=envelope, received_at=NOW, size_bytes=len(body))
    return (await pipeline.ingest.dry_run(submission)).receipt


async def test_worker_decides_links_of_a_large_neighbourhood(database_url: str) -> None:
    """Thirty users share a device. An early message moves the device, which concerns all of them."""
    shared = [claim(100 + number, f"u{number}", "device") for number in range(30)]
    late = claim(1, "u7", "device")
    quiet = claim(2, "quiet", "other")
    async with running_pipeline(database_url, NOW, neighbours_max=NEIGHBOURS_MAX) as pipeline:
        assert await send_all(pipeline, shared), "later conflicts change no other link"
        trial = await dry_run(pipeline, late)
        assert (trial.accepted, trial.projected) == (1, False)
        late_receipt, quiet_receipt = await asyncio.gather(pipeline.send([item(late)]), pipeline.send([item(quiet)]))
        assert (late_receipt.accepted, late_receipt.projected) == (1, False)
        assert (quiet_receipt.accepted, quiet_receipt.projected) == (1, True)
        assert await pipeline.worker.project_deferred()
        assert await pipeline.groups("") == customers([*shared, late, quiet], CAPS)


async def test_own_device_in_a_large_neighbourhood_is_linked_at_once(database_url: str) -> None:
    """Pages can claim the addresses of many users, so conflicts must not delay what servers send about these users."""
    shared = [claim(100 + number, f"u{number}", "device") for number in range(30)]
    own = [claim(number, f"u{number}", f"own-{number}") for number in range(30)]
    async with running_pipeline(database_url, NOW, neighbours_max=NEIGHBOURS_MAX) as pipeline:
        assert await send_all(pipeline, shared)
        assert await send_all(pipeline, own), "a link that joins its groups changes no conflict"
        assert await pipeline.groups("") == customers([*shared, *own], CAPS)


async def test_aliases_beyond_the_maximum_need_no_neighbourhood(database_url: str) -> None:
    aliases = [claim(number, "hub", previous=f"p{number}") for number in range(40)]
    async with running_pipeline(
        database_url, NOW, neighbours_max=NEIGHBOURS_MAX, user_ids_per_customer_max=CAPS["user_id"]
    ) as pipeline:
        assert await send_all(pipeline, aliases)
        assert await pipeline.groups("") == customers(aliases, CAPS)
        assert await pipeline.pool.fetchval("SELECT count(*) FROM links WHERE joined AND kind = 'alias'") == 2


async def test_identities_of_all_kinds_have_one_maximum(database_url: str) -> None:
    """An external id can have any type, so limits for each kind do not limit the customer."""
    async with running_pipeline(database_url, NOW, identities_per_customer_max=5) as pipeline:
        for number in range(12):
            message = item(claim(number, "hub"))
            message["context"] = {"externalIds": [{"type": f"tool_{number}", "id": "x"}]}
            await pipeline.send([message])
        assert max(len(group) for group in await pipeline.groups("")) <= 5
