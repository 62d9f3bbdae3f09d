"""The search for secrets in the output of the tests finds them, in whatever form they show."""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pqcrypto.kem import ml_kem_768
from pqcrypto.sign import ml_dsa_65

from gateway import auth, tickets
from tests import secret_search
from tests.secret_search import (
    BLOCK,
    SHORTEST,
    SecretSearch,
    Session,
    private_parts_of_file,
)
from zapcore.zwing import Identity

ROOT = Path(__file__).parents[2]
KEYS = {"Ed25519 key", "X25519 key", "ML-DSA-65 key", "ML-KEM-768 key"}
KEY = b"\"'\\" + bytes(range(227, 256))
"""Each way to write it differs from the others."""


@pytest.fixture
def search() -> Iterator[SecretSearch]:
    """One of its own: what is planted here must not fail the session."""
    made = SecretSearch()
    yield made
    made.close()


@pytest.fixture
def session(search: SecretSearch) -> Session:
    return Session(search)


def shown(search: SecretSearch) -> list[str]:
    return [str(finding) for finding in search.findings()]


# The search.


@pytest.mark.parametrize(
    ("form", "shown_as"),
    [
        ("as it is", KEY),
        ("as text", KEY.decode("latin-1")),
        ("in hex", KEY.hex()),
        ("in HEX", KEY.hex().upper()),
        ("in base64", base64.b64encode(KEY).decode()),
        ("in base64", base64.b64encode(KEY).decode().rstrip("=")),
        ("in base64", base64.b64encode(KEY + b"and more").decode()),
        ("in URL-safe base64", base64.urlsafe_b64encode(KEY).decode()),
        ("as Python shows it", repr(KEY)),
        ("as Python shows it", str({"key": bytearray(KEY)})),
        ("as numbers", str(list(KEY))),
    ],
)
@pytest.mark.parametrize("before", range(BLOCK + 1))
def test_a_secret_is_found_in_every_form_wherever_it_stands(
    search: SecretSearch, form: str, shown_as: str | bytes, before: int
):
    search.remember("key", KEY)
    search.collect("here", "." * before)
    search.collect("here", shown_as)
    search.collect("here", ".")
    assert shown(search) == [f"key, {form}: here"]


@pytest.mark.parametrize("quote", [b"'", b'"'])
@pytest.mark.parametrize("around", [b"", b"'", b'"', b"'\""])
def test_a_quote_does_not_hide_a_secret(search: SecretSearch, quote: bytes, around: bytes):
    key = bytes(range(200, 216)) + quote + bytes(range(216, 231))
    search.remember("key", key)
    search.collect("here", repr(around + key + around))
    assert shown(search) == ["key, as Python shows it: here"]


def test_a_secret_is_found_across_the_pieces_in_which_the_file_is_read(search: SecretSearch):
    key = os.urandom(32)
    search.remember("key", key)
    piece = 4096 * BLOCK
    search.collect("before", "." * (piece - 30))
    search.collect("here", key.hex())
    search.collect("after", "." * piece)
    assert shown(search) == ["key, in hex: here"]


@pytest.mark.parametrize("padding", ["", "=", "=="])
def test_base64_is_found_at_every_length(search: SecretSearch, padding: str):
    key = os.urandom(33 - len(padding))
    text = base64.b64encode(key).decode()
    assert text.endswith(padding)
    search.remember("key", key)
    search.collect("here", f'{{"key": "{text}"}}')
    assert [finding.where for finding in search.findings()] == ["here"]


def test_what_is_secret_may_be_learned_after_it_was_shown(search: SecretSearch):
    token = auth.new_token()
    search.collect("here", token)
    search.remember("token", token)
    assert shown(search) == ["token, as it is: here"]


def test_a_secret_may_show_where_it_is_shown_on_purpose_and_nowhere_else(search: SecretSearch):
    token = auth.new_token()
    search.remember("token", token, may_show_in="here")
    for where in ("here", "there", "here"):
        search.collect(where, token)
    assert shown(search) == ["token, as it is: there"]


def test_what_is_found_twice_in_a_place_is_told_once(search: SecretSearch):
    token = auth.new_token()
    search.remember("token", token)
    search.collect("here", f"{token} {token}")
    assert len(shown(search)) == 1


def test_what_shows_no_secret_passes(search: SecretSearch):
    identity, token = Identity.generate(), auth.new_token()
    search.remember("token", token)
    for text in (
        repr(identity),
        bytes(identity.public).hex(),
        base64.b64encode(bytes(identity.public)).decode(),
        auth.token_line("me", "read", token),
        token[: SHORTEST - 1],
        auth.new_token(),
        "",
        "\udcff",
    ):
        search.collect("here", text)
    assert shown(search) == []


def test_a_key_of_zeros_is_no_secret(search: SecretSearch):
    search.remember("key", bytes(32))
    search.collect("here", bytes(32).hex())
    assert shown(search) == []


def test_what_is_said_after_the_end_is_left_out(search: SecretSearch):
    search.close()
    search.collect("here", "too late")


# What is watched.


def kinds(known: SecretSearch, text: str) -> set[str]:
    """What another search would find in a text, if it knew the same secrets."""
    found = SecretSearch()
    for secret in tuple(known._secrets):
        found.remember(*secret)
    found.collect("here", text)
    try:
        return {finding.kind for finding in found.findings()}
    finally:
        found.close()


@pytest.fixture
def watched() -> SecretSearch:
    return secret_search.session.search


def test_every_token_is_remembered(watched: SecretSearch):
    assert kinds(watched, auth.new_token()) == {"token"}


def test_every_ticket_and_what_makes_tickets_is_remembered(watched: SecretSearch):
    key = tickets.new_key()
    token = auth.Token("me", "read", auth.digest_of("secret"))
    assert kinds(watched, key.hex()) == {"ticket key"}
    assert kinds(watched, tickets.Tickets(key).issue(token)) == {"stream ticket"}


def of_seeds() -> Identity:
    return Identity.generate()


def of_expanded_keys() -> Identity:
    public, ml_dsa = ml_dsa_65.keygen()
    _, ml_kem = ml_kem_768.keygen()
    seeds = {"ed25519": os.urandom(32), "x25519": os.urandom(32)}
    return Identity.from_private_keys(ml_dsa=ml_dsa, ml_dsa_public=public, ml_kem=ml_kem, **seeds)


@pytest.mark.parametrize("make", [of_seeds, of_expanded_keys])
def test_every_key_of_an_identity_is_remembered(
    watched: SecretSearch, tmp_path: Path, make: Callable[[], Identity]
):
    identity, path = make(), tmp_path / "id.json"
    identity.save(path)
    assert kinds(watched, path.read_text()) == KEYS
    assert set(dict(private_parts_of_file(path))) == KEYS
    for key in (identity._ml_dsa.private, identity.ml_kem.private):
        for form in (key.hex(), repr(key), base64.urlsafe_b64encode(key).decode()):
            assert len(kinds(watched, form)) == 1
    for public in (bytes(identity.public), identity._ml_dsa.public, identity.ml_kem.public):
        assert kinds(watched, public.hex() + base64.b64encode(public).decode()) == set()


# A session.


def test_a_command_that_prints_a_token_may_do_so_and_no_other(session: Session):
    token = auth.new_token()
    session.command(("token", "new", "me"), f"Token, shown once:  {token}\n", "")
    assert session.verdict() is None
    session.begins("tests/test_it.py::test_it[parameter]")
    session.command(("serve", "--port", 0), "", f"came with {token}")
    report = session.verdict()
    assert report is not None
    assert "token, as it is: `zap-gateway serve`, run by tests/test_it.py::test_it\n" in (
        f"{report.longrepr}\n"
    )
    assert token.partition("_")[2] not in str(report.longrepr)


def test_the_keys_of_a_command_are_those_of_its_identity_files(session: Session, tmp_path: Path):
    path = tmp_path / "id.json"
    Identity.generate().save(path)
    (tmp_path / "no.json").write_text("{}")
    key = base64.b64decode(json.loads(path.read_text())["x25519"])
    session.command(("simulate", "--identity", path, tmp_path / "no.json", "\0"), key.hex())
    assert shown(session.search) == [
        "X25519 key, in hex: `zap-gateway simulate`, run by the collection of tests"
    ]


def test_the_log_is_searched_but_for_that_of_the_tests_own_clients(session: Session):
    token = auth.new_token()
    session.remember_token(token, may_show_in=None)
    for name, told in (("httpx", 0), ("gateway.request", 1)):
        record = logging.makeLogRecord({"name": name, "msg": "%s", "args": (token,)})
        session._logged(None, logging.getLogger(), record)
        assert len(shown(session.search)) == told


PLANTED = """
import logging, sys
import pytest
from gateway.auth import new_token
from gateway.cli import main
from zapcore.zwing import Identity

SECRET = new_token()

def test_nothing():
    print("nothing", Identity.generate())

def test_that_prints():
    print(SECRET)

@pytest.mark.parametrize("secret", [SECRET])
def test_that_has_a_parameter(secret):
    print(secret, file=sys.stderr)

def test_that_logs():
    try:
        raise ValueError(SECRET)
    except ValueError:
        logging.getLogger("gateway").exception("failed")

def test_that_reads_what_it_printed(capsys):
    print(Identity.generate().x25519.private_bytes_raw())
    capsys.readouterr()

def test_on_purpose(capsys):
    main(["token", "new", "me"])
    assert "zgw_" in capsys.readouterr().out
"""


def run_session(folder: Path, chosen: str = "") -> subprocess.CompletedProcess[str]:
    """A session with these tests' conftest over tests that leak."""
    (folder / "test_planted.py").write_text(PLANTED)
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"),
            *("-c", ROOT / "pyproject.toml", "--rootdir", folder, "-q", "-k", chosen, folder),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_session_in_which_a_secret_shows_fails_and_says_where(tmp_path: Path):
    done = run_session(tmp_path)
    assert done.returncode == 1, done.stdout
    assert "6 passed, 1 error" in done.stdout
    told = set(re.findall(r"  (.*): test_planted.py::(\w+)$", done.stdout, re.MULTILINE))
    assert told == {
        ("token, as it is", "test_that_prints"),
        ("token, as it is", "test_that_has_a_parameter"),
        ("token, as it is", "test_that_logs"),
        ("X25519 key, as Python shows it", "test_that_reads_what_it_printed"),
    }
    assert "zgw_" not in done.stdout + done.stderr


def test_a_session_in_which_no_secret_shows_passes(tmp_path: Path):
    done = run_session(tmp_path, "nothing or on_purpose")
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
