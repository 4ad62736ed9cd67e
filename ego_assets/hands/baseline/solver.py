"""Fits the anatomical hand to masks: bones inside of them, all of a mask near a bone.

Here: the residuals, Gauss-Newton, for several hands and starts at a time. Not here: what a mask
says (`hand_fit`), the hand itself (`hand_skeleton`), clips and rows (`hands`).

numpy takes as long to be called as to compute for one hand. So all starts of all hands of a frame
go together, each its own way: what comes out is what each alone would come to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ego_assets.hands import skeleton as skeleton
from ego_assets.hands.baseline.fit import HandView
from ego_assets.hands.skeleton import SIZE

_SAMPLES = np.linspace(0.15, 1.0, 4)
_DAMPING = 1e-3
_STEPS = np.array([1e-3] * 3 + [1e-4] * 2 + [1e-3] + [1e-3] * 8)
_PROBES = np.diag(_STEPS)
_FACTORS = np.array([1.0, 10.0, 100.0])
_STARTS, _ENDS = np.array(skeleton.BONES).T
_BONES = len(_STARTS)
_RADII = skeleton.BONE_RADII.mean(axis=1)
_SHARED = np.array([0.3, 1, 1, 1, 1])
_FAN = np.array([0.0, 1.0, 0.2, -0.5, -1.2])
_REST = np.array([0.3, 0, 0, 0, 0])
_TIES = np.array([0.5] * 3 + [0.0, 0.0, 2.0] + [0.25] * 8)


@dataclass(frozen=True)
class FitProblem:
    """One hand in one frame.

    starts: (S, SIZE) parameters to begin with; before: (SIZE,) those of the frame before, which
    the solution is to stay near, or None.
    """

    view: HandView
    side: str
    starts: np.ndarray
    before: np.ndarray | None = None


def fit(
    problems: Sequence[FitProblem], scale: float, rounds: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each problem, from each of its starts: parameters (S, SIZE) and root mean square
    residuals (S,), by damped Gauss-Newton (Levenberg 1944)."""
    ways = [[_Way(problem, start) for start in problem.starts] for problem in problems]
    alike: dict[tuple[int, bool], list[_Way]] = {}
    for way in (way for some in ways for way in some):
        key = (len(way.problem.view.points), way.problem.before is None)
        alike.setdefault(key, []).append(way)
    for some in alike.values():
        _go(some, scale, rounds)
    return [
        (np.stack([way.best for way in some]), np.array([way.error for way in some]))
        for some in ways
    ]


def _go(ways: list[_Way], scale: float, rounds: int) -> None:
    """Take ways with residuals of one length to where they end."""
    scene = _Scene(ways, scale)
    for way, values in zip(ways, scene.residuals(ways, [w.best for w in ways]), strict=True):
        way.move(way.best, values[0], float(values[0] @ values[0]))
    for _ in range(rounds):
        going = [way for way in ways if way.is_going]
        fresh = [way for way in going if way.normal is None]
        if fresh:
            probes = scene.residuals(fresh, [way.best + _PROBES for way in fresh])
            for way, values in zip(fresh, probes, strict=True):
                way.see(values)
        if not going:
            return
        trials = [way.trials() for way in going]
        for way, tried, values in zip(going, trials, scene.residuals(going, trials), strict=True):
            way.choose(tried, values)


class _Way:
    """One start on its way to a solution.

    normal, gradient: of the residuals at `best`, None before they are known.
    """

    def __init__(self, problem: FitProblem, start: np.ndarray) -> None:
        self.problem = problem
        self.best = start.copy()
        self.current = np.zeros(0)
        self.cost = np.inf
        self.damping = _DAMPING
        self.normal: np.ndarray | None = None
        self.gradient: np.ndarray | None = None
        self.is_going = True

    @property
    def error(self) -> float:
        """Root mean square residual."""
        return float(np.sqrt(self.cost / len(self.current)))

    def move(self, best: np.ndarray, current: np.ndarray, cost: float) -> None:
        self.best, self.current, self.cost = best, current, cost
        self.normal = None

    def see(self, probes: np.ndarray) -> None:
        """probes: (SIZE, R) residuals a step to the side of `best`, for each parameter."""
        jacobian = (probes - self.current) / _STEPS[:, None]
        self.normal = jacobian @ jacobian.T
        self.gradient = jacobian @ self.current

    def trials(self) -> np.ndarray:
        """(3, SIZE) parameters to try, less and less far away."""
        assert self.normal is not None
        assert self.gradient is not None
        lift = np.diag(self.normal.diagonal() + 1e-3)
        lifted = self.normal + (self.damping * _FACTORS)[:, None, None] * lift
        return self.best - np.linalg.solve(lifted, self.gradient[:, None])[..., 0]

    def choose(self, trials: np.ndarray, values: np.ndarray) -> None:
        """Go to the best of the trials, if it is better than where we are."""
        costs = (values**2).sum(axis=1)
        chosen = int(costs.argmin())
        if costs[chosen] >= self.cost:
            self.damping *= 30
            self.is_going = self.damping <= 1e3
            return
        gain = (self.cost - float(costs[chosen])) / max(self.cost, 1e-12)
        self.move(trials[chosen], values[chosen], float(costs[chosen]))
        self.damping = max(1e-5, self.damping * _FACTORS[chosen] * 0.3)
        self.is_going = gain >= 1e-3


@dataclass(frozen=True)
class _Rows:
    """What the residuals of some parameters are measured against: N rows, or as many of 1.

    grid: the distances of all views, one behind the other; first: where each row's begin; width,
    height: of its view; points: x and y, (N, 1, P). The others are those of a HandView.
    """

    grid: np.ndarray
    first: np.ndarray
    width: np.ndarray
    height: np.ndarray
    step: np.ndarray
    origin: np.ndarray
    points: list[np.ndarray]
    wrist: np.ndarray
    direction: np.ndarray
    radius: np.ndarray
    log_depth: np.ndarray
    sees_back: np.ndarray
    mirror: np.ndarray
    before: np.ndarray | None


class _Scene:
    """The views of some ways."""

    def __init__(self, ways: list[_Way], scale: float) -> None:
        self.scale = scale
        self.place = {id(way): number for number, way in enumerate(ways)}
        views = [way.problem.view for way in ways]
        grids = [view.distance for view in {id(v): v for v in views}.values()]
        starts = np.cumsum([0, *(grid.size for grid in grids)])
        first = {id(grid): start for grid, start in zip(grids, starts, strict=False)}
        before = [w.problem.before for w in ways if w.problem.before is not None]

        def column(values: list[float]) -> np.ndarray:
            return np.array(values)[:, None]

        self.whole = _Rows(
            grid=np.concatenate([grid.ravel() for grid in grids]),
            first=column([first[id(v.distance)] for v in views])[..., None],
            width=column([v.distance.shape[1] for v in views])[..., None],
            height=column([v.distance.shape[0] for v in views])[..., None],
            step=column([v.step for v in views])[..., None],
            origin=np.stack([v.origin for v in views]),
            points=[np.stack([v.points[:, k] for v in views])[:, None] for k in (0, 1)],
            wrist=np.stack([v.wrist for v in views]),
            direction=np.stack([v.direction for v in views]),
            radius=column([v.radius for v in views]),
            log_depth=column([float(np.log(v.depth(scale))) for v in views]),
            sees_back=column([float(v.is_wearer) for v in views]),
            mirror=column([-1.0 if way.problem.side == "left" else 1.0 for way in ways]),
            before=np.stack(before) if before else None,
        )
        self._rows: dict[tuple[tuple[int, ...], int], _Rows] = {}

    def residuals(self, ways: list[_Way], sets: list[np.ndarray]) -> np.ndarray:
        """(W, K, R) residuals of K sets of parameters of each way."""
        parameters = np.array(sets).reshape(-1, SIZE)
        each = len(parameters) // len(ways)
        rows = self._of(tuple(self.place[id(way)] for way in ways), each)
        return _residuals(parameters, rows, self.scale).reshape(len(ways), each, -1)

    def _of(self, ways: tuple[int, ...], times: int) -> _Rows:
        key = (ways, times)
        if key not in self._rows:
            which = np.repeat(np.array(ways), times)
            taken = {
                name: value[which]
                for name, value in vars(self.whole).items()
                if isinstance(value, np.ndarray) and name != "grid"
            }
            points = [axis[which] for axis in self.whole.points]
            self._rows[key] = _Rows(
                **{"before": None} | taken | {"grid": self.whole.grid, "points": points}
            )
        return self._rows[key]


def joints_of(parameters: np.ndarray, side: str, scale: float) -> np.ndarray:
    """(N, 21, 3) joints in the camera, metres, of (N, SIZE) parameters."""
    from scipy.spatial.transform import Rotation

    rotation = Rotation.from_rotvec(parameters[:, :3]).as_matrix()
    mirror = np.full((len(parameters), 1), -1.0 if side == "left" else 1.0)
    return _joints(parameters, rotation, mirror, scale)


def _joints(
    parameters: np.ndarray, rotation: np.ndarray, mirror: np.ndarray, scale: float
) -> np.ndarray:
    """As `joints_of`; rotation: (N, 3, 3) of the parameters; mirror: (N, 1) -1 for left hands."""
    flexion = parameters[:, 6:11] + parameters[:, 13:14] * _SHARED
    np.clip(flexion, *skeleton.FLEXION_LIMITS, out=flexion)
    spread = np.clip(parameters[:, 12:13], -0.1, 0.25) * _FAN
    spread[:, 0] += np.clip(parameters[:, 11], *skeleton.SPREAD_LIMITS)
    joints = skeleton.hand_joints(flexion, spread, "right", scale)
    joints[..., 1] *= mirror
    places: np.ndarray = np.einsum("nij,nkj->nki", rotation, joints)
    z = np.exp(parameters[:, 5])
    places[..., 0] += (parameters[:, 3] * z)[:, None]
    places[..., 1] += (parameters[:, 4] * z)[:, None]
    places[..., 2] += z[:, None]
    return places


def _residuals(parameters: np.ndarray, rows: _Rows, scale: float) -> np.ndarray:
    """(N, R) residuals of (N, SIZE) parameters, in palm radii and radians.

    Places in the picture are kept as an array for x and one for y, bones before points: so numpy
    goes through long stretches of memory.
    """
    from scipy.spatial.transform import Rotation

    rotation = Rotation.from_rotvec(parameters[:, :3]).as_matrix()
    joints = _joints(parameters, rotation, rows.mirror, scale)
    z = np.maximum(joints[..., 2:], 0.02)
    flat = (joints[..., 0] / z[..., 0], joints[..., 1] / z[..., 0])
    start = [axis[:, _STARTS, None] for axis in flat]
    bone = [axis[:, _ENDS, None] - begin for axis, begin in zip(flat, start, strict=True)]
    radii = (_RADII * scale / z.mean(axis=(1, 2))[:, None])[:, :, None]
    samples = (begin + along * _SAMPLES for begin, along in zip(start, bone, strict=True))
    points = rows.points[0].shape[2]
    ends = np.cumsum([_BONES * len(_SAMPLES), points, 8, 6, 0 if rows.before is None else SIZE])
    found = np.empty((len(parameters), ends[-1]))
    out, bare, prior, anchors, ties = np.split(found, ends[:-1], axis=1)
    outside = _distance(rows, *samples)
    outside += 0.55 * radii
    np.maximum(0, outside, out=outside)
    outside /= rows.radius[..., None]
    np.multiply(outside.reshape(out.shape), 0.5, out=out)
    gap = _bone_distance(rows, start, bone)
    gap -= 1.1 * radii
    np.maximum(0, gap.min(axis=1), out=bare)
    bare /= rows.radius
    bare *= 0.9
    prior[:, :5] = 0.5 * (parameters[:, 6:11] - _REST)
    prior[:, 5:7] = 0.5 * parameters[:, 11:13]
    prior[:, 7] = 0.15 * (parameters[:, 13] - 0.9)
    _anchor(anchors, parameters, rotation, flat, rows)
    if rows.before is not None:
        np.multiply(parameters - rows.before, _TIES, out=ties)
    return found


def _bone_distance(rows: _Rows, start: list[np.ndarray], bone: list[np.ndarray]) -> np.ndarray:
    """(N, 20, P) how far each point of the mask is from each bone, in normalised units.

    start, bone: x and y, (N, 20, 1) each, of where the bones begin and how far they go.
    """
    off = [points - begin for points, begin in zip(rows.points, start, strict=True)]
    share = off[0] * bone[0]
    part = off[1] * bone[1]
    share += part
    share /= np.maximum(bone[0] ** 2 + bone[1] ** 2, 1e-12)
    np.clip(share, 0, 1, out=share)
    for along, away in zip(bone, off, strict=True):
        away -= np.multiply(share, along, out=part)
        away *= away
    off[0] += off[1]
    distance: np.ndarray = np.sqrt(off[0], out=off[0])
    return distance


def _anchor(
    found: np.ndarray,
    parameters: np.ndarray,
    rotation: np.ndarray,
    flat: tuple[np.ndarray, np.ndarray],
    rows: _Rows,
) -> None:
    """Write the (N, 6) residuals of what the arm and the palm say: wrist, direction, distance, the
    side that is seen. flat: x and y of the joints in the picture, (N, 21) each."""
    wrist = np.stack([axis[:, 0] for axis in flat], axis=1)
    found[:, :2] = 0.8 * ((wrist - rows.wrist) / rows.radius)
    ahead = np.stack([axis[:, 9] - axis[:, 0] for axis in flat], axis=1)
    length = np.sqrt(ahead[:, 0] * ahead[:, 0] + ahead[:, 1] * ahead[:, 1])
    ahead /= np.maximum(length, 1e-9)[:, None]
    found[:, 2:4] = 0.7 * (ahead - rows.direction)
    found[:, 4:5] = 0.8 * (parameters[:, 5:6] - rows.log_depth)
    found[:, 5:] = 2.0 * (np.maximum(0, rotation[:, 2, 2:3] + 0.2) * rows.sees_back)


def _distance(rows: _Rows, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance at places x, y, bilinear; outside the crop it grows on."""
    far_x = (x - rows.origin[:, 0, None, None]) / rows.step
    far_y = (y - rows.origin[:, 1, None, None]) / rows.step
    x = np.clip(far_x, 0, rows.width - 1.001)
    y = np.clip(far_y, 0, rows.height - 1.001)
    column, row = x.astype(np.int64), y.astype(np.int64)
    right, down = x - column, y - row
    left, grid = 1 - right, rows.grid
    place = rows.first + row * rows.width + column
    value = grid[place] * left
    value += grid[place + 1] * right
    value *= 1 - down
    place += rows.width
    below = grid[place] * left
    below += grid[place + 1] * right
    value += below * down
    far_x -= x
    far_y -= y
    distance: np.ndarray = value + np.hypot(far_x, far_y) * rows.step
    return distance
