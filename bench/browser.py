"""Browser benchmarks: segue.js against analytics-next, RudderStack and PostHog on one page, in one run.

Each visit starts a new Chromium, so that compiled and cached code of an earlier visit cannot be reused. The main thread
runs at a quarter of its speed, like that of a phone. The page loads, then the library; the page is scrolled and
clicked; then events are sent until all have arrived. A visit fails if its events do not arrive, because otherwise a
library that sends nothing would win.
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

from bench.browser_libraries import SEGUE, BrowserUnavailable, Library, load_libraries
from bench.browser_page import CALL_EVERY_MS, ELEMENTS, EVENT, KEY, render_page
from bench.chromium_trace import CATEGORIES, Reading, read_trace
from bench.result import Benchmark, Progress, Result
from tests.browser.chromium import REMEDY, chromium_path, flags
from tests.browser.visit import USER_AGENT

SLOWDOWN: Final = 4
ARRIVAL_SECONDS_MAX: Final = 40.0
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
"""Sizes of the smoke test, whose results mean nothing."""


@dataclass(frozen=True)
class Visit:
    reading: Reading
    script_bytes: int
    """Total gzipped size of the library files that the page requested."""
    call_us: float
    """Median duration of one call of the library, in microseconds."""
    calls: int
    chromium: str


def measure(selected: Collection[Benchmark], sizes: Sizes, progress: Progress) -> list[Result]:
    """Run the browser benchmarks. Raise BrowserUnavailable if Chromium or a library cannot be installed."""
    if chromium_path() is None:
        raise BrowserUnavailable(f"Chromium not found: {REMEDY}")
    libraries = load_libraries()
    slowed: dict[str, list[Visit]] = {library.name: [] for library in libraries}
    unslowed: list[Visit] = []
    with sync_playwright() as playwright, _site() as site:
        for number in range(sizes.rounds):
            for library in libraries:
                progress(f"{library.name}, {number + 1} of {sizes.rounds}")
                slowed[library.name].append(_visit(playwright, site, library, SLOWDOWN, sizes.calls))
            unslowed.append(_visit(playwright, site, libraries[0], 1, sizes.calls))
    return [result for result in _results(slowed, unslowed) if result.benchmark in selected]


# ------------------------------------------------------------------------------------------------------ results


def _results(slowed: dict[str, list[Visit]], unslowed: list[Visit]) -> list[Result]:
    rounds, slow = len(unslowed), f"CPU slowed {SLOWDOWN} times"
    segue = slowed[SEGUE]
    longest = max(visit.reading.longest_us for visit in unslowed) / 1e3
    layouts = max(visit.reading.layouts for visit in segue)
    size = segue[0].script_bytes
    return [
        Result(
            Benchmark.SNIPPET_SIZE,
            "bytes of the snippet, gzipped, all features on",
            size,
            "at most",
            SIZE_BYTES_MAX,
            f"Chromium {segue[0].chromium}, {rounds} rounds",
            0,
        ),
        _compare(Benchmark.SNIPPET_SIZE, "bytes gzipped", slowed, lambda visit: visit.script_bytes, "B", 0),
        _compare(
            Benchmark.SNIPPET_LOAD,
            f"time to parse, compile and evaluate, {slow}",
            slowed,
            lambda visit: visit.reading.evaluated_us / 1e3,
            "ms",
            2,
        ),
        _compare(
            Benchmark.SNIPPET_TASKS,
            f"longest task, {slow}",
            slowed,
            lambda visit: visit.reading.longest_us / 1e3,
            "ms",
            1,
        ),
        _compare(
            Benchmark.SNIPPET_TASKS,
            f"main thread until viewed, scrolled and clicked, {slow}",
            slowed,
            lambda visit: visit.reading.before_calls_us / 1e3,
            "ms",
            1,
        ),
        Result(
            Benchmark.SNIPPET_TASKS,
            f"ms of blocking time (tasks beyond 50 ms), {slow}",
            median(visit.reading.blocking_us / 1e3 for visit in segue),
            "at most",
            0,
            _summarize(slowed, lambda visit: visit.reading.blocking_us / 1e3, "ms", 0),
        ),
        Result(
            Benchmark.SNIPPET_TASKS,
            f"ms of the longest task in {rounds} visits, full speed",
            longest,
            "at most",
            TASK_MS_MAX,
            f"median {median(visit.reading.longest_us for visit in unslowed) / 1e3:.1f} ms",
        ),
        Result(
            Benchmark.SNIPPET_TASKS,
            "forced layouts per visit, maximum",
            layouts,
            "at most",
            0,
            _layouts(slowed),
            0,
        ),
        _compare(
            Benchmark.SNIPPET_EVENTS,
            f"main thread per event until it is sent, {slow}",
            slowed,
            lambda visit: visit.reading.calls_us / visit.calls,
            "us",
            0,
        ),
        Result(
            Benchmark.SNIPPET_EVENTS,
            "us per call of track, full speed",
            median(visit.call_us for visit in unslowed),
            "at most",
            None,
            f"{slow}: " + _summarize(slowed, lambda visit: visit.call_us, "us", 0),
            0,
        ),
    ]


def _compare(
    benchmark: Benchmark,
    description: str,
    slowed: dict[str, list[Visit]],
    of: Callable[[Visit], float],
    unit: str,
    digits: int,
) -> Result:
    """Compare segue.js with the other library whose median value is lowest. The ratio is the median over all rounds."""
    others = [visits for name, visits in slowed.items() if name != SEGUE]
    best = min(others, key=lambda visits: median(map(of, visits)))
    ratio = median(of(segue) / of(other) for segue, other in zip(slowed[SEGUE], best, strict=True))
    return Result(
        benchmark,
        f"{description}, over the best other library",
        ratio,
        "at most",
        1,
        _summarize(slowed, of, unit, digits),
    )


def _summarize(slowed: dict[str, list[Visit]], of: Callable[[Visit], float], unit: str, digits: int) -> str:
    parts = []
    for name, visits in slowed.items():
        values = sorted(map(of, visits))
        spread = f" ({values[0]:,.{digits}f} to {values[-1]:,.{digits}f})" if values[0] != values[-1] else ""
        parts.append(f"{name} {median(values):,.{digits}f}{spread} {unit}")
    return ", ".join(parts)


def _layouts(slowed: dict[str, list[Visit]]) -> str:
    return ", ".join(f"{name} {max(visit.reading.layouts for visit in visits)}" for name, visits in slowed.items())


# -------------------------------------------------------------------------------------------------------- a visit


def _visit(playwright: Playwright, site: Site, library: Library, rate: int, calls: int) -> Visit:
    site.serve(library, calls)
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
        assert abs(elements - ELEMENTS) < 5, elements  # The library's loader may add its own script element.
    finally:
        browser.close()
    return Visit(reading, site.script_bytes, 1_000 * median(costs), calls, browser.version)


def _use(page: Page) -> None:
    """Scroll and click with real input events, so that only the library runs script."""
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
    """Site of a visit: serves the page, the library and its API on one origin, and stores request bodies."""

    port: int = 0
    library: Library | None = None
    calls: int = 0
    script_bytes: int = 0
    received: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}/"

    def serve(self, library: Library, calls: int) -> None:
        self.library, self.calls, self.script_bytes, self.received = library, calls, 0, []

    def wait_for(self, expected: int, received: Callable[[], int]) -> None:
        assert self.library is not None
        deadline = time.monotonic() + ARRIVAL_SECONDS_MAX
        while received() < expected:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.library.name} has sent {received()} of {expected} messages")
            time.sleep(0.02)

    def respond(self, path: str) -> tuple[str, bytes] | None:
        assert self.library is not None
        if path == "/":
            return "text/html; charset=utf-8", render_page(
                _loader(self.library), self.library.call, self.calls
            ).encode()
        if path == "/library/main.js":
            self.script_bytes += len(gzip.compress(self.library.script, 9, mtime=0))
            return "text/javascript", self.library.script
        prefixes: Sequence[str] = sorted(self.library.responses, key=len, reverse=True)
        prefix = next((prefix for prefix in prefixes if path.startswith(prefix)), None)
        return None if prefix is None else ("application/json", self.library.responses[prefix])


def _loader(library: Library) -> str:
    return f"""
  const script = document.createElement("script");
  script.src = "/library/main.js";
  script.onload = () => {{ {library.start} }};
  document.head.append(script);"""


@contextmanager
def _site() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            kind, body = site.respond(self.path.partition("?")[0]) or ("", b"")
            compressed = gzip.compress(body, 6)
            self.send_response(200 if kind else 404)
            # The clock of a cross-origin isolated page has a resolution of 5 us instead of 100 us.
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            self.send_header("Content-Type", kind or "text/plain")
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(compressed)))
            self.end_headers()
            self.wfile.write(compressed)

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
