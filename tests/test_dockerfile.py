"""Static checks of the Dockerfile: its paths, variables and commands exist.

No image is built, because the tests have no container engine.
"""

from __future__ import annotations

import ast
import json
import re
import tomllib
from pathlib import Path

from app.config import Settings

ROOT = Path(__file__).parents[1]


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines if line.strip()]


def of(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for line in of("ENV") for pair in line.split())


def test_copied_paths_exist_and_are_not_ignored() -> None:
    sources = [part for line in of("COPY") if "--from" not in line for part in line.split()[:-1]]
    sent = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert sources
    for source in sources:
        path = source.removeprefix("./")
        assert (ROOT / path).exists(), path
        assert path in sent, f".dockerignore excludes {path}"


def test_copied_stages_exist() -> None:
    stages = [line.split(" AS ")[1] for line in of("FROM") if " AS " in line]
    assert set(re.findall(r"--from=(\w+)", " ".join(of("COPY")))) <= set(stages)


def test_image_uses_a_supported_python() -> None:
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    for image in of("FROM"):
        version = re.match(r"python:(3\.\d+)-slim", image)
        assert version, image
        assert f"Programming Language :: Python :: {version[1]}" in classifiers


def test_image_does_not_run_as_root() -> None:
    (user,) = of("USER")
    assert user not in ("root", "0")
    assert re.search(rf"useradd .* {user}$", " ".join(of("RUN")), re.MULTILINE) or f" {user}" in " ".join(of("RUN"))
    names = [name for name, _ in instructions()]
    assert names.index("USER") < names.index("CMD")


def test_variables_are_settings() -> None:
    settings = {f"SEGUE_{name}".upper() for name in Settings.model_fields}
    assert {name for name in environment() if name.startswith("SEGUE_")} <= settings


def test_command_is_the_console_script() -> None:
    (command,) = of("CMD")
    program, *arguments = json.loads(command)
    assert program in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert arguments == ["serve"]


def test_health_check_requests_livez() -> None:
    (check,) = of("HEALTHCHECK")
    program, flag, code = json.loads(check.split("CMD", 1)[1])
    assert (program, flag) == ("python", "-c")
    ast.parse(code)
    assert "/livez" in code
    for variable in re.findall(r'environ\["(\w+)"\]', code):
        assert variable in environment()
