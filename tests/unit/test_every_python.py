"""tools.every_python: which interpreters, which versions, and what it says of them."""

from __future__ import annotations

import platform
import re
import sys
import tomllib
from pathlib import Path

import pytest

from tools import every_python
from tools.every_python import Outcome, Python, Unusable

HERE = Python(sys.executable, platform.python_version())


def script(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_interpreters_of_the_path_that_run_are_found(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    script(tmp_path, "python3.14", "echo 3.14.1")
    script(tmp_path, "python3.12", "echo 3.12.9")
    script(tmp_path, "python3.13", "echo not this one >&2; exit 127")  # as version managers do
    found = every_python.find([])
    assert [python.version for python in found] == ["3.12.9", "3.14.1"]


def test_an_interpreter_that_is_given_stands_for_its_version(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for minor in every_python.MINORS:
        script(tmp_path, f"python3.{minor}", f"echo 3.{minor}.0")
    found = every_python.find([sys.executable])
    assert HERE in found
    assert len(found) == len(every_python.MINORS)


def test_what_is_given_must_run(tmp_path) -> None:
    with pytest.raises(Unusable, match="is no Python that runs"):
        every_python.find([str(tmp_path / "python")])


PYPROJECT = """
[project]
dependencies = ["One_Two>=1,<2", "three[extra]>=0.3; sys_platform != 'win32'"]
[project.optional-dependencies]
more = ["four>=4"]
[dependency-groups]
dev = ["five>=5"]
"""


def test_the_lowest_versions_are_pinned_of_direct_dependencies_alone() -> None:
    names = every_python.direct_dependencies(PYPROJECT)
    assert names == {"one-two", "three", "four"}
    resolved = "five==5\nfour==4.0\none-two==1.0 ; python_version < '4'\nthree==0.3\nof-three==9\n"
    assert list(every_python.lowest(resolved, names)) == ["four==4.0", "one-two==1.0", "three==0.3"]


def test_pythons_that_are_tried_are_those_that_the_project_names() -> None:
    project = tomllib.loads(every_python.PROJECT.read_text())["project"]
    classifiers = "\n".join(project["classifiers"])
    named = {f"3.{minor}" for minor in re.findall(r"Python :: 3\.(\d+)", classifiers)}
    assert named == {f"3.{minor}" for minor in every_python.MINORS}
    assert project["requires-python"] == f">={min(named)}"


def test_what_is_left_out_is_there() -> None:
    assert all((every_python.ROOT / folder).is_dir() for folder in every_python.LEFT_OUT)


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("..\n===== 3 passed in 1.20s =====\n", "3 passed"),
        ("FAILED x - 1 failed\n= 1 failed, 12 passed, 2 skipped in 75.01s (0:01:15) =\n",
         "1 failed, 12 passed, 2 skipped"),
        ("12 passed, 1 error in 3s\n", "12 passed, 1 error"),
        ("ImportError: no\n", "nothing ran"),
    ],
)  # fmt: skip
def test_counts_of_a_run(output: str, told: str) -> None:
    assert every_python.counts(output) == told


@pytest.mark.parametrize(
    ("output", "told"),
    [
        (
            "ERROR    zapcore.server:server.py:401 told in a log\nFAILED tests/a.py::b - c\n"
            "ERROR tests/d.py::e\n= 1 failed =\n",
            ["FAILED tests/a.py::b - c", "ERROR tests/d.py::e"],
        ),
        ("ImportError: no\n", ["ImportError: no\n"]),
    ],
)
def test_what_failed_is_named(output: str, told: list[str]) -> None:
    assert every_python.broken(output) == told


@pytest.mark.parametrize("passed", [True, False])
def test_the_exit_status_tells_whether_all_passed(passed, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    wanted = []

    def check(environment, arguments):
        wanted.append((environment.python, environment.versions, arguments))
        return Outcome(HERE.version, environment.versions, "7 passed", 61.2, passed)

    monkeypatch.setattr(every_python, "check", check)
    status = every_python.main(["--python", sys.executable, "--lowest", "--", "-k", "name"])
    assert status == (0 if passed else 1)
    assert wanted == [(HERE, "lowest", ["-k", "name"])]
    told = capsys.readouterr().out.splitlines()
    assert told[1].split() == [HERE.version, "lowest", "7", "passed", "61"]
    assert told[-1].startswith("Not found: Python 3.")


def test_an_environment_that_can_not_be_made_is_a_failure(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr(every_python, "ROOT", tmp_path)
    monkeypatch.setattr(every_python, "FOLDER", tmp_path / "all")
    uv = script(tmp_path, "uv", "echo no such version >&2; exit 2")
    environment = every_python.Environment(str(uv), HERE, every_python.NEWEST)
    assert not every_python.check(environment, ()).passed
    assert "no such version" in capsys.readouterr().out
