"""The handshake: who is accepted, and that nothing changed or malformed is (section 7)."""

import hashlib

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.strategies import mutations, noise
from zapcore import Identity, PublicIdentity
from zapcore.errors import (
    HandshakeError,
    IdentityMismatch,
    InvalidIdentity,
    ProtocolError,
    ZapError,
)
from zapcore.zwing import Initiator, Responder, xwing
from zapcore.zwing.handshake import (
    INIT_SIZE,
    RESPONSE_SIZE,
    Keys,
    derive_keys,
    transcript_hash,
    trust,
)

INIT_LABEL = "lux.zwing.v1/handshake-init"
RESPONSE_LABEL = "lux.zwing.v1/handshake-response"

# Where the parts of the first message begin (its two lengths at 0 and 3202).
INIT_PARTS = {
    "identity length": (0, 1),
    "ed25519 key": (2, 33),
    "ml-dsa key": (34, 1000, 1985),
    "ml-kem key": (1986, 2500, 3169),
    "x25519 key": (3170, 3201),
    "signature length": (3202, 3203),
    "ed25519 signature": (3204, 3267),
    "ml-dsa signature": (3268, 5000, 6576),
}
# And of the answer; all that follows 1122 is sealed.
RESPONSE_PARTS = {
    "ml-kem ciphertext": (0, 500, 1087),
    "ephemeral x25519 key": (1088, 1119),
    "sealed length": (1120, 1121),
    "sealed identity": (1122, 1124, 3156),
    "sealed signature length": (4324, 4325),
    "sealed signature": (4326, 7000),
    "tag": (7699, 7714),
}


def each_flip(parts):
    """Two flips at each position; X25519 itself ignores the top bit of its last byte."""
    return pytest.mark.parametrize(
        ("position", "bit"),
        [
            pytest.param(position, bit, id=f"{name} {position} {bit:#04x}")
            for name, positions in parts.items()
            for position in positions
            for bit in (0x01, 0x80)
        ],
    )


def flipped(payload: bytes, position: int, bit: int) -> bytes:
    changed = bytearray(payload)
    changed[position] ^= bit
    return bytes(changed)


def payload_of(frame: bytes) -> bytes:
    """A frame without its length prefix, which must be right."""
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    return frame[4:]


def counted(part: bytes, size: int | None = None) -> bytes:
    """A part behind its u16 length, or behind a false one."""
    return (len(part) if size is None else size).to_bytes(2, "big") + part


@pytest.fixture(scope="module")
def init(alice) -> bytes:
    return payload_of(Initiator(alice).initiate())


@pytest.fixture(scope="module")
def response(init, bob) -> bytes:
    frame, _ = Responder(bob).respond(init)
    return payload_of(frame)


def seal_for(initiator: PublicIdentity, prove) -> bytes:
    """An answer whose sealed part is whatever ``prove`` makes of the transcript."""
    ciphertext, secret = xwing.encapsulate(initiator.xwing)
    proof = prove(transcript_hash(initiator, ciphertext))
    key = derive_keys(secret).response_identity
    sealed = ChaCha20Poly1305(key).encrypt(b"zwing-resp-i", proof, ciphertext)
    return ciphertext + counted(sealed)


class TestAgreement:
    def test_both_sides_get_each_other_and_a_channel(self, alice, bob):
        initiator, responder = Initiator(alice), Responder(bob)
        frame, far = responder.respond(payload_of(initiator.initiate()))
        near = initiator.finish(payload_of(frame))
        assert (near.remote, far.remote) == (bob.public, alice.public)
        assert far.receive(near.send(b"ping")) == b"ping"
        assert near.receive(far.send(b"pong")) == b"pong"

    def test_messages_have_the_sizes_that_the_protocol_gives_them(self, init, response):
        assert len(init) == INIT_SIZE == 2 + 3200 + 2 + 3373
        assert len(response) == RESPONSE_SIZE == 1120 + 2 + INIT_SIZE + 16

    def test_the_responder_s_identity_does_not_cross_in_clear(self, response, bob):
        assert bob.public.ed25519 not in response
        assert bob.public.ml_dsa not in response

    def test_a_replayed_first_message_is_answered_but_under_fresh_keys(self, alice, bob, init):
        """Z-Wing v1 does not prove liveness; a replayer can't read what it gets."""
        responder = Responder(bob)
        (one, first), (other, second) = responder.respond(init), responder.respond(init)
        assert one != other
        records = [first.send(b"same"), second.send(b"same")]
        assert records[0] != records[1]
        assert Initiator(alice).finish(payload_of(one)).receive(records[0]) == b"same"
        assert Initiator(alice).finish(payload_of(other)).receive(records[1]) == b"same"


class TestTrust:
    def pins(self, identity):
        return {
            "identity": identity.public,
            "fingerprint": identity.public.fingerprint,
            "rule": trust(identity.public),
        }

    @pytest.mark.parametrize("form", ["identity", "fingerprint", "rule"])
    def test_a_pinned_peer_is_accepted(self, form, alice, bob):
        initiator = Initiator(alice, self.pins(bob)[form])
        frame, far = Responder(bob, self.pins(alice)[form]).respond(initiator.initiate()[4:])
        assert initiator.finish(frame[4:]).remote == bob.public
        assert far.remote == alice.public

    @pytest.mark.parametrize("form", ["identity", "fingerprint", "rule"])
    def test_an_initiator_refuses_another_server_and_names_both(
        self, form, alice, bob, mallory, response
    ):
        with pytest.raises(IdentityMismatch) as caught:
            Initiator(alice, self.pins(mallory)[form]).finish(response)
        assert bob.public.fingerprint in str(caught.value)
        assert mallory.public.fingerprint in str(caught.value)

    @pytest.mark.parametrize("form", ["identity", "fingerprint", "rule"])
    def test_a_responder_refuses_another_client_and_names_both(
        self, form, alice, bob, mallory, init
    ):
        with pytest.raises(IdentityMismatch) as caught:
            Responder(bob, self.pins(mallory)[form]).respond(init)
        assert alice.public.fingerprint in str(caught.value)
        assert mallory.public.fingerprint in str(caught.value)

    def test_a_rule_is_given_the_peer(self, alice, bob, response):
        asked = []
        Initiator(alice, asked.append).finish(response)
        assert asked == [bob.public]

    def test_what_a_rule_raises_reaches_the_caller(self, alice, response):
        def refuse(remote):
            raise IdentityMismatch(f"not {remote.fingerprint}")

        with pytest.raises(IdentityMismatch, match=r"^not SHA256:"):
            Initiator(alice, refuse).finish(response)

    def test_one_changed_byte_of_a_pin_is_another_identity(self, alice, bob, response):
        for position in (0, 40, 2000, 3199):
            pin = PublicIdentity(flipped(bytes(bob.public), position, 1))
            with pytest.raises(IdentityMismatch):
                Initiator(alice, pin).finish(response)

    def test_an_initiator_asks_its_rule_only_about_a_proven_peer(self, alice, bob, mallory):
        """Else trust on first use would write down whatever an attacker names."""

        def prove(transcript):
            return counted(bytes(bob.public)) + counted(mallory.sign(RESPONSE_LABEL, transcript))

        asked = []
        with pytest.raises(HandshakeError, match="signature"):
            Initiator(alice, asked.append).finish(seal_for(alice.public, prove))
        assert asked == []

    def test_a_responder_refuses_strangers_before_it_verifies(self, alice, bob, monkeypatch):
        def verify(*_):
            raise AssertionError("a stranger got a signature verified")

        monkeypatch.setattr(PublicIdentity, "verify", verify)
        badly_signed = counted(bytes(alice.public)) + counted(bytes(3373))
        with pytest.raises(IdentityMismatch):
            Responder(bob, bob.public).respond(badly_signed)


class TestTampering:
    @each_flip(INIT_PARTS)
    def test_any_changed_bit_of_the_first_message_is_refused(self, init, bob, position, bit):
        with pytest.raises(HandshakeError):
            Responder(bob).respond(flipped(init, position, bit))

    @each_flip(RESPONSE_PARTS)
    def test_any_changed_bit_of_the_answer_is_refused(self, response, alice, position, bit):
        with pytest.raises(HandshakeError):
            Initiator(alice).finish(flipped(response, position, bit))

    @pytest.mark.parametrize("size", [0, 1, 2, 3204, INIT_SIZE - 1, INIT_SIZE + 1])
    def test_a_first_message_of_another_size_is_refused(self, init, bob, size):
        with pytest.raises(HandshakeError, match=f"of {size} bytes, not {INIT_SIZE}"):
            Responder(bob).respond((init + b"\0")[:size])

    @pytest.mark.parametrize("size", [0, 1, 1120, 1122, RESPONSE_SIZE - 1, RESPONSE_SIZE + 1])
    def test_an_answer_of_another_size_is_refused(self, response, alice, size):
        with pytest.raises(HandshakeError, match=f"of {size} bytes, not {RESPONSE_SIZE}"):
            Initiator(alice).finish((response + b"\0")[:size])

    @pytest.mark.parametrize(
        ("identity_length", "signature_length"), [(3199, 3373), (3200, 3374), (3201, 3372), (0, 0)]
    )
    def test_lengths_inside_the_seal_that_disagree_are_refused(
        self, alice, bob, identity_length, signature_length
    ):
        def prove(transcript):
            signature = bob.sign(RESPONSE_LABEL, transcript)
            return counted(bytes(bob.public), identity_length) + counted(
                signature, signature_length
            )

        with pytest.raises(HandshakeError, match=f"lengths of {identity_length} and"):
            Initiator(alice).finish(seal_for(alice.public, prove))

    def test_a_message_cut_at_its_own_parts_differently_is_refused(self, bob, alice):
        """The total fits, the border does not: 3199 + 3374."""
        both = bytes(alice.public) + bytes(3373)
        with pytest.raises(HandshakeError, match="lengths of 3199 and"):
            Responder(bob).respond(counted(both[:3199]) + counted(both[3199:]))

    def test_an_answer_for_another_initiator_is_refused(self, mallory, response):
        with pytest.raises(HandshakeError, match="not sealed for this identity"):
            Initiator(mallory).finish(response)

    def test_an_old_answer_can_not_be_sealed_anew(self, alice, bob):
        """A signature is bound to its ciphertext, so a recorded one proves nothing later."""
        recorded = []

        def honest(transcript):
            recorded.append(bob.sign(RESPONSE_LABEL, transcript))
            return counted(bytes(bob.public)) + counted(recorded[0])

        def replaying(transcript):
            return counted(bytes(bob.public)) + counted(recorded[0])

        assert Initiator(alice).finish(seal_for(alice.public, honest)).remote == bob.public
        with pytest.raises(HandshakeError, match="signature does not hold"):
            Initiator(alice).finish(seal_for(alice.public, replaying))

    @pytest.mark.parametrize("label", [INIT_LABEL, "lux.zwing.v1", ""])
    def test_a_signature_under_another_label_is_refused(self, alice, bob, label):
        def prove(transcript):
            return counted(bytes(bob.public)) + counted(bob.sign(label, transcript))

        with pytest.raises(HandshakeError, match="responder's signature does not hold"):
            Initiator(alice).finish(seal_for(alice.public, prove))

    def test_a_stolen_public_identity_is_of_no_use(self, alice, bob, mallory):
        stolen = bytes(alice.public)
        forged = counted(stolen) + counted(mallory.sign(INIT_LABEL, stolen))
        with pytest.raises(HandshakeError, match="initiator's signature does not hold"):
            Responder(bob).respond(forged)

    def test_ml_dsa_without_the_context_string_is_refused(self, alice, bob):
        """Some ports of Z-Wing sign so; the reference rejects that, and so do we."""
        message = bytes(alice.public)
        signature = alice.sign(INIT_LABEL, message)
        label = INIT_LABEL.encode()
        digest = hashlib.sha256(b"lux.zwing.v1" + bytes([len(label)]) + label + message).digest()
        bare = signature[:64] + alice._ml_dsa.sign(digest, b"")
        assert len(bare) == len(signature)
        with pytest.raises(HandshakeError, match="signature does not hold"):
            Responder(bob).respond(counted(message) + counted(bare))


class TestWeakKeys:
    def test_an_answer_with_a_low_order_x25519_key_is_refused(self, response, alice):
        weak = response[:1088] + bytes(32) + response[1120:]
        with pytest.raises(HandshakeError, match=r"ciphertext is malformed.*low order"):
            Initiator(alice).finish(weak)

    @pytest.mark.parametrize(
        ("part", "start", "end", "value"),
        [
            ("low order", 3168, 3200, bytes(32)),
            ("low order", 3168, 3200, b"\1" + bytes(31)),
            ("ML-KEM-768", 1984, 3168, b"\xff" * 1184),
        ],
        ids=["x25519 zero", "x25519 one", "ml-kem beyond its modulus"],
    )
    def test_an_initiator_with_an_unusable_key_is_refused(self, bob, part, start, end, value):
        """Properly signed, so it is the key itself that must be noticed."""
        weak = Identity.generate()
        raw = bytearray(bytes(weak.public))
        raw[start:end] = value
        weak.public = PublicIdentity(bytes(raw))
        with pytest.raises(HandshakeError, match=f"identity is unusable: .*{part}"):
            Responder(bob).respond(payload_of(Initiator(weak).initiate()))

    def test_encapsulation_refuses_the_low_order_point_itself(self, bob):
        with pytest.raises(InvalidIdentity, match="low order"):
            xwing.encapsulate(bob.public.xwing[:1184] + bytes(32))


class TestGarbage:
    @given(payload=st.binary(max_size=100))
    def test_short_random_bytes_give_a_zap_error(self, alice, bob, payload):
        for receive in (Initiator(alice).finish, Responder(bob).respond):
            with pytest.raises(ProtocolError):
                receive(payload)

    @given(seed=st.integers(0, 2**64 - 1))
    def test_random_bytes_of_the_right_size_give_a_zap_error(self, alice, bob, seed):
        with pytest.raises(ZapError):
            Initiator(alice).finish(noise(seed, 1120) + counted(noise(~seed, INIT_SIZE + 16)))
        with pytest.raises(ZapError):
            Responder(bob).respond(counted(noise(seed, 3200)) + counted(noise(~seed, 3373)))

    @given(data=st.data())
    def test_mutated_messages_give_a_zap_error(self, alice, bob, init, response, data):
        for payload, receive in (
            (init, Responder(bob).respond),
            (response, Initiator(alice).finish),
        ):
            mutated = data.draw(mutations(payload))
            if mutated != payload:
                with pytest.raises(ZapError):
                    receive(mutated)


def test_keys_are_not_shown():
    keys = derive_keys(bytes(32))
    assert len({*keys}) == len(keys) == 3
    assert repr(keys) == str(keys) == f"{keys}" == "<Keys>"
    assert isinstance(keys, Keys)
