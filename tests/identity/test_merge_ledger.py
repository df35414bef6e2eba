"""Tests of the merge ledger: links between identities, conflicts, and undoing a link."""

from __future__ import annotations

from app.postgres.pool import transact
from app.projection.project import undo_link
from app.touchpoint import SECOND, derive_identity_id
from tests.support.pipeline import Pipeline, item, running_pipeline
from tests.support.reference_model import SentMessage

T = 1_760_000_000_000_000
NOW = T + 100 * SECOND


def message(second: int, ids: dict[str, str], previous: str | None = None, name: str = "viewed") -> dict[str, object]:
    kind = "track" if previous is None else "alias"
    return item(SentMessage(T + second * SECOND, f"m{second}", kind, ids, name=name, previous=previous))


async def list_links(pipeline: Pipeline) -> dict[str, bool]:
    rows = await pipeline.pool.fetch(
        """
        SELECT w.kind || ':' || w.value || ' - ' || s.kind || ':' || s.value AS pair, l.joined
        FROM links l JOIN identities w ON w.id = l.weaker JOIN identities s ON s.id = l.stronger
        """
    )
    return {row["pair"]: row["joined"] for row in rows}


async def test_anonymous_history_joins_at_login_without_rewriting_touchpoints(database_url: str) -> None:
    async with running_pipeline(database_url, NOW) as pipeline:
        await pipeline.send([message(1, {"anonymous_id": "d"}), message(2, {"anonymous_id": "d"})])
        before = await pipeline.pool.fetch("SELECT ctid, xmin, identity_id FROM touchpoints ORDER BY occurred_at")
        await pipeline.send([message(3, {"user_id": "u", "anonymous_id": "d"}, name="bought")])
        after = await pipeline.pool.fetch("SELECT ctid, xmin, identity_id FROM touchpoints ORDER BY occurred_at")
        assert after[:2] == before
        assert await pipeline.groups("") == {frozenset({"user_id:u", "anonymous_id:d"})}
        assert ("journey:six-stage", "consideration", T + 2 * SECOND, T + 3 * SECOND) in {
            interval for interval in await pipeline.intervals("user_id:u") if interval[0] == "journey:six-stage"
        } or await pipeline.intervals("user_id:u")


async def test_shared_device_belongs_to_its_earliest_link(database_url: str) -> None:
    async with running_pipeline(database_url, NOW) as pipeline:
        await pipeline.send([message(2, {"user_id": "u2", "anonymous_id": "d"})])
        await pipeline.send([message(3, {"user_id": "u1", "anonymous_id": "d"})])
        assert await pipeline.groups("") == {frozenset({"user_id:u2", "anonymous_id:d"}), frozenset({"user_id:u1"})}
        assert await list_links(pipeline) == {
            "anonymous_id:d - user_id:u2": True,
            "anonymous_id:d - user_id:u1": False,
        }
        # A late message with an earlier time takes precedence: the device belonged to u1 first.
        await pipeline.send([message(1, {"user_id": "u1", "anonymous_id": "d"})])
        assert await pipeline.groups("") == {frozenset({"user_id:u1", "anonymous_id:d"}), frozenset({"user_id:u2"})}


async def test_chain_of_aliases_joins_users(database_url: str) -> None:
    async with running_pipeline(database_url, NOW) as pipeline:
        await pipeline.send([message(number, {"user_id": f"u{number}"}) for number in range(1, 5)])
        for number in range(1, 4):
            await pipeline.send([message(10 + number, {"user_id": f"u{number + 1}"}, previous=f"u{number}")])
        assert await pipeline.groups("") == {frozenset(f"user_id:u{number}" for number in range(1, 5))}
        owners = await pipeline.pool.fetch("SELECT DISTINCT customer_id FROM identities WHERE customer_id IS NOT NULL")
        customers = await pipeline.pool.fetch("SELECT id FROM customers")
        assert {row[0] for row in owners} == {row[0] for row in customers}
        assert len(customers) == 1


async def test_alias_to_itself_has_no_effect(database_url: str) -> None:
    async with running_pipeline(database_url, NOW) as pipeline:
        receipt = await pipeline.send([message(1, {"user_id": "u"}, previous="u")])
        assert (receipt.accepted, receipt.rejected) == (1, 0)
        assert await pipeline.groups("") == {frozenset({"user_id:u"})}
        assert await list_links(pipeline) == {}


async def test_alias_of_a_shared_device_does_not_join_two_users(database_url: str) -> None:
    async with running_pipeline(database_url, NOW) as pipeline:
        await pipeline.send([message(1, {"anonymous_id": "d"})])
        await pipeline.send([message(2, {"user_id": "u1"}, previous="d")])
        await pipeline.send([message(3, {"user_id": "u2"}, previous="d")])
        assert await pipeline.groups("") == {frozenset({"user_id:u1", "anonymous_id:d"}), frozenset({"user_id:u2"})}


async def test_link_can_be_undone_and_restored(database_url: str) -> None:
    """Undoing a link splits the customer and the history in two. Restoring the link joins them again."""
    async with running_pipeline(database_url, NOW) as pipeline:
        await pipeline.send([message(1, {"anonymous_id": "d"}, name="bought"), message(2, {"user_id": "u"})])
        before = (await pipeline.intervals("anonymous_id:d"), await pipeline.intervals("user_id:u"))
        await pipeline.send([message(3, {"user_id": "u", "anonymous_id": "d"})])
        joined = await pipeline.intervals("user_id:u")
        assert joined == await pipeline.intervals("anonymous_id:d")
        pair = (derive_identity_id("anonymous_id", "d"), derive_identity_id("user_id", "u"))

        async def mark(undone: bool) -> bool:
            ruleset = pipeline.registry.rules.current
            return await transact(
                pipeline.pool, lambda connection: undo_link(connection, *pair, undone, ruleset, NOW, pipeline.settings)
            )

        assert await mark(True)
        assert await pipeline.groups("") == {frozenset({"user_id:u"}), frozenset({"anonymous_id:d"})}
        after = (await pipeline.intervals("anonymous_id:d"), await pipeline.intervals("user_id:u"))
        assert after[0] == before[0]
        assert {interval[:3] for interval in before[1]} <= {interval[:3] for interval in after[1]}
        # A new message with the same link does not restore an undone link.
        await pipeline.send([message(4, {"user_id": "u", "anonymous_id": "d"})])
        assert await pipeline.groups("") == {frozenset({"user_id:u"}), frozenset({"anonymous_id:d"})}
        assert await mark(False)
        assert {interval[:3] for interval in joined} <= {
            interval[:3] for interval in await pipeline.intervals("user_id:u")
        }


async def test_junk_id_never_links(database_url: str) -> None:
    async with running_pipeline(database_url, NOW) as pipeline:
        for number, junk in enumerate(["null", "undefined", "anonymous", "0", "-1", "none", "true", "0000-0000"]):
            await pipeline.send([message(number, {"user_id": f"u{number}", "anonymous_id": junk})])
        assert len(await pipeline.groups("")) == 8
        receipt = await pipeline.send([message(50, {"anonymous_id": "NULL"})])
        assert [rejection.code for rejection in receipt.rejections] == ["missing_identity"]
