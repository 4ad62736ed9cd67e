"""Many hands solved at once are as they are one by one: within 1e-6 rad, with the same verdicts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks import retarget as benchmark
from ego_assets.robots.gauss_newton import retargeter as backend
from ego_assets.robots.gauss_newton.batch import solve_runs
from ego_assets.robots.gauss_newton.chains import HandChains, UnsuitedHandError
from ego_assets.robots.gauss_newton.retargeter import GaussNewtonRetargeter
from ego_assets.robots.gauss_newton.solver import GaussNewtonSolver
from ego_assets.robots.robot_hands import RobotSpec, find_robot
from ego_assets.robots.solver import HandRun, Solution, solve_run
from tests.robots.test_retarget import clip_of, pose_row, reachable_hands, settings

TOLERANCE_RAD = 1e-6


def solver_of(spec: RobotSpec, side: str = "right", **changed: Any) -> GaussNewtonSolver:
    settings = {"low_pass_alpha": 0.6, "regularisation": 3e-4} | changed
    return GaussNewtonSolver(spec, spec.urdf(side)[0], "vector", **settings)


@pytest.fixture(scope="module")
def solvers() -> list[GaussNewtonSolver]:
    """Of three kinds: with fewer fingers, and with fewer joints to move, too."""
    whole = find_robot("ego_hand")
    tips = {f: link for f, link in whole.fingertips.items() if f in ("thumb", "middle")}
    joint = solver_of(whole).joint_names[0]
    part = replace(whole, fingertips=tips)
    held = replace(part, fixed_joints=(*whole.fixed_joints, joint))
    found = [solver_of(whole), solver_of(whole, "left"), solver_of(part), solver_of(held)]
    assert len({len(s.free) for s in found}) == 2
    assert len({len(s.tip_links) for s in found}) == 2
    return found


def run_of(solver: GaussNewtonSolver, frames: int, seed: int) -> HandRun:
    return HandRun(solver, benchmark.targets_of(solver, frames, seed), np.arange(frames) == 0, None)


def assert_alike(found: list[list[Solution]], wanted: list[list[Solution]]) -> None:
    assert [len(f) for f in found] == [len(w) for w in wanted]
    for ones, others in zip(found, wanted, strict=True):
        for one, other in zip(ones, others, strict=True):
            assert (one.status, one.reason) == (other.status, other.reason)
            np.testing.assert_allclose(one.positions, other.positions, atol=TOLERANCE_RAD)
            np.testing.assert_allclose(one.tips, other.tips, atol=1e-7)
            for name in ("qpos", "filtered", "targets"):
                a, b = (getattr(s.state, name) for s in (one, other))
                np.testing.assert_allclose(a, b, atol=TOLERANCE_RAD)


def test_tips_and_slopes_are_those_of_one_hand(solvers: list[GaussNewtonSolver]) -> None:
    hands = HandChains.stacked([s.chains for s in solvers])
    rng = np.random.default_rng(0)
    free = np.zeros((hands.spread.shape[2], len(solvers)))
    for i, solver in enumerate(solvers):
        free[: len(solver.free), i] = rng.uniform(*solver.free_limits.T)
    tips, slopes = hands.tips_and_slopes(free)
    for i, solver in enumerate(solvers):
        own, count = free[: len(solver.free), i], len(solver.tip_links)
        np.testing.assert_allclose(
            tips[:, :count, i].T, solver.fingertips(solver.expand(own)), atol=1e-12
        )
        turn = solver.root_from_wrist[:3, :3]
        wanted = solver._tips(own)[1].reshape(count, 3, -1).transpose(0, 2, 1) @ turn
        found = slopes[:, :count, : len(own), i].transpose(1, 2, 0)
        np.testing.assert_allclose(found, wanted, atol=1e-12)
        assert not tips[:, count:, i].any()
        assert not slopes[..., len(own) :, i].any()


def test_hands_of_several_robots_and_lengths(solvers: list[GaussNewtonSolver]) -> None:
    """With a gap, a jump, targets out of reach, and targets that are no numbers."""
    runs = [run_of(s, 12 - 2 * i, i) for i, s in enumerate([*solvers, solvers[0]])]
    runs[1].anew[4] = True
    runs[2].targets[3:] += (0.0, 0.05, 0.0)
    runs[0].targets[6] *= 3
    runs[3].targets[2] = np.nan
    runs[4].targets[0] = np.nan
    wanted = [solve_run(run) for run in runs]
    assert wanted[3][2].status == wanted[4][0].status == "failed"
    assert_alike(solve_runs(runs), wanted)
    assert_alike(solve_runs(runs[::-1]), wanted[::-1])
    assert_alike(solve_runs(runs[:1]), wanted[:1])


def test_hands_go_on_from_where_they_were(solvers: list[GaussNewtonSolver]) -> None:
    whole = [run_of(s, 10, i) for i, s in enumerate(solvers)]
    wanted = solve_runs(whole)
    later = [
        replace(r, targets=r.targets[6:], anew=r.anew[6:], state=w[5].state)
        for r, w in zip(whole, wanted, strict=True)
    ]
    for ones, others in zip(solve_runs(later), wanted, strict=True):
        assert [a.positions.tolist() for a in ones] == [b.positions.tolist() for b in others[6:]]


def test_a_spent_budget_is_a_stop_for_who_spends_it() -> None:
    solver = solver_of(find_robot("ego_hand"), max_evaluations=4)
    runs = [run_of(solver, 6, i) for i in range(4)]
    wanted = [solve_run(run) for run in runs]
    verdicts = {s.status for solutions in wanted for s in solutions}
    assert verdicts == {"converged", "stopped"}
    assert_alike(solve_runs(runs), wanted)


def test_lanes_are_solved_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six takes with two hands each, by six threads: rows are those of each take alone."""
    sizes: list[int] = []

    def watch(runs: list[HandRun]) -> list[list[Solution]]:
        sizes.append(len(runs))
        return solve_runs(runs)

    monkeypatch.setattr(backend, "solve_runs", watch)
    operator, alone = (GaussNewtonRetargeter(settings(low_pass_alpha=0.7)) for _ in range(2))
    # All twelve hands come together, however long a thread takes to begin.
    operator.batch.max_items, operator.batch.max_age_s = 12, 3600
    hands = reachable_hands(operator, "ego_hand", 9)
    clips = []
    for take in range(6):
        poses = [pose_row(h, i) for i, h in enumerate(hands[: 9 - take])]
        left = [p | {"track_id": "other", "side": "left"} for p in poses]
        clips.append(clip_of([*poses, *left], 0, 9 - take))
    wanted = [alone.process(c, None).tables["robot_mappings"] for c in clips]
    assert not sizes, "two hands are solved one after the other"
    with ThreadPoolExecutor(len(clips)) as pool:
        found = list(pool.map(lambda c: operator.process(c, None).tables["robot_mappings"], clips))
    assert sizes == [12]
    for ones, others in zip(found, wanted, strict=True):
        assert len(ones) == len(others)
        for one, other in zip(ones, others, strict=True):
            one_q, other_q = (np.array(r.pop("joint_positions")) for r in (one, other))
            np.testing.assert_allclose(one_q, other_q, atol=TOLERANCE_RAD)
            for row in (one, other):
                del row["fingertip_error_m"], row["mean_fingertip_error_m"]
            assert one == other


def test_a_wrist_that_is_moved_is_refused() -> None:
    whole = find_robot("ego_hand")
    moved = replace(whole, wrist_link=whole.fingertips["index"])
    with pytest.raises(UnsuitedHandError, match="move its wrist"):
        solver_of(moved)
