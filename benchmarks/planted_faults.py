"""Good tables of a rendered sample, and faults to plant in them.

Here: the tables of a shard as perfect operators would leave them, faults by name with the probes
that must notice each, and those that may. Not here: scores (`probes`), the probes themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.good_episodes import good_episodes
from benchmarks.good_telemetry import good_telemetry
from benchmarks.graph_run import SHARD, probe
from benchmarks.truth_tables import SIDES, TruthTables
from ego_assets.catalog import TABLES, all_probes, feature_of
from ego_assets.hands.skeleton import finger_flexion_deg
from ego_assets.quality.finding import Evidence, Finding
from ego_assets.vision.change import picture_change
from ego_assets.vision.geometry import matrix_from_quaternion, quaternion_from_matrix
from ego_assets.vision.rle import decode_mask, encode_mask, mask_box
from samples import load_truth, render_sample

Rows = list[dict[str, Any]]
Shard = dict[str, Rows]
Change = Callable[[Shard, np.random.Generator], None]
OVERLAP_FRAMES = 24
_BACKEND = {"backend": "truth", "quality_tier": "reference"}


@dataclass(frozen=True)
class Fault:
    """must: (table, probe) that have to notice; may: names of probes that are right to notice."""

    name: str
    plant: Change
    must: frozenset[tuple[str, str]]
    may: frozenset[str] = field(default_factory=frozenset)


def good_shard(video: Path) -> Shard:
    """The tables of one sample video as two overlapping clips of a take, without a flaw."""
    truth = load_truth(video)
    manifest = probe(video)
    clips = _clips(manifest["video_id"], truth)
    makers = TruthTables(truth)
    shard: Shard = {"video_manifest": [manifest], "clips": clips}
    for table in (
        "object_masks", "hand_masks", "hand_poses", "scene_reconstruction", "object_poses",
    ):  # fmt: skip
        shard[table] = [row for clip in clips for row in makers.rows(table, clip)]
    shard["object_movements"] = [r for c in clips for r in _movements(truth, c)]
    shard["robot_mappings"] = [_mapping(row) for row in shard["hand_poses"]]
    return shard | good_episodes(shard) | good_telemetry(shard)


def render_good_shard(folder: Path, seed: int) -> tuple[Shard, Path]:
    """A small sample and its good tables."""
    video = render_sample(folder, seed=seed, duration_s=3.0, width=320, height=180)
    return good_shard(video), video


def findings(shard: Shard, video: Path | None = None) -> dict[tuple[str, str], Finding]:
    """What every probe says, by table and name. video: what cameras are compared with."""
    tables = {name: TABLES[name].from_rows(rows) for name, rows in shard.items()}

    def look(clip_id: str, first: int, last: int) -> float | None:
        from ego_assets.media.decode import ClipFrames

        assert video is not None
        indices = np.unique(np.linspace(first, last, 4).astype(int)).tolist()
        frames = ClipFrames(video, first, last + 1).read(max_side_px=160, indices=indices)
        return picture_change([f.image for f in frames])

    found = {}
    for asked in all_probes():
        if set(asked.reads) <= set(tables):
            given: Mapping[str, pa.Table] = {
                t: tables[t].select(list(dict.fromkeys(c))) for t, c in asked.reads.items()
            }
            evidence = Evidence(asked.table, given, look if video else None)
            found[asked.table, asked.name] = asked(
                evidence, feature_of(asked.table).probe_settings()
            )
    return found


def planted(shard: Shard, fault: Fault, seed: int) -> Shard:
    """A copy of a good shard with a fault in it."""
    copy = {name: [dict(row) for row in rows] for name, rows in shard.items()}
    fault.plant(copy, np.random.default_rng(seed))
    return copy


# -- good tables that the truth of a sample does not have ----------------------------------------


def _clips(video_id: str, truth: Any) -> Rows:
    half = truth.frame_count // 2
    spans = [(0, half + OVERLAP_FRAMES // 2), (half - OVERLAP_FRAMES // 2, truth.frame_count)]
    return [
        {
            "video_id": video_id,
            "shard": SHARD,
            "clip_id": f"{video_id}-{i:04d}",
            "clip_index": i,
            "take_id": f"{video_id}-t000",
            "index_in_take": i,
            "start_frame": start,
            "end_frame": end,
            "start_pts_s": start / truth.fps,
            "end_pts_s": end / truth.fps,
            "context_frames": OVERLAP_FRAMES if i else 0,
            "split_reason": "length" if i else "start",
            "estimated_cost": 1.0,
        }
        for i, (start, end) in enumerate(spans)
    ]


def _movements(truth: Any, clip: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    start, end = clip["start_frame"], clip["end_frame"]
    touched = np.asarray(truth.contacts, bool)[start:end].any(axis=1)
    for o in np.flatnonzero(truth.object_visible[start:end].any(axis=0)):
        bounds = [0, *(np.flatnonzero(np.diff(touched[:, o])) + 1), end - start]
        for first, last in pairwise(bounds):
            is_held = bool(touched[first, o])
            yield {
                "video_id": clip["video_id"],
                "shard": SHARD,
                "clip_id": clip["clip_id"],
                "track_id": f"{clip['take_id']}-o{o:03d}",
                "start_frame": start + int(first),
                "end_frame": start + int(last),
                "start_pts_s": (start + first) / truth.fps,
                "end_pts_s": (start + last) / truth.fps,
                "state": "held" if is_held else "still",
                "displacement": 0.0,
                "path_length": 0.0,
                "mean_speed": 0.0,
                "displacement_px": 0.0,
                "scale_kind": "metric",
                "touching_side": None,
                "touching_track_id": None,
                "touch_share": float(is_held),
            } | _BACKEND


def _mapping(hand: Mapping[str, Any]) -> dict[str, Any]:
    """A robot whose joints are the hand's own angles."""
    joints = np.array([hand["joints_camera_m"]])
    flexion, _ = finger_flexion_deg(joints, np.array([hand["side"] == "right"]))
    tips = ["thumb", "index", "middle", "ring"]
    same = ("video_id", "shard", "clip_id", "frame_index", "pts_s", "is_context", "track_id")
    return {
        **{name: hand[name] for name in (*same, "side")},
        "robot": "stand_in",
        "method": "vector",
        "joint_names": [f"joint_{i}" for i in range(12)],
        "joint_positions": np.radians(flexion[0]).ravel().tolist(),
        "camera_from_wrist_m": hand["camera_from_hand_m"],
        "camera_from_wrist_xyzw": hand["camera_from_hand_xyzw"],
        "fingertip_names": tips,
        "fingertip_error_m": [0.004] * len(tips),
        "mean_fingertip_error_m": 0.004,
        "solver_status": "converged",
        "within_limits": True,
    } | _BACKEND


# -- faults --------------------------------------------------------------------------------------


def _frame(shard: Shard) -> int:
    """A frame in the second clip alone, where a fault begins."""
    return shard["clips"][0]["end_frame"] + 6


def _each(table: str, change: Callable[[dict[str, Any], np.random.Generator], None]) -> Change:
    def plant(shard: Shard, rng: np.random.Generator) -> None:
        for row in shard[table]:
            change(row, rng)

    return plant


def _set(table: str, **values: Any) -> Change:
    return _each(table, lambda row, rng: row.update(values))


def _damage_a_clip(shard: Shard, rng: np.random.Generator) -> None:
    start = _frame(shard)
    shard["clips"][1]["damaged_frames"] = [[start, start + 5]]


def _go_blind(shard: Shard, rng: np.random.Generator) -> None:
    shard["object_masks"], shard["hand_masks"] = [], []


def _empty(table: str) -> Change:
    def plant(shard: Shard, rng: np.random.Generator) -> None:
        shard[table] = []

    return plant


def _forget_cameras(shard: Shard, rng: np.random.Generator) -> None:
    second = shard["clips"][1]["clip_id"]
    shard["scene_reconstruction"] = [
        r for r in shard["scene_reconstruction"] if r["clip_id"] != second
    ]


def _new_mask(row: dict[str, Any], mask: np.ndarray) -> None:
    row |= {"rle": encode_mask(mask), "box": mask_box(mask), "area_px": int(mask.sum())}


def _become_specks(row: dict[str, Any], rng: np.random.Generator) -> None:
    mask = np.zeros((row["height_px"], row["width_px"]), bool)
    y, x = (int(rng.integers(n - 2)) for n in mask.shape)
    mask[y : y + 2, x : x + 2] = True
    _new_mask(row, mask)


def _become_background(row: dict[str, Any], rng: np.random.Generator) -> None:
    old = decode_mask(row["rle"], row["height_px"], row["width_px"])
    _new_mask(row, ~old)


def _halve_now_and_then(row: dict[str, Any], rng: np.random.Generator) -> None:
    if row["frame_index"] % 3 == 0:
        mask = decode_mask(row["rle"], row["height_px"], row["width_px"])
        middle = int((row["box"][1] + row["box"][3]) / 2)
        mask[middle:] = False
        if mask.any():
            _new_mask(row, mask)


def _drop_rows(shard: Shard, rng: np.random.Generator) -> None:
    shard["object_masks"] = [r for r in shard["object_masks"] if rng.random() > 0.3]


def _rename_tracks(row: dict[str, Any], rng: np.random.Generator) -> None:
    row["track_id"] += f"-{row['frame_index'] // 5}"


def _crowd(shard: Shard, rng: np.random.Generator) -> None:
    first = shard["hand_masks"][0]
    shard["hand_masks"] += [first | {"track_id": f"{first['track_id']}-{i}"} for i in range(9)]


def _swap_sides(row: dict[str, Any], rng: np.random.Generator) -> None:
    row["side"] = "left" if row["side"] == "right" else "right"


def _swap_sides_for_a_while(shard: Shard, rng: np.random.Generator) -> None:
    start = _frame(shard)
    for row in shard["hand_poses"]:
        if start <= row["frame_index"] < start + 5:
            _swap_sides(row, rng)


def _exchange_tracks_for_a_while(shard: Shard, rng: np.random.Generator) -> None:
    """The whole hands change places: tracks and sides agree, the joints leap."""
    start = _frame(shard)
    for row in shard["hand_poses"]:
        if start <= row["frame_index"] < start + 5:
            _swap_sides(row, rng)
            row["track_id"] = f"{row['track_id'][:-1]}{SIDES.index(row['side'])}"


def _believe_the_wrong_side(row: dict[str, Any], rng: np.random.Generator) -> None:
    """A sound hand of the other side, in the place of this one."""
    _swap_sides(row, rng)
    joints = np.array(row["joints_camera_m"])
    joints[:, 0] = 2 * joints[0, 0] - joints[:, 0]
    row["joints_camera_m"] = joints.tolist()


def _stretch_bones(row: dict[str, Any], rng: np.random.Generator) -> None:
    joints = np.array(row["joints_camera_m"])
    stretch = 1.0 + 0.5 * np.sin(row["frame_index"] / 4.0)
    joints[8] = joints[7] + stretch * (joints[8] - joints[7])
    row["joints_camera_m"] = joints.tolist()


def _jitter(row: dict[str, Any], rng: np.random.Generator) -> None:
    # 5 px RMS at 1080p in a picture that is 180 px high.
    noise = rng.normal(0, 5.0 / np.sqrt(2) * 180 / 1080, (21, 2))
    row["joints_px"] = (np.array(row["joints_px"]) + noise).tolist()


def _collapse(row: dict[str, Any], rng: np.random.Generator) -> None:
    row["joints_camera_m"] = [row["joints_camera_m"][0]] * 21
    row["joints_px"] = [row["joints_px"][9]] * 21


def _push_away(row: dict[str, Any], rng: np.random.Generator) -> None:
    for name in ("joints_camera_m", "camera_from_hand_m"):
        row[name] = (np.array(row[name]) * 5.0).tolist()


def _shift_joints(row: dict[str, Any], rng: np.random.Generator) -> None:
    row["joints_px"] = (np.array(row["joints_px"]) + np.array([70.0, -40.0])).tolist()


def _fold_fingers_back(row: dict[str, Any], rng: np.random.Generator) -> None:
    joints = np.array(row["joints_camera_m"])
    joints[[8, 12, 16, 20]] = 2 * joints[[7, 11, 15, 19]] - joints[[8, 12, 16, 20]]
    row["joints_camera_m"] = joints.tolist()


def _freeze_camera(shard: Shard, rng: np.random.Generator) -> None:
    first = shard["scene_reconstruction"][0]
    for row in shard["scene_reconstruction"]:
        for name in ("world_from_camera_m", "world_from_camera_xyzw"):
            row[name] = first[name]


def _freeze_camera_in_the_middle(shard: Shard, rng: np.random.Generator) -> None:
    start = _frame(shard)
    rows = [r for r in shard["scene_reconstruction"] if r["frame_index"] >= start]
    for row in rows:
        if row["frame_index"] < start + 20:
            row["world_from_camera_m"] = rows[0]["world_from_camera_m"]
            row["world_from_camera_xyzw"] = rows[0]["world_from_camera_xyzw"]


def _leap(shard: Shard, rng: np.random.Generator) -> None:
    start = _frame(shard)
    way = rng.normal(size=3)
    way *= 1.5 / np.linalg.norm(way)
    for row in shard["scene_reconstruction"]:
        if row["frame_index"] >= start:
            row["world_from_camera_m"] = (np.array(row["world_from_camera_m"]) + way).tolist()


def _turned(xyzw: list[float], degrees: float) -> list[float]:
    a = np.radians(degrees)
    turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    return quaternion_from_matrix(matrix_from_quaternion(np.array(xyzw)) @ turn).tolist()


def _alternate(row: dict[str, Any], rng: np.random.Generator) -> None:
    at = np.array(row["world_from_camera_m"])
    row["world_from_camera_m"] = (at + np.eye(3)[0] * (row["frame_index"] % 2)).tolist()


def _shake_camera(row: dict[str, Any], rng: np.random.Generator) -> None:
    at = np.array(row["world_from_camera_m"])
    row["world_from_camera_m"] = (at + rng.normal(0, 0.3, 3)).tolist()


def _spin(shard: Shard, rng: np.random.Generator) -> None:
    start = _frame(shard)
    for row in shard["scene_reconstruction"]:
        if row["frame_index"] == start:
            row["world_from_camera_xyzw"] = _turned(row["world_from_camera_xyzw"], 70.0)


def _lose_cameras(row: dict[str, Any], rng: np.random.Generator) -> None:
    if row["frame_index"] % 5:
        row |= dict.fromkeys(
            ("world_from_camera_m", "world_from_camera_xyzw", "registration", "inliers")
        )
        row |= {"inlier_share": None, "reprojection_error_px": None, "is_valid": False}


def _second(shard: Shard, table: str) -> Iterator[dict[str, Any]]:
    return (r for r in shard[table] if r["clip_id"] == shard["clips"][1]["clip_id"])


def _drift_in_scale(shard: Shard, rng: np.random.Generator) -> None:
    for row in _second(shard, "scene_reconstruction"):
        row["world_from_camera_m"] = (np.array(row["world_from_camera_m"]) * 1.6).tolist()


def _break_camera_seam(shard: Shard, rng: np.random.Generator) -> None:
    for row in _second(shard, "scene_reconstruction"):
        angle = 0.5 * row["frame_index"]
        row["world_from_camera_xyzw"] = _turned(row["world_from_camera_xyzw"], angle)


def _break_mask_seam(table: str) -> Change:
    def plant(shard: Shard, rng: np.random.Generator) -> None:
        for row in _second(shard, table):
            mask = decode_mask(row["rle"], row["height_px"], row["width_px"])
            _new_mask(row, np.roll(mask, 60, axis=1))

    return plant


def _break_hand_seam(shard: Shard, rng: np.random.Generator) -> None:
    for row in _second(shard, "hand_poses"):
        row["joints_px"] = (np.array(row["joints_px"]) + 25.0).tolist()


def _break_object_seam(shard: Shard, rng: np.random.Generator) -> None:
    for row in _second(shard, "object_poses"):
        row["camera_from_object_m"] = (np.array(row["camera_from_object_m"]) * 1.3).tolist()


def _teleport(shard: Shard, rng: np.random.Generator) -> None:
    start = _frame(shard)
    for row in shard["object_poses"]:
        if row["frame_index"] >= start:
            at = np.array(row["camera_from_object_m"])
            row["camera_from_object_m"] = (at + np.array([0.3, -0.2, 0.3])).tolist()


def _move_origins(row: dict[str, Any], rng: np.random.Generator) -> None:
    row["camera_from_object_m"] = (
        np.array(row["camera_from_object_m"]) + np.array([0.35, 0, 0])
    ).tolist()


def _levitate(shard: Shard, rng: np.random.Generator) -> None:
    start = shard["clips"][0]["start_frame"]
    for row in shard["object_poses"]:
        at = np.array(row["world_from_object_m"])
        at[1] -= 0.006 * (row["frame_index"] - start)  # y points down
        row["world_from_object_m"] = at.tolist()
    for row in shard["object_movements"]:
        row |= {"state": "moving", "touch_share": 0.0}


def _measure_in_g(row: dict[str, Any], rng: np.random.Generator) -> None:
    row["accel_mps2"] = [part / 9.81 for part in row["accel_mps2"]]


def _shorten_footage(shard: Shard, rng: np.random.Generator) -> None:
    shard["footage"][-1]["end_pts_s"] -= 0.5


def _sometimes(
    share: float, **values: Any
) -> Callable[[dict[str, Any], np.random.Generator], None]:
    def change(row: dict[str, Any], rng: np.random.Generator) -> None:
        if rng.random() < share:
            row |= values

    return change


def _shake_robot(row: dict[str, Any], rng: np.random.Generator) -> None:
    noise = rng.normal(0, 0.6, len(row["joint_positions"]))
    row["joint_positions"] = (np.array(row["joint_positions"]) + noise).tolist()


def _fault(name: str, plant: Change, *must: str, may: str = "") -> Fault:
    """must: `table:probe`; may: names of probes, with blanks between."""
    pairs = frozenset((m.split(":")[0], m.split(":")[1]) for m in must)
    return Fault(name, plant, pairs, frozenset(may.split()))


FAULTS = (
    _fault(
        "a segmenter gone blind",
        _go_blind,
        "object_masks:frames_have_masks",
        "hand_masks:frames_have_masks",
    ),
    _fault(
        "weights of noise: specks for objects",
        _each("object_masks", _become_specks),
        "object_masks:masks_have_plausible_areas",
        "object_masks:masks_do_not_flicker",
        may="clips_agree_at_their_seams objects_fall_on_their_mask",
    ),
    _fault(
        "masks inside out",
        _each("object_masks", _become_background),
        "object_masks:masks_have_plausible_areas",
        "object_masks:masks_do_not_hug_the_border",
    ),
    _fault(
        "masks that lose their lower half",
        _each("object_masks", _halve_now_and_then),
        "object_masks:masks_do_not_flicker",
    ),
    _fault(
        "dropped rows",
        _drop_rows,
        "object_masks:masks_do_not_flicker",
        may="clips_agree_at_their_seams",
    ),
    _fault(
        "a tracker that forgets",
        _each("object_masks", _rename_tracks),
        "object_masks:tracks_are_not_fragmented",
    ),
    _fault("hands by the dozen", _crowd, "hand_masks:frames_are_not_crowded",
           may="tracks_are_not_fragmented clips_agree_at_their_seams"),
    _fault("a hand model with the wrong weights",
           _set("hand_poses", is_valid=False, invalid_reason="beside its mask"),
           "hand_poses:hands_are_valid", may="clips_have_rows"),
    _fault("no hand poses", _empty("hand_poses"), "hand_poses:hands_are_valid"),
    _fault("no cameras of a clip", _forget_cameras, "scene_reconstruction:frames_are_registered"),
    _fault("no object poses", _empty("object_poses"), "object_poses:clips_have_rows"),
    _fault("no movements", _empty("object_movements"), "object_movements:clips_have_rows"),
    _fault("no robots", _empty("robot_mappings"), "robot_mappings:clips_have_rows"),
    _fault(
        "left taken for right",
        _each("hand_poses", _swap_sides),
        "hand_poses:hands_are_not_mirrored",
        "hand_poses:left_hands_are_on_the_left",
        may="joints_within_limits",
    ),
    _fault("left taken for right for a while", _swap_sides_for_a_while,
           "hand_poses:sides_do_not_swap", may="joints_within_limits"),
    _fault(
        "hands that change places",
        _exchange_tracks_for_a_while,
        "hand_poses:sides_do_not_swap",
        may="joints_within_limits hands_do_not_jitter joints_fall_on_the_hand_mask "
        "bones_keep_their_length",
    ),
    _fault("a model told the wrong side", _each("hand_poses", _believe_the_wrong_side),
           "hand_poses:left_hands_are_on_the_left"),
    _fault("bones that stretch", _each("hand_poses", _stretch_bones),
           "hand_poses:bones_keep_their_length", may="joints_within_limits"),
    _fault("joints that shake", _each("hand_poses", _jitter), "hand_poses:hands_do_not_jitter"),
    _fault("hands five times too far", _each("hand_poses", _push_away),
           "hand_poses:hands_are_within_reach", "hand_poses:hands_have_a_plausible_size",
           may="values_are_plausible"),
    _fault("hands that collapse", _each("hand_poses", _collapse),
           "hand_poses:hands_have_a_plausible_size", "hand_poses:bones_keep_their_length",
           may="joints_fall_on_the_hand_mask"),  # where the one place is off the mask
    _fault("joints beside the hand", _each("hand_poses", _shift_joints),
           "hand_poses:joints_fall_on_the_hand_mask"),
    _fault("fingers that fold back", _each("hand_poses", _fold_fingers_back),
           "hand_poses:joints_within_limits", may="hands_are_not_mirrored"),
    _fault("a frozen camera", _freeze_camera, "scene_reconstruction:cameras_move_with_the_image",
           may="clips_agree_at_their_seams"),
    _fault("a camera that freezes midway", _freeze_camera_in_the_middle,
           "scene_reconstruction:cameras_move_with_the_image",
           may="cameras_do_not_jump cameras_do_not_jitter"),
    _fault("identity poses",
           _set("scene_reconstruction", world_from_camera_m=[0.0] * 3,
                world_from_camera_xyzw=[0.0, 0.0, 0.0, 1.0]),
           "scene_reconstruction:cameras_move_with_the_image",
           may="clips_agree_at_their_seams"),
    _fault("a camera that leaps", _leap, "scene_reconstruction:cameras_do_not_jump",
           may="cameras_do_not_jitter"),
    _fault("a camera in two places at once", _each("scene_reconstruction", _alternate),
           "scene_reconstruction:cameras_do_not_jitter"),
    _fault("camera positions of noise", _each("scene_reconstruction", _shake_camera),
           "scene_reconstruction:cameras_do_not_jitter", may="scale_does_not_drift"),
    _fault("a camera that spins", _spin, "scene_reconstruction:cameras_turn_like_heads"),
    _fault("lost cameras", _each("scene_reconstruction", _lose_cameras),
           "scene_reconstruction:frames_are_registered", "scene_reconstruction:values_are_there",
           "scene_reconstruction:hands_have_a_place_in_metres",
           may="cameras_do_not_jump cameras_do_not_jitter clips_agree_at_their_seams"),
    _fault("a world without a scale", _set("scene_reconstruction", scale_kind="arbitrary"),
           "scene_reconstruction:hands_have_a_place_in_metres"),
    _fault("poses on few points", _set("scene_reconstruction", inlier_share=0.2),
           "scene_reconstruction:poses_rest_on_inliers"),
    _fault("scale that drifts", _drift_in_scale, "scene_reconstruction:scale_does_not_drift"),
    _fault("cameras that disagree", _break_camera_seam,
           "scene_reconstruction:clips_agree_at_their_seams"),
    _fault("object masks that disagree", _break_mask_seam("object_masks"),
           "object_masks:clips_agree_at_their_seams",
           may="objects_fall_on_their_mask masks_do_not_flicker masks_do_not_hug_the_border"),
    _fault("hand masks that disagree", _break_mask_seam("hand_masks"),
           "hand_masks:clips_agree_at_their_seams",
           may="joints_fall_on_the_hand_mask masks_do_not_flicker"),
    _fault("hands that disagree", _break_hand_seam, "hand_poses:clips_agree_at_their_seams",
           may="joints_fall_on_the_hand_mask"),
    _fault("objects that disagree", _break_object_seam, "object_poses:clips_agree_at_their_seams"),
    _fault("an object that teleports", _teleport, "object_poses:objects_do_not_jump",
           may="objects_fall_on_their_mask"),
    _fault("objects beside their mask", _each("object_poses", _move_origins),
           "object_poses:objects_fall_on_their_mask"),
    _fault("objects that levitate", _levitate, "object_movements:untouched_objects_do_not_rise"),
    _fault("a robot out of its limits",
           _each("robot_mappings", _sometimes(0.1, within_limits=False)),
           "robot_mappings:robot_joints_within_limits"),
    _fault("fingertips that miss", _set("robot_mappings", mean_fingertip_error_m=0.08),
           "robot_mappings:fingertips_reach_their_targets"),
    _fault("a robot that shakes", _each("robot_mappings", _shake_robot),
           "robot_mappings:robot_joints_are_not_too_fast"),
    _fault("a solver that fails", _each("robot_mappings", _sometimes(0.2, solver_status="failed")),
           "robot_mappings:solver_finds_a_solution"),
    _fault("a focal length of another world", _set("video_manifest", fx_px=1e6, fy_px=1e6),
           "video_manifest:values_are_plausible"),
    _fault("a manifest without sizes", _set("video_manifest", width_px=None, height_px=None),
           "video_manifest:values_are_there"),
    _fault("a stretch of footage in no bin", _shorten_footage, "footage:every_second_is_in_one_bin",
           may="footage_is_kept"),
    _fault("rules that suit no footage", _set("footage", bin="no hands", episode_id=None),
           "footage:footage_is_kept"),
    _fault("wrists that jitter after cleaning", _set("episodes", jitter_after_mm=12.0),
           "episodes:cleaned_wrists_are_smooth"),
    _fault("a recording that was cut off",
           _set("video_manifest", promised_frame_count=300, missing_s=7.0),
           "video_manifest:recordings_are_not_cut_off"),
    _fault("a chapter without the one before it",
           _set("video_manifest", uri="/raw/GX020012.MP4", recording_id="0123456789abcdef",
                chapter_index=1, recording_start_s=None),
           "video_manifest:chapters_follow_each_other"),
    _fault("a file with a hole", _set("video_manifest", damaged_frames=[[10, 15], [40, 42]]),
           "video_manifest:videos_are_not_damaged"),
    _fault("a payload of telemetry that is damaged",
           _set("telemetry_sources", fault_count=2, faults=["1.00 s: ACCL says 9 bytes"]),
           "telemetry_sources:telemetry_is_whole"),
    _fault("accelerations in units of g", _each("telemetry", _measure_in_g),
           "telemetry:accelerometers_feel_gravity"),
    _fault("a sensor that is mounted otherwise", _set("gravity", world_spread_deg=25.0),
           "gravity:gravity_agrees_with_cameras"),
    _fault("pictures that the decoder made up", _damage_a_clip, "clips:clips_are_not_damaged"),
)  # fmt: skip
"""Kinds of faults, each with what has to notice it."""
