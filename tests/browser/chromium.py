"""Chromium for the browser tests: find it, install it, or report that it is missing.

``make test`` runs ``python -m tests.browser.chromium`` first. That command prints nothing if it finds a browser.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final

NAMED_BY: Final = "SEGUE_TEST_CHROMIUM"
REMEDY: Final = f"apt install chromium, or `playwright install chromium`, or name one in {NAMED_BY}"

_COMMANDS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_PATHS: Final = (
    "/usr/bin/chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
_PLAYWRIGHT_PATTERNS: Final = ("chromium-*/chrome-*/chrome", "chromium-*/chrome-*/*.app/Contents/MacOS/*")

APT: Final[Sequence[Sequence[str]]] = (
    ("apt-get", "update"),
    ("apt-get", "install", "-y", "--no-install-recommends", "chromium"),
)

FLAGS: Final = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Resolve test host names to this machine and no others, so that requests to third parties fail at once.
    "--host-resolver-rules=MAP *.example.com 127.0.0.1, MAP * ~NOTFOUND, "
    "EXCLUDE 127.0.0.1, EXCLUDE localhost, EXCLUDE *.localhost",
)
"""Flags that let Chromium reach only the test servers. :func:`flags` adds ``--no-sandbox`` for root."""


@cache
def chromium_path() -> Path | None:
    """Return the path of a Chromium that starts, or None.

    ``SEGUE_TEST_CHROMIUM`` is the only candidate if it is set. Otherwise the first candidate that starts is used.
    """
    return next((path for path in _candidates() if _can_start(path)), None)


def flags() -> list[str]:
    return [*FLAGS, *(["--no-sandbox"] if os.getuid() == 0 else [])]


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("1", "true")


def _candidates() -> Iterator[Path]:
    if named := os.environ.get(NAMED_BY):
        yield Path(named)
        return
    yield from (Path(path) for name in _COMMANDS if (path := shutil.which(name)))
    yield from (Path(path) for path in _PATHS)
    for cache_directory in _playwright_caches():
        for pattern in _PLAYWRIGHT_PATTERNS:
            yield from sorted(cache_directory.glob(pattern), reverse=True)


def _playwright_caches() -> Iterator[Path]:
    if named := os.environ.get("PLAYWRIGHT_BROWSERS_PATH"):
        yield Path(named)
    yield Path.home() / ".cache" / "ms-playwright"
    yield Path.home() / "Library" / "Caches" / "ms-playwright"


def _can_start(path: Path) -> bool:
    """Return True if the browser starts.

    Ubuntu's chromium-browser may be a script that only prints installation hints.
    """
    return path.is_file() and os.access(path, os.X_OK) and _run([str(path), "--version"])


def _install() -> bool:
    if os.getuid() == 0 and shutil.which("apt-get") and all(_run(command) for command in APT):
        return True
    return _run([sys.executable, "-m", "playwright", "install", "chromium"])


def _run(command: Sequence[str]) -> bool:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        process = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, env=environment, timeout=600)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return process.returncode == 0


def main() -> int:
    if chromium_path():
        return 0
    if not os.environ.get(NAMED_BY):
        print("Installing Chromium for the browser tests ...", flush=True)
        _install()
        chromium_path.cache_clear()
    if chromium_path():
        return 0
    print(f"Chromium is missing and could not be installed; the browser tests will be skipped. Install it: {REMEDY}.")
    return int(in_ci())


if __name__ == "__main__":
    sys.exit(main())
