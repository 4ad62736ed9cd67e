"""A take comes out in metres, of one scale, though many depths are wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from ego_assets.catalog import TABLES
from ego_assets.operator import ClipOutput, Rows
from ego_assets.scene.colmap import reconstructor as reconstruct
from ego_assets.scene.colmap.metric_scale import MetricScale, ScaleError, robust_scale, sample
from ego_assets.scene.colmap.reconstructor import PycolmapReconstructor
from ego_assets.scene.settings import DepthScaleSettings
from tests.support.plane_scene import LENS, Scene, clip_of, head_motion, room

MAX_SCALE_ERROR = 0.05
ENDS = ((0, 40), (15, 55))


class TrueDepth:
    """Depth of the scene that a picture shows, with noise, and a share of it far too large."""

    side_px = 384

    def __init__(self, scenes: Sequence[Scene], outliers: float = 0.3, noise: float = 0.05) -> None:
        self.scenes, self.outliers, self.noise = scenes, outliers, noise
        self.asked: list[float | None] = []

    def __call__(
        self, pictures: Sequence[np.ndarray], focal_over_width: float | None
    ) -> list[np.ndarray]:
        self.asked.append(focal_over_width)
        return [self._depth(p) for p in pictures]

    def _depth(self, picture: np.ndarray) -> np.ndarray:
        scene, frame = next(
            (s, f) for s in self.scenes for (f, _), (p, _) in s.cache.items() if p is picture
        )
        owner = scene.render(frame, (scene.width, scene.height))[1].ravel()
        pose = scene.camera(frame)
        rays = scene._rays((scene.width, scene.height)).T @ pose[:3, :3].T
        depth = np.zeros(len(rays))
        for number, patch in enumerate(scene.patches):
            normal, seen = np.cross(patch.u, patch.v), owner == number
            depth[seen] = (patch.corner - pose[:3, 3]) @ normal / (rays[seen] @ normal)
        rng = np.random.default_rng(frame)
        depth *= np.exp(rng.normal(0, self.noise, depth.shape))
        depth[rng.random(depth.shape) < self.outliers] *= 3
        return depth.reshape(picture.shape[:2])


class Reconstructor(PycolmapReconstructor):
    name, quality_tier = "test", "reference"

    def __init__(self, depth: TrueDepth, **settings: Any) -> None:
        super().__init__(DepthScaleSettings(checkpoint="none", **settings))
        self.depth = depth


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    cache: dict[Any, Any] = {}
    return [Scene(room(1), head_motion, a, b, LENS, cache=cache) for a, b in ENDS]


@pytest.fixture(scope="module", autouse=True)
def _mapped_once() -> Iterator[None]:
    """The same clip gives the same tracks and map: most of the time goes there."""
    known: dict[Any, Any] = {}
    held: list[Any] = []  # as long as a key is the place of an object, that must live
    tracks_of, map_of = reconstruct.collect_tracks, reconstruct.build_map

    def collect_tracks(frames: Any, *rest: Any) -> Any:
        first = next(frames)
        if first.index not in known:
            known[first.index] = tracks_of(_chain(first, frames), *rest)
        return known[first.index]

    def build_map(tracks: Any, *rest: Any) -> Any:
        if id(tracks) not in known:
            held.append(tracks)
            known[id(tracks)] = map_of(tracks, *rest)
        return known[id(tracks)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reconstruct, "collect_tracks", collect_tracks)
        patch.setattr(reconstruct, "build_map", build_map)
        yield


def _chain(first: Any, rest: Any) -> Iterator[Any]:
    yield first
    yield from rest


def take(
    scenes: list[Scene], *depths: TrueDepth, **settings: Any
) -> tuple[list[Rows], list[ClipOutput]]:
    """The clips of a take in order, each with a depth of its own (or the last one's)."""
    outputs: list[ClipOutput] = []
    for number, scene in enumerate(scenes):
        depth = depths[min(number, len(depths) - 1)]
        clip = clip_of(scene, number=number, context_frames=25 if number else 0)
        carried = outputs[-1].carried if outputs else None
        outputs.append(Reconstructor(depth, **settings).process(clip, carried))
    rows = [o.tables["scene_reconstruction"] for o in outputs]
    for found in rows:
        TABLES["scene_reconstruction"].from_rows(found)
    return rows, outputs


def metres_over_truth(rows: Rows) -> float:
    """Spread of the camera's places over what it is in truth."""
    valid = [r for r in rows if r["is_valid"]]
    found = np.array([r["world_from_camera_m"] for r in valid])
    true = np.array([head_motion(r["frame_index"])[:3, 3] for r in valid])
    spread = [np.linalg.norm(p - p.mean(axis=0), axis=1).mean() for p in (found, true)]
    return float(spread[0] / spread[1])


def test_a_take_is_in_metres_and_has_one_scale(scenes: list[Scene]) -> None:
    depth = TrueDepth(scenes)
    (first, second), outputs = take(scenes, depth)
    assert depth.asked == [LENS.fx / scenes[0].width], "once, for the whole take"
    for rows in (first, second):
        assert sum(r["is_valid"] for r in rows) > 0.9 * len(rows)
        assert {r["scale_kind"] for r in rows} == {"metric"}
        assert metres_over_truth(rows) == pytest.approx(1, abs=MAX_SCALE_ERROR)
    assert (
        len({(r["world_id"], r["scale_spread"], r["scale_samples"]) for r in first + second}) == 1
    )
    assert 0.03 < first[0]["scale_spread"] < 0.3
    assert first[0]["scale_samples"] > 500
    assert "m a unit, spread" in outputs[0].notes["metric_scale"]
    # The points are in metres too: the far wall is 4 m ahead.
    points = outputs[1].arrays["scene_reconstruction"]["points"]
    pose = next(r for r in second if r["is_valid"])
    ahead = np.linalg.norm(points - pose["world_from_camera_m"], axis=1)
    assert 1.0 < np.median(ahead) < 5.0


def test_where_points_disagree_there_are_no_metres_until_a_clip_has_them(
    scenes: list[Scene],
) -> None:
    wild, good = TrueDepth(scenes, noise=2.0), TrueDepth(scenes)
    (first, second), outputs = take(scenes, wild, good)
    assert {(r["scale_kind"], r["scale_spread"], r["scale_samples"]) for r in first} == {
        ("arbitrary", None, None)
    }
    assert "points disagree" in outputs[0].notes["no_metric_scale"]
    # In metres it is another world: nobody may compare it with the first clip's.
    assert {(r["scale_kind"], r["world_id"][-4:]) for r in second} == {("metric", "0001")}
    assert metres_over_truth(second) == pytest.approx(1, abs=MAX_SCALE_ERROR)


def test_too_few_points_are_no_scale(scenes: list[Scene]) -> None:
    rows, outputs = take(scenes[:1], TrueDepth(scenes), min_scale_samples=10**6)
    assert {r["scale_kind"] for r in rows[0]} == {"arbitrary"}
    assert "mapped points have a depth" in outputs[0].notes["no_metric_scale"]


@pytest.mark.parametrize("factor", [0.3, 5.0])
def test_a_third_of_outliers_moves_the_scale_by_less_than_a_percent(factor: float) -> None:
    rng = np.random.default_rng(0)
    ratios = 2.5 * np.exp(rng.normal(0, 0.1, 2000))
    ratios[:600] *= factor
    found = robust_scale(ratios, 8)
    assert found.factor == pytest.approx(2.5, rel=0.01)
    assert 0.1 < found.spread < 0.25, "what everyone says, outliers too"
    assert (found.samples, found.frames) == (2000, 8)
    assert abs(np.median(ratios) / 2.5 - 1) > 0.05, "a plain median would not do"


def test_points_that_agree_have_no_spread() -> None:
    assert robust_scale(np.full(10, 3.0), 1) == MetricScale(pytest.approx(3.0), 0.0, 10, 1)
    with pytest.raises(ScaleError, match="no mapped point"):
        robust_scale(np.empty(0), 0)


def test_depths_are_those_of_the_points_own_pixels() -> None:
    picture = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    places = np.array([[0.1, 0.1], [0.5, 0.9], [0.99, 0.49], [1.0, 1.0], [-0.1, 0.6]])
    assert sample(picture, places).tolist() == [1, 5, 3, 6, 4]


def test_a_scale_is_carried_whole() -> None:
    scale = MetricScale(1.5, 0.1, 200, 8)
    assert MetricScale.from_carried(scale.to_carried()) == scale
    assert MetricScale.from_carried({"world_id": "w"}) is None
