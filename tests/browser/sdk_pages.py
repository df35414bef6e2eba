"""Stock browser SDKs as npm has them, and a page of another origin that runs one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import sha256
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
_AN_OPTION = re.compile(r"\b(?:protocol|configUrl|api_host): '[^']*'")
_INSTALL_SECONDS_MAX: Final = 180
_RETRY_SECONDS_MAX: Final = 30.0


class Unavailable(Exception):
    """npm is missing, or it cannot install; the message says which."""


def installed() -> Path:
    """``node_modules`` of package.json, installed once into the user's cache. Raises Unavailable."""
    wanted = (HERE / "package.json").read_bytes()
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = home / "segue-tests" / f"browser-{sha256(wanted).hexdigest()[:12]}"
    if not (place / "complete").exists():
        place.mkdir(parents=True, exist_ok=True)
        (place / "package.json").write_bytes(wanted)
        _run_npm(place)
        (place / "complete").touch()
    return place / "node_modules"


def _run_npm(place: Path) -> None:
    """npm of the wheel that stands beside this Python, which finds its node there too."""
    programs = Path(sys.executable).parent
    command = [str(programs / "npm"), "install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock"]
    try:
        done = subprocess.run(
            command,
            cwd=place,
            env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"},
            capture_output=True,
            text=True,
            timeout=_INSTALL_SECONDS_MAX,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"npm cannot be run: {error}") from None
    if done.returncode:
        raise Unavailable(f"npm cannot install the SDKs: {done.stderr.strip()[-300:]}")


def guide(heading: str) -> str:
    """The lines by which docs/website.md points an SDK here; a page that loads a file imports nothing."""
    _, found, section = (ROOT / "docs" / "website.md").read_text(encoding="utf-8").partition(f"\n### {heading}")
    assert found, f"docs/website.md has no section on {heading}"
    block = section.partition("```js\n")[2].partition("```")[0]
    return "\n".join(line for line in block.splitlines() if not line.startswith("import "))


class Sent(NamedTuple):
    method: str
    path: str


class Stage:
    """A source of its own, and a page that loads one SDK's own file; between the browser and Segue is a proxy.

    ``asked`` is what the browser sends while the page is there, preflights included, which Playwright does not show;
    what it sends when the page is left only the proxy sees.
    """

    def __init__(self, segue: Segue, site: Site, guest: Visit, proxy: FaultyProxy, modules: Path) -> None:
        self.segue = segue
        self.source: Source = segue.source()
        self.site = site
        self.guest = guest
        self.proxy = proxy
        self.asked: list[Sent] = []
        site.directory("/sdk", modules)

    def open(self, file: str | None, code: str, options: str = "", **more: Any) -> Page:
        """``code`` is that of the guide, run for this Segue; ``options`` go beside those that it sets."""
        for theirs, ours in (
            ("https://segue.example.com", self.proxy.url),
            ("segue.example.com", self.proxy.url.removeprefix("http://")),
            ("protocol: 'https'", "protocol: 'http'"),
            ("wk_...", self.source.write_key),
        ):
            code = code.replace(theirs, ours)
        code = _AN_OPTION.sub(rf"\g<0>, {options}", code, count=1) if options else code
        library = f"<script src='/sdk/{file}'></script>" if file else ""
        url = self.site.page("/shop", f"<!doctype html><title>Shop</title>{library}<script>{code}</script>")
        page = self.guest.context.new_page()
        network = self.guest.context.new_cdp_session(page)
        network.on("Network.requestWillBeSent", self._note)
        network.send("Network.enable")
        page.goto(url + LANDING, **more)
        return page

    def _note(self, event: dict[str, Any]) -> None:
        self.asked.append(Sent(event["request"]["method"], urlsplit(event["request"]["url"]).path))

    def leave(self, page: Page) -> None:
        page.goto(self.site.page("/away", "away"))

    @property
    def preflights(self) -> set[str]:
        """Paths that were asked for leave."""
        return {each.path for each in self.asked if each.method == "OPTIONS"}

    def posts(self, start: str) -> list[str]:
        """Heads of requests with a body that begin so, after ``post ``, in lower case."""
        heads = [head.decode("latin-1") for head in self.proxy.heads]
        return [head for head in heads if head.startswith(f"post {start}")]

    def beacons(self, start: str) -> list[str]:
        """Those of them that a page sends without hope for an answer."""
        return [head for head in self.posts(start) if "sec-fetch-mode: no-cors" in head]

    def until_posts(self, page: Page, count: int) -> None:
        """SDKs take their time before they try again."""
        deadline = time.monotonic() + _RETRY_SECONDS_MAX
        while len(self.proxy.heads) < count:
            assert time.monotonic() < deadline, f"waited for {count} requests; there were {self.proxy.met}"
            page.wait_for_timeout(50)

    def until(self, wanted: int | Callable[[Sequence[Row]], object]) -> list[Row]:
        return self.segue.until(self.source, wanted)

    def steps(self) -> Counter[int]:
        """How often PostgreSQL holds each ``Step`` of this source."""
        rows = self.segue.messages(self.source, "track")
        return Counter(row["properties"]["n"] for row in rows if row["name"] == "Step")

    def until_steps(self, count: int) -> None:
        self.until(lambda rows: sum(row["name"] == "Step" for row in rows) >= count)

    def identities(self, customer: str) -> set[tuple[str, str]]:
        found = self.segue.get(f"/v1/customers/{customer}")["identities"]
        return {(each["kind"], each["value"]) for each in found}

    def assert_only_these_hosts(self) -> None:
        """Nothing was asked of anybody else, and no script failed."""
        assert self.guest.errors == []
        assert {host.partition(":")[0] for host in self.guest.hosts} == {"localhost", "127.0.0.1"}
