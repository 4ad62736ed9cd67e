"""`ego sql` as a person or a script calls it: answers as tables, CSV and JSON, and its limits."""

from __future__ import annotations

import csv
import io
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner

from dagster_project.cli import main
from dagster_project.cli.data.sql import _values
from ego_assets.catalog import TABLES
from resources.lake import Lake
from tests.resources.test_lake import publish
from tests.upkeep.test_audit import SHARD, Bench

EGO = str(Path(sys.executable).with_name("ego"))
ENDLESS = "SELECT * FROM range(1000000000000) a, range(1000000) b WHERE a.range + b.range < 0"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """With twelve clips and ten hands."""
    made = Bench(tmp_path_factory.mktemp("place")).lake
    for item in ("a", "b"):
        publish(made, item, 1.5, token=10)
    made.compact("hand_poses", SHARD, ["a", "b"])
    return made


def ego(lake: Lake, *arguments: str, status: int = 0, columns: int = 80) -> str:
    done = CliRunner(env={"COLUMNS": str(columns)}).invoke(
        main, ["sql", "--lake", lake.location, *arguments]
    )
    assert done.exit_code == status, done.output
    return done.output if status else done.stdout


def test_json_has_a_number_for_each_number(lake: Lake) -> None:
    (row,) = json.loads(
        ego(
            lake,
            "SELECT sum(clip_index) AS s, 1.25::DECIMAL(9, 2) AS d, avg(clip_index) AS m, "
            "'nan'::FLOAT AS n, ['-inf'::DOUBLE, 1] AS l, 2::HUGEINT AS h, 'ab'::BLOB AS b, "
            "DATE '2026-01-02' AS t, {'k': [1.5]} AS o, NULL AS z, 1 AS twice, 2 AS twice "
            "FROM clips",
            "--json",
        )
    )
    assert row == {
        **{"s": 12, "d": 1.25, "m": 1.0, "n": None, "l": [None, 1.0], "h": 2, "b": "6162"},
        **{"t": "2026-01-02", "o": {"k": [1.5]}, "z": None, "twice": 1, "twice_1": 2},
    }
    assert isinstance(row["s"], int)
    assert json.loads(ego(lake, "SELECT * FROM clips WHERE false", "--json")) == []


def test_rows_are_those_of_the_lake_in_json_and_csv(lake: Lake) -> None:
    wanted = lake.read("hand_poses", SHARD).to_pylist()
    query = "SELECT * FROM hand_poses ORDER BY clip_id, frame_index, side"
    assert json.loads(ego(lake, query, "--json")) == wanted
    read = list(csv.DictReader(io.StringIO(ego(lake, query, "--csv"))))
    assert [r["clip_id"] for r in read] == [r["clip_id"] for r in wanted]
    assert json.loads(read[0]["joints_camera_m"]) == wanted[0]["joints_camera_m"]
    assert (read[0]["mano_pose"], read[0]["is_valid"]) == ("", "true")
    assert len(json.loads(ego(lake, query, "--json", "--limit", "3"))) == 3
    assert ego(lake, query, "--csv", "--limit", "3").count("\n") == 4
    ego(lake, query, "--csv", "--json", status=2)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_wide_table_fits_the_terminal(lake: Lake, width: int) -> None:
    told = ego(lake, "SELECT * FROM hand_poses", columns=width)
    lines = told.splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) < 30, "a row a line"
    assert f"of {len(TABLES['hand_poses'].model_fields)} columns" in told
    assert told.count("-hand") == 0
    assert lines[2].split()[0] == "v"


def test_a_table_says_what_is_left_out(lake: Lake) -> None:
    told = ego(lake, "SELECT clip_id, range FROM clips, range(100)")
    assert "the first 100 rows" in told
    assert len(told.splitlines()) == 103
    told = ego(lake, "SELECT clip_id FROM clips", "--limit", "2")
    assert "the first 2 rows" in told
    assert "rows" not in ego(lake, "SELECT clip_id FROM clips", "--limit", "12")
    assert "ARROW_SCAN" in ego(lake, "EXPLAIN SELECT * FROM clips")


def test_values_and_names_are_text_and_never_markup(lake: Lake) -> None:
    told = ego(lake, "SELECT '[/b].mp4' AS \"[red]x\", '[bold]:smile:' AS y, chr(27) || '[2J' AS z")
    for words in ("[/b].mp4", "[red]x", "[bold]:smile:", r"\x1b[2J"):
        assert words in told
    assert "\x1b" not in told
    assert "'[/b]'" in ego(lake, 'SELECT * FROM "[/b]"', status=1)


def test_what_is_refused_says_what_may_be_asked(lake: Lake) -> None:
    file = lake.root / "clips" / f"{SHARD}.parquet"
    before = file.read_bytes()
    ledger = lake.root / "_ledger" / "ledger.sqlite"
    known = ledger.read_bytes()
    for target in (file, ledger, lake.root / "x.py"):
        copy = f"EXPLAIN ANALYZE COPY (SELECT 1) TO '{target}' (FORMAT csv)"
        assert "only SELECT" in ego(lake, copy, status=1)
    assert "only tables" in ego(lake, f"SELECT * FROM read_text('{ledger}')", status=1)
    assert "did you mean clips" in ego(lake, "SELECT * FROM clip", status=1)
    assert (file.read_bytes(), ledger.read_bytes()) == (before, known)
    assert not (lake.root / "x.py").exists()


def test_what_runs_for_ever_or_takes_too_much_ends_with_a_sentence(lake: Lake) -> None:
    assert "computed for 0.5 s" in ego(lake, ENDLESS, "--timeout", "0.5", status=1)
    before = resource.getrlimit(resource.RLIMIT_DATA)
    for sql in (
        "SELECT repeat('x', 3000000000)",
        "SELECT length(repeat('x', 3000000000))",
        "SELECT list(range) FROM range(1000000000)",
    ):
        told = ego(lake, sql, "--memory-gb", "0.5", status=1)
        assert "needs more than the 0.5GB of memory" in told
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


_COUNT = """
import os, resource, subprocess, sys
reading = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)
size = 0
while block := reading.stdout.read(2**20):
    size += len(block)
print(size, reading.wait(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
"""


def test_a_large_answer_is_printed_in_bounded_memory(lake: Lake) -> None:
    sql = "SELECT repeat(clip_id, 200) AS x FROM clips, range(12000)"
    command = [EGO, "sql", "--lake", lake.location, "--json", "--memory-gb", "0.5", sql]
    told = subprocess.run(
        [sys.executable, "-c", _COUNT, *command],
        capture_output=True,
        text=True,
        timeout=500,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    size, status, peak_mib = map(int, told.stdout.split())
    assert status == 0, told.stderr
    assert size > 0.6e9
    assert peak_mib < 700, "of which Python and its libraries have 150"


def test_ctrl_c_ends_it(lake: Lake) -> None:
    # As a shell starts a command: pytest may itself run in the background, without Ctrl-C.
    command = [EGO, "sql", "--lake", lake.location, "--timeout", "0", "--json"]
    process = subprocess.Popen(
        [*command, f"SELECT clip_id FROM clips UNION ALL (SELECT 'x' FROM ({ENDLESS}))"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    process.stdout.readline()  # it computes
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (130, "Aborted!\n")


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        ([[1.0, 2.0], None, [3.0, None]], pa.list_(pa.float32(), 2)),
        ([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2)),
        ([[[1, 2], [3, 4]], None, [[5, 6], [7, 8]]], pa.list_(pa.list_(pa.int32(), 2), 2)),
        ([[[1, 2], None], None, [[5, 6], [7, 8]]], pa.list_(pa.list_(pa.int32(), 2), 2)),
        ([["a", None], ["b", "c"]], pa.list_(pa.string(), 2)),
        ([[True, False]], pa.list_(pa.bool_(), 2)),
        ([], pa.list_(pa.float64(), 3)),
    ],
)
def test_vectors_are_read_as_arrow_reads_them(rows: list[Any], kind: pa.DataType) -> None:
    column = pa.array(rows, kind)
    for part in (column, column.slice(1), column.slice(0, 1)):
        assert _values(part) == part.to_pylist()
