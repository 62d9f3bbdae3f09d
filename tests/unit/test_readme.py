"""The README tells what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.cli import COMMANDS
from gateway.errors import KINDS
from gateway.routes.table import PLACES
from tools.settings_table import README, replaced

TEXT = README.read_text("utf-8")
LINKS = sorted(set(re.findall(r"\]\((?!https?:|#)([^)#]+)", TEXT)))


def test_its_table_of_settings_is_that_of_the_class():
    assert replaced(TEXT) == TEXT, "python -m tools.settings_table writes it anew"


@pytest.mark.parametrize("link", LINKS)
def test_what_it_links_to_is_there(link: str):
    assert (Path(README).parent / link).exists()


@pytest.mark.parametrize("code", sorted({kind.code for kind in KINDS} - {"internal_error"}))
def test_it_tells_every_code_of_a_problem(code: str):
    assert f"`{code}`" in TEXT


@pytest.mark.parametrize("command", COMMANDS)
def test_it_tells_every_command(command: str):
    assert re.search(rf"^    zap-gateway {command}\s", TEXT, re.MULTILINE)


@pytest.mark.parametrize("rpc", PLACES)
def test_it_tells_every_rpc(rpc: str):
    assert re.search(rf"\b{rpc}\b", TEXT)
