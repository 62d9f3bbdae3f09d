"""Known servers: a file of addresses and fingerprints, as ssh users know it."""

import os
import stat

import pytest

from zapcore import KnownServers
from zapcore.errors import (
    IdentityMismatch,
    KnownServersError,
    UnknownServer,
)
from zapcore.zwing import Initiator, Responder

ADDRESS = "node.example:9999"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "known_servers"


def test_no_file_knows_nobody(path):
    assert KnownServers(path).fingerprints() == {}


def test_lines_comments_and_blank_lines_are_read(path, alice, bob):
    path.write_text(
        "# servers of the test net\n"
        "\n"
        f"{ADDRESS} {alice.public.fingerprint}\n"
        f"  [::1]:9999\t{bob.public.fingerprint}   # on this machine\r\n"
        "   \n"
    )
    assert KnownServers(path).fingerprints() == {
        ADDRESS: alice.public.fingerprint,
        "[::1]:9999": bob.public.fingerprint,
    }


def test_the_last_line_needs_no_end(path, alice):
    path.write_text(f"{ADDRESS} {alice.public.fingerprint}")
    assert KnownServers(path).fingerprints() == {ADDRESS: alice.public.fingerprint}


@pytest.mark.parametrize(
    "line",
    [
        "node.example:9999",
        "node.example:9999 SHA256:short",
        "node.example:9999 MD5:" + "A" * 43,
        "node.example:9999 SHA256:" + "A" * 43 + " extra",
        "node.example:9999 SHA256:" + "A" * 43 + "=",
        "SHA256:" + "A" * 43,
        "node.example:9999 sha256:" + "A" * 43,
    ],
)
def test_a_malformed_line_is_named_by_its_number(path, line):
    path.write_text(f"# comment\n\n{line}\n")
    with pytest.raises(KnownServersError, match=f"{path}, line 3: not `host:port SHA256:"):
        KnownServers(path).fingerprints()


def test_the_same_line_twice_counts_once(path, alice):
    """Two processes that trust on first use at the same time may both write it."""
    path.write_text(f"{ADDRESS} {alice.public.fingerprint}\n" * 2)
    assert KnownServers(path).fingerprints() == {ADDRESS: alice.public.fingerprint}


def test_two_fingerprints_for_a_server_are_refused(path, alice, bob):
    """Which of two would count must not depend on who wrote last."""
    lines = [f"{ADDRESS} {who.public.fingerprint}" for who in (alice, bob)]
    path.write_text("\n".join(lines))
    with pytest.raises(KnownServersError, match=f"line 2: another fingerprint for {ADDRESS}"):
        KnownServers(path).fingerprints()


def test_a_file_that_is_no_text_is_refused(path):
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(KnownServersError, match="is not text"):
        KnownServers(path).fingerprints()


def test_a_file_beyond_the_bound_is_refused(path):
    path.write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(KnownServersError, match="is over 1048576 bytes"):
        KnownServers(path).fingerprints()


def test_a_directory_is_no_file(tmp_path):
    with pytest.raises(KnownServersError, match="can't read"):
        KnownServers(tmp_path).fingerprints()


def test_a_known_server_is_accepted(path, alice):
    path.write_text(f"{ADDRESS} {alice.public.fingerprint}\n")
    before = path.read_bytes()
    assert KnownServers(path).check(ADDRESS, alice.public) is None
    assert KnownServers(path, trust_on_first_use=True).check(ADDRESS, alice.public) is None
    assert path.read_bytes() == before


def test_an_unknown_server_is_refused_with_the_line_to_add(path, alice):
    with pytest.raises(UnknownServer) as caught:
        KnownServers(path).check(ADDRESS, alice.public)
    assert f"{ADDRESS} {alice.public.fingerprint}" in str(caught.value)
    assert str(path) in str(caught.value)
    assert not path.exists()


def test_another_port_is_another_server(path, alice):
    path.write_text(f"{ADDRESS} {alice.public.fingerprint}\n")
    with pytest.raises(UnknownServer):
        KnownServers(path).check("node.example:9998", alice.public)


@pytest.mark.parametrize("first_use", [False, True])
def test_a_changed_server_is_refused_and_both_fingerprints_named(path, alice, bob, first_use):
    """Trust on first use is for the first use only."""
    path.write_text(f"{ADDRESS} {alice.public.fingerprint}\n")
    with pytest.raises(IdentityMismatch) as caught:
        KnownServers(path, trust_on_first_use=first_use).check(ADDRESS, bob.public)
    assert not isinstance(caught.value, UnknownServer)
    assert alice.public.fingerprint in str(caught.value)
    assert bob.public.fingerprint in str(caught.value)


def test_trust_on_first_use_writes_a_line_and_holds_to_it(tmp_path, alice, bob):
    path = tmp_path / "config" / "known_servers"
    servers = KnownServers(path, trust_on_first_use=True)
    servers.check(ADDRESS, alice.public)
    assert path.read_text() == f"{ADDRESS} {alice.public.fingerprint}\n"
    servers.check(ADDRESS, alice.public)
    with pytest.raises(IdentityMismatch):
        servers.check(ADDRESS, bob.public)
    assert path.read_text().count("\n") == 1


@pytest.mark.skipif(os.name != "posix", reason="modes are a matter of POSIX")
def test_a_new_file_is_its_owner_s(path, alice):
    KnownServers(path).add(ADDRESS, alice.public)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_lines_are_added_behind_what_is_there(path, alice, bob):
    path.write_text(f"# mine\nother:1 {alice.public.fingerprint}\n")
    KnownServers(path).add(ADDRESS, bob.public)
    assert path.read_text().startswith("# mine\n")
    assert KnownServers(path).fingerprints() == {
        "other:1": alice.public.fingerprint,
        ADDRESS: bob.public.fingerprint,
    }


def test_a_line_is_added_behind_one_without_an_end(path, alice, bob):
    """Editors leave such files, and two lines in one would lose both servers."""
    path.write_text(f"other:1 {alice.public.fingerprint}")
    KnownServers(path).add(ADDRESS, bob.public)
    assert KnownServers(path).fingerprints() == {
        "other:1": alice.public.fingerprint,
        ADDRESS: bob.public.fingerprint,
    }


def test_a_file_that_can_not_be_written_is_named(tmp_path, alice):
    with pytest.raises(KnownServersError, match=f"can't write {tmp_path}"):
        KnownServers(tmp_path).add(ADDRESS, alice.public)


def test_a_rule_decides_a_handshake(path, alice, bob):
    servers = KnownServers(path)
    initiator = Initiator(alice, servers.rule(ADDRESS))
    frame, _ = Responder(bob).respond(initiator.initiate()[4:])
    with pytest.raises(UnknownServer):
        initiator.finish(frame[4:])
    servers.add(ADDRESS, bob.public)
    assert initiator.finish(frame[4:]).remote == bob.public
