"""`ego export vitra`: hands posed again from what was written, as VITRA's own code does it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ego_assets.exports.vitra.settings import VitraSettings
from ego_assets.hands.mano import ManoHand, read_mano
from ego_assets.hands.skeleton import placed_columns
from tests.exports.bars import number_in
from tests.exports.lerobot_reader import tree
from tests.exports.numbered_lake import MadeVideo, NumberedLake, make, poses_of, withdraw
from tests.exports.test_mcap import world_moves
from tests.models.tiny_models import tiny_mano

FLIP = np.array([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def mano(tmp_path_factory: pytest.TempPathFactory) -> ManoHand:
    """A made-up hand in MANO's form; the real one may not be passed on."""
    path = tmp_path_factory.mktemp("mano") / "MANO_RIGHT.pkl"
    tiny_mano(path)
    return ManoHand.of(read_mano(path), "cpu")


def posed(mano: ManoHand, turns: np.ndarray, betas: np.ndarray) -> np.ndarray:
    """(T, 21, 3) joints of the right hand. turns: (T, 16, 3, 3), betas: (T, 10)."""
    import torch

    found = mano.pose(torch.tensor(turns).float(), torch.tensor(betas).float())[1]
    return np.asarray(found.numpy(), np.float64)


def mano_poses(mano: ManoHand, video: MadeVideo, other_shape: int = -1) -> Iterator[dict[str, Any]]:
    """Rows of hand_poses with random MANO hands, as the estimator writes them: a left hand is what
    the right one is in a mirror."""
    rng = np.random.default_rng(0)
    shape = {side: rng.normal(0, 1, 10) for side in ("left", "right")}
    for row in poses_of(video):
        side, frame = row["side"], row["frame_index"]
        betas = shape[side] + (frame == other_shape)
        vectors = rng.normal(0, 0.4, (16, 3))
        turns = Rotation.from_rotvec(vectors).as_matrix()
        joints = posed(mano, turns[None], betas[None])[0]
        joints = (joints - joints[0]) * (FLIP if side == "left" else 1)
        joints += np.array(row["joints_camera_m"])[0]
        seen = vectors * ([1, -1, -1] if side == "left" else [1, 1, 1])
        yield (
            row
            | placed_columns(joints, side)
            | {
                "mano_pose": seen.ravel().tolist(),
                "mano_betas": betas.tolist(),
            }
        )


def lake_of(folder: Path, mano: ManoHand, video: MadeVideo, **said: int) -> NumberedLake:
    return make(folder, video, more={"hand_poses": list(mano_poses(mano, video, **said))})


def read(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("episodic_annotations/*.npy")
    found: dict[str, Any] = np.load(path, allow_pickle=True).item()
    return found


def as_vitra_poses(mano: ManoHand, hand: dict[str, Any], is_left: bool) -> np.ndarray:
    """(T, 21, 3) joints in the camera: the right hand without a turn, mirrored if it is a left
    one, turned about the wrist, moved (VITRA's `process_single_hand_labels`)."""
    count = len(hand["kept_frames"])
    turns = np.concatenate([np.tile(np.eye(3), (count, 1, 1, 1)), hand["hand_pose"]], axis=1)
    joints = posed(mano, turns, np.tile(hand["beta"], (count, 1)))
    if is_left:
        joints = joints * FLIP
    about = (joints - joints[:, :1]) @ hand["global_orient_camspace"].transpose(0, 2, 1)
    found: np.ndarray = about + hand["transl_camspace"][:, None]
    return found


def apart_mm(found: np.ndarray, hand: dict[str, Any]) -> float:
    """The largest distance of joints from those that were written, in kept frames."""
    kept = hand["kept_frames"].astype(bool)
    return float(1000 * np.linalg.norm(found - hand["joints_camspace"], axis=2)[kept].max())


def test_both_hands_are_posed_by_the_right_one(tmp_path: Path, mano: ManoHand) -> None:
    video = world_moves(60)
    lake = lake_of(tmp_path, mano, video)
    report = lake.export(to="vitra")
    assert (report["episodes"], report["frames"], report["skipped"]) == (1, 60, {})
    said = read(tmp_path / "out")
    rows = {
        side: {r["frame_index"]: r for r in lake.tables["hand_poses"] if r["side"] == side}
        for side in ("left", "right")
    }
    for side, other in (("left", "right"), ("right", "left")):
        hand = said[side]
        assert hand["kept_frames"].tolist() == [1] * 60
        wanted = np.array([rows[side][n]["joints_camera_m"] for n in range(60)])
        assert np.abs(hand["joints_camspace"] - wanted).max() < 1e-6
        assert apart_mm(as_vitra_poses(mano, hand, side == "left"), hand) < 1
        # What goes wrong where somebody mixes things up is seen by this.
        assert apart_mm(as_vitra_poses(mano, hand, side != "left"), hand) > 1
        assert apart_mm(as_vitra_poses(mano, said[other], other == "left"), hand) > 1
        swapped = hand | {"hand_pose": hand["hand_pose"][:, [3, 4, 5, 0, 1, 2, *range(6, 15)]]}
        assert apart_mm(as_vitra_poses(mano, swapped, side == "left"), swapped) > 1
        # World and camera are one place: extrinsics lead from the one to the other.
        flat = said["extrinsics"]
        seen = hand["joints_worldspace"] @ flat[:, :3, :3].transpose(0, 2, 1) + flat[:, None, :3, 3]
        assert np.abs(seen - hand["joints_camspace"]).max() < 1e-5
        turn = flat[:, :3, :3] @ hand["global_orient_worldspace"]
        assert np.abs(turn - hand["global_orient_camspace"]).max() < 1e-5
    cameras = {r["frame_index"]: r["world_from_camera_m"] for r in lake.tables["episode_frames"]}
    centres = np.linalg.inv(said["extrinsics"])[:, :3, 3]
    assert np.abs(centres - [cameras[n] for n in range(60)]).max() < 1e-5
    assert said["total_transl_dist"] == pytest.approx(1.0, abs=1e-3)


def test_frames_of_the_video_are_those_of_the_annotation(tmp_path: Path, mano: ManoHand) -> None:
    lake = lake_of(tmp_path, mano, world_moves(60))
    lake.export(to="vitra")
    out = tmp_path / "out"
    said = read(out)
    with av.open(str(out / "videos" / f"{said['video_name']}.mp4")) as container:
        shown = [number_in(f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
    at = [shown[n] for n in said["video_decode_frame"]]
    assert at == said["ego"]["source_frame"].tolist() == list(range(60))
    index = np.load(out / "episode_frame_index.npz")
    assert index["index_frame_pair"].tolist() == [[0, n] for n in range(60)]
    (name,) = index["index_to_episode_id"]
    assert (out / "episodic_annotations" / f"{name}.npy").exists()
    assert name == f"ego_{said['video_name']}_ep_000000"
    assert "text_rephrase" not in said  # the loader takes the first of an empty list
    assert said["text"]["left"] == [(lake.tables["episodes"][0]["instruction"], (0, 60))]
    before = tree(out)
    assert lake.export(to="vitra")["encoded"] == 0
    assert tree(out) == before
    withdraw(lake)
    assert "(1) are deleted" in lake.export(ok=False, to="vitra")
    assert not tree(out)


def test_what_is_not_known_or_of_another_shape_is_not_kept(tmp_path: Path, mano: ManoHand) -> None:
    video = world_moves(90)
    video.is_valid[40:44] = False
    lake_of(tmp_path, mano, video, other_shape=20).export(to="vitra")
    said = read(tmp_path / "out")
    for side in ("left", "right"):
        hand = said[side]
        assert np.flatnonzero(hand["kept_frames"] == 0).tolist() == [20, 40, 41, 42, 43]
        assert apart_mm(as_vitra_poses(mano, hand, side == "left"), hand) < 1


def test_hands_without_mano_are_left_out_with_the_reason(tmp_path: Path) -> None:
    said = make(tmp_path, MadeVideo(count=60)).export(ok=False, to="vitra")
    assert "no MANO parameters" in said and "hamer" in said


def test_a_camera_whose_axis_is_aside_gets_its_middle(tmp_path: Path, mano: ManoHand) -> None:
    """VITRA takes the principal point for the middle of the picture."""
    from ego_assets.exports.motion.lens import pinhole_pictures
    from tests.exports.numbered import EGO, episode
    from tests.exports.numbered_lake import LENS

    camera = LENS | {"distortion": None, "width_px": 192, "height_px": 108, "cx_px": 85.5}
    made = episode("e", 3, 0, provenance={"camera": camera})
    size, matrix, pictures = pinhole_pictures(made, EGO, 640, centred=True)
    assert size == (192, 108) and matrix[0, 2] == 95.5
    plain = next(iter(made.pictures[EGO]()))
    shifted = next(iter(pictures))
    assert np.abs(shifted[:, 10:].astype(int) - plain[:, :-10]).max() <= 1
    _, kept, _ = pinhole_pictures(made, EGO, 640)
    assert kept[0, 2] == 85.5


def test_the_name_of_the_data_set_has_no_underscore() -> None:
    with pytest.raises(ValueError, match="dataset"):
        VitraSettings(dataset="my_set")
