"""Clusters: groups of identities while a flush adds its links, and which links change no earlier decision. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from app.identity.graph import LINK, Caps, Group, Link

LinkPlace = tuple[int, int]
"""(rank, instant): the first two elements of the order of a link."""

NEVER: Final[LinkPlace] = (0, -1)
"""Value of ``last_link`` for a customer without links. It is before the place of any link."""


class Cluster(msgspec.Struct):
    """A group, with the data that determines whether a link can be added without grouping again."""

    group: Group
    contested: bool
    last_link: LinkPlace


def is_last(link: Link, cluster_a: Cluster, cluster_b: Cluster) -> bool:
    """Return whether a link takes precedence over no link of the clusters. An alias does over later links."""
    return link.kind == LINK and link.order[:2] > max(cluster_a.last_link, cluster_b.last_link)


def is_conflict_final(link: Link, cluster_a: Cluster, cluster_b: Cluster, caps: Caps) -> bool:
    """Return whether a conflict changes no other link.

    Only aliases join user_ids. So if both clusters have too many, an alias after all their aliases has no effect.
    """
    is_later = link.order[:2] > max(cluster_a.last_link, cluster_b.last_link)
    return is_later and (link.kind == LINK or cluster_a.group.has_too_many_users(cluster_b.group, caps))
