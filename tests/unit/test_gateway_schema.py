"""The JSON side of the messages: models and bytes from the same dataclasses."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from gateway import schema
from tests.unit.strategies import instances
from zapcore import messages as m
from zapcore.codec import Message
from zapcore.errors import DecodeError
from zapcore.methods import METHODS

MESSAGES = sorted(
    {cls for row in METHODS.values() for cls in (row.request, row.response)},
    key=lambda cls: cls.__name__,
)


def parse(cls: type[Message], text: str) -> Message:
    return schema.to_message(schema.model_of(cls).model_validate_json(text))


def refusals(cls: type[Message], text: str) -> set[str]:
    """What keeps a JSON text from being that message; nothing where it is one."""
    try:
        parse(cls, text)
    except ValidationError as error:
        return {item["type"] for item in error.errors()}
    return set()


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
def test_what_is_written_is_read_back(cls: type[Message]):
    """Any message survives JSON, unless it lacks what a request needs."""

    @given(instances(cls))
    def check(message: Message) -> None:
        text = schema.to_json(message).decode()
        lacks = refusals(cls, text)
        assert lacks <= {"string_too_short", "too_short"}
        assert lacks or parse(cls, text) == message

    check()


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
def test_the_short_way_from_bytes_to_json_gives_the_same(cls: type[Message]):
    """One body after the other: what is remembered of one must not show in the next."""

    @given(st.lists(instances(cls), min_size=1, max_size=3), st.data())
    def check(messages: list[Message], data: st.DataObject) -> None:
        for message in [*messages, *messages]:
            body = message.encode()
            assert schema.json_of(cls, body) == schema.to_json(cls.decode(body))
            cut = body[: data.draw(st.integers(0, len(body)))]
            assert outcome(schema.json_of, cls, cut) == outcome(
                lambda cls, body: schema.to_json(cls.decode(body)), cls, cut
            )

    check()


def outcome(read: Callable[[type[Message], bytes], bytes], cls: type[Message], body: bytes) -> str:
    try:
        return read(cls, body).decode()
    except DecodeError as error:
        return repr(error)


def test_what_is_remembered_of_a_node_is_its_own():
    """Nodes come and go, change places and change: each answer is told as it is."""
    nodes = [m.NodeInfo(name=f"node{number}", log_dir="a" * number) for number in range(4)]
    for chosen in itertools.permutations(nodes, 3):
        for changed in (chosen, [replace(chosen[0], paused=True), *chosen[1:]]):
            cluster = m.ClusterInfo(node_infos={node.name: node for node in changed})
            status = m.StatusResponse(cluster)
            assert schema.json_of(m.StatusResponse, status.encode()) == schema.to_json(status)


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
def test_the_model_and_the_bytes_have_the_same_names(cls: type[Message]):
    model = schema.model_of(cls)
    names = [field.alias for field in model.model_fields.values()]
    assert list(schema.to_document(cls())) == names
    assert names == [to_camel(name) for name in model.model_fields]


def test_a_model_is_made_once():
    assert schema.model_of(m.NodeInfo) is schema.model_of(m.NodeInfo)
    assert schema.model_of(m.NodeInfo).__doc__ == m.NodeInfo.__doc__


def test_fields_that_come_from_elsewhere_are_left_out():
    model = schema.model_of(m.RestartNodeRequest, frozenset({"name"}))
    assert "name" not in model.model_fields
    made = schema.to_message(model.model_validate({"execPath": "/x"}), name="n")
    assert made == m.RestartNodeRequest("n", "/x")


def test_what_is_filled_in_is_fresh_each_time():
    model = schema.model_of(m.StartRequest)
    first, second = schema.to_message(model()), schema.to_message(model())
    assert first == second == m.StartRequest()
    first.chain_configs["a"] = "b"
    assert second.chain_configs == {}


def test_an_example_of_everything():
    node = m.NodeInfo("n", config=b"\xfb\xff", paused=True)
    cluster = m.ClusterInfo(["n"], {"n": node}, -1, "/d", True, {}, ["s"], 7)
    document = json.loads(schema.to_json(m.StartResponse(cluster, ["c"])))
    assert document["chainIds"] == ["c"]
    assert document["clusterInfo"]["nodeInfos"]["n"]["config"] == "+/8="
    assert document["clusterInfo"]["pid"] == -1
    assert json.loads(schema.to_json(m.StartResponse())) == {"clusterInfo": None, "chainIds": []}


def elastic(value: object) -> Any:
    model = schema.model_of(m.ElasticChainSpec)
    return model.model_validate({"chainId": "c", "maxSupply": value}).max_supply


@pytest.mark.parametrize(
    ("value", "read"),
    [(0, 0), (2**64 - 1, 2**64 - 1), (str(2**64 - 1), 2**64 - 1), (1.0, 1), ("-0", 0), ("01", 1)],
)
def test_whole_numbers(value: object, read: int):
    assert elastic(value) == read
    assert type(elastic(value)) is int


@pytest.mark.parametrize(
    "value",
    [
        *(2**64, str(2**64), -1, "-1", 1.5, float("nan"), float("inf"), True, False, None),
        *("", "1.0", "1e3", " 1", "1\n", "+1", "0x1", "1_0", "١", "9" * 21, [], {}, b"1"),
    ],
)
def test_what_is_no_whole_number(value: object):
    with pytest.raises(ValidationError):
        elastic(value)


def octets(value: object) -> Any:
    model = schema.model_of(m.SendOutboundMessageRequest)
    given = {"nodeName": "n", "peerId": "p", "op": 0, "bytes": value}
    return model.model_validate(given).bytes


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", b""),
        ("+/8=", b"\xfb\xff"),
        ("-_8=", b"\xfb\xff"),
        ("+_8", b"\xfb\xff"),
        ("AA==", b"\0"),
    ],
)
def test_base64(text: str, value: bytes):
    assert octets(text) == value


@pytest.mark.parametrize(
    "text", ["A", "AAAAA", "A A=", "A\n==", "ü", "=A==", "A=A=", None, 1, b"AA=="]
)
def test_what_is_not_base64(text: object):
    with pytest.raises(ValidationError):
        octets(text)
