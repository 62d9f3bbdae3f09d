"""The Go code itself: what `go vet`, its own tests and gofmt say of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tools import go_peer

HERE = Path(__file__).parent
MODULES = sorted(path.parent for path in HERE.rglob("go.mod"))
A_WHILE = 600.0
"""Seconds. The first run compiles the standard library."""


def run(*command: object, cwd: Path) -> str:
    """What a command that must succeed says."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=go_peer.environment(),
        capture_output=True,
        text=True,
        timeout=A_WHILE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_program_and_its_stand_ins_are_found():
    names = [str(module.relative_to(HERE)) for module in MODULES]
    assert names == ["peer", "standins/api", "standins/netrunner", "standins/zwing"]


@pytest.mark.timeout(2 * A_WHILE)
@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_a_module_s_own_tests(go: Path, module: Path):
    run(go, "vet", "./...", cwd=module)
    run(go, "test", "./...", cwd=module)


def test_gofmt_has_nothing_to_say(go: Path):
    root = run(go, "env", "GOROOT", cwd=HERE).strip()
    assert run(Path(root, "bin", "gofmt"), "-l", HERE, cwd=HERE) == ""
