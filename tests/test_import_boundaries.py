"""Who may import whom: the architecture as a test."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("ego_assets", "resources", "sensors", "dagster_project", "samples")
HEAVY = {"torch", "transformers", "ray", "pycolmap", "dex_retargeting", "pinocchio", "nlopt"}
HEAVY |= {"matplotlib", "playwright", "librosa", "rerun", "scenedetect"}

CORE = ["resources.lake", "resources.ledger", "resources.backends", "resources.processes"]
ALLOWED: dict[str, list[str]] = {
    "ego_assets": [],
    "ego_assets.schemas": ["ego_assets.schemas"],
    "ego_assets.protocols": ["ego_assets.schemas"],
    "ego_assets.config": ["ego_assets.schemas"],
    "ego_assets.partitions": [],
    "ego_assets.robots": [],
    "ego_assets.operators": [
        "ego_assets.schemas",
        "ego_assets.protocols",
        "ego_assets.config",
        "ego_assets.operators",
        "ego_assets.robots",
    ],
    "ego_assets.stages": [
        "ego_assets.schemas",
        "ego_assets.protocols",
        "ego_assets.config",
        "ego_assets.operators",
        "ego_assets.stages",
        "resources.gpu_leases",
        *CORE,
    ],
    "ego_assets.assets": ["ego_assets", "resources"],
    "ego_assets.checks": [
        "ego_assets.schemas",
        "ego_assets.partitions",
        "ego_assets.operators",
        "ego_assets.stages",
        "ego_assets.checks",
        "resources",
    ],
    "resources.lake": ["ego_assets.schemas", "resources.lake", "resources.processes"],
    "resources.ledger": ["ego_assets.schemas", "resources.ledger", "resources.processes"],
    "resources.backends": [
        "ego_assets.schemas",
        "ego_assets.protocols",
        "ego_assets.config",
        "ego_assets.operators",
        "resources.backends",
        "resources.gpu_leases",
    ],
    "resources": ["resources"],
    "sensors": ["ego_assets.partitions", "ego_assets.stages", "resources", "sensors"],
    "dagster_project": list(PACKAGES),
    "samples": ["samples"],
}
MAY_USE_DAGSTER = (
    "ego_assets.assets",
    "ego_assets.checks",
    "ego_assets.partitions",
    "sensors",
    "dagster_project",
)
RESOURCE_MODULES = {"resources"}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            yield name.removesuffix(".__init__"), ast.parse(path.read_text())


MODULES = dict(modules())


def layer(module: str) -> str:
    found = [k for k in ALLOWED if module == k or module.startswith(f"{k}.")]
    assert found, f"{module} belongs to no layer: say in this test who may import it"
    return max(found, key=len)


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield node.module or ""
            yield from (f"{node.module}.{a.name}" for a in node.names)


def at_module_level(tree: ast.Module) -> Iterator[str]:
    stack: list[ast.stmt] = list(tree.body)
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imports(ast.Module([node], []))
        elif isinstance(node, ast.If | ast.Try | ast.ClassDef | ast.With):
            stack.extend(n for n in ast.iter_child_nodes(node) if isinstance(n, ast.stmt))


def is_within(name: str, prefixes: list[str] | tuple[str, ...]) -> bool:
    return any(name == p or name.startswith(f"{p}.") for p in prefixes)


def is_private(name: str) -> bool:
    """Of Dagster, or of one of its libraries."""
    root, *rest = name.split(".")
    return (
        root.startswith("dagster")
        and root != "dagster_project"
        and any(part.startswith("_") for part in rest)
    )


@pytest.mark.parametrize("module", MODULES)
def test_imports_stay_within_their_layer(module: str) -> None:
    allowed = ALLOWED[layer(module)]
    ours = {i for i in imports(MODULES[module]) if is_within(i, PACKAGES)}
    # `from package import module` yields both; the package alone decides nothing.
    wrong = {i for i in ours if not is_within(i, allowed)}
    wrong -= {i for i in wrong if any(a.startswith(f"{i}.") for a in allowed)}
    assert not wrong


@pytest.mark.parametrize("module", MODULES)
def test_only_functions_import_heavy_libraries(module: str) -> None:
    found = {i.split(".")[0] for i in at_module_level(MODULES[module])} & HEAVY
    assert not found


@pytest.mark.parametrize("module", MODULES)
def test_only_the_dagster_layer_knows_dagster(module: str) -> None:
    is_resource = layer(module) == "resources"
    if is_within(module, MAY_USE_DAGSTER) or is_resource:
        return
    assert not [i for i in imports(MODULES[module]) if is_within(i, ("dagster",))]


@pytest.mark.parametrize("module", MODULES)
def test_only_executors_touch_private_dagster(module: str) -> None:
    if not is_within(module, ["dagster_project.executors"]):
        assert not [i for i in imports(MODULES[module]) if is_private(i)]


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("ego_assets.assets")])
def test_assets_name_no_backend(module: str) -> None:
    assert "resources.backends" not in set(imports(MODULES[module]))
    from resources.backends.registry import REGISTRY

    strings = {n.value for n in ast.walk(MODULES[module]) if isinstance(n, ast.Constant)}
    assert not strings & {name for _, name in REGISTRY}


def test_the_rules_would_notice() -> None:
    tree = ast.parse("import torch\ndef f():\n    import ray\nif 1:\n    import pycolmap")
    assert set(at_module_level(tree)) == {"torch", "pycolmap"}
    assert is_private("dagster._utils.error")
    assert not is_private("dagster.Field")
    assert is_within("resources.lake.lake", ["resources.lake"])
    assert not is_within("resources.lakeside", ["resources.lake"])
