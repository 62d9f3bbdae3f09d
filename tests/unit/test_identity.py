"""Identities: keys, signatures, fingerprints (protocol.md section 7)."""

import hashlib

import pytest

from zapcore import Identity, PublicIdentity
from zapcore.errors import InvalidIdentity
from zapcore.zwing.keyfile import is_fingerprint

SEEDS = {"ed25519": b"\1" * 32, "ml_dsa": b"\2" * 32, "ml_kem": b"\3" * 64, "x25519": b"\4" * 32}


class TestPublicIdentity:
    def test_is_its_bytes(self, alice):
        raw = bytes(alice.public)
        assert len(raw) == 3200
        assert bytes(PublicIdentity.from_bytes(raw)) == raw
        assert raw == alice.public.ed25519 + alice.public.ml_dsa + alice.public.xwing
        sizes = [len(part) for part in (alice.public.ed25519, alice.public.ml_dsa)]
        assert [*sizes, len(alice.public.xwing)] == [32, 1952, 1216]

    def test_is_equal_by_its_bytes_and_can_be_a_key(self, alice, bob):
        copy = PublicIdentity(bytes(alice.public))
        assert copy == alice.public
        assert {alice.public: "alice"}[copy] == "alice"
        assert alice.public != bob.public
        assert alice.public != bytes(alice.public)

    @pytest.mark.parametrize("size", [0, 1, 32, 3199, 3201])
    def test_another_size_is_refused(self, size):
        with pytest.raises(InvalidIdentity, match=f"3200 bytes, this has {size}"):
            PublicIdentity.from_bytes(bytes(size))

    def test_shows_its_fingerprint(self, alice):
        assert repr(alice.public) == f"<PublicIdentity {alice.public.fingerprint}>"
        assert is_fingerprint(alice.public.fingerprint)

    @pytest.mark.parametrize(
        "text",
        ["", "SHA256:", "SHA256:" + "A" * 42, "SHA256:" + "A" * 44, "MD5:" + "A" * 43,
         "SHA256:" + "A" * 42 + "=", "SHA256:" + "A" * 43 + "\n", " SHA256:" + "A" * 43],
    )  # fmt: skip
    def test_other_texts_are_no_fingerprints(self, text):
        assert not is_fingerprint(text)


class TestSignatures:
    def test_both_halves_are_there_and_hold(self, alice):
        signature = alice.sign("label", b"message")
        assert len(signature) == 64 + 3309
        assert alice.public.verify("label", b"message", signature)

    def test_labels_may_be_text_or_bytes(self, alice):
        assert alice.public.verify(b"label", b"message", alice.sign("label", b"message"))
        assert alice.public.verify("läbel", b"message", alice.sign("läbel".encode(), b"message"))

    def test_signing_is_randomised(self, alice):
        assert alice.sign("label", b"message") != alice.sign("label", b"message")

    @pytest.mark.parametrize(
        ("label", "message"),
        [
            ("label", b"massage"),
            ("lebal", b"message"),
            ("labelm", b"essage"),
            ("labe", b"lmessage"),
        ],
    )
    def test_a_signature_is_bound_to_label_and_message(self, alice, label, message):
        """And to where one ends and the other begins."""
        assert not alice.public.verify(label, message, alice.sign("label", b"message"))

    def test_a_signature_is_bound_to_its_signer(self, alice, bob):
        assert not bob.public.verify("label", b"message", alice.sign("label", b"message"))

    @pytest.mark.parametrize("half", ["ed25519", "ml-dsa"])
    def test_one_good_half_is_not_enough(self, alice, bob, half):
        ours, theirs = (who.sign("label", b"message") for who in (alice, bob))
        mixed = ours[:64] + theirs[64:] if half == "ed25519" else theirs[:64] + ours[64:]
        assert not alice.public.verify("label", b"message", mixed)

    @pytest.mark.parametrize("size", [0, 64, 3309, 3372, 3374])
    def test_another_size_does_not_verify(self, alice, size):
        signature = alice.sign("label", b"message") + b"\0"
        assert not alice.public.verify("label", b"message", signature[:size])

    def test_an_impossible_public_key_verifies_nothing(self, alice):
        """No exception: these bytes come from a peer."""
        signature = alice.sign("label", b"message")
        for raw in (bytes(3200), b"\xff" * 3200):
            assert not PublicIdentity(raw).verify("label", b"message", signature)


class TestPrivateKeys:
    def test_the_same_seeds_give_the_same_identity(self):
        assert Identity.from_seeds(**SEEDS).public == Identity.from_seeds(**SEEDS).public

    @pytest.mark.parametrize("name", SEEDS)
    def test_every_seed_counts(self, name):
        other = SEEDS | {name: hashlib.shake_256(b"other").digest(len(SEEDS[name]))}
        assert Identity.from_seeds(**other).public != Identity.from_seeds(**SEEDS).public

    def test_generated_identities_differ(self, alice, bob):
        assert alice.public != bob.public

    @pytest.mark.parametrize("change", [-1, 1])
    @pytest.mark.parametrize("name", SEEDS)
    def test_a_seed_of_another_size_is_refused_by_name_and_size(self, name, change):
        size = len(SEEDS[name]) + change
        algorithm = {"ed25519": "Ed25519", "ml_dsa": "ML-DSA", "ml_kem": "ML-KEM"}.get(name, "X255")
        with pytest.raises(InvalidIdentity, match=rf"^{algorithm}.*: {size} bytes, not ") as caught:
            Identity.from_seeds(**(SEEDS | {name: bytes(size)}))
        assert SEEDS[name].hex() not in str(caught.value)

    def test_is_never_shown(self):
        identity = Identity.from_seeds(**SEEDS)
        shown = repr(identity) + str(identity) + f"{identity}" + repr(vars(identity))
        assert identity.public.fingerprint in shown
        for seed in SEEDS.values():
            for piece in (repr(seed)[2:-1], seed.hex(), str(list(seed))[1:-1]):
                assert piece not in shown
