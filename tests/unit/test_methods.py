"""METHODS against the protocol's own table (protocol.md section 4)."""

import keyword
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zapcore import METHODS, messages
from zapcore.codec import Message
from zapcore.errors import DecodeError, ZapError
from zapcore.methods import (
    BoundMethod,
    BoundStream,
    Rpcs,
    UnknownMethod,
    parse_request,
    unknown_method_text,
)

# name, opcode, sub-opcode, and: r reads only, c changes; v verified, p provisional; s streams
TABLE = [
    ("Ping", 60, None, "rv"),
    ("RPCVersion", 61, None, "rv"),
    ("Start", 62, 0, "cp"),
    ("Health", 62, 1, "rv"),
    ("WaitForHealthy", 62, 2, "rv"),
    ("URIs", 62, 3, "rv"),
    ("Status", 62, 4, "rv"),
    ("StreamStatus", 62, 5, "rps"),
    ("CreateBlockchains", 62, 10, "cp"),
    ("CreateChains", 62, 11, "cp"),
    ("TransformElasticChains", 62, 12, "cp"),
    ("AddPermissionlessValidator", 62, 13, "cp"),
    ("RemoveChainValidator", 62, 14, "cp"),
    ("AddNode", 62, 20, "cv"),
    ("RemoveNode", 62, 21, "cv"),
    ("RestartNode", 62, 22, "cv"),
    ("PauseNode", 62, 23, "cv"),
    ("ResumeNode", 62, 24, "cv"),
    ("AttachPeer", 62, 30, "cv"),
    ("SendOutboundMessage", 62, 31, "cv"),
    ("SaveSnapshot", 62, 40, "cp"),
    ("SaveHotSnapshot", 62, 41, "cp"),
    ("LoadSnapshot", 62, 42, "cp"),
    ("RemoveSnapshot", 62, 43, "cp"),
    ("GetSnapshotNames", 62, 44, "rp"),
    ("Stop", 63, None, "cv"),
]
SUB_OPCODES = {sub for _, opcode, sub, _ in TABLE if opcode == 62}

each_method = pytest.mark.parametrize("method", METHODS.values(), ids=str)


class TestTable:
    def test_holds_every_rpc_and_no_other(self):
        assert sorted(METHODS) == sorted(name for name, *_ in TABLE)

    @pytest.mark.parametrize(("name", "opcode", "sub_opcode", "flags"), TABLE)
    def test_a_row_is_what_the_protocol_says(self, name, opcode, sub_opcode, flags):
        method = METHODS[name]
        assert (method.name, method.opcode, method.sub_opcode) == (name, opcode, sub_opcode)
        assert method.read_only is ("r" in flags)
        assert method.provisional is ("p" in flags)
        assert method.streaming is ("s" in flags)

    @each_method
    def test_messages_are_named_as_their_rpc(self, method):
        assert method.request is getattr(messages, f"{method.name}Request")
        assert method.response is getattr(messages, f"{method.name}Response")

    @each_method
    def test_attributes_are_python_names_in_snake_case(self, method):
        name = method.attribute
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name)
        assert not keyword.iskeyword(name)
        assert name.replace("_", "") == method.name.lower()
        assert getattr(Rpcs, name) is method

    @each_method
    def test_shows_its_name_and_has_a_summary(self, method):
        assert str(method) == method.name
        assert method.summary
        assert not method.summary.endswith(".")

    def test_attributes_are_unique(self):
        assert len({method.attribute for method in METHODS.values()}) == len(METHODS)


class TestRequests:
    @each_method
    def test_the_sub_opcode_goes_before_the_request(self, method):
        request = method.request()
        prefix = b"" if method.sub_opcode is None else bytes([method.sub_opcode])
        assert method.encode_request(request) == prefix + request.encode()

    @each_method
    def test_parsing_finds_the_rpc_and_its_request(self, method):
        body = method.encode_request(method.request())
        found, rest = parse_request(method.opcode, body)
        assert found is method
        assert method.request.decode(rest) == method.request()

    @given(opcode=st.integers(0, 255).filter(lambda opcode: opcode not in (60, 61, 62, 63)))
    def test_an_unknown_opcode_gets_the_reference_s_text(self, opcode):
        with pytest.raises(UnknownMethod, match=f"^zapwire: unknown opcode 0x{opcode:02x}$"):
            parse_request(opcode, b"\1")

    @pytest.mark.parametrize("sub_opcode", sorted(set(range(256)) - SUB_OPCODES))
    def test_an_unknown_sub_opcode_gets_the_reference_s_text(self, sub_opcode):
        text = f"^zapwire: unknown SubOp 0x{sub_opcode:02x} for OpStart$"
        with pytest.raises(UnknownMethod, match=text):
            parse_request(62, bytes([sub_opcode]))

    def test_a_missing_sub_opcode_gets_the_reference_s_text(self):
        with pytest.raises(UnknownMethod, match=r"^zapwire: missing sub-opcode byte$"):
            parse_request(62, b"")

    def test_a_flag_on_a_request_makes_another_opcode_of_it(self):
        """The reference does not mask it off either."""
        with pytest.raises(UnknownMethod, match=r"^zapwire: unknown opcode 0xbc$"):
            parse_request(0xBC, b"")

    def test_a_body_behind_an_opcode_without_one_is_left_to_the_message(self):
        method, rest = parse_request(60, b"newer")
        assert (method.name, rest) == ("Ping", b"newer")
        assert method.request.decode(rest) == messages.PingRequest()

    @pytest.mark.parametrize(
        ("opcode", "sub_opcode", "text"),
        [
            (62, 5, "zapwire: unknown SubOp 0x05 for OpStart"),
            (62, 255, "zapwire: unknown SubOp 0xff for OpStart"),
            (1, None, "zapwire: unknown opcode 0x01"),
            (188, None, "zapwire: unknown opcode 0xbc"),
        ],
    )
    def test_texts_are_the_reference_s(self, opcode, sub_opcode, text):
        assert unknown_method_text(opcode, sub_opcode) == text

    def test_an_unknown_method_is_a_decode_error(self):
        assert issubclass(UnknownMethod, DecodeError)
        assert issubclass(UnknownMethod, ZapError)


class RecordingCaller(Rpcs):
    """Carries no call anywhere; tells what it was asked to carry."""

    async def call(self, method, request=None, *, timeout=None):
        return method, request, timeout

    async def stream(self, method, request=None):
        yield method, request


class TestBinding:
    @each_method
    def test_a_caller_has_every_rpc_as_a_method(self, method):
        bound = getattr(RecordingCaller(), method.attribute)
        assert type(bound) is (BoundStream if method.streaming else BoundMethod)
        assert bound.method is method

    async def test_a_request_is_given_by_its_fields(self):
        method, request, timeout = await RecordingCaller().pause_node(name="node1", timeout=3)
        assert method is METHODS["PauseNode"]
        assert request == messages.PauseNodeRequest("node1")
        assert timeout == 3

    async def test_a_request_is_given_whole(self):
        given_request = messages.PauseNodeRequest("node1")
        _, request, timeout = await RecordingCaller().pause_node(given_request)
        assert request is given_request
        assert timeout is None

    async def test_a_request_without_fields_is_given_by_nothing(self):
        method, request, _ = await RecordingCaller().status()
        assert request is None
        assert method.encode_request(None) == method.encode_request(messages.StatusRequest())

    async def test_a_misspelt_field_is_refused(self):
        with pytest.raises(TypeError, match="nmae"):
            await RecordingCaller().pause_node(nmae="node1")

    async def test_a_stream_is_asked_for_in_both_ways(self):
        caller = RecordingCaller()
        wanted = messages.StreamStatusRequest(5)
        found = [row async for row in caller.stream_status(push_interval=5)]
        found += [row async for row in caller.stream_status(wanted)]
        assert found == [(METHODS["StreamStatus"], wanted)] * 2


def test_every_request_and_response_is_a_message():
    for method in METHODS.values():
        assert issubclass(method.request, Message)
        assert issubclass(method.response, Message)
