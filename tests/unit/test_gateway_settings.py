"""Settings and durations: what is taken, what is refused, and in which words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.auth import new_token, token_line
from gateway.durations import parse_bounded, parse_duration
from gateway.settings import (
    ENVIRONMENT_PREFIX,
    Settings,
    SettingsError,
    flag_of,
    load_settings,
)
from zapcore import Identity
from zapcore.errors import IdentityMismatch, UnknownServer, ZapError

FINGERPRINT = "SHA256:" + "A" * 43


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith(ENVIRONMENT_PREFIX):
            monkeypatch.delenv(name)


# Durations.


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("1", 1),
        ("1.5", 1.5),
        ("0.25s", 0.25),
        ("500ms", 0.5),
        ("1s", 1),
        ("2m", 120),
        ("1h", 3600),
        ("1.5h", 5400),
        ("007", 7),
        ("999999999999", 999999999999),
    ],
)
def test_a_time_is_read(text: str, seconds: float):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "s",
            "1 s",
            " 1",
            "1\n",
            "-1",
            "+1",
            "1e3",
            "1.",
            ".5",
            "1d",
            "1S",
            "1us",
            "nan",
        ),
        *("inf", "1s1s", "1:00", "١", "1,5", "0x1", "9" * 13, "0." + "9" * 10, "x" * 10_000),
    ],
)
def test_what_is_no_time_is_refused_briefly(text: str):
    with pytest.raises(ValueError, match="is not a time") as caught:
        parse_duration(text)
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize(
    ("text", "fits"), [("0.1", True), ("1h", True), ("99ms", False), ("61m", False)]
)
def test_limits_of_a_time(text: str, fits: bool):
    if fits:
        parse_bounded(text, 0.1, 3600)
    else:
        with pytest.raises(ValueError, match=r"outside 0\.1 s to 3600 s"):
            parse_bounded(text, 0.1, 3600)


# Where settings come from.


def test_without_anything_the_gateway_is_safe():
    settings = load_settings({})
    assert settings.host == "127.0.0.1"
    assert settings.tokens is None
    assert not settings.trust_on_first_use
    assert settings.server is None
    settings.check_bind()


def test_flags_win_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "settings.toml"
    file.write_text('port = 1\nmax_calls = 1\nmax_streams = 1\ncall_timeout = "3s"\n')
    monkeypatch.setenv("ZAP_GATEWAY_PORT", "2")
    monkeypatch.setenv("ZAP_GATEWAY_MAX_CALLS", "2")
    settings = load_settings({"port": "3"}, file)
    assert (settings.port, settings.max_calls, settings.max_streams) == (3, 2, 1)
    assert settings.call_timeout == 3


def test_the_same_setting_in_each_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "settings.toml"
    file.write_text('allowed_host = ["a.example", "b.example"]\ncall_timeout = 1.5\n')
    from_file = load_settings({}, file)
    monkeypatch.setenv("ZAP_GATEWAY_ALLOWED_HOST", " a.example,b.example ")
    monkeypatch.setenv("ZAP_GATEWAY_CALL_TIMEOUT", "1500ms")
    from_environment = load_settings({})
    from_flags = load_settings({"allowed_host": ("a.example", "b.example"), "call_timeout": "1.5"})
    assert from_file.model_dump() == from_environment.model_dump() == from_flags.model_dump()
    assert from_file.allowed_host == ("a.example", "b.example")


def test_every_setting_has_a_description_and_a_flag_of_its_own():
    flags = {flag_of(name) for name in Settings.model_fields}
    assert len(flags) == len(Settings.model_fields)
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("port", "x", "--port (or ZAP_GATEWAY_PORT) 'x': "),
        ("port", "65536", "--port"),
        ("max_calls", "0", "--max-calls (or ZAP_GATEWAY_MAX_CALLS) '0': "),
        ("connections", "65", "--connections"),
        ("max_body", "1023", "--max-body"),
        ("call_timeout", "0", "--call-timeout"),
        ("call_timeout", "never", "'never' is not a time"),
        ("call_timeout", "86401", "--call-timeout"),
        ("upstream", "host:port", "give host:port"),
        ("upstream", "http://host:1", "give host:port"),
        ("upstream", "host:0", "give host:port"),
        ("allowed_origin", ("ftp://a.example",), "is no origin"),
        ("allowed_origin", ("https://",), "is no origin"),
        ("allowed_origin", ("https://a.example/path",), "is no origin"),
        ("log_level", "LOUD", "--log-level"),
        ("trust_on_first_use", "maybe", "--trust-on-first-use"),
        ("nonsense", "1", "there is no setting 'nonsense'"),
    ],
)
def test_a_wrong_value_is_told_with_its_name(name: str, value: object, said: str):
    with pytest.raises(SettingsError) as caught:
        load_settings({name: value})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "Value error" not in str(caught.value)


def test_a_wrong_value_is_not_repeated_at_length():
    with pytest.raises(SettingsError) as caught:
        load_settings({"port": "9" * 10_000})
    assert len(str(caught.value)) < 400


def test_all_wrong_values_are_told_at_once():
    with pytest.raises(SettingsError, match=r"--port.*; .*--max-calls"):
        load_settings({"port": "x", "max_calls": "x"})


@pytest.mark.parametrize("text", ["port = ", "[port", "\x00", "port = 1\nport = 2"])
def test_a_file_that_is_no_toml(tmp_path: Path, text: str):
    file = tmp_path / "settings.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match="can't read the settings"):
        load_settings({}, file)


def test_a_file_that_is_not_text(tmp_path: Path):
    file = tmp_path / "settings.toml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="can't read the settings"):
        load_settings({}, file)


def test_a_file_that_is_not_there(tmp_path: Path):
    for path in (tmp_path / "nowhere.toml", tmp_path):
        with pytest.raises(SettingsError, match="there is no settings file"):
            load_settings({}, path)


# What they lead to.


def test_an_identity_is_needed():
    with pytest.raises(SettingsError, match="zap-gateway identity new"):
        load_settings({}).load_identity()


def test_an_identity_is_loaded(tmp_path: Path, alice: Identity):
    alice.save(tmp_path / "id.json")
    settings = load_settings({"identity": str(tmp_path / "id.json")})
    assert settings.load_identity().public == alice.public


def test_a_server_by_fingerprint_or_by_file(tmp_path: Path, bob: Identity):
    assert load_settings({"server": FINGERPRINT}).expected_server() == FINGERPRINT
    bob.public.save(tmp_path / "bob.pub")
    settings = load_settings({"server": str(tmp_path / "bob.pub")})
    assert settings.expected_server() == bob.public


@pytest.mark.parametrize("server", ["x", "SHA256:short", "MD5:" + "A" * 43, ""])
def test_a_server_that_is_neither(server: str):
    with pytest.raises((ZapError, SettingsError), match="neither a fingerprint"):
        load_settings({"server": server}).expected_server()


def test_a_server_by_the_known_servers(tmp_path: Path, alice: Identity, bob: Identity):
    known = tmp_path / "known"
    known.write_text(f"host:1 {bob.public.fingerprint}\n")
    check = load_settings({"upstream": "host:1", "known_servers": known}).expected_server()
    assert callable(check)
    check(bob.public)
    with pytest.raises(IdentityMismatch):
        check(alice.public)
    stranger = load_settings({"upstream": "host:2", "known_servers": known}).expected_server()
    with pytest.raises(UnknownServer, match="unknown"):
        stranger(bob.public)
    trusting = load_settings(
        {"upstream": "host:2", "known_servers": known, "trust_on_first_use": True}
    ).expected_server()
    trusting(alice.public)
    assert f"host:2 {alice.public.fingerprint}" in known.read_text()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "gateway.example"])  # noqa: S104
def test_beyond_loopback_tokens_are_needed(host: str, tmp_path: Path):
    with pytest.raises(SettingsError, match="lets other machines in"):
        load_settings({"host": host}).check_bind()
    tokens = tmp_path / "tokens"
    tokens.write_text(token_line("me", "read", new_token()))
    load_settings({"host": host, "tokens": tokens}).check_bind()
    tokens.write_text("# nobody yet\n")
    with pytest.raises(SettingsError, match="has no tokens"):
        load_settings({"host": host, "tokens": tokens}).check_bind()


def test_an_empty_variable_says_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """As with `${TOKEN:-}` in a compose file: it must not take the place of what the file says."""
    file = tmp_path / "gateway.toml"
    line = token_line("me", "read", new_token())
    file.write_text(f'token = ["{line}"]')
    monkeypatch.setenv("ZAP_GATEWAY_TOKEN", "")
    assert load_settings({}, file).token == (line,)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"allowed_host": "[fe80::1]"}, ("fe80::1",)),
        ({"allowed_host": "tools.example, other"}, ("tools.example", "other")),
        ({"allowed_origin": "https://a.example:443/"}, ("https://a.example",)),
        ({"allowed_origin": "http://a.example:80"}, ("http://a.example",)),
        ({"allowed_origin": "http://a.example:443"}, ("http://a.example:443",)),
        ({"allowed_origin": "https://[::1]:81"}, ("https://[::1]:81",)),
    ],
)
def test_names_and_origins_are_kept_as_browsers_say_them(
    given: dict[str, object], kept: tuple[str, ...]
):
    (name,) = given
    assert getattr(load_settings(given), name) == kept


@pytest.mark.parametrize(
    "given",
    [
        {"allowed_host": "name:8081"},
        {"allowed_host": "http://name"},
        {"allowed_host": "*.example"},
        {"allowed_origin": "https://*.example"},
        {"allowed_origin": "*"},
        {"allowed_origin": "null"},
        {"root_path": "netrunner"},
        {"root_path": "/a b"},
        {"root_path": "//a"},
        {"trusted_proxy": "proxy.example"},
        {"trusted_proxy": "10.0.0.1/8"},
        {"tls_key": "key.pem"},
        {"tls_certificate": "certificate.pem"},
        {"workers": "0"},
        {"max_timeout": "0"},
        {"port": "tcp://10.0.0.1:8081"},
    ],
)
def test_what_would_never_match_or_work_is_refused(given: dict[str, object]):
    with pytest.raises(SettingsError):
        load_settings(given)


def test_tokens_are_loaded_or_refused_as_a_setting(tmp_path: Path):
    assert load_settings({}).load_tokens() == ()
    with pytest.raises(SettingsError, match="can't read"):
        load_settings({"tokens": tmp_path / "nowhere"}).load_tokens()
