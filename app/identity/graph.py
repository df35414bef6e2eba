"""Identity graph: groups identities into customers. Pure.

The result depends only on the set of links, not on the order in which they arrive.

Aliases join groups first. Then links are applied in the order of their messages. A link joins two groups unless both
contain a user_id, or the joined group would exceed the limit of identities of one kind. Such a link is a conflict and
changes nothing. The user_ids of a group that an alias joined count as one. If several messages contain a link, only the
earliest counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from app.touchpoint import Identity, Order, derive_identity_id

ALIAS = "alias"
LINK = "link"


class IdentityNode(msgspec.Struct, gc=False):
    """One identity of the graph.

    ``carried`` is True if a message contains it as an identity, False if it is only the previousId of an alias.
    """

    id: bytes
    identity: Identity
    carried: bool
    customer: bytes | None = None


class MovedIdentity(msgspec.Struct, frozen=True):
    """An identity whose row must be updated, because its ``customer`` or its ``carried`` changed."""

    id: bytes
    customer: bytes | None
    carried: bool


class Link(msgspec.Struct, gc=False):
    """One edge of the graph. In an alias, ``weaker`` is previousId and ``stronger`` is userId, both of kind user_id."""

    weaker: bytes
    stronger: bytes
    kind: str
    order: Order
    joined: bool = True
    undone: bool = False


class Caps(msgspec.Struct, frozen=True):
    """Maximum number of identities that one customer can have of each kind.

    The number of user_ids is not limited, because only an alias joins them.
    """

    anonymous_ids: int
    contacts: int
    others: int

    def limit_for(self, kind: str) -> int | None:
        match kind:
            case "user_id":
                return None
            case "anonymous_id":
                return self.anonymous_ids
            case "email" | "phone":
                return self.contacts
            case _:
                return self.others


class Group:
    """Identities that the links applied so far join to one customer."""

    __slots__ = ("kinds", "members")

    def __init__(self, node: IdentityNode) -> None:
        self.members = [node]
        self.kinds = {node.identity.kind: 1}

    def can_join(self, group: Group, caps: Caps) -> bool:
        if "user_id" in self.kinds and "user_id" in group.kinds:
            return False
        for kind, count in group.kinds.items():
            cap = caps.limit_for(kind)
            if cap is not None and count + self.kinds.get(kind, 0) > cap:
                return False
        return True

    def add_group(self, group: Group) -> None:
        self.members.extend(group.members)
        for kind, count in group.kinds.items():
            self.kinds[kind] = self.kinds.get(kind, 0) + count

    @property
    def customer_id(self) -> bytes:
        """Id of the strongest identity, so that all workers derive the same customer id, in any order of messages."""
        return min((node.identity.strength, node.id) for node in self.members)[1]

    @property
    def exists(self) -> bool:
        """False if no message contains these identities: an inactive alias alone does not create a customer."""
        return any(node.carried for node in self.members)


def group_identities(nodes: Mapping[bytes, IdentityNode], links: Iterable[Link], caps: Caps) -> list[Group]:
    """Group ``nodes`` into customers and set ``joined`` of each link. ``links`` must hold all links among ``nodes``."""
    group_of = {id: Group(node) for id, node in nodes.items()}

    def join(link: Link) -> None:
        group_a, group_b = group_of[link.weaker], group_of[link.stronger]
        if group_a is group_b:
            return
        if len(group_a.members) < len(group_b.members):
            group_a, group_b = group_b, group_a
        group_a.add_group(group_b)
        for node in group_b.members:
            group_of[node.id] = group_a

    active_links = [link for link in links if not link.undone]
    for link in active_links:
        if link.kind == ALIAS:
            link.joined = is_alias_active(nodes, link)
            if link.joined:
                join(link)
    for link in sort_links([link for link in active_links if link.kind == LINK], lambda id: nodes[id].identity):
        group_a, group_b = group_of[link.weaker], group_of[link.stronger]
        link.joined = nodes[link.weaker].carried and (group_a is group_b or group_a.can_join(group_b, caps))
        if link.joined:
            join(link)
    return list({id(group): group for group in group_of.values()}.values())


def sort_links(links: Iterable[Link], identity_of: Callable[[bytes], Identity]) -> list[Link]:
    """Return the links in the order of their messages; within a message, sort by ``weaker``, strongest first."""

    def sort_key(link: Link) -> tuple[Order, int, str, str]:
        identity = identity_of(link.weaker)
        return (link.order, identity.strength, identity.kind, identity.value)

    return sorted(links, key=sort_key)


def is_alias_active(nodes: Mapping[bytes, IdentityNode], link: Link) -> bool:
    """Return whether the previousId of an alias counts as a user_id.

    It does not if messages contain its value only as an anonymous_id. Then an ordinary link joins the anonymous_id, and
    an earlier link takes precedence. So two users who alias the anonymous_id of a shared device are not merged.
    """
    previous_user = nodes[link.weaker]
    if previous_user.carried:
        return True
    anonymous = nodes.get(derive_identity_id("anonymous_id", previous_user.identity.value))
    return anonymous is None or not anonymous.carried
