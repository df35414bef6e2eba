"""A Chromium for the tests: found, else installed, else said plainly.

``python -m tests.browser.chromium`` is what ``make test`` runs first; where a browser is found it is silent.
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
_PLACES: Final = (
    "/usr/bin/chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
_PLAYWRIGHTS: Final = ("chromium-*/chrome-*/chrome", "chromium-*/chrome-*/*.app/Contents/MacOS/*")

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
    # Names of the tests lead here, and nothing leads outside: a request to a third party fails at once.
    "--host-resolver-rules=MAP *.example.com 127.0.0.1, MAP * ~NOTFOUND, "
    "EXCLUDE 127.0.0.1, EXCLUDE localhost, EXCLUDE *.localhost",
)
"""Chromium talks to nobody but the servers of the tests. Root also needs ``--no-sandbox``."""


@cache
def chromium_path() -> Path | None:
    """A browser that starts: the one named by ``SEGUE_TEST_CHROMIUM`` and no other, else the first that is found."""
    return next((place for place in _candidates() if _starts(place)), None)


def flags() -> list[str]:
    return [*FLAGS, *(["--no-sandbox"] if os.getuid() == 0 else [])]


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("1", "true")


def _candidates() -> Iterator[Path]:
    if named := os.environ.get(NAMED_BY):
        yield Path(named)
        return
    yield from (Path(found) for name in _COMMANDS if (found := shutil.which(name)))
    yield from (Path(place) for place in _PLACES)
    for cache_ in _caches_of_playwright():
        for pattern in _PLAYWRIGHTS:
            yield from sorted(cache_.glob(pattern), reverse=True)


def _caches_of_playwright() -> Iterator[Path]:
    if named := os.environ.get("PLAYWRIGHT_BROWSERS_PATH"):
        yield Path(named)
    yield Path.home() / ".cache" / "ms-playwright"
    yield Path.home() / "Library" / "Caches" / "ms-playwright"


def _starts(place: Path) -> bool:
    """Ubuntu's chromium-browser may be a script that only says where to get one."""
    return place.is_file() and os.access(place, os.X_OK) and _run([str(place), "--version"])


def _install() -> bool:
    if os.getuid() == 0 and shutil.which("apt-get") and all(_run(command) for command in APT):
        return True
    return _run([sys.executable, "-m", "playwright", "install", "chromium"])


def _run(command: Sequence[str]) -> bool:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, env=environment, timeout=600)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def main() -> int:
    if chromium_path():
        return 0
    if not os.environ.get(NAMED_BY):
        print("Installing Chromium for the browser tests ...", flush=True)
        _install()
        chromium_path.cache_clear()
    if chromium_path():
        return 0
    print(f"There is no Chromium here and none could be installed: the browser tests will be skipped. {REMEDY}.")
    return int(in_ci())


if __name__ == "__main__":
    sys.exit(main())
