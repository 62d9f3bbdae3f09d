"""`zap-gateway healthcheck`: what a container engine runs to see whether the gateway is well."""

from __future__ import annotations

import argparse
import http.client
import json
import ssl
import sys
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from gateway.commands.options import add_settings, settings_from
from gateway.durations import parse_bounded
from gateway.settings import Settings, SettingsError

EPILOG = """\
  zap-gateway healthcheck                 of the gateway that the same settings start
  zap-gateway healthcheck --ready         and can it reach the netrunner server?
  zap-gateway healthcheck --url https://gateway.example

The exit status is 0 when it is well, 1 when it is not or does not answer. No token is needed.
"""

_MAX_ANSWER = 64 * 1024
_MAX_WORDS = 500
_STRANGER = "what answers there is no zap-gateway"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("--ready", action="store_true", help="ask /readyz and not only /healthz")
    parser.add_argument("--url", help="where the gateway is (default: as the settings say)")
    parser.add_argument("--timeout", default="3s", metavar="TIME", help="as in 500ms, 3s (3s)")
    add_settings(parser, ("host", "port", "tls_certificate", "tls_key"))


def main(arguments: argparse.Namespace) -> int:
    """Ask, and tell what the answer is."""
    try:
        timeout = parse_bounded(arguments.timeout, 0.001, 3600)
    except ValueError as error:
        raise SettingsError(f"--timeout {error}") from error
    settings = settings_from(arguments)
    url = _url(arguments.url or _own_url(settings))
    path = f"{url.path.rstrip('/')}/{'readyz' if arguments.ready else 'healthz'}"
    certificate = None if arguments.url else settings.tls_certificate
    try:
        status, answer = _ask(url, path, certificate, timeout)
    except (OSError, http.client.HTTPException, ValueError) as error:
        print(f"{url.geturl()} does not answer: {_on_one_line(str(error))}", file=sys.stderr)
        return 1
    told = _told(answer)
    is_well = status == 200 and told == ("ready" if arguments.ready else "ok")
    print(_on_one_line(told), file=sys.stdout if is_well else sys.stderr)
    return 0 if is_well else 1


def _own_url(settings: Settings) -> str:
    """The gateway on this machine, whatever addresses it listens on."""
    scheme = "http" if settings.tls_certificate is None else "https"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    bracketed = f"[{host}]" if ":" in host else host
    return f"{scheme}://{bracketed}:{settings.port}"


def _url(text: str) -> SplitResult:
    try:
        url = urlsplit(text)
        if url.scheme in ("http", "https") and url.hostname and url.port != 0:
            return url
    except ValueError:  # a port that is none, a bracket that is not closed
        pass
    raise SettingsError(f"--url {text!r}: give it as in http://127.0.0.1:8081")


def _ask(
    url: SplitResult, path: str, certificate: Path | None, timeout: float
) -> tuple[int, bytes]:
    host = url.hostname or ""
    connection: http.client.HTTPConnection
    if url.scheme == "https":
        connection = http.client.HTTPSConnection(
            host, url.port, timeout=timeout, context=_trust(certificate)
        )
    else:
        connection = http.client.HTTPConnection(host, url.port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read(_MAX_ANSWER)
    finally:
        connection.close()


def _trust(certificate: Path | None) -> ssl.SSLContext:
    """Our own certificate names the address that others use, so it is itself what is trusted."""
    if certificate is None:
        return ssl.create_default_context()
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    # From 3.13 on Python demands more of certificates than those that are made by hand have.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _told(answer: bytes) -> str:
    """The answer in a few words."""
    try:
        told = json.loads(answer)
    except ValueError:
        return _STRANGER
    known = told.get("detail") or told.get("status") if isinstance(told, dict) else None
    return known if isinstance(known, str) else _STRANGER


def _on_one_line(text: str) -> str:
    """Whoever answered must not be able to write to the terminal as they like."""
    text = text.strip()[:_MAX_WORDS]
    return text if text.isprintable() else repr(text)
