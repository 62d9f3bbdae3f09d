"""Both APIs with state: what is made is used and removed, by requests that Schemathesis makes.

A model tells what must come of each request, whichever of the two APIs it goes to, and what the
cluster looks like then. Schemathesis' own stateful phase follows links from answers to requests,
and the document has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from pydantic.alias_generators import to_camel
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.routes.control_table import OLD_ROUTES
from gateway.routes.table import place_of
from tests.schema.test_schemathesis import Served, served
from tests.schema.world import Refused, World
from zapcore.methods import METHODS

CHECKS = [
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]
NEW, OLD = "new", "old"

pytestmark = pytest.mark.timeout(600)


class Driver:
    """Sends requests that Schemathesis makes, and holds the answers to a model.

    Args:
        at: the gateway, with both APIs.
    """

    def __init__(self, at: Served) -> None:
        self._at = at
        self._schema = schemathesis.openapi.from_url(at.url + "/openapi.json")
        self._session = requests.Session()
        self._session.trust_env = False
        self._old_paths = {route.method.name: route.path for route in reversed(OLD_ROUTES)}
        self.done: set[tuple[str, str, str]] = set()
        """What came of which request: API, RPC, code."""
        self.reset()

    def reset(self) -> None:
        """Begin anew, with nothing."""
        self.world = World()
        self._session.delete(self._url("/v1/cluster")).raise_for_status()
        begun = self._session.post(self._url("/v1/cluster"), json={"numNodes": 1})
        begun.raise_for_status()
        names = self._session.get(self._url("/v1/snapshots")).json()["snapshotNames"]
        for name in names:
            path = f"/v1/snapshots/{requests.utils.quote(name, safe='')}"
            self._session.delete(self._url(path)).raise_for_status()
        self._session.delete(self._url("/v1/cluster")).raise_for_status()

    def _url(self, path: str) -> str:
        return self._at.url + path

    def send(self, draw: st.DataObject, api: str, rpc: str, **fields: Any) -> Any:
        """One request, made up but for these fields; its answer, or None where it is refused."""
        step = getattr(self.world, METHODS[rpc].attribute)(**fields)
        expected = "ok"
        try:
            next(step)
        except Refused as refused:
            expected = str(refused)
        case = self._case(draw, api, rpc, fields)
        response = case.call(session=self._session)
        case.validate_response(response, checks=CHECKS)
        answer = response.json()
        if api == NEW:
            code = "ok" if response.status_code == 200 else answer["code"]
            assert code == expected, answer
        else:
            assert (response.status_code, answer.get("code")) in ((200, None), (500, 2)), answer
            assert (response.status_code == 200) == (expected == "ok"), answer
        self.done.add((api, rpc, expected))
        if expected != "ok":
            return None
        with pytest.raises(StopIteration):
            step.send(answer)
        return answer

    def _case(
        self, draw: st.DataObject, api: str, rpc: str, fields: dict[str, Any]
    ) -> schemathesis.Case:
        method = METHODS[rpc]
        verb, path, taken = "POST", self._old_paths[rpc], {}
        if api == NEW:
            place = place_of(method)
            verb, path, taken = place.verb, place.path, place.parameters
        case = draw.draw(self._schema[path][verb].as_strategy())
        case.query, case.headers = {}, {}  # times; those have tests of their own
        left = dict(fields)
        for name, field in taken.items():
            case.path_parameters[name] = left.pop(field)
        if left:
            made_up = case.body if isinstance(case.body, dict) else {}
            case.body = {**made_up, **{to_camel(name): value for name, value in left.items()}}
        return case


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    with served(tmp_path_factory.mktemp("stateful"), old_api=True) as gateway:
        yield Driver(gateway)


FEW = settings(
    max_examples=2,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def start(**more: Any) -> dict[str, Any]:
    """A start that can succeed, of as many nodes as it says."""
    return {"num_nodes": 2, "custom_node_configs": {}, "blockchain_specs": [], **more}


def a_node_lives(driver: Driver, draw: st.DataObject, api: str, other: str) -> None:
    """Added, paused, resumed, restarted, removed; the other API sees each, and then none of it."""
    driver.reset()
    driver.send(draw, api, "Start", **start())
    assert driver.send(draw, api, "AddNode", name="ключ 50%", node_config="{}")
    for rpc in ("PauseNode", "ResumeNode", "PauseNode", "RestartNode"):
        assert driver.send(draw, api, rpc, name="ключ 50%")
        assert driver.send(draw, other, "Status")
    answer = driver.send(draw, api, "AttachPeer", node_name="ключ 50%")
    at = {"node_name": "ключ 50%", "peer_id": answer["attachedPeerInfo"]["id"]}
    assert driver.send(draw, other, "SendOutboundMessage", **at)
    assert driver.send(draw, api, "RemoveNode", name="ключ 50%")
    for rpc in ("PauseNode", "ResumeNode", "RestartNode", "RemoveNode"):
        assert driver.send(draw, api, rpc, name="ключ 50%") is None
        assert driver.send(draw, other, rpc, name="ключ 50%") is None
    assert driver.send(draw, other, "SendOutboundMessage", **at) is None
    assert driver.send(draw, other, "AttachPeer", node_name="ключ 50%") is None


def a_snapshot_lives(driver: Driver, draw: st.DataObject, api: str, other: str) -> None:
    """Saved in both ways, loaded, removed; the other API sees each, and then none of it."""
    driver.reset()
    driver.send(draw, api, "Start", **start())
    assert driver.send(draw, api, "SaveHotSnapshot", snapshot_name="hot")
    assert driver.send(draw, other, "RemoveNode", name="node2")
    assert driver.send(draw, api, "SaveSnapshot", snapshot_name="last")
    assert driver.send(draw, other, "Status") is None
    assert driver.send(draw, api, "LoadSnapshot", snapshot_name="hot")
    assert driver.send(draw, other, "PauseNode", name="node2")
    assert driver.send(draw, other, "GetSnapshotNames")["snapshotNames"] == ["hot", "last"]
    assert driver.send(draw, api, "RemoveSnapshot", snapshot_name="hot") == {}
    assert driver.send(draw, other, "GetSnapshotNames")["snapshotNames"] == ["last"]
    assert driver.send(draw, other, "Stop")
    assert driver.send(draw, api, "LoadSnapshot", snapshot_name="hot") is None
    assert driver.send(draw, other, "LoadSnapshot", snapshot_name="last")
    for rpc in (api, other):
        assert driver.send(draw, rpc, "RemoveSnapshot", snapshot_name="hot") is None


def chains_live(driver: Driver, draw: st.DataObject, api: str, other: str) -> None:
    """Made, used for a blockchain, made elastic, joined and left; and gone with the cluster."""
    driver.reset()
    driver.send(draw, api, "Start", **start())
    made = driver.send(draw, api, "CreateChains", chain_specs=[{"participants": ["node1"]}])
    (chain,) = made["chainIds"]
    spec = {"vmName": "evm", "chainId": chain}
    assert driver.send(draw, other, "CreateBlockchains", blockchain_specs=[spec])
    joining = {"validator_spec": [{"chainId": chain, "nodeName": "node2"}]}
    assert driver.send(draw, api, "AddPermissionlessValidator", **joining) is None
    elastic = {"elastic_chain_spec": [{"chainId": chain}]}
    assert driver.send(draw, other, "TransformElasticChains", **elastic)
    assert driver.send(draw, api, "TransformElasticChains", **elastic) is None
    assert driver.send(draw, api, "AddPermissionlessValidator", **joining)
    leaving = {"validator_spec": [{"chainId": chain, "nodeNames": ["node1", "node2"]}]}
    assert driver.send(draw, other, "RemoveChainValidator", **leaving)
    assert driver.send(draw, api, "RemoveChainValidator", **leaving) is None
    for rpc in ("WaitForHealthy", "Health", "URIs"):
        assert driver.send(draw, other, rpc)
    assert driver.send(draw, other, "Stop")
    assert driver.send(draw, api, "TransformElasticChains", **elastic) is None


@FEW
@given(draw=st.data())
def test_what_is_made_is_used_and_removed(driver, draw):
    """Through either API, while the other one looks; every RPC is asked for, with success."""
    driver.done.clear()
    for live in (a_node_lives, a_snapshot_lives, chains_live):
        for api, other in ((NEW, OLD), (OLD, NEW)):
            live(driver, draw, api, other)
    unary = {name for name, method in METHODS.items() if not method.streaming}
    asked = {(api, rpc) for api, rpc, code in driver.done if code == "ok"}
    assert asked == {(api, rpc) for api in (NEW, OLD) for rpc in unary - {"Ping", "RPCVersion"}}


NAMES = ("node1", "node2", "ключ 50%", "..a")
SNAPSHOTS = ("before", "hot")
_apis, _names, _snapshots = map(st.sampled_from, ((NEW, OLD), NAMES, SNAPSHOTS))


class Machine(RuleBasedStateMachine):
    """Any requests in any order, each to either API."""

    driver: Driver

    def __init__(self) -> None:
        super().__init__()
        self.driver.reset()

    @property
    def _cluster(self) -> Any:
        return self.driver.world.cluster

    def _chain(self, draw: st.DataObject) -> str:
        return draw.draw(
            st.sampled_from([*sorted(self._cluster.members if self._cluster else ()), "none"])
        )

    @initialize(draw=st.data(), api=_apis)
    def begins(self, draw, api):
        self.driver.send(draw, api, "Start", **start())

    @rule(draw=st.data(), api=_apis)
    def starts(self, draw, api):
        self.driver.send(draw, api, "Start", **start(num_nodes=draw.draw(st.integers(1, 2))))

    @rule(
        draw=st.data(),
        api=_apis,
        rpc=st.sampled_from(("PauseNode", "ResumeNode", "RestartNode")),
        name=_names,
    )
    def changes_a_node(self, draw, api, rpc, name):
        self.driver.send(draw, api, rpc, name=name)

    @rule(draw=st.data(), api=_apis, name=_names)
    def adds_or_removes_a_node(self, draw, api, name):
        gone = self._cluster is None or name not in self._cluster.paused
        if draw.draw(st.integers(0, 3)) == 0:
            gone = not gone
        if gone:
            self.driver.send(draw, api, "AddNode", name=name, node_config="{}")
        else:
            self.driver.send(draw, api, "RemoveNode", name=name)

    @rule(draw=st.data(), api=_apis, name=_names)
    def uses_a_peer(self, draw, api, name):
        known = self._cluster.peers.get(name, []) if self._cluster else []
        if draw.draw(st.booleans()):
            self.driver.send(draw, api, "AttachPeer", node_name=name)
        else:
            peer = draw.draw(st.sampled_from([*known, "none"]))
            self.driver.send(draw, api, "SendOutboundMessage", node_name=name, peer_id=peer)

    @rule(draw=st.data(), api=_apis, name=_names)
    def makes_chains(self, draw, api, name):
        if draw.draw(st.booleans()):
            specs = [{"participants": draw.draw(st.sampled_from([[], [name]]))}]
            self.driver.send(draw, api, "CreateChains", chain_specs=specs)
        else:
            chain = draw.draw(st.sampled_from([None, self._chain(draw)]))
            spec = {"vmName": "evm", "chainId": chain}
            self.driver.send(draw, api, "CreateBlockchains", blockchain_specs=[spec])

    @rule(draw=st.data(), api=_apis, name=_names)
    def uses_chains(self, draw, api, name):
        chain, way = self._chain(draw), draw.draw(st.integers(0, 2))
        if way == 0:
            spec = {"chainId": chain}
            self.driver.send(draw, api, "TransformElasticChains", elastic_chain_spec=[spec])
        elif way == 1:
            spec = {"chainId": chain, "nodeName": name}
            self.driver.send(draw, api, "AddPermissionlessValidator", validator_spec=[spec])
        else:
            spec = {"chainId": chain, "nodeNames": [name]}
            self.driver.send(draw, api, "RemoveChainValidator", validator_spec=[spec])

    @rule(
        draw=st.data(),
        api=_apis,
        rpc=st.sampled_from(("SaveHotSnapshot", "SaveSnapshot", "LoadSnapshot", "RemoveSnapshot")),
        name=_snapshots,
    )
    def uses_snapshots(self, draw, api, rpc, name):
        self.driver.send(draw, api, rpc, snapshot_name=name)

    @rule(
        draw=st.data(),
        api=_apis,
        rpc=st.sampled_from(("Health", "URIs", "GetSnapshotNames", "Stop")),
    )
    def looks_or_stops(self, draw, api, rpc):
        self.driver.send(draw, api, rpc)

    @rule(draw=st.data(), api=_apis)
    def sees_what_there_is(self, draw, api):
        self.driver.send(draw, api, "Status")


def test_any_requests_in_any_order(driver, long):
    Machine.driver = driver
    run_state_machine_as_test(
        Machine,
        settings=settings(
            FEW,
            max_examples=300 if long else 15,
            stateful_step_count=60 if long else 30,
            phases=[Phase.generate],
        ),
    )


@FEW
@given(draw=st.data())
def test_that_a_lost_change_would_be_found(driver, draw):
    """That the tests above could find something."""
    driver.reset()
    driver.send(draw, NEW, "Start", **start())
    driver.world.running.paused["node1"] = True  # as if the server had lost a resumption
    with pytest.raises(AssertionError):
        driver.send(draw, OLD, "Status")
    with pytest.raises(AssertionError):
        driver.send(draw, NEW, "ResumeNode", name="node1")
    del driver.world.running.paused["node2"]  # as if it had not removed a node
    with pytest.raises(AssertionError):
        driver.send(draw, OLD, "RemoveNode", name="node2")
