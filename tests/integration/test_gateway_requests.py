"""What requests may look like: names in paths, JSON in bodies, and exactly what the server gets."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import pytest_asyncio

from tests.integration.gateway_helpers import (
    Backend,
    Running,
    Watched,
    answers,
    is_problem,
    running_gateway,
)
from tests.integration.zap_helpers import serving
from zapcore import messages as m
from zapcore.methods import METHODS

# One gateway for the whole file: nothing here changes it.
pytestmark = pytest.mark.asyncio(loop_scope="module")


class Everything(Backend):
    """Answers every RPC with nothing in particular."""

    def __init__(self) -> None:
        super().__init__(
            **{
                row.attribute: answers(row.response())
                for row in METHODS.values()
                if not row.streaming
            }
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched() -> Watched:
    return Watched(Everything())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(watched: Watched) -> AsyncIterator[Running]:
    async with serving(watched) as server, running_gateway(server) as started:
        yield started


@pytest.fixture
def client(running: Running, watched: Watched) -> httpx.AsyncClient:
    watched.received.clear()
    return running.client


async def raw(client: httpx.AsyncClient, verb: str, target: str, **more: Any) -> httpx.Response:
    """Send a target as it is: an HTTP library would tidy it up."""
    return await client.request(verb, "/", extensions={"target": target.encode()}, **more)


# Names in paths.

GOOD_NAMES = [
    "node1",
    "nœud-节点-🚀",
    "with space",
    "100%",
    "a?b=c",
    "a#b",
    "a&b;c=d,e+f",
    "%2F",
    "%00",
    "..x",
    ".x",
    "x..",
    "...",
    "a.b",
    "~!$'()*:@",
    '"quoted" <b>',
    "cafe\u0301",
    "x" * 255,
    "🚀" * 255,
]


@pytest.mark.parametrize("name", GOOD_NAMES, ids=lambda name: name[:12])
async def test_a_name_reaches_the_server_exactly(
    client: httpx.AsyncClient, watched: Watched, name: str
):
    quoted = quote(name, safe="")
    assert (await raw(client, "POST", f"/v1/nodes/{quoted}/pause")).status_code == 200
    assert watched.last("pause_node") == m.PauseNodeRequest(name)
    path = f"/v1/nodes/{quoted}/peers/{quoted}/messages"
    response = await raw(client, "POST", path, json={"op": 1, "bytes": ""})
    assert response.status_code == 200
    assert watched.last("send_outbound_message") == m.SendOutboundMessageRequest(name, name, 1, b"")
    assert (await raw(client, "DELETE", f"/v1/snapshots/{quoted}")).status_code == 200
    assert watched.last("remove_snapshot") == m.RemoveSnapshotRequest(name)


BAD_NAMES = {
    "dot": ".",
    "dots": "..",
    "encoded dot": "%2E",
    "encoded dots": "%2e%2E",
    "NUL": "%00",
    "NUL inside": "a%00b",
    "line feed at the end": "a%0A",
    "line feed": "a%0Ab",
    "carriage return": "a%0D%0Ab",
    "escape": "%1B[31m",
    "tab": "a%09b",
    "DEL": "a%7Fb",
    "C1 control": "a%C2%85b",
    "backslash": "a%5Cb",
    "invalid UTF-8": "a%FFb",
    "overlong dot": "%C0%AE",
    "surrogate": "%ED%A0%80",
    "256 characters": "x" * 256,
}


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES.keys())
async def test_a_name_that_could_mean_something_else_is_refused(
    client: httpx.AsyncClient, watched: Watched, name: str
):
    pause = await raw(client, "POST", f"/v1/nodes/{name}/pause")
    problem = is_problem(pause, 422, "invalid_request", "PauseNode")
    assert problem["errors"][0]["field"] == "path.name"
    message = await raw(client, "POST", f"/v1/nodes/a/peers/{name}/messages", json={"op": 1})
    assert is_problem(message, 422, "invalid_request", "SendOutboundMessage")["errors"] == [
        {**problem["errors"][0], "field": "path.peerId"}
    ]
    for verb, path in (
        ("DELETE", "/v1/nodes/"),
        ("GET", "/v1/nodes/"),
        ("DELETE", "/v1/snapshots/"),
    ):
        is_problem_of_a_request(await raw(client, verb, path + name))
    assert watched.received == []


def is_problem_of_a_request(response: httpx.Response) -> None:
    assert response.status_code in (404, 422)
    assert response.json()["code"] in ("not_found", "invalid_request")


@pytest.mark.parametrize("name", ["a%2Fb", "%2F", "a%2F..%2Fb", "..%2F..%2Fcluster", "a//b", ""])
async def test_a_slash_in_a_name_leads_nowhere(
    client: httpx.AsyncClient, watched: Watched, name: str
):
    for verb, path in (
        ("DELETE", "/v1/nodes/{}"),
        ("POST", "/v1/nodes/{}/pause"),
        ("POST", "/v1/nodes/{}/peers"),
        ("POST", "/v1/snapshots/{}/load"),
        ("DELETE", "/v1/snapshots/{}"),
    ):
        response = await raw(client, verb, path.format(name))
        assert response.status_code in (404, 405), path
        assert "rpc" not in response.json()
    assert watched.received == []


async def test_a_refusal_of_a_name_keeps_markup_and_controls_out_of_its_text(
    client: httpx.AsyncClient,
):
    response = await raw(client, "POST", "/v1/nodes/%1B[31m%00/pause")
    assert response.headers["content-type"] == "application/problem+json"
    assert not set(response.json()["detail"]) & {"\x1b", "\x00"}


# JSON names, and fields that are not there.

RESTART = {
    "execPath": "/bin/x",
    "whitelistedChains": "c",
    "chainConfigs": {"C": "{}"},
    "upgradeConfigs": {"U": "{}"},
    "chainConfigFiles": {"F": "{}"},
    "pluginDir": "/p",
}
RESTARTED = m.RestartNodeRequest("n", "/bin/x", "c", {"C": "{}"}, {"U": "{}"}, {"F": "{}"}, "/p")


def snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


@pytest.mark.parametrize(
    "body",
    [
        RESTART,
        {snake(name): value for name, value in RESTART.items()},
        {
            (snake(name) if at % 2 else name): value
            for at, (name, value) in enumerate(RESTART.items())
        },
    ],
    ids=["camelCase", "snake_case", "both"],
)
async def test_camel_case_and_snake_case_mean_the_same(
    client: httpx.AsyncClient, watched: Watched, body: dict[str, object]
):
    response = await client.post("/v1/nodes/n/restart", json=body)
    assert response.status_code == 200
    assert watched.last("restart_node") == RESTARTED


@pytest.mark.parametrize("body", [{}, {"execPath": None, "whitelistedChains": None}])
async def test_an_optional_field_that_is_absent_is_one_that_is_null(
    client: httpx.AsyncClient, watched: Watched, body: dict[str, object]
):
    assert (await client.post("/v1/nodes/n/restart", json=body)).status_code == 200
    assert watched.last("restart_node") == m.RestartNodeRequest("n")


async def test_an_empty_text_is_not_an_absent_one(client: httpx.AsyncClient, watched: Watched):
    body = {"execPath": "", "whitelistedChains": ""}
    assert (await client.post("/v1/nodes/n/restart", json=body)).status_code == 200
    assert watched.last("restart_node") == m.RestartNodeRequest("n", "", "")


async def test_a_body_may_be_left_out_where_nothing_in_it_is_needed(
    client: httpx.AsyncClient, watched: Watched
):
    assert (await client.post("/v1/cluster")).status_code == 200
    assert watched.last("start") == m.StartRequest()
    assert (await client.post("/v1/snapshots/s/load")).status_code == 200
    assert watched.last("load_snapshot") == m.LoadSnapshotRequest("s")


async def test_nested_messages_arrive_whole(client: httpx.AsyncClient, watched: Watched):
    spec = {
        "vmName": "evm",
        "genesis": "{}",
        "chainSpec": {"participants": ["a", "b"], "chain_config_file": "f"},
        "blockchain_alias": "mine",
    }
    body = {"numNodes": 3, "blockchainSpecs": [spec], "dynamicPorts": False}
    assert (await client.post("/v1/cluster", json=body)).status_code == 200
    blockchain = m.BlockchainSpec(
        "evm", "{}", chain_spec=m.ChainSpec(["a", "b"], "f"), blockchain_alias="mine"
    )
    assert watched.last("start") == m.StartRequest(
        num_nodes=3, blockchain_specs=[blockchain], dynamic_ports=False
    )


REFUSED = {
    "unknown field": ("/v1/nodes", {"name": "n", "colour": "red"}, "body.colour"),
    "unknown nested field": (
        "/v1/cluster",
        {"blockchainSpecs": [{"vmName": "x", "chainSpec": {"size": 1}}]},
        "body.blockchainSpecs.0.chainSpec.size",
    ),
    "what the path says already": ("/v1/nodes/n/restart", {"name": "m"}, "body.name"),
    "required field absent": ("/v1/nodes", {}, "body.name"),
    "required text empty": ("/v1/nodes", {"name": ""}, "body.name"),
    "required list empty": ("/v1/blockchains", {"blockchainSpecs": []}, "body.blockchainSpecs"),
    "required null": ("/v1/nodes", {"name": None}, "body.name"),
    "number for text": ("/v1/nodes", {"name": 1}, "body.name"),
    "text for bool": ("/v1/cluster", {"dynamicPorts": "yes"}, "body.dynamicPorts"),
    "number for bool": ("/v1/cluster", {"dynamicPorts": 1}, "body.dynamicPorts"),
    "number in a map": ("/v1/cluster", {"chainConfigs": {"C": 1}}, "body.chainConfigs.C"),
    "list for a map": ("/v1/cluster", {"chainConfigs": []}, "body.chainConfigs"),
    "text for a list": ("/v1/chains", {"chainSpecs": "x"}, "body.chainSpecs"),
    "null in a list": ("/v1/chains", {"chainSpecs": [None]}, "body.chainSpecs.0"),
    "null for a map": ("/v1/cluster", {"chainConfigs": None}, "body.chainConfigs"),
    "list for an object": ("/v1/nodes", [], "body"),
    "text for an object": ("/v1/nodes", "name", "body"),
    "null for an object": ("/v1/nodes", None, "body"),
}


@pytest.mark.parametrize(("path", "body", "field"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_does_not_fit_is_refused_and_named(
    client: httpx.AsyncClient, watched: Watched, path: str, body: object, field: str
):
    response = await client.post(path, content=json.dumps(body), headers=JSON)
    problem = is_problem(response, 422, "invalid_request", response.json().get("rpc"))
    assert [item["field"] for item in problem["errors"]] == [field]
    assert problem["detail"].startswith(f"{field}: ")
    assert problem["rpc"]
    assert watched.received == []


async def test_every_wrong_part_is_named_up_to_a_hundred(client: httpx.AsyncClient):
    many = {f"x{number}": 1 for number in range(1000)}
    response = await client.post("/v1/nodes", json=many)
    problem = is_problem(response, 422, "invalid_request", "AddNode")
    assert len(problem["errors"]) == 100
    assert len(problem["detail"]) < 1000


async def test_a_refusal_does_not_repeat_a_huge_name(client: httpx.AsyncClient):
    """An answer stays small, whatever was sent."""
    response = await client.post("/v1/nodes", json={"name": "n", "x" * 1_000_000: 1})
    is_problem(response, 422, "invalid_request", "AddNode")
    assert len(response.content) < 20_000


@pytest.mark.parametrize(
    "text",
    ['{"\\ud800": 1}', '{"name": "\\ud800"}', '{"name": "n", "chainConfigs": {"\\ud800": "x"}}'],
    ids=["field", "value", "key"],
)
async def test_half_a_surrogate_pair_is_refused_like_any_other_nonsense(
    client: httpx.AsyncClient, text: str
):
    response = await client.post("/v1/nodes", content=text, headers=JSON)
    is_problem(response, 422, "invalid_request", "AddNode")


JSON = {"content-type": "application/json"}

NOT_JSON = {
    "half an object": b'{"name":',
    "nothing but a word": b"name",
    "single quotes": b"{'name': 'n'}",
    "two values": b'{"name":"n"}{}',
    "not UTF-8": b'{"name":"\xff"}',
    "nesting without end": b"[" * 100_000,
    "a number of 10,000 digits": b'{"name":' + b"1" * 10_000 + b"}",
    "NUL": b"\0",
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON.keys())
async def test_what_is_not_json_is_told_so(
    client: httpx.AsyncClient, watched: Watched, body: bytes
):
    response = await client.post("/v1/nodes", content=body, headers=JSON)
    is_problem(response, 400, "invalid_request", "AddNode")
    assert watched.received == []


@pytest.mark.parametrize(
    "content_type",
    ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x", None],
)
async def test_json_that_is_called_something_else_is_told_how_to_call_it(
    client: httpx.AsyncClient, content_type: str | None
):
    """What curl -d sends by default; a page elsewhere can send it without being asked."""
    headers = {"content-type": content_type} if content_type else {}
    response = await client.post("/v1/nodes", content=b'{"name":"n"}', headers=headers)
    problem = is_problem(response, 400, "invalid_request", "AddNode")
    assert "Content-Type: application/json" in problem["detail"]


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/x+json"])
async def test_json_by_any_of_its_names_is_taken(client: httpx.AsyncClient, content_type: str):
    response = await client.post(
        "/v1/nodes", content=b'{"name":"n"}', headers={"content-type": content_type}
    )
    assert response.status_code == 200


# Bytes.

BYTES = bytes(range(256)) + b"\xfb\xff\xfe"
STANDARD = base64.b64encode(BYTES).decode()
URL_SAFE = base64.urlsafe_b64encode(BYTES).decode()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (STANDARD, BYTES),
        (URL_SAFE, BYTES),
        (base64.b64encode(b"\xfb\xff").decode(), b"\xfb\xff"),
        ("-_8=", b"\xfb\xff"),
        ("-_8", b"\xfb\xff"),
        ("+/8", b"\xfb\xff"),
        ("", b""),
        ("AA", b"\0"),
    ],
)
async def test_base64_is_read_in_both_alphabets_padded_or_not(
    client: httpx.AsyncClient, watched: Watched, text: str, value: bytes
):
    body = {"op": 1, "bytes": text}
    assert (await client.post("/v1/nodes/n/peers/p/messages", json=body)).status_code == 200
    assert watched.last("send_outbound_message").bytes == value


@pytest.mark.parametrize("value", ["A", "A===", "a b", "ÄÖ", "AA\n", "%%", 5, None, [1], {"a": 1}])
async def test_what_is_not_base64_is_refused(client: httpx.AsyncClient, value: object):
    body = {"op": 1, "bytes": value}
    response = await client.post("/v1/nodes/n/peers/p/messages", json=body)
    problem = is_problem(response, 422, "invalid_request", "SendOutboundMessage")
    assert [item["field"] for item in problem["errors"]] == ["body.bytes"]


async def test_bytes_go_out_in_the_standard_alphabet_with_padding(
    running: Running, watched: Watched, monkeypatch: pytest.MonkeyPatch
):
    cluster = m.ClusterInfo(node_names=["n"], node_infos={"n": m.NodeInfo("n", config=b"\xfb\xff")})
    monkeypatch.setattr(watched.inner, "health", answers(m.HealthResponse(cluster)))
    server = running.gateway.pool.address
    async with serving(watched) as other, running_gateway(other) as another:
        assert other.address != server
        response = await another.client.get("/v1/health")
    assert response.json()["clusterInfo"]["nodeInfos"]["n"]["config"] == "+/8="


# Numbers.


def elastic(value: str, name: str = "maxSupply") -> str:
    return f'{{"elasticChainSpec": [{{"chainId": "c", "{name}": {value}}}]}}'


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("18446744073709551615", 2**64 - 1),
        ('"18446744073709551615"', 2**64 - 1),
        ("9007199254740993", 2**53 + 1),
        ('"9007199254740993"', 2**53 + 1),
        ('"007"', 7),
        ("1.0", 1),
        ("1e3", 1000),
        ("-0", 0),
        ('"-0"', 0),
    ],
)
async def test_a_64_bit_integer_is_read_exactly(
    client: httpx.AsyncClient, watched: Watched, text: str, value: int
):
    response = await client.post("/v1/chains/elastic", content=elastic(text), headers=JSON)
    assert response.status_code == 200, response.text
    (spec,) = watched.last("transform_elastic_chains").elastic_chain_spec
    assert spec.max_supply == value


@pytest.mark.parametrize(
    "text",
    [
        "18446744073709551616",
        '"18446744073709551616"',
        "-1",
        '"-1"',
        "1.5",
        '"1.0"',
        '"1e3"',
        "1e400",
        "NaN",
        "-Infinity",
        "true",
        "null",
        '""',
        '" 1"',
        '"0x10"',
        '"١"',
        '"1_000"',
        "[1]",
        '"' + "9" * 5000 + '"',
    ],
    ids=lambda text: text[:24],
)
async def test_what_is_no_64_bit_integer_is_refused(
    client: httpx.AsyncClient, watched: Watched, text: str
):
    response = await client.post("/v1/chains/elastic", content=elastic(text), headers=JSON)
    problem = is_problem(response, 422, "invalid_request", "TransformElasticChains")
    assert [item["field"] for item in problem["errors"]] == ["body.elasticChainSpec.0.maxSupply"]
    assert watched.received == []


@pytest.mark.parametrize(("text", "status"), [("4294967295", 200), ("4294967296", 422)])
async def test_a_32_bit_integer_has_its_own_limit(
    client: httpx.AsyncClient, text: str, status: int
):
    body = elastic(text, "uptimeRequirement")
    response = await client.post("/v1/chains/elastic", content=body, headers=JSON)
    assert response.status_code == status


async def test_integers_go_out_as_numbers(running: Running, watched: Watched):
    answer = m.StatusResponse(m.ClusterInfo(pid=-(2**31), network_id=2**32 - 1))
    async with (
        serving(Backend(status=answers(answer))) as server,
        running_gateway(server) as another,
    ):
        cluster = (await another.client.get("/v1/status")).json()["clusterInfo"]
    assert (cluster["pid"], cluster["networkId"]) == (-(2**31), 2**32 - 1)


async def test_a_cluster_that_is_absent_is_null(client: httpx.AsyncClient):
    assert (await client.get("/v1/status")).json() == {"clusterInfo": None}
    assert (await client.get("/v1/nodes")).json() == {"nodes": []}
    is_problem(await client.get("/v1/nodes/n"), 404, "not_found", "Status")


@pytest.mark.parametrize("timeout", ["1s", "500ms", "2m", "1h", "30", "1.5", "0.001", "1ms"])
async def test_times_are_read_in_every_form(client: httpx.AsyncClient, timeout: str):
    response = await client.get("/v1/health/wait", params={"timeout": timeout})
    assert response.status_code in (200, 504)


@pytest.mark.parametrize(
    "timeout",
    ["0", "0s", "-1s", "61m", "3601", "1d", "s", "", "1 s", "1e3", "nan", "inf", "١s", "1s\n"],
)
async def test_what_is_no_time_is_refused(
    client: httpx.AsyncClient, watched: Watched, timeout: str
):
    response = await client.get("/v1/health/wait", params={"timeout": timeout})
    problem = is_problem(response, 422, "invalid_request", "WaitForHealthy")
    assert [item["field"] for item in problem["errors"]] == ["query.timeout"]
    assert watched.received == []
