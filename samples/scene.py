"""One scene: a room, a table, objects, two hands, and what they do over time.

World: y down, the camera looks along +z, the table's top is the plane y = TABLE_Y_M. Everything
is a function of time, so a scene has the same truth at any frame rate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from samples import texture
from samples.geometry import blend, ease, look_at, pose
from samples.hand import GRASP, OPEN, Articulation, joints_in_hand

TABLE_Y_M = 0.46
REACH_S, LIFT_HEIGHT_M = 0.9, 0.09


@dataclass(frozen=True)
class Plane:
    """A textured rectangle: origin + u * u_axis + v * v_axis, u and v from 0 to 1."""

    origin: np.ndarray
    u_axis: np.ndarray
    v_axis: np.ndarray
    image: np.ndarray


@dataclass(frozen=True)
class Box:
    """A textured box; its frame has the origin at the centre, y along the height."""

    name: str
    size_m: np.ndarray
    faces: list[np.ndarray]
    rest: np.ndarray

    def planes(self, world_from_object: np.ndarray) -> list[Plane]:
        """Its six faces in the world, seen from outside as they are printed."""
        found = []
        half = self.size_m / 2
        for number, image in enumerate(self.faces):
            axis, sign = number // 2, 1.0 if number % 2 else -1.0
            u, v = np.zeros(3), np.zeros(3)
            u[(axis + 1) % 3] = self.size_m[(axis + 1) % 3]
            v[(axis + 2) % 3] = self.size_m[(axis + 2) % 3]
            origin = -half.copy()
            origin[axis] = sign * half[axis]
            rotation = world_from_object[:3, :3]
            found.append(
                Plane(
                    rotation @ origin + world_from_object[:3, 3], rotation @ u, rotation @ v, image
                )
            )
        return found


@dataclass(frozen=True)
class Grasp:
    """A hand takes an object at start_s, carries it to `goal` and lets go at end_s."""

    side: int
    target: int
    start_s: float
    end_s: float
    goal: np.ndarray
    object_from_hand: np.ndarray


class Scene:
    """Everything about one scene, made from a seed."""

    def __init__(self, rng: np.random.Generator, duration_s: float) -> None:
        self.duration_s = duration_s
        self.skin = texture.SKIN_RGB[int(rng.integers(len(texture.SKIN_RGB)))]
        self.sleeve = rng.uniform(25, 200, 3).astype(np.float32)
        self.hand_scale = float(rng.uniform(0.93, 1.06))
        self.phase = rng.uniform(0, 2 * np.pi, 8)
        self.travel = rng.uniform(0.8, 1.15)
        self.planes = _room(rng)
        self.boxes = _boxes(rng)
        self.grasps = _grasps(rng, self.boxes, duration_s)

    # -- where things are at a time ------------------------------------------------------------

    def world_from_camera(self, t: float) -> np.ndarray:
        p, x = self.phase, t / 8.0 * 2 * np.pi
        sway = np.array(
            [
                0.16 * np.sin(x + p[0]) + 0.03 * np.sin(2.7 * x + p[1]),
                0.03 * np.sin(1.6 * x + p[2]),
                0.07 * np.sin(1.1 * x + p[3]),
            ]
        )
        eye = np.array([0.0, -0.02, 0.0]) + self.travel * sway
        target = np.array(
            [0.05 * np.sin(0.9 * x + p[4]), TABLE_Y_M - 0.06, 0.68 + 0.03 * np.sin(1.3 * x + p[5])]
        )
        return look_at(eye, target, roll_rad=0.03 * np.sin(0.8 * x + p[6]))

    def world_from_object(self, index: int, t: float) -> np.ndarray:
        place = self.boxes[index].rest
        for grasp in self.grasps:
            if grasp.target != index or t < grasp.start_s:
                continue
            x = (t - grasp.start_s) / (grasp.end_s - grasp.start_s)
            place_now = blend(place, grasp.goal, ease((x - 0.1) / 0.8))
            place_now[1, 3] -= LIFT_HEIGHT_M * np.sin(np.pi * ease((x - 0.05) / 0.9)) ** 2
            tilt = 0.35 * np.sin(np.pi * ease((x - 0.05) / 0.9)) ** 2
            place_now[:3, :3] = (
                Rotation.from_rotvec([tilt, 0, 0.5 * tilt]).as_matrix() @ place_now[:3, :3]
            )
            if t <= grasp.end_s:
                return place_now
            place = grasp.goal
        return place

    def contact(self, side: int, index: int, t: float) -> bool:
        return any(
            g.side == side and g.target == index and g.start_s <= t < g.end_s for g in self.grasps
        )

    def hand(self, side: int, t: float) -> tuple[np.ndarray, Articulation]:
        """(world_from_hand, articulation)."""
        rest = self._rest(side, t)
        for grasp in (g for g in self.grasps if g.side == side):
            if grasp.start_s - REACH_S <= t < grasp.start_s:
                x = ease((t - grasp.start_s + REACH_S) / REACH_S)
                there = self.world_from_object(grasp.target, grasp.start_s) @ grasp.object_from_hand
                return blend(rest, there, x), OPEN.mixed(GRASP, ease(2 * x - 1))
            if grasp.start_s <= t <= grasp.end_s:
                there = self.world_from_object(grasp.target, t) @ grasp.object_from_hand
                return there, GRASP
            if grasp.end_s < t <= grasp.end_s + REACH_S:
                x = ease((t - grasp.end_s) / REACH_S)
                there = grasp.goal @ grasp.object_from_hand
                return blend(there, rest, x), GRASP.mixed(OPEN, ease(2 * x))
        return rest, OPEN

    def joints(self, side: int, t: float) -> np.ndarray:
        """(21, 3) in the world."""
        world_from_hand, articulation = self.hand(side, t)
        joints = joints_in_hand(articulation, side, self.hand_scale)
        moved: np.ndarray = joints @ world_from_hand[:3, :3].T + world_from_hand[:3, 3]
        return moved

    def elbow(self, side: int, t: float) -> np.ndarray:
        camera = self.world_from_camera(t)[:3, 3]
        elbow: np.ndarray = camera + np.array([0.26 if side else -0.26, 0.42, -0.02])
        return elbow

    def _rest(self, side: int, t: float) -> np.ndarray:
        sign = 1.0 if side else -1.0
        p, x = self.phase, t / 8.0 * 2 * np.pi
        at = np.array([0.19 * sign, TABLE_Y_M - 0.06, 0.40])
        at += 0.015 * np.array([np.sin(2.1 * x + p[7]), np.sin(1.7 * x + p[6]) - 1, np.sin(x)])
        return pose(hand_axes(np.array([-0.25 * sign, 0.12, 1.0])), at)

    @property
    def contact_times_s(self) -> list[float]:
        """When something is touched or put down: there is a sound."""
        return sorted(t for g in self.grasps for t in (g.start_s, g.end_s))


UP = np.array([0.0, -1.0, 0.0])


def hand_axes(forward: np.ndarray, back: np.ndarray = UP) -> np.ndarray:
    """Rotation of a hand whose fingers point `forward` and whose back faces `back`."""
    x = forward / np.linalg.norm(forward)
    z = back - (back @ x) * x
    z /= np.linalg.norm(z)
    return np.column_stack([x, np.cross(z, x), z])


def _room(rng: np.random.Generator) -> list[Plane]:
    def vector(*values: float) -> np.ndarray:
        return np.array(values)

    wood = np.array([1.0, 0.80, 0.58]) * rng.uniform(110, 205) + rng.normal(0, 9, 3)
    wall = np.array([1.0, 0.99, 0.95]) * rng.uniform(130, 205) + rng.normal(0, 10, 3)
    floor = np.array([1.0, 0.95, 0.9]) * rng.uniform(60, 120) + rng.normal(0, 6, 3)
    table = texture.tiles(rng, (700, 1100), wood, 175)
    back = texture.tiles(rng, (600, 1000), wall, 120)
    left, right = (texture.tiles(rng, (500, 600), wall * 0.9, 100) for _ in range(2))
    ground = texture.surface(rng, (500, 700), floor)
    return [
        Plane(vector(-0.85, TABLE_Y_M, 0.25), vector(1.7, 0, 0), vector(0, 0, 1.0), table),
        Plane(vector(-0.85, TABLE_Y_M, 0.25), vector(1.7, 0, 0), vector(0, 0.05, 0), table[:40]),
        Plane(vector(-2.0, -1.2, 2.0), vector(4.0, 0, 0), vector(0, 2.4, 0), back),
        Plane(vector(-1.7, -1.2, -0.4), vector(0, 0, 2.6), vector(0, 2.4, 0), left),
        Plane(vector(1.7, -1.2, -0.4), vector(0, 0, 2.6), vector(0, 2.4, 0), right),
        Plane(vector(-2.0, 1.15, -0.5), vector(4.0, 0, 0), vector(0, 0, 2.8), ground),
    ]


def _boxes(rng: np.random.Generator) -> list[Box]:
    places = [(-0.20, 0.72), (0.17, 0.66), (0.0, 0.92)]
    count = int(rng.integers(2, 4))
    found = []
    for number, (x, z) in enumerate(places[:count]):
        size = rng.uniform([0.075, 0.085, 0.065], [0.115, 0.15, 0.095])
        color = rng.uniform(30, 225, 3)
        faces = []
        for face in range(6):
            v, u = (face // 2 + 2) % 3, (face // 2 + 1) % 3
            shape = (max(24, int(size[v] * 1400)), max(24, int(size[u] * 1400)))
            shade = (0.75, 1.0, 1.05, 0.7, 0.95, 0.85)[face]
            carton = texture.carton(rng, shape, color) * shade
            faces.append(np.clip(carton, 0, 255).astype(np.uint8))
        rest = _standing(x + rng.uniform(-0.03, 0.03), z + rng.uniform(-0.03, 0.03), size, rng)
        found.append(Box(f"box_{number}", size, faces, rest))
    return found


def _standing(x: float, z: float, size: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    yaw = float(rng.uniform(-0.6, 0.6))
    rotation = Rotation.from_rotvec([0, yaw, 0]).as_matrix()
    return pose(rotation, [x, TABLE_Y_M - size[1] / 2, z])


def _grasps(rng: np.random.Generator, boxes: list[Box], duration_s: float) -> list[Grasp]:
    """Each hand carries its nearest object once if there is time: the second overlaps a little."""
    order = [0, 1] if rng.random() < 0.5 else [1, 0]
    hold_s = min(3.2, max(0.9, 0.42 * duration_s))
    starts = [0.13 * duration_s + 0.5, 0.13 * duration_s + 0.5 + 0.62 * hold_s + 0.35]
    grasps = []
    for number, side in enumerate(order):
        start_s, end_s = starts[number], starts[number] + hold_s
        if number and end_s > duration_s - 0.3:
            continue
        box = boxes[side]
        shift = rng.uniform(0.06, 0.13) * (1 if side == 0 else -1) * (1 if number else -0.4)
        goal = box.rest.copy()
        goal[:3, 3] += [shift, 0.0, rng.uniform(-0.05, 0.09)]
        turn = rng.uniform(0.5, 1.0) * rng.choice([-1, 1])
        goal[:3, :3] = Rotation.from_rotvec([0, turn, 0]).as_matrix() @ goal[:3, :3]
        grasps.append(
            Grasp(side, side, start_s, end_s, goal, np.linalg.inv(box.rest) @ _grip(box, side))
        )
    return grasps


def _grip(box: Box, side: int) -> np.ndarray:
    """world_from_hand that grips a standing box from its outer side, as one takes a cup."""
    sign = 1.0 if side else -1.0
    rotation = hand_axes(np.array([-0.30 * sign, 0.10, 1.0]), np.array([0.8 * sign, -0.75, 0.0]))
    offset = [(box.size_m[0] / 2 + 0.028) * sign, -0.2 * box.size_m[1], -0.085]
    return pose(rotation, box.rest[:3, 3] + np.array(offset))
