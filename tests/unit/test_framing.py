"""ZAP messages out of a byte stream, however it is cut (protocol.md section 2)."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.strategies import chunkings
from zapcore.errors import FramingError, MessageTooLarge, ProtocolError
from zapcore.framing import (
    MAX_BODY_SIZE,
    MAX_MESSAGE_SIZE,
    Envelope,
    MessageReader,
    error_type,
    response_type,
)

envelopes = st.builds(
    Envelope, st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=40)
)


class TestEnvelope:
    def test_length_type_and_id_come_before_the_body(self):
        assert Envelope(62, 7, b"\x04").encode().hex() == "00000005" + "3e" + "00000007" + "04"

    @pytest.mark.parametrize(
        ("kind", "opcode", "is_error"),
        [(60, 60, False), (0xBC, 60, False), (0xFC, 60, True), (0x41, 1, True), (0x3F, 63, False)],
    )
    def test_flags_are_kept_apart_from_the_opcode(self, kind, opcode, is_error):
        envelope = Envelope(kind, 1, b"")
        assert envelope.opcode == opcode
        assert envelope.is_error is is_error

    @pytest.mark.parametrize(("opcode", "kind"), [(60, 0xBC), (61, 0xBD), (62, 0xBE), (63, 0xBF)])
    def test_a_response_has_bit_7(self, opcode, kind):
        assert response_type(opcode) == kind

    @pytest.mark.parametrize(
        ("request_type", "kind"), [(60, 0xFC), (62, 0xFE), (1, 0xC1), (0xBC, 0xFC)]
    )
    def test_an_error_has_bits_6_and_7_whatever_the_request_had(self, request_type, kind):
        assert error_type(request_type) == kind

    def test_the_largest_body_can_be_written(self):
        encoded = Envelope(62, 1, bytes(MAX_BODY_SIZE)).encode()
        assert encoded[:4] == MAX_MESSAGE_SIZE.to_bytes(4, "big")
        assert len(encoded) == 4 + 1 + MAX_MESSAGE_SIZE

    def test_a_larger_body_is_refused_before_it_is_sent(self):
        with pytest.raises(MessageTooLarge, match="16777213 bytes is beyond the 16777212"):
            Envelope(62, 1, bytes(MAX_BODY_SIZE + 1)).encode()


class TestMessageReader:
    @given(data=st.data(), messages=st.lists(envelopes, max_size=6))
    def test_any_cut_of_the_stream_gives_the_same_messages(self, data, messages):
        stream = b"".join(message.encode() for message in messages)
        reader = MessageReader()
        chunks = data.draw(chunkings(stream))
        assert [found for chunk in chunks for found in reader.receive(chunk)] == messages
        assert reader.pending == 0

    @given(messages=st.lists(envelopes, max_size=4))
    def test_single_bytes_give_the_same_messages(self, messages):
        stream = b"".join(message.encode() for message in messages)
        reader = MessageReader()
        found = [m for at in range(len(stream)) for m in reader.receive(stream[at : at + 1])]
        assert found == messages

    @given(data=st.data(), messages=st.lists(envelopes, min_size=1, max_size=4))
    def test_bytes_of_an_unfinished_message_stay_pending(self, data, messages):
        encoded = [message.encode() for message in messages]
        missing = data.draw(st.integers(1, len(encoded[-1])))
        stream = b"".join(encoded)
        reader = MessageReader()
        assert reader.receive(stream[:-missing]) == messages[:-1]
        assert reader.pending == len(encoded[-1]) - missing
        assert reader.receive(stream[-missing:]) == messages[-1:]
        assert reader.pending == 0

    @given(data=st.data(), noise=st.binary(max_size=60))
    def test_random_bytes_give_messages_or_a_framing_error(self, data, noise):
        reader = MessageReader()
        taken = 0
        try:
            for chunk in data.draw(chunkings(noise)):
                taken += sum(9 + len(message.body) for message in reader.receive(chunk))
        except FramingError:
            return
        assert taken + reader.pending == len(noise)

    def test_no_bytes_give_nothing(self):
        reader = MessageReader()
        assert reader.receive(b"") == []
        assert reader.pending == 0

    def test_a_body_is_bytes_of_its_own(self):
        """A view would keep the whole chunk alive, or change under its reader."""
        chunk = bytearray(Envelope(60, 1, b"abc").encode())
        (whole,) = MessageReader().receive(bytes(chunk))
        reader = MessageReader()
        reader.receive(bytes(chunk[:7]))
        (pieced,) = reader.receive(bytes(chunk[7:]))
        assert type(whole.body) is type(pieced.body) is bytes

    @pytest.mark.parametrize("length", [0, 1, 2, 3, MAX_MESSAGE_SIZE + 1, 2**31, 2**32 - 1])
    def test_a_length_outside_its_limits_is_refused_with_its_fourth_byte(self, length):
        reader = MessageReader()
        prefix = length.to_bytes(4, "big")
        for byte in prefix[:3]:
            assert reader.receive(bytes([byte])) == []
        with pytest.raises(FramingError, match=f"a ZAP message of {length} bytes; from 4 to 16777"):
            reader.receive(prefix[3:])

    @pytest.mark.parametrize("length", [4, 5, MAX_MESSAGE_SIZE])
    def test_lengths_at_the_limits_are_waited_for(self, length):
        reader = MessageReader()
        assert reader.receive(length.to_bytes(4, "big")) == []
        assert reader.pending == 4

    def test_an_announced_message_takes_no_memory_before_it_comes(self):
        tracemalloc.start()
        try:
            MessageReader().receive(MAX_MESSAGE_SIZE.to_bytes(4, "big") + bytes(10))
            assert tracemalloc.get_traced_memory()[1] < 64 * 1024
        finally:
            tracemalloc.stop()

    def test_the_largest_message_can_be_read_in_pieces(self):
        stream = Envelope(0xBE, 9, bytes(MAX_BODY_SIZE)).encode()
        reader = MessageReader()
        step = 1024 * 1024
        chunks = [stream[at : at + step] for at in range(0, len(stream), step)]
        found = [message for chunk in chunks for message in reader.receive(chunk)]
        assert [(m.type, m.request_id, len(m.body)) for m in found] == [(0xBE, 9, MAX_BODY_SIZE)]


@pytest.mark.parametrize("length", [0, 3, MAX_MESSAGE_SIZE + 1])
def test_what_is_whole_before_a_bad_length_is_given_first(length):
    reader = MessageReader()
    whole = Envelope(60, 1, b"whole")
    assert reader.receive(whole.encode() + length.to_bytes(4, "big")) == [whole]
    assert isinstance(reader.failure, ProtocolError)
    for _ in range(2):
        with pytest.raises(FramingError):
            reader.receive(whole.encode())
