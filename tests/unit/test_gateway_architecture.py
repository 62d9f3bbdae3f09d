"""Arrows of the gateway: upward only, and into zapcore never back."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gateway
import zapcore

ROOT = Path(gateway.__file__).parent
ZAPCORE = Path(zapcore.__file__).parent

# Each file may import what stands above it.
ORDER = [
    "gateway.context",
    "gateway.errors",
    "gateway.grpc_status",
    "gateway.failures",
    "gateway.durations",
    "gateway.auth",
    "gateway.tickets",
    "gateway.settings",
    "gateway.names",
    "gateway.schema",
    "gateway.protojson",
    "gateway.logs",
    "gateway.tallies",
    "gateway.metrics",
    "gateway.tracing",
    "gateway.tls",
    "gateway.proxies",
    "gateway.limits",
    "gateway.upstream",
    "gateway.changes",
    "gateway.journal",
    "gateway.following",
    "gateway.streams",
    "gateway.readers",
    "gateway.results",
    "gateway.handlers",
    "gateway.bodies",
    "gateway.routes.table",
    "gateway.routes.documents",
    "gateway.routes.parameters",
    "gateway.routes.services",
    "gateway.routes.rpc",
    "gateway.routes.nodes",
    "gateway.routes.streams",
    "gateway.routes.control_table",
    "gateway.routes.control_documents",
    "gateway.routes.control",
    "gateway.routes.tickets",
    "gateway.routes.operations",
    "gateway.routes.pages",
    "gateway.api",
    "gateway.direct",
    "gateway.http",
    "gateway.shortcuts",
    "gateway.app",
    "gateway.process",
    "gateway.workers",
    "gateway.terminal.text",
    "gateway.terminal.client",
    "gateway.terminal.view",
    "gateway.terminal.screen",
    "gateway.commands.options",
    "gateway.commands.call",
    "gateway.commands.dev",
    "gateway.commands.healthcheck",
    "gateway.commands.identity",
    "gateway.commands.openapi",
    "gateway.commands.serve",
    "gateway.commands.simulate",
    "gateway.commands.token",
    "gateway.commands.watch",
    "gateway.cli",
    "gateway.__main__",
]
PACKAGES = {"gateway", "gateway.routes", "gateway.terminal", "gateway.commands"}
COMMANDS = {name for name in ORDER if name.startswith("gateway.commands.")}


def modules(root: Path) -> dict[str, Path]:
    """Every module below a package's folder, and its file."""
    found = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = modules(ROOT)


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports from, in whatever form."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they point"
            base = node.module or ""
            names = {f"{base}.{alias.name}" for alias in node.names}
            yield from names & set(MODULES) or {base}


def test_every_file_has_its_place_in_the_order():
    assert set(MODULES) == set(ORDER) | PACKAGES


@pytest.mark.parametrize("module", ORDER)
def test_a_file_imports_only_what_stands_above_it(module: str):
    allowed = set(ORDER[: ORDER.index(module)])
    ours = {name for name in imports(MODULES[module]) if name.partition(".")[0] == "gateway"}
    assert ours <= allowed


@pytest.mark.parametrize("module", sorted(COMMANDS - {"gateway.commands.options"}))
def test_commands_do_not_know_each_other(module: str):
    assert set(imports(MODULES[module])) & COMMANDS <= {"gateway.commands.options"}


@pytest.mark.parametrize("module", sorted(modules(ZAPCORE)))
def test_zapcore_never_imports_the_gateway(module: str):
    found = {name.partition(".")[0] for name in imports(modules(ZAPCORE)[module])}
    assert "gateway" not in found


@pytest.mark.parametrize(
    ("module", "strangers"),
    [
        ("gateway.auth", {"fastapi", "starlette", "uvicorn", "zapcore"}),
        ("gateway.durations", {"fastapi", "starlette", "uvicorn", "zapcore", "pydantic"}),
        ("gateway.schema", {"fastapi", "starlette", "uvicorn"}),
        ("gateway.settings", {"fastapi", "starlette", "uvicorn"}),
        ("gateway.changes", {"fastapi", "starlette", "uvicorn", "asyncio"}),
        ("gateway.journal", {"fastapi", "starlette", "uvicorn", "asyncio"}),
        ("gateway.following", {"fastapi", "starlette", "uvicorn"}),
        ("gateway.streams", {"fastapi", "starlette", "uvicorn"}),
        ("gateway.readers", {"fastapi", "starlette", "uvicorn"}),
        ("gateway.upstream", {"fastapi", "starlette", "uvicorn"}),
        ("gateway.metrics", {"fastapi", "starlette", "uvicorn"}),
        ("gateway.routes.table", {"fastapi", "starlette", "uvicorn"}),
        ("gateway.app", {"uvicorn"}),
    ],
)
def test_what_has_no_business_with_http_does_not_import_it(module: str, strangers: set[str]):
    assert strangers.isdisjoint(name.partition(".")[0] for name in imports(MODULES[module]))


def test_nobody_imports_a_test_or_a_development_tool():
    for path in (*MODULES.values(), *modules(ZAPCORE).values()):
        found = {name.partition(".")[0] for name in imports(path)}
        assert found.isdisjoint(
            {"tests", "pytest", "httpx", "hypothesis", "jsonschema", "unittest"}
        )


def test_zapcore_alone_loads_nothing_of_the_gateways():
    code = (
        "import sys, zapcore, zapcore.simulator;"
        "print({n.partition('.')[0] for n in sys.modules} & "
        "{'gateway', 'fastapi', 'starlette', 'pydantic', 'uvicorn', 'prometheus_client'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
