"""Which site a host, or a value of utm_source, is: one look-up, as many steps as the host has labels. Pure.

The list is ``sites.txt`` beside this file, read once. Its first lines say how it is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, get_args

import msgspec

Category = Literal["search", "shopping", "social", "chat", "video", "ai", "mail", "display", "through"]

_SECOND_LEVELS: Final = frozenset(
    {"ac", "co", "com", "edu", "go", "gob", "gov", "gv", "ltd", "me", "ne", "net", "nom", "or", "org", "plc"}
)
"""Labels that stand between a country's top level and what somebody may register, as in example.co.uk."""

_SHARED: Final = frozenset(
    {
        *("azurewebsites.net", "blogspot.com", "carrd.co", "cloudfront.net", "fly.dev", "framer.app", "github.io"),
        *("gitlab.io", "glitch.me", "herokuapp.com", "myshopify.com", "netlify.app", "notion.site", "onrender.com"),
        *("pages.dev", "vercel.app", "web.app", "webflow.io", "wixsite.com", "wordpress.com", "workers.dev"),
    }
)
"""Domains below which each host belongs to somebody else."""

_WEBMAIL: Final = "webmail."
"""How the mail of countless providers and companies is called."""


class Site(msgspec.Struct, frozen=True):
    """``host`` is the one of the list that matched; empty where the site was found by name."""

    category: Category
    name: str
    host: str = ""


def find_site(host: str) -> Site | None:
    """The site that a host (lower case, without port) belongs to; the longest host of the list wins."""
    sites = _load_sites()
    bare_host = host.removeprefix("www.").removeprefix("m.")
    if (site := sites.alone.get(bare_host)) is not None:
        return site
    suffix = host
    while suffix:
        if (site := sites.whole.get(suffix)) is not None:
            return site
        _, _, suffix = suffix.partition(".")
    if host.startswith(_WEBMAIL):
        return Site("mail", _WEBMAIL[:-1], host)
    domain = find_registrable_domain(host)
    label = domain.partition(".")[0]
    labelled_site = sites.labels_alone.get(label) if bare_host == domain else None
    labelled_site = labelled_site or sites.labels.get(label)
    return None if labelled_site is None else msgspec.structs.replace(labelled_site, host=domain)


def find_site_by_name(source: str) -> Site | None:
    """The site that a value of utm_source names: by its name, or by its host."""
    name = source.strip().lower()
    site = _load_sites().names.get(name)
    return site if site is not None or "." not in name else find_site(name)


@lru_cache(maxsize=4096)
def find_registrable_domain(host: str) -> str:
    """What looks like the domain that somebody registered: shop.example.co.uk -> example.co.uk.

    By the shape of its last labels, which the public suffix list would tell exactly; an address is itself.
    """
    labels = host.split(".")
    if len(labels) < 3 or labels[-1].isdigit() or ":" in host:
        return host
    label_count = 3 if len(labels[-1]) == 2 and labels[-2] in _SECOND_LEVELS else 2
    if ".".join(labels[-2:]) in _SHARED:
        label_count = 3
    return ".".join(labels[-label_count:])


def is_same_site(left: str, right: str) -> bool:
    return left == right or find_registrable_domain(left) == find_registrable_domain(right)


class _SiteIndex(msgspec.Struct):
    """The list, ready to be asked. A host ``alone`` says nothing of those below it, a ``whole`` one does."""

    whole: dict[str, Site] = {}
    alone: dict[str, Site] = {}
    labels: dict[str, Site] = {}
    labels_alone: dict[str, Site] = {}
    names: dict[str, Site] = {}

    def add(self, category: Category, name: str, hosts: list[str]) -> None:
        if name:
            self.names[name] = Site(category, name)
        for host in hosts:
            key = host.removeprefix("=").removesuffix(".*")
            table = self.labels if host.endswith(".*") else self.whole
            if host.startswith("="):
                table = self.labels_alone if host.endswith(".*") else self.alone
            table[key] = Site(category, name or key, key)


@lru_cache(maxsize=1)
def _load_sites() -> _SiteIndex:
    sites = _SiteIndex()
    for category, name, hosts in _read_list():
        if name == "*.com":
            for label in hosts:
                sites.add(category, label, [f"{label}.com"])
        else:
            sites.add(category, "" if name == "hosts" else name, hosts)
    return sites


def _read_list() -> Iterator[tuple[Category, str, list[str]]]:
    categories = {name: name for name in get_args(Category)}
    category: Category | None = None
    for line in Path(__file__).with_name("referrer_sites.txt").read_text("utf-8").splitlines():
        if line.startswith("["):
            category = categories[line.strip("[]")]
        elif line and not line.startswith("#"):
            assert category is not None
            name, _, hosts = line.partition(":")
            yield category, name, hosts.split()
