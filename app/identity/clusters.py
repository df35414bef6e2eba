"""Clusters: groups of identities while a flush adds its links, and which links change no earlier decision. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from app.identity.graph import ALIAS, LINK, Caps, Group, Link

LinkPlace = tuple[int, int]
"""(rank, instant): the first two elements of the order of a link."""

NEVER: Final[LinkPlace] = (0, -1)
"""Value of ``last_link`` for a customer without links. It is before the place of any link."""

FIRST_CLAIM: Final[LinkPlace] = (1, 0)
"""Place before all links of public keys, and after those of servers."""


class Cluster(msgspec.Struct):
    """A group, with the data that determines whether a link can be added without grouping again."""

    group: Group
    contested: bool
    last_link: LinkPlace
    last_stored_link: LinkPlace = NEVER
    """Place of the last link before this flush."""


def is_harmless(link: Link, cluster_a: Cluster, cluster_b: Cluster) -> bool:
    """Return whether a link that joins two clusters, or is inside one, changes no other link.

    Parts of the joined cluster can join in any order, and larger groups have the same conflicts. So earlier links stay
    joined, and conflicts stay conflicts. Aliases after the link are an exception: before them, a part can have a
    user_id that cannot join another one. All aliases are before the links of public keys, and those of servers are
    before all links.
    """
    if link.kind == ALIAS:
        return not (cluster_a.contested or cluster_b.contested)
    if not link.vouched or max(cluster_a.last_stored_link, cluster_b.last_stored_link) < FIRST_CLAIM:
        return True
    clusters = (cluster_a,) if cluster_a is cluster_b else (cluster_a, cluster_b)
    return sum(cluster.group.kinds.get("user_id", 0) for cluster in clusters) <= 1


def is_conflict_final(link: Link, cluster_a: Cluster, cluster_b: Cluster, caps: Caps) -> bool:
    """Return whether a conflict changes no other link, because it follows all stored links of the clusters.

    The links of one flush are added in order. Only aliases join user_ids. So if both clusters have too many, an alias
    after all their aliases has no effect.
    """
    is_later = link.order[:2] > max(cluster_a.last_stored_link, cluster_b.last_stored_link)
    return is_later and (link.kind == LINK or cluster_a.group.has_too_many_users(cluster_b.group, caps))
