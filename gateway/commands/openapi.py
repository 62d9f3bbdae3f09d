"""`zap-gateway openapi`: the OpenAPI document."""

from __future__ import annotations

import argparse
import json

from gateway.api import build_api
from gateway.settings import load_settings

EPILOG = "It is what a running gateway serves at /openapi.json."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No flags."""
    del parser


def main(arguments: argparse.Namespace) -> int:
    """Print it."""
    del arguments
    api = build_api(load_settings({}, environment=False))
    print(json.dumps(api.openapi(), indent=2, ensure_ascii=False))
    return 0
