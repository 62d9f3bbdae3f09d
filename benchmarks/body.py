"""A body of 8 MiB through the gateway, and what its encryption alone would cost.

python -m benchmarks.body SECONDS prints one JSON line with the processor time of sealing 8 MiB and
opening them again, in pieces of 1 MiB as Z-Wing's records are.
"""

from __future__ import annotations

import json
import os
import sys
import time

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from benchmarks.bodies import SIZE
from benchmarks.processes import (
    LOAD_CORE,
    MEASURED_CORE,
    command_line,
    measured,
    processor_seconds,
    python,
)
from benchmarks.sides import Figure, Process, Run, Side

_PATHS = {
    "plain": "/v1/blockchains",
    "escaped": "/v1/blockchains",
    "octets": "/v1/nodes/node1/peers/peer1/messages",
    "answer": "/v1/status",
}
_RECORD = 1024 * 1024


def cipher(seconds: float) -> dict[str, float]:
    """Processor seconds of sealing and opening 8 MiB, and how often that was done."""
    sealer = ChaCha20Poly1305(os.urandom(32))
    pieces = [os.urandom(_RECORD) for _ in range(SIZE // _RECORD)]
    until, count = time.perf_counter() + seconds, 0
    before = time.process_time()
    while time.perf_counter() < until:
        for number, piece in enumerate(pieces):
            nonce = number.to_bytes(12, "big")
            sealer.decrypt(nonce, sealer.encrypt(nonce, piece, None), None)
        count += 1
    return {"seconds": (time.process_time() - before) / count, "count": count}


def _cipher(run: Run) -> Figure:
    command = python("benchmarks.body", run.seconds)
    told = measured(MEASURED_CORE, *command)
    return Figure(told["seconds"] * 1e3, "ms", command_line(MEASURED_CORE, command), told)


def _gateway(run: Run) -> Process:
    server = run.server("--large")
    words = (server["address"], server["fingerprint"])
    command = lambda: python("benchmarks.apps", "gateway", *words)  # noqa: E731
    return run.process("gateway large", MEASURED_CORE, command)


def _side(name: str) -> Side:
    body = [] if name == "answer" else [name]

    def side(run: Run) -> Figure:
        gateway = _gateway(run)
        command = (*python("benchmarks.load", gateway.told["port"], _PATHS[name], 1),)
        run.once(f"warm body {name}", lambda: measured(LOAD_CORE, *command, "0.5", *body))
        before = processor_seconds(gateway.pid)
        told = measured(LOAD_CORE, *command, str(run.seconds), *body)
        used = processor_seconds(gateway.pid) - before
        return Figure(used / told["answers"] * 1e3, "ms", gateway.command, told)

    return side


SIDES: dict[str, Side] = {"cipher": _cipher, **{f"body {name}": _side(name) for name in _PATHS}}

if __name__ == "__main__":
    print(json.dumps(cipher(float(sys.argv[1]))))
