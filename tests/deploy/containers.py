"""Builds and runs containers without an engine: with namespaces, and this machine's Python.

An image is a folder with what its instructions make. What its base would hold is this machine's:
the C library, a shell, and as Python with pip a virtual environment. A container is such an image
in mount and process namespaces of its own, with no capability, a root that can't be written to, and
the user and mounts that it is given. Those of one Pod share a network in which all ports are free.

Only root may do all that.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from tests.deploy.dockerfile import REPOSITORY, Instruction, Stage, context, substitute

HANG = 60.0
"""Seconds after which something is taken to hang."""

_NEEDED = ("unshare", "nsenter", "setpriv", "mount", "chroot")
_SYSTEM = ("/usr", "/dev", "/bin", "/sbin", "/lib", "/lib64")
_PATH = "/base/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NETWORK = {"http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"}
"""With the variables of pip, what says how this machine reaches a package index."""

_PLAIN_PYTHON = (sys.executable, "-I", "-S")
"""Starts fast, because it looks for no packages."""

# $1 is the root, $2 a file for the process' id, then what mounts, `--`, and what to run.
_ENTER = """
set -eu
root=$1 file=$2
shift 2
read -r pid rest < /proc/self/stat
echo "$pid" > "$file"
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
while [ "$1" != -- ]; do
    mount $1 "$2" "$root$3"
    shift 3
done
shift
exec chroot "$root" "$@"
"""

_LOOPBACK_UP = """
import fcntl, socket, struct, sys
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
print("up", flush=True)
sys.stdin.read()
"""

_ASK = """
import http.client, json, sys
port, path, headers = sys.argv[1:]
connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=30)
connection.request("GET", path, headers=json.loads(headers))
response = connection.getresponse()
print(json.dumps([response.status, response.read().decode()]))
"""


def why_not() -> str | None:
    """Why containers can't be run here; None where they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root of Linux can run containers without an engine"
    missing = [command for command in _NEEDED if shutil.which(command) is None]
    if missing:
        return f"containers need {', '.join(missing)} (util-linux, coreutils)"
    probe = subprocess.run(
        ["unshare", "--mount", "--pid", "--net", "--fork", "true"], capture_output=True, text=True
    )
    return f"no namespaces can be made here: {probe.stderr.strip()}" if probe.returncode else None


# Images.


@dataclass
class Image:
    """What instructions made: files, and what is said about running them."""

    root: Path
    environment: dict[str, str]
    arguments: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "0:0"
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    healthcheck: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def variables(self) -> dict[str, str]:
        """What instructions can refer to."""
        return {**self.arguments, **self.environment}

    @property
    def made(self) -> list[Path]:
        """The folders at the top that hold something of the image's own."""
        paths = [path for path in self.root.iterdir() if not path.is_symlink()]
        return [path for path in paths if any(inner.is_file() for inner in path.rglob("*"))]

    def inside(self, path: str) -> Path:
        """The file here that a path of the image means."""
        return self.root / str(PurePosixPath(self.folder) / path).lstrip("/")


class Builder:
    """Carries out the instructions of a Dockerfile, in order.

    Args:
        folder: where the images go.
        given: build arguments.
    """

    def __init__(self, folder: Path, given: Mapping[str, str]) -> None:
        self._folder = folder
        self._given = given
        self.images: dict[str, Image] = {}

    def build(self, stages: Sequence[Stage]) -> Image:
        """The image of the last stage."""
        for number, stage in enumerate(stages):
            image = self._begin(stage, self._folder / f"stage{number}")
            for instruction in stage.instructions:
                getattr(self, f"_{instruction.name.lower()}")(image, instruction)
            self.images[stage.name] = image
        return image

    def _begin(self, stage: Stage, root: Path) -> Image:
        if stage.base in self.images:
            before = self.images[stage.base]
            shutil.copytree(before.root, root, symlinks=True)
            return replace(before, root=root, environment={**before.environment}, arguments={})
        root.mkdir(0o755)
        python = sys._base_executable  # type: ignore[attr-defined]
        subprocess.run([python, "-m", "venv", root / "base"], check=True)
        return Image(root, {"PATH": _PATH})

    def run(self, image: Image, line: str) -> None:
        """Run a line of shell in an image as it is, as root, with the network of this machine."""
        variables = {**_network(), "HOME": "/root", **image.variables}
        image.inside("/tmp").mkdir(exist_ok=True)  # noqa: S108 - the image's own
        # Where the names of hosts are looked up; /etc/resolv.conf may lead to /run.
        names = [Mount(path, path) for path in ("/etc", "/run") if Path(path).is_dir()]
        mounts = [*_system(image.root), *names]
        command = _entering(image.root, image.root.with_suffix(".pid"), mounts)
        command += ["/usr/bin/env", "--chdir", image.folder, "/bin/sh", "-c", line]
        done = subprocess.run(command, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, f"RUN {line}\n{done.stdout}\n{done.stderr}"

    def _run(self, image: Image, instruction: Instruction) -> None:
        self.run(image, instruction.text)

    def _copy(self, image: Image, instruction: Instruction) -> None:
        *sources, target = instruction.words
        for source in sources:
            if "from" in instruction.flags:
                other = self.images[instruction.flags["from"]]
                shutil.copytree(other.inside(source), image.inside(target), symlinks=True)
            else:
                _copy_of_context(PurePosixPath(source), image.inside(target))

    def _arg(self, image: Image, instruction: Instruction) -> None:
        name, _, default = instruction.text.partition("=")
        image.arguments[name] = self._given.get(name, default)

    def _env(self, image: Image, instruction: Instruction) -> None:
        image.environment |= instruction.pairs(image.variables)

    def _label(self, image: Image, instruction: Instruction) -> None:
        image.labels |= instruction.pairs(image.variables)

    def _workdir(self, image: Image, instruction: Instruction) -> None:
        image.folder = instruction.text
        image.inside(".").mkdir(parents=True, exist_ok=True)

    def _user(self, image: Image, instruction: Instruction) -> None:
        image.user = substitute(instruction.text, image.variables)

    def _entrypoint(self, image: Image, instruction: Instruction) -> None:
        image.entrypoint = tuple(instruction.words)

    def _cmd(self, image: Image, instruction: Instruction) -> None:
        image.command = tuple(instruction.words)

    def _healthcheck(self, image: Image, instruction: Instruction) -> None:
        image.healthcheck = tuple(json.loads(instruction.text.removeprefix("CMD ")))

    def _expose(self, image: Image, instruction: Instruction) -> None:
        """It only documents."""


def _copy_of_context(source: PurePosixPath, target: Path) -> None:
    files = [path for path in context() if path == source or source in path.parents]
    assert files, f"COPY {source}: the build is not sent such a file"
    for path in files:
        inside = path.relative_to(source if path != source else source.parent)
        (target / inside).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / path, target / inside)


# Mounts.


@dataclass(frozen=True)
class Mount:
    """A file or folder of this machine, or a new file system in memory, in a container."""

    source: str | Path
    path: str
    options: str = "--rbind --options=ro"

    @property
    def is_folder(self) -> bool:
        return self.source == "tmpfs" or Path(self.source).is_dir()


def writable(source: Path, path: str) -> Mount:
    """A folder that the container may write to."""
    return Mount(source, path, "--bind")


def tmpfs(path: str) -> Mount:
    """A file system in memory that everybody may write to."""
    return Mount("tmpfs", path, "-t tmpfs -o mode=1777,nosuid,nodev,noexec")


def _system(root: Path) -> list[Mount]:
    """What the base image holds and this machine has alike; links are made anew in the root."""
    mounts = []
    for path in map(Path, filter(os.path.exists, _SYSTEM)):
        here = root / path.name
        if not path.is_symlink():
            mounts.append(Mount(path, str(path)))
        elif not here.is_symlink():
            here.symlink_to(path.readlink())
    if not Path(sys.base_prefix).is_relative_to("/usr"):
        mounts.append(Mount(sys.base_prefix, sys.base_prefix))
    return mounts


def _network() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name.lower() in _NETWORK or name in _NETWORK or name.startswith("PIP_")
    }


def _no_shell() -> list[Mount]:
    """What hides every shell of the base."""
    shells = {Path(f"/usr/bin/{name}").resolve() for name in ("sh", "bash", "dash", "busybox")}
    return [Mount("/dev/null", str(path), "--bind") for path in shells if path.exists()]


def _entering(root: Path, pid_file: Path, mounts: Sequence[Mount]) -> list[str]:
    """The beginning of a command: what stands after it runs in the root, as process 1."""
    (root / "proc").mkdir(exist_ok=True)
    for mount in mounts:
        place = root / mount.path.lstrip("/")
        (place if mount.is_folder else place.parent).mkdir(parents=True, exist_ok=True)
        if not mount.is_folder and not place.exists():
            place.touch()
    command = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork"]
    command += ["/bin/sh", "-c", _ENTER, "enter", str(root), str(pid_file)]
    for mount in mounts:
        command += [mount.options, str(mount.source), mount.path]
    return [*command, "--"]


# Containers.


@dataclass(frozen=True)
class Container:
    """How to run an image; what is not given is as the image says."""

    image: Image
    arguments: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    groups: tuple[int, ...] = ()
    mounts: tuple[Mount, ...] = ()

    @property
    def command(self) -> tuple[str, ...]:
        """What it runs."""
        if self.entrypoint:
            return (*self.entrypoint, *self.arguments)
        return (*self.image.entrypoint, *(self.arguments or self.image.command))

    def confined(self, root: Path, pid_file: Path, command: Sequence[str]) -> list[str]:
        """What runs a command in it, in a fresh folder as its root."""
        own = [Mount(path, f"/{path.name}") for path in self.image.made]
        # The root itself comes last: then nothing can be written to it.
        closed = Mount(root, "/", "-o remount,bind,ro")
        mounts = [*_system(root), *own, *_no_shell(), *self.mounts, closed]
        values = {"HOME": "/", **self.image.environment, **self.environment}
        return [
            *_entering(root, pid_file, mounts),
            *self._as_user(),
            *("/usr/bin/env", "--ignore-environment"),
            *(f"{name}={value}" for name, value in values.items()),
            *command,
        ]

    def _as_user(self) -> list[str]:
        user, _, group = (self.user or self.image.user).partition(":")
        groups = ",".join(map(str, self.groups))
        return [
            *("/usr/bin/setpriv", f"--reuid={user}", f"--regid={group}"),
            f"--groups={groups}" if groups else "--clear-groups",
            *("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"),
        ]


class Pod:
    """Containers that share a network of their own, which leads nowhere else.

    Args:
        folder: an empty one.
        names: what else its address is called.
    """

    def __init__(self, folder: Path, names: Sequence[str] = ()) -> None:
        self._folder = folder
        self._names = names
        self._count = 0
        self._stack = ExitStack()
        self.running: list[Running] = []

    def __enter__(self) -> Pod:
        holder = self._stack.enter_context(
            subprocess.Popen(
                ["unshare", "--net", *_PLAIN_PYTHON, "-c", _LOOPBACK_UP],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"up\n"
        self._join = ["nsenter", f"--net=/proc/{holder.pid}/ns/net"]
        return self

    def __exit__(self, *_: object) -> None:
        for running in self.running:
            running.kill()
        self._stack.close()

    def start(self, container: Container, command: Sequence[str] = ()) -> Running:
        """Start a container, or in one like it another command."""
        self._count += 1
        root = self._folder / f"container{self._count}"
        (root / "etc").mkdir(0o755, parents=True)
        (root / "etc/nsswitch.conf").write_text("hosts: files\n")
        (root / "etc/hosts").write_text(f"127.0.0.1 localhost {' '.join(self._names)}\n")
        log, pid_file = root.with_suffix(".log"), root.with_suffix(".pid")
        line = container.confined(root, pid_file, command or container.command)
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*self._join, *line],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        running = Running(process, log, pid_file)
        self.running.append(running)
        return running

    def run(self, container: Container, command: Sequence[str] = ()) -> tuple[int, str]:
        """Run one to its end; its exit status, and what it said."""
        running = self.start(container, command)
        return running.wait(), running.said

    def get(self, port: int, path: str, **headers: str) -> tuple[int, str]:
        """Ask by HTTP; the status and the body. Status 0 where nobody listens."""
        line = [*self._join, *_PLAIN_PYTHON, "-c", _ASK, str(port), path, json.dumps(headers)]
        done = subprocess.run(line, capture_output=True, text=True, timeout=HANG)
        if done.returncode:
            return 0, done.stderr
        status, body = json.loads(done.stdout)
        return status, body


@dataclass(frozen=True)
class Running:
    """A container that was started."""

    process: subprocess.Popen[bytes]
    log: Path
    pid_file: Path

    @property
    def said(self) -> str:
        """What it wrote so far."""
        return self.log.read_text()

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def terminate(self) -> None:
        """Tell its process 1 to stop, as an engine does."""
        os.kill(int(self.pid_file.read_text()), signal.SIGTERM)

    def wait(self) -> int:
        """Its exit status."""
        return self.process.wait(timeout=HANG)

    def kill(self) -> None:
        """End it and all that it started."""
        if self.is_running and self.pid_file.exists():
            os.kill(int(self.pid_file.read_text()), signal.SIGKILL)
        self.process.kill()
        self.process.wait()


def eventually(predicate: Callable[[], object], *running: Running) -> None:
    """Wait until something holds, while containers run."""
    until = time.monotonic() + HANG
    while not predicate():
        said = "\n".join(one.said for one in running)
        assert all(one.is_running for one in running), f"a container ended: {said}"
        assert time.monotonic() < until, f"not within {HANG:g} s: {said}"
        time.sleep(0.05)
