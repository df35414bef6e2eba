"""Identity resolution: finds, creates, merges and splits the customers of a whole flush at once.

Most messages contain only known identities and links, and cost one lookup. A new link extends the graph in place if it
joins its groups, or if it is a conflict and takes precedence over no link of both groups. Other conflicts, undone links
and some aliases may change earlier decisions. :mod:`app.identity.graph` then groups the whole neighbourhood again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

import asyncpg
import msgspec

from app.identity.clusters import NEVER, Cluster, LinkPlace, is_conflict_final, is_harmless
from app.identity.customer_locks import CustomerRow, lock_customers_of
from app.identity.graph import (
    ALIAS,
    LINK,
    Caps,
    Group,
    IdentityNode,
    Link,
    MovedIdentity,
    group_identities,
    is_active,
    sort_links,
)
from app.identity.graph_writes import insert_identities
from app.postgres.pool import Connection
from app.touchpoint import Identity, LinkOrder, Message

_OVERTAKEN_MAX: Final = 5
_MANY_IDENTITIES: Final = 500


class NeighbourhoodTooLarge(Exception):
    """Raised if a message may change the groups of more identities than one flush may read.

    ``identity_ids`` are identities of the messages that need it.
    """

    def __init__(self, identity_ids: Iterable[bytes]) -> None:
        super().__init__("a message links identities with too many other links")
        self.identity_ids = frozenset(identity_ids)

    def concerns(self, message: Message) -> bool:
        """Return whether the message is one of those that need the large neighbourhood."""
        ids = {identity.id for identity in message.identities}
        if message.previous_id is not None:
            ids |= {Identity(kind, message.previous_id).id for kind in ("user_id", "anonymous_id")}
        return not ids.isdisjoint(self.identity_ids)


class ResolvedCustomer(msgspec.Struct):
    """A customer after the update of the graph.

    ``origins`` are the customers to which its identities belonged before the update; a new customer has no origin.
    ``is_whole`` is True if the customer has all identities of its origins. A whole customer with one origin keeps the
    state of that origin. In all other cases the history of the customer must be replayed.
    """

    id: bytes
    origins: list[CustomerRow]
    is_whole: bool
    contested: bool
    last_link: LinkPlace


class Resolution(msgspec.Struct):
    """Result of identity resolution for one flush: the customers, and the changes to write to the graph."""

    customers: dict[bytes, ResolvedCustomer]
    customer_of: dict[bytes, bytes]
    """Identity id -> id of its customer, for all identities of the flush."""
    links: list[Link]
    moved_identities: list[MovedIdentity]
    merged_customers: list[bytes]
    """Ids of customers that were merged into others."""


class _FlushIdentities:
    """The identities, links and aliases of the messages of one flush, without duplicates."""

    def __init__(self, messages: Iterable[Message]) -> None:
        self.identities: dict[bytes, Identity] = {}
        self.carried_ids: set[bytes] = set()
        self.links: dict[tuple[bytes, bytes], Link] = {}
        self.likely_customers: dict[bytes, bytes] = {}
        """Identity id -> id of the strongest identity of its message, the most likely customer of a new identity."""
        for message in messages:
            self._add_message(message)

    def _add_message(self, message: Message) -> None:
        ids = []
        for identity in message.identities:
            id = identity.id
            ids.append(id)
            self.identities[id] = identity
        self.carried_ids.update(ids)
        strongest = ids[0]
        self.likely_customers.setdefault(strongest, strongest)
        for id, identity in zip(ids[1:], message.identities[1:], strict=True):
            self.likely_customers[id] = strongest
            self._add_link(id, strongest, LINK, message.link_order(identity))
        if message.previous_id is not None:
            self._add_alias(message, message.previous_id, strongest)

    def _add_alias(self, message: Message, previous_id: str, user: bytes) -> None:
        """Add the links of previousId, as an anonymous_id and, if the sender may join users, as a user_id."""
        for kind, edge in (("user_id", ALIAS), ("anonymous_id", LINK)):
            if edge == ALIAS and message.trust == "public":
                continue
            identity = Identity(kind, previous_id)
            id = identity.id
            self.identities[id] = identity
            self.likely_customers.setdefault(id, id)
            self._add_link(id, user, edge, message.link_order(identity))

    def _add_link(self, weaker: bytes, stronger: bytes, kind: str, order: LinkOrder) -> None:
        earlier = self.links.get((weaker, stronger))
        if earlier is None or order < earlier.order:
            self.links[weaker, stronger] = Link(weaker, stronger, kind, order)


_MEMBERS = """
-- All identities of the locked customers, each with those of its links that this flush contains.
SELECT i.id, i.kind, i.value, i.customer_id, i.carried,
       l.stronger, l.kind AS link_kind, l.vouched, l.occurred_at, l.message_id, l.source, l.joined, l.undone_at
FROM identities i
LEFT JOIN (
    links l JOIN unnest($3::uuid[], $4::uuid[]) AS named (weaker, stronger)
    ON l.weaker = named.weaker AND l.stronger = named.stronger
) ON l.weaker = i.id
WHERE i.customer_id = ANY($1::uuid[]) OR i.id = ANY($2::uuid[])
"""

_NEIGHBOURS = """
-- All links of these identities, including conflicts: one step of the walk over a neighbourhood.
SELECT weaker, stronger, kind, vouched, occurred_at, message_id, source, joined, undone_at
FROM links WHERE weaker = ANY($1::uuid[])
UNION
SELECT weaker, stronger, kind, vouched, occurred_at, message_id, source, joined, undone_at
FROM links WHERE stronger = ANY($1::uuid[])
LIMIT $2
"""


async def resolve_identities(
    connection: Connection, messages: Sequence[Message], caps: Caps, neighbours_max: int | None = None
) -> Resolution:
    """Find or create the customers of the messages, add the messages' links to the graph, and lock the customers.

    Raise NeighbourhoodTooLarge, before the graph changes, if more than ``neighbours_max`` identities must be read. The
    transaction must then be rolled back.
    """
    flush = _FlushIdentities(messages)
    pairs = sorted(flush.links)
    loaded = LoadedGraph()
    await loaded.load(connection, sorted(flush.identities), pairs)
    missing = sorted(flush.identities.keys() - loaded.nodes.keys())
    if missing:
        loaded.add_inserted(await _insert_missing(connection, flush, missing))
        await loaded.load(connection, sorted(flush.identities.keys() - loaded.nodes.keys()), pairs)
    graph = GraphUpdate(loaded, caps)
    for id in flush.carried_ids:
        graph.mark_carried(id)
    for link in sort_links(flush.links.values(), flush.identities.__getitem__):
        graph.add_link(link)
    if graph.undecided:
        await graph.regroup_undecided(connection, neighbours_max)
    return graph.build_resolution(flush.identities)


async def resolve_neighbourhood(connection: Connection, seeds: Sequence[bytes], caps: Caps) -> Resolution:
    """Group the neighbourhood of ``seeds`` again from its links, after a link was undone or restored."""
    loaded = LoadedGraph()
    await loaded.load(connection, sorted(seeds), [])
    graph = GraphUpdate(loaded, caps)
    graph.undecided.update(seeds)
    await graph.regroup_undecided(connection)
    return graph.build_resolution(seeds)


async def _insert_missing(
    connection: Connection, flush: _FlushIdentities, missing: Sequence[bytes]
) -> list[IdentityNode]:
    """Insert the identities in ``missing``; return those that this flush, not another worker, inserted."""
    nodes = []
    for id in missing:
        carried = id in flush.carried_ids
        nodes.append(IdentityNode(id, flush.identities[id], carried, flush.likely_customers[id] if carried else None))
    return await insert_identities(connection, nodes)


class LoadedGraph:
    """The part of the graph that has been read and locked. It grows if a neighbourhood must be grouped again."""

    def __init__(self) -> None:
        self.inserted_ids: set[bytes] = set()
        """Ids of identities that this flush inserted. Their ``customer`` is provisional and does not have a row yet."""
        self.rows: dict[bytes, CustomerRow] = {}
        self.nodes: dict[bytes, IdentityNode] = {}
        self.links: dict[tuple[bytes, bytes], Link] = {}

    def add_inserted(self, inserted: Iterable[IdentityNode]) -> None:
        for node in inserted:
            self.inserted_ids.add(node.id)
            self.nodes[node.id] = node

    async def load(self, connection: Connection, ids: Sequence[bytes], pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """Lock the customers of ``ids`` and read their identities; repeat if a concurrent merge changed them."""
        overtaken: list[bytes] = []
        for _ in range(_OVERTAKEN_MAX):
            if not ids:
                return
            for row in await lock_customers_of(connection, ids, overtaken):
                self.rows[row.id] = row
            await self._read_members(connection, ids, pairs)
            owners = {self.nodes[id].customer for id in ids if id in self.nodes and id not in self.inserted_ids}
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
                # Replace a link that was read before the rows were locked, because it may be out of date.
                self.links.pop((id, link[0]), None)
                self._add_link(id, *link)

    def _add_link(
        self,
        weaker: bytes,
        stronger: bytes,
        kind: str,
        vouched: bool,
        occurred_at: int,
        message_id: str,
        source: str,
        joined: bool,
        undone_at: int | None,
    ) -> None:
        order = (0 if vouched else 1, occurred_at, message_id, source)
        self.links.setdefault((weaker, stronger), Link(weaker, stronger, kind, order, joined, undone_at is not None))

    async def load_neighbourhood(
        self, connection: Connection, seeds: Iterable[bytes], identities_max: int | None
    ) -> set[bytes] | None:
        """Follow all links from ``seeds``, lock and read the customers on the way, and return the identities.

        Return None if there are more than ``identities_max``.
        """
        reached: set[bytes] = set()
        frontier = set(seeds)
        while frontier:
            if identities_max is not None and len(reached) + len(frontier) > identities_max:
                return None
            await self.load(connection, sorted(frontier), [])
            owners = {self.nodes[id].customer for id in frontier if id not in self.inserted_ids} - {None}
            frontier |= {
                id for id, node in self.nodes.items() if node.customer in owners and id not in self.inserted_ids
            }
            reached |= frontier
            links_max = None if identities_max is None else 2 * identities_max
            rows = await connection.fetch(_NEIGHBOURS, sorted(frontier), links_max)
            if links_max is not None and len(rows) == links_max:
                return None
            for row in rows:
                self._add_link(*row)
            frontier = {id for pair in self.links if not reached.isdisjoint(pair) for id in pair} - reached
        return reached


class GraphUpdate:
    """Adds the links of one flush to the graph, one by one.

    Identities whose group may depend on further links are collected in ``undecided``, for :meth:`regroup_undecided`.
    """

    def __init__(self, loaded: LoadedGraph, caps: Caps) -> None:
        self.loaded = loaded
        self.caps = caps
        self.undecided: set[bytes] = set()
        self.newly_carried_ids: set[bytes] = set()
        self.changed_links: dict[tuple[bytes, bytes], Link] = {}
        self.cluster_of: dict[bytes, Cluster] = {}
        self.members_of: dict[bytes, list[IdentityNode]] = {}
        self._index_members()

    def _index_members(self) -> None:
        self.members_of = {}
        for node in self.loaded.nodes.values():
            if node.id not in self.loaded.inserted_ids and node.customer is not None:
                self.members_of.setdefault(node.customer, []).append(node)

    def mark_carried(self, id: bytes) -> None:
        """Record that a message contains this identity. If it was only a previousId before, decide its alias again."""
        node = self.loaded.nodes[id]
        if not node.carried:
            node.carried = True
            self.newly_carried_ids.add(id)
            self.undecided.add(id)
        if id in self.loaded.inserted_ids:
            self._cluster_for(id)

    def add_link(self, link: Link) -> None:
        stored = self.loaded.links.get((link.weaker, link.stronger))
        if stored is not None and stored.order <= link.order:
            return
        if stored is not None and stored.undone:
            # The link stays undone. If it is restored later, the order of this earlier message applies.
            stored.order = link.order
            self.changed_links[link.weaker, link.stronger] = stored
            return
        self.changed_links[link.weaker, link.stronger] = link
        self.loaded.links[link.weaker, link.stronger] = link
        cluster_a, cluster_b = self._cluster_for(link.weaker), self._cluster_for(link.stronger)
        place = link.order[:2]
        if not is_active(self.loaded.nodes, link):
            link.joined = False
        elif cluster_a is cluster_b or cluster_a.group.can_join(cluster_b.group, link, self.caps):
            if not is_harmless(link, cluster_a, cluster_b):
                self.undecided |= {link.weaker, link.stronger}
            elif cluster_a is not cluster_b:
                cluster_a = cluster_b = self._join(cluster_a, cluster_b)
        else:
            if not is_conflict_final(link, cluster_a, cluster_b, self.caps):
                self.undecided |= {link.weaker, link.stronger}
            link.joined = False
            cluster_a.contested = cluster_b.contested = True
        cluster_a.last_link = max(cluster_a.last_link, place)
        cluster_b.last_link = max(cluster_b.last_link, place)

    def _cluster_for(self, id: bytes) -> Cluster:
        cluster = self.cluster_of.get(id)
        if cluster is not None:
            return cluster
        node = self.loaded.nodes[id]
        row = None if id in self.loaded.inserted_ids or node.customer is None else self.loaded.rows[node.customer]
        if row is None:
            cluster = Cluster(Group(node), False, NEVER)
        else:
            first, *more_members = self.members_of[row.id]
            cluster = Cluster(Group(first), row.contested, row.last_link, row.last_link)
            for member in more_members:
                cluster.group.add_group(Group(member))
        for member in cluster.group.members:
            self.cluster_of[member.id] = cluster
        return cluster

    def _join(self, cluster_a: Cluster, cluster_b: Cluster) -> Cluster:
        if len(cluster_a.group.members) < len(cluster_b.group.members):
            cluster_a, cluster_b = cluster_b, cluster_a
        cluster_a.group.add_group(cluster_b.group)
        cluster_a.contested |= cluster_b.contested
        cluster_a.last_link = max(cluster_a.last_link, cluster_b.last_link)
        cluster_a.last_stored_link = max(cluster_a.last_stored_link, cluster_b.last_stored_link)
        for node in cluster_b.group.members:
            self.cluster_of[node.id] = cluster_a
        return cluster_a

    async def regroup_undecided(self, connection: Connection, neighbours_max: int | None = None) -> None:
        """Group the whole neighbourhood of the undecided identities, from its links alone."""
        seeds = {node.id for id in self.undecided for node in self._cluster_for(id).group.members}
        reached = await self.loaded.load_neighbourhood(connection, seeds, neighbours_max)
        if reached is None:
            raise NeighbourhoodTooLarge(self.undecided)
        self._index_members()
        nodes = {id: self.loaded.nodes[id] for id in reached}
        for id in self.newly_carried_ids & reached:
            nodes[id].carried = True
        links = [link for (weaker, _), link in self.loaded.links.items() if weaker in reached]
        was_joined = {(link.weaker, link.stronger): link.joined for link in links}
        group_all = partial(group_identities, nodes, links, self.caps)
        # Group many identities in a thread, because live requests share this event loop.
        for group in await asyncio.to_thread(group_all) if len(nodes) > _MANY_IDENTITIES else group_all():
            cluster = Cluster(group, False, NEVER)
            for node in group.members:
                self.cluster_of[node.id] = cluster
        for link in links:
            pair = (link.weaker, link.stronger)
            if link.joined != was_joined[pair]:
                self.changed_links[pair] = link
            for id in pair:
                cluster = self.cluster_of[id]
                cluster.last_link = max(cluster.last_link, link.order[:2])
                cluster.contested |= not link.undone and not link.joined and is_active(nodes, link)

    def build_resolution(self, ids: Iterable[bytes]) -> Resolution:
        resolution = Resolution({}, {}, list(self.changed_links.values()), [], [])
        former_customers: set[bytes] = set()
        for cluster in self._clusters():
            self._resolve_cluster(cluster, resolution, former_customers)
        resolution.merged_customers = sorted(former_customers - resolution.customers.keys())
        for id in ids:
            if id not in resolution.customer_of:
                self._resolve_unchanged(id, resolution)
        return resolution

    def _clusters(self) -> Iterable[Cluster]:
        """Return the clusters without duplicates; ``cluster_of`` has one entry per identity."""
        return {id(cluster): cluster for cluster in self.cluster_of.values()}.values()

    def _resolve_cluster(self, cluster: Cluster, resolution: Resolution, former_customers: set[bytes]) -> None:
        if self._is_unchanged(cluster):
            return
        customer = cluster.group.customer_id if cluster.group.exists else None
        origins: dict[bytes, int] = {}
        for node in cluster.group.members:
            if node.customer != customer or node.id in self.newly_carried_ids:
                resolution.moved_identities.append(MovedIdentity(node.id, customer, node.carried))
            if node.id not in self.loaded.inserted_ids and node.customer is not None:
                origins[node.customer] = origins.get(node.customer, 0) + 1
            if customer is not None:
                resolution.customer_of[node.id] = customer
        former_customers.update(origins)
        if customer is not None:
            resolution.customers[customer] = ResolvedCustomer(
                customer,
                [self.loaded.rows[origin] for origin in origins],
                all(len(self.members_of[origin]) == count for origin, count in origins.items()),
                cluster.contested,
                cluster.last_link,
            )

    def _is_unchanged(self, cluster: Cluster) -> bool:
        """Return whether a cluster equals its stored customer, so that no write is needed."""
        first, *more_members = cluster.group.members
        row = (
            None if first.id in self.loaded.inserted_ids or first.customer is None else self.loaded.rows[first.customer]
        )
        return (
            row is not None
            and row.contested == cluster.contested
            and row.last_link == cluster.last_link
            and len(self.members_of[row.id]) == len(cluster.group.members)
            and all(node.customer == row.id and node.id not in self.loaded.inserted_ids for node in more_members)
            and not any(node.id in self.newly_carried_ids for node in cluster.group.members)
        )

    def _resolve_unchanged(self, id: bytes, resolution: Resolution) -> None:
        customer = self.loaded.nodes[id].customer
        if customer is None:
            return
        resolution.customer_of[id] = customer
        if customer not in resolution.customers:
            row = self.loaded.rows[customer]
            resolution.customers[customer] = ResolvedCustomer(customer, [row], True, row.contested, row.last_link)
