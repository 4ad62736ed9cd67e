"""The MANO hand (Romero, Tzionas, Black, "Embodied Hands", SIGGRAPH Asia 2017): file and layer.

Here: reading MANO_RIGHT.pkl without running what it says, and posing the hand. Not here: the
file, which its licence lets everybody fetch only for themselves.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ego_assets.models.weights import WeightsError

FINGERTIPS = (744, 320, 443, 554, 671)
"""Vertices at the tips of thumb, index, middle, ring and little finger."""
CONTRACT_ORDER = (0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20)
"""Joints of the contract (fingers from thumb to little, palm to tip) in MANO's 16 (index, middle,
little, ring, thumb) followed by the tips."""
PARENTS = (0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
"""Of the joints but the wrist, in MANO's order."""
SHAPES = {
    "v_template": (778, 3),
    "shapedirs": (778, 3, 10),
    "posedirs": (778, 3, 135),
    "J_regressor": (16, 778),
    "weights": (778, 16),
    "kintree_table": (2, 16),
}


class _Inert:
    """Stands for an object of chumpy or scipy: keeps its state and does nothing."""

    def __init__(self, *args: Any) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Plain(pickle.Unpickler):
    """Builds arrays and inert objects; anything else ends the reading."""

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] in {"chumpy", "scipy"}:
            return _Inert
        if module.startswith("numpy") and name in {"ndarray", "dtype"}:
            return getattr(np, name)
        if module.startswith("numpy") and name == "_reconstruct":
            return np.zeros(0).__reduce__()[0]  # wherever this version of numpy keeps it
        if module.startswith("numpy") and name == "scalar":
            return np.float64(0).__reduce__()[0]
        if (module, name) == ("_codecs", "encode"):
            import codecs

            return codecs.encode
        if module in {"copy_reg", "copyreg"} and name == "_reconstructor":
            return lambda cls, *_: cls()
        if module in {"__builtin__", "builtins"} and name == "object":
            return object
        raise pickle.UnpicklingError(f"it wants {module}.{name}, which no hand needs")


def _array(value: Any) -> np.ndarray:
    """The numbers of what a MANO file holds: an array, chumpy's wrappers, scipy's sparse matrix."""
    if not isinstance(value, _Inert):
        return np.asarray(value)
    state = value.state
    if "x" in state:  # chumpy.Ch
        return _array(state["x"])
    if "idxs" in state:  # chumpy's Select: some elements of another, in a shape of their own
        chosen: np.ndarray = _array(state["a"]).ravel()[_array(state["idxs"])]
        return chosen.reshape(state["preferred_shape"])
    rows, columns = state.get("_shape") or state["shape"]  # scipy's csc_matrix
    dense = np.zeros((rows, columns))
    for column in range(columns):
        part = slice(state["indptr"][column], state["indptr"][column + 1])
        dense[state["indices"][part], column] = state["data"][part]
    return dense


def read_mano(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a MANO file, by its own names, in the shapes of SHAPES.

    Raises WeightsError for one that is cut off, not MANO's, or that would run code.
    """
    try:
        with path.open("rb") as file:
            held = _Plain(file, encoding="latin1").load()
        arrays = {name: _array(held[name]) for name in SHAPES}
    except Exception as error:  # a damaged pickle may fail in any way
        raise WeightsError(
            f"{path} cannot be read as a MANO hand: {type(error).__name__}: {error}"
        ) from error
    for name, shape in SHAPES.items():
        if arrays[name].shape != shape:
            raise WeightsError(f"{path}: {name} is {arrays[name].shape} and not {shape}")
        if arrays[name].dtype.kind not in "fiu" or not np.isfinite(arrays[name]).all():
            raise WeightsError(f"{path}: {name} has what is no number")
    if tuple(arrays["kintree_table"][0, 1:].tolist()) != PARENTS:
        raise WeightsError(f"{path}: its bones hang together otherwise than those of a hand")
    wrist, middle = (arrays["J_regressor"] @ arrays["v_template"])[[0, 4], 0]
    if middle > wrist:
        raise WeightsError(f"{path} is a left hand: MANO_RIGHT.pkl is needed, for both")
    return arrays


@dataclass(frozen=True)
class ManoHand:
    """A right hand as torch tensors; metres. A left hand is its mirror image."""

    template: Any
    shape_basis: Any
    pose_basis: Any
    joint_regressor: Any
    skinning: Any
    parents: tuple[int, ...]

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray], device: Any) -> ManoHand:
        import torch

        def tensor(name: str) -> Any:
            return torch.tensor(arrays[name], dtype=torch.float32, device=device)

        return cls(
            template=tensor("v_template"),
            shape_basis=tensor("shapedirs"),
            pose_basis=tensor("posedirs").reshape(-1, 135),
            joint_regressor=tensor("J_regressor"),
            skinning=tensor("weights"),
            parents=PARENTS,
        )

    def pose(self, rotations: Any, betas: Any) -> tuple[Any, Any]:
        """Vertices (B, 778, 3) and joints (B, 21, 3) in the contract's order, metres.

        rotations: (B, 16, 3, 3), global one first, each in the frame of its parent (no mean pose
        is added); betas: (B, 10). Linear blend skinning, as in SMPL (Loper et al. 2015).
        """
        import torch

        count = len(betas)
        shaped = self.template + torch.einsum("bk,vck->bvc", betas, self.shape_basis)
        rest = torch.einsum("jv,bvc->bjc", self.joint_regressor, shaped)
        bend = (rotations[:, 1:] - torch.eye(3, device=betas.device)).reshape(count, 135)
        posed = shaped + (bend @ self.pose_basis.T).reshape(count, -1, 3)
        turns, places = [rotations[:, 0]], [rest[:, 0]]
        for joint, parent in enumerate(self.parents, start=1):
            bone = (rest[:, joint] - rest[:, parent])[..., None]
            turns.append(turns[parent] @ rotations[:, joint])
            places.append(places[parent] + (turns[parent] @ bone)[..., 0])
        turn, place = torch.stack(turns, 1), torch.stack(places, 1)
        # Each vertex is moved by its bones, as if it hung on each of them, and averaged.
        shift = place - (turn @ rest[..., None])[..., 0]
        blended = torch.einsum("vj,bjmn->bvmn", self.skinning, turn)
        vertices = (blended @ posed[..., None])[..., 0] + torch.einsum(
            "vj,bjc->bvc", self.skinning, shift
        )
        joints = torch.cat([place, vertices[:, list(FINGERTIPS)]], dim=1)
        return vertices, joints[:, list(CONTRACT_ORDER)]
