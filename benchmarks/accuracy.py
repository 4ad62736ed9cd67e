"""Accuracy of every operator on sample videos with exact truth, and on real ground truth.

    python benchmarks/accuracy.py [--seeds 0 1 2] [--quick] [--oracle] [--side-by-side] [--json F]

Each sample is rendered, split, and run through the operators in the order of the graph, each
fed with what those before it made, so that errors add up as they do in production (`--oracle`
feeds each with the truth instead; `--side-by-side` scores further backends that can run here, each
on the same rows as the default one). A floor must be met by the worst seed. The exit status is 1
if a floor is missed or an operator fails on a sample; real data is reported only. The last line
says the worst ratio to a floor: above 1 is a miss.

Here: floors, the table, the command line. Not here: metrics (`scoring`), scores (`*_scores`).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Values = dict[tuple[str, str], float]


@dataclass(frozen=True)
class Floor:
    """A promise: the value is at most (or, `at_least`, no less than) `limit`."""

    limit: float
    at_least: bool = False

    def ratio(self, value: float) -> float:
        """How much of the allowance is used: up to 1 is met. A limit of 0 allows nothing."""
        if not math.isfinite(value):
            return math.inf
        if self.at_least:
            return self.limit / value if value > 0 else math.inf
        if self.limit == 0:
            return 0.0 if value <= 0 else 1.0 + value
        return value / self.limit


FLOORS: dict[tuple[str, str], Floor] = {
    ("clips", "cuts F1"): Floor(1.0, at_least=True),
    ("segmenter", "object mask IoU"): Floor(0.75, at_least=True),
    ("segmenter", "hand mask IoU"): Floor(0.75, at_least=True),
    ("segmenter", "object track switches"): Floor(0.0),
    ("segmenter", "hand track switches"): Floor(0.0),
    ("hand_estimator", "2D joint error / hand box"): Floor(0.10),
    ("reconstructor", "camera error / path length"): Floor(0.02),
    ("reconstructor", "camera rotation error, deg"): Floor(1.5),
    ("object_pose_estimator", "rotation error since first sight, deg"): Floor(6.0),
    ("retargeter", "fingertip error of true hands, mm"): Floor(10.0),
    ("retargeter", "reachable fingertips, ego_hand, position, mm"): Floor(10.0),
    ("retargeter", "reachable fingertips, ego_hand, vector, mm"): Floor(10.0),
    ("retargeter", "reachable fingertips, ego_hand, dexpilot, mm"): Floor(10.0),
}


REAL_FLOORS: dict[tuple[str, str], Floor] = {
    ("segmenter", "annotated hands, recall"): Floor(0.80, at_least=True),
    ("segmenter", "annotated hands, recall of the wearer's"): Floor(0.85, at_least=True),
    ("segmenter", "annotated hands, sides"): Floor(0.95, at_least=True),
    ("segmenter", "annotated hands, mask IoU"): Floor(0.75, at_least=True),
    ("segmenter", "annotated objects, recall of touched ones"): Floor(0.50, at_least=True),
    ("segmenter", "annotated objects, mask IoU of held ones"): Floor(0.60, at_least=True),
    ("hand_estimator", "annotated hands, precision of valid poses"): Floor(0.95, at_least=True),
    ("hand_estimator", "glasses, 2D joint error / hand box"): Floor(0.09),
    ("hand_estimator", "glasses, hands found"): Floor(1.0, at_least=True),
    ("hand_estimator", "FreiHAND, 2D joint error / hand box"): Floor(0.16),
    ("hand_estimator", "FreiHAND, hands found"): Floor(1.0, at_least=True),
    ("reconstructor", "real videos, frames with a valid camera"): Floor(0.90, at_least=True),
    ("reconstructor", "real videos, wearer's valid hands with a place in metres"): Floor(
        0.80, at_least=True
    ),
}
"""Of the tier `learned` on real footage."""


@dataclass(frozen=True)
class Line:
    """One line of the table: values by seed (or one, for real data)."""

    operator: str
    metric: str
    values: dict[str, float]
    floor: Floor | None

    @property
    def mean(self) -> float:
        return sum(self.values.values()) / len(self.values)

    @property
    def worst_ratio(self) -> float | None:
        if self.floor is None:
            return None
        return max(self.floor.ratio(v) for v in self.values.values())

    @property
    def worst(self) -> float:
        if self.floor is None:
            return self.mean
        ratio = self.floor.ratio
        return max(self.values.values(), key=ratio)

    @property
    def verdict(self) -> str:
        ratio = self.worst_ratio
        if ratio is None:
            return "-"
        return "pass" if ratio <= 1.0 else "FAIL"

    def as_json(self) -> dict[str, Any]:
        return {
            "operator": self.operator,
            "metric": self.metric,
            "values": {k: _plain(v) for k, v in self.values.items()},
            "mean": _plain(self.mean),
            "floor": self.floor.limit if self.floor else None,
            "at_least": self.floor.at_least if self.floor else None,
            "worst_ratio": _plain(self.worst_ratio),
            "verdict": self.verdict,
        }


def _plain(value: float | None) -> float | str | None:
    """JSON has no infinity."""
    if value is None or math.isfinite(value):
        return value
    return str(value)


def lines_of(by_seed: dict[str, Values], *, floors: bool) -> list[Line]:
    """One line a metric. A floor's metric that nothing measured on a seed counts as missed."""
    grouped: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for seed, values in by_seed.items():
        for key, value in values.items():
            grouped[key][seed] = value
    if floors:
        for key in FLOORS:
            for seed in by_seed:
                grouped[key].setdefault(seed, math.inf if not FLOORS[key].at_least else 0.0)
    order = ["clips", "segmenter", "hand_estimator", "reconstructor", "object_pose_estimator"]

    def rank(key: tuple[str, str]) -> tuple[int, bool]:
        return (order.index(key[0]) if key[0] in order else len(order), key not in FLOORS)

    return [
        Line(*key, values=grouped[key], floor=FLOORS.get(key) if floors else None)
        for key in sorted(grouped, key=rank)
    ]


def render_table(lines: Sequence[Line]) -> str:
    """The lines as text."""
    wide = max([22, *(len(line.operator) for line in lines)])
    out = [f"{'operator':<{wide}} {'metric':<54} {'mean':>9} {'worst':>9} {'floor':>8}  verdict"]
    for line in lines:
        sign = "" if line.floor is None else (">=" if line.floor.at_least else "<=")
        limit = "" if line.floor is None else f"{sign}{line.floor.limit:g}"
        out.append(
            f"{line.operator:<{wide}} {line.metric:<54} {line.mean:>9.4g} {line.worst:>9.4g} "
            f"{limit:>8}  {line.verdict}  [{', '.join(line.values)}]"
        )
    return "\n".join(out)


def measure_sample(
    folder: Path, seed: int, *, oracle: bool, quick: bool, side_by_side: bool = False
) -> tuple[Values, dict[str, str], dict[str, float]]:
    """(values, failures by operator, seconds by operator) of one seed."""
    from benchmarks.graph_run import run_graph, split
    from benchmarks.sample_scores import score_sample
    from benchmarks.scoring import score_cuts
    from benchmarks.truth_tables import TruthTables
    from samples import load_truth, render_sample

    began = time.perf_counter()
    path = render_sample(folder / "graph", seed, duration_s=3.0 if quick else 8.0)
    scenes = render_sample(folder / "cuts", seed + 1000, duration_s=6.0, scenes=3)
    seconds = {"rendering": time.perf_counter() - began}
    truth = load_truth(path)
    upstream = TruthTables(truth).rows if oracle else None
    run = run_graph(path, upstream=upstream)
    values = score_sample(run, truth, oracle=oracle)
    many = score_cuts(split(scenes).cuts, load_truth(scenes).cuts)
    values["clips", "cuts F1"] = min(values["clips", "cuts F1"], many.f1)
    values |= score_true_hands(run.clips, truth)
    for operator, spent in run.seconds.items():
        values[operator, "seconds a second of video"] = spent * truth.fps / truth.frame_count
    if side_by_side:
        from benchmarks.side_by_side import score_others

        others, skipped = score_others(path, run, truth, upstream)
        values |= others
        for backend, why in skipped.items():
            print(f"SKIPPED {backend}: {why}", file=sys.stderr)
    return values, run.failures, seconds | run.seconds


def score_true_hands(clips: Iterable[dict[str, Any]], truth: Any) -> Values:
    """Retargeting fed with the true hand poses: what the robot hand itself can do."""
    import numpy as np

    from benchmarks.truth_tables import TruthTables
    from ego_assets.catalog import TABLES
    from ego_assets.models import registry
    from ego_assets.operator import ClipInput, Intrinsics

    operator = registry.build("retargeter", registry.default("retargeter").name, {})
    camera = Intrinsics("PINHOLE", truth.fx, truth.fy, truth.cx, truth.cy)
    errors: list[float] = []
    for clip in clips:
        poses = TABLES["hand_poses"].from_rows(TruthTables(truth).rows("hand_poses", clip))
        frames: Any = None  # retargeting looks at no picture
        source = ClipInput(clip, {}, frames, camera, {"hand_poses": poses})
        rows = operator.process(source, None).tables["robot_mappings"]
        errors += [r["mean_fingertip_error_m"] * 1e3 for r in rows]
    if not errors:
        return {}
    return {("retargeter", "fingertip error of true hands, mm"): float(np.mean(errors))}


def measure(
    seeds: Sequence[int], *, oracle: bool, quick: bool, side_by_side: bool = False
) -> tuple[list[Line], dict]:
    """Every line about the samples, and {seed: failures}."""
    from benchmarks.real_scores import real_data_folder
    from benchmarks.retarget_reach import score_reach

    data = real_data_folder()
    robots = str(data / "robots") if data is not None and not quick else None
    by_seed: dict[str, Values] = {}
    failures: dict[str, dict[str, str]] = {}
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="ego-accuracy-") as folder:
            values, failed, seconds = measure_sample(
                Path(folder), seed, oracle=oracle, quick=quick, side_by_side=side_by_side
            )
        values |= score_reach(robots, seed)
        by_seed[str(seed)] = values
        if failed:
            failures[str(seed)] = failed
        spent = ", ".join(f"{name} {s:.1f} s" for name, s in seconds.items())
        print(f"seed {seed}: {spent}", file=sys.stderr)
    return lines_of(by_seed, floors=True), failures


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=None, help="default: 0 1 2")
    parser.add_argument("--quick", action="store_true", help="one short sample, few real videos")
    parser.add_argument("--oracle", action="store_true", help="feed operators with the truth")
    parser.add_argument(
        "--side-by-side", action="store_true", help="further backends that can run here, too"
    )
    parser.add_argument("--no-real", action="store_true", help="samples only")
    parser.add_argument(
        "--hands-only", action="store_true", help="only the hands of the annotated real videos"
    )
    parser.add_argument(
        "--cameras-only", action="store_true", help="only the cameras of all real videos"
    )
    parser.add_argument(
        "--objects-only", action="store_true", help="only the objects of the annotated real videos"
    )
    parser.add_argument("--json", type=Path, default=None, help="write everything here too")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and tell by the exit status whether every floor is met."""
    options = parse_arguments(arguments)
    if options.hands_only:
        return 1 if _report_hands() else 0
    if options.cameras_only:
        return 1 if _report_cameras() else 0
    if options.objects_only:
        return 1 if _report_objects() else 0
    seeds = options.seeds or ([0] if options.quick else [0, 1, 2])
    lines, failures = measure(
        seeds, oracle=options.oracle, quick=options.quick, side_by_side=options.side_by_side
    )
    fed = "the truth" if options.oracle else "the operators before them"
    print(f"Samples, seeds {seeds}, operators fed with {fed}")
    print(render_table(lines))
    for seed, failed in failures.items():
        for operator, reason in failed.items():
            print(f"FAILED  seed {seed}: {operator}: {reason}")
    real = [] if options.no_real else _report_real(options.quick)
    missed = False
    if not options.no_real and not options.quick:
        missed = _report_hands() | _report_objects() | _report_cameras()
    ratios = {(x.operator, x.metric): x.worst_ratio for x in lines if x.worst_ratio is not None}
    worst = max(ratios, key=lambda key: ratios[key] or 0.0)
    failed_any = bool(failures) or missed or any(r > 1.0 for r in ratios.values() if r is not None)
    if options.json is not None:
        content = {
            "seeds": seeds,
            "oracle": options.oracle,
            "quick": options.quick,
            "samples": [x.as_json() for x in lines],
            "real": [x.as_json() for x in real],
            "failures": failures,
            "worst": {"metric": ": ".join(worst), "ratio": _plain(ratios[worst])},
            "passed": not failed_any,
        }
        options.json.write_text(json.dumps(content, indent=2), encoding="utf-8")
    print(f"worst ratio to a floor: {ratios[worst]:.3f} ({worst[0]}: {worst[1]})")
    return 1 if failed_any else 0


def _report_real(quick: bool) -> list[Line]:
    from benchmarks.real_scores import real_data_folder, score_real

    data = real_data_folder()
    if data is None:
        print("\nReal data skipped: no folder; set EGO_REAL_DATA to one that holds videos/")
        return []
    values, skipped = score_real(data, quick=quick)
    lines = lines_of({"real": values}, floors=False)
    print("\nReal data, reported only")
    print(render_table(lines))
    for name, reason in skipped.items():
        print(f"SKIPPED {name}: {reason}")
    return lines


def _report_hands() -> bool:
    """Print the hands of annotated real videos, a tier after the other; True: a floor is missed."""
    from benchmarks import real_hands
    from benchmarks.calibration import reliability, reliability_table
    from benchmarks.real_scores import real_data_folder

    data = real_data_folder()
    if data is None or not (data / "annotations").is_dir():
        print("\nAnnotated hands skipped: no folder annotations/ in EGO_REAL_DATA")
        return False
    missed = False
    for tier, why_not in real_hands.available_tiers().items():
        if why_not:
            print(f"\nAnnotated hands, tier {tier}, skipped: {why_not}")
            continue
        scores = real_hands.score_tier(data, tier)
        values = scores.values | real_hands.score_glasses(data, tier)
        values |= real_hands.score_freihand(data, tier)
        values |= real_hands.calibration_values(scores)
        table = real_hands.video_table(scores)
        table += f"\n\n{reliability_table(reliability(scores.judged))}\n"
        missed |= _misses(f"Annotated hands of real videos, tier {tier}", table, values, tier)
    return missed


def _report_cameras() -> bool:
    """Print the cameras of all real videos; True: a floor is missed."""
    from benchmarks import real_cameras
    from benchmarks.real_scores import real_data_folder

    data = real_data_folder()
    if data is None:
        print("\nCameras of real videos skipped: no folder videos/ in EGO_REAL_DATA")
        return False
    found = real_cameras.measure_cameras(data)
    values, table = real_cameras.values_of(list(found.values())), real_cameras.camera_table(found)
    return _misses("Cameras of real videos", table, values, "real")


def _report_objects() -> bool:
    """Print the objects of annotated real videos; True: a floor is missed."""
    from benchmarks import real_hands, real_objects
    from benchmarks.real_objects import object_table
    from benchmarks.real_scores import real_data_folder

    data = real_data_folder()
    if data is None or not (data / "annotations").is_dir():
        print("\nAnnotated objects skipped: no folder annotations/ in EGO_REAL_DATA")
        return False
    missed = False
    for tier, why_not in real_hands.available_tiers().items():
        if why_not:
            print(f"\nAnnotated objects, tier {tier}, skipped: {why_not}")
            continue
        scores = real_objects.score_objects(data, tier)
        title, table = f"Annotated objects of real videos, tier {tier}", object_table(scores)
        missed |= _misses(title, table, scores.values, tier)
    return missed


def _misses(title: str, table: str, values: Values, run: str) -> bool:
    """Print what was measured on real videos, of each and of all; True: a floor is missed, which
    the reference tier has none of."""
    floors = {} if run == "reference" else REAL_FLOORS
    lines = [Line(*key, values={run: v}, floor=floors.get(key)) for key, v in values.items()]
    print(f"\n{title}\n{table}\n{render_table(lines)}")
    return any(line.verdict == "FAIL" for line in lines)


if __name__ == "__main__":
    # One core: comparable times, and no fight over cores with other work.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    # Run as a file, only this folder is on the path.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    sys.exit(main())
