"""The locks: whole, for both platforms, and nothing in them but versions and digests."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.dockerfile import REPOSITORY, dockerfile

RUNTIME, BUILD = "requirements.lock", "requirements-build.lock"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)(?: ; .+)?")
DIGEST = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def pins(lock: str) -> dict[str, str]:
    """Version by name."""
    lines = (REPOSITORY / lock).read_text().replace("\\\n", " ").splitlines()
    found: dict[str, str] = {}
    for line in (line.split("#")[0].strip() for line in lines):
        if line:
            pin, *digests = re.split(r"\s+(?=--hash=)", line)
            match = PIN.fullmatch(pin.strip())
            assert match, f"{lock}: {pin!r} is no version of a package"
            assert digests, f"{lock}: no digest of {pin!r}"
            assert all(map(DIGEST.fullmatch, digests)), f"{lock}: {pin!r}"
            found[canonicalize_name(match["name"])] = match["version"]
    return found


def asked_for() -> list[tuple[str, str]]:
    """What pyproject.toml asks for, with the lock that must have it."""
    project = PROJECT["project"]
    extras = project.get("optional-dependencies", {}).values()
    runtime = [*project["dependencies"], *(line for extra in extras for line in extra)]
    build = PROJECT["build-system"]["requires"]
    return [*((line, RUNTIME) for line in runtime), *((line, BUILD) for line in build)]


@pytest.mark.parametrize(("line", "lock"), asked_for())
def test_what_the_project_asks_for_is_locked(line: str, lock: str):
    requirement = Requirement(line)
    version = pins(lock).get(canonicalize_name(requirement.name))
    assert version is not None, f"{lock} lacks {requirement.name}: `make lock` adds it"
    assert requirement.specifier.contains(version, prereleases=True), f"{version}: `make lock`"


@pytest.mark.parametrize("lock", [RUNTIME, BUILD])
def test_nothing_of_the_machine_that_made_it_is_in_it(lock: str):
    text = (REPOSITORY / lock).read_text()
    assert "make lock" in text.splitlines()[1], "how to make it anew"
    assert not re.search(r"://|(?:^|[\s(])/|\bfile:|@", text), "an address or a path"


def platforms(machine: str) -> list[str]:
    """The tags that an image with glibc 2.41, as Debian 13's, can install; the newest first."""
    numbered = [f"manylinux_2_{minor}_{machine}" for minor in range(41, 16, -1)]
    older = [f"manylinux_2_{minor}_{machine}" for minor in (12, 5) if machine == "x86_64"]
    return [*numbered, f"manylinux2014_{machine}", *older]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("lock", [RUNTIME, BUILD])
def test_every_package_has_a_wheel_with_a_locked_digest(machine: str, lock: str, tmp_path: Path):
    """For the image's Python on the platform, whatever this machine is."""
    version = dockerfile()[0].base.removeprefix("python:").split("-")[0]
    major_minor = ".".join(version.split(".")[:2])
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    command += ["--require-hashes", "--only-binary=:all:", "--no-deps", "--target", str(tmp_path)]
    command += ["--python-version", major_minor, "--requirement", str(REPOSITORY / lock)]
    for platform in platforms(machine):
        command += ["--platform", platform]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
