"""Many robot hands solved at once: the descent of `gauss_newton`, as array expressions over hands.

Here: one frame of many hands, and their frames in order. Not here: one hand at a time
(`gauss_newton`, whose steps, limits and ends these are), kinematics (`hand_chains`), rows.

Frames of a hand depend on each other through the warm start, so hands go through time in step, the
longest first: hands of a frame, of several robots, of clips of different takes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ego_assets.robots.gauss_newton.chains import HandChains
from ego_assets.robots.gauss_newton.solver import (
    DAMPINGS,
    FIRST_DAMPING,
    GOOD_LOSS,
    HUBER_M,
    LEAST_DAMPING,
    LEAST_GAIN,
    NOT_FINITE,
    GaussNewtonSolver,
    used_up,
)
from ego_assets.robots.solver import (
    JUMP_M,
    RETRY_ERROR_M,
    STARTS,
    HandRun,
    Solution,
    SolverState,
)

CONVERGED, STOPPED, FAILED = "converged", "stopped", "failed"


def solve_runs(runs: Sequence[HandRun]) -> list[list[Solution]]:
    """Solutions of each run, as `solve_run` finds them, within 1e-6 rad.

    All solvers are GaussNewtonSolver of one regularisation and one budget of evaluations.
    """
    order = sorted(range(len(runs)), key=lambda i: -len(runs[i].targets))
    found = _solve([runs[i] for i in order])
    return [found[order.index(i)] for i in range(len(runs))]


def _solve(runs: list[HandRun]) -> list[list[Solution]]:
    """Of runs of which none is longer than the one before it."""
    solvers: list[GaussNewtonSolver] = [r.solver for r in runs]  # type: ignore[misc]
    hands = HandChains.stacked([s.chains for s in solvers])
    free, tips = hands.spread.shape[2], hands.tip.shape[1]
    lengths = np.array([len(r.targets) for r in runs])
    wanted = np.zeros((lengths[0], 3, tips, len(runs)))
    anew = np.ones((lengths[0], len(runs)), bool)
    qpos = hands.limits.mean(axis=0)
    targets = np.zeros((3, tips, len(runs)))
    known = np.zeros(len(runs), bool)
    for i, run in enumerate(runs):
        wanted[: lengths[i], :, : run.targets.shape[1], i] = run.targets.transpose(0, 2, 1)
        anew[: lengths[i], i] = run.anew
        if run.state is not None:
            known[i] = True
            qpos[: len(run.state.qpos), i] = run.state.qpos
            targets[:, : run.targets.shape[1], i] = run.state.targets.T
    solved = np.zeros((lengths[0], free, len(runs)))
    verdicts = np.full((lengths[0], len(runs)), CONVERGED, dtype="U9")
    count, part = len(runs), hands
    for frame in range(lengths[0]):
        now = int(np.searchsorted(-lengths, -frame))  # runs that are longer than this
        if now < count:
            count, part = now, hands.take(slice(now))
            qpos, targets, known = qpos[:, :now], targets[..., :now], known[:now]
        known &= ~anew[frame, :now]
        goal = wanted[frame, ..., :now]
        jumped = _mean_distance(part, goal, targets) > JUMP_M
        start = np.where(known, qpos, part.limits.mean(axis=0))
        best, verdict = _solve_frame(part, goal, start, ~known | jumped, solvers[0])
        failed = verdict == FAILED
        best = np.where(failed, start, best)
        solved[frame, :, :now], verdicts[frame, :now] = best, verdict
        stays = failed & known
        qpos, targets = np.where(stays, qpos, best), np.where(stays, targets, goal)
        known = np.ones(now, bool)
    return [
        _solutions(run, solved[:n, : len(run.solver.free), i], verdicts[:n, i])
        for i, (run, n) in enumerate(zip(runs, lengths, strict=True))
    ]


def _solve_frame(
    hands: HandChains,
    wanted: np.ndarray,
    start: np.ndarray,
    cold: np.ndarray,
    solver: GaussNewtonSolver,
) -> tuple[np.ndarray, np.ndarray]:
    """(A, B) joints and (B,) verdicts for (3, F, B) targets; cold ones try several starts."""
    weight = np.where(cold, 0.0, solver.regularisation)
    best, verdict = minimise(hands, wanted, start, weight, solver.evaluations)
    if not cold.any():
        return best, verdict
    error = _mean_distance(hands, hands.tips(best), wanted)
    lower, upper = hands.limits
    for share in STARTS:
        again = np.flatnonzero(cold & ((error > RETRY_ERROR_M) | (verdict == FAILED)))
        if not len(again):
            break
        some, goal = hands.take(again), wanted[..., again]
        other = (lower + share * (upper - lower))[:, again]
        other, ended = minimise(some, goal, other, np.zeros(len(again)), solver.evaluations)
        off = _mean_distance(some, some.tips(other), goal)
        better = (ended != FAILED) & ((verdict[again] == FAILED) | (off < error[again]))
        taken = again[better]
        best[:, taken], verdict[taken], error[taken] = other[:, better], ended[better], off[better]
    return best, verdict


def minimise(
    hands: HandChains, wanted: np.ndarray, start: np.ndarray, weight: np.ndarray, evaluations: int
) -> tuple[np.ndarray, np.ndarray]:
    """(A, B) joints within their limits that bring fingertips next to (3, F, B) targets.

    start: (A, B), which (B,) weights pull to; returned with (B,) verdicts. A hand that has failed
    is at its start. Hands that are done drop out when they are half of those at work.
    """
    lower, upper = hands.limits
    best = np.clip(start, lower, upper)
    found, verdict = start.copy(), np.full(start.shape[1], CONVERGED, dtype="U9")
    where = np.arange(start.shape[1])
    loss, gradient, normal = _loss(hands, wanted, best, start, weight)
    at_work = np.isfinite(loss)
    verdict[~at_work] = FAILED
    damping, tries = np.full(len(where), FIRST_DAMPING), np.zeros(len(where), int)
    found[:, at_work] = best[:, at_work]
    at_work &= ~(loss <= GOOD_LOSS)
    left = evaluations - 1
    while at_work.any():
        if left <= 0:
            verdict[where[at_work]] = STOPPED
            break
        if 2 * at_work.sum() <= len(where):
            kept = np.flatnonzero(at_work)
            hands, at_work = hands.take(kept), at_work[kept]
            lower, upper = hands.limits
            wanted, start, weight, best, loss, gradient, normal, damping, tries, where = (
                x[..., kept]
                for x in (
                    wanted,
                    start,
                    weight,
                    best,
                    loss,
                    gradient,
                    normal,
                    damping,
                    tries,
                    where,
                )
            )
        held = ((best <= lower) & (gradient > 0)) | ((best >= upper) & (gradient < 0))
        trial = np.clip(best - _step(normal, gradient, held, damping), lower, upper)
        new_loss, new_gradient, new_normal = _loss(hands, wanted, trial, start, weight)
        left -= 1
        better = at_work & (new_loss < loss)
        worse = at_work & ~better
        tries = np.where(worse, tries + 1, 0)
        ends = worse & (tries == DAMPINGS)  # no step however small helps: this is the minimum
        ends |= better & ((loss - new_loss < LEAST_GAIN * loss) | (new_loss <= GOOD_LOSS))
        damping = np.where(worse, damping * 10, damping)
        damping = np.where(better, np.maximum(damping / 10, LEAST_DAMPING), damping)
        best, loss, gradient, normal = (
            np.where(better, new, old)
            for new, old in (
                (trial, best),
                (new_loss, loss),
                (new_gradient, gradient),
                (new_normal, normal),
            )
        )
        found[:, where[better]] = best[:, better]
        at_work &= ~ends
    return found, verdict


def _loss(
    hands: HandChains, wanted: np.ndarray, free: np.ndarray, start: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Loss (B,), its gradient (A, B), and Gauss and Newton's (A, A, B) for its curvature."""
    tips, slopes = hands.tips_and_slopes(free)
    share = 1 / (hands.is_tip.sum(axis=0) * HUBER_M)
    off, moved = tips - wanted, free - start
    loss = share * np.einsum("xfb,xfb->b", off, off) / 2 + weight * np.einsum(
        "ab,ab->b", moved, moved
    )
    gradient = share * np.einsum("xfab,xfb->ab", slopes, off) + 2 * weight * moved
    rows = np.ascontiguousarray(slopes.reshape(-1, *slopes.shape[2:]).transpose(2, 1, 0))
    normal = share * np.moveaxis(rows @ rows.transpose(0, 2, 1), 0, -1)
    normal += 2 * weight * np.eye(len(free))[..., None]
    return loss, gradient, normal


def _step(
    normal: np.ndarray, gradient: np.ndarray, held: np.ndarray, damping: np.ndarray
) -> np.ndarray:
    """(A, B) steps down, of the joints that are not held."""
    moving = ~held
    lifted = normal * (moving[:, None] & moving)
    lifted += np.eye(len(normal))[..., None] * np.where(held, 1.0, damping)
    side = (gradient * moving).T[..., None]
    return np.linalg.solve(np.moveaxis(lifted, -1, 0), side)[..., 0].T


def _mean_distance(hands: HandChains, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(B,) mean over the fingertips that there are."""
    off = np.sqrt(np.einsum("xfb,xfb->fb", one - other, one - other)) * hands.is_tip
    mean: np.ndarray = off.sum(axis=0) / hands.is_tip.sum(axis=0)
    return mean


def _solutions(run: HandRun, free: np.ndarray, verdicts: np.ndarray) -> list[Solution]:
    """What `HandSolver` makes of (T, A) joints: filtered, within limits, with fingertips."""
    solver: GaussNewtonSolver = run.solver  # type: ignore[assignment]
    full = solver.base + free @ solver.spread.T
    filtered = np.empty_like(full)
    states: list[SolverState] = []
    state = run.state
    for i, verdict in enumerate(verdicts):
        state = None if run.anew[i] else state
        if state is not None and verdict == FAILED:
            filtered[i] = state.filtered
        else:
            filtered[i] = full[i]
            if state is not None:
                filtered[i] = state.filtered + solver.alpha * (full[i] - state.filtered)
            after = full[i] if state is None else filtered[i]
            state = SolverState(free[i], after, run.targets[i], np.zeros(0, bool))
        states.append(state)
    positions = solver.clip(filtered)
    hands = solver.all_joints.take(np.zeros(len(positions), int))
    tips = hands.tips(positions.T).transpose(2, 1, 0)
    reasons = {STOPPED: used_up(solver.evaluations), FAILED: NOT_FINITE}
    return [
        Solution(p, t, str(v), reasons.get(str(v), ""), state=s)
        for p, t, v, s in zip(positions, tips, verdicts, states, strict=True)
    ]
