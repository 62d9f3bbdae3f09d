"""The Dockerfile's own commands, carried out in order, and what they make, run as it would be.

No engine takes part: see tests/deploy/containers.py.
"""

from __future__ import annotations

import importlib.metadata
import os
import stat
import time
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gateway.settings import DEFAULT_PORT
from tests.deploy.conftest import BUILD_ARGUMENTS, NewPod
from tests.deploy.containers import Builder, Container, Image, Mount, Pod, eventually, tmpfs
from tests.deploy.dockerfile import REPOSITORY, dockerfile
from tests.deploy.test_lock import PROJECT, RUNTIME, pins
from zapcore import Identity

PYTHON = "/opt/zap-gateway/bin/python"

# What the process of a container may do, and what it finds.
_LOOK_AROUND = """
import errno, os
status = dict(line.split(":\\t") for line in open("/proc/self/status") if ":\\t" in line)
print(os.getpid(), os.getresuid(), os.getresgid(), os.getgroups())
print(status["CapEff"].strip(), status["CapBnd"].strip(), status["NoNewPrivs"].strip())
for path in ("/new", "/opt/zap-gateway/new", "/opt/zap-gateway/lib/new", "/etc/new", "/usr/new"):
    try:
        open(path, "w")
    except OSError as error:
        print(path, errno.errorcode[error.errno])
for shell in ("/bin/sh", "/usr/bin/bash"):
    try:
        os.execv(shell, [shell, "-c", "echo a shell"])
    except OSError as error:
        print(shell, errno.errorcode[error.errno])
"""


def packages(image: Image) -> Path:
    """Where the image's environment has its packages."""
    (folder,) = image.inside("/opt/zap-gateway/lib").glob("python3*/site-packages")
    return folder


def installed(image: Image) -> dict[str, str]:
    """Version by name of what is in the image's environment."""
    found = importlib.metadata.distributions(path=[str(packages(image))])
    return {canonicalize_name(one.metadata["Name"]): one.version for one in found}


# What is built.


def test_it_has_the_locked_versions_and_nothing_else(image: Image):
    found = installed(image)
    assert found.pop("zap-gateway") == PROJECT["project"]["version"]
    assert found.items() <= pins(RUNTIME).items()
    assert {"fastapi", "cryptography", "pqcrypto", "uvloop"} <= found.keys()


def test_nothing_but_the_environment_reaches_the_last_stage(image: Image):
    base = dockerfile()[0]
    assert base.instructions == []
    made = {
        path.relative_to(image.root) for path in image.root.glob("*/*") if not path.is_symlink()
    }
    assert {path for path in made if path.parts[0] != "base"} == {Path("opt/zap-gateway")}


def test_it_has_the_whole_code_of_this_tree(image: Image):
    for package in ("gateway", "zapcore"):
        for source in (REPOSITORY / package).rglob("*"):
            if source.is_file() and "__pycache__" not in source.parts:
                copy = packages(image) / source.relative_to(REPOSITORY)
                assert copy.read_bytes() == source.read_bytes(), source


def test_all_bytecode_is_there_and_is_never_checked_against_dates(image: Image):
    folder = packages(image)
    sources = [path for path in folder.rglob("*.py") if "__pycache__" not in path.parts]
    assert len(sources) > 500
    for source in sources:
        (compiled,) = (source.parent / "__pycache__").glob(f"{source.stem}.cpython-*.pyc")
        flags = int.from_bytes(compiled.read_bytes()[4:8], "little")
        assert flags == 0b01, f"{compiled}: by hash, and unchecked (PEP 552)"


def test_its_user_can_read_all_of_it_and_write_nothing(image: Image):
    for path in image.inside("/opt").rglob("*"):
        status = path.lstat()
        assert (status.st_uid, status.st_gid) == (0, 0), path
        if not path.is_symlink():
            needed = stat.S_IROTH | (stat.S_IXOTH if path.is_dir() else 0)
            assert status.st_mode & needed == needed, path
            assert not status.st_mode & (stat.S_IWOTH | stat.S_IWGRP), path


def test_its_labels_say_what_it_is(image: Image):
    prefix = "org.opencontainers.image."
    assert all(name.startswith(prefix) for name in image.labels)
    labels = {name.removeprefix(prefix): value for name, value in image.labels.items()}
    assert labels.pop("description")
    assert labels == {
        "title": "zap-gateway",
        "licenses": PROJECT["project"]["license"],
        **{name.lower(): value for name, value in BUILD_ARGUMENTS.items()},
    }


def test_each_extra_is_installed_from_the_lock_too(builder: Builder):
    """The last command of the build again, with the build argument."""
    (stage,) = [stage for stage in dockerfile() if stage.all("RUN")]
    build = builder.images[stage.name]
    for extra, lines in PROJECT["project"].get("optional-dependencies", {}).items():
        asked_for = {canonicalize_name(Requirement(line).name) for line in lines}
        assert not asked_for & installed(build).keys(), "only who asks gets it"
        build.arguments["EXTRAS"] = extra
        builder.run(build, stage.last("RUN").text)
        assert asked_for <= installed(build).keys()
    locked = {"zap-gateway": PROJECT["project"]["version"], **pins(RUNTIME)}
    assert installed(build).items() <= locked.items()


# What is run.


@pytest.fixture
def keys(tmp_path: Path, image: Image) -> Path:
    """A folder of identities, as Kubernetes and compose.yaml hand them to the image's user."""
    folder = tmp_path / "keys"
    folder.mkdir(0o755)
    for name in ("gateway", "netrunner"):
        identity = Identity.generate()
        identity.save(folder / f"{name}.json")
        identity.public.save(folder / f"{name}.pub")
        os.chown(folder / f"{name}.json", 0, int(image.user.partition(":")[2]))
        (folder / f"{name}.json").chmod(0o440)
    return folder


class Fleet:
    """A gateway in front of a simulated netrunner, both from the image."""

    def __init__(self, pod: Pod, image: Image, keys: Path) -> None:
        mounts = (Mount(keys, "/keys"), tmpfs("/tmp"))  # noqa: S108 - the container's own
        simulate = ("simulate", "--identity=/keys/netrunner.json", "--client=/keys/gateway.pub")
        environment = {
            "ZAP_GATEWAY_IDENTITY": "/keys/gateway.json",
            "ZAP_GATEWAY_SERVER": "/keys/netrunner.pub",
        }
        self.pod = pod
        self.container = Container(image, environment=environment, mounts=mounts)
        self.netrunner = pod.start(Container(image, simulate, mounts=mounts))
        self.gateway = pod.start(self.container)
        eventually(lambda: self.get("/readyz")[0] == 200, self.gateway, self.netrunner)

    def get(self, path: str) -> tuple[int, str]:
        return self.pod.get(DEFAULT_PORT, path)


@pytest.fixture
def fleet(image: Image, new_pod: NewPod, keys: Path) -> Fleet:
    return Fleet(new_pod(), image, keys)


def test_a_container_is_as_confined_as_these_tests_say(image: Image, new_pod: NewPod):
    container = Container(image, entrypoint=(PYTHON, "-c", _LOOK_AROUND))
    status, said = new_pod().run(container)
    assert status == 0
    assert said.splitlines() == [
        "1 (10001, 10001, 10001) (10001, 10001, 10001) []",
        f"{0:016x} {0:016x} 1",
        *(f"{path} EROFS" for path in ("/new", "/opt/zap-gateway/new", "/opt/zap-gateway/lib/new")),
        *(f"{path} EROFS" for path in ("/etc/new", "/usr/new")),
        *(f"{shell} EACCES" for shell in ("/bin/sh", "/usr/bin/bash")),
    ]


def test_it_serves_and_a_signal_ends_it_cleanly(fleet: Fleet):
    assert fleet.get("/healthz")[0] == 200
    status, body = fleet.get("/v1/status")
    assert (status, "node1" in body) == (200, True)
    started = time.monotonic()
    fleet.gateway.terminate()
    assert fleet.gateway.wait() == 0, fleet.gateway.said
    assert time.monotonic() - started < 10, "the ten seconds after which an engine kills"
    assert "Traceback" not in fleet.gateway.said
    fleet.netrunner.terminate()
    assert fleet.netrunner.wait() == 0, fleet.netrunner.said


def test_the_health_check_says_whether_it_serves(fleet: Fleet):
    check = fleet.container.image.healthcheck
    status, said = fleet.pod.run(fleet.container, check)
    assert status == 0, said
    fleet.gateway.terminate()
    fleet.gateway.wait()
    status, said = fleet.pod.run(fleet.container, check)
    assert status == 1, "an engine takes every other status for a mistake"
    assert "Traceback" not in said


def test_without_settings_it_says_what_it_needs(image: Image, new_pod: NewPod):
    status, said = new_pod().run(Container(image))
    assert (status, "an identity is needed" in said) == (2, True)


def test_it_does_not_open_itself_to_the_network_without_tokens(image: Image, new_pod: NewPod):
    environment = {"ZAP_GATEWAY_HOST": "0.0.0.0"}  # noqa: S104
    status, said = new_pod().run(Container(image, environment=environment))
    assert (status, "without tokens" in said) == (2, True)
