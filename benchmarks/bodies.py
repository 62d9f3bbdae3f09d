"""Bodies of 8 MiB that are posted, and what in them is large."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

SIZE = 8 * 1024 * 1024


def genesis() -> str:
    """A genesis as they are, JSON text: an account of some hundred bytes after the other."""
    accounts = (f'"{number:040x}":{{"balance":"0x{number:064x}"}}' for number in range(64_525))
    return f'{{"config":{{"chainId":96369}},"alloc":{{{",".join(accounts)}}}}}'


def _of_size(make: Callable[[str], object], text: str) -> bytes:
    """The JSON around a text, which is cut so that all of it has 8 MiB."""
    excess = len(json.dumps(make(text))) - SIZE
    body = json.dumps(make(text[: len(text) - excess]))
    return body.encode()


def _blockchain(genesis: str) -> object:
    return {"blockchainSpecs": [{"vmName": "evm", "genesis": genesis}]}


def plain() -> bytes:
    """POST /v1/blockchains, whose genesis has nothing in it that JSON must escape."""
    return _of_size(_blockchain, "g" * SIZE)


def escaped() -> bytes:
    """The same with a genesis that is JSON: each twentieth byte of it is a quote, escaped."""
    return json.dumps(_blockchain(genesis())).encode()


def octets() -> bytes:
    """POST .../messages, whose bytes are base64."""
    overhead = len(json.dumps({"op": 1, "bytes": ""}))
    data = base64.b64encode(b"\xa5" * ((SIZE - overhead) * 3 // 4)).decode()
    return json.dumps({"op": 1, "bytes": data}).encode()


BODIES = {"plain": plain, "escaped": escaped, "octets": octets}
