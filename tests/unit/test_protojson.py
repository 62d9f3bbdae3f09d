"""Requests as protojson reads them, and answers as it writes them."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway import protojson
from gateway.names import NEW_NAMES
from gateway.protojson import Malformed
from gateway.schema import to_document
from tests.unit.strategies import instances
from zapcore import messages as m
from zapcore.codec import Message
from zapcore.methods import METHODS


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


@pytest.mark.parametrize("empty", [b"", b" ", b"\r\n\t ", b"{}", b" {} "])
def test_an_empty_body_is_a_request_with_nothing_in_it(empty: bytes):
    assert protojson.read(m.StartRequest, empty) == m.StartRequest()


@pytest.mark.parametrize("name", METHODS)
def test_null_and_fields_that_nobody_knows_are_nothing(name: str):
    request = METHODS[name].request
    nulls = dict.fromkeys((field.name for field in dataclasses.fields(request)), None)
    assert protojson.read(request, body(**nulls, logLevel="INFO", x={"y": [1]})) == request()


ANY_NAMES = [
    method.request for method in METHODS.values() if method.request.__name__ not in NEW_NAMES
]


@given(request=st.sampled_from(ANY_NAMES).flatmap(instances))
def test_what_the_new_api_writes_the_old_one_reads(request: Message):
    document = to_document(request, wide_as_text=True)
    assert protojson.read(type(request), json.dumps(document).encode()) == request


def test_names_in_snake_case():
    given = body(exec_path="/x", num_nodes=2, blockchain_specs=[{"vm_name": "evm"}])
    specs = [m.BlockchainSpec(vm_name="evm")]
    request = m.StartRequest(exec_path="/x", num_nodes=2, blockchain_specs=specs)
    assert protojson.read(m.StartRequest, given) == request


@pytest.mark.parametrize(
    ("request_type", "given", "request_"),
    [
        (
            m.StartRequest,
            {"whitelistedSubnets": "a", "subnetConfigs": {"s": "{}"}},
            m.StartRequest(whitelisted_chains="a", chain_config_files={"s": "{}"}),
        ),
        (
            m.RestartNodeRequest,
            {"name": "n", "whitelisted_subnets": "a"},
            m.RestartNodeRequest(name="n", whitelisted_chains="a"),
        ),
        (
            m.CreateBlockchainsRequest,
            {"blockchainSpecs": [{"subnetId": "s"}, {"subnet_spec": {"subnetConfig": "c"}}]},
            m.CreateBlockchainsRequest(
                blockchain_specs=[
                    m.BlockchainSpec(chain_id="s"),
                    m.BlockchainSpec(chain_spec=m.ChainSpec(chain_config_file="c")),
                ]
            ),
        ),
        (
            m.CreateChainsRequest,
            {"subnetSpecs": [{"participants": ["a"], "subnet_config": "c"}]},
            m.CreateChainsRequest(
                chain_specs=[m.ChainSpec(participants=["a"], chain_config_file="c")]
            ),
        ),
        (
            m.TransformElasticChainsRequest,
            {"elasticSubnetSpec": [{"subnetId": "s", "maxSupply": "18446744073709551615"}]},
            m.TransformElasticChainsRequest(
                elastic_chain_spec=[m.ElasticChainSpec(chain_id="s", max_supply=2**64 - 1)]
            ),
        ),
        (
            m.RemoveChainValidatorRequest,
            {"validatorSpec": [{"subnet_id": "s", "nodeNames": ["a"]}]},
            m.RemoveChainValidatorRequest(
                validator_spec=[m.RemoveChainValidatorSpec(chain_id="s", node_names=["a"])]
            ),
        ),
    ],
)
def test_older_names(request_type: type[Message], given: dict[str, Any], request_: Message):
    assert protojson.read(request_type, json.dumps(given).encode()) == request_


def test_every_older_name_is_one_of_a_field():
    models = {protojson.lenient_model_of(method.request) for method in METHODS.values()}
    schemas = json.dumps([model.model_json_schema(mode="validation") for model in models])
    fields = {json.loads(f'"{name}"') for name in protojson.OLDER_NAMES}
    for name in fields:
        assert f'"{protojson.spellings(name)[0]}"' in schemas, name


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"numNodes": 1, "num_nodes": 1}, "numNodes and num_nodes are one field"),
        ({"whitelistedChains": "", "whitelistedSubnets": ""}, "whitelistedSubnets are one field"),
        ({"numNodes": -1}, "greater than or equal to 0"),
        ({"numNodes": 2**32}, "less than or equal to 4294967295"),
        ({"numNodes": True}, "whole number"),
        ({"numNodes": 1.5}, "whole number"),
        ({"execPath": 5}, "valid string"),
        ({"dynamicPorts": "true"}, "valid boolean"),
        ({"chainConfigs": {"C": None}}, "valid string"),
        ({"chainConfigs": [1]}, "valid dictionary"),
        ({"blockchainSpecs": {}}, "valid list"),
        ({"blockchainSpecs": [None]}, "valid dictionary"),
    ],
)
def test_what_protojson_refuses_is_refused(given: dict[str, Any], said: str):
    with pytest.raises(ValidationError) as refused:
        protojson.read(m.StartRequest, json.dumps(given).encode())
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "given",
    [
        {"elasticChainSpec": [1] * 5000},
        {"elasticChainSpec": [{}] * 5000},
        {"elasticChainSpec": [{"maxSupply": "x"}] * 900},
    ],
)
def test_a_large_body_does_not_make_as_many_errors(given: dict[str, Any]):
    with pytest.raises(ValidationError) as refused:
        protojson.read(m.TransformElasticChainsRequest, json.dumps(given).encode())
    assert refused.value.error_count() == 1


def test_a_map_has_so_many_entries_and_no_more():
    given = {"chainConfigs": {str(number): 1 for number in range(10_001)}}
    with pytest.raises(ValidationError, match="at most 10000 are taken") as refused:
        protojson.read(m.StartRequest, json.dumps(given).encode())
    assert refused.value.error_count() == 1


def test_names_are_not_spelt_anew_for_every_object(monkeypatch: pytest.MonkeyPatch):
    specs = [{"chainId": "c", "maxSupply": 1}] * 900
    given = json.dumps({"elasticChainSpec": specs}).encode()
    protojson.read(m.TransformElasticChainsRequest, given)

    def spell(name: str) -> str:
        raise AssertionError(name)

    monkeypatch.setattr(protojson, "to_camel", spell)
    read = protojson.read(m.TransformElasticChainsRequest, given)
    assert len(read.elastic_chain_spec) == 900


@pytest.mark.parametrize("name", ["", "a/b", "..", "../../x", "x\n", "x" * 256])
def test_what_is_made_gets_a_name_that_a_path_can_hold(name: str):
    for request, document in (
        (m.AddNodeRequest, {"name": name}),
        (m.SaveSnapshotRequest, {"snapshot_name": name}),
        (m.SaveHotSnapshotRequest, {"snapshotName": name}),
        (m.StartRequest, {"customNodeConfigs": {name: "{}"}}),
    ):
        with pytest.raises(ValidationError):
            protojson.read(request, json.dumps(document).encode())
    assert protojson.read(m.PauseNodeRequest, body(name=name)) == m.PauseNodeRequest(name=name)


@pytest.mark.parametrize("other", [b"[]", b"[{}]", b'"x"', b"5", b"null", b"true"])
def test_a_body_that_is_no_object_is_refused(other: bytes):
    with pytest.raises(ValidationError):
        protojson.read(m.StartRequest, other)


@pytest.mark.parametrize(
    ("malformed", "position"),
    [
        (b"{", 1),
        (b'{"name":', 8),
        (' {"é":'.encode(), 7),
        (b"{'name':1}", 1),
        (b'{"a":1,}', 6),
        (b"name=node1", 0),
        (b'{"a":"\xff"}', 6),
        # What is known of these is only that they are there.
        (b'{"name":"a","name":"b"}', None),
        (b'{"chainConfigs":{"C":"","C":""}}', None),
        (b'{"name":"\\ud800"}', None),
        (b'{"name":"\\uDFFF x"}', None),
        (b'{"numNodes":NaN}', None),
        (b"[" * 1_000_000, None),
        (b'{"numNodes":' + b"9" * 10_000 + b"}", None),
    ],
)
def test_what_is_no_json_says_where(malformed: bytes, position: int | None):
    with pytest.raises(Malformed) as refused:
        protojson.read(m.StartRequest, malformed)
    if position is None:
        assert refused.value.position is None
    else:
        assert refused.value.position in (position, position + 1)
    assert len(str(refused.value)) < 100
    assert "sys." not in str(refused.value)


@given(st.binary(max_size=100))
def test_no_body_fails_in_another_way(anything: bytes):
    try:
        request = protojson.read(m.CreateBlockchainsRequest, anything)
    except (Malformed, ValidationError):
        return
    assert isinstance(request, m.CreateBlockchainsRequest)


@pytest.mark.parametrize("rest", [b"{}", b"garbage", b"\xc3\xa9", b"}"])
def test_what_stands_behind_the_first_value_is_not_looked_at(rest: bytes):
    assert protojson.read(m.PauseNodeRequest, b'{"name":"a"} ' + rest) == m.PauseNodeRequest(
        name="a"
    )


def test_a_whole_surrogate_pair_is_a_character():
    given = b'{"name":"\\ud83d\\ude00"}'
    assert protojson.read(m.PauseNodeRequest, given) == m.PauseNodeRequest(name="😀")


def test_base64_of_either_alphabet():
    for text in ("+/8=", "-_8=", "-_8"):
        request = protojson.read(m.SendOutboundMessageRequest, body(bytes=text))
        assert request == m.SendOutboundMessageRequest(bytes=b"\xfb\xff")


def test_wide_integers_are_written_as_text_and_others_as_numbers():
    document = json.loads(protojson.write(m.StreamStatusRequest(push_interval=2**60), {}))
    assert document == {"pushInterval": str(2**60)}
    assert json.loads(protojson.write(m.PingResponse(pid=5), {})) == {"pid": 5}
    spec = m.TransformElasticChainsRequest(elastic_chain_spec=[m.ElasticChainSpec(max_supply=7)])
    written = json.loads(protojson.write(spec, {}))["elasticChainSpec"][0]
    assert (written["maxSupply"], written["uptimeRequirement"]) == ("7", 0)


def test_fields_are_told_once_more_under_older_names():
    answer = m.CreateChainsResponse(chain_ids=["a"])
    document = json.loads(protojson.write(answer, {"chainIds": "subnetIds"}))
    assert document == {"clusterInfo": None, "chainIds": ["a"], "subnetIds": ["a"]}
