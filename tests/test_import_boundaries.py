"""Who may import whom, and how large things may be: the architecture as a test."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("ego_assets", "resources", "sensors", "dagster_project", "samples")
HEAVY = {"torch", "transformers", "ray", "pycolmap", "dex_retargeting", "pinocchio", "nlopt"}
HEAVY |= {"scipy", "matplotlib", "playwright", "librosa", "rerun", "scenedetect"}

ROOMS = ("videos", "masks", "hands", "scene", "objects", "robots", "episodes", "telemetry")
"""The subjects: none imports another."""
GROUND = ["ego_assets.operator", "ego_assets.settings", "ego_assets.rows", "ego_assets.feature"]
GROUND += ["ego_assets.arrays", "ego_assets.consent"]
TOOLS = ["ego_assets.media", "ego_assets.vision", "ego_assets.models", "ego_assets.quality"]
ALLOWED: dict[str, list[str]] = {
    "ego_assets": ["ego_assets.reading"],
    "ego_assets.arrays": [],
    "ego_assets.consent": [],
    "ego_assets.operator": [],
    "ego_assets.rows": ["ego_assets.consent", "resources.lake.table"],
    "ego_assets.settings": [],
    "ego_assets.environment": ["ego_assets.models.choice", "resources"],
    "ego_assets.feature": ["ego_assets.settings", "ego_assets.quality.settings", "resources.lake"],
    "ego_assets.catalog": [
        "ego_assets.feature",
        "ego_assets.quality",
        *(f"ego_assets.{room}.feature" for room in ROOMS),
        "resources.lake.table",
    ],
    "ego_assets.contract_page": ["ego_assets.catalog", "resources.lake.table"],
    "ego_assets.reading": [
        "ego_assets.arrays",
        "ego_assets.catalog",
        "ego_assets.operator",
        "ego_assets.media",
        "ego_assets.models.suggestions",
        "ego_assets.quality.failed",
        "ego_assets.stretches",
        "ego_assets.vision.rle",
        "resources.lake",
        "resources.raw",
    ],
    "ego_assets.line_files": ["resources.lake"],
    "ego_assets.stretches": ["ego_assets.reading", "ego_assets.vision", *GROUND],
    "ego_assets.training": [
        "ego_assets.training",
        "ego_assets.exports",
        "ego_assets.media",
        "ego_assets.reading",
        "ego_assets.reviews",
        "ego_assets.operator",
        "ego_assets.settings",
    ],
    "ego_assets.viewing": [  # draws what all rooms have made, of what reading gives
        "ego_assets.viewing",
        "ego_assets.reading",
        "ego_assets.catalog",
        "ego_assets.operator",
        "ego_assets.media",
        "ego_assets.vision",
        "ego_assets.quality.finding",
        "ego_assets.robots.links",
        "ego_assets.robots.preview",
    ],
    "ego_assets.reviews": [  # holds what people said against what all rooms have made
        "ego_assets.reviews",
        "ego_assets.line_files",
        "ego_assets.reading",
        "ego_assets.viewing",
        "ego_assets.catalog",
        "ego_assets.operator",
        "ego_assets.quality",
        "ego_assets.settings",
        "resources.lake",
    ],
    "ego_assets.galleries": [  # shows what all rooms have made, and what became of it
        "ego_assets.galleries",
        "ego_assets.reading",
        "ego_assets.reviews",
        "ego_assets.viewing",
        "ego_assets.catalog",
        "ego_assets.quality",
        "ego_assets.media",
        "ego_assets.vision",
        "resources",
    ],
    "ego_assets.vision": ["ego_assets.vision", "ego_assets.operator"],
    "ego_assets.media": ["ego_assets.media", "ego_assets.vision", *GROUND, "resources"],
    "ego_assets.exports": [
        "ego_assets.exports",
        "ego_assets.videos.footage.sidecar",  # consent that was withdrawn since the last run
        "resources.raw.sidecars",
        "resources.raw.uris",
        "ego_assets.reading",
        "ego_assets.reviews",
        "ego_assets.stretches",
        "ego_assets.viewing",
        *GROUND,
        "ego_assets.vision",
        "ego_assets.media.colour",
        "ego_assets.media.video_writer",
        "ego_assets.models.faces",
        "ego_assets.models.weights",
        "resources.environment",
        "resources.lake",
        "resources.raw.presence",
        "resources.processes.owned_folders",
    ],
    "ego_assets.models": ["ego_assets.models", "ego_assets.catalog", *GROUND, "resources"],
    "ego_assets.quality": [
        "ego_assets.quality",
        "ego_assets.catalog",
        *GROUND,
        "resources.lake",
        "resources.words",
    ],
    **{
        f"ego_assets.{room}": [
            f"ego_assets.{room}",
            *GROUND,
            *TOOLS,
            "resources.devices",
            "resources.environment",
            "resources.lake",
            "resources.processes",
            "resources.raw",
        ]
        for room in ROOMS
    },
    "ego_assets.engine": ["ego_assets", "resources"],
    "ego_assets.intake": ["ego_assets", "resources"],
    "ego_assets.upkeep": ["ego_assets", "resources"],
    "ego_assets.graph": ["ego_assets", "resources"],
    "resources": ["resources"],
    "sensors": [
        "ego_assets.graph",
        "ego_assets.catalog",
        "ego_assets.feature",
        "ego_assets.engine",
        "ego_assets.intake",
        "ego_assets.upkeep",
        "resources",
        "sensors",
    ],
    "dagster_project": list(PACKAGES),
    "samples": ["samples"],
}
NOT_FROM = {
    "ego_assets.engine": ["ego_assets.graph", *(f"ego_assets.{room}" for room in ROOMS)],
    "ego_assets.intake": ["ego_assets.graph"],
    "ego_assets.upkeep": ["ego_assets.graph"],
    "ego_assets.graph": [f"ego_assets.{room}" for room in ROOMS],
}
"""What a layer must not import, of what it otherwise may."""
MAY_USE_DAGSTER = ("ego_assets.graph", "sensors", "dagster_project")
READS_ENVIRONMENT = (
    "resources.environment",
    "resources.processes",
    *(f"dagster_project.{m}" for m in ("executors", "home", "startup", "cli.terminal", "web.up")),
)
"""The edges: what people and servers say, what processes are started with, and commands that say it
for all that they start."""
OWNS_PROCESSES = ("resources.processes", "ego_assets.objects.foundationpose.child")
"""Who starts and ends processes; the second one is run by another interpreter, without us."""
OF_PROCESSES = {("os", "fork"), ("os", "kill"), ("os", "killpg"), ("os", "waitpid")}
OF_PROCESSES |= {("subprocess", "Popen"), ("psutil", "Popen"), ("ctypes", "CDLL")}
OF_PROCESSES |= {("", "multiprocessing"), ("multiprocessing", "Process")}
OF_THE_C_LIBRARY = {"resources.raw.additions": {("ctypes", "CDLL")}}
"""Who needs it for something else than processes: Python has no rename that replaces nothing."""
OF_ENVIRONMENT = {("os", n) for n in ("environ", "environb", "getenv", "putenv", "unsetenv")}
MAX_LINES = 400
MAX_MODULES = 12
LONG = {
    "ego_assets.engine.workers.lane",
}
"""Modules that are longer than they should be. The list only gets shorter."""
CROWDED: set[str] = set()
LIBRARIES = {"dagster_project.doctor", "dagster_project.entry"}
"""They speak of libraries, of which some have the name of a backend."""
SHARED_NAMES = {"Finding", "Place", "Progress", "Settings"}
"""Class names that several modules use. The list only gets shorter.

Finding is a probe's, which features of others import, and the doctor's; Settings a stage's, which
they subclass, and the executor's; Place a take's and a step's; Progress a work item's and a run's.
"""


def modules() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            yield name.removesuffix(".__init__"), path


PATHS = dict(modules())


@cache
def parsed() -> dict[str, ast.Module]:
    """All modules, for those processes that run a test of this file."""
    return {name: ast.parse(path.read_text()) for name, path in PATHS.items()}


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


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_stay_within_their_layer(package: str) -> None:
    wrong: dict[str, set[str]] = {}
    for module in (m for m in parsed() if is_within(m, (package,))):
        mine = layer(module)
        ours = {i for i in imports(parsed()[module]) if is_within(i, PACKAGES)}
        # `from package import module` yields both; the package alone decides nothing.
        found = {i for i in ours if not is_within(i, ALLOWED[mine])}
        found -= {i for i in found if any(a.startswith(f"{i}.") for a in ALLOWED[mine])}
        found |= {i for i in ours if is_within(i, NOT_FROM.get(mine, []))}
        if found:
            wrong[module] = found
    assert not wrong


def test_only_functions_import_heavy_libraries() -> None:
    """But for the samples, which only `ego demo` and tests import, and for the data sets of torch,
    which are for a training script to import."""
    heavy = (*HEAVY, "ego_assets.training")
    found = {
        m: {i for i in at_module_level(t) if is_within(i, heavy)}
        for m, t in parsed().items()
        if not is_within(m, ("samples", "ego_assets.training"))
    }
    assert not {m: names for m, names in found.items() if names}


def test_only_the_dagster_layer_knows_dagster() -> None:
    resources = {m for m in parsed() if m.startswith("resources.") and m.count(".") == 1}
    for module, tree in parsed().items():
        if not is_within(module, MAY_USE_DAGSTER) and module not in resources:
            assert not [i for i in imports(tree) if is_within(i, ("dagster",))], module


def test_only_executors_touch_private_dagster() -> None:
    for module, tree in parsed().items():
        if not is_within(module, ["dagster_project.executors"]):
            assert not [i for i in imports(tree) if is_private(i)], module


def test_the_graph_and_the_engine_name_no_table_of_a_room_but_videos_and_clips() -> None:
    """What they do for a table they do for all: they ask the catalogue."""
    from ego_assets.catalog import BACKENDS, TABLES

    names = {*TABLES, *(name for _, name in BACKENDS)} - {"video_manifest", "clips", "baseline"}
    for module, tree in parsed().items():
        if is_within(module, ("ego_assets.graph", "ego_assets.engine", "dagster_project")):
            if module in LIBRARIES:
                continue
            strings = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)}
            assert not strings & names, module


def test_only_the_edges_read_the_environment() -> None:
    for module, tree in parsed().items():
        if not is_within(module, READS_ENVIRONMENT):
            assert not attributes(tree) & OF_ENVIRONMENT, module


def test_only_the_edges_name_a_variable() -> None:
    edges = (*READS_ENVIRONMENT, "ego_assets.environment")
    for module, tree in parsed().items():
        strings = {str(n.value) for n in ast.walk(tree) if isinstance(n, ast.Constant)}
        named = {s for s in strings if re.fullmatch("EGO_[A-Z0-9_]+", s)}
        assert not named or is_within(module, edges), f"{module}: {named}"


def test_processes_have_one_owner() -> None:
    for module, tree in parsed().items():
        if not is_within(module, OWNS_PROCESSES):
            allowed = OF_THE_C_LIBRARY.get(module, set())
            assert not attributes(tree) & OF_PROCESSES - allowed, module


def attributes(tree: ast.AST) -> set[tuple[str, str]]:
    """(name, attribute) of what is looked up in plain names, or imported from them."""
    found = {tuple(name.rpartition(".")[::2]) for name in imports(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.add((node.value.id, node.attr))
    return found


def test_modules_and_folders_are_small() -> None:
    long = {m for m, path in PATHS.items() if len(path.read_text().splitlines()) > MAX_LINES}
    assert not long - LONG, f"split them: {sorted(long - LONG)}"
    assert not LONG - long, f"no longer long, take them off the list: {sorted(LONG - long)}"
    sizes = Counter(p.parent for p in PATHS.values() if p.name != "__init__.py")
    crowded = {str(p.relative_to(ROOT)) for p, count in sizes.items() if count > MAX_MODULES}
    assert crowded - {"resources/ledger/migrations/versions"} == CROWDED


def test_no_two_classes_have_one_name() -> None:
    named = Counter(
        node.name
        for tree in parsed().values()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert {name for name, count in named.items() if count > 1} == SHARED_NAMES


def test_the_rules_would_notice() -> None:
    tree = ast.parse("import torch\ndef f():\n    import ray\nif 1:\n    import pycolmap")
    assert set(at_module_level(tree)) == {"torch", "pycolmap"}
    tree = ast.parse("import multiprocessing as mp\nfrom os import fork\nsubprocess.Popen([])")
    assert len(attributes(tree) & OF_PROCESSES) == 3
    assert is_private("dagster._utils.error")
    assert not is_private("dagster.Field")
    assert is_within("resources.lake.lake", ["resources.lake"])
    assert not is_within("resources.lakeside", ["resources.lake"])
