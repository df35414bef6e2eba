"""The two tags of the guide, as every site puts it into its pages, with this shop's key and options."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from bench.processes import ROOT

GUIDE: Final = ROOT / "docs" / "website.md"
OPTIONS: Final[dict[str, Any]] = {"stream": True}
"""The page stays open and changes by itself, so it listens; everything else is as it comes."""

_SCRIPT: Final = re.compile(r"```html\n<script>\n?(.*?)\n?</script>\n```", re.DOTALL)
_LOAD: Final = re.compile(r"segue\.load\(.*?\)\n?$", re.DOTALL | re.MULTILINE)


def loader(host: str, write_key: str) -> str:
    """The text of the inline script. Raises RuntimeError when the guide shows none."""
    found = _SCRIPT.search(GUIDE.read_text())
    if found is None or not _LOAD.search(found[1]):
        raise RuntimeError(f"{GUIDE} shows no loader.")
    call = f"segue.load({json.dumps(write_key)}, {json.dumps({'host': host, **OPTIONS})})"
    return _LOAD.sub(lambda _: call, found[1])


def library(host: str) -> str:
    """The tag that brings the library."""
    return f'<script async src="{host}/segue.js" crossorigin="anonymous"></script>'
