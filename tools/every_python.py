"""python -m tools.every_python: the suite on every Python, with the newest and the lowest versions.

Each Python gets two environments in .every-python: one with the newest version of everything, and
one in which each direct dependency has the lowest version that pyproject.toml allows and for which
there is a wheel. Development tools are the newest in both. Takes minutes for each.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".every-python"
PROJECT = ROOT / "pyproject.toml"
MINORS = range(11, 15)
NEWEST, LOWEST = "newest", "lowest"

LEFT_OUT = {
    "tests/browser": "what a browser does depends on no Python",
    "tests/clients": "clients are made once, by npm and a generator of a pinned version",
    "tests/deploy": "images bring their own Python",
    "tests/interop": "what goes over the wire is the same bytes on every Python",
}
"""Folders of tests that one Python is enough for, and why."""

_ASK_VERSION = "import platform; print(platform.python_version())"
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_COUNTS = re.compile(r"\d+ (?:passed|failed|error|skipped|xfailed)[^=]*")
_BROKEN = re.compile(r"^(?:FAILED|ERROR) tests/.*", re.MULTILINE)


class Python(NamedTuple):
    """An interpreter."""

    path: str
    version: str

    @property
    def minor(self) -> tuple[int, ...]:
        """Such as 3.14."""
        return tuple(int(part) for part in self.version.split(".")[:2])


@dataclass
class Outcome:
    """Of the suite in one environment."""

    python: str
    versions: str
    told: str
    seconds: float = 0.0
    passed: bool = False


class Unusable(Exception):
    """An environment can't be made; the text is what uv said."""


def version_of(path: str) -> str | None:
    """The version of an interpreter; None where it is none that runs."""
    try:
        return subprocess.check_output(
            [path, "-c", _ASK_VERSION], stderr=subprocess.DEVNULL, text=True
        ).strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def find(given: Iterable[str]) -> list[Python]:
    """The interpreters given, and of each other minor version the one on the PATH, in order.

    Raises:
        Unusable: one that is given does not run.
    """
    found = {}
    for path in given:
        version = version_of(path)
        if version is None:
            raise Unusable(f"{path} is no Python that runs")
        found[Python(path, version).minor] = Python(path, version)
    for minor in MINORS:
        there = None if (3, minor) in found else shutil.which(f"python3.{minor}")
        if there is not None and (version := version_of(there)):
            found[3, minor] = Python(there, version)
    return [python for _, python in sorted(found.items())]


def direct_dependencies(pyproject: str) -> set[str]:
    """Names of what a project asks for itself, with all extras."""
    project = tomllib.loads(pyproject)["project"]
    extras = project.get("optional-dependencies", {})
    asked = [*project["dependencies"], *(line for extra in extras.values() for line in extra)]
    return {_plain(match[0]) for line in asked if (match := _NAME.match(line))}


def lowest(resolved: str, names: set[str]) -> Iterator[str]:
    """The pins of a resolution that are for these names."""
    for line in resolved.splitlines():
        name, pinned, _ = line.partition("==")
        if pinned and _plain(name) in names:
            yield line.partition(";")[0].strip()


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def counts(output: str) -> str:
    """What a run of pytest says last, without how long it took."""
    found = _COUNTS.findall(output)
    return re.sub(r" in [\d.]+s.*", "", found[-1]).strip() if found else "nothing ran"


class Environment:
    """A virtual environment with the project in it.

    Args:
        uv: the program.
        python: whose.
        versions: NEWEST or LOWEST.
    """

    def __init__(self, uv: str, python: Python, versions: str) -> None:
        self.python = python
        self.versions = versions
        self.folder = FOLDER / f"{python.version}-{versions}"
        self.log = self.folder / "suite.log"
        self._uv = uv
        self._python = self.folder / "bin" / "python"

    def make(self) -> None:
        """Make it anew.

        Raises:
            Unusable: it can't be made.
        """
        FOLDER.mkdir(exist_ok=True)
        self._do("venv", "--clear", "--python", self.python.path, str(self.folder))
        asked = ["--requirements", str(PROJECT), "--all-extras", "--group", "dev"]
        if self.versions == LOWEST:
            asked += ["--constraints", str(self._lowest())]
        self._install(*asked)
        self._install("--no-deps", "--editable", str(ROOT))

    def _lowest(self) -> Path:
        wheels = ("--only-binary", ":all:")  # nobody's compiler is under test
        resolved = self._do(
            *("pip", "compile", "--resolution", "lowest-direct", "--all-extras", *wheels),
            *("--no-header", "--no-annotate", "--python", str(self._python), str(PROJECT)),
        )
        names = direct_dependencies(PROJECT.read_text())
        pins = self.folder / "lowest.txt"
        pins.write_text("\n".join(sorted(lowest(resolved, names))) + "\n")
        return pins

    def _install(self, *arguments: str) -> None:
        self._do("pip", "install", "--python", str(self._python), *arguments)

    def _do(self, *arguments: str) -> str:
        command = (self._uv, "--quiet", *arguments)
        try:
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout
        except FileNotFoundError as error:
            raise Unusable(f"there is no {self._uv}: say where it is (--uv)") from error
        except subprocess.CalledProcessError as error:
            raise Unusable(error.stderr.strip()) from error

    def run(self, arguments: Sequence[str]) -> Outcome:
        """Run the suite."""
        began = time.monotonic()
        command = [str(self._python), "-m", "pytest", "-p", "no:cacheprovider", *arguments]
        ours = {"HYPOTHESIS_STORAGE_DIRECTORY": str(self.folder / "hypothesis")}
        with self.log.open("w") as log:
            status = subprocess.call(
                command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env={**os.environ, **ours}
            )
        told = counts(self.log.read_text(errors="replace"))
        return Outcome(
            self.python.version, self.versions, told, time.monotonic() - began, status == 0
        )


def broken(output: str) -> list[str]:
    """The lines of a run of pytest that name a test that failed; what else was said at its end."""
    return _BROKEN.findall(output) or [output[-2000:]]


def check(environment: Environment, arguments: Sequence[str]) -> Outcome:
    """Make an environment and run the suite in it; tell what failed."""
    python, versions = environment.python.version, environment.versions
    print(f"Python {python}, {versions}: {environment.log.relative_to(ROOT)}", flush=True)
    try:
        environment.make()
    except Unusable as error:
        print(error, flush=True)
        return Outcome(python, versions, "no environment")
    outcome = environment.run(arguments)
    if not outcome.passed:
        print(*broken(environment.log.read_text(errors="replace")), sep="\n", flush=True)
    return outcome


def table(outcomes: Iterable[Outcome]) -> str:
    """A line for each."""
    lines = [("Python", "versions", "", "seconds")]
    lines += [
        (outcome.python, outcome.versions, outcome.told, f"{outcome.seconds:.0f}")
        for outcome in outcomes
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _parser() -> argparse.ArgumentParser:
    left_out = "; ".join(f"{folder}: {why}" for folder, why in LEFT_OUT.items())
    parser = argparse.ArgumentParser(
        prog="python -m tools.every_python",
        description="The suite on every Python, with the newest and the lowest dependencies.",
        epilog=f"Left out unless --all or paths are given: {left_out}.",
    )
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="PATH",
        help=f"an interpreter beside python3.{MINORS[0]} to python3.{MINORS[-1]} of the PATH,"
        " or in place of its version's; repeatable",
    )
    parser.add_argument("--newest", action="store_true", help="with the newest versions alone")
    parser.add_argument("--lowest", action="store_true", help="with the lowest versions alone")
    parser.add_argument("--all", action="store_true", help="leave nothing out")
    parser.add_argument("--uv", default="uv", metavar="PATH", help="the program uv (of the PATH)")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, after --")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run them; 0 where all passed."""
    arguments = _parser().parse_args(argv)
    try:
        pythons = find(arguments.python)
    except Unusable as error:
        print(error, file=sys.stderr)
        return 2
    known = {python.minor for python in pythons}
    missing = [f"3.{minor}" for minor in MINORS if (3, minor) not in known]
    both = arguments.newest == arguments.lowest
    wanted = [NEWEST] * (both or arguments.newest) + [LOWEST] * (both or arguments.lowest)
    ignored = () if arguments.all else tuple(f"--ignore={folder}" for folder in LEFT_OUT)
    outcomes = [
        check(Environment(arguments.uv, python, versions), arguments.pytest or ignored)
        for python in pythons
        for versions in wanted
    ]
    print(table(outcomes))
    if missing:
        print(f"Not found: Python {', '.join(missing)}")
    return 0 if outcomes and all(outcome.passed for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
