"""Identity graph: groups identities into customers. Pure.

The result depends only on the set of links, not on the order in which they arrive.

Links and aliases for which a server vouches come first, because no claim of a public key may change them. Among
equally vouched ones, aliases join groups first, then links in the order of their messages. A link joins two groups
unless both contain a user_id, or the joined group would exceed a limit of identities. Such a link is a conflict and
changes nothing. The user_ids of a group that an alias joined count as one; an alias is a conflict only because of a
limit. If several messages contain a link, only the first in order counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from app.touchpoint import Identity, LinkOrder, derive_identity_id

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
    order: LinkOrder
    joined: bool = True
    undone: bool = False

    @property
    def vouched(self) -> bool:
        return self.order[0] == 0


class Caps(msgspec.Struct, frozen=True):
    """Maximum number of identities that one customer can have, of each kind and in total."""

    user_ids: int
    anonymous_ids: int
    contacts: int
    others: int
    total: int

    def limit_for(self, kind: str) -> int:
        match kind:
            case "user_id":
                return self.user_ids
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

    def can_join(self, group: Group, link: Link, caps: Caps) -> bool:
        """Return whether ``link`` may join the two groups."""
        if link.kind == LINK and "user_id" in self.kinds and "user_id" in group.kinds:
            return False
        return len(self.members) + len(group.members) <= caps.total and all(
            count + self.kinds.get(kind, 0) <= caps.limit_for(kind) for kind, count in group.kinds.items()
        )

    def has_too_many_users(self, group: Group, caps: Caps) -> bool:
        """Return whether no alias may join the two groups, because of their user_ids alone."""
        return self.kinds.get("user_id", 0) + group.kinds.get("user_id", 0) > caps.user_ids

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

    for link in sort_links([link for link in links if not link.undone], lambda id: nodes[id].identity):
        group_a, group_b = group_of[link.weaker], group_of[link.stronger]
        link.joined = is_active(nodes, link) and (group_a is group_b or group_a.can_join(group_b, link, caps))
        if link.joined:
            join(link)
    return list({id(group): group for group in group_of.values()}.values())


def sort_links(links: Iterable[Link], identity_of: Callable[[bytes], Identity]) -> list[Link]:
    """Return the links in the order in which they take precedence.

    Links of one message are sorted by ``weaker``, strongest first.
    """

    def sort_key(link: Link) -> tuple[int, bool, LinkOrder, int, str, str]:
        identity = identity_of(link.weaker)
        return (link.order[0], link.kind == LINK, link.order, identity.strength, identity.kind, identity.value)

    return sorted(links, key=sort_key)


def is_active(nodes: Mapping[bytes, IdentityNode], link: Link) -> bool:
    """Return whether messages contain the weaker identity of a link, so that the link can have an effect."""
    return _is_alias_active(nodes, link) if link.kind == ALIAS else nodes[link.weaker].carried


def _is_alias_active(nodes: Mapping[bytes, IdentityNode], link: Link) -> bool:
    """Return whether the previousId of an alias counts as a user_id.

    It does not if messages contain its value only as an anonymous_id. Then an ordinary link joins the anonymous_id, and
    an earlier link takes precedence. So two users who alias the anonymous_id of a shared device are not merged.
    """
    previous_user = nodes[link.weaker]
    if previous_user.carried:
        return True
    anonymous = nodes.get(derive_identity_id("anonymous_id", previous_user.identity.value))
    return anonymous is None or not anonymous.carried
