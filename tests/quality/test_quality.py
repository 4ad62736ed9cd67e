"""Every probe fires on a planted fault and is silent on the true tables of a sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.planted_faults import (
    FAULTS,
    Fault,
    Shard,
    findings,
    planted,
    render_good_shard,
)
from ego_assets.catalog import TABLES, all_probes, feature_of, info
from ego_assets.hands.skeleton import finger_flexion_deg
from ego_assets.masks.association import box_iou
from ego_assets.quality import drift
from ego_assets.quality.common_probes import (
    measured_columns,
    ranged_columns,
    values_are_plausible,
    values_are_there,
)
from ego_assets.quality.drift import drift_of, features, histograms
from ego_assets.quality.finding import Evidence, Finding, Units, judge, merge
from ego_assets.quality.settings import ProbeSettings
from ego_assets.scene.probes import cameras_move_with_the_image
from ego_assets.scene.settings import CameraProbeSettings
from ego_assets.vision.change import picture_change
from ego_assets.vision.rle import decode_mask, encode_mask, mask_contains


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shard, Path]:
    return render_good_shard(tmp_path_factory.mktemp("probes"), seed=5)


PROBES = all_probes()


def fired(found: dict[tuple[str, str], Finding]) -> set[tuple[str, str]]:
    return {key for key, finding in found.items() if not finding.passed}


def test_good_tables_are_left_alone(sample: tuple[Shard, Path]) -> None:
    found = findings(*sample)
    assert set(found) == {(p.table, p.name) for p in PROBES if p.table != "detections"}
    assert not fired(found), {k: found[k].sentence for k in fired(found)}
    # Silence must not be for want of anything to look at.
    idle = {name for (_, name), finding in found.items() if finding.looked_at == 0}
    idle_here = {"cameras_move_with_the_image", "untouched_objects_do_not_rise"}
    assert idle == idle_here | {"chapters_follow_each_other"}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.name)
def test_a_planted_fault_is_noticed(sample: tuple[Shard, Path], fault: Fault) -> None:
    shard, video = sample
    found = findings(planted(shard, fault, seed=1), video)
    noticed = fired(found)
    assert fault.must <= noticed
    assert {name for _, name in noticed - fault.must} <= fault.may
    for key in fault.must:
        finding = found[key]
        assert finding.worst
        assert finding.value == finding.worst[0].value
        assert finding.beyond >= len(finding.worst) > 0


def test_every_probe_has_a_fault_that_it_notices() -> None:
    noticed = {name for fault in FAULTS for _, name in fault.must}
    assert noticed == {p.name for p in PROBES}


def test_the_page_names_every_probe() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "probes.md").read_text()
    lacking = [p.name for p in PROBES if f"`{p.name}`" not in page]
    assert not lacking


def test_empty_tables_are_no_crash() -> None:
    for asked in PROBES:
        tables = {
            t: TABLES[t].arrow_schema().empty_table().select(list(dict.fromkeys(c)))
            for t, c in asked.reads.items()
        }
        settings = feature_of(asked.table).probe_settings()
        finding = asked(Evidence(asked.table, tables), settings)
        assert finding.passed, finding
        assert finding.value is None


def test_a_still_camera_before_a_still_picture_is_fine(sample: tuple[Shard, Path]) -> None:
    shard, _ = sample
    fault = next(f for f in FAULTS if f.name == "a frozen camera")
    rows = planted(shard, fault, seed=0)["scene_reconstruction"]
    (asked,) = cameras_move_with_the_image
    tables = {"scene_reconstruction": TABLES["scene_reconstruction"].from_rows(rows)}
    looked: list[tuple[int, int]] = []

    def look(clip_id: str, first: int, last: int) -> float:
        looked.append((first, last))
        return 0.5

    finding = asked(Evidence(asked.table, tables, look), CameraProbeSettings())
    assert finding.passed
    assert looked == [(c["start_frame"], c["end_frame"] - 1) for c in shard["clips"]]
    assert not asked(Evidence(asked.table, tables, lambda *_: 9.0), CameraProbeSettings()).passed


def test_a_frozen_camera_does_not_hide_behind_a_longer_stretch_that_is_still(
    sample: tuple[Shard, Path],
) -> None:
    shard, _ = sample
    clip = shard["clips"][0]
    start, middle = clip["start_frame"], (clip["start_frame"] + clip["end_frame"]) // 2
    rows = [dict(r) for r in shard["scene_reconstruction"] if r["clip_id"] == clip["clip_id"]]
    places = {r["frame_index"]: r for r in rows}
    for row in rows:
        held = places[start if row["frame_index"] < middle + 4 else middle + 4]
        row |= {n: held[n] for n in ("world_from_camera_m", "world_from_camera_xyzw")}
    (asked,) = cameras_move_with_the_image
    tables = {"scene_reconstruction": TABLES["scene_reconstruction"].from_rows(rows)}

    def look(clip_id: str, first: int, last: int) -> float:
        return 0.5 if first < middle else 30.0

    finding = asked(Evidence(asked.table, tables, look), CameraProbeSettings())
    assert not finding.passed
    assert (finding.looked_at, [o.frame for o in finding.worst]) == (2, [middle + 4])


def test_pictures_change_by_motion_and_not_by_light() -> None:
    rng = np.random.default_rng(0)
    wide = np.kron(rng.integers(0, 256, (30, 60)), np.ones((4, 4))).astype(np.uint8)
    one, moved = (np.dstack([wide[:, s : s + 160]] * 3) for s in (0, 12))
    brighter = (one * 0.8).astype(np.uint8) + 40
    assert picture_change([one, one]) == 0
    assert picture_change([one, moved]) > 20
    assert picture_change([one, brighter]) < picture_change([one, moved]) / 3
    half = one.copy()
    half[:, :60] = moved[:, :60]  # a hand in front of a camera on a stand
    assert picture_change([one, half]) < 1


def test_jitter_measures_white_noise_as_it_is(sample: tuple[Shard, Path]) -> None:
    shard, video = sample
    fault = next(f for f in FAULTS if f.name == "joints that shake")
    found = findings(planted(shard, fault, seed=2), video)["hand_poses", "hands_do_not_jitter"]
    assert found.value == pytest.approx(5.0, rel=0.15)


def test_a_still_head_may_shake_by_millimetres_in_metres(sample: tuple[Shard, Path]) -> None:
    shard, _ = sample
    rng = np.random.default_rng(0)
    first = shard["scene_reconstruction"][0]["world_from_camera_m"]
    noise = {"world_from_camera_m": lambda: (np.array(first) + rng.normal(0, 1e-3, 3)).tolist()}
    rows = [r | {k: v() for k, v in noise.items()} for r in shard["scene_reconstruction"]]
    key = ("scene_reconstruction", "cameras_do_not_jitter")
    assert findings(shard | {"scene_reconstruction": rows})[key].passed
    # Of an arbitrary scale nobody can say that it is small: it is all that the path has.
    rows = [r | {"scale_kind": "arbitrary"} for r in rows]
    assert not findings(shard | {"scene_reconstruction": rows})[key].passed


def slow_noise(rng: np.random.Generator, frames: int, size: float) -> np.ndarray:
    """(frames, 3) that wander and are pulled back, as the registration of a still head does."""
    path = rng.normal(0, size, (frames, 3))
    for i in range(1, frames):
        path[i] = 0.95 * path[i - 1] + np.sqrt(1 - 0.95**2) * path[i]
    return path


def test_the_scale_of_noise_is_no_scale() -> None:
    from ego_assets.scene.probes import scale_does_not_drift

    (asked,) = scale_does_not_drift
    rng = np.random.default_rng(0)
    pose = {"is_valid": True, "world_from_camera_xyzw": [0.0, 0, 0, 1], "scale_kind": "metric"}

    def ask(takes: int, moves: float, scale: float) -> Finding:
        """Takes of two clips that overlap by 45 frames, each in a world of its own."""
        rows, clips = [], []
        for take in range(takes):
            head = moves * slow_noise(rng, 165, 0.1)
            for k, frames in enumerate((range(105), range(60, 165))):
                clip = f"t{take}-{k}"
                at = scale**k * (head[frames] + slow_noise(rng, 105, 0.001))
                rows += [
                    pose
                    | {"clip_id": clip, "world_id": clip, "frame_index": f, "pts_s": f / 30}
                    | {"world_from_camera_m": a.tolist()}
                    for f, a in zip(frames, at, strict=True)
                ]
                span = {"start_frame": frames[0], "end_frame": frames[-1] + 1}
                clips.append(span | {"clip_id": clip, "take_id": f"t{take}", "index_in_take": k})
        given = {}
        for name, made in (("scene_reconstruction", rows), ("clips", clips)):
            columns = dict.fromkeys(asked.reads[name])
            fields = [TABLES[name].arrow_schema().field(c) for c in columns]
            given[name] = pa.Table.from_pylist(made, pa.schema(fields))
        return asked(Evidence("scene_reconstruction", given), CameraProbeSettings())

    still = ask(20, moves=0.0, scale=1.0)
    assert still.beyond == 0, still.sentence
    good, drifts = ask(3, moves=1.0, scale=1.0), ask(3, moves=1.0, scale=1.6)
    assert (good.looked_at, good.beyond) == (3, 0)
    assert drifts.beyond == 3
    assert drifts.value == pytest.approx(1.6, abs=0.05)


def test_fingers_bend_by_the_angle_that_they_were_bent_by() -> None:
    from samples.hand import Articulation, joints_in_hand

    flexion = np.tile([0.3, 0.7, 0.4], (5, 1))
    joints = [joints_in_hand(Articulation(flexion, np.zeros(5)), side, 1.0) for side in (0, 1)]
    angles, thumb = finger_flexion_deg(np.array(joints), np.array([False, True]))
    np.testing.assert_allclose(angles[:, :, 1], np.degrees(0.7), atol=1.0)
    np.testing.assert_allclose(angles[:, :, 2], np.degrees(0.4), atol=1.0)
    np.testing.assert_allclose(thumb, np.degrees([[0.7, 0.4]] * 2), atol=1.0)
    wrong, _ = finger_flexion_deg(np.array(joints), np.array([True, False]))
    np.testing.assert_allclose(wrong, -angles, atol=1e-6)


def test_points_are_looked_up_in_a_mask_as_decoding_would() -> None:
    rng = np.random.default_rng(3)
    for shape in ((7, 5), (40, 31)):
        mask = rng.random(shape) < 0.4
        points = rng.uniform(-3, max(shape) + 3, (300, 2))
        x, y = np.floor(points + 0.5).astype(int).T
        inside = (x >= 0) & (x < shape[1]) & (y >= 0) & (y < shape[0])
        expected = inside & mask[np.clip(y, 0, shape[0] - 1), np.clip(x, 0, shape[1] - 1)]
        counts = encode_mask(mask)
        np.testing.assert_array_equal(mask_contains(counts, *shape, points), expected)
        np.testing.assert_array_equal(decode_mask(counts, *shape), mask)


def test_box_iou() -> None:
    one = np.array([[0, 0, 4, 4], [0, 0, 2, 2], [1, 1, 1, 1]], float)
    other = np.array([[2, 0, 6, 4], [3, 3, 4, 4], [1, 1, 1, 1]], float)
    np.testing.assert_allclose(box_iou(one, other), [1 / 3, 0, 0])


def test_judgements() -> None:
    units = Units.of("abcd", [1, 5, 3, 9])
    strict = judge(units, 2, "px", "things", 0.0)
    assert (strict.passed, strict.beyond, strict.value) == (False, 3, 9)
    assert [o.where for o in strict.worst] == ["d", "b", "c"]
    assert judge(units, 2, "px", "things", 0.75).passed
    least = judge(units, 2, "px", "things", 0.0, least=True)
    assert (least.passed, least.value, [o.where for o in least.worst]) == (False, 1, ["a"])
    both = merge([judge(Units.of("e", [0.0]), 2, "px", "things", 0.0), strict])
    assert (both.passed, both.looked_at, both.beyond) == (False, 5, 3)
    assert len(both.values) == 5
    worse = judge(Units.of("f", [40]), 2, "px", "things", 0.0)
    everything = merge([both, worse, both])
    assert (everything.value, everything.worst[0].value) == (40, 40)
    assert everything.sentence == worse.sentence
    fine = [judge(Units.of("g", [v]), 2, "px", "things", 0.0) for v in (0.5, 1.5)]
    assert merge(fine).value == 1.5
    nothing = judge(Units.of("", []), 2, "px", "things", 0.0)
    assert merge([nothing, *fine]).value == 1.5
    low = [judge(Units.of("h", [v]), 2, "px", "things", 0.0, least=True) for v in (1.5, 0.5)]
    assert merge(low).value == 0.5


def test_what_is_tolerated_elsewhere_is_not_what_a_check_fails_for() -> None:
    fine = judge(Units.of(["odd", *"abc"], [90, 0, 0, 0]), 2, "px", "things", 0.5)
    bad = judge(Units.of("de", [9, 8]), 2, "px", "things", 0.5)
    assert (fine.passed, bad.passed) == (True, False)
    both = merge([fine, bad])
    assert both.sentence.endswith("the worst 9")
    assert [o.where for o in both.worst] == ["d", "e", "odd"]


def test_columns_are_looked_at_without_a_copy_of_the_table() -> None:
    """A shard's rows may take a good part of a worker's memory."""
    rows, wide, odd = 20_000, 63, 12_345
    metres = np.zeros((rows, wide), np.float32)
    metres[odd, 7] = 1e6
    point = pa.array(metres.ravel())
    for length in (3, 21):
        point = pa.FixedSizeListArray.from_arrays(point, length)
    columns = {
        "clip_id": pa.array([f"clip{n // 100}" for n in range(rows)]),
        "frame_index": np.arange(rows, dtype=np.int32),
    }
    measured = {
        name: pa.nulls(rows, TABLES["hand_poses"].arrow_schema().field(name).type)
        for name in {
            *measured_columns("hand_poses"),
            *(c.name for c in ranged_columns("hand_poses")),
        }
    }
    table = pa.table(
        columns | measured | {"joints_camera_m": point, "rle": pa.array([bytes(2000)] * rows)}
    )
    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    before = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        evidence, settings = (
            Evidence("hand_poses", {"hand_poses": table}),
            ProbeSettings(max_implausible_share=0),
        )
        plausible, there = (
            ask(evidence, settings) for ask in (values_are_plausible, values_are_there)
        )
    finally:
        pa.set_memory_pool(before)
    assert pool.max_memory() < table.nbytes / 2
    (worst,) = (o for o in plausible.worst if o.where == "joints_camera_m")
    assert (worst.at, worst.frame) == ("clip123", odd)
    assert {(o.at, o.frame) for o in there.worst} <= {("clip0", 0)}


@pytest.mark.parametrize(
    ("name", "table", "column", "good", "bad"),
    [
        ("poses_rest_on_inliers", "scene_reconstruction", "inlier_share", 0.9, 0.1),
        ("joints_fall_on_the_hand_mask", "hand_poses", "joints_px", None, [[-900.0, -900.0]] * 21),
    ],
)
def test_where_less_is_worse_the_frame_is_that_of_the_least(
    sample: tuple[Shard, Path], name: str, table: str, column: str, good: object, bad: object
) -> None:
    shard, _ = sample
    rows = [dict(r) for r in shard[table]]
    first = {r["clip_id"]: r["frame_index"] for r in reversed(rows)}
    for row in rows:
        is_good = row["frame_index"] == first[row["clip_id"]]
        row[column] = (good or row[column]) if is_good else bad
    found = findings(shard | {table: rows})[table, name]
    assert found.worst
    assert all(o.frame != first[o.where.split()[0]] for o in found.worst)


# -- drift ---------------------------------------------------------------------------------------


def declared(table: str) -> drift.DriftFeatures:
    found = drift_of(table)
    assert found is not None
    return found


def shard_of(rng: np.random.Generator, score: float, clips: int = 40) -> drift.Histograms:
    return histograms(
        declared("object_poses"),
        {"valid": rng.beta(8, 2, clips), "score": np.clip(rng.normal(score, 0.08, clips), 0, 1)},
    )


def test_a_shift_is_noticed_and_chance_is_not() -> None:
    rng = np.random.default_rng(1)
    settings = ProbeSettings()
    before = [shard_of(rng, 0.75) for _ in range(20)]

    def ask(now: drift.Histograms) -> Finding:
        return drift.shard_is_like_those_before(now, before, settings)

    assert sum(not ask(shard_of(rng, 0.75)).passed for _ in range(200)) <= 4
    assert all(not ask(shard_of(rng, 0.5)).passed for _ in range(20))
    assert ask(shard_of(rng, 0.5)).worst[0].where == "feature score"
    # Shards that differ among themselves make the probe more patient.
    before = [shard_of(rng, rng.uniform(0.3, 0.9)) for _ in range(20)]
    assert ask(shard_of(rng, 0.5)).passed
    before = before[:4]
    assert ask(shard_of(rng, 0.01)).looked_at == 0
    assert ask(shard_of(rng, 0.01)).sentence == "not judged yet: 4 of 5 good shards"


def test_one_odd_shard_in_the_baseline_hides_no_shift() -> None:
    rng = np.random.default_rng(3)
    before = [shard_of(rng, 0.75) for _ in range(12)]
    now, settings = shard_of(rng, 0.55), ProbeSettings()
    ask = drift.shard_is_like_those_before
    assert not ask(now, before, settings).passed
    before[0] = shard_of(rng, 0.3)
    assert not ask(now, before, settings).passed
    assert ask(shard_of(rng, 0.75), before, settings).passed


def test_distances_of_histograms() -> None:
    a, b = np.array([10.0, 30, 60]), np.array([20.0, 60, 120])
    assert drift.population_stability(a, a) == 0
    assert drift.binned_ks(a, b) == pytest.approx(0)
    assert drift.binned_ks(a, a[::-1]) == pytest.approx(0.5)
    # Limits are what samples of one distribution exceed once in a thousand times.
    rng = np.random.default_rng(2)
    share = np.full(8, 1 / 8)
    first, second = rng.multinomial(60, share, 4000), rng.multinomial(500, share, 4000)
    pairs = list(zip(first.astype(float), second.astype(float), strict=True))
    psi = [drift.population_stability(a, b) for a, b in pairs]
    limit = np.mean([drift.population_stability_limit(a, b, 0.01) for a, b in pairs])
    assert np.mean(np.array(psi) > limit) == pytest.approx(0.01, abs=0.008)


def test_dropped_audio_is_a_shift() -> None:
    def histograms(share: float) -> drift.Histograms:
        rows = pa.table(
            {
                "accepted": [True] * 40,
                "audio_codec": ["aac" if i < 40 * share else None for i in range(40)],
                "duration_s": [20.0] * 40,
                "width_px": [1920] * 40,
                "height_px": [1080] * 40,
            }
        )
        manifest = declared("video_manifest")
        return drift.histograms(manifest, features(manifest, {"video_manifest": rows}))

    before = [histograms(1.0)] * 6
    settings = ProbeSettings()
    ask = drift.shard_is_like_those_before
    assert ask(histograms(0.95), before, settings).passed
    found = ask(histograms(0.0), before, settings)
    assert [o.where for o in found.worst] == ["feature has_audio"]


def test_features_of_every_table(sample: tuple[Shard, Path]) -> None:
    shard, _ = sample
    tables = {name: TABLES[name].from_rows(rows) for name, rows in shard.items()}
    tables["detections"] = TABLES["detections"].arrow_schema().empty_table()
    without = {table for table in TABLES if info(table).drift is None}
    seldom = {"telemetry", "telemetry_sources"}  # most videos have none
    derived = {"gravity", "episode_frames"}  # from tables that have features
    assert without == seldom | derived
    for table in set(TABLES) - without - {"footage", "episodes", "episode_hands"}:
        mine = declared(table)
        values = features(mine, tables)
        assert set(values) == set(mine.bins)
        counts = histograms(mine, values)
        assert {n: sum(c) for n, c in counts.items()} == {n: len(v) for n, v in values.items()}
    assert features(declared("object_masks"), tables)["tracks"].tolist() == [3.0, 3.0]
    empty = tables | {"object_masks": tables["object_masks"].slice(0, 0)}
    assert features(declared("object_masks"), empty)["blank"].tolist() == [1.0, 1.0]


def test_a_clip_without_rows_is_a_failure_to_drift_where_its_input_has_some() -> None:
    def table(name: str, columns: tuple[str, ...], rows: list[dict[str, object]]) -> pa.Table:
        fields = [TABLES[name].arrow_schema().field(c) for c in columns]
        return pa.Table.from_pylist(rows, pa.schema(fields))

    clips = [f"c{i:02d}" for i in range(40)]

    def histograms(posed: int, masked: int = 40) -> drift.Histograms:
        pose = {"is_valid": True, "score": 0.8, "camera_from_hand_m": [0.0, 0.0, 0.4]}
        hands = declared("hand_poses")
        spans = [{"clip_id": c, "video_id": c, "start_frame": 0, "end_frame": 9} for c in clips]
        rows = {
            "clips": spans,
            "hand_masks": [{"clip_id": c} for c in clips[:masked]],
            "hand_poses": [pose | {"clip_id": c} for c in clips[:posed]],
        }
        tables = {name: table(name, columns, rows[name]) for name, columns in hands.reads.items()}
        return drift.histograms(hands, features(hands, tables))

    before = [histograms(40)] * 6
    for posed in (0, 3):
        now = histograms(posed)
        found = drift.shard_is_like_those_before(now, before, ProbeSettings())
        assert [o.where for o in found.worst] == ["feature valid"]
    assert sum(histograms(0, masked=0)["valid"]) == 0  # without hands there is nothing to fail


def test_streaks_run_on_over_shards() -> None:
    clips = pa.table({"clip_id": list("abcd"), "video_id": ["v1", "v1", "v2", "v3"]})
    assert drift.empty_videos(pa.table({"clip_id": ["b"]}), clips) == drift.Run(3, 0, 2)
    assert drift.empty_videos(pa.table({"clip_id": ["d", "d"]}), clips) == drift.Run(3, 2, 0)
    nothing = pa.table({"clip_id": pa.array([], pa.string())})
    assert drift.empty_videos(nothing, clips) == drift.Run(3, 3, 3)
    settings = ProbeSettings(max_streak_videos=10)
    empty, found = drift.Run(3, 3, 3), drift.Run(3, 1, 1)

    def ask(at: int, *runs: drift.Run) -> tuple[bool, float | None]:
        finding = drift.things_keep_appearing(runs, at, settings)
        return finding.passed, finding.value

    assert ask(2, found, empty, empty) == (True, 7)
    assert ask(3, found, empty, empty, empty) == (False, 10)
    # Every shard of a streak says so, whichever was looked at last.
    longer = (drift.Run(3, 0, 0), found, empty, empty, empty, found, drift.Run(3, 0, 0))
    assert [ask(at, *longer)[0] for at in range(7)] == [True, *[False] * 5, True]
    assert ask(3, *longer) == (False, 11)
