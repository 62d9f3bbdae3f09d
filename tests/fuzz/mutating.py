"""Mutations without guidance, the same in every run: what the tests do where no atheris is."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

_NUMBERS = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\x10\0\0", b"\1\0\0\0")
_TEXTS = (b"\0", b"\n", b" ", b"#", b"-1", b"1e9", b'"', b"{}", b"\xc3\xa9", b"\xff", b"999999999")


def mutations(inputs: Sequence[bytes], seed: int, longest: int) -> Iterator[bytes]:
    """Inputs with a few changes each, without an end."""
    draw = random.Random(seed)  # noqa: S311
    while True:
        data = bytearray(draw.choice(inputs))
        for _ in range(draw.randint(1, 4)):
            _change(data, draw, inputs)
        yield bytes(data[:longest])


def _change(data: bytearray, draw: random.Random, inputs: Sequence[bytes]) -> None:
    at = draw.randint(0, len(data))
    end = min(len(data), at + draw.randint(1, 8))
    match draw.randint(0, 6):
        case 0 if at < len(data):
            data[at] ^= 1 << draw.randint(0, 7)
        case 1 if at < len(data):
            data[at] = draw.randint(0, 255)
        case 2:
            del data[at:end]
        case 3:
            data[at:at] = data[at:end] * draw.randint(1, 3)
        case 4:
            data[at : at + 4] = draw.choice(_NUMBERS)
        case 5:
            data[at:at] = draw.choice(_TEXTS)
        case _:
            other = draw.choice(inputs)
            data[at:] = other[draw.randint(0, len(other)) :]
