"""Identity files: private ones stay private, malformed ones tell nothing."""

import base64
import json
import os
import stat
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.strategies import mutations
from zapcore import Identity, PublicIdentity
from zapcore.errors import IdentityError, KeyFileError
from zapcore.zwing import keyfile

KEYS = ["ed25519", "ml_dsa", "ml_kem", "x25519"]
ENTRIES = [*KEYS, "ml_dsa_public"]

posix_only = pytest.mark.skipif(os.name != "posix", reason="modes are a matter of POSIX")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "id.json"


@pytest.fixture(scope="module")
def document(alice, tmp_path_factory) -> dict[str, str]:
    """What a good identity file holds."""
    good = tmp_path_factory.mktemp("good") / "id.json"
    alice.save(good)
    return json.loads(good.read_text())


def write(path, content: bytes | str | dict, mode: int = 0o600) -> None:
    if isinstance(content, dict):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)


@pytest.fixture
def umask():
    """Sets the umask for one test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


class TestSaving:
    def test_an_identity_comes_back_as_it_was(self, alice, path):
        alice.save(path)
        loaded = Identity.load(path)
        assert loaded.public == alice.public
        assert alice.public.verify("label", b"message", loaded.sign("label", b"message"))

    def test_paths_may_be_texts(self, alice, path):
        alice.save(str(path))
        assert Identity.load(str(path)).public == alice.public

    @posix_only
    @pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777], ids=oct)
    def test_only_the_owner_can_read_it_whatever_the_umask(self, alice, path, umask, mask):
        umask(mask)
        alice.save(path)
        umask(0o022)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    @posix_only
    def test_it_is_never_readable_by_others_not_even_for_a_moment(
        self, alice, path, umask, monkeypatch
    ):
        """The mode that it is made with counts: chmod comes too late."""
        umask(0)
        modes = []
        real = os.fchmod

        def fchmod(descriptor, mode):
            modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
            real(descriptor, mode)

        monkeypatch.setattr(os, "fchmod", fchmod)
        alice.save(path)
        assert modes == [0o600]

    def test_a_file_is_never_overwritten(self, alice, bob, path):
        alice.save(path)
        before = path.read_bytes()
        with pytest.raises(KeyFileError, match="exists already"):
            bob.save(path)
        with pytest.raises(KeyFileError, match="exists already"):
            bob.public.save(path)
        assert path.read_bytes() == before

    def test_a_dangling_link_is_not_followed(self, alice, path, tmp_path):
        """Somebody else may have put it there."""
        path.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(KeyFileError, match="exists already"):
            alice.save(path)
        assert not (tmp_path / "elsewhere").exists()

    def test_a_missing_directory_is_named(self, alice, tmp_path):
        with pytest.raises(KeyFileError, match=r"can't write .*id\.json: No such file"):
            alice.save(tmp_path / "missing" / "id.json")

    def test_a_full_disk_leaves_no_half_file(self, alice, path, monkeypatch):
        def fsync(descriptor):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", fsync)
        with pytest.raises(KeyFileError, match="No space left"):
            alice.save(path)
        assert not path.exists()


@posix_only
class TestModes:
    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o601, 0o660, 0o777], ids=oct)
    def test_what_others_can_read_is_refused_with_what_to_do(self, path, document, mode):
        write(path, document, mode)
        with pytest.raises(KeyFileError, match=rf"mode {mode:04o}\): chmod 600 ") as caught:
            Identity.load(path)
        assert f"chmod 600 {path}" in str(caught.value)

    @pytest.mark.parametrize("mode", [0o600, 0o400, 0o700], ids=oct)
    def test_what_only_the_owner_can_read_is_accepted(self, alice, path, document, mode):
        write(path, document, mode)
        assert Identity.load(path).public == alice.public

    @pytest.mark.parametrize(("mode", "accepted"), [(0o440, True), (0o444, False)])
    def test_another_owner_s_file_may_be_our_group_s_but_not_everybody_s(
        self, path, document, monkeypatch, mode, accepted
    ):
        """That is how a container gets a secret, and it could not change the mode."""
        write(path, document, mode)
        owner = path.stat().st_uid
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
        if accepted:
            assert len(Identity.load(path).public.fingerprint) == 50
        else:
            with pytest.raises(KeyFileError, match="chmod 600"):
                Identity.load(path)

    def test_a_link_is_judged_by_what_it_points_to(self, path, document, tmp_path):
        write(tmp_path / "real", document, 0o644)
        path.symlink_to(tmp_path / "real")
        with pytest.raises(KeyFileError, match="chmod 600"):
            Identity.load(path)

    def test_where_there_are_no_modes_none_is_asked_for(self, path, document, monkeypatch):
        write(path, document, 0o644)
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
        monkeypatch.setattr(os, "name", "nt")
        assert keyfile._check_mode(path, status) is None


def told(error: BaseException) -> str:
    """All that an error and what led to it would show in a log, repr included.

    A UnicodeDecodeError's repr quotes the whole file, for one.
    """
    shown = "".join(traceback.format_exception(error))
    link: BaseException | None = error
    while link is not None:
        shown += str(link) + repr(link)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return shown


def assert_tells_nothing(error: BaseException, document: dict[str, str]) -> None:
    for name in ENTRIES:
        raw = base64.b64decode(document[name])
        for secret in (document[name], raw.hex(), repr(raw)[2:-1]):
            assert secret[:24] not in told(error), f"the error quotes {name}"


def without(name):
    """A file that lacks one entry."""
    return lambda good: json.dumps({key: value for key, value in good.items() if key != name})


def changed(name, change):
    """A file with one entry changed."""
    return lambda good: json.dumps(good | {name: change(good[name])})


MALFORMED = {
    "empty": lambda _: "",
    "not json": lambda good: good["ed25519"],
    "cut json": lambda good: json.dumps(good)[:-20],
    "json twice": lambda good: json.dumps(good) * 2,
    "not utf-8": lambda good: b"\xff\xfe" + json.dumps(good).encode(),
    "a list": lambda good: json.dumps([good]),
    "a text": lambda good: json.dumps(good["ed25519"]),
    "null": lambda _: "null",
    "deep": lambda _: "[" * 30_000,
    "a long number": lambda _: '{"format": ' + "1" * 5000 + "}",
    "no format": without("format"),
    "another format": changed("format", lambda _: "zwing-identity-v2"),
    "a key in place of the format": lambda good: json.dumps(good | {"format": good["ed25519"]}),
    "keys inside the format": lambda good: json.dumps({"format": good}),
    **{f"no {name}": without(name) for name in ENTRIES},
    **{f"{name} a number": changed(name, lambda _: 7) for name in ENTRIES},
    **{f"{name} null": changed(name, lambda _: None) for name in ENTRIES},
    **{f"{name} not base64": changed(name, lambda old: old[:-4] + "!!!!") for name in ENTRIES},
    **{f"{name} not ascii": changed(name, lambda old: old + "ä") for name in ENTRIES},
    **{f"{name} unpadded": changed(name, lambda old: old.rstrip("=")) for name in ENTRIES},
    **{f"{name} too long": changed(name, lambda old: "AAAA" + old) for name in ENTRIES},
    **{f"{name} empty": changed(name, lambda _: "") for name in KEYS},
}


class TestMalformed:
    @pytest.mark.parametrize("spoil", MALFORMED.values(), ids=MALFORMED)
    def test_a_malformed_file_is_refused_and_not_quoted(self, document, path, spoil):
        write(path, spoil(document))
        with pytest.raises(IdentityError) as caught:
            Identity.load(path)
        assert_tells_nothing(caught.value, document)

    def test_what_is_no_identity_file_is_said_to_be_none(self, path):
        write(path, "{}")
        with pytest.raises(KeyFileError, match=f"{path} is not an identity file"):
            Identity.load(path)

    def test_another_version_is_said_to_be_one(self, path, document):
        write(path, document | {"format": "zwing-identity-v2"})
        with pytest.raises(KeyFileError, match=r"zwing-identity-v2.*not 'zwing-identity-v1'"):
            Identity.load(path)

    @given(data=st.data())
    def test_a_changed_file_loads_or_gives_an_identity_error(
        self, document, tmp_path_factory, data
    ):
        path = tmp_path_factory.mktemp("mutated") / "id.json"
        write(path, data.draw(mutations(json.dumps(document).encode())))
        try:
            loaded = Identity.load(path)
        except IdentityError as error:
            assert_tells_nothing(error, document)
        else:
            assert len(bytes(loaded.public)) == 3200

    def test_a_file_beyond_the_bound_is_refused(self, path, document):
        write(path, json.dumps(document) + " " * 64 * 1024)
        with pytest.raises(KeyFileError, match="too large for a key file"):
            Identity.load(path)

    @pytest.mark.parametrize("load", [Identity.load, PublicIdentity.load])
    def test_a_missing_file_is_named(self, load, path):
        with pytest.raises(KeyFileError, match=f"can't read {path}: No such file"):
            load(path)

    @pytest.mark.parametrize("load", [Identity.load, PublicIdentity.load])
    def test_a_directory_is_no_file(self, load, tmp_path):
        with pytest.raises(KeyFileError, match=r"can't read .*directory"):
            load(tmp_path)


class TestPublicFiles:
    def test_a_public_identity_comes_back_as_it_was(self, alice, path):
        alice.public.save(path)
        assert PublicIdentity.load(path) == alice.public

    @posix_only
    def test_it_may_be_read_by_all(self, alice, path):
        alice.public.save(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o644

    @pytest.mark.parametrize(
        "form",
        [
            bytes,
            base64.b64encode,
            base64.encodebytes,
            lambda raw: b"\r\n \t" + base64.encodebytes(raw).replace(b"\n", b"\r\n") + b"\n\n",
        ],
        ids=["raw", "one line", "lines", "white space"],
    )
    def test_raw_bytes_and_base64_are_read(self, alice, path, form):
        write(path, form(bytes(alice.public)), 0o644)
        assert PublicIdentity.load(path) == alice.public

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda raw: raw[:0],
            lambda raw: raw[:-1],
            lambda raw: raw + b"\n",
            lambda raw: raw.hex().encode(),
            lambda raw: base64.b64encode(raw[:-1]),
            lambda raw: base64.b64encode(raw) + b"!",
            lambda raw: base64.b64encode(raw)[:-1],
            lambda raw: base64.urlsafe_b64encode(b"\xff" * len(raw)),
        ],
        ids=["empty", "short", "long", "hex", "short base64", "mark", "cut base64", "url-safe"],
    )
    def test_anything_else_is_refused(self, alice, path, spoil):
        write(path, spoil(bytes(alice.public)), 0o644)
        with pytest.raises(KeyFileError, match=r"not a public identity: .* neither 3200 bytes"):
            PublicIdentity.load(path)

    def test_a_file_beyond_the_bound_is_refused(self, path):
        write(path, b"A" * (64 * 1024 + 1), 0o644)
        with pytest.raises(KeyFileError, match="too large for a key file"):
            PublicIdentity.load(path)
