"""The page for who comes from the old HTTP API tells what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic.alias_generators import to_camel

from gateway.grpc_status import HTTP_STATUS, Code
from gateway.protojson import OLDER_NAMES
from gateway.routes.control_table import OLD_ROUTES, OldRoute
from gateway.routes.table import PLACES, place_of
from gateway.settings import Settings, load_settings
from gateway.streams import LONGEST_INTERVAL, SHORTEST_INTERVAL
from tests.unit.test_readme import TEXT as README

PAGE = Path(__file__).parents[2] / "docs" / "old-api.md"
TEXT = PAGE.read_text("utf-8")
LINKS = sorted(set(re.findall(r"\]\((?!https?:)([^)]+)", TEXT)))


def section(title: str) -> str:
    """What stands below a heading."""
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of a table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


@pytest.mark.parametrize("route", OLD_ROUTES, ids=lambda route: route.name)
def test_it_tells_the_new_route_of_every_old_address(route: OldRoute):
    place = place_of(route.method)
    expected = [f"`POST {route.path}`", f"`{place.verb} {place.path}`"]
    assert expected in rows(section("The new route for each call"))


def test_it_tells_no_address_that_is_not_there():
    told = [old for old, _ in rows(section("The new route for each call"))]
    assert sorted(told) == sorted(f"`POST {route.path}`" for route in OLD_ROUTES)


def test_it_tells_every_older_name_and_no_other():
    told = {older: newer for older, newer, _ in rows(section("Older names"))}
    assert told == {
        f"`{to_camel(older)}`": f"`{to_camel(newer)}`" for newer, older in OLDER_NAMES.items()
    }


def test_it_tells_every_code_with_its_name_and_status():
    told = [tuple(cells[:3]) for cells in rows(section("Errors"))]
    assert told == [(str(int(code)), code.name, str(HTTP_STATUS[code])) for code in Code]


def test_it_tells_the_defaults_that_are():
    defaults = load_settings({}, environment=False)
    place = PLACES["WaitForHealthy"]
    assert f"Calls that read have {defaults.call_timeout:g} s" in TEXT
    assert f"those that change something {defaults.change_timeout:g} s" in TEXT
    assert f"`waitforhealthy` {place.timeout:g} s" in TEXT
    assert f"at most {defaults.max_body // 2**20} MiB" in TEXT
    assert f"port, {defaults.port}" in TEXT
    assert f"between {SHORTEST_INTERVAL * 1000:g} ms and {LONGEST_INTERVAL / 3600:g} h" in TEXT


def test_the_settings_that_it_names_are_there():
    flags = set(re.findall(r"`--([a-z-]+)`", TEXT))
    assert flags
    assert {flag.removeprefix("no-").replace("-", "_") for flag in flags} - {"json"} <= set(
        Settings.model_fields
    )


@pytest.mark.parametrize("link", LINKS)
def test_what_it_links_to_is_there(link: str):
    path, _, heading = link.partition("#")
    target = PAGE.parent / path if path else PAGE
    assert target.exists()
    if heading:
        text = README if target.name == "README.md" else target.read_text("utf-8")
        anchors = {
            re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
            for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        }
        assert heading in anchors


def test_the_requests_that_it_shows_are_those_of_the_old_api():
    shown = re.findall(r"^\$ curl -X POST -k http://localhost:8081(/\S+)", TEXT, re.MULTILINE)
    assert shown
    assert set(shown) <= {route.path for route in OLD_ROUTES}
