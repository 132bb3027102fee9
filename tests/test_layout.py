"""The order of folders: imports point one way, as read from the import statements of all modules."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .helpers.paths import ROOT


# Floors from the lowest. A room may import rooms of lower floors, but no other room of its floor.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("utils", "evaluate_metrics", "diffusers_artifact"),
    ("schema",),
    ("vlm",),
    ("detection",),
    ("agents",),
    ("figures", "edits"),
    ("pairs",),
    ("engine",),
    ("benchmarks", "generation", "comparison", "correction"),
    # `datasets_script/__init__.py`: short names from the rooms below.
    ("datasets_script",),
    ("evaluation", "training", "demo", "annotation"),
    ("hub_cards", "app"),
    ("cli",),
    ("tests",),
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
PACKAGES = ("diffusers_artifact", "datasets_script", "evaluate_metrics", "hub_cards", "training")
MODULE = re.compile(rf"(?:{'|'.join(PACKAGES)})(?:\.\w+)+")
# Libraries of their own, which import none of the other packages, not even those of lower floors.
ALONE = ("diffusers_artifact", "evaluate_metrics")
# Entry points, which no room imports.
DOORS = ("cli", "app")


def room_of(module: str) -> str | None:
    """Return the room of a module, a folder or package, by its dotted name; `None` outside the packages."""
    package, *inside = module.split(".")
    if package not in (*PACKAGES, "tests"):
        return None
    return inside[0] if package == "datasets_script" and inside else package


def is_module(text: str) -> bool:
    """Return whether a text is the full name of a module of these packages."""
    return bool(MODULE.fullmatch(text)) and (ROOT / f"{text.replace('.', '/')}.py").is_file()


def imported(tree: ast.Module, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """
    Yield line and dotted name of everything that a module imports, including relative imports, those within functions
    and those for annotations. The full name of a module in a string counts too, as an argument of `import_module`.
    """
    parents = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = parents[: len(parents) - node.level + 1] if node.level else []
            base = [*start, *(node.module.split(".") if node.module else [])]
            # `from .. import vlm` imports from a folder just as `from ..vlm import VLM` does.
            yield from ((node.lineno, ".".join([*base, alias.name])) for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and is_module(node.value):
            yield node.lineno, node.value


def room_imported(name: str, root: Path) -> str | None:
    """Return the room that an imported name lies in; names of `datasets_script/__init__.py` lie in that file."""
    room = room_of(name)
    if room in FLOOR_OF or room is None or (root / "datasets_script" / room).is_dir():
        return room
    return "datasets_script"


def modules_of(root: Path, package: str) -> Iterator[tuple[Path, str, ast.Module]]:
    """Yield path, dotted name and syntax tree of each module of a package."""
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield path, name, ast.parse(path.read_text(encoding="utf-8"))


def wrong_imports(root: Path) -> list[str]:
    """List imports that point up or across, one line each with the names of both rooms."""
    wrong = []
    for package in PACKAGES:
        for path, module, tree in modules_of(root, package):
            room, where = room_of(module), path.relative_to(root)
            assert room in FLOOR_OF, f"{where}: the folder '{room}' is on no floor; list it in FLOORS"
            for line, name in imported(tree, module, path.name == "__init__.py"):
                other = room_imported(name, root)
                if other is None or other == room:
                    continue
                assert other in FLOOR_OF, f"{where}:{line}: the folder '{other}' is on no floor; list it in FLOORS"
                if room in ALONE or FLOOR_OF[other] >= FLOOR_OF[room]:
                    wrong.append(f"{where}:{line}: '{room}' must not import '{other}' ({name})")
    return wrong


def test_imports_point_down() -> None:
    assert not (wrong := wrong_imports(ROOT)), "\n".join(wrong)


def test_no_module_lies_beside_the_rooms() -> None:
    assert [path.name for path in sorted((ROOT / "datasets_script").glob("*.py"))] == ["__init__.py"]


def test_nobody_imports_a_door() -> None:
    """No floor lies above theirs, which implies it; this test holds if somebody adds one."""
    for package in PACKAGES:
        for path, module, tree in modules_of(ROOT, package):
            for line, name in imported(tree, module, path.name == "__init__.py"):
                other = room_imported(name, ROOT)
                # The command line is what opens the app.
                allowed = other == room_of(module) or (room_of(module), other) == ("cli", "app")
                assert other not in DOORS or allowed, f"{path}:{line} imports the door '{other}'"


@pytest.mark.parametrize(
    ("file", "statement", "rooms"),
    [
        ("datasets_script/pairs/planted.py", "from ..engine.run import Run", ("pairs", "engine")),
        ("datasets_script/vlm/planted.py", "def f() -> None:\n    from .. import agents", ("vlm", "agents")),
        ("datasets_script/utils/planted.py", "import evaluate_metrics.functional", ("utils", "evaluate_metrics")),
        ("datasets_script/engine/stages/planted.py", "from ...cli.main import main", ("engine", "cli")),
        ("datasets_script/engine/__init__.py", "from ..cli import main", ("engine", "cli")),
        ("datasets_script/schema/planted.py", "from datasets_script import synthesize", ("schema", "datasets_script")),
        ("datasets_script/evaluation/planted.py", "from training.vlm import data", ("evaluation", "training")),
        ("hub_cards/planted.py", "import datasets_script.cli.main as m", ("hub_cards", "cli")),
        (
            "datasets_script/figures/planted.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..pairs.storage import read_pairs",
            ("figures", "pairs"),
        ),
        (
            "evaluate_metrics/planted.py",
            "def f() -> None:\n    from datasets_script.schema import pair",
            ("evaluate_metrics", "schema"),
        ),
        ("diffusers_artifact/planted.py", "import evaluate_metrics", ("diffusers_artifact", "evaluate_metrics")),
        ("datasets_script/pairs/planted.py", "HOME = 'datasets_script.engine.run'", ("pairs", "engine")),
        ("training/planted.py", "from tests.helpers.paths import ROOT", ("training", "tests")),
    ],
)
def test_a_planted_import_is_found(file: str, statement: str, rooms: tuple[str, str], tmp_path: Path) -> None:
    root = tmp_path / "checkout"
    for package in PACKAGES:
        for folder in [ROOT / package, *(path for path in (ROOT / package).rglob("*") if path.is_dir())]:
            (root / folder.relative_to(ROOT)).mkdir(parents=True)
    (root / file).write_text(statement)
    (wrong,) = wrong_imports(root)
    assert wrong.startswith(f"{file}:") and f"'{rooms[0]}' must not import '{rooms[1]}'" in wrong


def test_a_folder_that_is_on_no_floor_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "datasets_script" / "attic"
    folder.mkdir(parents=True)
    (folder / "things.py").write_text("import json")
    with pytest.raises(AssertionError, match="the folder 'attic' is on no floor"):
        wrong_imports(tmp_path)


@pytest.mark.parametrize(
    ("statement", "module", "names"),
    [
        ("import a.b, c", "p.q", ["a.b", "c"]),
        ("from a import b, c", "p.q", ["a.b", "a.c"]),
        ("from . import b", "p.q.r", ["p.q.b"]),
        ("from .b import c", "p.q.r", ["p.q.b.c"]),
        ("from .. import b", "p.q.r", ["p.b"]),
        ("from ..b.c import d", "p.q.r", ["p.b.c.d"]),
        ("class A:\n    def f(self):\n        from .b import c", "p.q", ["p.b.c"]),
    ],
)
def test_imports_are_resolved(statement: str, module: str, names: list[str]) -> None:
    assert [name for _, name in imported(ast.parse(statement), module, is_package=False)] == names


def test_a_package_counts_as_its_own_parent() -> None:
    assert [name for _, name in imported(ast.parse("from .b import c"), "p.q", is_package=True)] == ["p.q.b.c"]
