"""The graph is what it was meant to be, and loading it touches nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import dagster as dg
import pytest
from graph_snapshot import GOLDEN, snapshot

from dagster_project.data_sets.assets import DATA_SETS
from dagster_project.definitions import build_defs
from ego_assets.catalog import TABLES, info
from ego_assets.contract_page import contract_page

HOOK = """
import sys
# Libraries may look around when they load; ours may not.
import av, cv2, dagster, numpy, polars, psutil, pyarrow.parquet, pynvml, scipy.ndimage
import scipy.optimize, scipy.spatial.transform, sqlalchemy
def hook(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen"):
        sys.exit(f"importing touched {event} {args}")
    if event == "open" and args[1] and any(c in args[1] for c in "wax+"):
        if not str(args[0]).endswith(".pyc") and "__pycache__" not in str(args[0]):
            sys.exit(f"importing wrote {args}")
sys.addaudithook(hook)
sys.dont_write_bytecode = True
import dagster_project.definitions
heavy = {"torch", "transformers", "ray", "pycolmap", "dex_retargeting", "pinocchio", "matplotlib"}
found = heavy & set(sys.modules)
sys.exit(f"importing loaded {found}" if found else 0)
"""


def test_the_graph_is_the_golden_one() -> None:
    found = json.loads(json.dumps(snapshot(build_defs())))
    assert found == json.loads(GOLDEN.read_text()), (
        "the graph changed: if that was meant, run python tests/dagster_project/graph_snapshot.py"
    )


def test_every_table_is_an_asset_with_both_checks() -> None:
    found = snapshot(build_defs())
    made = {k for k, a in found["assets"].items() if a["materializable"]}
    assert made == {*TABLES, "galleries", *(each.key.to_user_string() for each in DATA_SETS)}
    for table in TABLES:
        assert found["checks"][f"{table}:fits_contract"] is True
        assert found["checks"][f"{table}:covers_every_clip"] is False
        assert set(found["assets"][table]["op_tags"]) >= {
            "ego/gpus",
            "ego/gpu_memory_gb",
            "ego/cpus",
        }


def test_lineage_is_of_columns_that_both_tables_have() -> None:
    found = snapshot(build_defs())["assets"]
    for table in TABLES:
        for column, origin in info(table).lineage.items():
            mine, above = (TABLES[t].arrow_schema().field(column) for t in (table, origin))
            assert mine.type == above.type, (table, column)
            assert origin in found[table]["deps"], (table, column)


def test_importing_the_definitions_touches_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOOK], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_an_override_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no resources"):
        build_defs({"storge": None})


def test_another_executor_runs_all_jobs() -> None:
    repository = build_defs(executor=dg.in_process_executor).get_repository_def()
    for job in repository.get_all_jobs():
        assert job.executor_def.name == "in_process", job.name
    usual = build_defs().get_repository_def()
    assert {job.executor_def.name for job in usual.get_all_jobs()} == {"gpu"}


def test_the_page_of_the_contract_is_current() -> None:
    from pathlib import Path

    page = Path(__file__).resolve().parents[2] / "docs" / "data_contract.md"
    assert page.read_text() == contract_page(), "run `make docs`"
