"""Our own solver: exact slopes, limits kept, true minima, and no worse than the library."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import retarget as benchmark
from ego_assets.models import registry
from ego_assets.operator import ClipOperator
from ego_assets.robots.gauss_newton.chains import UnsuitedHandError
from ego_assets.robots.gauss_newton.retargeter import GaussNewtonRetargeter, _solve_together
from ego_assets.robots.gauss_newton.solver import GaussNewtonSolver
from ego_assets.robots.retargeting import DexRetargeter
from ego_assets.robots.robot_hands import find_robot
from ego_assets.robots.solver import HandRun, solve_run
from ego_assets.robots.tables import RobotMapping
from tests.robots.test_retarget import clip_of, errors_mm, pose_row, reachable_hands, settings


def make_solver(method: str = "position", **changes) -> GaussNewtonSolver:
    spec = find_robot("ego_hand")
    return GaussNewtonSolver(spec, spec.urdf("right")[0], method, **changes)


def rows_of(operator: DexRetargeter, count: int = 40) -> list[dict]:
    hands = reachable_hands(operator, "ego_hand", count)
    return [pose_row(hand, i) for i, hand in enumerate(hands)]


WITHOUT_TORCH = """
import sys
from ego_assets.robots.gauss_newton.solver import GaussNewtonSolver
from ego_assets.robots.robot_hands import find_robot
spec = find_robot("ego_hand")
solver = GaussNewtonSolver(spec, spec.urdf("right")[0], "vector")
solver.solve(solver.fingertips(solver.expand(solver.start())), None)
assert not {"torch", "nlopt"} & set(sys.modules), "a second and 300 MB that nobody needs"
"""


def test_it_brings_no_torch_along():
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH], check=True)


def test_is_chosen_by_a_line():
    operator = registry.build("retargeter", "gauss_newton", {"low_pass_alpha": 1.0})
    assert isinstance(operator, ClipOperator)
    mapped = operator.process(clip_of(rows_of(operator, 2), 0, 2), None).tables["robot_mappings"]
    assert {r["backend"] for r in mapped} == {"gauss_newton"}
    RobotMapping.from_rows(mapped)


def test_slopes_are_those_of_the_tips():
    """Also through joints that follow others."""
    solver = make_solver()
    rng = np.random.default_rng(0)
    free = rng.uniform(*solver.free_limits.T)
    _, slope = solver._tips(free)
    step = 1e-6
    for joint, unit in enumerate(np.eye(len(free))):
        ahead, behind = (solver._tips(free + s * step * unit)[0].ravel() for s in (1, -1))
        np.testing.assert_allclose(slope[:, joint], (ahead - behind) / (2 * step), atol=1e-7)


@pytest.mark.parametrize("method", ["position", "vector"])
def test_reachable_fingertips_are_reached(method):
    operator = GaussNewtonRetargeter(settings(method=method, low_pass_alpha=1.0))
    rows = rows_of(operator)
    mapped = operator.process(clip_of(rows, 0, 40), None).tables["robot_mappings"]
    assert errors_mm(mapped).mean() < 0.5
    assert {r["solver_status"] for r in mapped} == {"converged"}
    library = DexRetargeter(settings(method=method, low_pass_alpha=1.0))
    theirs = library.process(clip_of(rows, 0, 40), None).tables["robot_mappings"]
    assert errors_mm(mapped).mean() < errors_mm(theirs).mean()


def test_both_objectives_are_one():
    targets = benchmark.targets_of(make_solver(), 5, 0)
    for target in targets:
        one, other = (make_solver(m).solve(target, None).positions for m in ("position", "vector"))
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_what_cannot_be_reached_ends_at_a_minimum_within_the_limits():
    """The slope is nought, or points out of the limits."""
    solver = make_solver()
    rng = np.random.default_rng(2)
    lower, upper = solver.free_limits.T
    for target in benchmark.targets_of(solver, 8, 1) + rng.normal(0, 0.03, (8, 5, 3)):
        wanted = solver._reference(target)
        found, status, _ = solver._optimise(wanted, solver.start(), 0.0)
        assert status == "converged"
        assert ((found >= lower) & (found <= upper)).all()
        tips, slope = solver._tips(found)
        gradient = slope.T @ (tips - wanted).ravel()
        inner = (found > lower) & (found < upper)
        size = np.linalg.norm(slope) * np.linalg.norm(tips - wanted)
        assert np.abs(gradient[inner]).max(initial=0) < 0.02 * size
        assert (gradient[found <= lower] > -0.02 * size).all()
        assert (gradient[found >= upper] < 0.02 * size).all()


def test_regularisation_pulls_to_the_frame_before():
    solver = make_solver()
    target = benchmark.targets_of(solver, 1, 0)[0]
    start = solver.start()
    moved = [
        np.linalg.norm(solver._optimise(solver._reference(target), start, w)[0] - start)
        for w in (0.0, 1e-2, 1.0)
    ]
    assert moved[0] > moved[1] > moved[2] > 0


def test_two_clips_of_a_take_equal_one_long_run():
    operator = GaussNewtonRetargeter(settings(low_pass_alpha=0.4))
    rows = rows_of(operator)
    whole = operator.process(clip_of(rows, 0, 40), None).tables["robot_mappings"]
    first = operator.process(clip_of(rows, 0, 25), None)
    later = GaussNewtonRetargeter(settings(low_pass_alpha=0.4))
    second = later.process(clip_of(rows, 15, 40, context=10), first.carried)
    for one, other in zip(whole[15:], second.tables["robot_mappings"], strict=True):
        assert one["joint_positions"] == other["joint_positions"]


def test_a_spent_budget_is_a_stop():
    operator = GaussNewtonRetargeter(settings(max_evaluations=5))
    rows = rows_of(operator, 1)
    (row,) = operator.process(clip_of(rows, 0, 1), None).tables["robot_mappings"]
    assert row["solver_status"] == "stopped"


def test_what_it_cannot_solve_is_solved_by_the_library_beside_its_own():
    """As it is for a lake whose shards chose dexpilot while the library was the default."""
    with pytest.raises(UnsuitedHandError):
        make_solver("dexpilot")
    operator = GaussNewtonRetargeter(settings(method="dexpilot"))
    rows = rows_of(operator, 3)
    mapped = operator.process(clip_of(rows, 0, 3), None).tables["robot_mappings"]
    library = DexRetargeter(settings(method="dexpilot"))
    theirs = library.process(clip_of(rows, 0, 3), None).tables["robot_mappings"]
    assert [r["joint_positions"] for r in mapped] == [r["joint_positions"] for r in theirs]
    ours, other = make_solver(), library.solver("ego_hand", "right")[0]
    targets = benchmark.targets_of(ours, 2, 0)
    runs = [HandRun(s, targets, np.array([True, False]), None) for s in [ours, other] * 5]
    found = _solve_together(runs)
    for run, solutions in zip(runs[:2], found[:2], strict=True):
        for one, alone in zip(solutions, solve_run(run), strict=True):
            np.testing.assert_allclose(one.positions, alone.positions, atol=1e-6)


def test_the_benchmark_runs(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["retarget.py", "--frames", "6", "--json"])
    status = benchmark.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert status == (0 if found["ratio"] >= 1 else 1)
    assert set(found["tasks"]) == {"ego_hand, vector", "ego_hand, position"}
    for row in found["tasks"].values():
        assert set(row) == {"dex_retargeting", "nlopt", "gauss_newton"}
        assert row["dex_retargeting"]["mean_mm"] < 40


def test_the_benchmark_of_many_hands_compares_like_with_like():
    (row,) = benchmark.together(None, [5], 0, frames=3).values()
    assert {"dex_retargeting", "one by one", "together"} < set(row)
    assert row["difference_rad"] < 1e-6
