"""Who sent these messages? Finds, creates, merges and parts customers, for a whole flush at once.

Most messages say what is known already and cost a look-up. A new link between groups without conflicts, or one later
than all links of both, extends the graph where it stands. Only a link that may change an earlier decision (late and
contested, an alias, an undo) has its whole neighbourhood divided anew by :mod:`app.identity.graph`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import asyncpg
import msgspec

from app.identity.graph import ALIAS, LINK, Caps, Group, IdentityNode, Link, MovedIdentity, divide, in_order
from app.identity.graph_writes import insert_identities
from app.postgres.pool import Connection
from app.touchpoint import Identity, Message, Order

NEVER: Final = -1
"""Before any instant a message can have: no link yet."""

_OVERTAKEN_MAX: Final = 5


class CustomerRow(msgspec.Struct, gc=False):
    """A customer's row as locked for this flush."""

    id: bytes
    state: bytes
    flips_at: int | None
    sweep_at: int | None
    revision: int
    stale: bool
    contested: bool
    last_link_at: int


class ResolvedCustomer(msgspec.Struct):
    """A customer after the graph has moved.

    ``origins`` are the rows whose identities it holds now. With none it is new; with one, wholly taken over, its
    state goes on; otherwise its history must be replayed.
    """

    id: bytes
    origins: list[CustomerRow]
    whole: bool
    contested: bool
    last_link_at: int


class Resolution(msgspec.Struct):
    """Whose the identities are, and what the graph has to have written."""

    customers: dict[bytes, ResolvedCustomer]
    customer_of: dict[bytes, bytes]
    """Each identity of the flush -> the customer it belongs to."""
    links: list[Link]
    moved: list[MovedIdentity]
    gone: list[bytes]
    """Rows of customers that are now part of others."""


class _Claims:
    """What the messages of one flush say about identities, each thing once."""

    def __init__(self, messages: Iterable[Message]) -> None:
        self.identities: dict[bytes, Identity] = {}
        self.carried: set[bytes] = set()
        self.links: dict[tuple[bytes, bytes], Link] = {}
        self.home: dict[bytes, bytes] = {}
        """Where a new identity most likely belongs: the strongest identity it was seen with."""
        for message in messages:
            self._add(message)

    def _add(self, message: Message) -> None:
        ids = []
        for identity in message.identities:
            id = identity.id
            ids.append(id)
            self.identities[id] = identity
        self.carried.update(ids)
        strongest = ids[0]
        self.home.setdefault(strongest, strongest)
        for id in ids[1:]:
            self.home[id] = strongest
            self._link(id, strongest, LINK, message.order)
        if message.previous_id is not None:
            self._alias(message.previous_id, strongest, message.order)

    def _alias(self, previous_id: str, user: bytes, order: Order) -> None:
        for kind, edge in (("user_id", ALIAS), ("anonymous_id", LINK)):
            identity = Identity(kind, previous_id)
            id = identity.id
            self.identities[id] = identity
            self.home.setdefault(id, id)
            self._link(id, user, edge, order)

    def _link(self, weaker: bytes, stronger: bytes, kind: str, order: Order) -> None:
        known = self.links.get((weaker, stronger))
        if known is None or order < known.order:
            self.links[weaker, stronger] = Link(weaker, stronger, kind, order)


_LOCK = """
-- The customers of these identities, locked in id order until COMMIT.
SELECT id, state, flips_at, sweep_at, revision, stale, contested, last_link_at
FROM customers
WHERE id = ANY (array(SELECT customer_id FROM identities WHERE id = ANY($1::uuid[])) || $2::uuid[])
ORDER BY id
FOR NO KEY UPDATE
"""

_MEMBERS = """
-- Every identity of the locked customers, each with the links that this flush names.
SELECT i.id, i.kind, i.value, i.customer_id, i.carried,
       l.stronger, l.kind AS link_kind, l.occurred_at, l.message_id, l.source, l.joined, l.undone_at
FROM identities i
LEFT JOIN (
    links l JOIN unnest($3::uuid[], $4::uuid[]) AS named (weaker, stronger)
    ON l.weaker = named.weaker AND l.stronger = named.stronger
) ON l.weaker = i.id
WHERE i.customer_id = ANY($1::uuid[]) OR i.id = ANY($2::uuid[])
"""

_NEIGHBOURS = """
-- Links that touch these identities, conflicts included; one step of the walk over a neighbourhood.
SELECT weaker, stronger, kind, occurred_at, message_id, source, joined, undone_at
FROM links WHERE weaker = ANY($1::uuid[])
UNION
SELECT weaker, stronger, kind, occurred_at, message_id, source, joined, undone_at
FROM links WHERE stronger = ANY($1::uuid[])
"""


async def resolve(connection: Connection, messages: Sequence[Message], caps: Caps) -> Resolution:
    """Find or make the customer of every message, take in what the messages say of identities, lock the rows."""
    claims = _Claims(messages)
    pairs = sorted(claims.links)
    view = _View()
    await view.load(connection, sorted(claims.identities), pairs)
    missing = sorted(claims.identities.keys() - view.nodes.keys())
    if missing:
        view.add(await _insert_missing(connection, claims, missing))
        await view.load(connection, sorted(claims.identities.keys() - view.nodes.keys()), pairs)
    graph = _Extension(view, caps)
    for id in claims.carried:
        graph.carry(id)
    for link in in_order(claims.links.values(), claims.identities.__getitem__):
        graph.take(link)
    if graph.unsettled:
        await graph.settle(connection)
    return graph.resolution(claims.identities)


_ROWS = """
SELECT id, state, flips_at, sweep_at, revision, stale, contested, last_link_at
FROM customers WHERE id = ANY($1::uuid[]) ORDER BY id
"""


async def peek(connection: Connection, customer_ids: Sequence[bytes]) -> list[CustomerRow]:
    """Rows of customers that are known by id, as they are now; those that are gone are left out."""
    return [CustomerRow(*row) for row in await connection.fetch(_ROWS, customer_ids)]


async def lock(connection: Connection, customer_ids: Sequence[bytes], *, wait: bool = True) -> list[CustomerRow]:
    """The same, locked until COMMIT; without ``wait``, rows that somebody else has locked are left out."""
    how = "FOR NO KEY UPDATE" if wait else "FOR NO KEY UPDATE SKIP LOCKED"
    return [CustomerRow(*row) for row in await connection.fetch(f"{_ROWS} {how}", customer_ids)]


async def redivide(connection: Connection, seeds: Sequence[bytes], caps: Caps) -> Resolution:
    """Divide the neighbourhood of ``seeds`` anew from its links, after one of them was undone or restored."""
    view = _View()
    await view.load(connection, sorted(seeds), [])
    graph = _Extension(view, caps)
    graph.unsettled.update(seeds)
    await graph.settle(connection)
    return graph.resolution(seeds)


async def _insert_missing(connection: Connection, claims: _Claims, missing: Sequence[bytes]) -> list[IdentityNode]:
    """Insert the identities of ``missing``; return those that this flush inserted, not another worker."""
    nodes = []
    for id in missing:
        carried = id in claims.carried
        nodes.append(IdentityNode(id, claims.identities[id], carried, claims.home[id] if carried else None))
    return await insert_identities(connection, nodes)


class _View:
    """What of the graph is read and locked so far; grows when a neighbourhood must be divided."""

    def __init__(self) -> None:
        self.fresh: set[bytes] = set()
        """Identities of this flush's own making; their ``customer`` is a guess that no row stands behind yet."""
        self.rows: dict[bytes, CustomerRow] = {}
        self.nodes: dict[bytes, IdentityNode] = {}
        self.links: dict[tuple[bytes, bytes], Link] = {}

    def add(self, fresh: Iterable[IdentityNode]) -> None:
        for node in fresh:
            self.fresh.add(node.id)
            self.nodes[node.id] = node

    async def load(self, connection: Connection, ids: Sequence[bytes], pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """Lock the customers of ``ids`` and read their identities; again, if a merge overtook us meanwhile."""
        overtaken: list[bytes] = []
        for _ in range(_OVERTAKEN_MAX):
            if not ids:
                return
            for row in await connection.fetch(_LOCK, ids, overtaken):
                self.rows[row["id"]] = CustomerRow(*row)
            await self._read_members(connection, ids, pairs)
            owners = {self.nodes[id].customer for id in ids if id in self.nodes and id not in self.fresh}
            overtaken = sorted(owner for owner in owners if owner is not None and owner not in self.rows)
            if not overtaken:
                return
        raise asyncpg.SerializationError("customers kept merging while this flush tried to lock them")

    async def _read_members(
        self, connection: Connection, ids: Sequence[bytes], pairs: Sequence[tuple[bytes, bytes]]
    ) -> None:
        rows = await connection.fetch(
            _MEMBERS, list(self.rows), ids, [weaker for weaker, _ in pairs], [stronger for _, stronger in pairs]
        )
        for id, kind, value, customer, carried, *link in rows:
            self.nodes[id] = IdentityNode(id, Identity(kind, value), carried, customer)
            if link[0] is not None:
                # What was read before the lock was ours may be out of date.
                self.links.pop((id, link[0]), None)
                self._keep(id, *link)

    def _keep(
        self,
        weaker: bytes,
        stronger: bytes,
        kind: str,
        occurred_at: int,
        message_id: str,
        source: str,
        joined: bool,
        undone_at: int | None,
    ) -> None:
        order = (occurred_at, message_id, source)
        self.links.setdefault((weaker, stronger), Link(weaker, stronger, kind, order, joined, undone_at is not None))

    async def widen(self, connection: Connection, seeds: Iterable[bytes]) -> set[bytes]:
        """Walk all links from ``seeds`` until nothing new is reached; lock and read the customers on the way."""
        reached: set[bytes] = set()
        frontier = set(seeds)
        while frontier:
            await self.load(connection, sorted(frontier), [])
            owners = {self.nodes[id].customer for id in frontier if id not in self.fresh} - {None}
            frontier |= {id for id, node in self.nodes.items() if node.customer in owners and id not in self.fresh}
            reached |= frontier
            for row in await connection.fetch(_NEIGHBOURS, sorted(frontier)):
                self._keep(*row)
            frontier = {id for pair in self.links if not reached.isdisjoint(pair) for id in pair} - reached
        return reached


class _Cluster(msgspec.Struct):
    """A group of the graph with what decides whether it can be extended where it stands."""

    group: Group
    contested: bool
    last_link_at: int


class _Extension:
    """The graph of one flush, link by link; what cannot be decided alone is left ``unsettled`` until settled."""

    def __init__(self, view: _View, caps: Caps) -> None:
        self.view = view
        self.caps = caps
        self.unsettled: set[bytes] = set()
        self.carried_now: set[bytes] = set()
        self.changed: dict[tuple[bytes, bytes], Link] = {}
        self.cluster_of: dict[bytes, _Cluster] = {}
        self.members_of: dict[bytes, list[IdentityNode]] = {}
        self._index_members()

    def _index_members(self) -> None:
        self.members_of = {}
        for node in self.view.nodes.values():
            if node.id not in self.view.fresh and node.customer is not None:
                self.members_of.setdefault(node.customer, []).append(node)

    def carry(self, id: bytes) -> None:
        """A message sent this identity as its own. If only an alias knew it, that alias must be weighed again."""
        node = self.view.nodes[id]
        if not node.carried:
            node.carried = True
            self.carried_now.add(id)
            self.unsettled.add(id)
        if id in self.view.fresh:
            self._cluster(id)

    def take(self, link: Link) -> None:
        known = self.view.links.get((link.weaker, link.stronger))
        if known is not None and known.order <= link.order:
            return
        if known is not None and known.undone:
            # It stays undone, but if it is ever restored, this is the message that decides.
            known.order = link.order
            self.changed[link.weaker, link.stronger] = known
            return
        self.changed[link.weaker, link.stronger] = link
        self.view.links[link.weaker, link.stronger] = link
        a, b = self._cluster(link.weaker), self._cluster(link.stronger)
        last = link.order[0] > max(a.last_link_at, b.last_link_at)
        settled = last or not (a.contested or b.contested)
        if link.kind == ALIAS or not self.view.nodes[link.weaker].carried:
            settled = False
        elif a is b:
            pass
        elif a.group.can_join(b.group, self.caps):
            if settled:
                a = self._join(a, b)
        else:
            settled = last
            link.joined = False
            a.contested = b.contested = True
        if not settled:
            self.unsettled |= {link.weaker, link.stronger}
        a.last_link_at = max(a.last_link_at, link.order[0])
        b.last_link_at = max(b.last_link_at, link.order[0])

    def _cluster(self, id: bytes) -> _Cluster:
        cluster = self.cluster_of.get(id)
        if cluster is not None:
            return cluster
        node = self.view.nodes[id]
        row = None if id in self.view.fresh or node.customer is None else self.view.rows[node.customer]
        if row is None:
            cluster = _Cluster(Group(node), False, NEVER)
        else:
            first, *others = self.members_of[row.id]
            cluster = _Cluster(Group(first), row.contested, row.last_link_at)
            for other in others:
                cluster.group.absorb(Group(other))
        for member in cluster.group.members:
            self.cluster_of[member.id] = cluster
        return cluster

    def _join(self, a: _Cluster, b: _Cluster) -> _Cluster:
        if len(a.group.members) < len(b.group.members):
            a, b = b, a
        a.group.absorb(b.group)
        a.contested |= b.contested
        a.last_link_at = max(a.last_link_at, b.last_link_at)
        for node in b.group.members:
            self.cluster_of[node.id] = a
        return a

    async def settle(self, connection: Connection) -> None:
        """Divide the whole neighbourhood of what is unsettled, from its links alone."""
        seeds = {node.id for id in self.unsettled for node in self._cluster(id).group.members}
        reached = await self.view.widen(connection, seeds)
        self._index_members()
        nodes = {id: self.view.nodes[id] for id in reached}
        for id in self.carried_now & reached:
            nodes[id].carried = True
        links = [link for (weaker, _), link in self.view.links.items() if weaker in reached]
        before = {(link.weaker, link.stronger): link.joined for link in links}
        for group in divide(nodes, links, self.caps):
            cluster = _Cluster(group, False, NEVER)
            for node in group.members:
                self.cluster_of[node.id] = cluster
        for link in links:
            pair = (link.weaker, link.stronger)
            if link.joined != before[pair]:
                self.changed[pair] = link
            for id in pair:
                cluster = self.cluster_of[id]
                cluster.last_link_at = max(cluster.last_link_at, link.order[0])
                cluster.contested |= link.kind == LINK and not link.joined and nodes[link.weaker].carried

    def resolution(self, asked: Iterable[bytes]) -> Resolution:
        resolution = Resolution({}, {}, list(self.changed.values()), [], [])
        left: set[bytes] = set()
        for cluster in self._clusters():
            self._resolve_cluster(cluster, resolution, left)
        resolution.gone = sorted(left - resolution.customers.keys())
        for id in asked:
            if id not in resolution.customer_of:
                self._resolve_unchanged(id, resolution)
        return resolution

    def _clusters(self) -> Iterable[_Cluster]:
        """Each once, though every member points to it."""
        return {id(cluster): cluster for cluster in self.cluster_of.values()}.values()

    def _resolve_cluster(self, cluster: _Cluster, resolution: Resolution, left: set[bytes]) -> None:
        if self._is_as_stored(cluster):
            return
        customer = cluster.group.customer_id if cluster.group.exists else None
        origins: dict[bytes, int] = {}
        for node in cluster.group.members:
            if node.customer != customer or node.id in self.carried_now:
                resolution.moved.append(MovedIdentity(node.id, customer, node.carried))
            if node.id not in self.view.fresh and node.customer is not None:
                origins[node.customer] = origins.get(node.customer, 0) + 1
            if customer is not None:
                resolution.customer_of[node.id] = customer
        left.update(origins)
        if customer is not None:
            resolution.customers[customer] = ResolvedCustomer(
                customer,
                [self.view.rows[origin] for origin in origins],
                all(len(self.members_of[origin]) == count for origin, count in origins.items()),
                cluster.contested,
                cluster.last_link_at,
            )

    def _is_as_stored(self, cluster: _Cluster) -> bool:
        """A neighbour that was looked at and came out as it was: nothing of it is written."""
        first, *others = cluster.group.members
        row = None if first.id in self.view.fresh or first.customer is None else self.view.rows[first.customer]
        return (
            row is not None
            and row.contested == cluster.contested
            and row.last_link_at == cluster.last_link_at
            and len(self.members_of[row.id]) == len(cluster.group.members)
            and all(node.customer == row.id and node.id not in self.view.fresh for node in others)
            and not any(node.id in self.carried_now for node in cluster.group.members)
        )

    def _resolve_unchanged(self, id: bytes, resolution: Resolution) -> None:
        customer = self.view.nodes[id].customer
        if customer is None:
            return
        resolution.customer_of[id] = customer
        if customer not in resolution.customers:
            row = self.view.rows[customer]
            resolution.customers[customer] = ResolvedCustomer(customer, [row], True, row.contested, row.last_link_at)
