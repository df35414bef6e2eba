"""Visit of a website: a browser context with a desktop user agent that records errors and requests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, Request

USER_AGENT: Final = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
)
"""Desktop user agent, because the server treats that of headless Chromium as a bot."""

_NO_STORAGE: Final = """
for (const [holder, name] of [[Document.prototype, "cookie"], [window, "localStorage"], [window, "sessionStorage"]]) {
  const refuse = () => { throw new DOMException("The operation is insecure.", "SecurityError"); };
  Object.defineProperty(holder, name, { configurable: true, get: refuse, set: refuse });
}
"""


class Visit:
    """A Playwright context that records uncaught ``errors`` and the ``hosts`` that its pages contacted."""

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
        """Open a context.

        ``now`` or ``skew`` install a running clock that the test can move (``context.clock``). ``storage=False`` makes
        cookies, localStorage and sessionStorage throw, as in a browser that blocks them. ``scripts`` run before the
        scripts of each page. Other options are passed to ``Browser.new_context``.
        """
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.context: BrowserContext = browser.new_context(**{"user_agent": USER_AGENT, **options})
        self.context.set_default_timeout(10_000)
        if now is not None or skew is not None:
            self.context.clock.install(time=(now or datetime.now(UTC)) + (skew or timedelta()))
        for script in (*([] if storage else [_NO_STORAGE]), *scripts):
            self.context.add_init_script(script)
        self.context.on("request", self._record)
        self.context.on("weberror", lambda error: self.errors.append(str(error.error)))

    def _record(self, request: Request) -> None:
        self.requests.append(request.url)

    @property
    def hosts(self) -> set[str]:
        """``host:port`` of every network request of the pages."""
        return {urlsplit(url).netloc for url in self.requests if url.startswith(("http:", "https:", "ws"))}

    def open(self, url: str, **options: Any) -> Page:
        """Open a tab. The option ``referer`` sets the URL of the page from which the visitor comes."""
        page = self.context.new_page()
        page.goto(url, **options)
        return page

    def close(self) -> None:
        self.context.close()
