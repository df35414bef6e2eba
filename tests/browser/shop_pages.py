"""Pages with the snippet, included as ``docs/website.md`` describes."""

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
    """Return the guide's inline script, which queues calls until the library has loaded."""
    return _guide_match(_LOADER)


def loader(host: str, write_key: str, options: Mapping[str, Any]) -> str:
    """Return the guide's inline script with this host, write key and options."""
    call = f"segue.load({json.dumps(write_key)}, {json.dumps({'host': host, **options})})"
    script, calls = _LOAD.subn(lambda _: call, documented_loader())
    assert calls == 1, script
    return script


def library(host: str) -> str:
    """Return the guide's library tag with this host and the current build's version. A test compares both builds."""
    built, tag = snippet(), _guide_match(_LIBRARY)
    assert _HOST in tag
    tag = re.sub(r"segue-[0-9a-f]{12}", f"segue-{built.version}", tag)
    return re.sub(r'integrity="[^"]*"', f'integrity="{built.integrity}"', tag).replace(_HOST, host)


@cache
def _guide_match(pattern: re.Pattern[str]) -> str:
    match = pattern.search(_GUIDE.read_text())
    assert match is not None, f"docs/website.md does not contain {pattern.pattern}"
    return match[1]


class Shop:
    """A site with its own source, whose pages contain the snippet."""

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
        """Add a page and return its URL.

        ``calls`` is JavaScript after the loader; ``options`` are those of ``segue.load``.
        """
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

    def wait_for(self, condition: int | Callable[[Sequence[Row]], object], *types: str) -> list[Row]:
        return self.segue.wait_for(self.source, condition, *types)

    def wait_for_names(self, *names: str) -> list[Row]:
        """Wait for messages with exactly these names. Use the type for a message that has no name."""
        rows = self.wait_for(len(names))
        assert sorted(row["name"] or row["type"] for row in rows) == sorted(names)
        return rows


def wait_until_ready(page: Page) -> None:
    """Wait until the library has loaded and knows the visitor. Raise Playwright's TimeoutError after a timeout."""
    settle(page, "new Promise((done) => segue.ready(done))")


def flush(page: Page) -> None:
    """Send all queued messages and wait for their responses."""
    settle(page, "segue.flush()")


def close_tab(page: Page) -> None:
    """Close the tab as a visitor would, so that the page receives its unload events."""
    with page.expect_event("close"):
        page.close(run_before_unload=True)


def settle(page: Page, promise: str) -> None:
    """Wait until a JavaScript promise settles, with a timeout that works even if the page's clock is stopped."""
    page.evaluate(f"() => {{ document.settled = 0; Promise.resolve({promise}).finally(() => document.settled = 1) }}")
    page.wait_for_function("() => document.settled")
