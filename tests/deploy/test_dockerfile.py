"""The Dockerfile as a text: what a linter says, what it copies, what it promises about running."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from gateway.settings import DEFAULT_PORT
from tests.deploy.dockerfile import REPOSITORY, Ignored, Stage, context, dockerfile, stages

EXECUTABLE = "/opt/zap-gateway/bin/zap-gateway"


@pytest.fixture(scope="module")
def final() -> Stage:
    return dockerfile()[-1]


def test_the_linter_finds_nothing():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, REPOSITORY / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_base_is_an_exact_version_or_a_stage():
    named: set[str] = set()
    for stage in dockerfile():
        exact = re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", stage.base)
        assert exact or stage.base in named, stage.base
        named.add(stage.name)


def test_both_stages_run_the_same_python(final: Stage):
    """The environment's Python is a link to the base's."""
    (build,) = [stage for stage in dockerfile() if stage.all("RUN")]
    assert build.base == final.base


def test_the_build_is_sent_exactly_what_it_copies():
    copied = [
        PurePosixPath(source)
        for stage in dockerfile()
        for instruction in stage.all("COPY")
        if "from" not in instruction.flags
        for source in instruction.words[:-1]
    ]
    for source in copied:
        assert (REPOSITORY / source).exists(), f"COPY {source}: there is no such file"
        sent = [path for path in context() if path == source or source in path.parents]
        assert sent, f"COPY {source}: .dockerignore holds it back"
    strays = [path for path in context() if not {path, *path.parents} & set(copied)]
    assert strays == [], "sent to the build for nothing"


def test_the_build_is_sent_the_whole_code_and_nothing_made_from_it():
    for package in ("gateway", "zapcore"):
        sources = (REPOSITORY / package).rglob("*.py")
        assert {PurePosixPath(path.relative_to(REPOSITORY)) for path in sources} <= {*context()}
    assert not [path for path in context() if path.suffix in (".pyc", ".pem", ".key")]


def test_it_runs_as_a_number_that_is_not_root(final: Stage):
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", final.last("USER").text)


def test_the_process_needs_no_shell(final: Stage):
    """A shell would be process 1, and would keep the signals to itself."""
    assert json.loads(final.last("ENTRYPOINT").text) == [EXECUTABLE]
    assert json.loads(final.last("CMD").text) == ["serve"]
    assert json.loads(final.last("HEALTHCHECK").text.removeprefix("CMD ")) == [
        EXECUTABLE,
        "healthcheck",
    ]
    assert final.all("RUN") == final.all("SHELL") == []


def test_it_documents_the_port_that_it_listens_on(final: Stage):
    assert final.last("EXPOSE").text == str(DEFAULT_PORT)


def test_nothing_opens_it_to_the_network_by_default(final: Stage):
    """Who runs it decides that, and gives tokens."""
    names = [name for instruction in final.all("ENV") for name in instruction.pairs({})]
    assert [name for name in names if name.startswith("ZAP_GATEWAY_")] == []


# What reads them must itself read right.


@pytest.mark.parametrize(
    ("patterns", "path", "ignored"),
    [
        ("*", "a", True),
        ("*", "a/b", True),
        ("*\n!a", "a/b", False),
        ("*\n!a", "ab", True),
        ("*\n!a\n**/b", "a/c/b", True),
        ("*\n!a\n**/b", "a/c/b/d", True),
        ("*\n!a\n**/b", "a/c/bb", False),
        ("a/*.py", "a/b.py", True),
        ("a/*.py", "a/b/c.py", False),
        ("# a\n\nb/", "a", False),
        ("# a\n\nb/", "b/c", True),
    ],
)
def test_dockerignore_rules(patterns: str, path: str, ignored: bool):
    assert (PurePosixPath(path) in Ignored(patterns)) is ignored


def test_dockerfile_instructions():
    text = """
        # FROM nowhere
        FROM one AS first
        RUN a \\
            # said in between
            && b
        FROM first
        COPY --from=first /x /y
        ENV A=1 B="$A ${C}"
        CMD ["x", "y z"]
    """
    first, second = stages(text)
    assert (first.base, first.name, second.base) == ("one", "first", "first")
    assert first.last("RUN").text.split() == ["a", "&&", "b"]
    copy = second.last("COPY")
    assert (copy.flags, copy.words) == ({"from": "first"}, ["/x", "/y"])
    assert second.last("ENV").pairs({"A": "2", "C": "3"}) == {"A": "1", "B": "2 3"}
    assert second.last("CMD").words == ["x", "y z"]
