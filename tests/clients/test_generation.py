"""The document feeds a generator for Python and one for TypeScript, and neither has a complaint.

openapi-python-client and openapi-typescript: both read OpenAPI 3.1, both keep to what is in the
document and say when they can't, and what they make needs one small library each at run time
(httpx, openapi-fetch).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients import making
from tests.clients.conftest import Made
from tests.clients.making import TYPESCRIPT


def operations(document: Path) -> Iterator[Any]:
    for verbs in json.loads(document.read_text("utf-8"))["paths"].values():
        yield from verbs.values()


# Python.


def test_the_generator_for_python_has_nothing_to_say(python_client: Made):
    """Its `--fail-on-warning` is on."""
    assert python_client.generated.status == 0, python_client.generated.output
    assert python_client.generated.output == f"Generating {python_client.folder}\n"


def test_the_python_package_and_what_uses_it_are_well_typed(python_client: Made):
    """That is: the package, drive.py and the README's lines."""
    assert python_client.checked.status == 0, python_client.checked.output
    assert python_client.checked.output.startswith("Success: no issues found in ")


def test_the_python_package_has_every_operation(document: Path, python_client: Made):
    """The generator leaves out what it does not understand."""
    api = python_client.folder / "zap_gateway_client" / "api"
    made = {path.stem.replace("_", "") for path in api.glob("*/*.py")} - {"init"}
    assert made == {operation["operationId"].lower() for operation in operations(document)}


def test_no_python_type_has_a_number_for_a_name(python_client: Made):
    """That is how the generator calls what the document has no name for.

    It can't be helped where the old API lets null stand for a map.
    """
    models = python_client.folder / "zap_gateway_client" / "models"
    numbered = [path.stem for path in models.glob("*.py") if re.search(r"_\d", path.stem)]
    assert [name for name in numbered if not name.startswith("control_")] == []


# TypeScript.


def test_the_generator_for_typescript_has_nothing_to_say(document: Path, typescript_client: Made):
    assert typescript_client.generated.status == 0, typescript_client.generated.output
    said = re.fullmatch(
        r"✨ openapi-typescript [\d.]+\n🚀 (\S+) → gateway\.ts \[\S+\]\s*",
        typescript_client.generated.output,
    )
    assert said, typescript_client.generated.output
    assert said[1] == str(document)


def test_the_typescript_types_and_what_uses_them_are_well_typed(typescript_client: Made):
    """That is: the types, drive.ts and the README's lines, under `tsc --strict`."""
    assert typescript_client.checked.output == ""
    assert typescript_client.checked.status == 0


def test_the_typescript_types_have_every_operation(document: Path, typescript_client: Made):
    text = (typescript_client.folder / "gateway.ts").read_text("utf-8")
    made = text.partition("export interface operations {")[2]
    assert set(re.findall(r"^    (\w+): \{$", made, re.MULTILINE)) == {
        operation["operationId"] for operation in operations(document)
    }


def test_the_lock_file_leads_to_one_registry_and_knows_what_it_gives():
    packages = json.loads((TYPESCRIPT / "package-lock.json").read_text("utf-8"))["packages"]
    del packages[""]
    assert packages
    for package in packages.values():
        assert package.get("resolved", "https://registry.npmjs.org/").startswith(
            "https://registry.npmjs.org/"
        )
        assert package["integrity"].startswith("sha512-")
        assert "hasInstallScript" not in package


# What the tests above would see.


@pytest.fixture
def faulty(document: Path, tmp_path: Path) -> Path:
    """The document with a reference to nothing in it."""
    text = document.read_text("utf-8")
    pinged = json.loads(text)["paths"]["/v1/ping"]["get"]["responses"]["200"]["content"]
    reference = pinged["application/json"]["schema"]["$ref"]
    path = tmp_path / "faulty.json"
    path.write_text(text.replace(f'"{reference}"', f'"{reference}s"'), "utf-8")
    return path


def test_the_generator_for_python_tells_of_a_fault(faulty: Path, tmp_path: Path):
    done = making.make_python(faulty, tmp_path / "made")
    assert done.status == 1
    assert "WARNING parsing GET /v1/ping" in done.output


def test_the_generator_for_typescript_tells_of_a_fault(faulty: Path, typescript: Path):
    done = making.run("node_modules/.bin/openapi-typescript", faulty, cwd=typescript)
    assert done.status == 1
    assert "Can't resolve $ref" in done.output


def test_mypy_tells_of_a_wrong_type(python_client: Made, cache: Path, tmp_path: Path):
    program = tmp_path / "wrong.py"
    program.write_text(
        "from zap_gateway_client.models import AddNodeRequest\nAddNodeRequest(name=1)\n", "utf-8"
    )
    done = making.check_python(python_client.folder, cache / "mypy", program)
    assert done.status == 1
    assert "[arg-type]" in done.output
