"""Drift: is a shard like the good shards before it?

Here: histograms of a table's features, how unlike two histograms are, and streaks of videos in
which nothing was found. Not here: the features of a table (`drift.py` of its room), where
histograms are kept (`baselines`).

Features are numbers of clips, not of frames: the frames of a clip are no independent samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import polars as pl
import pyarrow as pa

from ego_assets import catalog
from ego_assets.feature import load
from ego_assets.quality.finding import Finding, Units, clips_of, judge
from ego_assets.quality.settings import ProbeSettings
from resources.lake.table import TABLES

SHARES = np.linspace(0.0, 1.0, 11)[1:-1]
"""Bins of a share."""
COUNTS = np.arange(0.5, 10.0)
"""Bins of a small count."""
SECONDS = np.array([1, 2, 5, 10, 15, 19, 30, 45, 60, 90, 120, 300.0])
_LEAST_EXPECTED = 5.0
_MORE_THAN_USUAL = 1.25
_ODD_ONE_OUT = 2.0
_ENOUGH_FOR_AN_ODD_ONE = 10


@dataclass(frozen=True)
class DriftFeatures:
    """The numbers of a table by which shards are compared, one for each clip (or video).

    reads: columns by table, of all tables that `measure` wants; bins: feature → inner edges of its
    bins, of which the first and the last are open; measure: tables to a frame with a column for
    each feature, in which null is "not known".
    """

    reads: Mapping[str, tuple[str, ...]]
    bins: Mapping[str, np.ndarray]
    measure: Callable[[Mapping[str, pa.Table]], pl.DataFrame]


Histograms = dict[str, list[int]]
"""Feature → clips in each bin."""


def clip_features(
    table: str,
    columns: Sequence[str],
    numbers: Sequence[pl.Expr],
    bins: Mapping[str, np.ndarray],
    *,
    then: Mapping[str, pl.Expr] | None = None,
    made_from: str = "",
    success: str = "",
) -> DriftFeatures:
    """Features of a table with rows of clips; clips without any row count where they can.

    columns: what `numbers` read besides clip_id; numbers: aggregates over the rows of a clip;
    then: features made of those and `frames`, how many the clip has. made_from: the table that this
    one is made from, and success: the share that is 0, not unknown, for a clip of which that has
    rows and this has none: a model that leaves no row must not go unnoticed.
    """
    reads = {
        table: ("clip_id", *columns),
        "clips": ("clip_id", "video_id", "start_frame", "end_frame"),
    }
    if made_from and made_from != "clips":
        known = TABLES[made_from].model_fields
        reads[made_from] = ("clip_id", *(c for c in ("is_valid",) if c in known))

    def measure(tables: Mapping[str, pa.Table]) -> pl.DataFrame:
        rows = pl.DataFrame(tables[table].select(list(reads[table])))
        clips = pl.DataFrame(tables["clips"]).select(
            "clip_id", frames=pl.col("end_frame") - pl.col("start_frame")
        )
        found = clips.join(rows.group_by("clip_id").agg(numbers), on="clip_id", how="left")
        found = found.sort("clip_id").with_columns(**(then or {}))
        if success:
            is_failure = pl.col(success).is_null()
            is_failure &= pl.col("clip_id").is_in(clips_of(tables[made_from]))
            found = found.with_columns(
                pl.when(is_failure).then(0.0).otherwise(success).alias(success)
            )
        return found

    return DriftFeatures(reads, bins, measure)


@cache
def drift_of(table: str) -> DriftFeatures | None:
    """The features that a table's room declares, if any."""
    declared = catalog.info(table).drift
    return load(declared) if declared else None


def features(drift: DriftFeatures, tables: Mapping[str, pa.Table]) -> dict[str, np.ndarray]:
    """Feature → (N,) numbers, one for each clip (or video) of which it is known."""
    found = drift.measure(tables)
    return {
        name: found[name].drop_nulls().cast(pl.Float64).drop_nans().to_numpy()
        for name in drift.bins
    }


def histograms(drift: DriftFeatures, values: Mapping[str, np.ndarray]) -> Histograms:
    """Numbers to counts in the features' bins."""
    return {
        name: np.bincount(np.searchsorted(edges, values[name]), minlength=len(edges) + 1).tolist()
        for name, edges in drift.bins.items()
    }


def population_stability(counts: np.ndarray, baseline: np.ndarray) -> float:
    """Population stability index of (B,) counts: the sum of (p - q) ln(p / q), half a count added.

    Over 0.25 is a shift, by the custom of credit scoring (Siddiqi, "Credit Risk Scorecards", 2006).
    """
    p, q = (c + 0.5 for c in (counts, baseline))
    p, q = p / p.sum(), q / q.sum()
    return float(((p - q) * np.log(p / q)).sum())


def population_stability_limit(counts: np.ndarray, baseline: np.ndarray, alpha: float) -> float:
    """What sampling alone exceeds with chance alpha: (1/n + 1/m) chi-squared, one degree of freedom
    less than bins in use (Yurdakul, "Statistical Properties of Population Stability Index", 2018).
    """
    from scipy.special import chdtri

    used = int(((counts + baseline) > 0).sum())
    return float((1 / counts.sum() + 1 / baseline.sum()) * chdtri(max(used - 1, 1), alpha))


def merged_bins(counts: np.ndarray, baseline: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Neighbouring bins put together until each can be expected to hold five of `counts`.

    Below five the chi-squared limit does not hold (Cochran 1954). What moved where the baseline
    has nothing at all is left to `binned_ks`.
    """
    expected = baseline * counts.sum() / baseline.sum()
    rest = expected[::-1].cumsum()[::-1]
    starts, held = [0], 0.0
    for index in range(1, len(expected)):
        held += expected[index - 1]
        if held >= _LEAST_EXPECTED and rest[index] >= _LEAST_EXPECTED:
            starts.append(index)
            held = 0.0
    return np.add.reduceat(counts, starts), np.add.reduceat(baseline, starts)


def binned_ks(counts: np.ndarray, baseline: np.ndarray) -> float:
    """Kolmogorov–Smirnov distance at the edges of the bins: at most that of the samples."""
    p, q = (np.cumsum(c) / c.sum() for c in (counts, baseline))
    return float(np.abs(p - q).max())


def ks_limit(counts: np.ndarray, baseline: np.ndarray, alpha: float) -> float:
    """What sampling alone exceeds with chance alpha (Smirnov 1948, large samples)."""
    n, m = counts.sum(), baseline.sum()
    return float(np.sqrt(-np.log(alpha / 2) / 2 * (n + m) / (n * m)))


def shard_is_like_those_before(
    current: Histograms,
    before: Sequence[Histograms],
    settings: ProbeSettings,
) -> Finding:
    """The shard's clips are distributed like those of the last good shards.

    A distance counts when it is larger than custom calls a shift, than chance makes it, and than
    it was between any good shard and the others: shards differ among themselves.
    """
    excess: dict[str, float] = {}
    numbers: dict[str, float] = {}
    if len(before) >= settings.min_baseline_shards:
        for name in current:
            now = np.array(current[name], np.float64)
            shards = np.array([b[name] for b in before if len(b.get(name, ())) == len(now)])
            if now.sum() < settings.min_drift_units or len(shards) < settings.min_baseline_shards:
                continue
            if not shards.sum():
                continue
            psi, ks, ratio = _excess(now, shards.astype(np.float64), settings)
            excess[f"feature {name}"] = ratio
            numbers |= {f"PSI of {name}": psi, f"KS of {name}": ks}
    finding = judge(
        Units.of(excess, excess.values()),
        1.0,
        "times what is usual",
        "features that differ from the baseline",
        0.0,
        numbers=numbers | {"shards in the baseline": float(len(before))},
    )
    if len(before) < settings.min_baseline_shards:
        said = f"not judged yet: {len(before)} of {settings.min_baseline_shards} good shards"
        return replace(finding, sentence=said)
    return finding


def _excess(
    now: np.ndarray, shards: np.ndarray, settings: ProbeSettings
) -> tuple[float, float, float]:
    """(PSI, KS, the larger of both over its limit)."""
    total = shards.sum(axis=0)
    merged = merged_bins(now, total)
    psi, ks = population_stability(*merged), binned_ks(now, total)
    others = [(s, total - s) for s in shards if 0 < s.sum() < total.sum()]
    usual_psi = _usual([population_stability(*merged_bins(*pair)) for pair in others])
    usual_ks = _usual([binned_ks(s, rest) for s, rest in others])
    alpha = settings.drift_alpha
    psi_limit = max(
        settings.min_psi, _MORE_THAN_USUAL * usual_psi, population_stability_limit(*merged, alpha)
    )
    limit = max(settings.min_ks, _MORE_THAN_USUAL * usual_ks, ks_limit(now, total, alpha))
    return psi, ks, max(psi / psi_limit, ks / limit)


def _usual(distances: Sequence[float]) -> float:
    """The largest distance of a good shard to the others, without that of an odd one out: it would
    hide a shift for as long as it is remembered."""
    *_, second, first = (0.0, 0.0, *sorted(distances))
    is_odd = len(distances) >= _ENOUGH_FOR_AN_ODD_ONE and first > _ODD_ONE_OUT * second
    return second if is_odd else first


# -- streaks -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """Videos of a shard in which nothing was found: how many there are, and at its two ends."""

    videos: int
    leading: int
    trailing: int


def empty_videos(rows: pa.Table, clips: pa.Table) -> Run:
    """Of the videos of a shard by id, which have no row. clips: video_id; rows: clip_id."""
    videos = pl.DataFrame(clips.select(["clip_id", "video_id"]))
    found = videos.join(pl.DataFrame(rows.select(["clip_id"])).unique(), on="clip_id", how="semi")
    names = videos["video_id"].unique().sort()
    has = names.is_in(found["video_id"].unique().to_list()).to_numpy()
    if not has.any():
        return Run(len(has), len(has), len(has))
    return Run(len(has), int(has.argmax()), int(has[::-1].argmax()))


def things_keep_appearing(runs: Sequence[Run], at: int, settings: ProbeSettings) -> Finding:
    """There is no long row of videos, over shards, in which nothing was found at all.

    runs: of all shards that are known, in their order, whichever came first; at: which is judged,
    by the longest streak with a video of it.
    """
    run = runs[at]
    before = _empty_end(reversed(runs[:at]), lambda r: r.trailing)
    after = _empty_end(runs[at + 1 :], lambda r: r.leading)
    is_empty = run.leading == run.videos
    streaks = (before + run.leading, run.trailing + after)
    streak = before + run.videos + after if is_empty else max(streaks)
    return judge(
        Units.of(*(["videos around this shard"], [float(streak)]) if run.videos else ([], [])),
        settings.max_streak_videos - 1,
        "videos in a row with nothing found",
        "streaks",
        0.0,
        numbers={"before this shard": float(before), "after this shard": float(after)},
    )


def _empty_end(runs: Iterable[Run], end: Callable[[Run], int]) -> int:
    """Empty videos of whole shards next to one that is judged, and at the `end` of the first that
    has something."""
    count = 0
    for run in runs:
        count += end(run)
        if run.leading < run.videos:
            break
    return count
