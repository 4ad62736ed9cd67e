"""What a run says of itself: rows are counted once, and a check that fails is told."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pseudo_terminal import EGO, on_terminal

from dagster_project.cli import main
from dagster_project.cli.terminal import report
from dagster_project.run_summary import Summary, fill
from ego_assets.catalog import TABLES
from ego_assets.hands.landmarks.estimator import LandmarksHandEstimator
from ego_assets.hands.skeleton import finger_flexion_deg
from ego_assets.operator import Carried, ClipInput, ClipOutput
from tests.engine.stage_bench import SHARD, blank_row, make_bench, provenance
from tests.support.rendered import small_sample

FAILED = {
    "check": "hands_are_not_mirrored",
    "asset": "hand_poses",
    "shard": "20260101-0000",
    "severity": "error",
    "reason": "hand tracks whose fingers bend backward: 2 of 2 over 0.2 of its frames",
}


class MirroredHands(LandmarksHandEstimator):
    """Takes each left hand for a right one, and the other way round. Fingers of the sample are
    nearly straight: so they are bent, in order that the side can be told."""

    name = "mirrored"
    version = "1"

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        found = super().process(clip, carried)
        for row in found.tables["hand_poses"]:
            row["side"] = {"left": "right", "right": "left"}[row["side"]]
            row["joints_camera_m"] = _bent_backward(row["joints_camera_m"], row["side"]).tolist()
        return found


def _bent_backward(joints: list[list[float]], side: str) -> np.ndarray:
    flat = np.array(joints)
    normal = np.cross(flat[5] - flat[0], flat[17] - flat[0])
    lift = np.zeros((21, 1))
    lift[5:] = np.tile([0.0, 0.01, 0.03, 0.06], 4)[:, None]
    both = np.stack([flat + sign * lift * normal / np.linalg.norm(normal) for sign in (1, -1)])
    flexion, _ = finger_flexion_deg(both, np.full(2, side == "right"))
    return np.asarray(both[flexion.mean(axis=(1, 2)).argmin()])


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv("EGO_BACKENDS", "")


@pytest.mark.slow
def test_a_failed_check_is_a_failure_of_the_run(tmp_path: Path) -> None:
    """The run is on a terminal, where its progress moves to the end; then it is told again."""
    video = small_sample(tmp_path / "raw")
    backends = tmp_path / "backends.yaml"
    backends.write_text(f"hand_estimator: {__name__}:MirroredHands\n")
    lake = ["--lake", str(tmp_path / "lake")]
    command = ["run", str(video), *lake, "--backends", str(backends)]
    with on_terminal([*EGO, *command]) as terminal:
        status, words = terminal.end(), terminal.shown
    assert status == 1, words
    assert "check failed: hands_are_not_mirrored of hand_poses, shard " in words
    steps = [tuple(map(int, found)) for found in re.findall(r"\b(\d+)/(\d+)\b", words)]
    assert len(set(steps)) > 5, "the bar moves"
    assert steps[-1][0] == steps[-1][1] > 5, "to the end"
    bar = words[: words.index("check failed: ")]
    assert bar.rindex(" robot_mappings ") < bar.rindex(" done "), "and says so"
    told = CliRunner().invoke(main, ["status", *lake, "--json"])
    names = [check["check"] for check in json.loads(told.stdout)["checks"]["first"]]
    assert "hands_are_not_mirrored" in names
    done = CliRunner().invoke(main, [*command, "--json"])
    assert done.exit_code == 1, done.output
    summary = json.loads(done.stdout)
    assert summary["ok"] is False
    assert summary["seconds"] == {}, "nothing was run for that"
    assert summary["clips"]["failed"] == 0
    failed = {check["check"]: check for check in summary["checks"]}
    told = failed["hands_are_not_mirrored"]
    assert (told["asset"], told["severity"]) == ("hand_poses", "error")
    assert told["shard"] == summary["shards"][0]
    assert told["reason"].startswith("hand tracks whose fingers bend backward")


def test_only_errors_decide_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    counts = dict.fromkeys(("total", "accepted", "done"), 1)
    none = dict.fromkeys(("rejected", "failed", "quarantined"), 0)
    summary = Summary("/lake", [], videos=counts | none, clips=counts | none)
    for severity, status, word in (("warn", 0, "warning"), ("error", 1, "failed")):
        told = replace(summary, checks=[FAILED | {"severity": severity}])
        with pytest.raises(SystemExit) as ended:
            report(told, as_json=False)
        assert ended.value.code == status
        line = f"check {word}: {FAILED['check']} of hand_poses, shard {SHARD}: {FAILED['reason']}"
        assert line in capsys.readouterr().out


def test_a_row_is_counted_once_whatever_the_number_of_shards(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, {"a": 2, "b": 1})
    other, lake = "20260101-0001", bench.lake
    rows = lake.read("video_manifest", SHARD).to_pylist()
    (first,) = [row for row in rows if row["uri"].endswith("a.mp4")]
    row = first | {"video_id": "c" * 16, "shard": other, "uri": "c.mp4"}
    rejected = blank_row("video_manifest", video_id="", shard=other, uri="d.mp4", accepted=False)
    rejected |= {"reject_reason": "damaged", "byte_size": 1, "sha256": "d" * 64}
    batch = TABLES["video_manifest"].from_rows([row, rejected])
    lake.publish("video_manifest", other, "c", batch, provenance("m"))
    lake.write_shard(other, {"files": []})
    summary = Summary(lake.location, [SHARD, other])
    known = {f["uri"] for s in lake.shards() for f in lake.read("video_manifest", s).to_pylist()}
    fill(summary, lake, bench.ledger, known)
    assert summary.rows["video_manifest"] == 4
    assert summary.rows["clips"] == 3
    assert summary.videos == {"total": 4, "accepted": 3, "rejected": 1}
    fill(summary, lake, bench.ledger, {first["uri"], "d.mp4"})
    assert summary.rows["video_manifest"] == 2
    assert summary.rows["clips"] == 2
