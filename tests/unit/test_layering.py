"""Who may import whom: the arrows of the house, checked in the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALLOWED = {
    "sgl_jupyter": {"lang", "lifecycle", "notebook", "backends", "utils"},
    "sgl_jupyter.utils": {"lifecycle", "notebook"},
    "sgl_jupyter.lang": {"backends.base"},
    "sgl_jupyter.backends": {"lang"},
    "sgl_jupyter.lifecycle": {"backends"},
    "sgl_jupyter.notebook": {"lang", "lifecycle"},
    "sgl_jupyter.widgets": {"lang", "lifecycle"},
}
"""Rooms of sgl_jupyter and what they may import besides themselves. `backends` may use lang's types; `lang` only the base."""
FOREIGN = {
    "sgl_jupyter": {"torch", "transformers", "tokenizers", "xgrammar", "kernel_engine"},
    "kernel_engine": {"sgl_jupyter", "IPython", "ipykernel"},
}


def imports(path: Path) -> set[str]:
    """Absolute names of the modules that a file imports, at any depth of its code."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            found.add(module)
            found.update(f"{module}.{alias.name}" for alias in node.names)
    return found


def room(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return "sgl_jupyter" if parts[1] == "__init__" else ".".join(parts[:2])


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", sorted(FOREIGN))
def test_packages_meet_only_over_http(package: str) -> None:
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(package)
        for name in imports(path)
        if name.split(".")[0] in FOREIGN[package]
    }
    assert not wrong


def test_arrows_between_rooms_run_one_way() -> None:
    wrong = set()
    for path in sources("sgl_jupyter"):
        own = room(path)
        targets = {name.removeprefix("sgl_jupyter.") for name in imports(path) if name.startswith("sgl_jupyter.")}
        allowed = ALLOWED[own] | {own.removeprefix("sgl_jupyter.")}
        for target in targets:
            if target.split(".")[0] not in {"lang", "backends", "lifecycle", "notebook", "utils"}:
                continue  # a name that sgl_jupyter itself defines
            if not any(target == name or target.startswith(f"{name}.") for name in allowed):
                wrong.add(f"{path.relative_to(ROOT)} imports sgl_jupyter.{target}")
    assert not wrong


def test_import_is_light() -> None:
    code = "import sys, sgl_jupyter; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    vendors = {"openai", "anthropic", "litellm", "google"}
    assert not (vendors | {"torch", "transformers", "IPython", "httpx", "PIL", "kernel_engine"}) & set(loaded)
