"""The house keeps its order: a lower room never imports a higher one, one module starts programs, one prints."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

BUILDER = Path(__file__).parent.parent / "builder"
ORDER = ["media", "autoinstall", "vm", "install", "image", "publish"]
ALWAYS = {"errors", "events", "command", "interrupts", "leftovers", "store", "resources", "size", "spec"}
GUEST = BUILDER / "rehearsal/guest"


def modules(room: str) -> list[Path]:
    return sorted((BUILDER / room).rglob("*.py"))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return found


@pytest.mark.parametrize("room", ORDER)
def test_a_lower_room_never_imports_a_higher_one(room: str) -> None:
    allowed = {*ORDER[: ORDER.index(room) + 1], *ALWAYS}
    if room in {"media", "autoinstall"}:
        allowed = {room, *ALWAYS}
    paths = modules(room)
    assert paths
    for path in paths:
        used = {name.split(".")[1] for name in imports(path) if name.startswith("builder.")}
        assert used <= allowed, path


def test_the_rehearsal_knows_no_room_and_no_room_knows_it() -> None:
    for path in modules("rehearsal"):
        if GUEST not in path.parents:
            used = {name.split(".")[1] for name in imports(path) if name.startswith("builder.")}
            assert used <= {"rehearsal", *ALWAYS}, path
    for path in BUILDER.rglob("*.py"):
        if "rehearsal" not in path.parts and path.name not in {"cli.py", "cli_media.py"}:
            assert not any(name.startswith("builder.rehearsal") for name in imports(path)), path


def test_the_guest_imports_nothing_of_the_package_around_it() -> None:
    for path in sorted(GUEST.glob("*.py")):
        assert not any(name.startswith("builder") for name in imports(path)), path


def test_one_module_starts_programs() -> None:
    starters = {"run", "Popen", "call", "check_call", "check_output", "system", "popen", "execv", "execvp", "spawnv"}
    for path in BUILDER.rglob("*.py"):
        if path.name == "command.py" or GUEST in path.parents:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                of = node.func.value
                bad = isinstance(of, ast.Name) and of.id in {"subprocess", "os"} and node.func.attr in starters
                assert not bad, f"{path}:{node.lineno}"


def test_no_shell_is_asked() -> None:
    for path in BUILDER.rglob("*.py"):
        assert "shell=True" not in path.read_text(), path


def test_one_module_writes_to_the_terminal() -> None:
    for path in BUILDER.rglob("*.py"):
        if path.name in {"ui.py", "talk.py"} or GUEST in path.parents:
            continue
        text = path.read_text()
        assert "sys.stdout" not in text, path
        assert not re.search(r"\bprint\(", text), path


def test_modules_stay_small() -> None:
    for path in BUILDER.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 350, path
