"""Records: sealed pieces of a plaintext stream (protocol.md section 7)."""

import tracemalloc

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.strategies import chunkings, noise
from zapcore import PublicIdentity
from zapcore.errors import FramingError, ProtocolError, RecordError
from zapcore.zwing import Session
from zapcore.zwing.records import (
    MAX_FRAME_SIZE,
    MAX_PLAINTEXT_SIZE,
    RecordReader,
    RecordWriter,
)

KEY = bytes(range(32))
OTHER_KEY = bytes(32)
SOMEBODY = PublicIdentity(bytes(3200))


def sealed(sequence: int, plaintext: bytes, key: bytes = KEY) -> bytes:
    """A record made by hand, as the protocol says it."""
    nonce = bytes(4) + sequence.to_bytes(8, "big")
    box = ChaCha20Poly1305(key).encrypt(nonce, plaintext, None)
    return len(box).to_bytes(4, "big") + box


def sessions() -> tuple[Session, Session]:
    """The two ends of one channel."""
    return Session(SOMEBODY, KEY, OTHER_KEY), Session(SOMEBODY, OTHER_KEY, KEY)


class TestWriting:
    def test_sequence_numbers_count_from_zero(self):
        writer = RecordWriter(KEY)
        for sequence, plaintext in enumerate([b"a", b"b", b"a"]):
            assert writer.send(plaintext) == sealed(sequence, plaintext)

    def test_nothing_is_written_for_no_plaintext(self):
        """The peer takes an empty record for a fault, and the next number must still be 0."""
        writer = RecordWriter(KEY)
        assert writer.send(b"") == b""
        assert writer.send(b"a") == sealed(0, b"a")

    def test_a_plaintext_of_the_largest_size_is_one_record(self):
        wire = RecordWriter(KEY).send(bytes(MAX_PLAINTEXT_SIZE))
        assert MAX_PLAINTEXT_SIZE == 1024 * 1024 - 16
        assert wire[:4] == MAX_FRAME_SIZE.to_bytes(4, "big")
        assert len(wire) == 4 + MAX_FRAME_SIZE

    @pytest.mark.parametrize("extra", [1, 100, MAX_PLAINTEXT_SIZE, MAX_PLAINTEXT_SIZE + 1])
    def test_a_larger_plaintext_is_split_into_as_few_records_as_fit(self, extra):
        plaintext = noise(extra, MAX_PLAINTEXT_SIZE + extra)
        pieces = [
            plaintext[at : at + MAX_PLAINTEXT_SIZE]
            for at in range(0, len(plaintext), MAX_PLAINTEXT_SIZE)
        ]
        wire = RecordWriter(KEY).send(plaintext)
        assert wire == b"".join(sealed(number, piece) for number, piece in enumerate(pieces))
        assert RecordReader(KEY).receive(wire) == plaintext

    def test_numbers_go_on_after_a_split(self):
        writer = RecordWriter(KEY)
        writer.send(bytes(MAX_PLAINTEXT_SIZE + 1))
        assert writer.send(b"next") == sealed(2, b"next")

    def test_the_directions_count_apart(self):
        near, far = sessions()
        for plaintext in (b"one", b"two"):
            assert far.receive(near.send(plaintext)) == plaintext
        assert far.send(b"three") == sealed(0, b"three", OTHER_KEY)


class TestReading:
    @given(data=st.data(), plaintexts=st.lists(st.binary(min_size=1, max_size=30), max_size=6))
    def test_any_cut_of_the_stream_gives_the_same_plaintext(self, data, plaintexts):
        near, far = sessions()
        wire = b"".join(map(near.send, plaintexts))
        received = b"".join(map(far.receive, data.draw(chunkings(wire))))
        assert received == b"".join(plaintexts)
        assert far.pending == 0

    @given(plaintexts=st.lists(st.binary(min_size=1, max_size=10), max_size=4))
    def test_single_bytes_give_the_same_plaintext(self, plaintexts):
        near, far = sessions()
        wire = b"".join(map(near.send, plaintexts))
        received = b"".join(far.receive(wire[at : at + 1]) for at in range(len(wire)))
        assert received == b"".join(plaintexts)

    @given(plaintext=st.binary(min_size=1, max_size=30), data=st.data())
    def test_bytes_of_an_unfinished_record_stay_pending(self, plaintext, data):
        near, far = sessions()
        first, second = near.send(b"first"), near.send(plaintext)
        missing = data.draw(st.integers(1, len(second)))
        assert far.receive(first + second[:-missing]) == b"first"
        assert far.pending == len(second) - missing
        assert far.receive(second[-missing:]) == plaintext
        assert far.pending == 0

    @pytest.mark.parametrize("flipped", range(4, 4 + 5 + 16))
    def test_a_changed_byte_is_noticed(self, flipped):
        wire = bytearray(sealed(0, b"hello"))
        wire[flipped] ^= 1
        with pytest.raises(RecordError, match="record 0 does not open"):
            RecordReader(KEY).receive(bytes(wire))

    def test_a_replayed_record_is_refused(self):
        reader, wire = RecordReader(KEY), sealed(0, b"once")
        assert reader.receive(wire) == b"once"
        with pytest.raises(RecordError, match="record 1 does not open"):
            reader.receive(wire)

    def test_reordered_records_are_refused(self):
        with pytest.raises(RecordError, match="record 0 does not open"):
            RecordReader(KEY).receive(sealed(1, b"second") + sealed(0, b"first"))

    def test_a_missing_record_is_noticed(self):
        reader = RecordReader(KEY)
        assert reader.receive(sealed(0, b"first")) == b"first"
        with pytest.raises(RecordError, match="record 1 does not open"):
            reader.receive(sealed(2, b"third"))

    def test_a_record_of_another_key_is_refused(self):
        with pytest.raises(RecordError, match="record 0 does not open"):
            RecordReader(KEY).receive(sealed(0, b"a", OTHER_KEY))

    def test_our_own_record_sent_back_is_refused(self):
        near, _ = sessions()
        with pytest.raises(RecordError):
            near.receive(near.send(b"mirror"))

    def test_an_empty_record_is_refused(self):
        with pytest.raises(RecordError, match="record 0 is empty"):
            RecordReader(KEY).receive(sealed(0, b""))

    @pytest.mark.parametrize("size", [1, 15, 16, 17])
    def test_a_frame_too_short_for_a_tag_does_not_open(self, size):
        with pytest.raises(RecordError, match="does not open"):
            RecordReader(KEY).receive(size.to_bytes(4, "big") + bytes(size))

    @pytest.mark.parametrize("length", [0, MAX_FRAME_SIZE + 1, 2**31, 2**32 - 1])
    def test_a_length_outside_its_limits_is_refused_with_its_fourth_byte(self, length):
        reader = RecordReader(KEY)
        prefix = length.to_bytes(4, "big")
        assert reader.receive(prefix[:3]) == b""
        with pytest.raises(FramingError, match=f"a Z-Wing frame of {length} bytes; from 1 to 1048"):
            reader.receive(prefix[3:])

    @pytest.mark.parametrize("length", [1, MAX_FRAME_SIZE])
    def test_lengths_at_the_limits_are_waited_for(self, length):
        reader = RecordReader(KEY)
        assert reader.receive(length.to_bytes(4, "big")) == b""
        assert reader.pending == 4

    def test_an_announced_frame_takes_no_memory_before_it_comes(self):
        reader = RecordReader(KEY)
        tracemalloc.start()
        try:
            reader.receive(MAX_FRAME_SIZE.to_bytes(4, "big") + bytes(10))
            assert tracemalloc.get_traced_memory()[1] < 64 * 1024
        finally:
            tracemalloc.stop()

    @given(data=st.data(), garbage=st.binary(max_size=80))
    def test_random_bytes_give_nothing_or_a_protocol_error(self, data, garbage):
        reader = RecordReader(KEY)
        try:
            for chunk in data.draw(chunkings(garbage)):
                assert reader.receive(chunk) == b""
        except ProtocolError:
            return
        assert reader.pending == len(garbage)


def test_a_session_shows_its_peer_and_no_key():
    near, _ = sessions()
    shown = repr(near)
    assert shown == f"<Session with {SOMEBODY.fingerprint}>"
    assert not any(hasattr(part, "__dict__") for part in (near, near._reader, near._writer))


class TestWhatIsWholeBeforeAFault:
    @pytest.mark.parametrize(
        ("bad", "error"),
        [
            (sealed(1, b"b", OTHER_KEY), RecordError),
            (sealed(1, b""), RecordError),
            (bytes(4), FramingError),
            (b"\xff" * 4, FramingError),
        ],
        ids=["sealed for another", "empty", "no length", "too long"],
    )
    def test_is_given_first(self, bad: bytes, error: type[ProtocolError]):
        reader = RecordReader(KEY)
        assert reader.receive(sealed(0, b"a") + bad + sealed(1, b"c")) == b"a"
        assert isinstance(reader.failure, error)
        for _ in range(2):
            with pytest.raises(error):
                reader.receive(sealed(1, b"c"))
