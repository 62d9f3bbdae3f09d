"""Flags made from the settings: a setting is described once, in its class."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import get_origin

from pydantic.fields import FieldInfo

from gateway.settings import ENVIRONMENT_PREFIX, Settings, flag_of, load_settings

UPSTREAM_SETTINGS = (
    "upstream",
    "identity",
    "server",
    "known_servers",
    "trust_on_first_use",
    "connect_timeout",
)


def add_settings(parser: argparse.ArgumentParser, names: Iterable[str] | None = None) -> None:
    """Add a flag per setting, and --config for the rest."""
    group = parser.add_argument_group(
        "settings",
        f"Each can also be given as an environment variable ({ENVIRONMENT_PREFIX}…) or in a TOML"
        " file (--config); flags win over the environment, and that over the file.",
    )
    for name in names or Settings.model_fields:
        _add_flag(group, name, Settings.model_fields[name])
    group.add_argument("--config", type=Path, metavar="FILE", help="TOML file of settings")


def _add_flag(group: argparse._ArgumentGroup, name: str, field: FieldInfo) -> None:
    text = (field.description or "").rstrip(".").replace("%", "%%")
    if field.annotation is bool and field.default:
        group.add_argument(flag_of(name), action=argparse.BooleanOptionalAction, help=text)
    elif field.annotation is bool:
        group.add_argument(flag_of(name), action="store_true", default=None, help=text)
    elif get_origin(field.annotation) is tuple:
        group.add_argument(
            flag_of(name), action="append", metavar=name.upper(), help=f"{text} (repeatable)"
        )
    else:
        group.add_argument(flag_of(name), metavar=name.upper(), help=text + _default_text(field))


def _default_text(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    return "" if default is None else f" (default: {default})".replace("%", "%%")


def settings_from(arguments: argparse.Namespace) -> Settings:
    """The settings that the flags, the environment and the file give.

    Raises:
        SettingsError: one of them is wrong.
    """
    given = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(arguments).items()
        if name in Settings.model_fields and value is not None
    }
    return load_settings(given, arguments.config)
