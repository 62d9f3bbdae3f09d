"""The manifests: valid, as confined as they say, in step with the gateway; and the Pod runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.settings import ENVIRONMENT_PREFIX, Settings, load_settings
from tests.deploy.conftest import NewPod
from tests.deploy.containers import Container, Image, Mount, eventually, tmpfs, writable
from tests.deploy.dockerfile import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
MANIFESTS = DEPLOY / "kubernetes"
SIMULATED = DEPLOY / "kubernetes-simulated"
OLDEST = "1.30"
"""The first version in which a container can sleep before its signal without a shell."""

STOPPING_NODES = 30.0
"""Seconds that netrunner must have left to stop its nodes."""


@cache
def manifest(kind: str) -> dict[str, Any]:
    """The object of one kind."""
    objects = [yaml.safe_load(path.read_text()) for path in MANIFESTS.glob("*.yaml")]
    (found,) = [one for one in objects if one["kind"] == kind]
    return found


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    """The Pod."""
    return manifest("Deployment")["spec"]["template"]


@pytest.fixture(scope="module")
def spec(template: dict[str, Any]) -> dict[str, Any]:
    return template["spec"]


def container_of(spec: Mapping[str, Any], name: str) -> dict[str, Any]:
    (found,) = [one for one in spec["containers"] if one["name"] == name]
    return found


@pytest.fixture(scope="module")
def gateway(spec: dict[str, Any]) -> dict[str, Any]:
    return container_of(spec, "gateway")


def environment_of(container: Mapping[str, Any]) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container.get("env", ())}


@pytest.fixture
def settings(gateway: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What the gateway makes of the container's environment."""
    for name, value in environment_of(gateway).items():
        monkeypatch.setenv(name, value)
    return load_settings({})


# Valid.


@pytest.mark.parametrize("version", [(), ("--kubernetes-version", OLDEST)], ids=["newest", OLDEST])
def test_the_manifests_are_valid(version: tuple[str, ...]):
    validate = Path(sys.executable).with_name("kubernetes-validate")
    files = [path for path in MANIFESTS.glob("*.yaml") if path.name != "kustomization.yaml"]
    done = subprocess.run(
        [validate, "--strict", "--no-warn", *version, *files], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(files) == 4


def test_kustomize_is_told_of_every_file_and_image(spec: dict[str, Any]):
    told = yaml.safe_load((MANIFESTS / "kustomization.yaml").read_text())
    files = {path.name for path in MANIFESTS.iterdir()} - {"kustomization.yaml"}
    assert {*told["resources"]} == files
    images = {one["image"].rpartition(":")[0] for one in spec["containers"]}
    assert {one["name"] for one in told["images"]} == images
    assert told["namespace"] == manifest("Namespace")["metadata"]["name"]


# Confined.


def test_every_container_is_confined(spec: dict[str, Any]):
    """All that the level `restricted` asks for, and a root that can't be written to."""
    pod = spec["securityContext"]
    assert pod["runAsNonRoot"] is True
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert "initContainers" not in spec
    for container in spec["containers"]:
        context = container["securityContext"]
        assert context["runAsUser"] >= 10_000
        assert context["runAsGroup"] >= 10_000
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not context.keys() & {"privileged", "runAsNonRoot", "seccompProfile", "procMount"}
    labels = manifest("Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_gateway_runs_as_the_user_of_its_image(gateway: dict[str, Any], image: Image):
    context = gateway["securityContext"]
    assert f"{context['runAsUser']}:{context['runAsGroup']}" == image.user


def test_every_container_says_what_it_needs(spec: dict[str, Any]):
    for container in spec["containers"]:
        resources = container["resources"]
        assert resources["requests"].keys() == {"cpu", "memory"}
        assert resources["limits"].keys() >= {"memory"}


def test_bodies_fit_into_the_memory(gateway: dict[str, Any], settings: Settings):
    """All at once, and as much again for what is made of them, beside the process itself."""
    limit = gateway["resources"]["limits"]["memory"]
    assert limit.endswith("Mi")
    process = 128
    assert process + 2 * settings.max_bodies / 2**20 <= int(limit.removesuffix("Mi"))


def test_volumes_are_those_that_are_mounted_and_secrets_only_for_reading(spec: dict[str, Any]):
    volumes = {one["name"]: one for one in spec["volumes"]}
    mounts = [mount for one in spec["containers"] for mount in one["volumeMounts"]]
    assert sorted(mount["name"] for mount in mounts) == sorted(volumes), "each for one container"
    for mount in mounts:
        volume = volumes[mount["name"]]
        assert ("secret" in volume) == mount.get("readOnly", False)
    for container in spec["containers"]:
        assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]]  # noqa: S108


def test_only_the_gateways_port_is_let_in_and_only_for_those_who_say_so(
    template: dict[str, Any], gateway: dict[str, Any]
):
    policy = manifest("NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert {*policy["policyTypes"]} == {"Ingress", "Egress"}
    assert policy["egress"] == []
    (rule,) = policy["ingress"]
    (peer,) = rule["from"]
    assert peer["podSelector"]["matchLabels"]
    names = [port["name"] for port in gateway["ports"]]
    assert [port["port"] for port in rule["ports"]] == names


# In step with the gateway.


def test_the_settings_are_settings(gateway: dict[str, Any], settings: Settings):
    known = {ENVIRONMENT_PREFIX + name.upper() for name in Settings.model_fields}
    assert environment_of(gateway).keys() <= known
    assert settings.tokens is not None


def test_no_service_can_set_a_setting(spec: dict[str, Any]):
    """A Service named zap-gateway would set ZAP_GATEWAY_PORT to tcp://…"""
    assert spec["enableServiceLinks"] is False


def test_probes_ask_what_the_gateway_answers(gateway: dict[str, Any], settings: Settings):
    ports = {port["name"]: port["containerPort"] for port in gateway["ports"]}
    routes = json.loads((REPOSITORY / "openapi/openapi.json").read_text())["paths"]
    asked = {}
    for kind in ("startup", "liveness", "readiness"):
        probe = gateway[f"{kind}Probe"]["httpGet"]
        asked[kind] = probe["path"]
        assert probe["path"] in routes
        assert ports[probe["port"]] == settings.port
    assert asked == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}


def test_the_service_leads_to_the_gateway(template: dict[str, Any], gateway: dict[str, Any]):
    service = manifest("Service")
    labels = template["metadata"]["labels"].items()
    assert service["spec"]["selector"].items() <= labels
    assert manifest("Deployment")["spec"]["selector"]["matchLabels"].items() <= labels
    (port,) = service["spec"]["ports"]
    assert port["targetPort"] in [one["name"] for one in gateway["ports"]]
    prefix = service["metadata"]["name"].upper().replace("-", "_") + "_"
    assert not prefix.startswith(ENVIRONMENT_PREFIX), "for Pods that do have service links"


def test_there_is_time_to_stop(spec: dict[str, Any], settings: Settings):
    """First the gateway drains, then netrunner stops its nodes, and then Kubernetes kills."""
    netrunner = container_of(spec, "netrunner")
    waits = netrunner["lifecycle"]["preStop"]["sleep"]["seconds"]
    whole = spec["terminationGracePeriodSeconds"]
    assert settings.drain_grace + settings.drain_timeout < waits
    assert waits + STOPPING_NODES <= whole
    readme = (DEPLOY / "README.md").read_text()
    for seconds in (settings.drain_grace, settings.drain_timeout, waits, whole):
        assert f"{seconds:g} s" in readme, "it tells these numbers"


def test_there_is_never_a_second_netrunner():
    spec = manifest("Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_the_readme_names_the_oldest_kubernetes():
    assert f"Kubernetes {OLDEST}" in (DEPLOY / "README.md").read_text()


# It runs.

KUBECTL = """\
#!{python}
import pathlib, shutil, sys
words = sys.argv[1:]
if words[2:5] == ["create", "secret", "generic"]:
    folder = pathlib.Path({secrets!r}) / words[5]
    folder.mkdir()
    for flag, file in zip(words[6::2], words[7::2], strict=True):
        assert flag == "--from-file"
        shutil.copy(file, folder)
else:
    assert "apply" in words, words
"""


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """A folder for each Secret that the commands in deploy/README.md make."""
    blocks = re.findall(r"```sh\n(.*?)```", (DEPLOY / "README.md").read_text(), re.DOTALL)
    found, commands, work = (tmp_path / name for name in ("secrets", "commands", "work"))
    for folder in (found, commands, work):
        folder.mkdir()
    kubectl = commands / "kubectl"
    kubectl.write_text(KUBECTL.format(python=sys.executable, secrets=str(found)))
    kubectl.chmod(0o755)
    path = f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(
        ["sh", "-eu", "-c", "".join(blocks)], check=True, cwd=work, env={**os.environ, "PATH": path}
    )
    return found


def volume(one: Mapping[str, Any], group: int, secrets: Path, folder: Path) -> Path:
    """A volume's files as the kubelet makes them for a Pod with an fsGroup."""
    folder.mkdir()
    folder.chmod(0o777)
    if "secret" not in one:
        return folder
    version = folder / "..2026_01_01"
    version.mkdir(mode=0o755)
    (folder / "..data").symlink_to(version.name)
    for source in (secrets / one["secret"]["secretName"]).iterdir():
        file = version / source.name
        file.write_bytes(source.read_bytes())
        os.chown(file, 0, group)
        file.chmod(one["secret"]["defaultMode"] | 0o440)
        (folder / source.name).symlink_to(f"..data/{source.name}")
    return folder


class Kubelet:
    """Makes the manifest's containers."""

    def __init__(self, image: Image, spec: Mapping[str, Any], secrets: Path, folder: Path) -> None:
        self._image = image
        self._group = spec["securityContext"]["fsGroup"]
        self._volumes = {one["name"]: one for one in spec["volumes"]}
        folder.mkdir()
        self._folders = {
            name: volume(one, self._group, secrets, folder / name)
            for name, one in self._volumes.items()
        }

    def container(self, one: Mapping[str, Any]) -> Container:
        context = one["securityContext"]
        return Container(
            self._image,
            arguments=tuple(one.get("args", ())),
            environment=environment_of(one),
            user=f"{context['runAsUser']}:{context['runAsGroup']}",
            groups=(self._group,),
            mounts=tuple(map(self._mount, one["volumeMounts"])),
        )

    def _mount(self, mount: Mapping[str, Any]) -> Mount:
        name, path = mount["name"], mount["mountPath"]
        if self._volumes[name].get("emptyDir", {}).get("medium") == "Memory":
            return tmpfs(path)
        if mount.get("readOnly"):
            return Mount(self._folders[name], path)
        return writable(self._folders[name], path)


def test_the_commands_of_the_readme_make_every_secret_that_is_mounted(
    spec: dict[str, Any], gateway: dict[str, Any], secrets: Path
):
    volumes = {one["name"]: one for one in spec["volumes"] if "secret" in one}
    named = {one["secret"]["secretName"] for one in volumes.values()}
    assert {path.name for path in secrets.iterdir()} == named
    there = {
        f"{mount['mountPath']}/{path.name}"
        for mount in gateway["volumeMounts"]
        if mount["name"] in volumes
        for path in (secrets / volumes[mount["name"]]["secret"]["secretName"]).iterdir()
    }
    files = [value for value in environment_of(gateway).values() if value.startswith("/")]
    assert {*files} == there, "each file is used, and each setting has its file"


def test_the_pod_runs_with_a_simulated_netrunner(
    spec: dict[str, Any], gateway: dict[str, Any], image: Image, secrets: Path, new_pod: NewPod
):
    """The gateway first: neither needs the other to start."""
    patch = yaml.safe_load((SIMULATED / "netrunner.yaml").read_text())
    patched = container_of(patch["spec"]["template"]["spec"], "netrunner")
    kubelet = Kubelet(image, spec, secrets, secrets.parent / "volumes")
    pod = new_pod()
    serving = pod.start(kubelet.container(gateway))
    port = gateway["ports"][0]["containerPort"]

    def probe(kind: str) -> int:
        path = gateway[f"{kind}Probe"]["httpGet"]["path"]
        return pod.get(port, path, Host=f"10.0.0.7:{port}")[0]

    eventually(lambda: probe("startup") == 200, serving)
    assert (probe("liveness"), probe("readiness")) == (200, 503)
    merged = {**container_of(spec, "netrunner"), **patched}
    netrunner = pod.start(kubelet.container(merged))
    eventually(lambda: probe("readiness") == 200, serving, netrunner)

    token = re.search(r"zgw_\S+", (secrets.parent / "work/me.token").read_text())
    assert token is not None
    assert pod.get(port, "/v1/status")[0] == 401
    assert pod.get(port, "/v1/status", Authorization=f"Bearer {token[0]}")[0] == 200

    serving.terminate()
    assert serving.wait() == 0, serving.said
    assert netrunner.is_running
    netrunner.terminate()
    assert netrunner.wait() == 0, netrunner.said
