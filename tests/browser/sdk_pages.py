"""Stock browser SDKs from npm, and a page of another origin that runs one."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from playwright.sync_api import Page

from tests.browser.running_segue import Row, Segue, Source
from tests.browser.static_site import Site
from tests.browser.visit import Visit
from tests.support.faulty_proxy import FaultyProxy

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
LANDING: Final = "?utm_source=news&utm_medium=email&utm_campaign=spring"
_OPTION = re.compile(r"\b(?:protocol|configUrl|api_host): '[^']*'")
_RETRY_SECONDS_MAX: Final = 30.0


def guide_code(heading: str) -> str:
    """Return the code with which docs/website.md configures an SDK.

    Imports are removed, because the page loads a file.
    """
    _, has_heading, section = (ROOT / "docs" / "website.md").read_text(encoding="utf-8").partition(f"\n### {heading}")
    assert has_heading, f"docs/website.md has no section on {heading}"
    block = section.partition("```js\n")[2].partition("```")[0]
    return "\n".join(line for line in block.splitlines() if not line.startswith("import "))


class SentRequest(NamedTuple):
    method: str
    path: str


class SdkTestbed:
    """A source, a page that loads an SDK, and a proxy between the browser and Segue.

    ``requests`` contains the requests that the browser sends while the page is open, including preflights, which
    Playwright does not report. Only the proxy records requests that are sent while the page is being left.
    """

    def __init__(self, segue: Segue, site: Site, guest: Visit, proxy: FaultyProxy, modules: Path) -> None:
        self.segue = segue
        self.source: Source = segue.source()
        # The tests also send aliases of two user ids, which a public key may claim only if it is allowed to.
        [key] = [key for key in segue.get("/v1/keys")["items"] if key["source"] == self.source.key]
        segue.put(f"/v1/keys/{key['id']}", {"joins_users": True})
        self.site = site
        self.guest = guest
        self.proxy = proxy
        self.requests: list[SentRequest] = []
        site.directory("/sdk", modules)

    def open(self, file: str | None, code: str, options: str = "", **goto_options: Any) -> Page:
        """Open a page that runs the guide's ``code`` for this Segue.

        ``options`` are added to the options of the SDK.
        """
        for documented, actual in (
            ("https://segue.example.com", self.proxy.url),
            ("segue.example.com", self.proxy.url.removeprefix("http://")),
            ("protocol: 'https'", "protocol: 'http'"),
            ("wk_...", self.source.write_key),
        ):
            code = code.replace(documented, actual)
        code = _OPTION.sub(rf"\g<0>, {options}", code, count=1) if options else code
        library = f"<script src='/sdk/{file}'></script>" if file else ""
        url = self.site.page("/shop", f"<!doctype html><title>Shop</title>{library}<script>{code}</script>")
        page = self.guest.context.new_page()
        network = self.guest.context.new_cdp_session(page)
        network.on("Network.requestWillBeSent", self._record)
        network.send("Network.enable")
        page.goto(url + LANDING, **goto_options)
        return page

    def _record(self, event: dict[str, Any]) -> None:
        self.requests.append(SentRequest(event["request"]["method"], urlsplit(event["request"]["url"]).path))

    def leave(self, page: Page) -> None:
        page.goto(self.site.page("/away", "away"))

    @property
    def preflights(self) -> set[str]:
        """Paths of the preflight requests that the page has sent."""
        return {request.path for request in self.requests if request.method == "OPTIONS"}

    def posts(self, start: str) -> list[str]:
        """Return the heads, in lower case, of POST requests whose path starts with ``start``."""
        heads = [head.decode("latin-1") for head in self.proxy.heads]
        return [head for head in heads if head.startswith(f"post {start}")]

    def beacons(self, start: str) -> list[str]:
        """Return the heads, in lower case, of beacons whose path starts with ``start``."""
        return [head for head in self.posts(start) if "sec-fetch-mode: no-cors" in head]

    def wait_for_posts(self, page: Page, count: int) -> None:
        """Wait until ``count`` requests have arrived. SDKs wait a few seconds before they retry."""
        deadline = time.monotonic() + _RETRY_SECONDS_MAX
        while len(self.proxy.heads) < count:
            assert time.monotonic() < deadline, f"waited for {count} requests; got {self.proxy.injected}"
            page.wait_for_timeout(50)

    def wait_for(self, condition: int | Callable[[Sequence[Row]], object]) -> list[Row]:
        return self.segue.wait_for(self.source, condition)

    def steps(self) -> Counter[int]:
        """Return the number of stored ``Step`` events of this source by their number."""
        rows = self.segue.messages(self.source, "track")
        return Counter(row["properties"]["n"] for row in rows if row["name"] == "Step")

    def wait_for_steps(self, count: int) -> None:
        self.wait_for(lambda rows: sum(row["name"] == "Step" for row in rows) >= count)

    def identities(self, customer: str) -> set[tuple[str, str]]:
        identities = self.segue.get(f"/v1/customers/{customer}")["identities"]
        return {(identity["kind"], identity["value"]) for identity in identities}

    def assert_local_and_without_errors(self) -> None:
        """Assert that the page contacted only the test servers and that no script failed."""
        assert self.guest.errors == []
        assert {host.partition(":")[0] for host in self.guest.hosts} == {"localhost", "127.0.0.1"}
