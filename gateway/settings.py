"""Settings: by flag, by environment (ZAP_GATEWAY_…), by file; checked before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from gateway.auth import TokenFileError, is_loopback, load_tokens
from gateway.durations import parse_duration
from zapcore.connection import parse_address
from zapcore.errors import IdentityError, InvalidAddress, KeyFileError, KnownServersError
from zapcore.zwing.handshake import Expected
from zapcore.zwing.identity import Identity, PublicIdentity
from zapcore.zwing.keyfile import KnownServers, is_fingerprint

ENVIRONMENT_PREFIX = "ZAP_GATEWAY_"
DEFAULT_PORT = 8081
MIB = 1024 * 1024


class SettingsError(Exception):
    """A setting is wrong; the text says which, why, and what to do."""


def _words(value: object) -> object:
    """A list in one text: separated by commas or white space."""
    return value.replace(",", " ").split() if isinstance(value, str) else value


def _seconds(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]
Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=86400)]


class Settings(BaseSettings):
    """Everything that can be set about `serve`."""

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(DEFAULT_PORT, ge=0, le=65535, description="Port to listen on; 0 takes any.")
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
    max_calls: int = Field(
        1024, ge=1, le=65536, description="Calls under way at once; one more gets 503."
    )
    max_body: int = Field(
        16 * MIB, ge=1024, le=64 * MIB, description="Largest request body, in bytes."
    )
    max_streams: int = Field(1000, ge=1, le=100_000, description="Stream readers at once.")
    call_timeout: Seconds = Field(30.0, description="Time for a call that reads.")
    change_timeout: Seconds = Field(300.0, description="Time for a call that changes something.")
    connect_timeout: Seconds = Field(5.0, description="Time for a connection and its handshake.")
    acquire_timeout: Seconds = Field(2.0, description="Time that a call waits for a connection.")
    tokens: Path | None = Field(
        None, description="File of tokens that clients must show; see `zap-gateway token`."
    )
    allowed_host: Words = Field((), description="Names beside localhost that Host may give.")
    allowed_origin: Words = Field((), description="Origins of web pages that may ask.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="How much to log."
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

    @field_validator("allowed_origin")
    @classmethod
    def _origins_are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            scheme, found, rest = origin.partition("://")
            if not found or scheme not in ("http", "https") or not rest or "/" in rest.rstrip("/"):
                raise ValueError(f"{origin!r} is no origin: give it as in https://tools.example")
        return value

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
            SettingsError: the address is reachable from other machines and there are no tokens.
        """
        if self.tokens is None and not is_loopback(self.host):
            raise SettingsError(
                f"--host {self.host} lets other machines in, and without tokens each of them could"
                " drive the cluster: make one with `zap-gateway token new NAME`, put its line into"
                " a file and give that with --tokens FILE; or listen on 127.0.0.1"
            )

    def load_tokens(self) -> tuple[Any, ...]:
        """The tokens that clients may show.

        Raises:
            SettingsError: the file is unusable.
        """
        if self.tokens is None:
            return ()
        try:
            return load_tokens(self.tokens)
        except TokenFileError as error:
            raise SettingsError(str(error)) from error


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
    variable = ENVIRONMENT_PREFIX + name.upper()
    return f"{flag_of(name)} (or {variable}) {str(item['input'])[:100]!r}: {message}"
