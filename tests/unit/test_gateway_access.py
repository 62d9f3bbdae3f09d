"""Access rules and token files, as tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.auth import (
    Access,
    Grant,
    Refusal,
    RequestHeaders,
    Token,
    TokenFileError,
    digest_of,
    is_loopback,
    load_tokens,
    new_token,
    token_line,
)

READ, OPERATE = "read-secret", "operate-secret"
TOKENS = (Token("r", "read", digest_of(READ)), Token("o", "operate", digest_of(OPERATE)))

OPEN = Access()
NAMED = Access((), ("Tools.Example",), ("https://Tools.Example/", "http://other.example:81"))
GUARDED = Access(TOKENS)
GUARDED_AND_NAMED = Access(TOKENS, ("tools.example",), ("https://tools.example",))

HERE = "127.0.0.1:8081"


def check(access: Access, verb: str = "GET", path: str = "/v1/status", **headers: str) -> int:
    """The status of a refusal, or 200."""
    names = dict.fromkeys(RequestHeaders._fields, "") | {"host": HERE} | headers
    refusal = access.check(verb, path, "http", RequestHeaders(**names))
    if isinstance(refusal, Grant):
        return 200
    assert refusal.detail
    return refusal.kind.status


def token(secret: str, scheme: str = "Bearer") -> dict[str, str]:
    return {"authorization": f"{scheme} {secret}"}


HOSTS = [
    ("127.0.0.1", 200),
    ("127.0.0.1:8081", 200),
    ("localhost", 200),
    ("LocalHost:1", 200),
    ("[::1]", 200),
    ("[::1]:8081", 200),
    ("", 403),
    ("evil.example", 403),
    ("evil.example:8081", 403),
    ("localhost.evil.example", 403),
    ("127.0.0.1.nip.example", 403),
    ("notlocalhost", 403),
    ("127.0.0.2", 403),
    ("0.0.0.0", 403),  # noqa: S104
    ("[::]", 403),
    ("[::1", 403),
    ("[::1]evil.example", 403),
    ("[fe80::1]", 403),
    ("tools.example", 403),
    (" localhost", 403),
    ("localhost@evil.example", 403),
]


@pytest.mark.parametrize(("host", "status"), HOSTS)
def test_host_without_tokens(host: str, status: int):
    assert check(OPEN, host=host) == status
    assert check(OPEN, "POST", "/v1/nodes", host=host) == status
    assert check(OPEN, path="/healthz", host=host) == status, "also where no token is asked for"


@pytest.mark.parametrize(
    ("access", "host", "status"),
    [
        (NAMED, "tools.example", 200),
        (NAMED, "TOOLS.example:443", 200),
        (NAMED, "localhost", 200),
        (NAMED, "a.tools.example", 403),
        (NAMED, "tools.example.evil", 403),
        (GUARDED, "anything.example", 401),
        (GUARDED_AND_NAMED, "anything.example", 403),
        (GUARDED_AND_NAMED, "tools.example", 401),
    ],
)
def test_host_with_names_and_tokens(access: Access, host: str, status: int):
    assert check(access, host=host) == status


ORIGINS = [
    # origin, Sec-Fetch-Site, Sec-Fetch-Mode, path, status
    ("", "", "", "/v1/status", 200),
    (f"http://{HERE}", "", "", "/v1/status", 200),
    (f"http://{HERE}", "same-origin", "cors", "/v1/status", 200),
    ("", "same-origin", "cors", "/v1/status", 200),
    ("", "none", "navigate", "/v1/status", 200),
    ("null", "", "", "/v1/status", 403),
    ("http://evil.example", "", "", "/v1/status", 403),
    ("http://evil.example", "cross-site", "cors", "/v1/status", 403),
    ("http://evil.example", "same-origin", "cors", "/v1/status", 403),
    (f"https://{HERE}", "", "", "/v1/status", 403),
    ("http://127.0.0.1:1", "same-site", "cors", "/v1/status", 403),
    ("http://localhost:8081", "", "", "/v1/status", 403),
    ("", "cross-site", "no-cors", "/v1/status", 403),
    ("", "same-site", "no-cors", "/v1/status", 403),
    ("", "cross-site", "navigate", "/v1/status", 403),
    ("", "cross-site", "navigate", "/docs", 200),
    ("", "cross-site", "navigate", "/healthz", 200),
    ("", "cross-site", "no-cors", "/docs", 403),
    ("http://evil.example", "cross-site", "navigate", "/docs", 403),
    ("", "something-new", "", "/v1/status", 403),
]


@pytest.mark.parametrize(("origin", "site", "mode", "path", "status"), ORIGINS)
@pytest.mark.parametrize("guarded", [False, True], ids=["open", "guarded"])
def test_origin(guarded: bool, origin: str, site: str, mode: str, path: str, status: int):
    headers = {"origin": origin, "fetch_site": site, "fetch_mode": mode}
    if guarded:
        assert check(GUARDED, path=path, **headers, **token(OPERATE)) == status
    else:
        assert check(OPEN, path=path, **headers) == status


def test_a_form_that_another_site_posts_is_no_visit():
    visit = {"fetch_site": "cross-site", "fetch_mode": "navigate"}
    assert check(OPEN, "POST", "/docs", **visit) == 403


@pytest.mark.parametrize(
    ("origin", "site", "status"),
    [
        ("https://tools.example", "", 200),
        ("https://TOOLS.example", "cross-site", 200),
        ("http://other.example:81", "same-site", 200),
        ("http://tools.example", "", 403),
        ("https://tools.example:444", "", 403),
        ("http://other.example", "", 403),
        ("https://a.tools.example", "", 403),
        ("", "cross-site", 403),
    ],
)
def test_origins_that_are_allowed(origin: str, site: str, status: int):
    assert check(NAMED, origin=origin, fetch_site=site) == status
    assert check(NAMED, "POST", "/v1/nodes", origin=origin, fetch_site=site) == status


@pytest.mark.parametrize(
    ("verb", "path", "headers", "status"),
    [
        ("GET", "/v1/status", {}, 401),
        ("GET", "/metrics", {}, 401),
        ("GET", "/nowhere", {}, 401),
        ("POST", "/v1/nodes", {}, 401),
        ("GET", "/healthz", {}, 200),
        ("GET", "/readyz", {}, 200),
        ("GET", "/docs", {}, 200),
        ("GET", "/openapi.json", {}, 200),
        ("GET", "/healthz/", {}, 401),
        ("GET", "/v1/status", token(READ), 200),
        ("HEAD", "/v1/status", token(READ), 200),
        ("GET", "/metrics", token(READ), 200),
        ("POST", "/v1/nodes", token(READ), 403),
        ("DELETE", "/v1/cluster", token(READ), 403),
        ("PATCH", "/v1/nodes", token(READ), 403),
        ("GET", "/v1/status", token(OPERATE), 200),
        ("POST", "/v1/nodes", token(OPERATE), 200),
        ("DELETE", "/v1/cluster", token(OPERATE, "bearer"), 200),
        ("GET", "/v1/status", token(READ, "Basic"), 401),
        ("GET", "/v1/status", token(READ + "x"), 401),
        ("GET", "/v1/status", token(""), 401),
        ("GET", "/v1/status", {"authorization": READ}, 401),
        ("GET", "/v1/status", {"authorization": f"Bearer  {READ} "}, 200),
        ("GET", "/v1/status", {"authorization": "Bearer \xe9\xff"}, 401),
    ],
)
def test_tokens(verb: str, path: str, headers: dict[str, str], status: int):
    assert check(GUARDED, verb, path, **headers) == status


def test_a_token_does_not_open_what_a_foreign_page_may_not():
    assert check(GUARDED, origin="http://evil.example", **token(OPERATE)) == 403


def test_without_tokens_a_token_makes_no_difference():
    assert check(OPEN, "POST", "/v1/nodes", **token("anything")) == 200


def test_no_refusal_repeats_a_secret():
    for secret in (READ, "something-wrong"):
        headers = RequestHeaders(HERE, "", "", "", f"Bearer {secret}")
        refusal = GUARDED.check("POST", "/v1/nodes", "http", headers)
        assert refusal is not None
        assert secret not in refusal.detail


def test_a_refusal_repeats_no_more_than_a_hundred_characters():
    headers = RequestHeaders("x" * 5000, "y" * 5000, "", "", "")
    refusal = OPEN.check("GET", "/", "http", headers)
    assert refusal is not None
    assert len(refusal.detail) < 400


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("0.0.0.0", False),  # noqa: S104
        ("::", False),
        ("", False),
        ("192.168.0.1", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
    ],
)
def test_loopback_is_what_only_this_machine_can_reach(host: str, expected: bool):
    assert is_loopback(host) is expected


# Token files.


def test_secrets_are_long_and_never_the_same():
    made = {new_token() for _ in range(100)}
    assert len(made) == 100
    assert all(secret.startswith("zgw_") and len(secret) > 40 for secret in made)


def test_a_line_is_read_back(tmp_path: Path):
    path = tmp_path / "tokens"
    lines = [token_line("a.b-c_1", "read", READ), "", "# note", token_line("o", "operate", OPERATE)]
    path.write_text("\r\n".join(lines) + "   # later\n")
    assert load_tokens(path) == (Token("a.b-c_1", "read", digest_of(READ)), TOKENS[1])
    assert READ not in path.read_text()


GOOD = token_line("a", "read", READ)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "has no tokens"),
        (b"# nobody\n\n", "has no tokens"),
        (GOOD.encode() + b"\nnonsense\n", "line 2"),
        (b"a write sha256:" + b"0" * 64, "line 1"),
        (b"a read sha256:" + b"0" * 63, "line 1"),
        (b"a read sha256:" + b"G" * 64, "line 1"),
        (b"a read md5:" + b"0" * 64, "line 1"),
        (b"a read " + READ.encode(), "line 1"),
        (b"a b read sha256:" + b"0" * 64, "line 1"),
        (b"x" * 65 + b" read sha256:" + b"0" * 64, "line 1"),
        (b"\xff\xfe", "can't read"),
        (b"#" * (1024 * 1024 + 1), "is over"),
    ],
)
def test_a_token_file_that_makes_no_sense_is_refused_without_quoting_it(
    tmp_path: Path, text: bytes, said: str
):
    path = tmp_path / "tokens"
    path.write_bytes(text)
    with pytest.raises(TokenFileError, match=said) as caught:
        load_tokens(path)
    assert READ not in str(caught.value)


def test_a_token_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(TokenFileError, match="can't read"):
        load_tokens(tmp_path / "nowhere")
    with pytest.raises(TokenFileError, match="can't read"):
        load_tokens(tmp_path)


@pytest.mark.parametrize("name", ["", "a b", "a\n", "a#", "x" * 65, "a\tb"])
def test_a_name_that_would_break_its_line_is_refused(name: str):
    with pytest.raises(TokenFileError, match="no token name"):
        token_line(name, "read", READ)


@pytest.mark.parametrize("host", ["", "no host", "[::1"])
def test_an_address_that_is_none_lets_nobody_in(host: str):
    """`--host ""` must not let in whose Host header can't be read."""
    access = Access(TOKENS, ("tools.example",), own_address="")
    decision = access.check("GET", "/healthz", "http", RequestHeaders(host, "", "", "", ""))
    assert isinstance(decision, Refusal)
