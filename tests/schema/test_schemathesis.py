"""Schemathesis, over the document that a gateway serves, finds nothing."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.auth import new_token, token_line
from gateway.routes.table import COMPATIBILITY
from tests.integration.gateway_helpers import (
    clean_environment,
    command,
    identity_file,
    old_operations,
    operations,
    simulator,
)

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

PHASES = ("examples", "coverage", "fuzzing", "stateful")
CHECKS = {
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "positive_data_acceptance",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "use_after_free",
    "ensure_resource_availability",
    "ignored_auth",
    "object_level_authorization",
    "only_the_netrunner_server_fails",
    "the_old_api_fails_its_own_way",
}

NOT_THE_OLD_APIS = {
    *("unsupported_method", "allow_header_conformance"),  # it answers 501 where others do 405
    *("use_after_free", "ensure_resource_availability"),  # its addresses are of no resources
    "only_the_netrunner_server_fails",
}

OPEN = {"GET /healthz", "GET /readyz"}
"""What needs no token where the others do."""

pytestmark = pytest.mark.timeout(400)


@dataclass
class Served:
    """A gateway in front of a simulated netrunner, each a process of its own."""

    url: str
    token: str

    @property
    def document(self) -> Any:
        return httpx.get(self.url + "/openapi.json", trust_env=False).json()


@contextmanager
def served(folder: Path, *, token: str = "", old_api: bool = False) -> Iterator[Served]:
    """Run both; whoever asks needs the token, where there is one."""
    tokens = ["--token", token_line("schemathesis", "operate", token)] if token else []
    with (
        simulator("--health-delay", "0.05") as server,
        command(
            *("serve", "--port", "0", "--max-timeout", "60s", "--log-level", "error"),
            *("--upstream", server.address, "--server", server.fingerprint),
            *("--identity", identity_file(folder, "gateway")),
            "--old-api" if old_api else "--no-old-api",
            *tokens,
        ) as gateway,
    ):
        url = gateway.line(r"zap-gateway: (http://\S+) ")[1]
        yield Served(url, token)
        assert "Traceback" not in gateway.stderr


@dataclass
class Run:
    """What a run of Schemathesis tells."""

    status: int
    output: str
    events: list[dict[str, Any]] = field(default_factory=list)

    def all(self, kind: str) -> Iterator[Any]:
        """The events of a kind."""
        return (event[kind] for event in self.events if kind in event)

    @property
    def answers(self) -> Iterator[tuple[str, str, int]]:
        """Phase, operation and status of every answer."""
        for scenario in self.all("ScenarioFinished"):
            recorder = scenario["recorder"]
            for number, exchange in recorder.get("interactions", {}).items():
                if exchange.get("response"):
                    case = recorder["cases"][number]["value"]
                    operation = f"{case['method']} {case['path']}"
                    yield scenario["phase"], operation, exchange["response"]["status_code"]

    @property
    def checks(self) -> set[str]:
        """The checks that ran."""
        return {
            check["name"]
            for scenario in self.all("ScenarioFinished")
            for checks in scenario["recorder"].get("checks", {}).values()
            for check in checks
        }


def schemathesis(
    folder: Path,
    location: object,
    at: Served,
    *arguments: object,
    config: str = "schemathesis.toml",
) -> Run:
    """Run Schemathesis as one of the files says."""
    report = folder / "report.ndjson"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--no-color"),
            *("--config-file", HERE / config),
            *("run", str(location), "--url", at.url),
            *("--report", "ndjson", "--report-ndjson-path", report),
            *map(str, arguments),
        ],
        cwd=folder,  # it leaves files behind
        capture_output=True,
        text=True,
        env=clean_environment(
            PYTHONPATH=str(ROOT),
            SCHEMATHESIS_HOOKS=str(HERE / "hooks.py"),
            ZAP_SCHEMA_TESTS_URL=at.url,
            ZAP_SCHEMA_TESTS_TOKEN=at.token,
        ),
    )
    lines = report.read_text().splitlines() if report.exists() else []
    return Run(done.returncode, done.stdout + done.stderr, [json.loads(line) for line in lines])


@pytest.mark.parametrize("with_tokens", [False, True], ids=["without tokens", "with tokens"])
def test_every_check_in_every_phase_finds_nothing(tmp_path: Path, with_tokens: bool):
    with served(tmp_path, token=new_token() if with_tokens else "") as gateway:
        run = schemathesis(tmp_path, gateway.url + "/openapi.json", gateway)
    assert run.status == 0, run.output
    (finished,) = run.all("EngineFinished")
    assert finished["stop_reason"] == "completed"
    # Nothing was left out, and the requests were not in vain.
    every = {f"{verb} {path}" for verb, path in operations()}
    assert run.checks == CHECKS
    assert {phase for phase, _, _ in run.answers} == set(PHASES)
    assert every <= {operation for phase, operation, _ in run.answers if phase == "coverage"}
    assert every <= {operation for phase, operation, _ in run.answers if phase == "fuzzing"}
    assert every <= {operation for _, operation, status in run.answers if status == 200}
    refused = {operation for _, operation, status in run.answers if status == 401}
    assert every & refused == (every - OPEN if with_tokens else set())


def test_the_old_api_too(tmp_path: Path):
    with served(tmp_path, token=new_token(), old_api=True) as gateway:
        run = schemathesis(
            *(tmp_path, gateway.url + "/openapi.json", gateway, "--include-tag", COMPATIBILITY),
            config="schemathesis_old_api.toml",
        )
    assert run.status == 0, run.output
    (finished,) = run.all("EngineFinished")
    assert finished["stop_reason"] == "completed"
    every = {f"{verb} {path}" for verb, path in old_operations()}
    assert run.checks == CHECKS - NOT_THE_OLD_APIS
    assert every == {operation for phase, operation, _ in run.answers if phase == "fuzzing"}
    assert every == {operation for _, operation, status in run.answers if status == 200}
    assert every == {operation for _, operation, status in run.answers if status == 401}


def edited(document: Any, path: str, verb: str, **changes: Any) -> Any:
    """A copy of the document in which an operation says something else."""
    document = copy.deepcopy(document)
    document["paths"][path][verb] |= changes
    return document


def test_an_answer_that_is_not_as_documented_is_found(tmp_path: Path):
    """That the runs above could find something."""
    with served(tmp_path, token=new_token()) as gateway:
        answer = {"application/json": {"schema": {"type": "object", "required": ["nonsense"]}}}
        says = {"200": {"description": "Something else.", "content": answer}}
        document = tmp_path / "document.json"
        document.write_text(
            json.dumps(edited(gateway.document, "/v1/ping", "get", responses=says, security=[]))
        )
        run = schemathesis(tmp_path, document, gateway, "--include-path", "/v1/ping")
    assert run.status == 1
    assert "Response violates schema: 1" in run.output, run.output
    assert "Undocumented status code: 1" in run.output, run.output
