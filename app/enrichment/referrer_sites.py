"""Known referring sites by host or by utm_source. Pure.

The list is ``referrer_sites.txt`` beside this file, loaded once; its first lines explain its format. A lookup takes as
many steps as the host has labels.
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
"""Second-level labels under which countries register domains, as in example.co.uk."""

_SHARED: Final = frozenset(
    {
        *("azurewebsites.net", "blogspot.com", "carrd.co", "cloudfront.net", "fly.dev", "framer.app", "github.io"),
        *("gitlab.io", "glitch.me", "herokuapp.com", "myshopify.com", "netlify.app", "notion.site", "onrender.com"),
        *("pages.dev", "vercel.app", "web.app", "webflow.io", "wixsite.com", "wordpress.com", "workers.dev"),
    }
)
"""Hosting domains whose subdomains belong to different owners."""

_WEBMAIL: Final = "webmail."
"""Host prefix of the webmail of many providers and companies."""


class Site(msgspec.Struct, frozen=True):
    """A known site. ``host`` is the host of the list that matched, or empty if the site was found by name."""

    category: Category
    name: str
    host: str = ""


def find_site(host: str) -> Site | None:
    """Return the site of a host (lower case, without port), or None; the longest matching host of the list wins."""
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
    """Return the site to which a utm_source refers, by name or host; None if it is unknown."""
    name = source.strip().lower()
    site = _load_sites().names.get(name)
    return site if site is not None or "." not in name else find_site(name)


@lru_cache(maxsize=4096)
def find_registrable_domain(host: str) -> str:
    """Return the probable registrable domain: shop.example.co.uk -> example.co.uk.

    It is guessed from the last labels; only the public suffix list would be exact. An IP address is returned unchanged.
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
    """The list, indexed for lookup.

    Hosts in ``whole`` and ``labels`` include their subdomains; hosts in ``alone`` and ``labels_alone`` do not.
    """

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
