"""Each generated client, made once per session."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients import making
from tests.clients.making import HERE, Ran
from tests.integration.gateway_helpers import run_command


@pytest.fixture(scope="session")
def document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The document that a gateway serves, as a file."""
    done = run_command("openapi")
    assert (done.returncode, done.stderr) == (0, "")
    path = tmp_path_factory.mktemp("document") / "openapi.json"
    path.write_text(done.stdout, "utf-8")
    return path


@dataclass(frozen=True)
class Made:
    """A generated client, with how its generator and its type checker did.

    ``drive`` and ``readme`` are the commands for the program of these tests and for the README's
    lines; ``environment`` is what they need beside.
    """

    folder: Path
    generated: Ran
    checked: Ran
    drive: list[str]
    readme: Path
    environment: dict[str, str]


@pytest.fixture(scope="session")
def cache(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what is the same in every session."""
    if hasattr(pytestconfig, "cache"):
        return pytestconfig.cache.mkdir("clients")
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def python_client(document: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The Python client."""
    folder = tmp_path_factory.mktemp("python") / "zap-gateway-client"
    generated = making.make_python(document, folder)
    drive = HERE / "drive.py"
    readme = folder / "readme.py"
    readme.write_text(making.readme_lines("python", "zap_gateway_client"), "utf-8")
    checked = making.check_python(
        folder, cache / "mypy", folder / "zap_gateway_client", drive, readme
    )
    command = [sys.executable, str(drive)]
    return Made(folder, generated, checked, command, readme, {"PYTHONPATH": str(folder)})


@pytest.fixture(scope="session")
def typescript(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TypeScript project without the generated types."""
    modules = making.node_modules(cache / "npm")
    return making.typescript_project(tmp_path_factory.mktemp("typescript") / "project", modules)


@pytest.fixture(scope="session")
def typescript_client(document: Path, typescript: Path) -> Made:
    """The TypeScript client."""
    generated = making.make_typescript(document, typescript)
    lines = making.readme_lines("ts", "openapi-fetch")
    (typescript / "readme.ts").write_text(lines or "export {};\n", "utf-8")
    checked = making.compile_typescript(typescript)
    compiled = typescript / "out"
    command = ["node", str(compiled / "drive.js")]
    return Made(typescript, generated, checked, command, compiled / "readme.js", {})


@pytest.fixture(params=["python", "typescript"])
def client(request: pytest.FixtureRequest) -> Made:
    """Each of them."""
    made: Made = request.getfixturevalue(f"{request.param}_client")
    return made
