"""Every decoder keeps its promises for every input that is kept, and for some more."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from gateway import auth, durations, proxies, schema, tickets
from gateway.journal import Journal, Position
from gateway.routes import control, parameters
from gateway.terminal import client, text
from tests.fuzz import __main__ as fuzzing
from tests.fuzz import corpus, web, wire
from tests.fuzz.mutating import mutations
from tests.fuzz.oracles import Target, TooMuch
from tests.fuzz.targets import TARGETS
from tests.integration.gateway_helpers import clean_environment
from zapcore import METHODS, framing, messages
from zapcore.zwing import PublicIdentity, handshake, keyfile, records

ROOT = Path(__file__).parents[2]

each_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


def begun(target: Target) -> list[bytes]:
    return [*corpus.seeds(target.name), *corpus.kept(target.name)]


@each_target
def test_every_input_that_is_kept(target):
    for number, data in enumerate(begun(target)):
        target.run(data)
        if number % 4 == 0:
            target.check_bounds(data)


@each_target
def test_mutations_of_them(target, long):
    count = round((50_000 if long else 250) * max(target.share, 0.03))
    for data in islice(mutations(begun(target), 1, target.longest), count):
        target.check(data)


@each_target
def test_long_inputs_take_no_more_than_their_part(target):
    """The bounds are of the input's size: a square shows where that is large."""
    inputs = begun(target)
    for data in inputs[:: len(inputs) // 3 + 1]:
        target.check_bounds((data or b" ") * (_LONG // (len(data) + 1)))


_LONG = 8_000


def test_the_corpus_has_no_strays_and_is_small():
    kept = {path.stem: path for path in corpus.FOLDER.iterdir()}
    assert set(kept) <= set(TARGETS)
    for name, path in kept.items():
        assert len(corpus.kept(name)) <= 100
        assert path.stat().st_size <= 100 * 1024
        assert max(map(len, corpus.kept(name))) <= TARGETS[name].longest


# atheris.

_EXECUTIONS = 10_000


def fuzz(folder: Path, program: list[str], *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the fuzzer as a command of its own: it instruments what it imports."""
    pytest.importorskip("atheris", reason="there is no atheris for this Python, or it is not here")
    return subprocess.run(
        [sys.executable, *program, "--folder", folder, "--jobs", "1", *map(str, arguments)],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
    )


def test_guided_inputs(tmp_path):
    done = fuzz(tmp_path, ["-m", "tests.fuzz"], "--executions", _EXECUTIONS, "--seed", 1)
    assert done.returncode == 0, done.stdout + done.stderr
    executions = json.loads((tmp_path / "executions.json").read_text())
    assert set(executions) == set(TARGETS)
    assert sum(executions.values()) >= _EXECUTIONS * 0.95  # what each begins with may be fewer
    assert all(f"{name}: " in done.stdout for name in TARGETS)


_WITH_A_DEFECT = """
import sys, atheris
from tests.fuzz import __main__, runner

load = runner.load

def with_a_defect(**how):
    targets = load(**how)
    right = targets["positions"].run

    def wrong(data):
        right(data)
        if data[:1] == b"Z":
            if data[-1:] == b"}":
                raise RuntimeError("found")

    atheris.instrument_func(wrong)
    object.__setattr__(targets["positions"], "run", wrong)
    return targets

runner.load = with_a_defect
sys.exit(__main__.main())
"""


def test_a_defect_is_found_by_guidance_and_its_input_is_kept(tmp_path):
    arguments = ("--target", "positions", "--executions", 1_000_000, "--seed", 1)
    done = fuzz(tmp_path, ["-c", _WITH_A_DEFECT], *arguments)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "RuntimeError: found" in done.stdout
    (found,) = (tmp_path / "positions").glob("crash-*")
    assert f"--target positions --replay {found}" in done.stdout
    assert (found.read_bytes()[:1], found.read_bytes()[-1:]) == (b"Z", b"}")


# The command.


def command(monkeypatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["fuzz", *map(str, arguments)])
    return fuzzing.main()


def test_the_command_tells_its_targets(monkeypatch, capsys):
    assert command(monkeypatch, "--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(TARGETS)
    assert all(len(line.split()) > 3 for line in lines)


def test_a_target_that_there_is_not(monkeypatch, capsys):
    assert command(monkeypatch, "--target", "nonsense", "--list") == 2
    assert "'nonsense'" in capsys.readouterr().out


def test_one_input_again(monkeypatch, tmp_path):
    path = tmp_path / "input"
    path.write_bytes(b"1.5")
    arguments = ("--target", "durations", "--replay", path)
    assert command(monkeypatch, *arguments) == 0
    monkeypatch.setattr(web, "parse_duration", lambda _: 2.0)
    with pytest.raises(AssertionError):
        command(monkeypatch, *arguments)


# That something would be found.


def finds(name: str, count: int = 3000) -> BaseException | None:
    """What a target finds within so many inputs."""
    target = TARGETS[name]
    inputs = begun(target)
    for data in [*inputs, *islice(mutations(inputs, 1, target.longest), count)]:
        try:
            target.check(data)
        except Exception as error:  # noqa: BLE001 - whatever a broken decoder raises
            return error
    return None


def _forgets_a_byte(self, data):
    units, at = RIGHT_CUT(self, data)
    return [unit[:-1] if len(unit) > 30 else unit for unit in units], at


def _shares_its_maps(cls, data, made={}):  # noqa: B006 - the defect
    return made.setdefault((cls, bytes(data)), RIGHT_READ(data)) if data else RIGHT_READ(data)


def _quotes(path, *, private):
    raise keyfile.KeyFileError(f"{path} holds {path.read_bytes()[:40]!r}")


def _quotes_lines(lines, source):
    raise auth.TokenFileError(f"{source}: {lines}")


RIGHT_CUT = framing.LengthPrefixed._cut
RIGHT_READ = messages.URIsResponse.decode

BROKEN = [
    ("frames", framing.LengthPrefixed, "_cut", _forgets_a_byte),
    ("zap_stream", framing.Envelope, "is_error", property(lambda self: self.type > 0xC0)),
    ("records", records.RecordReader, "_open", lambda _, sealed: sealed[:-16]),
    ("messages", messages.URIsResponse, "decode", classmethod(_shares_its_maps)),
    ("answers", schema, "json_of", lambda cls, _: schema.to_json(cls())),
    ("requests", wire, "parse_request", lambda _, body: (METHODS["Ping"], body)),
    ("error_texts", wire, "decode_text", lambda data: data.decode("utf-8", "replace")),
    ("addresses", wire, "parse_address", lambda text: tuple(text.split(":", 1))),
    ("handshake_init", PublicIdentity, "verify", lambda *_: True),
    ("handshake_response", PublicIdentity, "verify", lambda *_: True),
    ("handshake_response_signed", handshake, "trust", lambda _: handshake._accept_anybody),
    ("public_identity", keyfile, "read_public", lambda path: path.read_bytes()[:3200]),
    ("identity_file", keyfile, "_read", _quotes),
    ("known_servers", keyfile, "is_fingerprint", lambda _: True),
    ("durations", web, "parse_duration", lambda text: float(text.rstrip("msh") or "x")),
    ("parameters", parameters, "parse_bounded", lambda text, *_: durations.parse_duration(text)),
    ("grpc_timeouts", control, "parse_grpc_timeout", lambda text: float(text[:-1])),
    ("positions", web, "parse_position", lambda text: Position("", 0, 0) if text else None),
    ("last_event_ids", Journal, "since", lambda self, _: iter(list(self._items)[1:])),
    ("json_bodies", schema, "_plain", lambda value: value or None),
    ("old_bodies", schema, "_plain", lambda value: value or None),
    ("tickets", tickets.hmac, "compare_digest", lambda *_: True),
    ("access", auth, "_host_name", lambda host: host.split(":")[0].strip("[]")[-9:]),
    ("proxies", proxies.Proxies, "_trusts", lambda *_: True),
    ("token_lines", auth, "parse_tokens", _quotes_lines),
    ("event_streams", client.Parser, "_check", lambda self, _: self._clear()),
    ("terminal_texts", text, "_seen", lambda character: character),
]


@pytest.mark.parametrize("broken", BROKEN, ids=[name for name, *_ in BROKEN])
def test_a_broken_decoder_is_found(broken, monkeypatch):
    name, holder, attribute, wrong = broken
    monkeypatch.setattr(holder, attribute, wrong)
    assert finds(name) is not None


def _adds_up(data):
    for at in range(len(data)):
        for _ in data[:at]:
            pass


def test_a_square_is_found():
    with pytest.raises(TooMuch, match="steps"):
        Target("square", _adds_up).check_bounds(bytes(1200))
    Target("square", _adds_up).check_bounds(bytes(50))


def test_a_count_that_is_believed_is_found():
    def believes(data):
        return [None] * int.from_bytes(data[:4])

    with pytest.raises(TooMuch, match="bytes"):
        Target("believes", believes).check_bounds(b"\0\7\0\0")
