"""compose.yaml: valid, as confined as it says, in step with the gateway; and its services run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.durations import parse_duration
from gateway.settings import ENVIRONMENT_PREFIX, Settings, load_settings
from tests.deploy.conftest import NewPod
from tests.deploy.containers import Container, Image, Mount, eventually, tmpfs, writable
from tests.deploy.dockerfile import REPOSITORY, dockerfile

FILE = REPOSITORY / "deploy/compose.yaml"
COMPOSE = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
GATEWAY = SERVICES["gateway"]


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What the gateway makes of the service's environment."""
    for name, value in GATEWAY["environment"].items():
        monkeypatch.setenv(name, value)
    return load_settings({})


def test_it_is_valid():
    validate = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run(
        [validate, "--builtin-schema", "vendor.compose-spec", FILE], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_confined(name: str):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"] == ["/tmp"]  # noqa: S108
    assert not service.keys() & {"privileged", "cap_add", "devices", "pid", "ipc", "userns_mode"}
    assert service["mem_limit"]
    assert service["pids_limit"]


def test_what_runs_as_root_has_no_network_and_ends(image: Image):
    roots = {
        name for name, service in SERVICES.items() if service.get("user", image.user) != image.user
    }
    assert roots == {"keys"}
    assert SERVICES["keys"]["network_mode"] == "none"
    for name in ("gateway", "netrunner"):
        waited_for = SERVICES[name]["depends_on"]["keys"]["condition"]
        assert waited_for == "service_completed_successfully"


def test_only_keys_writes_the_keys():
    named = {*COMPOSE["volumes"]}
    for name, service in SERVICES.items():
        for source, _, options in (volume.partition(":") for volume in service["volumes"]):
            assert options.endswith(":ro") == (name != "keys" or source not in named)


def test_its_port_is_published_to_this_machine_only(settings: Settings):
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"gateway": [f"127.0.0.1:8081:{settings.port}"]}


def test_only_the_gateway_reaches_netrunner():
    assert COMPOSE["networks"]["upstream"]["internal"] is True
    assert SERVICES["netrunner"]["networks"] == ["upstream"]


def test_the_settings_are_settings(settings: Settings):
    known = {ENVIRONMENT_PREFIX + name.upper() for name in Settings.model_fields}
    assert GATEWAY["environment"].keys() <= known
    assert settings.tokens is not None


def test_there_is_time_to_stop(settings: Settings):
    time = parse_duration(GATEWAY["stop_grace_period"])
    assert settings.drain_grace + settings.drain_timeout < time
    assert "netrunner" in GATEWAY["depends_on"], "what depends on another is stopped before it"


def test_its_health_check_is_the_images():
    image = json.loads(dockerfile()[-1].last("HEALTHCHECK").text.removeprefix("CMD "))
    assert GATEWAY["healthcheck"]["test"] == ["CMD", *image]
    for name in ("keys", "netrunner"):
        assert SERVICES[name]["healthcheck"] == {"disable": True}, "no gateway runs there"


def test_every_service_is_of_the_image_that_is_built_here():
    (built,) = [name for name, service in SERVICES.items() if "build" in service]
    context = FILE.parent / SERVICES[built]["build"]["context"]
    assert (context / "Dockerfile").samefile(REPOSITORY / "Dockerfile")
    assert len({service["image"] for service in SERVICES.values()}) == 1


# It runs.


class Compose:
    """Makes the services' containers, with volumes as an engine makes them: root's."""

    def __init__(self, image: Image, folder: Path) -> None:
        self._image = image
        self._volumes = {name: folder / name for name in COMPOSE["volumes"]}
        for path in self._volumes.values():
            path.mkdir(0o755)

    def container(self, name: str) -> Container:
        service = SERVICES[name]
        return Container(
            self._image,
            arguments=tuple(service.get("command", ())),
            entrypoint=tuple(service.get("entrypoint", ())),
            environment=service.get("environment", {}),
            user=service.get("user", ""),
            mounts=(*map(self._mount, service["volumes"]), *map(tmpfs, service["tmpfs"])),
        )

    def _mount(self, text: str) -> Mount:
        source, path, *options = text.split(":")
        place = self._volumes.get(source) or FILE.parent / source
        return Mount(place, path) if options == ["ro"] else writable(place, path)

    def keys(self) -> Mapping[str, bytes]:
        """What is in the volumes."""
        folders = self._volumes.values()
        return {str(path): path.read_bytes() for one in folders for path in one.iterdir()}


def test_the_services_run(image: Image, new_pod: NewPod, tmp_path: Path):
    compose = Compose(image, tmp_path)
    pod = new_pod(["netrunner"])
    status, said = pod.run(compose.container("keys"))
    assert status == 0, said
    token = re.search(r"zgw_\S+", said)
    assert token is not None
    netrunner = pod.start(compose.container("netrunner"))
    gateway = pod.start(compose.container("gateway"))
    eventually(lambda: pod.get(8081, "/readyz")[0] == 200, gateway, netrunner)
    status, said = pod.run(compose.container("gateway"), GATEWAY["healthcheck"]["test"][1:])
    assert status == 0, said
    assert pod.get(8081, "/v1/status")[0] == 401
    assert pod.get(8081, "/v1/status", Authorization=f"Bearer {token[0]}")[0] == 200
    for running in (gateway, netrunner):
        running.terminate()
        assert running.wait() == 0, running.said


def test_a_second_start_keeps_what_the_first_made(image: Image, new_pod: NewPod, tmp_path: Path):
    compose = Compose(image, tmp_path)
    pod = new_pod()
    assert pod.run(compose.container("keys"))[0] == 0
    made = compose.keys()
    assert len(made) == 5
    assert pod.run(compose.container("keys")) == (0, "")
    assert compose.keys() == made


def test_a_start_that_was_cut_off_is_made_up_for(image: Image, new_pod: NewPod, tmp_path: Path):
    """Both sides must know each other, whatever was there."""
    compose = Compose(image, tmp_path)
    pod = new_pod()
    assert pod.run(compose.container("keys"))[0] == 0
    (tmp_path / "gateway-keys/gateway.json").unlink()
    (tmp_path / "gateway-keys/tokens").unlink()
    before = compose.keys()
    status, said = pod.run(compose.container("keys"))
    assert (status, said.count("zgw_")) == (0, 1)
    after = compose.keys()
    changed = {Path(name).name for name in after if before.get(name) != after[name]}
    assert changed == {"gateway.json", "gateway.pub", "tokens"}


def test_the_keys_are_nobody_elses(image: Image, new_pod: NewPod, tmp_path: Path):
    compose = Compose(image, tmp_path)
    assert new_pod().run(compose.container("keys"))[0] == 0
    group = int(image.user.partition(":")[2])
    for name in (
        "gateway-keys/gateway.json",
        "gateway-keys/tokens",
        "netrunner-keys/netrunner.json",
    ):
        status = (tmp_path / name).stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (0, group, 0o440)
