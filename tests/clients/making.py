"""Clients made from the OpenAPI document by the generators that the README names."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.gateway_helpers import clean_environment

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TYPESCRIPT = HERE / "typescript"

_OFFLINE = re.compile(r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH")
_PATIENCE = 120


@dataclass(frozen=True)
class Ran:
    """What a program did: its exit status, and all that it said."""

    status: int
    output: str


def run(*words: object, cwd: Path, **environment: str) -> Ran:
    """Run a program to its end; both of its streams count as what it said."""
    done = subprocess.run(
        list(map(str, words)),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_PATIENCE,
        env=clean_environment(NO_COLOR="1", **environment),
    )
    return Ran(done.returncode, done.stdout)


# Python.


def make_python(document: Path, folder: Path) -> Ran:
    """Make the package `zap_gateway_client` in a project folder."""
    tools = Path(sys.executable).parent  # The generator formats its output with the ruff it finds.
    return run(
        *(sys.executable, "-m", "openapi_python_client", "generate", "--fail-on-warning"),
        *("--path", document, "--output-path", folder),
        cwd=folder.parent,
        PATH=f"{tools}{os.pathsep}{os.environ['PATH']}",
    )


def check_python(folder: Path, cache: Path, *what: Path) -> Ran:
    """Type-check, with the package at hand."""
    return run(
        *(sys.executable, "-m", "mypy", "--strict", "--no-pretty", "--no-color-output"),
        *("--config-file", "", "--cache-dir", cache, *what),
        cwd=folder,
        MYPYPATH=str(folder),
    )


# TypeScript.


def node_modules(cache: Path) -> Path:
    """Install what the lock file names, unless that was done before; skips where it can't be."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not here")
    lock = TYPESCRIPT / "package-lock.json"
    folder = cache / hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    modules = folder / "node_modules"
    if not (modules / ".package-lock.json").exists():  # npm writes it when all else is there
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", lock.name):
            shutil.copy(TYPESCRIPT / name, folder)
        done = run("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", cwd=folder)
        if done.status and (offline := _OFFLINE.search(done.output)):
            pytest.skip(f"npm's registry can't be reached: {offline[0]}")
        assert done.status == 0, done.output
    return modules


def typescript_project(folder: Path, modules: Path) -> Path:
    """A project with the program that drives, and without the types that it needs."""
    shutil.copytree(TYPESCRIPT, folder, ignore=shutil.ignore_patterns("node_modules", "out"))
    (folder / "node_modules").symlink_to(modules)
    return folder


def make_typescript(document: Path, folder: Path) -> Ran:
    """Make the types `gateway.ts` in a project."""
    return run(
        "node_modules/.bin/openapi-typescript",
        *(document, "--default-non-nullable=false", "--output", "gateway.ts"),
        cwd=folder,
    )


def compile_typescript(folder: Path) -> Ran:
    """Type-check a project, as strictly as its tsconfig.json says, and make JavaScript of it."""
    return run("node_modules/.bin/tsc", "--strict", cwd=folder)


# The README's own lines.


def readme_lines(language: str, names: str) -> str:
    """The README's block of code in a language that names something."""
    text = (ROOT / "README.md").read_text("utf-8")
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    found = [block for block in blocks if names in block]
    return found[0] if found else ""
