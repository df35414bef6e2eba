"""The list of referring sites, and the number of steps of a lookup."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from app.enrichment.referrer_sites import (
    _read_list,
    find_registrable_domain,
    find_site,
    find_site_by_name,
    is_same_site,
)

HOST = re.compile(r"=?(?:[a-z0-9][a-z0-9_-]*\.)+(?:[a-z][a-z0-9-]*|\*)")


def test_site_list_is_well_formed() -> None:
    names: Counter[str] = Counter()
    hosts: Counter[str] = Counter()
    for _, name, listed in _read_list():
        if name == "*.com":
            names.update(listed)
            hosts.update(f"{label}.com" for label in listed)
        else:
            names.update([name] if name != "hosts" else [])
            hosts.update(listed)
    assert [name for name, times in names.items() if times > 1] == []
    assert [host for host, times in hosts.items() if times > 1] == []
    assert [name for name in names if name != name.strip().lower() or not name] == []
    assert [host for host in hosts if not HOST.fullmatch(host)] == []
    assert len(hosts) > 600


def test_every_listed_host_and_name_is_found() -> None:
    for category, name, listed in _read_list():
        for entry in [f"{host}.com" for host in listed] if name == "*.com" else listed:
            host = entry.removeprefix("=").replace(".*", ".com")
            site = find_site(host)
            assert site is not None, host
            assert site.category == category, host
        if name not in ("*.com", "hosts"):
            named = find_site_by_name(name)
            assert named is not None
            assert (named.category, named.name) == (category, name)


@pytest.mark.parametrize(
    ("host", "category"),
    [
        ("google.com", "search"),
        ("www.google.de", "search"),
        ("mail.google.com", "mail"),
        ("gemini.google.com", "ai"),
        ("groups.google.com", "social"),
        ("accounts.google.com", "through"),
        ("calendar.google.com", None),
        ("google.evil.example", None),
        ("evilgoogle.com", None),
        ("a.b.c.facebook.com", "social"),
        ("facebook.com.example", None),
        ("m.facebook.com", "social"),
        ("aws.amazon.com", "shopping"),
        ("amazon.example.com", None),
        ("webmail.example.net", "mail"),
        ("com", None),
        ("", None),
        ("." * 200, None),
    ],
)
def test_longest_host_wins(host: str, category: str | None) -> None:
    site = find_site(host)
    assert (site and site.category) == category


def test_registrable_domain() -> None:
    domains = {
        "example.com": "example.com",
        "www.shop.example.com": "example.com",
        "shop.example.co.uk": "example.co.uk",
        "example.co.uk": "example.co.uk",
        "a.b.example.com.br": "example.com.br",
        "one.github.io": "one.github.io",
        "deep.one.github.io": "one.github.io",
        "t.co": "t.co",
        "localhost": "localhost",
        "192.0.2.1": "192.0.2.1",
        "[2001:db8::1]": "[2001:db8::1]",
    }
    assert {host: find_registrable_domain(host) for host in domains} == domains
    assert is_same_site("a.example.com", "b.example.com")
    assert not is_same_site("192.0.2.1", "198.51.2.1")
