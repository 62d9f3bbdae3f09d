"""Reads a Dockerfile and a .dockerignore: as much of them as this project uses."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath

REPOSITORY = Path(__file__).parents[2]

_FLAG = re.compile(r"--([a-z-]+)=(\S+)\s+")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


@dataclass(frozen=True)
class Instruction:
    """One instruction: its name in capitals, its flags, and what stands after them."""

    name: str
    flags: Mapping[str, str]
    text: str

    @property
    def words(self) -> list[str]:
        """The words; those of the exec form where it is one."""
        return json.loads(self.text) if self.text.startswith("[") else shlex.split(self.text)

    def pairs(self, variables: Mapping[str, str]) -> dict[str, str]:
        """NAME=value pairs, with variables replaced."""
        return dict(substitute(word, variables).split("=", 1) for word in self.words)


@dataclass(frozen=True)
class Stage:
    """What one FROM begins."""

    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, name: str) -> list[Instruction]:
        """Its instructions of one name."""
        return [instruction for instruction in self.instructions if instruction.name == name]

    def last(self, name: str) -> Instruction:
        """The one of a name that holds."""
        return self.all(name)[-1]


def substitute(text: str, variables: Mapping[str, str]) -> str:
    """A text with its $NAME and ${NAME} replaced."""
    return _VARIABLE.sub(lambda match: variables.get(match[1] or match[2], ""), text)


def stages(text: str) -> list[Stage]:
    """The stages of a Dockerfile."""
    found: list[Stage] = []
    for instruction in _instructions(text):
        if instruction.name == "FROM":
            base, *alias = instruction.words
            found.append(Stage(base, alias[1] if alias else ""))
        else:
            found[-1].instructions.append(instruction)
    return found


def _instructions(text: str) -> Iterator[Instruction]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for whole in "\n".join(lines).replace("\\\n", " ").splitlines():
        if whole.strip():
            yield _instruction(whole)


def _instruction(line: str) -> Instruction:
    name, rest = line.split(maxsplit=1)
    rest = rest.strip()
    flags = {}
    while match := _FLAG.match(rest):
        flags[match[1]] = match[2]
        rest = rest[match.end() :]
    return Instruction(name.upper(), flags, rest)


class Ignored:
    """A .dockerignore: the last pattern that matches a path, or a folder above it, decides."""

    def __init__(self, text: str) -> None:
        lines = [line.strip() for line in text.splitlines()]
        patterns = [line for line in lines if line and not line.startswith("#")]
        self._rules = [(_regex(line.removeprefix("!")), line[0] == "!") for line in patterns]

    def __contains__(self, path: PurePosixPath) -> bool:
        ignored = False
        candidates = [str(part) for part in (path, *path.parents)][:-1]
        for regex, kept in self._rules:
            if any(map(regex.fullmatch, candidates)):
                ignored = not kept
        return ignored


def _regex(pattern: str) -> re.Pattern[str]:
    special = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern.strip("/"))
    return re.compile("".join(special.get(part) or re.escape(part) for part in parts))


@cache
def context() -> tuple[PurePosixPath, ...]:
    """Every file that a build is sent."""
    ignored = Ignored((REPOSITORY / ".dockerignore").read_text())
    found = []
    for name, folders, files in os.walk(REPOSITORY):
        here = PurePosixPath(Path(name).relative_to(REPOSITORY))
        # A builder looks into ignored folders for what is kept in them. Ours has nothing there.
        folders[:] = [folder for folder in folders if here / folder not in ignored]
        found += [here / file for file in files if here / file not in ignored]
    return tuple(sorted(found))


@cache
def dockerfile() -> tuple[Stage, ...]:
    """The project's own."""
    return tuple(stages((REPOSITORY / "Dockerfile").read_text()))
