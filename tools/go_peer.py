"""python -m tools.go_peer: build the Go program of tests/interop/peer, and tell its path."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "tests" / "interop" / "peer"
TARGET = ROOT / ".go" / "peer"
READY_MADE = "ZAP_INTEROP_PEER"
"""Names a program that was built elsewhere, against the reference for instance."""

_VERSION = re.compile(r"(?:^|\s)go ?1\.(\d+)")
"""Of Go as it says it, and in a go.mod."""

_TIMEOUT = 600.0


class PeerError(Exception):
    """There is no program to be had."""


class GoUnavailable(PeerError):
    """Go is not on this machine, or is too old."""


class BuildFailed(PeerError):
    """Go is there and could not build it; the text is what Go said."""


class ReadyMadeMissing(PeerError):
    """The program that the environment names is no program."""


def environment() -> dict[str, str]:
    """What Go runs in: nothing but its modules is fetched, and no C compiler is needed."""
    flags = "-mod=readonly -buildvcs=false"
    ours = {"GOTOOLCHAIN": "local", "GOFLAGS": flags, "GOWORK": "off", "CGO_ENABLED": "0"}
    return {**os.environ, **ours}


def find_go() -> Path:
    """The `go` command.

    Raises:
        GoUnavailable: there is none, or it is older than the program's go.mod demands.
    """
    found = shutil.which("go")
    if found is None:
        raise GoUnavailable(f"go is not on the PATH: install Go 1.{_needed()} or newer")
    told = _run([found, "env", "GOVERSION"], cwd=ROOT).stdout.strip()
    version = _minor(told)
    if version is None or version < _needed():
        raise GoUnavailable(f"{found} is {told or 'no Go'}: Go 1.{_needed()} or newer is needed")
    return Path(found)


def _needed() -> int:
    return _minor((SOURCES / "go.mod").read_text("utf-8")) or 0


def _minor(text: str) -> int | None:
    match = _VERSION.search(text)
    return int(match[1]) if match else None


def build() -> Path:
    """Build the program, or take the one that the environment names.

    Returns:
        its path.

    Raises:
        GoUnavailable: see find_go.
        BuildFailed: Go could not build it.
        ReadyMadeMissing: the environment names what can't be run.
    """
    given = os.environ.get(READY_MADE)
    if given:
        path = Path(given).absolute()
        if not path.is_file() or not os.access(path, os.X_OK):
            raise ReadyMadeMissing(f"{READY_MADE} names {given}, which is no program")
        return path
    go = find_go()
    TARGET.parent.mkdir(exist_ok=True)
    # Others may build, or run what was built, at this moment.
    fresh = TARGET.with_name(f"{TARGET.name}.{os.getpid()}")
    try:
        done = _run([str(go), "build", "-trimpath", "-o", str(fresh), "."], cwd=SOURCES)
        if done.returncode:
            raise BuildFailed(f"go build failed in {SOURCES}:\n{done.stdout}{done.stderr}")
        fresh.replace(TARGET)
    finally:
        fresh.unlink(missing_ok=True)
    return TARGET


def _run(command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            cwd=cwd,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except OSError as error:
        raise GoUnavailable(f"can't run {command[0]}: {error.strerror or error}") from error
    except subprocess.TimeoutExpired as error:
        text = f"{' '.join(command)} took more than {_TIMEOUT:g} s"
        raise BuildFailed(text) from error


def main() -> int:
    """Build it; 0 where that worked."""
    try:
        path = build()
    except PeerError as error:
        print(error, file=sys.stderr)
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
