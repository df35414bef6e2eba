"""A person at a browser: a context with an ordinary desktop's user agent, and what went wrong in it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, Request

USER_AGENT: Final = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
)
"""Headless Chromium says of itself that it is a bot."""

_NO_STORAGE: Final = """
for (const [holder, name] of [[Document.prototype, "cookie"], [window, "localStorage"], [window, "sessionStorage"]]) {
  const refuse = () => { throw new DOMException("The operation is insecure.", "SecurityError"); };
  Object.defineProperty(holder, name, { configurable: true, get: refuse, set: refuse });
}
"""


class Visit:
    """``context`` is Playwright's; ``errors`` are uncaught, ``hosts`` are those that pages asked, in no order."""

    def __init__(
        self,
        browser: Browser,
        *,
        storage: bool = True,
        now: datetime | None = None,
        skew: timedelta | None = None,
        scripts: tuple[str, ...] = (),
        **options: Any,
    ) -> None:
        """``now`` or ``skew`` install a clock that the test moves (``context.clock``) and that ticks by itself.

        ``storage=False`` makes cookies and both storages throw, as a browser does that blocks them. ``scripts`` run
        before those of each page. Other options are those of ``Browser.new_context``.
        """
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.context: BrowserContext = browser.new_context(**{"user_agent": USER_AGENT, **options})
        self.context.set_default_timeout(10_000)
        if now is not None or skew is not None:
            self.context.clock.install(time=(now or datetime.now(UTC)) + (skew or timedelta()))
        for script in (*([] if storage else [_NO_STORAGE]), *scripts):
            self.context.add_init_script(script)
        self.context.on("request", self._asked)
        self.context.on("weberror", lambda error: self.errors.append(str(error.error)))

    def _asked(self, request: Request) -> None:
        self.requests.append(request.url)

    @property
    def hosts(self) -> set[str]:
        """``host:port`` of every request of the network."""
        return {urlsplit(url).netloc for url in self.requests if url.startswith(("http:", "https:", "ws"))}

    def open(self, url: str, **options: Any) -> Page:
        """A new tab. ``referer`` is where the visitor comes from."""
        page = self.context.new_page()
        page.goto(url, **options)
        return page

    def close(self) -> None:
        self.context.close()
