"""Shards of episodes are compared by what became of their footage, and by what is in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ego_assets.quality.drift import (
    Histograms,
    drift_of,
    features,
    histograms,
    shard_is_like_those_before,
)
from ego_assets.quality.settings import ProbeSettings


def values_of(table: str, rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    drift = drift_of(table)
    assert drift is not None
    (columns,) = drift.reads.values()
    return features(
        drift, {table: pa.Table.from_pylist([{c: r[c] for c in columns} for r in rows])}
    )


def stretch(video: str, name: str, start: float, end: float) -> dict[str, Any]:
    return {"video_id": video, "bin": name, "start_pts_s": start, "end_pts_s": end}


def test_footage_is_compared_by_what_is_kept_and_what_drops_the_rest() -> None:
    rows = [stretch("a", "kept", 0, 6), stretch("a", "idle", 6, 8), stretch("a", "kept", 8, 10)]
    rows += [stretch("b", "no hands", 0, 30), stretch("c", "rejected", 0, 9)]
    found = values_of("footage", rows)
    assert found["kept"].tolist() == [0.8, 0.0], "of a file that is not taken in nothing is known"
    assert found["idle"].tolist() == [0.2, 0.0]
    assert found["no hands"].tolist() == [0.0, 1.0]


def hand(episode: str, side: str, frame: int, x: float) -> dict[str, Any]:
    return {
        "episode_id": episode,
        "side": side,
        "frame_index": frame,
        "pts_s": frame / 10,
        "camera_from_hand_m": [x, 0.0, 0.5],
    }


def test_the_speed_of_hands_is_that_between_neighbouring_frames() -> None:
    rows = [hand("e", "left", n, 0.03 * n) for n in (0, 1, 2)]
    rows += [hand("e", "left", n, 9.0 + 0.03 * n) for n in (20, 21)]  # after a gap, elsewhere
    rows += [hand("e", "right", n, 0.03 * n) for n in range(3)]
    drift = drift_of("episode_hands")
    assert drift is not None
    schema = pa.schema(
        {
            "episode_id": pa.string(),
            "side": pa.string(),
            "frame_index": pa.int32(),
            "pts_s": pa.float64(),
            "camera_from_hand_m": pa.list_(pa.float64(), 3),
        }
    )
    found = features(drift, {"episode_hands": pa.Table.from_pylist(rows[::-1], schema)})
    assert found["speed_mps"] == pytest.approx([0.3])
    assert found["depth_m"] == pytest.approx([0.5])


def shard(rng: np.random.Generator, seconds: float, share: float) -> Histograms:
    drift = drift_of("episodes")
    assert drift is not None
    rows = [
        {
            "start_pts_s": 0.0,
            "end_pts_s": float(rng.normal(seconds, seconds / 8)),
            "left_hand_share": float(np.clip(rng.normal(share, 0.1), 0, 1)),
            "right_hand_share": 0.9,
            "filled_hand_share": 0.05,
            "valid_camera_share": 1.0,
            "jitter_after_mm": None,
        }
        for _ in range(40)
    ]
    return histograms(drift, values_of("episodes", rows))


@pytest.mark.parametrize(
    ("seconds", "share", "worst"),
    [(12, 0.8, None), (4, 0.8, "duration_s"), (12, 0.4, "left_hand_share")],
)
def test_a_shard_of_other_episodes_is_noticed(
    seconds: float, share: float, worst: str | None
) -> None:
    rng = np.random.default_rng(0)
    before = [shard(rng, 12, 0.8) for _ in range(12)]
    found = shard_is_like_those_before(shard(rng, seconds, share), before, ProbeSettings())
    assert found.passed == (worst is None)
    assert worst is None or found.worst[0].where == f"feature {worst}"
