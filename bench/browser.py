"""Figures (p) to (s): our snippet beside analytics-next, RudderStack's and PostHog's library, on one page, in one run.

Each visit has a Chromium of its own, so that nothing of the visit before is still compiled or stored, and a main
thread that is slowed down four times, as a phone's is beside this machine's. The page loads, then the library; the page
is scrolled and clicked; then events are sent one by one until all have arrived. A visit whose events do not arrive is
an error: a library that does nothing would win everything.
"""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import median
from typing import Final

from playwright.sync_api import Page, Playwright, sync_playwright

from bench.browser_libraries import OURS, Library, Unavailable, libraries
from bench.browser_page import CALL_EVERY_MS, ELEMENTS, EVENT, KEY, shop_page
from bench.chromium_trace import CATEGORIES, Reading, read_trace
from bench.result import Figure, Say
from tests.browser.chromium import REMEDY, chromium_path, flags
from tests.browser.visit import USER_AGENT

SLOWED: Final = 4
ARRIVE_SECONDS_MAX: Final = 40.0
SETTLE_SECONDS: Final = 1.0
SCROLLS: Final = 5
CLICKS_AT: Final = ((200, 420), (430, 420), (660, 420))
SIZE_BYTES_MAX: Final = 4_096
TASK_MS_MAX: Final = 10


@dataclass(frozen=True)
class Sizes:
    rounds: int
    calls: int


FULL = Sizes(9, 100)
QUICK = Sizes(1, 10)
"""Shows that everything runs; the figures mean nothing."""


@dataclass(frozen=True)
class Visit:
    reading: Reading
    script_bytes: int
    """Of all files of the library that the page asked for, gzipped."""
    call_us: float
    """Median of what one call took until it returned."""
    calls: int
    chromium: str


def measure(wanted: Collection[str], sizes: Sizes, say: Say) -> list[Figure]:
    """Raises :class:`Unavailable` where there is no browser, or npm cannot install the others."""
    if chromium_path() is None:
        raise Unavailable(f"there is no Chromium: {REMEDY}")
    parties = libraries()
    slowed: dict[str, list[Visit]] = {party.name: [] for party in parties}
    unslowed: list[Visit] = []
    with sync_playwright() as playwright, _site() as site:
        for number in range(sizes.rounds):
            for party in parties:
                say(f"{party.name}, {number + 1} of {sizes.rounds}")
                slowed[party.name].append(_visit(playwright, site, party, SLOWED, sizes.calls))
            unslowed.append(_visit(playwright, site, parties[0], 1, sizes.calls))
    return [figure for figure in _figures(slowed, unslowed) if figure.letter in wanted]


# ------------------------------------------------------------------------------------------------------ figures


def _figures(slowed: dict[str, list[Visit]], unslowed: list[Visit]) -> list[Figure]:
    rounds, slow = len(unslowed), f"{SLOWED} times slowed"
    ours = slowed[OURS]
    longest = max(visit.reading.longest_us for visit in unslowed) / 1e3
    layouts = max(visit.reading.layouts for visit in ours)
    size = ours[0].script_bytes
    return [
        Figure(
            "p",
            "bytes of the snippet, gzipped, everything on",
            size,
            "at most",
            SIZE_BYTES_MAX,
            f"Chromium {ours[0].chromium}, {rounds} rounds",
            0,
        ),
        _beside("p", "bytes gzipped", slowed, lambda visit: visit.script_bytes, "B", 0),
        _beside(
            "q",
            f"time to parse, compile and evaluate, {slow},",
            slowed,
            lambda visit: visit.reading.evaluated_us / 1e3,
            "ms",
            2,
        ),
        _beside("r", f"longest task, {slow},", slowed, lambda visit: visit.reading.longest_us / 1e3, "ms", 1),
        _beside(
            "r",
            f"main thread until viewed, scrolled and clicked, {slow},",
            slowed,
            lambda visit: visit.reading.before_calls_us / 1e3,
            "ms",
            1,
        ),
        Figure(
            "r",
            f"ms of blocking (tasks beyond 50 ms), {slow}",
            median(visit.reading.blocking_us / 1e3 for visit in ours),
            "at most",
            0,
            _listed(slowed, lambda visit: visit.reading.blocking_us / 1e3, "ms", 0),
        ),
        Figure(
            "r",
            f"ms of the longest task of all {rounds} visits, not slowed",
            longest,
            "at most",
            TASK_MS_MAX,
            f"median {median(visit.reading.longest_us for visit in unslowed) / 1e3:.1f} ms",
        ),
        Figure(
            "r", "layouts that it makes the browser do, most of all visits", layouts, "at most", 0, _layouts(slowed), 0
        ),
        _beside(
            "s",
            f"main thread for an event, until it is sent, {slow},",
            slowed,
            lambda visit: visit.reading.of_calls_us / visit.calls,
            "us",
            0,
        ),
        Figure(
            "s",
            "us until a call of track returns, not slowed",
            median(visit.call_us for visit in unslowed),
            "at most",
            None,
            f"{slow}: " + _listed(slowed, lambda visit: visit.call_us, "us", 0),
            0,
        ),
    ]


def _beside(
    letter: str, what: str, slowed: dict[str, list[Visit]], of: Callable[[Visit], float], unit: str, digits: int
) -> Figure:
    """Ours over the best of the others, which may be another one in each row; the median of the rounds' ratios."""
    others = [visits for name, visits in slowed.items() if name != OURS]
    best = min(others, key=lambda visits: median(map(of, visits)))
    ratio = median(of(ours) / of(other) for ours, other in zip(slowed[OURS], best, strict=True))
    return Figure(letter, f"{what} over the best other's", ratio, "at most", 1, _listed(slowed, of, unit, digits))


def _listed(slowed: dict[str, list[Visit]], of: Callable[[Visit], float], unit: str, digits: int) -> str:
    told = []
    for name, visits in slowed.items():
        values = sorted(map(of, visits))
        spread = f" ({values[0]:,.{digits}f} to {values[-1]:,.{digits}f})" if values[0] != values[-1] else ""
        told.append(f"{name} {median(values):,.{digits}f}{spread} {unit}")
    return ", ".join(told)


def _layouts(slowed: dict[str, list[Visit]]) -> str:
    return ", ".join(f"{name} {max(visit.reading.layouts for visit in visits)}" for name, visits in slowed.items())


# -------------------------------------------------------------------------------------------------------- a visit


def _visit(playwright: Playwright, site: Site, party: Library, rate: int, calls: int) -> Visit:
    site.serve(party, calls)
    browser = playwright.chromium.launch(executable_path=chromium_path(), args=flags())
    try:
        page = browser.new_context(user_agent=USER_AGENT, viewport={"width": 1280, "height": 800}).new_page()
        page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": rate})
        browser.start_tracing(page=page, categories=CATEGORIES)
        page.goto(site.url)
        site.wait_for(1, lambda: len(site.received))
        time.sleep(SETTLE_SECONDS)
        _use(page)
        time.sleep(SETTLE_SECONDS)
        page.keyboard.press(KEY)
        time.sleep(calls * CALL_EVERY_MS / 1_000)
        site.wait_for(calls, lambda: sum(body.count(EVENT.encode()) for body in site.received))
        time.sleep(SETTLE_SECONDS)
        reading = read_trace(browser.stop_tracing(), f"{site.url}library/")
        elements, costs = page.evaluate("[document.querySelectorAll('*').length, window.costs]")
        assert abs(elements - ELEMENTS) < 5, elements  # a loader leaves its script element behind
    finally:
        browser.close()
    return Visit(reading, site.script_bytes, 1_000 * median(costs), calls, browser.version)


def _use(page: Page) -> None:
    """As a visitor would; input comes from the browser's own queue, no script is run for it."""
    page.mouse.move(640, 400)
    for _ in range(SCROLLS):
        page.mouse.wheel(0, 400)
        time.sleep(0.1)
    for x, y in CLICKS_AT:
        page.mouse.click(x, y)
        time.sleep(0.1)


# --------------------------------------------------------------------------------------------------------- the site


@dataclass
class Site:
    """The page, the library and the library's service, all of one origin; and what the service has received."""

    port: int = 0
    party: Library | None = None
    calls: int = 0
    script_bytes: int = 0
    received: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}/"

    def serve(self, party: Library, calls: int) -> None:
        self.party, self.calls, self.script_bytes, self.received = party, calls, 0, []

    def wait_for(self, wanted: int, seen: Callable[[], int]) -> None:
        assert self.party is not None
        deadline = time.monotonic() + ARRIVE_SECONDS_MAX
        while seen() < wanted:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.party.name} has sent {seen()} of {wanted} messages")
            time.sleep(0.02)

    def answer(self, path: str) -> tuple[str, bytes] | None:
        assert self.party is not None
        if path == "/":
            return "text/html; charset=utf-8", shop_page(_loader(self.party), self.party.call, self.calls).encode()
        if path == "/library/main.js":
            self.script_bytes += len(gzip.compress(self.party.script, 9, mtime=0))
            return "text/javascript", self.party.script
        answers: Sequence[str] = sorted(self.party.answers, key=len, reverse=True)
        known = next((beginning for beginning in answers if path.startswith(beginning)), None)
        return None if known is None else ("application/json", self.party.answers[known])


def _loader(party: Library) -> str:
    return f"""
  const script = document.createElement("script");
  script.src = "/library/main.js";
  script.onload = () => {{ {party.start} }};
  document.head.append(script);"""


@contextmanager
def _site() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            kind, body = site.answer(self.path.partition("?")[0]) or ("", b"")
            packed = gzip.compress(body, 6)
            self.send_response(200 if kind else 404)
            # Apart from others, a page may read a clock of 5 us instead of 100.
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            self.send_header("Content-Type", kind or "text/plain")
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(packed)))
            self.end_headers()
            self.wfile.write(packed)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            site.received.append(gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body)
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, name="site", daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
