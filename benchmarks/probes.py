"""Precision and recall of the quality probes over planted faults.

    python benchmarks/probes.py [--seeds 5] [--json]

Renders small samples, plants every fault of `planted_faults` in the true tables of each, and asks
every probe. A probe that must notice a fault and does is a hit; one that says nothing is a miss;
one that speaks up where nothing is wrong, in a good shard too, is a false alarm. Drift and streaks
are asked over series of made-up shards. The last line is the worse of recall and precision over
its bar; at 1 or above all is well.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

LEAST_RECALL = 0.97
LEAST_PRECISION = 0.97
SHARDS = 20
CLIPS = 40

Scores = dict[str, Counter[str]]
"""Probe → how many hits, misses and false alarms."""


def score_sample(seed: int, scores: Scores, missed: list[str]) -> None:
    """All faults in the tables of one sample."""
    from benchmarks.planted_faults import FAULTS, findings, planted, render_good_shard

    with tempfile.TemporaryDirectory() as name:
        shard, video = render_good_shard(Path(name), seed)
        for (table, probe), finding in findings(shard, video).items():
            if not finding.passed:
                scores[probe]["false alarms"] += 1
                missed.append(f"seed {seed}: {table}:{probe} fires on good tables")
        for fault in FAULTS:
            found = findings(planted(shard, fault, seed), video)
            fired = {key for key, finding in found.items() if not finding.passed}
            for table, probe in fault.must:
                hit = (table, probe) in fired
                scores[probe]["hits" if hit else "misses"] += 1
                if not hit:
                    missed.append(f"seed {seed}: {probe} does not notice {fault.name}")
            for table, probe in fired - fault.must:
                if probe not in fault.may:
                    scores[probe]["false alarms"] += 1
                    missed.append(f"seed {seed}: {table}:{probe} fires on {fault.name}")


def score_drift(seed: int, scores: Scores, missed: list[str]) -> None:
    """Shifted scores, areas, blank clips and durations against good shards that differ a little."""
    from ego_assets.masks.drift import OBJECT_MASKS
    from ego_assets.quality import drift
    from ego_assets.quality.settings import ProbeSettings

    rng = np.random.default_rng(seed)
    settings = ProbeSettings()

    def masks(score: float = 0.8, area: float = 0.02, blank: float = 0.1) -> drift.Histograms:
        own = rng.normal(0, 0.01)  # what makes a shard differ from another
        values = {
            "tracks": rng.poisson(3, CLIPS).astype(float),
            "blank": rng.beta(10 * blank, 10 * (1 - blank), CLIPS),
            "area": np.clip(area * rng.lognormal(0, 0.4, CLIPS), 1e-5, 1.0),
            "score": np.clip(rng.normal(score + own, 0.07, CLIPS), 0, 1),
        }
        return drift.histograms(OBJECT_MASKS, values)

    before = [masks() for _ in range(SHARDS)]
    name = "shard_is_like_those_before"
    shards = {
        "good": [masks() for _ in range(10)],
        "lower scores": [masks(score=0.55)],
        "masks of twice the size": [masks(area=0.05)],
        "blank clips": [masks(blank=0.6)],
    }
    for kind, made in shards.items():
        for now in made:
            asked = drift.shard_is_like_those_before(now, before, settings)
            if kind == "good":
                scores[name]["false alarms"] += not asked.passed
            else:
                scores[name]["misses" if asked.passed else "hits"] += 1
            if asked.passed != (kind == "good"):
                missed.append(f"seed {seed}: {name} is wrong about {kind}")
    runs = [drift.Run(64, 0, int(rng.integers(4))) for _ in range(5)]
    name = "things_keep_appearing"
    scores[name]["false alarms"] += not drift.things_keep_appearing(runs, 4, settings).passed
    blind = runs + [drift.Run(64, 64, 64)] * 16
    for at in (5, len(blind) - 1):  # the newest shard, or the oldest in a backfill
        is_missed = drift.things_keep_appearing(blind, at, settings).passed
        scores[name]["misses" if is_missed else "hits"] += 1


def ratio(part: int, other: int) -> float:
    """part of (part + other); 1 where there is neither."""
    return part / (part + other) if part + other else 1.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    scores: Scores = defaultdict(Counter)
    wrong: list[str] = []
    for seed in range(1, options.seeds + 1):
        score_sample(seed, scores, wrong)
        score_drift(seed, scores, wrong)
    total: Counter[str] = Counter()
    for counts in scores.values():
        total.update(counts)
    recall = ratio(total["hits"], total["misses"])
    precision = ratio(total["hits"], total["false alarms"])
    worst = min(recall / LEAST_RECALL, precision / LEAST_PRECISION)
    if options.json:
        probes = {name: dict(counts) for name, counts in sorted(scores.items())}
        said = {"recall": recall, "precision": precision, "ratio": worst}
        print(json.dumps({"seeds": options.seeds, "probes": probes, "wrong": wrong} | said))
    else:
        print(f"{'probe':<34}{'hits':>6}{'misses':>8}{'false alarms':>14}")
        for name, counts in sorted(scores.items()):
            print(f"{name:<34}{counts['hits']:>6}{counts['misses']:>8}{counts['false alarms']:>14}")
        print(*wrong, sep="\n" if wrong else "")
        print(f"recall {recall:.3f} (at least {LEAST_RECALL:g})")
        print(f"precision {precision:.3f} (at least {LEAST_PRECISION:g})")
        print(f"the worse of both over its bar: {worst:.3f}")
    return 0 if worst >= 1 else 1


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    sys.exit(main())
