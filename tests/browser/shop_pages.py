"""Pages that carry the snippet, as ``docs/website.md`` says to put it there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Page

from app.browser import snippet
from tests.browser.running_segue import Row, Segue, Source
from tests.browser.static_site import Site

_GUIDE: Final = Path(__file__).parents[2] / "docs" / "website.md"
_LOADER = re.compile(r"```html\n<script>\n(.*?)</script>\n```", re.DOTALL)
_LIBRARY = re.compile(r"```html\n(<script async .*?</script>)\n```")
_LOAD = re.compile(r"segue\.load\('wk_.*?\)$", re.DOTALL | re.MULTILINE)
_HOST: Final = "https://segue.example.com"


def documented_loader() -> str:
    """The script that stands in the guide, without its tags: queues calls until the library is there."""
    return _found(_LOADER)


def loader(host: str, write_key: str, options: Mapping[str, Any]) -> str:
    """That script for this service and this key."""
    call = f"segue.load({json.dumps(write_key)}, {json.dumps({'host': host, **options})})"
    script, calls = _LOAD.subn(lambda _: call, documented_loader())
    assert calls == 1, script
    return script


def library(host: str) -> str:
    """The guide's tag that fetches the library, for this service and the file as built (a test compares the two)."""
    built, tag = snippet(), _found(_LIBRARY)
    assert _HOST in tag
    tag = re.sub(r"segue-[0-9a-f]{12}", f"segue-{built.version}", tag)
    return re.sub(r'integrity="[^"]*"', f'integrity="{built.integrity}"', tag).replace(_HOST, host)


@cache
def _found(pattern: re.Pattern[str]) -> str:
    found = pattern.search(_GUIDE.read_text())
    assert found is not None, f"docs/website.md shows no {pattern.pattern}"
    return found[1]


class Shop:
    """A site whose pages carry the snippet with the key of a source of its own."""

    def __init__(self, segue: Segue, site: Site, **source: Any) -> None:
        self.segue = segue
        self.site = site
        self.source: Source = segue.source(**source)

    def page(
        self,
        path: str = "/",
        body: str = "",
        *,
        head: str = "",
        calls: str = "",
        host: str | None = None,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> str:
        """Put such a page there. ``calls`` follow the loader at once; ``options`` are those of ``segue.load``."""
        host = host or self.segue.url
        script = loader(host, self.source.write_key, options)
        title = path.strip("/") or "home"
        html = (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>{head}'
            f"<script>{script}\n{calls}</script>{library(host)}</head><body>{body}</body></html>"
        )
        return self.site.page(path, html, headers)

    def messages(self, *types: str) -> list[Row]:
        return self.segue.messages(self.source, *types)

    def until(self, wanted: int | Callable[[Sequence[Row]], object], *types: str) -> list[Row]:
        return self.segue.until(self.source, wanted, *types)

    def until_names(self, *names: str) -> list[Row]:
        """Wait for these names, and raise AssertionError if there are others, or one twice; the type where no name."""
        rows = self.until(len(names))
        assert sorted(row["name"] or row["type"] for row in rows) == sorted(names)
        return rows


def until_ready(page: Page) -> None:
    """The library has arrived, and knows the visitor. Raises Playwright's TimeoutError."""
    settle(page, "new Promise((done) => segue.ready(done))")


def flush(page: Page) -> None:
    """All that can be sent now is sent."""
    settle(page, "segue.flush()")


def close_tab(page: Page) -> None:
    """As a visitor closes it: the page hears of it first."""
    with page.expect_event("close"):
        page.close(run_before_unload=True)


def settle(page: Page, promise: str) -> None:
    """Waits for a promise, but not for ever, also where the page's clock stands still."""
    page.evaluate(f"() => {{ document.settled = 0; Promise.resolve({promise}).finally(() => document.settled = 1) }}")
    page.wait_for_function("() => document.settled")
