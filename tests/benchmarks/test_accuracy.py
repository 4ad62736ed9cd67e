"""The accuracy report: truth scores perfectly, errors show, floors decide the exit status."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import accuracy
from benchmarks.accuracy import Floor

pytest.importorskip("ego_assets.videos.clips")
FRAMES, WIDTH, HEIGHT = 12, 64, 48


class MadeTruth:
    """A tiny truth: one object that slides and turns, one right hand, a moving camera."""

    fps, width, height = 30.0, WIDTH, HEIGHT
    fx = fy = 60.0
    cx, cy = 31.5, 23.5
    frame_count = FRAMES
    cuts: tuple[int, ...] = (8,)
    object_names = ("box",)

    def __init__(self) -> None:
        rng = np.random.default_rng(5)
        steps = np.arange(FRAMES)
        self.pts_s = steps / self.fps
        self.world_from_camera = np.tile(np.eye(4), (FRAMES, 1, 1))
        self.world_from_camera[:, :3, 3] = np.cumsum(rng.normal(size=(FRAMES, 3)), axis=0)
        self.world_from_object = np.tile(np.eye(4), (FRAMES, 1, 1, 1))
        angle = np.radians(5.0 * steps)
        turn = self.world_from_object[:, 0, :2, :2]
        turn[:, 0, 0] = turn[:, 1, 1] = np.cos(angle)
        turn[:, 1, 0], turn[:, 0, 1] = np.sin(angle), -np.sin(angle)
        self.object_visible = np.ones((FRAMES, 1), dtype=bool)
        self.hand_visible = np.tile([False, True], (FRAMES, 1))
        joints = np.array([[0, 0, 0]] * 21, dtype=float)
        for finger in range(5):
            for step in range(4):
                joints[1 + 4 * finger + step] = [0.08 + 0.02 * step, 0.03 - 0.02 * finger, 0.0]
        self.joints_camera_m = np.tile(joints + np.array([0, 0, 0.5]), (FRAMES, 2, 1, 1))
        self.joints_px = self.joints_camera_m[..., :2] / 0.5 * self.fx + [self.cx, self.cy]
        self.contacts = np.zeros((FRAMES, 2, 1), dtype=bool)
        self.contacts[4:8, 1, 0] = True

    def object_mask(self, frame: int, o: int) -> np.ndarray:
        mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
        mask[5:15, 5 + frame : 20 + frame] = True
        return mask

    def hand_mask(self, frame: int, side: int) -> np.ndarray:
        mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
        mask[30:, 30:50] = True
        return mask


def clip_row(start: int, end: int, take: int) -> dict:
    return {
        "video_id": "0" * 16,
        "shard": "20260101-0000",
        "clip_id": f"0-{take:04d}",
        "take_id": f"0-t{take:03d}",
        "start_frame": start,
        "end_frame": end,
        "end_pts_s": end / 30.0,
        "context_frames": 0,
        "split_reason": "cut" if start else "start",
    }


@pytest.fixture
def perfect():
    from benchmarks.graph_run import GraphRun
    from benchmarks.truth_tables import TruthTables
    from ego_assets.catalog import TABLES

    truth = MadeTruth()
    clips = [clip_row(0, 8, 0), clip_row(8, FRAMES, 1)]
    tables = TruthTables(truth)
    run = GraphRun({}, clips)
    for name in ("object_masks", "hand_masks", "hand_poses", "scene_reconstruction"):
        run.tables[name] = [r for c in clips for r in tables.rows(name, c)]
        TABLES[name].from_rows(run.tables[name])
    run.tables["object_poses"] = [r for c in clips for r in tables.rows("object_poses", c)]
    TABLES["object_poses"].from_rows(run.tables["object_poses"])
    run.tables["object_movements"] = [
        {"state": "held", "track_id": "0-t000-o000", "start_frame": 4, "end_frame": 8}
    ]
    return run, truth


def test_the_truth_itself_meets_every_floor(perfect):
    from benchmarks.sample_scores import score_sample

    values = score_sample(*perfect)
    assert values["clips", "cuts F1"] == 1.0
    assert values["segmenter", "object mask IoU"] == values["segmenter", "hand mask IoU"] == 1.0
    assert values["segmenter", "object track switches"] == 0
    assert values["hand_estimator", "2D joint error / hand box"] == pytest.approx(0, abs=1e-6)
    assert values["reconstructor", "camera error / path length"] == pytest.approx(0, abs=1e-9)
    assert values["reconstructor", "registered frames"] == 1.0
    key = "object_pose_estimator", "rotation error since first sight, deg"
    assert values[key] == pytest.approx(0, abs=1e-5)
    assert values["movement_estimator", "held F1 against contact"] == 1.0
    for key in values.keys() & accuracy.FLOORS.keys():
        assert accuracy.FLOORS[key].ratio(values[key]) <= 1.0


def test_errors_show_in_the_scores(perfect):
    from benchmarks.sample_scores import score_sample

    run, truth = perfect
    run.tables["object_masks"] = run.tables["object_masks"][: FRAMES // 2]
    for row in run.tables["hand_poses"]:
        row["joints_px"] = (np.array(row["joints_px"]) + np.array([0.0, 5.0])).tolist()
    run.tables["scene_reconstruction"] = [
        r | {"is_valid": r["frame_index"] != 3} for r in run.tables["scene_reconstruction"]
    ]
    values = score_sample(run, truth)
    assert values["segmenter", "object mask IoU"] == pytest.approx(0.5)
    box = np.ptp(truth.joints_px[0, 1], axis=0).max()
    assert values["hand_estimator", "2D joint error / hand box"] == pytest.approx(5 / box)
    assert values["reconstructor", "registered frames"] == pytest.approx(11 / 12)


def test_context_rows_are_not_counted_twice(perfect):
    run, _ = perfect
    doubled = [r | {"is_context": True} for r in run.tables["hand_poses"]]
    run.tables["hand_poses"] += doubled
    assert len(run.rows("hand_poses")) == len(doubled)


def test_hand_frame_is_right_handed_and_looks_out_of_the_back():
    from benchmarks.truth_tables import hand_rotation

    joints = np.zeros((21, 3))
    joints[9], joints[5], joints[17] = [0.1, 0, 0], [0.09, 0.03, 0], [0.08, -0.04, 0]
    np.testing.assert_allclose(hand_rotation(joints, "right"), np.eye(3), atol=1e-12)
    mirrored = joints * [1, -1, 1]
    np.testing.assert_allclose(hand_rotation(mirrored, "left"), np.eye(3), atol=1e-12)


def test_ratio_says_how_much_of_the_allowance_is_used():
    assert Floor(10.0).ratio(5.0) == 0.5
    assert Floor(0.75, at_least=True).ratio(0.5) == 1.5
    assert Floor(0.0).ratio(0.0) == 0.0
    assert Floor(0.0).ratio(2.0) == 3.0
    assert Floor(10.0).ratio(math.nan) == math.inf
    assert Floor(0.75, at_least=True).ratio(0.0) == math.inf


def _values(**changes: float) -> accuracy.Values:
    perfect = {k: f.limit for k, f in accuracy.FLOORS.items()}
    return perfect | {("clips", "cuts F1"): changes.get("cuts", 1.0)}


def test_the_worst_seed_decides():
    lines = accuracy.lines_of({"0": _values(), "1": _values(cuts=0.8)}, floors=True)
    cuts = next(x for x in lines if x.metric == "cuts F1")
    assert cuts.mean == pytest.approx(0.9)
    assert cuts.worst == 0.8 and cuts.verdict == "FAIL"
    assert all(x.verdict == "pass" for x in lines if x is not cuts)


def test_a_floor_that_nothing_measured_is_missed():
    lines = accuracy.lines_of({"0": {}}, floors=True)
    assert len(lines) == len(accuracy.FLOORS)
    assert all(x.verdict == "FAIL" for x in lines)


@pytest.mark.parametrize(("cuts", "status"), [(1.0, 0), (0.9, 1)])
def test_exit_status_last_line_and_json(cuts, status, monkeypatch, capsys, tmp_path):
    def fake(seeds, **_):
        return accuracy.lines_of({"0": _values(cuts=cuts)}, floors=True), {}

    monkeypatch.setattr(accuracy, "measure", fake)
    report = tmp_path / "report.json"
    assert accuracy.main(["--no-real", "--quick", "--json", str(report)]) == status
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("worst ratio to a floor: ")
    content = json.loads(report.read_text())
    assert content["passed"] is (status == 0)
    assert len(content["samples"]) == len(accuracy.FLOORS)
    if status:
        assert "1.111 (clips: cuts F1)" in last


def test_a_failed_operator_fails_the_run(monkeypatch, capsys):
    lines = accuracy.lines_of({"0": _values()}, floors=True)
    monkeypatch.setattr(accuracy, "measure", lambda *_, **__: (lines, {"0": {"segmenter": "boom"}}))
    assert accuracy.main(["--no-real"]) == 1
    assert "segmenter: boom" in capsys.readouterr().out


def test_missing_real_data_is_said(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("EGO_REAL_DATA", str(tmp_path))
    lines = accuracy.lines_of({"0": _values()}, floors=True)
    monkeypatch.setattr(accuracy, "measure", lambda *_, **__: (lines, {}))
    assert accuracy.main(["--quick"]) == 0
    assert "EGO_REAL_DATA" in capsys.readouterr().out


def test_reachable_targets_are_met_by_the_own_hand():
    from benchmarks.retarget_reach import reachable_error

    error_mm, _ = reachable_error("ego_hand", "position", None, seed=0)
    assert error_mm < 10.0


def test_real_scores_tell_what_they_could_not_score(monkeypatch, tmp_path):
    from benchmarks import real_scores

    broken = {"broken": lambda _: (_ for _ in ()).throw(RuntimeError("no file"))}
    monkeypatch.setattr(real_scores, "DATA_SETS", broken)
    values, skipped = real_scores.score_real(tmp_path, quick=False)
    assert values == {} and skipped == {"broken": "RuntimeError: no file"}


def test_graph_run_goes_on_after_a_failed_operator(monkeypatch, tmp_path):
    from benchmarks import graph_run

    run = graph_run.GraphRun({"camera_model": "PINHOLE"}, [])
    monkeypatch.setattr(graph_run, "split", lambda *_, **__: run)

    def build(operator, *_):
        if operator == "segmenter":
            raise RuntimeError("boom")
        return SimpleNamespace()

    monkeypatch.setattr(graph_run.registry, "build", build)
    made = graph_run.run_graph(tmp_path / "a.mp4")
    assert made.failures["segmenter"].startswith("RuntimeError: boom")
    assert made.failures["hand_estimator"] == "no hand_masks"


def test_rendered_truth_fits_the_contract_and_true_hands_are_within_the_floor(tmp_path):
    from benchmarks.truth_tables import TruthTables
    from ego_assets.catalog import TABLES
    from samples import load_truth, render_sample

    path = render_sample(tmp_path, 3, duration_s=0.5, width=320, height=180)
    truth = load_truth(path)
    clip = clip_row(0, truth.frame_count, 0)
    tables = TruthTables(truth)
    for name in ("object_masks", "hand_masks", "hand_poses", "scene_reconstruction"):
        rows = tables.rows(name, clip)
        assert rows, name
        TABLES[name].from_rows(rows)
    values = accuracy.score_true_hands([clip], truth)
    assert values["retargeter", "fingertip error of true hands, mm"] < 10.0
