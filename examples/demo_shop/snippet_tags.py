"""Snippet tags from the website guide, with the shop's key and options."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from bench.processes import ROOT

GUIDE: Final = ROOT / "docs" / "website.md"
OPTIONS: Final[dict[str, Any]] = {"stream": True}
"""Options of ``segue.load``. The page stays open and updates itself, so it uses the stream."""

_SCRIPT: Final = re.compile(r"```html\n<script>\n?(.*?)\n?</script>\n```", re.DOTALL)
_LOAD: Final = re.compile(r"segue\.load\(.*?\)\n?$", re.DOTALL | re.MULTILINE)


def loader(host: str, write_key: str) -> str:
    """Return the text of the inline script. Raise RuntimeError if the guide contains none."""
    match = _SCRIPT.search(GUIDE.read_text())
    if match is None or not _LOAD.search(match[1]):
        raise RuntimeError(f"{GUIDE} contains no loader.")
    call = f"segue.load({json.dumps(write_key)}, {json.dumps({'host': host, **OPTIONS})})"
    return _LOAD.sub(lambda _: call, match[1])


def library(host: str) -> str:
    """Return the tag that loads segue.js."""
    return f'<script async src="{host}/segue.js" crossorigin="anonymous"></script>'
