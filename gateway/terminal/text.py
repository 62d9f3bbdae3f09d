"""Text of others, for a terminal: nothing in it may act on the terminal, or pose as our words."""

from __future__ import annotations

import unicodedata

ELLIPSIS = "…"
_MAX_MARKS = 3
"""Combining marks that a character may carry: some scripts need as many. More are a tower."""


def visible(text: str, longest: int = 200) -> str:
    """The text on one line, with everything that is not seen by itself written out.

    That is control and format characters (`\\x1b`, `\\u202e`), line ends, unusual spaces, and
    combining marks that have nothing to stand on or are too many.

    Args:
        text: anything.
        longest: characters of the result; a longer one is cut and ends with an ellipsis.
    """
    shown: list[str] = []
    room = longest
    marks = _MAX_MARKS  # a mark at the start would stand on what we wrote before it
    for character in text:
        marks = marks + 1 if unicodedata.category(character).startswith("M") else 0
        piece = _written_out(character) if marks > _MAX_MARKS else _seen(character)
        room -= len(piece)
        if room < 0:
            return _cut(shown, longest)
        shown.append(piece)
    return "".join(shown)


def _cut(shown: list[str], longest: int) -> str:
    """As many whole pieces as leave room for the ellipsis."""
    length = sum(map(len, shown))
    while shown and length > longest - len(ELLIPSIS):
        length -= len(shown.pop())
    return "".join(shown) + ELLIPSIS


def _seen(character: str) -> str:
    if character == "\\":
        return "\\\\"  # so that what is written out can't be taken for what is
    return character if character.isprintable() else _written_out(character)


def _written_out(character: str) -> str:
    number = ord(character)
    if short := {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character):
        return short
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
