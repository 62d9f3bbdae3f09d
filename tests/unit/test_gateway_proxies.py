"""What proxies do to requests, undone; and who may claim to be one."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxies import Proxies, Seen

PROXY = "10.0.0.7"
TRUSTED = ("10.0.0.0/24", "2001:db8::/64", "192.0.2.1")


def scope_of(path: str = "/v1/status", client: str | None = PROXY, **more: Any) -> dict[str, Any]:
    """A request as the server hands it on."""
    return {
        "type": "http",
        "path": path,
        "root_path": "",
        "scheme": "http",
        "client": None if client is None else (client, 40_000),
        **more,
    }


def look(
    headers: dict[str, str] | None = None,
    *,
    root_path: str = "",
    trusted: tuple[str, ...] = TRUSTED,
    **scope: Any,
) -> Seen:
    given = {"host": "gateway.example", **(headers or {})}
    encoded = {name.encode(): value.encode("latin-1") for name, value in given.items()}
    return Proxies(root_path, trusted).look(scope_of(**scope), encoded)


CLAIMS = {
    "x-forwarded-for": "198.51.100.4",
    "x-forwarded-proto": "https",
    "x-forwarded-host": "public.example",
}


# Who is believed.


@pytest.mark.parametrize("client", [PROXY, "10.0.0.0", "10.0.0.255", "192.0.2.1", "2001:db8::7"])
def test_a_trusted_proxy_is_believed(client: str):
    seen = look(CLAIMS, client=client)
    assert seen == Seen("/v1/status", "https", "public.example", "198.51.100.4")


@pytest.mark.parametrize("client", ["10.0.1.0", "192.0.2.2", "127.0.0.1", "2001:db8:0:1::7"])
def test_nobody_else_is(client: str):
    assert look(CLAIMS, client=client) == Seen("/v1/status", "http", "gateway.example", client)


def test_without_trusted_proxies_nobody_is():
    assert look(CLAIMS, trusted=()).client == PROXY


@pytest.mark.parametrize("client", [None, "", "unix:", "testclient"])
def test_a_peer_without_an_address_is_not(client: str | None):
    assert look(CLAIMS, client=client) == Seen(
        "/v1/status", "http", "gateway.example", client or ""
    )


def test_a_trusted_proxy_that_says_nothing_is_the_client():
    assert look() == Seen("/v1/status", "http", "gateway.example", PROXY)


# Whom it speaks for.


@pytest.mark.parametrize(
    ("hops", "client"),
    [
        ("198.51.100.4", "198.51.100.4"),
        ("2001:db8:1::4", "2001:db8:1::4"),
        # The client made up the first one; the proxy added whom it saw.
        ("203.0.113.9, 198.51.100.4", "198.51.100.4"),
        # Several proxies, all of them ours.
        ("198.51.100.4, 10.0.0.9", "198.51.100.4"),
        ("203.0.113.9,198.51.100.4 ,  10.0.0.9,192.0.2.1", "198.51.100.4"),
        # A proxy of ours between others that are not.
        ("10.0.0.9, 198.51.100.4, 10.0.0.8", "198.51.100.4"),
        # Nobody but us.
        ("10.0.0.9, 10.0.0.8", "10.0.0.9"),
        # What is no address says nothing, nor does what stands before it.
        ("", PROXY),
        ("unknown", PROXY),
        ("198.51.100.4, unknown", PROXY),
        ("198.51.100.4, unknown, 10.0.0.9", "10.0.0.9"),
        ("198.51.100.4,", PROXY),
        ("198.51.100.4:443", PROXY),
        ("[2001:db8::1]", PROXY),
        ("198.51.100.400", PROXY),
        ("198.51.100.4 10.0.0.9", PROXY),
        ("localhost", PROXY),
        ("\xff\xfe", PROXY),
        ("0x7f.1", PROXY),
        ("1", PROXY),
    ],
)
def test_the_client_is_the_last_that_is_no_proxy_of_ours(hops: str, client: str):
    assert look({"x-forwarded-for": hops}).client == client


@given(st.text(st.characters(min_codepoint=1, max_codepoint=255)))
def test_whatever_is_claimed_the_client_is_an_address(text: str):
    seen = look({"x-forwarded-for": text, "x-forwarded-proto": text})
    assert ipaddress.ip_address(seen.client)
    assert seen.scheme in ("http", "https")


@pytest.mark.parametrize(
    ("said", "scheme"),
    [
        ("https", "https"),
        ("HTTPS", "https"),
        ("http", "http"),
        ("http, https", "https"),
        ("https, http", "http"),
        ("ftp", "http"),
        ("https, ftp", "http"),
        ("", "http"),
    ],
)
def test_the_scheme_is_what_the_nearest_proxy_says(said: str, scheme: str):
    assert look({"x-forwarded-proto": said}).scheme == scheme


def test_the_scheme_of_the_connection_stays_where_nothing_is_said():
    assert look(scheme="https").scheme == "https"
    assert look({"x-forwarded-proto": "http"}, scheme="https").scheme == "http"


@pytest.mark.parametrize(
    ("said", "host"),
    [
        ("public.example", "public.example"),
        ("public.example:8443", "public.example:8443"),
        ("made-up.example, public.example", "public.example"),
        ("", "gateway.example"),
        (" ", "gateway.example"),
    ],
)
def test_the_host_is_what_the_nearest_proxy_says(said: str, host: str):
    assert look({"x-forwarded-host": said}).host == host


def test_the_application_sees_the_same():
    scope = scope_of()
    Proxies("", TRUSTED).look(scope, {b"x-forwarded-proto": b"https"})
    assert scope["scheme"] == "https"
    scope = scope_of(client="203.0.113.1")
    Proxies("", TRUSTED).look(scope, {b"x-forwarded-proto": b"https"})
    assert scope["scheme"] == "http"


# The path.


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        ("/v1/status", "/v1/status"),
        ("/netrunner/v1/status", "/v1/status"),
        ("/netrunner/", "/"),
        ("/", "/"),
        # What only looks like it.
        ("/netrunners/v1/status", "/netrunners/v1/status"),
        ("/v1/netrunner/status", "/v1/netrunner/status"),
        ("/Netrunner/v1/status", "/Netrunner/v1/status"),
        # It is taken away once.
        ("/netrunner/netrunner/v1/status", "/netrunner/v1/status"),
    ],
)
def test_the_root_path_may_be_there_or_not(sent: str, seen: str):
    scope = scope_of(sent)
    assert Proxies("/netrunner").look(scope, {}).path == seen
    assert (scope["root_path"], scope["path"]) == ("/netrunner", "/netrunner" + seen)


def test_without_a_root_path_the_path_is_as_it_came():
    scope = scope_of("/netrunner/v1/status")
    assert Proxies().look(scope, {}).path == "/netrunner/v1/status"
    assert (scope["root_path"], scope["path"]) == ("", "/netrunner/v1/status")


def test_a_root_path_of_several_parts():
    assert look(root_path="/a/b", path="/a/b/v1/status").path == "/v1/status"
    assert look(root_path="/a/b", path="/a/v1/status").path == "/a/v1/status"


def test_no_network_is_no_trust():
    with pytest.raises(ValueError, match="nonsense"):
        Proxies("", ("nonsense",))


def test_only_so_many_hops_are_looked_at():
    """Each costs time, and whoever is trusted could name thousands."""
    for proxies, client in ((31, "198.51.100.4"), (32, "10.0.0.1"), (5000, "10.0.0.1")):
        hops = ", ".join(["198.51.100.4", *["10.0.0.1"] * proxies])
        assert look({"x-forwarded-for": hops}).client == client
