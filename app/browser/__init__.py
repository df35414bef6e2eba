"""Browser library that web pages load. Hides its sources, its build and the hash in its file name.

:mod:`app.browser.build` bundles ``src`` into ``segue.js``. The bundle is committed, so that an installation needs no
build.
"""

from __future__ import annotations

import base64
from functools import cache
from hashlib import sha256, sha384
from pathlib import Path
from typing import Final, NamedTuple

SCRIPT: Final = Path(__file__).with_name("segue.js")
TYPES: Final = Path(__file__).with_name("segue.d.ts")


class Snippet(NamedTuple):
    """The library. ``version`` is the first 12 hex digits of its SHA-256; ``integrity`` is for a script tag."""

    content: bytes
    version: str
    integrity: str


def snippet_of(content: bytes) -> Snippet:
    integrity = "sha384-" + base64.b64encode(sha384(content).digest()).decode()
    return Snippet(content, sha256(content).hexdigest()[:12], integrity)


@cache
def snippet() -> Snippet:
    """Return the built file, read once. Raise OSError if the installation does not contain it."""
    return snippet_of(SCRIPT.read_bytes())
