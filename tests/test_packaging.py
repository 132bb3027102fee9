"""Metadata of the project, its dependencies and tested versions, and no path of a developer's machine."""

import ast
import configparser
import importlib
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from .helpers.paths import ROOT
from .test_layout import PACKAGES


# Programs that are no packages of a registry. A module that serves one says where it is to be had.
ELSEWHERE = {"flow_factory"}
MAX_EMBEDDED_BYTES = 16 * 2**20

# Alice is an invented account: tests of publishing check that her paths are removed.
LOCAL_PATH = re.compile(r"(?<![\w.~-])/(?:home|media|mnt|opt|root|srv|tmp|Users|work)/(?!alice\b)\w")
REGISTRY_HOST = re.compile(r"\b(?:pypi\.org|pythonhosted\.org|download\.pytorch\.org|registry\.npmjs\.org)")


@cache
def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string((ROOT / "setup.cfg").read_text())
    return parser


def requirements(lines: str) -> list[Requirement]:
    return [Requirement(line) for line in lines.splitlines() if line and not line.startswith("#")]


@cache
def extras() -> dict[str, list[Requirement]]:
    return {name: requirements(lines) for name, lines in setup()["options.extras_require"].items()}


def core_requirements() -> list[Requirement]:
    return requirements(setup()["options"]["install_requires"])


def external_requirements() -> list[Requirement]:
    """Return all dependencies, core and extra, except on the package itself."""
    listed = [*core_requirements(), *(requirement for extra in extras().values() for requirement in extra)]
    return [requirement for requirement in listed if requirement.name != setup()["metadata"]["name"]]


@cache
def constraints(name: str = "constraints.txt") -> dict[str, SpecifierSet]:
    listed = requirements((ROOT / name).read_text())
    return {canonicalize_name(requirement.name): requirement.specifier for requirement in listed}


@cache
def project_texts() -> dict[str, str]:
    """Return the content of each text file that is or would be committed, by path."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    texts = {}
    for name in filter(None, listed.split("\0")):
        content = (ROOT / name).read_bytes()
        if b"\0" not in content:
            texts[name] = content.decode()
    return texts


def modules(package: str) -> Iterator[tuple[str, ast.Module]]:
    """Yield path and syntax tree of each module of a package."""
    for path in sorted((ROOT / package).rglob("*.py")):
        yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def imports(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the top-level names that `nodes` import by absolute name, without the standard library."""
    names: list[str] = []
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.append(node.module)
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names


@cache
def providers() -> Mapping[str, list[str]]:
    """Return distributions by the top-level modules that they install. It reads the list of all installed files."""
    return packages_distributions()


def not_provided(names: set[str], listed: Iterable[Requirement]) -> set[str]:
    """Return the third-party modules of `names` that no requirement of `listed` installs."""
    provided = {canonicalize_name(requirement.name) for requirement in listed}
    return {
        name
        for name in names - set(PACKAGES)
        if not provided & {canonicalize_name(provider) for provider in providers().get(name, [name])}
    }


def test_metadata() -> None:
    assert setup()["metadata"]["name"] == "artiagent"
    assert setup()["metadata"]["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / setup()["metadata"]["license_files"]).read_text()
    assert SpecifierSet(setup()["options"]["python_requires"]) == SpecifierSet(">=3.11")
    assert f"version: {setup()['metadata']['version']}\n" in (ROOT / "CITATION.cff").read_text()


def test_console_script_resolves() -> None:
    scripts = setup()["options.entry_points"]["console_scripts"].split()
    assert scripts[0] == "artiagent"
    module, _, function = scripts[-1].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_extras_refer_to_extras() -> None:
    own = [requirement for extra in extras().values() for requirement in extra if requirement.name == "artiagent"]
    for requirement in own:
        assert requirement.extras <= set(extras())
    assert {"demo", "dev", "evaluate", "lpips", "train"} <= set(extras())


def test_extras_named_in_messages_exist() -> None:
    named = {
        name: extra
        for name, text in project_texts().items()
        for group in re.findall(r"(?:artiagent|\.)\[([a-z][a-z,-]*)\]", text)
        for extra in group.split(",")
    }
    assert set(named.values()) <= set(extras()), named


@pytest.mark.parametrize("package", PACKAGES)
def test_every_import_is_declared(package: str) -> None:
    for path, tree in modules(package):
        missing = not_provided(imports(ast.walk(tree)), external_requirements()) - ELSEWHERE
        assert not missing, f"{path} imports {missing}, which setup.cfg does not name"


# `evaluate` imports a metric's module only when that metric is loaded.
@pytest.mark.parametrize("package", ["diffusers_artifact", "datasets_script", "hub_cards"])
def test_imports_at_the_top_of_a_module_need_no_extra(package: str) -> None:
    for path, tree in modules(package):
        missing = not_provided(imports(tree.body), core_requirements())
        assert not missing, f"{path} imports {missing} at its top, which only an extra installs"


def test_every_dependency_has_a_lower_bound_that_its_tested_version_meets() -> None:
    for requirement in external_requirements():
        assert [specifier.operator for specifier in requirement.specifier] == [">="], requirement
        (tested,) = constraints()[canonicalize_name(requirement.name)]
        assert tested.version in requirement.specifier, f"{requirement} against {tested}"


def test_the_oldest_versions_are_the_lower_bounds_and_all_of_the_core() -> None:
    bounds: dict[str, SpecifierSet] = {
        canonicalize_name(requirement.name): requirement.specifier for requirement in external_requirements()
    }
    oldest = constraints("constraints-oldest.txt")
    for name, specifiers in oldest.items():
        (pinned,), (bound,) = specifiers, bounds[name]
        assert Version(pinned.version) == Version(bound.version), f"{name}: {pinned} against {bound}"
    assert {canonicalize_name(requirement.name) for requirement in core_requirements()} <= set(oldest)


@pytest.mark.parametrize("file", ["constraints.txt", "constraints-oldest.txt"])
def test_constraints_pin_public_versions(file: str) -> None:
    for name, specifiers in constraints(file).items():
        (specifier,) = specifiers
        assert specifier.operator == "==", name
        # A local version such as +cpu exists on one index only.
        assert "+" not in specifier.version, name
        assert not name.startswith(("nvidia-", "cuda-", "triton")), f"{name} is for one platform only"


@pytest.mark.parametrize("pattern", [LOCAL_PATH, REGISTRY_HOST], ids=["local-path", "registry-host"])
def test_no_trace_of_a_machine(pattern: re.Pattern[str]) -> None:
    for name, text in project_texts().items():
        for number, line in enumerate(text.splitlines(), start=1):
            assert not pattern.search(line), f"{name}:{number}: {line.strip()}"


def test_embedded_model_is_complete_and_small() -> None:
    folder = ROOT / "diffusers_artifact" / "embedded"
    assert (folder / "model_index.json").is_file()
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert size <= MAX_EMBEDDED_BYTES, f"{size / 2**20:.1f} MB"
