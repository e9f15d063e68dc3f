"""The import table: which room may know which, and who may use what is installed.

Reads the source, so an import counts wherever it is written: at the top, in a
function, or under TYPE_CHECKING.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGE = CHECKOUT / "prochist"

GROUND = {"errors", "clock"}

MAY_IMPORT = {
    # room: what of prochist it may import, by room or by file. All may import the map itself
    # (`prochist.__version__`).
    "__main__": {"cli"},
    "errors": set[str](),
    "clock": {"errors"},
    "capture": {"capture", *GROUND},
    "history": {"history", "capture", *GROUND},
    "store": {"store", "history", "capture", *GROUND},
    "ask": {"ask", "store.database", *GROUND},
    "show": {"show", "ask", "errors"},
    "service": {"service", "capture", "history", "store", *GROUND},
    "cli": {"cli", "ask", "show", "service", "store.database", *GROUND},
}

THIRD_PARTY = {
    "capture": set[str](),
    "history": set[str](),
    "store": {"apsw"},
    "ask": {"apsw", "sigma", "yaml"},
    "show": {"pyarrow", "tabulate"},
    "service": {"apsw"},
    "cli": {"apsw", "click"},
}

STANDARD_LIBRARY_WITHOUT = {
    # Pure: no I/O, no clock of its own.
    "history": {
        *("asyncio", "ctypes", "fcntl", "io", "mmap", "multiprocessing", "os", "pathlib", "select"),
        *("selectors", "signal", "socket", "sqlite3", "subprocess", "sys", "tempfile", "threading"),
        "time",
    },
    # No clock, no terminal, no database.
    "show": {
        *("asyncio", "curses", "os", "pathlib", "shutil", "socket", "sqlite3", "subprocess", "sys"),
        *("termios", "threading", "time", "tty"),
    },
    "capture": {"asyncio", "multiprocessing", "sqlite3"},
    "ask": {"asyncio", "sqlite3", "subprocess", "socket"},
    "store": {"asyncio", "sqlite3", "subprocess", "socket"},
    "service": {"asyncio", "sqlite3"},
    "cli": {"asyncio", "sqlite3"},
}

LATE = {"pyarrow", "sigma", "tabulate", "yaml"}
"""Imported inside functions only: 45 ms and more, or an extra that may not be installed."""

NAMES_THAT_SAY_NOTHING = {"base", "common", "helper", "helpers", "manager", "util", "utils"}


class Import(NamedTuple):
    """One imported module, by its full name, and where."""

    module: str
    line: int
    is_late: bool


def module_name(path: Path) -> str:
    """Return the dotted name of a file of the package."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """Return the room of a module of prochist: `capture` for `prochist.capture.procfs`."""
    return module.split(".")[1]


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = [module for module in SOURCES if module != "prochist"]


def imports_of(module: str) -> list[Import]:
    """Return everything that the source of a module imports, submodules by their own names."""
    path = SOURCES[module]
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    late = {
        id(inner)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for inner in ast.walk(outer)
    }
    return [
        Import(name, node.lineno, id(node) in late)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in _names(node, package)
    ]


def _names(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = node.module or ""
    if node.level:
        here = package.split(".")
        base = ".".join([*here[: len(here) - node.level + 1], *filter(None, [node.module])])
    for alias in node.names:
        inner = f"{base}.{alias.name}"
        yield inner if inner in SOURCES else base


def loaded_with(module: str) -> set[str]:
    """Return the names of all modules that importing a module pulls in, itself included."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in SOURCES:
            todo += [found.module for found in imports_of(name) if not found.is_late]
            todo += [name.rpartition(".")[0]] if "." in name else []
    return seen


def top(module: str) -> str:
    """Return the top-level package of a module."""
    return module.partition(".")[0]


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_only_the_rooms_that_the_table_gives_it(module: str) -> None:
    allowed = MAY_IMPORT[room_of(module)]
    wrong = [
        f"line {found.line}: {found.module}"
        for found in imports_of(module)
        if top(found.module) == "prochist" and found.module != "prochist"
        if not any(f"{found.module}.".startswith(f"prochist.{may}.") for may in allowed)
    ]
    assert wrong == []


@pytest.mark.parametrize("module", MODULES)
def test_what_is_installed_is_used_only_where_it_belongs(module: str) -> None:
    allowed = THIRD_PARTY.get(room_of(module), set())
    wrong = [
        f"line {found.line}: {found.module}"
        for found in imports_of(module)
        if top(found.module) not in {"prochist", *sys.stdlib_module_names, *allowed}
    ]
    assert wrong == []


@pytest.mark.parametrize("module", MODULES)
def test_a_pure_room_cannot_reach_files_clocks_or_terminals(module: str) -> None:
    forbidden = STANDARD_LIBRARY_WITHOUT.get(room_of(module), set())
    wrong = [
        f"line {found.line}: {found.module}"
        for found in imports_of(module)
        if top(found.module) in forbidden
    ]
    assert wrong == []


@pytest.mark.parametrize("module", MODULES)
def test_what_only_some_commands_need_is_imported_late(module: str) -> None:
    wrong = [
        f"line {found.line}: {found.module}"
        for found in imports_of(module)
        if top(found.module) in LATE and not found.is_late
    ]
    assert wrong == []


def test_every_room_has_its_row_in_the_table() -> None:
    rooms = {room_of(module) for module in MODULES}
    assert rooms == set(MAY_IMPORT)


def test_no_module_has_a_name_that_says_nothing() -> None:
    wrong = [
        module
        for module in MODULES
        if NAMES_THAT_SAY_NOTHING & set(module.rpartition(".")[2].strip("_").split("_"))
    ]
    assert wrong == []


def test_every_module_says_what_it_owns() -> None:
    silent = [
        module
        for module, path in SOURCES.items()
        if path.read_text(encoding="utf-8").strip()
        and ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) is None
    ]
    assert silent == []


def test_no_test_imports_a_mock_library() -> None:
    wrong = [
        str(path.relative_to(CHECKOUT))
        for path in sorted((CHECKOUT / "tests").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in _names(node, "tests")
        if name.startswith(("unittest.mock", "mock", "pytest_mock"))
    ]
    assert wrong == []


def test_the_receiver_is_written_without_sqlite_and_without_click() -> None:
    loaded = {top(name) for name in loaded_with("prochist.capture.receiver")}
    assert not loaded & {"apsw", "click", "tabulate", "sqlite3"}


def test_the_receiver_really_loads_neither_sqlite_nor_click() -> None:
    # -S: without site-packages; coverage, which is started from there, loads sqlite3 itself.
    code = (
        "import sys, prochist.capture.receiver\n"
        "print(*sorted({'apsw', 'click', 'tabulate', 'sqlite3'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def test_the_table_notices_what_it_forbids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "late.py"
    source.write_text(
        "from . import procfs\n"
        "from ..store.database import open_reader\n"
        "def later() -> None:\n"
        "    import tabulate\n"
    )
    monkeypatch.setitem(SOURCES, "prochist.capture.late", source)
    monkeypatch.setitem(SOURCES, "prochist.capture.procfs", source)
    assert imports_of("prochist.capture.late") == [
        Import("prochist.capture.procfs", 1, is_late=False),
        Import("prochist.store.database", 2, is_late=False),
        Import("tabulate", 4, is_late=True),
    ]
