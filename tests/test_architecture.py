"""The rules of the house (docs/architecture.md), held by reading the sources: arrows, hops, one place per algorithm."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
import torch

import pycv

ROOT = Path(__file__).resolve().parent.parent
NATIVE = sorted(path for path in (ROOT / "csrc").rglob("*") if path.suffix in (".h", ".cc", ".cpp", ".cu"))
PYTHON = sorted([*(ROOT / "pycv").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")])

# The storeys, from the ground up: a module imports from its own storey's unit or from lower storeys only.
STOREYS = [
    {"problem", "timing"},
    {"kernels", "timing_device"},
    {"choice"},
    {"registry", "settings"},
    {"ops", "info"},
    {"functional"},
    {"nn", "compiler"},
    {"models", "data"},
    {"bench", "train"},
    {"explain", "listing", "tune"},
    {"demo"},
    {"cli"},
]
ONE_UNIT = {frozenset({"registry", "settings"})}  # settings checks names against the registry, which obeys settings


def storey(unit: str) -> int:
    return next(number for number, units in enumerate(STOREYS) if unit in units)


def module_name(path: Path) -> str:
    parts = ["pycv", "kernels", *path.relative_to(ROOT / "kernels").parts] if path.is_relative_to(ROOT / "kernels") \
        else list(path.relative_to(ROOT).parts)  # fmt: skip
    name = ".".join(parts).removesuffix(".py")
    return name.removesuffix(".__init__")


def imported_modules(path: Path) -> set[str]:
    """Absolute names of what a file of the package imports, `from x import y` as x.y."""
    name = module_name(path)
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *(node.module.split(".") if node.module else [])])
            found |= {f"{prefix}.{alias.name}" for alias in node.names}
    return found


UNITS = sorted({module_name(path).split(".")[1] for path in PYTHON if module_name(path) != "pycv"})


def test_every_unit_has_a_storey():
    assert set(UNITS) <= set().union(*STOREYS)


@pytest.mark.parametrize("path", PYTHON, ids=module_name)
def test_imports_point_down(path):
    name = module_name(path)
    if name == "pycv":
        pytest.skip("the package itself gathers the public names of every storey")
    unit = name.split(".")[1]
    for imported in imported_modules(path):
        parts = imported.split(".")
        if parts[0] != "pycv" or len(parts) < 2 or parts[1] not in UNITS or parts[1] == unit:
            continue
        allowed = storey(parts[1]) < storey(unit) or frozenset({unit, parts[1]}) in ONE_UNIT
        assert allowed, f"{name} imports {imported}: {unit} stands below or beside {parts[1]}"


def test_imports_that_point_up_are_seen(tmp_path, monkeypatch):
    """The test above can fail."""
    assert "pycv.registry.choose" in {f"pycv.registry.{name}" for name in ("choose",)}
    bad = ROOT / "pycv/ops/relu.py"
    assert "pycv.nn.ReLU" not in imported_modules(bad)
    source = "from ..nn import ReLU\nimport torch\n"
    monkeypatch.setattr(Path, "read_text", lambda self, *a, **k: source)
    assert imported_modules(bad) == {"pycv.nn.ReLU", "torch"}


@pytest.mark.parametrize("path", PYTHON, ids=module_name)
def test_kernels_are_imported_as_pycv_kernels(path):
    """`import kernels` works in a checkout only, and gives second copies of everything."""
    assert not any(name.split(".")[0] == "kernels" for name in imported_modules(path))


@pytest.mark.parametrize("path", NATIVE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_native_code_knows_neither_torch_nor_python(path):
    folder = path.relative_to(ROOT / "csrc").parts[0]
    for header in re.findall(r"^#include [<\"](.+)[>\"]", path.read_text(), re.MULTILINE):
        if folder != "bindings":
            assert not re.match(r"(torch|ATen|c10|pybind11|Python\.h|numpy)", header), header
        if folder == "common":
            assert "/" not in header, f"{header}: common stands below everything else"
        if folder == "cpu":
            assert "bindings" not in header and "cuda" not in header, header
        if folder == "cuda":
            assert "bindings" not in header and "cpu" not in header, header


def test_the_build_does_not_import_torch():
    for path in [ROOT / "setup.py", *(ROOT / "tools").glob("*.py")]:
        names = {node.names[0].name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import)}
        assert not any(name.split(".")[0] in ("torch", "numpy") for name in names), path


def algorithm_entries() -> dict[str, set[str]]:
    """Algorithm name -> the C++ files whose PYCV_KERNEL entries carry it."""
    found: dict[str, set[str]] = {}
    for path in NATIVE:
        for algorithm in re.findall(r'^PYCV_KERNEL\("\w+", "(\w+)(?:/\w+)?"', path.read_text(), re.MULTILINE):
            found.setdefault(algorithm, set()).add(path.name)
    return found


def string_constants(path: Path) -> set[str]:
    """All string constants of a file, less docstrings."""
    tree = ast.parse(path.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docs = {ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, documented)}
    return {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)} - docs


def test_an_algorithm_is_one_file_and_one_registry_entry():
    """Nothing but the kernel's file and the registry entries names an algorithm: adding one touches only these."""
    entries = algorithm_entries()
    registered = {kernel.algorithm for kernel in (*pycv.kernels.cpu.KERNELS, *pycv.kernels.cuda.KERNELS)}
    assert set(entries) >= registered and len(entries) >= 3
    for path in PYTHON:
        if {"kernels", "bench", "demo"} & set(path.relative_to(ROOT).parts):
            continue  # the entries themselves, and those that measure algorithms by name
        assert not (named := string_constants(path) & registered), f"{path.name} names {named}"
    for path in NATIVE:
        others = {name for name in registered if f'"{name}"' in path.read_text() and path.name not in entries[name]}
        assert not others, f"{path.name} names {others}"


def modules_on_the_way(call) -> list[str]:
    """The modules of pycv on the stack when a kernel runs, from the outside in, each once."""
    seen: list[list[str]] = []

    def profile(frame, event, argument):
        if event != "c_call" or getattr(argument, "__name__", "") != "launch":
            return
        way = []
        while frame is not None:
            name = frame.f_globals.get("__name__", "")
            if name.startswith("pycv.") and (not way or way[-1] != name):
                way.append(name)
            frame = frame.f_back
        seen.append(way[::-1])

    call()  # the first call plans
    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    assert len(seen) == 1, seen
    return seen[0]


def test_from_functional_to_the_kernel_is_three_hops():
    """functional.conv2d -> ops.conv -> plan.run: no other module lies on the way of a call whose plan is known.

    ``functional.relu`` is the op's function itself: on a small tensor one call less is seen.
    """
    x, weight = torch.randn(1, 4, 6, 6), torch.randn(4, 4, 3, 3)
    with pycv.use(backend="cpu"):
        assert modules_on_the_way(lambda: pycv.functional.conv2d(x, weight)) == ["pycv.functional", "pycv.ops.conv"]
        assert modules_on_the_way(lambda: pycv.functional.relu(x)) == ["pycv.ops.relu"]  # the op's own function


GENERATED = {".git", ".venv", ".venv-torch211", "build", "dist", "runs", "__pycache__", "pycv.egg-info"}
TEXT = {".py", ".pyi", ".h", ".cc", ".cpp", ".cu", ".md", ".toml", ".txt", ".sh", ".in", ".json", ".cfg", ""}


def project_files():
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        generated = GENERATED & set(parts) or any(part.endswith("_cache") for part in parts)
        if path.is_file() and not generated and path.suffix in TEXT and ".hypothesis" not in parts:
            yield path


def test_no_file_names_a_place_on_somebodys_machine():
    places = re.compile(r"/(?:work|root|home|mnt|Users)/[A-Za-z.]")
    named = [path.relative_to(ROOT).as_posix() for path in project_files() if places.search(path.read_text())]
    assert named == []
