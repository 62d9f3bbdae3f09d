"""`cryptography` and pqcrypto held against each other, and each serving where the other can't."""

import pytest
from cryptography.exceptions import UnsupportedAlgorithm as Unsupported
from pqcrypto.kem import ml_kem_768
from pqcrypto.sign import ml_dsa_65

from tests.unit.strategies import noise
from zapcore import Identity
from zapcore.errors import InvalidIdentity, UnsupportedAlgorithm
from zapcore.zwing import Initiator, Responder, algorithms

MESSAGE = b"message"
CONTEXT = b"lux.zwing.v1"


@pytest.fixture(scope="module")
def expanded() -> dict[str, bytes]:
    """Private keys in the form that Go tools store, made by pqcrypto."""
    ml_dsa_public, ml_dsa = ml_dsa_65.keygen()
    _, ml_kem = ml_kem_768.keygen()
    assert (len(ml_dsa), len(ml_kem)) == (4032, 2400)
    return {
        "ed25519": noise("ed25519", 32),
        "ml_dsa": ml_dsa,
        "ml_dsa_public": ml_dsa_public,
        "ml_kem": ml_kem,
        "x25519": noise("x25519", 32),
    }


@pytest.fixture(scope="module")
def imported(expanded) -> Identity:
    return Identity.from_private_keys(**expanded)


@pytest.fixture
def without_native_algorithms(monkeypatch):
    """A build of `cryptography` that knows the classes and has no algorithm behind them."""

    class Missing:
        def __getattr__(self, name):
            def missing(*_):
                raise Unsupported("not in this build")

            return missing

    for module, names in (
        (algorithms.mldsa, ("MLDSA65PrivateKey", "MLDSA65PublicKey")),
        (algorithms.mlkem, ("MLKEM768PrivateKey", "MLKEM768PublicKey")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, Missing())


class TestSignatures:
    def test_what_a_seed_key_signs_pqcrypto_verifies(self):
        key = algorithms.load_signing_key(noise(1, 32))
        signature = key.sign(MESSAGE, CONTEXT)
        assert algorithms.pqcrypto_verify(key.public, MESSAGE, signature, CONTEXT)
        assert not algorithms.pqcrypto_verify(key.public, MESSAGE, signature, b"")
        assert not algorithms.pqcrypto_verify(key.public, b"massage", signature, CONTEXT)

    def test_what_an_expanded_key_signs_cryptography_verifies(self, expanded):
        public = expanded["ml_dsa_public"]
        signature = algorithms.load_signing_key(expanded["ml_dsa"], public).sign(MESSAGE, CONTEXT)
        assert len(signature) == algorithms.ML_DSA_SIGNATURE_SIZE
        assert algorithms.verify(public, MESSAGE, signature, CONTEXT)
        assert not algorithms.verify(public, MESSAGE, signature, b"")
        assert not algorithms.verify(public, b"massage", signature, CONTEXT)

    @pytest.mark.parametrize("verify", [algorithms.verify, algorithms.pqcrypto_verify])
    def test_wrong_sizes_do_not_verify(self, verify, expanded):
        public = expanded["ml_dsa_public"]
        signature = ml_dsa_65.sign(expanded["ml_dsa"], MESSAGE, CONTEXT)
        assert verify(public, MESSAGE, signature, CONTEXT)
        assert not verify(public[:-1], MESSAGE, signature, CONTEXT)
        assert not verify(public, MESSAGE, signature[:-1], CONTEXT)
        assert not verify(public, MESSAGE, signature + b"\0", CONTEXT)
        assert not verify(public, MESSAGE, b"", CONTEXT)


class TestEncapsulation:
    def test_what_pqcrypto_seals_a_seed_key_opens(self):
        key = algorithms.load_decapsulation_key(noise(2, 64))
        ciphertext, secret = algorithms.pqcrypto_encapsulate(key.public)
        assert key.decapsulate(ciphertext) == secret
        assert len(secret) == algorithms.SHARED_SECRET_SIZE

    def test_what_cryptography_seals_an_expanded_key_opens(self, expanded):
        key = algorithms.load_decapsulation_key(expanded["ml_kem"])
        ciphertext, secret = algorithms.encapsulate(key.public)
        assert key.decapsulate(ciphertext) == secret
        assert len(ciphertext) == algorithms.ML_KEM_CIPHERTEXT_SIZE

    def test_a_forged_ciphertext_gives_a_secret_that_nobody_has(self, expanded):
        """Implicit rejection: no error, which would tell a forger something."""
        for private in (noise(3, 64), expanded["ml_kem"]):
            key = algorithms.load_decapsulation_key(private)
            ciphertext, secret = algorithms.encapsulate(key.public)
            forged = bytes([ciphertext[0] ^ 1]) + ciphertext[1:]
            assert key.decapsulate(forged) != secret
            assert key.decapsulate(forged) == key.decapsulate(forged)

    @pytest.mark.parametrize(
        "encapsulate", [algorithms.encapsulate, algorithms.pqcrypto_encapsulate]
    )
    @pytest.mark.parametrize("public", [b"\xff" * 1184, bytes(1183), b""], ids=len)
    def test_a_public_key_that_can_not_be_one_is_refused(self, encapsulate, public):
        with pytest.raises(InvalidIdentity, match="ML-KEM-768 public key is not a valid one"):
            encapsulate(public)


class TestExpandedIdentity:
    @pytest.mark.parametrize("role", ["initiator", "responder", "both"])
    def test_handshakes_with_an_identity_from_seeds(self, role, imported, alice):
        ours = imported if role != "responder" else alice
        theirs = imported if role != "initiator" else alice
        initiator = Initiator(ours, theirs.public)
        frame, far = Responder(theirs, ours.public).respond(initiator.initiate()[4:])
        near = initiator.finish(frame[4:])
        assert far.receive(near.send(b"ping")) == b"ping"
        assert near.receive(far.send(b"pong")) == b"pong"

    def test_is_saved_and_loaded(self, imported, tmp_path):
        path = tmp_path / "id.json"
        imported.save(path)
        loaded = Identity.load(path)
        assert loaded.public == imported.public
        assert imported.public.verify("label", MESSAGE, loaded.sign("label", MESSAGE))

    def test_needs_its_public_signing_key(self, expanded):
        for public in (None, expanded["ml_dsa_public"][:-1], b""):
            with pytest.raises(InvalidIdentity, match="needs its public key of 1952 bytes too"):
                Identity.from_private_keys(**(expanded | {"ml_dsa_public": public}))

    def test_another_public_signing_key_is_noticed(self, expanded):
        other, _ = ml_dsa_65.keygen()
        with pytest.raises(InvalidIdentity, match="don't belong together"):
            Identity.from_private_keys(**(expanded | {"ml_dsa_public": other}))

    def test_a_seed_with_another_public_signing_key_is_noticed(self, expanded):
        with pytest.raises(InvalidIdentity, match="don't belong together"):
            Identity.from_private_keys(**(expanded | {"ml_dsa": noise(4, 32)}))

    @pytest.mark.parametrize(
        "private", [bytes(4032), b"\xff" * 4032, noise(5, 4032)], ids=["zeros", "ones", "noise"]
    )
    def test_an_expanded_signing_key_that_is_none_is_refused(self, expanded, private):
        with pytest.raises(InvalidIdentity, match="don't belong together"):
            Identity.from_private_keys(**(expanded | {"ml_dsa": private}))

    @pytest.mark.parametrize("position", [0, 1151, 1152, 1500, 2335, 2336, 2367])
    def test_an_expanded_decapsulation_key_with_a_changed_bit_is_refused(self, expanded, position):
        """Its own parts: the secret vector, the public key, and that key's hash."""
        private = bytearray(expanded["ml_kem"])
        private[position] ^= 1
        with pytest.raises(InvalidIdentity, match="ML-KEM-768"):
            Identity.from_private_keys(**(expanded | {"ml_kem": bytes(private)}))

    @pytest.mark.parametrize("private", [bytes(2400), b"\xff" * 2400], ids=["zeros", "ones"])
    def test_an_expanded_decapsulation_key_that_is_none_is_refused(self, expanded, private):
        with pytest.raises(InvalidIdentity, match="ML-KEM-768"):
            Identity.from_private_keys(**(expanded | {"ml_kem": private}))

    @pytest.mark.parametrize(
        ("name", "size", "sizes"),
        [
            ("ml_dsa", 33, "32 or 4032"),
            ("ml_dsa", 4031, "32 or 4032"),
            ("ml_kem", 32, "64 or 2400"),
        ],
    )
    def test_a_size_that_is_neither_form_is_refused(self, expanded, name, size, sizes):
        with pytest.raises(InvalidIdentity, match=f"{size} bytes, not {sizes}"):
            Identity.from_private_keys(**(expanded | {name: bytes(size)}))


@pytest.mark.usefixtures("without_native_algorithms")
class TestWithoutNativeAlgorithms:
    def test_the_lack_is_noticed(self):
        assert not algorithms.has_native_algorithms()

    def test_identities_are_generated_in_expanded_form(self):
        identity = Identity.generate()
        assert len(identity._ml_dsa.private) == algorithms.ML_DSA_EXPANDED_SIZE
        assert len(identity.ml_kem.private) == algorithms.ML_KEM_EXPANDED_SIZE

    def test_they_handshake_and_survive_saving(self, tmp_path):
        ours, theirs = Identity.generate(), Identity.generate()
        ours.save(tmp_path / "id.json")
        initiator = Initiator(Identity.load(tmp_path / "id.json"), theirs.public)
        frame, far = Responder(theirs, ours.public).respond(initiator.initiate()[4:])
        assert far.receive(initiator.finish(frame[4:]).send(b"ping")) == b"ping"

    def test_signatures_are_verified_and_refused(self, alice):
        """Made before by `cryptography`, so this is across implementations too."""
        signature = alice._ml_dsa.sign(MESSAGE, CONTEXT)
        assert algorithms.verify(alice.public.ml_dsa, MESSAGE, signature, CONTEXT)
        assert not algorithms.verify(alice.public.ml_dsa, MESSAGE, signature, b"")
        assert not algorithms.verify(alice.public.ml_dsa, MESSAGE, b"", CONTEXT)

    def test_secrets_are_encapsulated(self, expanded, imported):
        ciphertext, secret = algorithms.encapsulate(imported.ml_kem.public)
        assert algorithms.load_decapsulation_key(expanded["ml_kem"]).decapsulate(ciphertext) == (
            secret
        )

    def test_a_bad_public_key_is_refused_as_ever(self):
        with pytest.raises(InvalidIdentity, match="ML-KEM-768 public key is not a valid one"):
            algorithms.encapsulate(b"\xff" * 1184)

    @pytest.mark.parametrize(
        ("load", "size", "algorithm"),
        [
            (algorithms.load_signing_key, 32, "ML-DSA-65"),
            (algorithms.load_decapsulation_key, 64, "ML-KEM-768"),
        ],
    )
    def test_seeds_are_refused_with_what_to_do(self, load, size, algorithm):
        with pytest.raises(UnsupportedAlgorithm, match=f"{algorithm}.*install a newer") as caught:
            load(bytes(size))
        assert "expanded form" in str(caught.value)


def test_this_build_has_native_algorithms():
    assert algorithms.has_native_algorithms()
    identity = Identity.generate()
    assert len(identity._ml_dsa.private) == algorithms.ML_DSA_SEED_SIZE
    assert len(identity.ml_kem.private) == algorithms.ML_KEM_SEED_SIZE
