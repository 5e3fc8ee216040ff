"""Imports go one way: from the command line down to the model, never back."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Each layer may import from itself and from those below it.
LAYERS = (
    {
        "sltrace.model",
        "sltrace.buckets",
        "sltrace.durations",
        "sltrace.environment",
        "sltrace.errors",
        "sltrace.otel",
        "sltrace.plural",
        "sltrace.procfs",
        "sltrace",
    },
    {"sltrace.trace"},
    {"sltrace.names"},
    {"sltrace.symbols"},
    {"sltrace.profiles"},
    {"sltrace.target"},
    {"sltrace.capture"},
    {"sltrace.analysis"},
    {"sltrace.export"},
    {"heatmaps"},
    {"sltrace.cli", "sltrace.entry", "sltrace.__main__"},
)
# What looks at traces must run where nothing can be recorded.
FORBIDDEN = {
    "sltrace.analysis": {"sltrace.capture", "sltrace.names", "sltrace.symbols", "sltrace.target"},
    "sltrace.export": {"sltrace.capture", "sltrace.names", "sltrace.symbols", "sltrace.target"},
    "heatmaps": {"sltrace.capture", "sltrace.names", "sltrace.symbols", "sltrace.export"},
    "sltrace.symbols": {"sltrace.names"},
    "sltrace.target": {"sltrace.names"},
}


def package_of(module: str) -> str:
    parts = module.split(".")
    return parts[0] if parts[0] == "heatmaps" else ".".join(parts[:2])


def level_of(package: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if package in layer)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


PATHS = sorted([*ROOT.glob("sltrace/**/*.py"), *ROOT.glob("heatmaps/*.py")])
MODULES = {module_of(path): path for path in PATHS}


@cache
def imported_by(path: Path) -> frozenset[str]:
    """Modules, and names within them; also what is imported for its types only."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            base = node.module or ""
            imported |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
    return frozenset(imported)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_downwards(path: Path) -> None:
    module = module_of(path)
    here = package_of(module)
    for name in sorted(imported_by(path)):
        if name.split(".")[0] not in ("sltrace", "heatmaps"):
            continue
        there = package_of(name)
        if all(there not in layer for layer in LAYERS):
            continue  # a name within a module, as `sltrace.__version__`
        assert level_of(there) <= level_of(here), f"{module} imports {name}"
        assert there not in FORBIDDEN.get(here, ()), f"{module} imports {name}"


def test_no_two_modules_import_each_other() -> None:
    """Nor more of them in a circle: what is imported for its types only counts too."""
    order = TopologicalSorter(
        {
            module: {name for name in imported_by(path) if name in MODULES and name != module}
            for module, path in MODULES.items()
        }
    )
    order.prepare()
