"""Imports point one way only, and what must not do I/O can not."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import zapcore

ROOT = Path(zapcore.__file__).parent

# Each file may import what stands above it.
ORDER = [
    "zapcore.errors",
    "zapcore.codec",
    "zapcore.messages",
    "zapcore.methods",
    "zapcore.framing",
    "zapcore.zwing.algorithms",
    "zapcore.zwing.identity",
    "zapcore.zwing.xwing",
    "zapcore.zwing.records",
    "zapcore.zwing.handshake",
    "zapcore.zwing.keyfile",
    "zapcore.connection",
    "zapcore.client",
    "zapcore.pool",
    "zapcore.server",
    "zapcore.simulator",
]
PACKAGES = {"zapcore", "zapcore.zwing"}  # they only pass on names, and nothing imports from them
FOREIGN = {"gateway", "fastapi", "starlette", "pydantic", "pydantic_settings", "uvicorn", "httpx"}
OUTSIDE_WORLD = {"asyncio", "socket", "time", "logging", "threading", "select", "selectors", "ssl"}
SANS_IO = ["zapcore.codec", "zapcore.framing", "zapcore.zwing.records", "zapcore.zwing.handshake"]

# Loading and saving are methods of an identity for its users' sake; the file format stands below.
DEFERRED = {("zapcore.zwing.identity", "zapcore.zwing.keyfile")}


def modules() -> dict[str, Path]:
    """Every module of zapcore and its file."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imports(tree: ast.AST, *, deferred: bool = False) -> Iterator[tuple[str, bool]]:
    """(module, whether inside a function) of each import."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, deferred
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they point"
            base = node.module or ""
            submodules = {f"{base}.{alias.name}" for alias in node.names} & set(MODULES)
            # `from zapcore import messages` imports a module, `from zapcore import x` the package.
            for name in submodules or {base}:
                yield name, deferred
            if submodules and len(submodules) < len(node.names):
                yield base, deferred
        else:
            in_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from imports(node, deferred=deferred or in_function)


def imports_of(module: str) -> list[tuple[str, bool]]:
    return list(imports(ast.parse(MODULES[module].read_text("utf-8"))))


def reverse_imports(module: str, found: list[tuple[str, bool]]) -> list[str]:
    """Those imports of a module that don't point upward."""
    allowed = set(ORDER[: ORDER.index(module)])
    return [
        target
        for target, deferred in found
        if target.split(".")[0] == "zapcore"
        and target not in allowed
        and not (deferred and (module, target) in DEFERRED)
    ]


def test_every_file_has_its_place_in_the_order():
    assert set(MODULES) == set(ORDER) | PACKAGES


@pytest.mark.parametrize("module", ORDER)
def test_a_file_imports_only_what_stands_above_it(module):
    assert reverse_imports(module, imports_of(module)) == []


def test_an_import_that_points_down_would_be_noticed():
    """The check itself: in each form that an import can have."""
    for line in (
        "import zapcore.pool",
        "from zapcore import pool",
        "from zapcore.pool import ConnectionPool",
        "from zapcore import connect",
        "def f():\n    from zapcore import pool",
        "if TYPE_CHECKING:\n    from zapcore.pool import ConnectionPool",
    ):
        assert reverse_imports("zapcore.framing", list(imports(ast.parse(line)))) != []
    lazy = "def f():\n    from zapcore.zwing import keyfile"
    assert reverse_imports("zapcore.zwing.identity", list(imports(ast.parse(lazy)))) == []
    eager = "from zapcore.zwing import keyfile"
    assert reverse_imports("zapcore.zwing.identity", list(imports(ast.parse(eager)))) != []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_zapcore_knows_nothing_of_http(module):
    assert FOREIGN.isdisjoint(target.split(".")[0] for target, _ in imports_of(module))


@pytest.mark.parametrize("module", SANS_IO)
def test_sans_io_files_import_nothing_of_the_outside_world(module):
    assert OUTSIDE_WORLD.isdisjoint(target.split(".")[0] for target, _ in imports_of(module))


def test_the_public_names_are_these():
    assert sorted(zapcore.__all__, key=str) == sorted(
        [
            "METHODS",
            "Backend",
            "ConnectionPool",
            "Identity",
            "KnownServers",
            "Method",
            "NetrunnerClient",
            "NetrunnerServer",
            "PoolLimits",
            "PublicIdentity",
            "ServerLimits",
            "SimulatedNetrunner",
            "ZapError",
            "connect",
            "errors",
            "messages",
        ]
    )
    assert all(getattr(zapcore, name, None) is not None for name in zapcore.__all__)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_what_a_file_exports_is_there(module):
    loaded = __import__(module, fromlist=["*"])
    names = getattr(loaded, "__all__", [])
    assert len(names) == len(set(names))
    assert [name for name in names if not hasattr(loaded, name)] == []
