"""HTTPS: who can speak to the gateway, and how its certificate is replaced while it runs."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import signal
import socket
import ssl
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway import process
from tests.commands.test_cli import Cli, cli, one_sentence
from tests.commands.test_cli_drain import Served, netrunner, serve
from tests.commands.test_cli_serve import NOBODY, eventually, identity
from tests.integration.gateway_helpers import (
    Running,
    Simulator,
    SseReader,
    run_command,
    running_gateway,
)
from tests.integration.zap_helpers import HANG, serving, soon
from zapcore import SimulatedNetrunner

__all__ = ["cli", "identity", "netrunner"]

DAY = timedelta(days=1)


def pem_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def pem_of_key(key: ec.EllipticCurvePrivateKey, password: bytes | None = None) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption()
        if password is None
        else serialization.BestAvailableEncryption(password),
    )


class Authority:
    """Issues certificates for this machine, through an intermediate as real ones do."""

    def __init__(self) -> None:
        self._root_key, self.root = self._authority("root", None)
        self._key, self._intermediate = self._authority("intermediate", (self.root, self._root_key))

    def _authority(
        self, name: str, issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None
    ) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"tests {name}")])
        above = subject if issuer is None else issuer[0].subject
        made = _builder(subject, above, key).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        return key, made.sign(key if issuer is None else issuer[1], hashes.SHA256())

    def issue(
        self, certificate: Path, key: Path, *, password: bytes | None = None, chain: bool = True
    ) -> int:
        """Write a fresh pair; its serial number."""
        made = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
        names = [
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        ]
        leaf = (
            _builder(subject, self._intermediate.subject, made)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        _replace(certificate, pem_of(leaf) + (pem_of(self._intermediate) if chain else b""))
        _replace(key, pem_of_key(made, password))
        return leaf.serial_number

    def trust(self) -> ssl.SSLContext:
        """What a client has that trusts it: not for what Python 3.13 began to demand."""
        context = ssl.create_default_context(cadata=pem_of(self.root).decode())
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
    )


def _replace(path: Path, data: bytes) -> None:
    """As careful people replace files: at once."""
    beside = path.with_suffix(".new")
    beside.write_bytes(data)
    beside.chmod(0o600)
    beside.replace(path)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@dataclass
class Files:
    """A certificate and its key on disk."""

    authority: Authority
    certificate: Path
    key: Path
    serial: int = 0

    def renew(self) -> int:
        """Replace both; the new serial number."""
        self.serial = self.authority.issue(self.certificate, self.key)
        return self.serial

    @property
    def flags(self) -> tuple[str, Path, str, Path]:
        return ("--tls-certificate", self.certificate, "--tls-key", self.key)


@pytest.fixture
def files(authority: Authority, tmp_path: Path) -> Files:
    made = Files(authority, tmp_path / "certificate.pem", tmp_path / "key.pem")
    made.renew()
    return made


@asynccontextmanager
async def https(files: Files, **settings: object) -> AsyncIterator[Running]:
    """A gateway that serves HTTPS."""
    async with (
        serving(SimulatedNetrunner(health_delay=0)) as server,
        running_gateway(
            server, tls_certificate=files.certificate, tls_key=files.key, **settings
        ) as running,
    ):
        assert running.url.startswith("https://127.0.0.1:")
        yield running


def client_of(running: Running, files: Files) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=running.url, verify=files.authority.trust(), timeout=HANG, trust_env=False
    )


async def serial_at(port: int, context: ssl.SSLContext) -> int:
    """The certificate that a new connection is shown."""
    reader, writer = await soon(
        asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    )
    shown = writer.get_extra_info("ssl_object").getpeercert()
    writer.transport.abort()
    reader.feed_eof()
    return int(shown["serialNumber"], 16)


async def shows(port: int, context: ssl.SSLContext, serial: int) -> None:
    """Wait until new connections are shown a certificate."""
    async with asyncio.timeout(HANG):
        while True:
            if await serial_at(port, context) == serial:
                return
            await asyncio.sleep(0.05)


# Who can speak to it.


async def test_a_client_that_trusts_the_authority_is_served(files: Files):
    async with https(files) as running, client_of(running, files) as client:
        status = await client.get("/v1/status")
        assert status.json()["clusterInfo"]
        assert (await client.post("/v1/nodes/node1/restart")).status_code == 200
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        async with client.stream("GET", "/v1/status/stream") as response:
            assert (await SseReader(response).next()).type == "status"


async def test_another_client_is_not(files: Files):
    async with https(files) as running:
        for trust in (ssl.create_default_context(), Authority().trust()):
            with pytest.raises(ssl.SSLCertVerificationError):
                await serial_at(running.port, trust)
        assert await serial_at(running.port, files.authority.trust()) == files.serial


async def test_the_scheme_counts_for_a_pages_own_origin(files: Files):
    async with https(files) as running, client_of(running, files) as client:
        for origin, status in (
            (f"https://127.0.0.1:{running.port}", 200),
            (f"http://127.0.0.1:{running.port}", 403),
        ):
            response = await client.get("/v1/status", headers={"origin": origin})
            assert response.status_code == status


def limited_to(authority: Authority, version: ssl.TLSVersion) -> ssl.SSLContext:
    """A client of one version of TLS, with whatever ciphers that had."""
    context = authority.trust()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    return context


async def test_only_tls_1_2_and_newer(files: Files):
    old, new = ssl.TLSVersion.TLSv1_1, (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
    async with https(files) as running:
        for version in new:
            context = limited_to(files.authority, version)
            assert await serial_at(running.port, context) == files.serial
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await serial_at(running.port, limited_to(files.authority, old))
        assert await serial_at(running.port, files.authority.trust()) == files.serial


async def test_plain_http_fails_cleanly(files: Files):
    async with https(files) as running, client_of(running, files) as client:
        for data in (
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"\x00" * 100,
            os.urandom(1000),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            writer.write(data)
            answer = b""
            with suppress(ConnectionError):
                answer = await soon(reader.read())
            assert b"HTTP/1.1 200" not in answer
            writer.transport.abort()
        with pytest.raises(httpx.TransportError):
            await client.get(f"http://127.0.0.1:{running.port}/healthz")
        assert (await client.get("/healthz")).status_code == 200


async def test_who_connects_and_never_makes_a_handshake_is_in_nobodys_way(
    files: Files, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(process, "HANDSHAKE_TIMEOUT", 0.5)
    async with https(files, max_connections=5) as running, client_of(running, files) as client:
        silent = [await asyncio.open_connection("127.0.0.1", running.port) for _ in range(20)]
        silent[0][1].write(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a handshake
        for _ in range(3):
            assert (await client.get("/v1/status")).status_code == 200
            assert await serial_at(running.port, files.authority.trust()) == files.serial
        # In the end they are cut off.
        for reader, writer in silent:
            with suppress(ConnectionError):
                assert await soon(reader.read()) == b""
            writer.transport.abort()


# Another certificate.


async def test_a_new_certificate_is_for_new_connections(files: Files):
    async with https(files) as running, client_of(running, files) as client:
        await client.get("/healthz")
        before, trust = files.serial, files.authority.trust()
        assert await serial_at(running.port, trust) == before
        after = files.renew()
        running.server.reload()  # as SIGHUP does
        assert await serial_at(running.port, trust) == after != before
        # What was connected stays.
        assert (await client.get("/v1/status")).status_code == 200


async def test_a_new_certificate_is_found_without_being_told(files: Files):
    async with https(files) as running:
        await shows(running.port, files.authority.trust(), files.renew())
        # Again, and where the files were written over instead of replaced.
        beside = Files(files.authority, files.certificate.with_name("b"), files.key.with_name("k"))
        serial = beside.renew()
        files.certificate.write_bytes(beside.certificate.read_bytes())
        files.key.write_bytes(beside.key.read_bytes())
        await shows(running.port, files.authority.trust(), serial)


async def test_nobody_is_refused_while_it_is_replaced(files: Files):
    async with https(files) as running:
        trust = files.authority.trust()
        serials = {files.serial}
        seen = []
        for _ in range(3):
            beside = Files(files.authority, files.key.with_name("b"), files.key.with_name("k"))
            serials.add(beside.renew())
            beside.certificate.replace(files.certificate)
            running.server.reload()  # the worst moment: the key is still the old one
            seen.append(await serial_at(running.port, trust))
            beside.key.replace(files.key)
            running.server.reload()
            seen.append(await serial_at(running.port, trust))
        assert seen[0::2] != seen[1::2]
        assert set(seen) == serials


def broken(name: str, files: Files) -> None:
    """Replace the pair by something that is none."""
    other = Files(files.authority, files.certificate.with_name("b"), files.key.with_name("k"))
    other.renew()
    match name:
        case "no certificate":
            _replace(files.certificate, b"-----BEGIN CERTIFICATE-----\nnonsense\n")
        case "empty":
            _replace(files.certificate, b"")
        case "another key":
            _replace(files.key, other.key.read_bytes())
        case "gone":
            files.certificate.unlink()
        case "encrypted key":
            files.authority.issue(files.certificate, files.key, password=b"sesame")


BROKEN = ("no certificate", "empty", "another key", "gone", "encrypted key")


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_certificate_is_not_taken(
    files: Files, caplog: pytest.LogCaptureFixture, name: str
):
    async with https(files) as running:
        trust, before = files.authority.trust(), files.serial
        broken(name, files)
        running.server.reload()
        assert await serial_at(running.port, trust) == before
        (told,) = (each for each in caplog.records if "the old certificate stays" in each.message)
        assert told.levelname == "ERROR"
        assert str(files.certificate) in told.message
        # A good one heals it.
        after = files.renew()
        running.server.reload()
        assert await serial_at(running.port, trust) == after


# As a command.


@contextmanager
def serve_https(netrunner: Simulator, identity: Path, files: Files) -> Iterator[Served]:
    with serve(netrunner, identity, *files.flags) as served:
        assert served.url.startswith("https://")
        eventually(lambda: served.command.stderr.count("connected to") == 2)
        yield served


def serial_of(served: Served, files: Files) -> int:
    with (
        socket.create_connection(("127.0.0.1", served.port), timeout=HANG) as plain,
        files.authority.trust().wrap_socket(plain, server_hostname="localhost") as wire,
    ):
        return int(wire.getpeercert()["serialNumber"], 16)


def test_a_certificate_that_changes_while_it_serves(
    netrunner: Simulator, identity: Path, files: Files
):
    with (
        serve_https(netrunner, identity, files) as served,
        socket.create_connection(("127.0.0.1", served.port), timeout=HANG),  # and says nothing
    ):
        assert serial_of(served, files) == files.serial
        after = files.renew()  # found by itself
        eventually(lambda: serial_of(served, files) == after)
        served.command.line("read the certificate")

        broken("another key", files)  # found by itself, too
        line = json.loads(served.command.line(r"{.*the old certificate stays.*}\n")[0])
        assert line["level"] == "error"
        assert serial_of(served, files) == after

        again = files.renew()
        served.command.send(signal.SIGHUP)
        eventually(lambda: serial_of(served, files) == again)

        # And who speaks something else leaves no traceback behind.
        with socket.create_connection(("127.0.0.1", served.port), timeout=HANG) as plain:
            plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            try:
                while plain.recv(1000):
                    pass
            except ConnectionError:
                pass
        assert serial_of(served, files) == again
        served.stops()


def test_healthcheck_of_a_gateway_that_serves_https(
    cli: Cli, netrunner: Simulator, identity: Path, files: Files, tmp_path: Path
):
    other = Files(Authority(), tmp_path / "other.pem", tmp_path / "other.key")
    other.renew()
    with serve_https(netrunner, identity, files) as served:
        own = ("--port", served.port, *files.flags)
        assert cli("healthcheck", *own) == (0, "ok\n", "")
        assert cli("healthcheck", "--ready", *own) == (0, "ready\n", "")
        environment = {
            "ZAP_GATEWAY_TLS_CERTIFICATE": str(files.certificate),
            "ZAP_GATEWAY_TLS_KEY": str(files.key),
            "ZAP_GATEWAY_PORT": str(served.port),
        }
        assert run_command("healthcheck", **environment).returncode == 0
        for flags in (
            # Elsewhere the certificate must be one that this machine trusts.
            ("--url", f"https://127.0.0.1:{served.port}"),
            # Here it must be the gateway's own.
            ("--port", served.port, *other.flags),
            # And this is no HTTP.
            ("--port", served.port),
        ):
            status, out, err = cli("healthcheck", *flags)
            assert (status, out) == (1, "")
            assert "does not answer" in one_sentence(err)
        served.stops()


# Settings.


@pytest.mark.parametrize("name", BROKEN)
def test_a_pair_that_cant_be_used_ends_with_2_and_one_sentence(
    cli: Cli, identity: Path, files: Files, name: str
):
    broken(name, files)
    status, out, err = cli(
        *("serve", "--port", "0", "--identity", identity, "--server", NOBODY, *files.flags)
    )
    assert (status, out) == (2, "")
    sentence = one_sentence(err)
    assert str(files.certificate) in sentence
    assert sentence.startswith("zap-gateway serve: can't use the certificate")
    if name == "encrypted key":
        assert "the key is encrypted" in sentence


@pytest.mark.parametrize("flag", ["--tls-certificate", "--tls-key"])
def test_one_without_the_other_ends_with_2_and_one_sentence(
    cli: Cli, identity: Path, files: Files, flag: str
):
    status, out, err = cli(
        *("serve", "--port", "0", "--identity", identity, "--server", NOBODY),
        *(flag, files.certificate),
    )
    assert (status, out) == (2, "")
    assert "--tls-certificate and --tls-key go together: give both" in one_sentence(err)
