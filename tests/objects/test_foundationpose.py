"""FoundationPose: a real process beside a folder that plays the checkout, sound and hostile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import dagster as dg
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import trimesh
from PIL import Image
from scipy.spatial.transform import Rotation

from dagster_project import doctor
from dagster_project.definitions import build_defs
from ego_assets.catalog import TABLES
from ego_assets.engine.errors import ErrorKind, classify
from ego_assets.graph.backends import Backends
from ego_assets.graph.partitions import SHARDS
from ego_assets.intake.shards import find_files, register_files
from ego_assets.models import registry
from ego_assets.models.weights import WeightsError
from ego_assets.objects.foundationpose import child as far_side
from ego_assets.objects.foundationpose.bridge import BridgeError
from ego_assets.objects.foundationpose.estimator import FoundationPoseEstimator
from ego_assets.objects.settings import FoundationPoseSettings
from ego_assets.operator import Carried, ClipInput, Frame, Intrinsics
from ego_assets.vision.cameras import project_points
from ego_assets.vision.geometry import matrix_from_quaternion, pose_matrix, transform_points
from ego_assets.vision.rle import encode_mask
from resources.compute import Compute
from resources.lake import Lake
from resources.storage import Storage
from tests.objects.fake_foundationpose import fake_checkout, log_of, plant, set_blind
from tests.support.instances import dagster_instance
from tests.support.linked_weights import link_default_weights
from tests.support.rendered import render_sample

SIZE = (120, 160)
PINHOLE = Intrinsics("PINHOLE", 150.0, 150.0, (SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2)
LENS = Intrinsics("OPENCV", 150.0, 150.0, 83.0, 57.0, (-0.12, 0.02, 0.001, -0.002))
FPS = 10
# A box whose origin is at one of its faces, off its centre.
LOW, HIGH = np.array([-0.01, -0.04, 0.0]), np.array([0.05, 0.04, 0.1])
CORNERS = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * (HIGH - LOW) + LOW
FACES = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]


def truth_at(frame: int) -> np.ndarray:
    """It goes to the right and turns; at frame 20 it is suddenly 15 cm to the left."""
    turn = Rotation.from_rotvec([0.1, 0.02 * frame, 0.3]).as_matrix()
    x = 0.004 * frame - (0.15 if frame >= 20 else 0)
    return pose_matrix(turn, np.array([x, 0.01, 0.5]))


class FlatDepth:
    """Half a metre everywhere, or what the settings say; coarse, and not known in one corner."""

    def __init__(self, settings: dict[str, Any], weights: Path) -> None:
        self.metres = float(settings.get("metres", 0.5))

    @staticmethod
    def identity(settings: dict[str, Any], weights: Path) -> str:
        return f"flat depth {settings.get('metres', 0.5)}"

    def __call__(
        self, pictures: Sequence[np.ndarray], focal_over_width: float | None
    ) -> list[np.ndarray]:
        assert focal_over_width == pytest.approx(150 / SIZE[1])
        found = [np.full((p.shape[0] // 2, p.shape[1] // 2), self.metres) for p in pictures]
        for depth in found:
            depth[0, 0] = np.nan
        return found


class Pictures:
    """Each frame has its number as its colour."""

    height, width = SIZE

    def __init__(self) -> None:
        self.shown: list[int] = []

    def read(self, *, max_side_px: int | None = None, indices: Any = None) -> Iterator[Frame]:
        for index in range(100) if indices is None else indices:
            self.shown.append(index)
            yield Frame(index, index / FPS, np.full((*SIZE, 3), index, np.uint8), 1.0)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    fake_checkout(tmp_path / "FoundationPose", {f: truth_at(f) for f in range(60)})
    write_box(tmp_path / "object_meshes" / "toy_box.obj")
    return tmp_path


def write_box(path: Path, scale: float = 1.0) -> None:
    lines = [f"v {x} {y} {z}" for x, y, z in CORNERS * scale]
    lines += ["f " + " ".join(str(i + 1) for i in face) for face in FACES]
    path.parent.mkdir(exist_ok=True)
    path.write_text("mtllib none.mtl\nusemtl none\n" + "\n".join(lines) + "\n")


def settings(**changes: Any) -> FoundationPoseSettings:
    return FoundationPoseSettings(**{"depth": "test_foundationpose:FlatDepth"} | changes)


@pytest.fixture
def estimator(weights: Path) -> FoundationPoseEstimator:
    return FoundationPoseEstimator(settings(), weights)


def mask_of(frame: int, camera: Intrinsics = PINHOLE) -> np.ndarray:
    # The corners alone do not bound a box behind a bent lens: points along its edges.
    steps = np.linspace(0, 1, 9)[:, None]
    edges = [CORNERS[i] * (1 - steps) + CORNERS[j] * steps for i in range(8) for j in range(8)]
    places = project_points(camera, transform_points(truth_at(frame), np.concatenate(edges)))
    drawn = np.zeros(SIZE, np.uint8)
    cv2.fillConvexPoly(drawn, cv2.convexHull(np.round(places).astype(np.int32)), 1)
    return drawn > 0


def row_of(clip: ClipInput, frame: int, track: str, mask: np.ndarray) -> dict[str, Any]:
    label = "hand" if "-h" in track else ("Toy-Box" if track.endswith("0") else "spoon")
    rows, columns = np.nonzero(mask)
    hand = {"side": "left", "is_wearer": True} if label == "hand" else {}
    return (
        clip.row(frame, frame / FPS)
        | hand
        | {
            "track_id": track,
            "label": label,
            "score": 0.9,
            "box": [float(v) for v in (columns.min(), rows.min(), columns.max(), rows.max())],
            "area_px": int(mask.sum()),
            "height_px": SIZE[0],
            "width_px": SIZE[1],
            "rle": encode_mask(mask),
            "backend": "test",
            "quality_tier": "baseline",
        }
    )


def clip_of(
    frames: range | list[int],
    context: int = 0,
    camera: Intrinsics = PINHOLE,
    scale_kind: str = "metric",
    hands: dict[int, np.ndarray] | None = None,
    others: bool = False,
) -> ClipInput:
    clip = ClipInput(
        {
            "video_id": "0" * 16,
            "shard": "20260101-0000",
            "clip_id": f"{'0' * 16}-0000",
            "take_id": "t",
            "start_frame": frames[0],
            "end_frame": frames[-1] + 1,
            "start_pts_s": frames[0] / FPS,
            "end_pts_s": (frames[-1] + 1) / FPS,
            "context_frames": context,
        },
        {},
        Pictures(),
        camera,
    )
    objects = [row_of(clip, f, "t-o000", mask_of(f, camera)) for f in frames]
    if others:
        objects += [row_of(clip, f, "t-o001", np.eye(*SIZE, dtype=bool)) for f in frames]
    world = {
        "world_id": "w",
        "is_valid": True,
        "world_from_camera_m": [1.0, 0.0, 0.0],
        "world_from_camera_xyzw": [0.0, 0.0, 0.0, 1.0],
        "registration": "pnp",
        "scale_kind": scale_kind,
        "scale_spread": None,
        "scale_samples": None,
        **dict.fromkeys(("fx_px", "fy_px", "cx_px", "cy_px"), 1.0),
        "camera_model": "PINHOLE",
        "distortion": [],
        "intrinsics_source": "assumed_fov",
        "backend": "test",
        "quality_tier": "baseline",
    }
    nothing = dict.fromkeys(
        ("invalid_reason", "inliers", "inlier_share", "reprojection_error_px", "points_uri")
    )
    clip.tables.update(  # type: ignore[attr-defined]
        object_masks=TABLES["object_masks"].from_rows(objects),
        hand_masks=TABLES["hand_masks"].from_rows(
            [row_of(clip, f, "t-h000", m) for f, m in (hands or {}).items()]
        ),
        scene_reconstruction=TABLES["scene_reconstruction"].from_rows(
            [clip.row(f, f / FPS) | nothing | world for f in frames]
        ),
    )
    return clip


def poses_of(rows: list[dict[str, Any]]) -> dict[int, np.ndarray]:
    return {
        r["frame_index"]: pose_matrix(
            matrix_from_quaternion(np.array(r["camera_from_object_xyzw"])),
            np.array(r["camera_from_object_m"]),
        )
        for r in rows
        if r["is_valid"]
    }


def run(
    estimator: FoundationPoseEstimator, clip: ClipInput, carried: Carried | None = None
) -> list[dict[str, Any]]:
    rows = estimator.process(clip, carried).tables["object_poses"]
    assert TABLES["object_poses"].from_rows(rows).num_rows == len(rows)
    return rows


# -- poses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("camera", [PINHOLE, LENS])
def test_known_poses_come_back(
    estimator: FoundationPoseEstimator, weights: Path, camera: Intrinsics
) -> None:
    rows = run(estimator, clip_of(range(10), camera=camera))
    found = poses_of(rows)
    assert sorted(found) == list(range(10)), [r["invalid_reason"] for r in rows]
    for frame, pose in found.items():
        assert np.allclose(pose, truth_at(frame), atol=1e-6)
        row = rows[frame]
        assert np.allclose(row["world_from_object_m"], pose[:3, 3] + [1, 0, 0])
        assert (row["world_id"], row["scale_kind"]) == ("w", "metric")
        assert (row["object_frame"], row["mesh_uri"]) == ("mesh", "object_meshes/toy_box.obj")
        assert (row["backend"], row["quality_tier"]) == ("foundationpose", "reference")
        assert row["score"] > 0.75, "the drawn mesh covers the mask"
    assert log_of(weights / "FoundationPose") == [
        "register 0",
        *[f"track {f}" for f in range(1, 10)],
    ]


def test_a_world_that_is_not_in_metres_has_no_pose(estimator: FoundationPoseEstimator) -> None:
    rows = run(estimator, clip_of(range(3), scale_kind="arbitrary"))
    assert all(r["is_valid"] and r["world_from_object_m"] is None for r in rows)


def test_an_object_without_a_mesh_goes_to_the_baseline(estimator: FoundationPoseEstimator) -> None:
    output = estimator.process(clip_of(range(4), others=True), None)
    rows = output.tables["object_poses"]
    assert {(r["track_id"], r["backend"], r["quality_tier"]) for r in rows} == {
        ("t-o000", "foundationpose", "reference"),
        ("t-o001", "baseline", "baseline"),
    }
    assert len(rows) == 8
    assert output.notes == {"labels_without_mesh": ["spoon"]}


def test_a_lost_object_is_found_in_the_same_frame(
    estimator: FoundationPoseEstimator, weights: Path
) -> None:
    found = poses_of(run(estimator, clip_of(range(17, 23))))
    assert np.allclose(found[20], truth_at(20), atol=1e-6)
    assert log_of(weights / "FoundationPose")[3:6] == ["track 20", "register 20", "track 21"]


def test_one_that_stays_lost_is_looked_for_now_and_then(
    estimator: FoundationPoseEstimator, weights: Path
) -> None:
    set_blind(weights / "FoundationPose", [20, 25])
    rows = run(estimator, clip_of(range(17, 33)))
    assert sorted(poses_of(rows)) == [17, 18, 19, 30, 31, 32]
    assert rows[3]["invalid_reason"] == "mesh and mask do not overlap"
    looked = [x for x in log_of(weights / "FoundationPose") if x.startswith("register")]
    assert looked == ["register 17", "register 20", "register 25", "register 30"]


def test_after_a_gap_it_is_found_anew(estimator: FoundationPoseEstimator, weights: Path) -> None:
    run(estimator, clip_of([0, 1, 4, 5, 12, 13]))
    assert log_of(weights / "FoundationPose") == [
        "register 0", "track 1", "track 4", "track 5", "register 12", "track 13",
    ]  # fmt: skip


def test_a_take_in_two_clips_is_one_long_run(weights: Path) -> None:
    checkout = weights / "FoundationPose"
    set_blind(checkout, [20])
    whole = run(FoundationPoseEstimator(settings(), weights), clip_of(range(12, 32)))
    log = log_of(checkout)
    (checkout / "log.txt").unlink()
    first = FoundationPoseEstimator(settings(), weights).process(clip_of(range(12, 22)), None)
    carried = json.loads(json.dumps(first.carried))
    clip = clip_of(range(17, 32), context=5)
    second = FoundationPoseEstimator(settings(), weights).process(clip, carried)
    assert log_of(checkout) == log, "the frames that they share are looked at once"
    assert clip.frames.shown == list(range(22, 32))  # type: ignore[attr-defined]
    rows = [r | {"is_context": False} for r in second.tables["object_poses"]]
    assert rows == whole[5:]


def test_what_a_hand_covers_says_nothing(estimator: FoundationPoseEstimator) -> None:
    clip = clip_of(range(3))
    hidden = np.zeros(SIZE, bool)
    hidden[:, : SIZE[1] // 2 + 12] = True
    visible = [row_of(clip, f, "t-o000", mask_of(f) & ~hidden) for f in range(3)]
    table = TABLES["object_masks"].from_rows(visible)
    clip.tables["object_masks"] = table  # type: ignore[index]
    assert not poses_of(run(estimator, clip)), "without the hand it is half a mesh"
    hands = [row_of(clip, f, "t-h000", hidden) for f in range(3)]
    clip.tables["hand_masks"] = TABLES["hand_masks"].from_rows(hands)  # type: ignore[index]
    assert sorted(poses_of(run(estimator, clip))) == [0, 1, 2]


def test_no_depth_no_pose(weights: Path) -> None:
    estimator = FoundationPoseEstimator(settings(depth_settings={"metres": 0.0}), weights)
    rows = run(estimator, clip_of(range(2)))
    assert {r["invalid_reason"] for r in rows} == {"no depth at the mask"}
    assert log_of(weights / "FoundationPose") == []


def test_pictures_are_straightened(estimator: FoundationPoseEstimator) -> None:
    """A spot that the lens shows elsewhere is where a pinhole would have it, and its mask too."""
    lens = replace(LENS, distortion=(-0.3, 0.05, 0.002, -0.003))
    place = np.array([[0.42, 0.3, 1.0]])
    bent, straight = (
        project_points(c, place)[0] for c in (lens, replace(lens, model="PINHOLE", distortion=()))
    )
    assert np.linalg.norm(bent - straight) > 5
    picture = np.zeros((*SIZE, 3), np.uint8)
    cv2.circle(picture, np.round(bent).astype(int).tolist(), 3, (255, 255, 255), -1)
    clip = clip_of(range(1), camera=lens)
    row = row_of(clip, 0, "t-o000", picture[..., 0] > 0)
    clip.frames.read = lambda **_: [Frame(0, 0.0, picture, 1.0)]  # type: ignore[method-assign]
    (view,) = estimator._views(clip, {0: [row]})
    for shown in (view.image[..., 0] > 128, view.masks["t-o000"]):
        rows, columns = np.nonzero(shown)
        assert (columns.mean(), rows.mean()) == pytest.approx(straight.tolist(), abs=1.0)


# -- processes that fail ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("raise", "answer to `look` is: ValueError: no such luck"),
        ("exit", r"ended before its answer to `look` \(exit status 7\); its last words.*goodbye"),
        ("hang", "did not come within 5 s; its last words: .*I wait"),
        ("garbage", "cannot be understood: no message begins with"),
    ],
)
def test_a_failing_process_fails_its_clip_alone(weights: Path, fault: str, words: str) -> None:
    estimator = FoundationPoseEstimator(settings(), weights)
    run(estimator, clip_of(range(2)))
    patience = {"answer_timeout_s": 5.0} if fault == "hang" else {}
    estimator.settings = settings(**patience)
    plant(weights / "FoundationPose", fault, 2)
    with pytest.raises(BridgeError, match=f"(?s){words}") as caught:
        estimator.process(clip_of(range(2, 6)), None)
    assert classify(caught.value) is ErrorKind.OTHER
    assert not estimator.bridge.is_running
    estimator.settings = settings()
    assert sorted(poses_of(run(estimator, clip_of(range(2, 6))))) == [2, 3, 4, 5]


def test_want_of_memory_is_told_as_such(estimator: FoundationPoseEstimator, weights: Path) -> None:
    plant(weights / "FoundationPose", "memory", 1)
    with pytest.raises(MemoryError, match="Tried to allocate 3 GiB") as caught:
        estimator.process(clip_of(range(3)), None)
    assert classify(caught.value) is ErrorKind.MEMORY


@pytest.mark.parametrize("fault", ["nan", "mirrored"])
def test_a_pose_that_is_none_is_not_believed(
    estimator: FoundationPoseEstimator, weights: Path, fault: str
) -> None:
    plant(weights / "FoundationPose", fault, 0)
    rows = run(estimator, clip_of(range(8)))
    assert rows[0]["invalid_reason"] == {"nan": "not rigid", "mirrored": "behind the camera"}[fault]
    assert sorted(poses_of(rows)) == [5, 6, 7]


def test_what_it_gives_without_having_looked_is_not_believed(
    estimator: FoundationPoseEstimator, weights: Path
) -> None:
    """Where it has too little depth, `register` gives back a pose of another frame of reference."""
    plant(weights / "FoundationPose", "unsure", 1000)
    rows = run(estimator, clip_of(range(2)))
    assert rows[0]["invalid_reason"] == "not rigid"


def test_it_leaves_nothing_behind(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own class leaves a copy of each mesh in /tmp, wherever temporary files should go."""
    (weights / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(weights / "tmp"))
    run(FoundationPoseEstimator(settings(), weights), clip_of(range(1)))
    copy = Path((weights / "FoundationPose" / "left_behind.txt").read_text())
    assert copy.parent == Path("/tmp")
    assert not copy.exists()
    assert not list((weights / "tmp").iterdir())


def test_the_texture_of_a_glb_is_shown_to_it(weights: Path) -> None:
    (weights / "object_meshes" / "toy_box.obj").unlink()
    box = trimesh.creation.box(HIGH - LOW).apply_translation((LOW + HIGH) / 2)
    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=Image.new("RGB", (4, 4), (200, 30, 10))
    )
    box.visual = trimesh.visual.TextureVisuals(uv=np.zeros((8, 2)), material=material)
    box.export(weights / "object_meshes" / "toy_box.glb")
    run(FoundationPoseEstimator(settings(), weights), clip_of(range(1)))
    colour = (weights / "FoundationPose" / "colour.json").read_text()
    assert json.loads(colour) == [200, 30, 10]


def test_an_interrupted_question_is_not_answered_later(
    estimator: FoundationPoseEstimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks next would get the answer to another question."""

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(far_side, "receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(estimator, clip_of(range(2)))
    assert not estimator.bridge.is_running
    assert sorted(poses_of(run(estimator, clip_of(range(2))))) == [0, 1]


def test_it_gets_no_secrets(
    estimator: FoundationPoseEstimator, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "EGO_LEDGER_URL", "PYTHONPATH"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    plant(weights / "FoundationPose", "environment", 0)
    estimator.bridge.close()
    with pytest.raises(BridgeError, match="CUDA_VISIBLE_DEVICES") as caught:
        estimator.process(clip_of(range(1)), None)
    assert not {"AWS_SECRET_ACCESS_KEY", "EGO_LEDGER_URL", "PYTHONPATH"} & set(
        str(caught.value).split()
    )


def test_it_dies_with_its_parent(weights: Path) -> None:
    """Even one that hangs, and hears nothing of it."""
    plant(weights / "FoundationPose", "hang", -1)
    code = (
        "import sys; from pathlib import Path\n"
        "from ego_assets.objects.foundationpose.bridge import Bridge\n"
        "from ego_assets.objects.foundationpose import child as f\n"
        f"b = Bridge('', Path(f.__file__), Path({str(weights / 'FoundationPose')!r}))\n"
        "b.start(); print(b._program.process.pid, flush=True)\n"
        "b.ask({'op': 'load', 'checkout': str(b.checkout)}, {}, 600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    until = time.monotonic() + 60
    while not (weights / "FoundationPose/hangs").exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    until = time.monotonic() + 60
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until, "it outlives its parent"
        time.sleep(0.02)
    parent.stdout.close()


# -- set up wrongly --------------------------------------------------------------------------


def script(path: Path, code: str) -> str:
    """An interpreter that runs something else."""
    path.write_text(f"#!{sys.executable}\n{code}")
    path.chmod(0o755)
    return str(path)


VERSION_2 = """
import json, os, struct, sys
text = json.dumps({"op": "hello", "arrays": []}).encode()
os.write(int(sys.argv[2]), struct.pack("<4sHI", b"EGOM", 2, len(text)) + text)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (VERSION_2, "it speaks version 2 of the format, this side 1"),
        ("import os, sys; os.write(int(sys.argv[2]), b'GET / HTTP/1.1\\r\\n\\r\\n')", "no message"),
        ("import sys; sys.exit('no such module: numpy')", "last words: no such module: numpy"),
    ],
)
def test_another_interpreter_ends_the_stage(weights: Path, code: str, words: str) -> None:
    python = script(weights / "python", code)
    with pytest.raises(WeightsError, match=words):
        FoundationPoseEstimator(settings(python=python), weights)


def test_no_interpreter(weights: Path) -> None:
    with pytest.raises(WeightsError, match="/nowhere/python cannot be started"):
        FoundationPoseEstimator(settings(python="/nowhere/python"), weights)


def test_a_checkout_that_does_not_load_ends_the_stage(weights: Path) -> None:
    (weights / "FoundationPose/estimater.py").write_text("import no_such_extension")
    with pytest.raises(WeightsError, match="No module named 'no_such_extension'"):
        FoundationPoseEstimator(settings(), weights)
    (weights / "FoundationPose/estimater.py").write_text("import time; time.sleep(600)")
    with pytest.raises(WeightsError, match=r"`load` did not come within 0\.5 s"):
        FoundationPoseEstimator(settings(load_timeout_s=0.5), weights)


def test_depth_is_needed_from_the_start(weights: Path) -> None:
    with pytest.raises(WeightsError, match="needs metric depth and none is set"):
        FoundationPoseEstimator(settings(depth=""), weights)
    with pytest.raises(WeightsError, match="no_such_module"):
        FoundationPoseEstimator(settings(depth="no_such_module:Depth"), weights)


def test_what_the_results_depend_on(weights: Path) -> None:
    def identity(**changes: Any) -> tuple[str, str]:
        values = settings(**changes).model_dump()
        return registry.version("object_pose_estimator", "foundationpose", values, str(weights))

    version, digest = identity()
    assert version == "4+flat depth 0.5"
    assert identity(depth_settings={"metres": 2.0}) == ("4+flat depth 2.0", digest)
    write_box(weights / "object_meshes" / "toy_box.obj", 1.01)
    assert identity()[1] != digest
    with pytest.raises(WeightsError, match="needs metric depth"):
        identity(depth="")


def test_doctor(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = registry.find("object_pose_estimator", "foundationpose")
    monkeypatch.setenv("EGO_WEIGHTS", str(weights))
    chosen = {"depth": "test_foundationpose:FlatDepth"}
    # An error for those who have chosen it, and for nobody else.
    for settings_of_run, state in ((None, "unused"), ({}, "missing")):
        found = doctor._backend(entry, settings_of_run)
        assert (found.state, "needs metric depth" in found.facts) == (state, True)
    found = doctor._backend(entry, chosen)
    assert found.state == "ok", found.facts
    assert "1 meshes, depth by flat depth 0.5, hash " in found.facts
    assert "non-commercial" in found.facts
    assert not log_of(weights / "FoundationPose")
    (weights / "FoundationPose/nvdiffrast.py").unlink()
    found = doctor._backend(entry, chosen)
    assert (found.state, "finds no nvdiffrast: name the" in found.facts) == ("missing", True)
    (weights / "object_meshes/toy_box.obj").write_text("v 1 2 3")
    found = doctor._backend(entry, chosen)
    assert (found.state, "toy_box.obj" in found.facts) == ("missing", True)
    (weights / "FoundationPose/estimater.py").unlink()
    found = doctor._backend(entry)
    assert (found.state, "not set up" in found.facts) == ("unused", True)


def test_doctor_tells_wrong_settings(weights: Path) -> None:
    entry = registry.find("object_pose_estimator", "foundationpose")
    found = doctor._backend(entry, {"colour": "red"})
    assert (found.state, "colour" in found.facts) == ("missing", True)


# -- in the graph ----------------------------------------------------------------------------


class AnyDepth(FlatDepth):
    """For any lens."""

    def __call__(
        self, pictures: Sequence[np.ndarray], focal_over_width: float | None
    ) -> list[np.ndarray]:
        return [np.full(p.shape[:2], self.metres, np.float32) for p in pictures]


@pytest.mark.heavy
def test_the_graph(tmp_path: Path) -> None:
    """Chosen by a line, in a real worker, whose first process dies: its clip is tried again."""
    weights = tmp_path / "weights"
    link_default_weights(weights)
    checkout = fake_checkout(weights / "FoundationPose", {f: truth_at(0) for f in range(256)})
    write_box(weights / "object_meshes" / "object.obj")
    (checkout / "estimater.py").write_text(
        (checkout / "estimater.py").read_text().replace("depth[0, 0] == 0 and", "")
    )
    lake = Lake(tmp_path / "lake")
    video = render_sample(tmp_path / "raw", seed=6, duration_s=1.0)
    (shard,) = register_files(lake, find_files([video]).files)
    before = ("video_manifest", "clips", "object_masks", "hand_masks", "scene_reconstruction")
    with dagster_instance(tmp_path) as instance:
        instance.add_dynamic_partitions(SHARDS, [shard])

        def run(tables: tuple[str, ...], isolate: bool, **backends: Any) -> None:
            overrides = {
                "storage": Storage(lake_root=str(lake.root)),
                "compute": Compute(isolate=isolate, backoff_s=0.01, workers=1),
                "backends": Backends(**backends),
            }
            job = build_defs(overrides).resolve_job_def("whole_graph")
            result = job.execute_in_process(
                partition_key=shard,
                instance=instance,
                asset_selection=[dg.AssetKey(t) for t in tables],
            )
            assert result.success

        run(before, isolate=False)
        (checkout / "fault.txt").write_text("exit any")
        chosen = {"depth": "test_foundationpose:AnyDepth"}
        run(
            ("object_poses",),
            isolate=True,
            object_pose_estimator="foundationpose",
            weights_dir=str(weights),
            settings={"object_pose_estimator": chosen},
        )
        event = instance.get_latest_materialization_event(dg.AssetKey("object_poses"))
    assert event is not None
    assert event.asset_materialization is not None
    metadata = {k: v.value for k, v in event.asset_materialization.metadata.items()}
    assert (metadata["done"], metadata["retried"], metadata["worker deaths"]) == (1, 1, 0)
    rows = lake.read("object_poses", shard).to_pylist()
    assert len(rows) > 20
    assert {(r["backend"], r["mesh_uri"]) for r in rows} == {
        ("foundationpose", "object_meshes/object.obj")
    }
    path = lake.root / "object_poses" / f"{shard}.parquet"
    (origin,) = json.loads(pq.read_schema(path).metadata[b"ego.provenance"])
    assert origin["operator_version"] == "2+flat depth 0.5"
    assert len(origin["weights_hash"]) == 64
