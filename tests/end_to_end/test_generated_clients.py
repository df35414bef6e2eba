"""Clients generated from the OpenAPI document compile without a type error and call a running Segue.

The programs in ``generated_clients/`` send messages, create a segment and read it back. Each is checked by the type
checker of its language together with the code that the generator wrote.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.support.npm_packages import NpmUnavailable, install_packages
from tests.support.server_process import Server

pytestmark = pytest.mark.slow

PROGRAMS: Final = Path(__file__).parent / "generated_clients"
_RUN_SECONDS_MAX: Final = 300
_PYTHON_CONFIG: Final = "post_hooks: []\ncontent_type_overrides:\n  image/gif: application/octet-stream\n"
"""Options of the generator. ``post_hooks`` would format the code, and the content type of images is not built in."""


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """Return the generators, which are installed once into the user's cache.

    Skip the test if npm or its registry is missing.
    """
    try:
        return install_packages(PROGRAMS / "package.json", "clients")
    except NpmUnavailable as error:
        pytest.skip(reason=str(error))


@pytest.fixture
def project(server: Server, tmp_path: Path) -> Iterator[Path]:
    """Return a directory with the programs and with the OpenAPI document of the running server."""
    project = tmp_path / "project"
    shutil.copytree(PROGRAMS, project)
    (project / "openapi.json").write_bytes(httpx.get(f"{server.url}/openapi.json").content)
    yield project
    shutil.rmtree(project)


def test_openapi_typescript_client_compiles_and_calls(server: Server, project: Path, node_modules: Path) -> None:
    (project / "node_modules").symlink_to(node_modules)
    _run_node(project, "openapi-typescript/bin/cli.js", "openapi.json", "--output", "openapi_typescript.d.ts")
    (project / "hey_api_client.ts").unlink()
    _run_node(project, "typescript/bin/tsc", "--project", ".")
    _call_segue(server, project, ["node", "build/openapi_fetch_client.js"], "openapi-fetch")


def test_hey_api_client_compiles_and_calls(server: Server, project: Path, node_modules: Path) -> None:
    (project / "node_modules").symlink_to(node_modules)
    _run_node(project, "@hey-api/openapi-ts/bin/run.js")
    (project / "openapi_fetch_client.ts").unlink()
    _run_node(project, "typescript/bin/tsc", "--project", ".")
    _call_segue(server, project, ["node", "build/hey_api_client.js"], "hey-api")


def test_openapi_python_client_passes_mypy_and_calls(server: Server, project: Path) -> None:
    (project / "config.yml").write_text(_PYTHON_CONFIG)
    generate = ["openapi-python-client", "generate", "--path", "openapi.json", "--config", "config.yml"]
    _run_checked([*generate, "--meta", "none", "--output-path", "segue_client", "--fail-on-warning"], project)
    (project / "mypy.ini").write_text("[mypy]\nstrict = true\n")
    _run_checked([sys.executable, "-m", "mypy", "segue_client", "python_client.py"], project)
    _call_segue(server, project, [sys.executable, "python_client.py"], "python")


def _run_node(project: Path, script: str, *arguments: str) -> None:
    _run_checked(["node", str(project / "node_modules" / script), *arguments], project)


def _call_segue(server: Server, project: Path, command: Sequence[str], name: str) -> None:
    user_id = f"generated-{name}"
    output = _run_checked([*command, server.url, server.write_key, server.secret_key, user_id], project)
    assert output.strip() == "done"


def _run_checked(command: Sequence[str], directory: Path) -> str:
    result = _run(command, directory)
    assert result.returncode == 0, f"{command[:3]}: {result.stdout[-5_000:]}{result.stderr[-5_000:]}"
    return result.stdout


def _run(command: Sequence[str], directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a program. Prefer programs installed beside this Python, because node and npm are installed as a wheel."""
    programs = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"}
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=_RUN_SECONDS_MAX
    )
