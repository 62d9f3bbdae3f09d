"""What holds for every message class, whatever it carries and whatever is done to its bytes."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.strategies import MESSAGE_CLASSES, instances, mutations, noise
from tests.unit.vectors import load
from zapcore import METHODS, codec, errors, messages
from zapcore.codec import layouts
from zapcore.errors import DecodeError, Truncated
from zapcore.methods import parse_request

each_class = pytest.mark.parametrize("cls", MESSAGE_CLASSES, ids=lambda cls: cls.__name__)
each_class_with_fields = pytest.mark.parametrize(
    "cls", [cls for cls in MESSAGE_CLASSES if layouts(cls)], ids=lambda cls: cls.__name__
)


@each_class
@given(data=st.data())
def test_round_trips(cls, data):
    message = data.draw(instances(cls))
    assert cls.decode(message.encode()) == message


@given(data=st.data())
def test_what_was_decoded_before_does_not_show(data):
    """Bytes that are remembered by their place give fresh messages, and only where they recur."""
    states = data.draw(st.lists(instances(messages.StatusResponse), min_size=1, max_size=4))
    for state in [*states, *reversed(states), *states]:
        decoded = messages.StatusResponse.decode(state.encode())
        assert decoded == state
        if decoded.cluster_info:
            for node in decoded.cluster_info.node_infos.values():
                node.paused, node.uri = not node.paused, "changed by its owner"


def spoil(value):
    """Change whatever of a decoded message can be changed."""
    if isinstance(value, list):
        value.append("changed by its owner")
    elif isinstance(value, dict):
        for item in value.values():
            spoil(item)
        value["changed"] = "by its owner"
    elif isinstance(value, codec.Message):
        for name, _ in layouts(type(value)):
            spoil(getattr(value, name))
            setattr(value, name, "changed by its owner")


@each_class
@given(data=st.data())
def test_the_same_body_again_and_again_gives_messages_of_their_own(cls, data):
    message = data.draw(instances(cls))
    body = message.encode()
    for _ in range(5):
        decoded = cls.decode(body)
        assert decoded == message
        spoil(decoded)


@each_class
@given(data=st.data(), trailing=st.binary(min_size=1, max_size=20))
def test_bytes_after_the_last_field_are_ignored(cls, data, trailing):
    message = data.draw(instances(cls))
    assert cls.decode(message.encode() + trailing) == message


@each_class_with_fields
@given(data=st.data())
def test_a_body_that_is_cut_anywhere_is_refused(cls, data):
    """There is no valid shorter reading: every field is always written."""
    body = data.draw(instances(cls)).encode()
    size = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(DecodeError):
        cls.decode(body[:size])


def test_every_cut_of_every_recorded_body_is_refused():
    by_attribute = {method.attribute: method for method in METHODS.values()}
    cuts = 0
    for vector in load("messages")["messages"]:
        whole = bytes.fromhex(vector["body"])
        cls = getattr(by_attribute[vector["rpc"]], vector["kind"])
        for size in range(len(whole)):
            with pytest.raises(Truncated):
                cls.decode(whole[:size])
            cuts += 1
    assert cuts > 1000


def check_garbage(cls, body):
    """A message or a DecodeError; and a message that was read can be written, and read again."""
    try:
        message = cls.decode(body)
    except DecodeError:
        return
    assert cls.decode(message.encode()) == message


@each_class
@given(data=st.data())
def test_mutated_bytes_give_a_message_or_a_decode_error(cls, data):
    body = data.draw(instances(cls)).encode()
    check_garbage(cls, data.draw(mutations(body)))


@each_class
@given(body=st.binary(max_size=64))
def test_random_bytes_give_a_message_or_a_decode_error(cls, body):
    check_garbage(cls, body)


@each_class
def test_long_noise_gives_a_message_or_a_decode_error(cls):
    for seed in range(20):
        check_garbage(cls, noise(seed, 500))


@given(opcode=st.integers(0, 255), body=st.binary(max_size=40))
def test_a_request_of_random_bytes_is_parsed_or_a_decode_error(opcode, body):
    try:
        method, rest = parse_request(opcode, body)
        message = method.request.decode(rest)
    except DecodeError:
        return
    assert method.opcode == opcode
    assert isinstance(message, method.request)


@given(text=st.text())
def test_any_error_text_becomes_a_remote_error_with_that_text(text):
    error = errors.remote_error(text)
    assert isinstance(error, errors.RemoteError)
    assert str(error) == text


def counts_at():
    """(class, field, offset) of every length and count in a message of defaults."""
    for cls in MESSAGE_CLASSES:
        at = 0
        for name, layout in layouts(cls):
            if isinstance(layout, (codec.CountedLayout, codec.BytesLayout)):
                yield pytest.param(cls, at, id=f"{cls.__name__}.{name}")
            at += layout.minimum_size  # a default is written in as few bytes as there can be


def peak_of_refusal(cls, body):
    """Bytes allocated at the worst moment while a body is refused."""
    tracemalloc.start()
    try:
        with pytest.raises(Truncated):
            cls.decode(body)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


SMALL = 256 * 1024
"""Far above what an exception takes, and far below what a believed count would."""


@pytest.mark.parametrize(("cls", "at"), list(counts_at()))
def test_a_count_beyond_the_body_is_refused_before_anything_is_allocated(cls, at):
    body = bytearray(cls().encode())
    for count in (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\xff\xff\xff"):
        body[at : at + 4] = count
        assert peak_of_refusal(cls, bytes(body)) < SMALL


@pytest.mark.parametrize("name", ["URIs", "Status", "SaveSnapshot", "GetSnapshotNames"])
def test_ten_bytes_that_announce_four_billion_items_are_refused_at_once(name):
    presence = b"\1" if name == "Status" else b""
    body = (presence + b"\xff\xff\xff\xff" + bytes(6))[:10]
    assert peak_of_refusal(METHODS[name].response, body) < SMALL
