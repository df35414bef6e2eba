"""Links that a flush adds in place have the same result as grouping the whole graph again. Random small graphs."""

from __future__ import annotations

from random import Random

import pytest

from app.identity.customer_locks import CustomerRow
from app.identity.graph import ALIAS, LINK, Caps, Group, IdentityNode, Link, group_identities, is_active, sort_links
from app.identity.resolver import GraphUpdate, LoadedGraph
from app.touchpoint import Identity

KINDS = ("user_id", "user_id", "user_id", "anonymous_id", "anonymous_id", "email")
GRAPHS = 1_500

Links = dict[tuple[bytes, bytes], Link]


def draw_nodes(random: Random) -> dict[bytes, IdentityNode]:
    kinds = random.choices(KINDS, k=random.randint(3, 9))
    identities = [Identity(kind, f"v{number % 4}") for number, kind in enumerate(kinds)]
    return {identity.id: IdentityNode(identity.id, identity, random.random() < 0.85) for identity in identities}


def draw_links(random: Random, nodes: dict[bytes, IdentityNode], flush: int) -> Links:
    """Return one to three links or aliases, of servers at any time, or of pages mostly in the order of arrival."""
    links: Links = {}
    for number in range(random.randint(1, 3)):
        weaker, stronger = sorted(random.sample(list(nodes.values()), 2), key=lambda node: -node.identity.strength)
        if weaker.identity.strength == stronger.identity.strength and random.random() < 0.5:
            weaker, stronger = stronger, weaker
        is_alias = weaker.identity.kind == stronger.identity.kind == "user_id"
        is_vouched = random.random() < 0.4
        instant = random.randint(0, 6) if is_vouched or random.random() < 0.3 else 10 + flush // 2
        order = (0 if is_vouched else 1, instant, f"m{flush}-{number}", "default")
        links[weaker.id, stronger.id] = Link(weaker.id, stronger.id, ALIAS if is_alias else LINK, order)
    return links


def is_contested(nodes: dict[bytes, IdentityNode], link: Link) -> bool:
    return not link.joined and is_active(nodes, link)


def load_graph(nodes: dict[bytes, IdentityNode], groups: list[Group], links: Links, added: Links) -> LoadedGraph:
    """Return the graph as a flush reads it: the members of the customers, and those links that the flush contains."""
    loaded = LoadedGraph()
    for group in groups:
        ids = {node.id for node in group.members}
        own_links = [link for link in links.values() if not ids.isdisjoint((link.weaker, link.stronger))]
        rank, instant = max((link.order[:2] for link in own_links), default=(0, -1))
        contested = any(is_contested(nodes, link) for link in own_links)
        customer = group.customer_id
        loaded.rows[customer] = CustomerRow(customer, b"", None, None, 0, False, contested, instant, rank)
        for node in group.members:
            loaded.nodes[node.id] = IdentityNode(node.id, node.identity, node.carried, customer)
    for pair in added.keys() & links.keys():
        stored = links[pair]
        loaded.links[pair] = Link(stored.weaker, stored.stronger, stored.kind, stored.order, stored.joined)
    return loaded


def members_by_id(groups: list[Group]) -> dict[bytes, frozenset[bytes]]:
    return {node.id: frozenset(member.id for member in group.members) for group in groups for node in group.members}


@pytest.mark.parametrize("seed", range(4))
def test_links_in_place_match_the_grouping_of_the_whole_graph(seed: int) -> None:
    random = Random(seed)
    in_place = sum(add_in_place(random) for _ in range(GRAPHS))
    assert in_place > GRAPHS


def add_in_place(random: Random) -> int:
    """Add random links to a random graph in five flushes. Return how many flushes needed no grouping; check those."""
    nodes = draw_nodes(random)
    if len(nodes) < 2:
        return 0
    caps = Caps(random.choice((2, 100)), random.choice((2, 100)), 100, 100, random.choice((4, 100)))
    links: Links = {}
    in_place = 0
    for flush in range(5):
        added = draw_links(random, nodes, flush)
        groups = group_identities(nodes, links.values(), caps)
        update = GraphUpdate(load_graph(nodes, groups, links, added), caps)
        for link in sort_links(added.values(), lambda id: nodes[id].identity):
            update.add_link(Link(link.weaker, link.stronger, link.kind, link.order))
        for pair, link in added.items():
            if pair not in links or link.order < links[pair].order:
                links[pair] = link
        expected = members_by_id(group_identities(nodes, links.values(), caps))
        if not update.undecided:
            in_place += 1
            check_update(update, nodes, links, members_by_id(groups), expected)
    return in_place


def check_update(
    update: GraphUpdate,
    nodes: dict[bytes, IdentityNode],
    links: Links,
    before: dict[bytes, frozenset[bytes]],
    expected: dict[bytes, frozenset[bytes]],
) -> None:
    for id, members in expected.items():
        cluster = update.cluster_of.get(id)
        if cluster is None:
            assert members == before[id]
            continue
        assert members == {node.id for node in cluster.group.members}
        own_links = [link for link in links.values() if not members.isdisjoint((link.weaker, link.stronger))]
        assert cluster.contested or not any(is_contested(nodes, link) for link in own_links)
        assert cluster.last_link >= max((link.order[:2] for link in own_links), default=(0, -1))
    for pair, link in update.changed_links.items():
        assert link.joined == links[pair].joined
