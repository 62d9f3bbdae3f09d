"""Byte compatibility: what the Go reference wrote is what we read and write."""

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from tests.unit.vectors import identity_of, load, message_of
from zapcore import METHODS, PublicIdentity, errors
from zapcore.codec import decode_text
from zapcore.framing import Envelope, MessageReader, error_type, response_type
from zapcore.methods import parse_request
from zapcore.zwing import Initiator, Responder, Session, xwing
from zapcore.zwing.handshake import derive_keys, transcript_hash
from zapcore.zwing.identity import _digest

IDENTITIES = load("identity")["identities"]
HANDSHAKES = load("handshake")["handshakes"]
MESSAGES = load("messages")["messages"]
ERRORS = load("messages")["errors"]
REQUEST_ID = 7

BY_ATTRIBUTE = {method.attribute: method for method in METHODS.values()}

each_identity = pytest.mark.parametrize(
    "vector", IDENTITIES, ids=[vector["tampered_where"] for vector in IDENTITIES]
)
each_handshake = pytest.mark.parametrize(
    "vector", HANDSHAKES, ids=[vector["shared_secret"][:8] for vector in HANDSHAKES]
)
each_message = pytest.mark.parametrize(
    "vector", MESSAGES, ids=[f"{vector['name']}-{vector['kind']}" for vector in MESSAGES]
)
each_error = pytest.mark.parametrize("vector", ERRORS, ids=[vector["name"] for vector in ERRORS])


class TestIdentities:
    @each_identity
    def test_seeds_give_the_public_identity(self, vector):
        public = identity_of(vector).public
        assert bytes(public).hex() == vector["public_identity"]
        assert hashlib.sha256(bytes(public)).hexdigest() == vector["public_identity_sha256"]

    @each_identity
    def test_the_fingerprint_has_the_form_that_ssh_uses(self, vector):
        public = PublicIdentity.from_bytes(bytes.fromhex(vector["public_identity"]))
        digest = bytes.fromhex(vector["public_identity_sha256"])
        assert public.fingerprint == "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
        assert len(public.fingerprint) == len("SHA256:") + 43

    @each_identity
    def test_the_signed_digest_is_the_reference_s(self, vector):
        message = bytes.fromhex(vector["message"])
        assert _digest(vector["label"].encode(), message).hex() == vector["digest"]

    @each_identity
    def test_a_recorded_signature_verifies(self, vector):
        public = PublicIdentity.from_bytes(bytes.fromhex(vector["public_identity"]))
        message, signature = (bytes.fromhex(vector[name]) for name in ("message", "signature"))
        assert public.verify(vector["label"], message, signature)

    @each_identity
    def test_a_signature_with_one_bad_half_does_not_verify(self, vector):
        public = PublicIdentity.from_bytes(bytes.fromhex(vector["public_identity"]))
        message = bytes.fromhex(vector["message"])
        tampered = bytes.fromhex(vector["tampered_signature"])
        assert not public.verify(vector["label"], message, tampered)

    def test_the_vectors_tamper_with_both_halves(self):
        halves = {vector["tampered_where"].split()[0] for vector in IDENTITIES}
        assert halves == {"ed25519", "ml-dsa"}


class TestXWing:
    @pytest.mark.parametrize("vector", load("xwing")["combiner_kats"])
    def test_the_combiner_gives_the_recorded_secret(self, vector):
        parts = (bytes.fromhex(vector[name]) for name in ("ss_m", "ss_x", "ct_x", "pk_x"))
        assert xwing.combine(*parts).hex() == vector["shared_secret"]

    @pytest.mark.parametrize("vector", load("xwing")["encapsulations"])
    def test_a_recorded_ciphertext_opens_to_the_recorded_secret(self, vector):
        identity = identity_of(vector)
        assert identity.public.xwing.hex() == vector["public_key"]
        ciphertext = bytes.fromhex(vector["ciphertext"])
        assert xwing.decapsulate(identity, ciphertext).hex() == vector["shared_secret"]


def recorded_payload(vector, kind):
    """A recorded handshake frame, without its length prefix."""
    (frame,) = (bytes.fromhex(f["bytes"]) for f in vector["frames"] if f["kind"] == kind)
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    return frame[4:]


class TestHandshakes:
    @each_handshake
    def test_the_responder_accepts_the_recorded_first_frame(self, vector):
        responder = Responder(identity_of(vector["responder"]))
        _, session = responder.respond(recorded_payload(vector, "handshake_init"))
        assert bytes(session.remote).hex() == vector["initiator"]["public_identity"]

    @each_handshake
    def test_the_initiator_accepts_the_recorded_answer(self, vector):
        pinned = PublicIdentity(bytes.fromhex(vector["responder"]["public_identity"]))
        initiator = Initiator(identity_of(vector["initiator"]), pinned)
        session = initiator.finish(recorded_payload(vector, "handshake_response"))
        assert session.remote == pinned

    @each_handshake
    def test_the_ciphertext_opens_to_the_recorded_secret(self, vector):
        ciphertext = bytes.fromhex(vector["xwing_ciphertext"])
        assert recorded_payload(vector, "handshake_response").startswith(ciphertext)
        secret = xwing.decapsulate(identity_of(vector["initiator"]), ciphertext)
        assert secret.hex() == vector["shared_secret"]

    @each_handshake
    def test_the_shared_secret_gives_the_recorded_keys(self, vector):
        keys = derive_keys(bytes.fromhex(vector["shared_secret"]))
        assert keys.initiator_to_responder.hex() == vector["key_i2r"]
        assert keys.responder_to_initiator.hex() == vector["key_r2i"]
        assert keys.response_identity.hex() == vector["resp_id_key"]

    @each_handshake
    def test_the_transcript_is_the_recorded_one(self, vector):
        initiator = PublicIdentity(bytes.fromhex(vector["initiator"]["public_identity"]))
        ciphertext = bytes.fromhex(vector["xwing_ciphertext"])
        assert transcript_hash(initiator, ciphertext).hex() == vector["transcript_hash"]

    @each_handshake
    def test_the_sealed_identity_opens_to_the_recorded_proof(self, vector):
        payload = recorded_payload(vector, "handshake_response")
        ciphertext, sealed = payload[:1120], payload[1122:]
        key = derive_keys(bytes.fromhex(vector["shared_secret"])).response_identity
        proof = ChaCha20Poly1305(key).decrypt(b"zwing-resp-i", sealed, ciphertext)
        assert proof.hex() == vector["resp_id_plaintext"]
        signature = proof[2 + 3200 + 2 :]
        responder = PublicIdentity(proof[2 : 2 + 3200])
        transcript = bytes.fromhex(vector["transcript_hash"])
        assert responder.verify("lux.zwing.v1/handshake-response", transcript, signature)


class TestRecords:
    @each_handshake
    def test_the_finished_handshake_writes_and_opens_the_recorded_records(self, vector):
        initiator = Initiator(identity_of(vector["initiator"]))
        session = initiator.finish(recorded_payload(vector, "handshake_response"))
        for record in vector["records"]:
            plaintext, frame = (bytes.fromhex(record[name]) for name in ("plaintext", "frame"))
            if record["direction"] == "i2r":
                assert session.send(plaintext) == frame
            else:
                assert session.receive(frame) == plaintext

    @each_handshake
    def test_the_responder_s_side_writes_and_opens_them_the_other_way(self, vector):
        remote = PublicIdentity(bytes.fromhex(vector["initiator"]["public_identity"]))
        keys = derive_keys(bytes.fromhex(vector["shared_secret"]))
        session = Session(remote, keys.responder_to_initiator, keys.initiator_to_responder)
        for record in vector["records"]:
            plaintext, frame = (bytes.fromhex(record[name]) for name in ("plaintext", "frame"))
            if record["direction"] == "r2i":
                assert session.send(plaintext) == frame
            else:
                assert session.receive(frame) == plaintext


def class_of(vector):
    method = BY_ATTRIBUTE[vector["rpc"]]
    return method.request if vector["kind"] == "request" else method.response


class TestMessages:
    def test_every_verified_rpc_has_vectors_for_both_of_its_messages(self):
        verified = {m.attribute for m in METHODS.values() if not m.provisional}
        for kind in ("request", "response"):
            assert {vector["rpc"] for vector in MESSAGES if vector["kind"] == kind} == verified

    @each_message
    def test_encodes_to_the_recorded_body(self, vector):
        assert message_of(class_of(vector), vector["fields"]).encode().hex() == vector["body"]

    @each_message
    def test_the_recorded_body_decodes_to_the_recorded_values(self, vector):
        cls = class_of(vector)
        decoded = cls.decode(bytes.fromhex(vector["body"]))
        assert decoded == message_of(cls, vector["fields"])

    @each_message
    def test_is_written_as_the_recorded_frame(self, vector):
        method = BY_ATTRIBUTE[vector["rpc"]]
        body, kind = bytes.fromhex(vector["body"]), response_type(method.opcode)
        if vector["kind"] == "request":
            body, kind = method.encode_request(method.request.decode(body)), method.opcode
        assert Envelope(kind, REQUEST_ID, body).encode().hex() == vector["frame"]

    @each_message
    def test_the_recorded_frame_is_read_as_this_message(self, vector):
        method = BY_ATTRIBUTE[vector["rpc"]]
        (envelope,) = MessageReader().receive(bytes.fromhex(vector["frame"]))
        body = envelope.body
        assert envelope.request_id == REQUEST_ID
        assert envelope.opcode == vector["opcode"]
        assert not envelope.is_error
        if vector["kind"] == "request":
            found, body = parse_request(envelope.type, body)
            assert found is method
        assert body.hex() == vector["body"]


# Which type a text becomes. What the reference has no rule for stays a plain RemoteError.
ERROR_TYPES = {
    "node_not_found": errors.NotFound,
    "unknown_sub_opcode_stream_status": errors.UnsupportedByServer,
    "unknown_sub_opcode_0xff": errors.UnsupportedByServer,
    "missing_sub_opcode": errors.RemoteError,
    "unknown_opcode_0x01": errors.UnsupportedByServer,
    "unknown_opcode_response_flag": errors.UnsupportedByServer,
    "truncated_body": errors.RemoteError,
    "unicode_error": errors.RemoteError,
    "empty_error": errors.RemoteError,
    "handler_panic": errors.RemoteError,
}


class TestErrors:
    def test_every_vector_has_an_expected_type(self):
        assert {vector["name"] for vector in ERRORS} == set(ERROR_TYPES)

    @each_error
    def test_the_recorded_answer_is_read_as_an_error_with_its_text(self, vector):
        (request,) = MessageReader().receive(bytes.fromhex(vector["request_frame"]))
        (answer,) = MessageReader().receive(bytes.fromhex(vector["response_frame"]))
        assert answer.is_error
        assert answer.request_id == vector["request_id"] == REQUEST_ID
        assert answer.type == error_type(request.type)
        assert decode_text(answer.body) == vector["message"]

    @each_error
    def test_an_error_answer_is_written_as_the_recorded_frame(self, vector):
        (request,) = MessageReader().receive(bytes.fromhex(vector["request_frame"]))
        body = vector["message"].encode()
        answer = Envelope(error_type(request.type), request.request_id, body)
        assert answer.encode().hex() == vector["response_frame"]

    @each_error
    def test_the_text_becomes_the_typed_error(self, vector):
        error = errors.remote_error(vector["message"])
        assert type(error) is ERROR_TYPES[vector["name"]]
        assert str(error) == vector["message"]
