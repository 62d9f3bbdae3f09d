"""Settings: by flag, by environment (ZAP_GATEWAY_…), by file; checked before anything starts."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from gateway.auth import (
    Token,
    TokenFileError,
    is_loopback,
    load_tokens,
    parse_tokens,
    unique,
)
from gateway.durations import parse_duration
from zapcore.connection import parse_address
from zapcore.errors import IdentityError, InvalidAddress, KeyFileError, KnownServersError
from zapcore.zwing.handshake import Expected
from zapcore.zwing.identity import Identity, PublicIdentity
from zapcore.zwing.keyfile import KnownServers, is_fingerprint

ENVIRONMENT_PREFIX = "ZAP_GATEWAY_"
DEFAULT_PORT = 8081
KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

_NAME = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_ORIGIN = re.compile(r"https?://(?:[A-Za-z0-9_.-]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?/?")
_IMPLIED_PORT = re.compile(r"^(http://.+):80$|^(https://.+):443$")
_NEVER_REPEATED = frozenset({"token"})
"""Settings in whose place a user may have put a secret."""

_ROOT_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")


class SettingsError(Exception):
    """A setting is wrong; the text says which, why, and what to do."""


def _words(value: object) -> object:
    """A list in one text: separated by commas or white space."""
    return value.replace(",", " ").split() if isinstance(value, str) else value


def _seconds(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def _lines(value: object) -> object:
    """A list in one text: separated by semicolons, commas or line breaks."""
    if not isinstance(value, str):
        return value
    return [part for part in re.split(r"\s*[;,\n]\s*", value.strip()) if part]


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]
Lines = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_lines)]
Seconds0 = Annotated[float, BeforeValidator(_seconds), Field(ge=0, le=86400)]
Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=86400)]


class Settings(BaseSettings):
    """Everything that can be set about `serve`."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX, extra="forbid", env_ignore_empty=True
    )

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(DEFAULT_PORT, ge=0, le=65535, description="Port to listen on; 0 takes any.")
    workers: int = Field(1, ge=1, le=64, description="Processes that share the port.")
    root_path: str = Field(
        "", description="Path under which a proxy shows the gateway, as in /netrunner."
    )
    trusted_proxy: Words = Field(
        (), description="Addresses or networks of proxies whose X-Forwarded-… headers count."
    )
    tls_certificate: Path | None = Field(
        None, description="File of the certificate and its chain (PEM), to serve HTTPS."
    )
    tls_key: Path | None = Field(None, description="File of the certificate's key (PEM).")

    upstream: str = Field("127.0.0.1:9999", description="The netrunner server, as host:port.")
    identity: Path | None = Field(None, description="The gateway's own identity file.")
    server: str | None = Field(
        None, description="The netrunner server's fingerprint, or its public identity file."
    )
    known_servers: Path = Field(
        Path("~/.config/zap-gateway/known_servers"),
        description="File of servers and fingerprints, for when --server is not given.",
    )
    trust_on_first_use: bool = Field(
        False, description="Accept a server that is not known yet, and remember it."
    )
    connections: int = Field(2, ge=1, le=64, description="Connections to the netrunner server.")

    tokens: Path | None = Field(
        None, description="File of tokens that clients must show; see `zap-gateway token`."
    )
    token: Lines = Field(
        (), description="A token that clients may show, as `NAME SCOPE sha256:DIGEST`."
    )
    allowed_host: Words = Field((), description="Names beside localhost that Host may give.")
    allowed_origin: Words = Field((), description="Origins of web pages that may ask.")

    old_api: bool = Field(
        True, description="Whether to offer netrunner's old HTTP API too (POST /v1/control/...)."
    )

    max_connections: int = Field(
        2048, ge=1, le=100_000, description="HTTP connections at once; idle ones make room."
    )
    max_header: int = Field(
        32 * KIB, ge=1024, le=MIB, description="Largest request line and headers, in bytes."
    )
    max_body: int = Field(
        16 * MIB, ge=1024, le=64 * MIB, description="Largest request body, in bytes."
    )
    max_bodies: int = Field(
        256 * MIB, ge=1024, le=64 * GIB, description="All request bodies at once, in bytes."
    )
    max_calls: int = Field(1024, ge=1, le=65536, description="Calls under way at once.")
    max_calls_per_token: int = Field(
        256, ge=1, le=65536, description="Calls under way at once with one token."
    )
    max_streams: int = Field(1000, ge=1, le=100_000, description="Stream readers at once.")
    max_streams_per_token: int = Field(
        100, ge=1, le=100_000, description="Stream readers at once with one token."
    )
    call_timeout: Seconds = Field(30.0, description="Time for a call that reads.")
    change_timeout: Seconds = Field(300.0, description="Time for a call that changes something.")
    max_timeout: Seconds = Field(3600.0, description="Longest time that a request may ask for.")
    connect_timeout: Seconds = Field(5.0, description="Time for a connection and its handshake.")
    acquire_timeout: Seconds = Field(2.0, description="Time that a call waits for a connection.")
    receive_timeout: Seconds = Field(
        10.0, description="Time for a request's headers, and for 320 KB of its body."
    )
    send_timeout: Seconds = Field(
        30.0, description="Time after which a client that takes nothing is cut off."
    )
    idle_timeout: Seconds = Field(75.0, description="Time that a connection may be idle.")
    drain_grace: Seconds0 = Field(
        1.0, description="Time between a signal to stop and the refusal of new calls."
    )
    drain_timeout: Seconds = Field(
        30.0, description="Time after that for calls under way to finish."
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="How much to log."
    )
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="Form of the log; auto is text on a terminal, else JSON."
    )

    @field_validator("upstream")
    @classmethod
    def _upstream_is_address(cls, value: str) -> str:
        try:
            host, port = parse_address(value)
        except InvalidAddress as error:
            raise ValueError(str(error)) from error
        # One way to write it, so that a known server is known however its address is typed.
        host = host.lower()
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @field_validator("port", mode="before")
    @classmethod
    def _port_is_not_of_a_service(cls, value: object) -> object:
        if isinstance(value, str) and "://" in value:
            raise ValueError(
                "Kubernetes sets this variable for a Service that is named zap-gateway: give"
                " the Pod `enableServiceLinks: false`, or the Service another name"
            )
        return value

    @field_validator("root_path")
    @classmethod
    def _root_path_is_path(cls, value: str) -> str:
        value = value.rstrip("/")
        if value and _ROOT_PATH.fullmatch(value) is None:
            raise ValueError("is no path: give it as in /netrunner")
        return value

    @field_validator("trusted_proxy")
    @classmethod
    def _proxies_are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise ValueError(f"{error}: give it as in 10.0.0.7 or 10.0.0.0/24") from error
        return value

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("--tls-certificate and --tls-key go together: give both")
        return self

    @field_validator("allowed_host")
    @classmethod
    def _hosts_are_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(name.removeprefix("[").removesuffix("]") for name in value)
        for name in names:
            if _NAME.fullmatch(name) is None and not _is_address(name):
                raise ValueError(
                    f"{name!r} is no name: give it without a port, as in tools.example"
                )
        return names

    @field_validator("allowed_origin")
    @classmethod
    def _origins_are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if _ORIGIN.fullmatch(origin) is None:
                raise ValueError(f"{origin!r} is no origin: give it as in https://tools.example")
        # As browsers say it, which leave out the port that the scheme implies.
        return tuple(_IMPLIED_PORT.sub(r"\1\2", origin.rstrip("/")) for origin in value)

    def load_identity(self) -> Identity:
        """The gateway's identity.

        Raises:
            SettingsError: none is given, or the file is unusable.
        """
        if self.identity is None:
            raise SettingsError(
                "an identity is needed: `zap-gateway identity new gateway.json` makes one, then"
                " give it with --identity gateway.json (or ZAP_GATEWAY_IDENTITY)"
            )
        try:
            return Identity.load(self.identity)
        except IdentityError as error:
            raise SettingsError(str(error)) from error

    def expected_server(self) -> Expected:
        """Whom to accept as the netrunner server.

        Raises:
            SettingsError: --server is no fingerprint and no readable public identity file, or the
                known-servers file is unusable.
        """
        if self.server is None:
            return self._known_server()
        if is_fingerprint(self.server):
            return self.server
        try:
            return PublicIdentity.load(self.server)
        except KeyFileError as error:
            raise SettingsError(
                f"--server {self.server} is neither a fingerprint (SHA256: and 43 characters)"
                f" nor a public identity file: {error}"
            ) from error

    def _known_server(self) -> Expected:
        path = self.known_servers.expanduser()
        known = KnownServers(path, trust_on_first_use=self.trust_on_first_use)
        try:
            known.fingerprints()
        except KnownServersError as error:
            raise SettingsError(str(error)) from error
        return known.rule(self.upstream)

    def check_bind(self) -> None:
        """Refuse to be open to the network without tokens.

        Raises:
            SettingsError: the address is reachable from other machines and there are no tokens,
                or none that can be used.
        """
        if not is_loopback(self.host) and not self.load_tokens():
            raise SettingsError(
                f"--host {self.host} lets other machines in, and without tokens each of them could"
                " drive the cluster: make one with `zap-gateway token new NAME`, put its line into"
                " a file and give that with --tokens FILE; or listen on 127.0.0.1"
            )

    def load_tokens(self) -> tuple[Token, ...]:
        """The tokens that clients may show, of the file and the settings themselves.

        Raises:
            SettingsError: the file is unusable, a line is malformed, or a name is there twice.
        """
        try:
            of_file = () if self.tokens is None else load_tokens(self.tokens)
            return unique((*of_file, *parse_tokens(self.token, "--token")))
        except TokenFileError as error:
            raise SettingsError(str(error)) from error


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def flag_of(name: str) -> str:
    """A setting's flag."""
    return "--" + name.replace("_", "-")


def load_settings(
    flags: dict[str, object], file: Path | None = None, *, environment: bool = True
) -> Settings:
    """The settings from flags, file and, unless told otherwise, the environment.

    Raises:
        SettingsError: a value is wrong, or the file can't be read.
    """

    class Sourced(Settings):
        model_config = SettingsConfigDict(toml_file=file)

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            """Flags before the environment before the file."""
            del dotenv_settings, file_secret_settings
            from_file = TomlConfigSettingsSource(settings_cls)
            return (init_settings, *([env_settings] if environment else []), from_file)

    if file is not None and not file.is_file():
        raise SettingsError(f"there is no settings file {file}")
    try:
        return Sourced(**flags)  # type: ignore[arg-type] # values are validated right here
    except ValidationError as error:
        raise SettingsError("; ".join(map(_sentence, error.errors()))) from error
    except (OSError, ValueError) as error:
        raise SettingsError(f"can't read the settings: {error}") from error


def _sentence(item: Any) -> str:
    name = str(item["loc"][0]) if item["loc"] else ""
    if item["type"] == "extra_forbidden":
        return f"there is no setting {name!r} (`zap-gateway serve --help` lists all)"
    message = str(item["msg"]).removeprefix("Value error, ")
    if not name:
        return message
    given = f" {str(item['input'])[:100]!r}" if name not in _NEVER_REPEATED else ""
    return f"{flag_of(name)} (or {ENVIRONMENT_PREFIX}{name.upper()}){given}: {message}"
