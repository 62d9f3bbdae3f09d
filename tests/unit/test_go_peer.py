"""Building the Go program: what is said where that can't be done."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import go_peer


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No ready-made program, no Go, and a place of its own for what is built."""
    monkeypatch.delenv(go_peer.READY_MADE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(go_peer, "TARGET", tmp_path / ".go" / "peer")
    monkeypatch.setattr(go_peer, "SOURCES", tmp_path)
    (tmp_path / "go.mod").write_text("module example.org/go1.99\n\ngo 1.24\n")


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def go(folder: Path, version: str, build: str = "exit 1") -> None:
    """A `go` that says its version, and does this to build; `$4` is where to."""
    program(folder / "go", f'if [ "$1" = env ]; then echo {version}; else {build}; fi')


def test_without_go():
    with pytest.raises(go_peer.GoUnavailable, match=r"not on the PATH: install Go 1\.24 or newer"):
        go_peer.build()


@pytest.mark.parametrize("version", ["go1.23.9", "go1.9", "devel", ""])
def test_a_go_that_is_too_old(tmp_path: Path, version: str):
    go(tmp_path, version)
    with pytest.raises(go_peer.GoUnavailable, match=r"Go 1\.24 or newer is needed"):
        go_peer.build()


def test_a_go_that_does_not_run(tmp_path: Path):
    (tmp_path / "go").write_text("\x00")
    (tmp_path / "go").chmod(0o755)
    with pytest.raises(go_peer.GoUnavailable, match="can't run"):
        go_peer.build()


def test_a_build_that_fails_says_what_go_said(tmp_path: Path):
    go(tmp_path, "go1.24.0", build="echo main.go:7: undefined >&2; exit 1")
    with pytest.raises(go_peer.BuildFailed, match=r"main\.go:7: undefined"):
        go_peer.build()
    assert list(go_peer.TARGET.parent.iterdir()) == []


@pytest.mark.parametrize("version", ["go1.24.0", "go1.30", "'devel go1.27-abcdef linux/amd64'"])
def test_what_was_built_takes_the_old_one_s_place(tmp_path: Path, version: str):
    go(tmp_path, version, build='echo "$4" > "$4"')
    assert go_peer.build() == go_peer.TARGET
    first = go_peer.TARGET.read_text()
    assert go_peer.build() == go_peer.TARGET
    assert Path(first.strip()).name.startswith("peer."), "it is never there by half"
    assert [path.name for path in go_peer.TARGET.parent.iterdir()] == ["peer"]


def test_a_program_that_was_built_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    given = program(tmp_path / "mine", "exit 0")
    monkeypatch.setenv(go_peer.READY_MADE, str(given))
    assert go_peer.build() == given


@pytest.mark.parametrize("name", ["absent", "go.mod", "."])
def test_one_that_is_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setenv(go_peer.READY_MADE, str(tmp_path / name))
    with pytest.raises(go_peer.ReadyMadeMissing, match="which is no program"):
        go_peer.build()


@pytest.mark.parametrize(("status", "there"), [(0, True), (1, False)])
def test_as_a_command(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    status: int,
    there: bool,
):
    given = program(tmp_path / "mine", "exit 0")
    monkeypatch.setenv(go_peer.READY_MADE, str(given if there else tmp_path / "absent"))
    assert go_peer.main() == status
    out, err = capsys.readouterr()
    assert out == (f"{given}\n" if there else "")
    assert bool(err) is not there
