"""HaMeR and MANO: layout, geometry, mirror images, and files that are not theirs."""

from __future__ import annotations

import copy
import pickle
import re
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from ego_assets.catalog import TABLES
from ego_assets.hands.hamer.checkpoint import CHECKPOINT, read_checkpoint
from ego_assets.hands.hamer.crops import Crop
from ego_assets.hands.hamer.estimator import MANO, HamerEstimator
from ego_assets.hands.hamer.network import HamerNetwork, Shape
from ego_assets.hands.mano import CONTRACT_ORDER, FINGERTIPS, ManoHand, read_mano
from ego_assets.hands.settings import HamerSettings
from ego_assets.models.weights import WeightsError
from ego_assets.operator import ClipInput, Frame, Intrinsics
from ego_assets.vision.cameras import project_points
from ego_assets.vision.rle import encode_mask, mask_box
from tests.models.tiny_models import TINY_HAMER, Tattletale, tiny_hamer, tiny_mano

LAYOUT = Path(__file__).resolve().parents[1] / "golden" / "hamer_layout.txt"
SIZE = (120, 160)
PINHOLE = Intrinsics("PINHOLE", 150.0, 150.0, (SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2)
LENS = Intrinsics("OPENCV", 150.0, 150.0, 83.0, 57.0, (-0.12, 0.02, 0.001, -0.002))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_hamer(tmp_path_factory.mktemp("weights") / "tiny")


@pytest.fixture(scope="module")
def estimator(folder: Path) -> HamerEstimator:
    return HamerEstimator(HamerSettings(checkpoint="tiny"), folder.parent)


class Picture:
    """One picture, over and over."""

    height, width = SIZE

    def __init__(self, image: np.ndarray) -> None:
        self.image = image

    def read(self, *, max_side_px: int | None = None, indices: Any = ()) -> Any:
        for index in indices:
            yield Frame(index, index / 10, self.image, 1.0)


NO_MASK = {"height_px": SIZE[0], "width_px": SIZE[1], "rle": encode_mask(np.zeros(SIZE, bool))}
"""Of hands whose box alone counts."""


def clip_of(
    image: np.ndarray, hands: list[tuple[int, str, list[float]]], camera: Intrinsics = PINHOLE
) -> ClipInput:
    """A clip whose masks are (frame, side, box) of `hands`."""
    clip = {"video_id": "v", "shard": "s", "clip_id": "v-0", "take_id": "t"}
    found = ClipInput(
        clip | {"start_frame": 0, "end_frame": 99, "context_frames": 0},
        {},
        Picture(image),
        camera,
    )
    rows = [
        found.row(frame, frame / 10)
        | {"track_id": f"t-h{i:03d}", "side": side, "box": box, "score": 0.9}
        | NO_MASK
        | {"is_wearer": True}
        for i, (frame, side, box) in enumerate(hands)
    ]
    return replace(found, tables={"hand_masks": pa.Table.from_pylist(rows)})


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (*SIZE, 3)).astype(np.uint8)


# -- the network -----------------------------------------------------------------------------


def test_the_layout_is_the_official_one() -> None:
    official: dict[str, tuple[int, ...]] = {}
    for line in LAYOUT.read_text().splitlines():
        name, *shape = line.split()
        found = re.search(r"\{(\d+)-(\d+)\}", name)
        first, last = (int(v) for v in found.groups()) if found else (0, 0)
        for block in range(first, last + 1):
            official[re.sub(r"\{.*\}", str(block), name)] = tuple(int(v) for v in shape)
    assert Shape().layout() == official
    assert sum(int(np.prod(s)) for s in official.values()) == pytest.approx(670e6, rel=0.01)


def test_the_encoder_is_a_standard_one(folder: Path) -> None:
    """Against torch's own transformer layers with the same weights."""
    import torch

    shape, weights = read_checkpoint(folder)
    network = HamerNetwork(shape, weights, torch.device("cpu"))
    crops = torch.randn(2, 3, shape.side, shape.side)
    patches = torch.nn.functional.conv2d(
        crops[..., 8:-8],
        weights["backbone.patch_embed.proj.weight"],
        weights["backbone.patch_embed.proj.bias"],
        stride=16,
        padding=2,
    )
    x = patches.flatten(2).mT
    assert x.shape == (2, 12, 32)
    x = x + weights["backbone.pos_embed"][:, 1:] + weights["backbone.pos_embed"][:, :1]
    names = {
        "norm1": "norm1",
        "norm2": "norm2",
        "linear1": "mlp.fc1",
        "linear2": "mlp.fc2",
        "self_attn.out_proj": "attn.proj",
    }
    for block in range(shape.depth):
        layer = torch.nn.TransformerEncoderLayer(
            32, 2, 128, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True
        )
        prefix = f"backbone.blocks.{block}"
        state = {
            f"{ours}.{kind}": weights[f"{prefix}.{theirs}.{kind}"]
            for ours, theirs in names.items()
            for kind in ("weight", "bias")
        }
        for kind in ("weight", "bias"):
            state[f"self_attn.in_proj_{kind}"] = weights[f"{prefix}.attn.qkv.{kind}"]
        layer.load_state_dict(state)
        x = layer.eval()(x)
    ends = (weights["backbone.last_norm.weight"], weights["backbone.last_norm.bias"])
    x = torch.nn.functional.layer_norm(x, (32,), *ends, 1e-6)
    assert torch.allclose(network._encode(crops), x, atol=1e-4)


def test_results_do_not_depend_on_the_batch(folder: Path, estimator: HamerEstimator) -> None:
    hands = [(f, s, [20.0 + f, 30, 80, 90]) for f in range(4) for s in ("left", "right")]
    clip = clip_of(noise(), hands)
    alone = HamerEstimator(HamerSettings(checkpoint="tiny", crops_per_batch=1), folder.parent)
    one, many = (e.process(clip, None).tables["hand_poses"] for e in (alone, estimator))
    assert len(one) == len(many) == 8
    for a, b in zip(one, many, strict=True):
        assert a["track_id"] == b["track_id"]
        assert np.allclose(a["joints_camera_m"], b["joints_camera_m"], atol=1e-5)
    spread = np.ptp([r["joints_camera_m"] for r in many if r["side"] == "left"], axis=0)
    assert spread.max() > 1e-3, "the network looks at nothing"


# -- geometry --------------------------------------------------------------------------------


def test_rows_fit_the_contract(estimator: HamerEstimator) -> None:
    clip = clip_of(noise(), [(0, "left", [20, 30, 80, 90]), (3, "right", [90, 30, 150, 90])])
    rows = estimator.process(clip, None).tables["hand_poses"]
    assert TABLES["hand_poses"].from_rows(rows).num_rows == 2
    assert {(r["backend"], r["quality_tier"]) for r in rows} == {("hamer", "reference")}
    for row in rows:
        assert row["camera_from_hand_m"] == row["joints_camera_m"][0]
        turns = Rotation.from_rotvec(np.reshape(row["mano_pose"], (16, 3))).as_matrix()
        assert np.allclose(np.linalg.det(turns), 1)


def test_a_mirrored_picture_gives_the_mirrored_hand(estimator: HamerEstimator) -> None:
    image, width = noise(), SIZE[1]
    box = [30.0, 20.0, 90.0, 85.0]
    mirrored_box = [width - box[2], box[1], width - box[0], box[3]]
    (right,) = estimator.process(clip_of(image, [(0, "right", box)]), None).tables["hand_poses"]
    mirror = clip_of(np.ascontiguousarray(image[:, ::-1]), [(0, "left", mirrored_box)])
    (left,) = estimator.process(mirror, None).tables["hand_poses"]
    joints = np.array(right["joints_camera_m"]) * (-1, 1, 1)
    assert np.allclose(left["joints_camera_m"], joints, atol=1e-4)
    assert np.allclose(
        np.reshape(left["mano_pose"], (16, 3)),
        np.reshape(right["mano_pose"], (16, 3)) * (1, -1, -1),
        atol=1e-3,
    )
    # What the mirrored parameters mean: the mirrored rotation.
    turn = Rotation.from_rotvec(right["mano_pose"][:3]).as_matrix()
    flip = np.diag([-1.0, 1, 1])
    wanted = Rotation.from_matrix(flip @ turn @ flip).as_matrix()
    assert np.allclose(Rotation.from_rotvec(left["mano_pose"][:3]).as_matrix(), wanted, atol=1e-3)


@pytest.mark.parametrize("camera", [PINHOLE, LENS])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_known_hand_comes_back(folder: Path, camera: Intrinsics, side: str) -> None:
    """A hand of known MANO parameters, somewhere: its joints, in 3D and in the picture."""
    import torch

    estimator = HamerEstimator(HamerSettings(checkpoint="tiny"), folder.parent)
    rng = np.random.default_rng(1)
    turns = Rotation.from_rotvec(rng.normal(0, 0.4, (16, 3))).as_matrix()[None]
    rotations = torch.tensor(turns, dtype=torch.float32)
    betas = torch.tensor(rng.normal(0, 1, (1, 10)), dtype=torch.float32)
    joints = estimator.mano.pose(rotations, betas)[1][0].numpy().astype(float)
    flip = np.array([-1.0 if side == "left" else 1.0, 1, 1])
    place = np.array([0.06, -0.03, 0.5])
    wanted = joints * flip + place
    pixels = project_points(camera, wanted)
    box = [*pixels.min(0).tolist(), *pixels.max(0).tolist()]
    crop = Crop.around(box, side == "left")
    # What the network would have to say of this crop:
    scale = 2 * camera.fx / (crop.side * place[2])
    middle = crop.translation(np.array([scale, 0, 0]), camera)
    offset = (place - middle) * flip
    said = torch.tensor([[scale, offset[0], offset[1]]], dtype=torch.float32)
    shape = estimator.network.shape

    class Said:
        def __init__(self) -> None:
            self.shape = shape

        def __call__(self, crops: Any) -> Any:
            return rotations, betas, said

    estimator.network = Said()  # type: ignore[assignment]
    (row,) = estimator.process(clip_of(noise(), [(0, side, box)], camera), None).tables[
        "hand_poses"
    ]
    assert np.allclose(row["joints_camera_m"], wanted, atol=1e-5)
    assert np.allclose(row["joints_px"], pixels, atol=1e-2)
    assert row["is_valid"], row["invalid_reason"]


def test_a_crop_shows_what_its_camera_says(estimator: HamerEstimator) -> None:
    """The centre of the box is in the middle of the crop, and a left hand's thumb side flips."""
    image = np.zeros((*SIZE, 3), np.uint8)
    image[50:53, 70:73] = 255  # around pixel centre (71, 51)
    image[50:53, 80:83, 0] = 255
    for is_left in (False, True):
        crop = Crop.around([61.5, 41.5, 81.5, 61.5], is_left)
        cut = crop.cut(image, 64)
        rows, columns = np.nonzero(cut[..., 1] > 128)
        assert (rows.mean(), columns.mean()) == pytest.approx((32, 32), abs=0.6)
        red = np.nonzero((cut[..., 0] > 128) & (cut[..., 1] < 128))[1].mean()
        assert (red < 32) == is_left


def shrunk(image: np.ndarray, crop: Crop) -> np.ndarray:
    """What the official code makes of a picture once it is blurred."""
    zoom, flip, (x, y) = 64 / crop.side, -1 if crop.is_left else 1, crop.centre
    move = np.array([[flip * zoom, 0, 32 - flip * zoom * x], [0, zoom, 32 - zoom * y]])
    return cv2.warpAffine(image, move, (64, 64), flags=cv2.INTER_LINEAR)


def test_a_forearm_is_no_part_of_the_crop(estimator: HamerEstimator) -> None:
    """The network was trained on crops of hands: with an arm in it, the hand is small and aside."""
    mask = np.zeros(SIZE, np.uint8)
    cv2.ellipse(mask, (80, 30), (14, 22), 0, 0, 360, 1, -1)  # a hand, and the arm below it
    hand = mask_box(mask > 0)
    mask[45:120, 72:89] = 1
    clip = clip_of(noise(), [(0, "right", mask_box(mask > 0) or [])])
    row = clip.tables["hand_masks"].to_pylist()[0] | {"rle": encode_mask(mask > 0)}
    (found,) = estimator._crops(clip, [row], {"t-h000": {"right": 1.0}})
    assert hand is not None
    assert np.allclose(found[1].centre, Crop.around(hand, False).centre, atol=4)
    assert found[1].side < 1.3 * Crop.around(hand, False).side
    assert found[1].side < 0.6 * Crop.around(row["box"], False).side


@pytest.mark.parametrize("is_left", [False, True])
@pytest.mark.parametrize(
    "box", [[100, 40, 220, 200], [0, 0, 90, 150], [280, 150, 400, 300]], ids=str
)
def test_a_large_hand_is_blurred_before_it_is_shrunk(box: list[float], is_left: bool) -> None:
    """As scikit-image's `gaussian` blurs the whole picture: over four sigma, borders repeated."""
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3)).astype(np.uint8)
    crop = Crop.around(box, is_left)
    sigma = (crop.side / 64 / 2 - 1) / 2
    smooth = gaussian_filter(image.astype(np.float64), (sigma, sigma, 0), mode="nearest")
    wanted = shrunk(smooth, crop)
    # Bytes are interpolated at 32 places a pixel, and rounded.
    assert np.abs(crop.cut(image, 64) - wanted).mean() < 0.6
    assert np.abs(shrunk(image, crop) - wanted).mean() > 4


def test_a_hand_that_is_shrunk_by_little_is_not_blurred() -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3)).astype(np.uint8)
    crop = Crop.around([150, 60, 200, 130], False)
    assert crop.side / 64 / 2 == pytest.approx(1.09375)
    np.testing.assert_array_equal(crop.cut(image, 64), shrunk(image, crop))
    outside = Crop((-900.0, 50.0), 300.0, False)
    assert not outside.cut(image, 64).any()


def test_a_hand_that_is_not_at_its_mask_is_invalid(estimator: HamerEstimator) -> None:
    clip = clip_of(noise(), [(0, "right", [20, 30, 80, 90])])
    network = estimator.network
    far = replace(clip.intrinsics, fx=3000.0, fy=3000.0)
    (row,) = estimator.process(replace(clip, intrinsics=far), None).tables["hand_poses"]
    assert not row["is_valid"]
    assert row["invalid_reason"] == "out of reach"
    assert network.shape == Shape.of(TINY_HAMER)


# -- MANO ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hand(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, np.ndarray], Any]:
    path = tmp_path_factory.mktemp("mano") / "MANO_RIGHT.pkl"
    arrays = tiny_mano(path, seed=3)
    read = read_mano(path)
    for name, wanted in arrays.items():
        assert np.array_equal(read[name], wanted), name
    import torch

    return arrays, ManoHand.of(read, torch.device("cpu"))


def test_a_posed_hand_is_what_its_bones_make_of_it(hand: tuple[dict[str, np.ndarray], Any]) -> None:
    """Against 4 × 4 matrices, vertex by vertex."""
    import torch

    arrays, mano = hand
    rng = np.random.default_rng(0)
    turns = Rotation.from_rotvec(rng.normal(0, 0.7, (16, 3))).as_matrix()
    betas = rng.normal(size=10)
    shaped = arrays["v_template"] + arrays["shapedirs"] @ betas
    rest = arrays["J_regressor"] @ shaped
    posed = shaped + arrays["posedirs"] @ (turns[1:] - np.eye(3)).ravel()
    parents = arrays["kintree_table"][0].astype(np.int64)
    world: list[np.ndarray] = []
    for joint in range(16):
        local = np.eye(4)
        local[:3, :3] = turns[joint]
        local[:3, 3] = rest[joint] - (rest[parents[joint]] if joint else 0)
        world.append(world[parents[joint]] @ local if joint else local)
    vertices = np.zeros((778, 3))
    for vertex in range(778):
        for joint in range(16):
            point = np.append(posed[vertex] - rest[joint], 1)
            vertices[vertex] += arrays["weights"][vertex, joint] * (world[joint] @ point)[:3]
    joints = np.concatenate([[m[:3, 3] for m in world], vertices[list(FINGERTIPS)]])
    found, order = mano.pose(
        torch.tensor(turns[None], dtype=torch.float32),
        torch.tensor(betas[None], dtype=torch.float32),
    )
    assert np.allclose(found[0], vertices, atol=1e-5)
    assert np.allclose(order[0], joints[list(CONTRACT_ORDER)], atol=1e-5)


# -- files that are not theirs ---------------------------------------------------------------


def test_training_settings_beside_the_weights_are_no_matter(folder: Path) -> None:
    """Lightning stores a yacs node, which is not installed: it is read as nothing."""
    assert b"yacs.config" in (folder / CHECKPOINT).read_bytes()
    shape, weights = read_checkpoint(folder)
    assert weights.keys() == shape.layout().keys()


def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path) -> None:
    told = tmp_path / "told"
    folder = tiny_hamer(tmp_path / "x", callbacks=Tattletale(told))
    with pytest.raises(WeightsError, match="do not trust this file"):
        read_checkpoint(folder)
    assert not told.exists()


def test_a_hand_that_runs_code_is_refused(tmp_path: Path) -> None:
    path, told = tmp_path / "MANO_RIGHT.pkl", tmp_path / "told"
    path.write_bytes(pickle.dumps({"v_template": Tattletale(told)}))
    with pytest.raises(WeightsError, match="which no hand needs"):
        read_mano(path)
    assert not told.exists()


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("IMAGE_SIZE", "64", "sizes that are none"),
        ("IMAGE_STD", [0.2, 0.2, 0], "deviation"),
        ("IMAGE_MEAN", ["red", 0, 0], "could not convert"),
        ("BACKBONE.NUM_HEADS", 3, "3 heads do not share 32 channels"),
        ("BACKBONE.TYPE", "resnet", "only 'vit' is built here"),
        ("MANO_HEAD.TRANSFORMER_INPUT", "mean_shape", "only 'zero' is built here"),
        ("MANO_HEAD.IEF_ITERS", 3, "only 1 is built here"),
        ("MANO_HEAD.TRANSFORMER_DECODER.depth", 10**9, "sizes that are none"),
    ],
)
def test_a_configuration_of_another_network_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, place: str, value: Any, words: str
) -> None:
    config: dict[str, Any] = copy.deepcopy(TINY_HAMER)
    *parts, name = f"MODEL.{place}".split(".")
    reduce(dict.__getitem__, parts, config)[name] = value
    monkeypatch.setattr("yaml.safe_load", lambda _: config)
    with pytest.raises(WeightsError, match=words):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (lambda _: "text", "cannot be read as a HaMeR checkpoint"),
        (lambda v: v * float("nan"), "last_norm.weight has what is no number"),
        (lambda v: v.char(), "last_norm.weight has what is no number"),
        (lambda v: v.to_sparse(), "last_norm.weight has what is no number"),
    ],
)
def test_weights_that_are_no_numbers(tmp_path: Path, broken: Any, words: str) -> None:
    import torch

    folder = tiny_hamer(tmp_path / "x")
    state = {k: v.clone() for k, v in read_checkpoint(folder)[1].items()}
    state["backbone.last_norm.weight"] = broken(state["backbone.last_norm.weight"])
    torch.save({"state_dict": state}, folder / CHECKPOINT)
    with pytest.raises(WeightsError, match=words):
        read_checkpoint(folder)


def test_a_hand_that_is_none_or_the_left_one(tmp_path: Path) -> None:
    whole = tiny_mano(tmp_path / "whole.pkl")
    tree = whole["kintree_table"].copy()
    tree[0, 3] = 9
    for changed, words in (
        ({"v_template": whole["v_template"] * (-1, 1, 1)}, "is a left hand"),
        ({"v_template": whole["v_template"] * np.nan}, "v_template has what is no number"),
        ({"weights": np.full((778, 16), "a")}, "weights has what is no number"),
        ({"kintree_table": tree}, "bones hang together otherwise"),
    ):
        path = tmp_path / "MANO_RIGHT.pkl"
        path.write_bytes(pickle.dumps(whole | changed))
        with pytest.raises(WeightsError, match=words):
            read_mano(path)


def test_files_that_are_cut_off(tmp_path: Path) -> None:
    folder = tiny_hamer(tmp_path / "x")
    for name in (CHECKPOINT, MANO):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="cannot be read as a HaMeR checkpoint"):
        read_checkpoint(folder)
    with pytest.raises(WeightsError, match="cannot be read as a MANO hand"):
        read_mano(folder / MANO)


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_another_network_is_refused(tmp_path: Path, change: str) -> None:
    import torch

    folder = tiny_hamer(tmp_path / "x")
    _, state = read_checkpoint(folder)
    name = "mano_head.decpose.bias"
    if change == "missing":
        del state[name]
    elif change == "unknown":
        state["backbone.cls_token"] = torch.zeros(1)
    else:
        state[name] = torch.zeros(7)
    state = {k: v.clone() for k, v in state.items()}
    torch.save({"state_dict": state}, folder / CHECKPOINT)
    named = "backbone.cls_token" if change == "unknown" else name
    with pytest.raises(WeightsError, match=rf"1 weights differ, the first: {named}"):
        read_checkpoint(folder)


# -- takes -----------------------------------------------------------------------------------


class Spoken:
    """A network that says what it is told to, crop after crop."""

    def __init__(self, shape: Shape, rotations: Any, betas: Any, cameras: Any) -> None:
        self.shape, self.values, self.said = shape, (rotations, betas, cameras), 0

    def __call__(self, crops: Any) -> Any:
        import torch

        part = slice(self.said, self.said + len(crops))
        self.said = part.stop
        return tuple(torch.tensor(v[part], dtype=torch.float32) for v in self.values)


BOX = [60.0, 40.0, 100.0, 80.0]
TAKE = 40


def shaky(estimator: HamerEstimator, noise: float, hands: int = 1) -> Spoken:
    """A hand that moves evenly, told with noise: rotations in radians, shapes, the camera."""
    rng = np.random.default_rng(5)
    count = TAKE * hands
    steps = np.repeat(np.arange(TAKE), hands) / 10
    turns = Rotation.from_rotvec(np.outer(steps, [0.3, -0.4, 0.2])).as_matrix()
    rotations = np.repeat(turns[:, None], 16, axis=1)
    shake = Rotation.from_rotvec(rng.normal(0, noise, (count * 16, 3))).as_matrix()
    rotations = rotations @ shake.reshape(count, 16, 3, 3)
    betas = np.tile(np.linspace(-1, 1, 10), (count, 1)) + rng.normal(0, 10 * noise, (count, 10))
    cameras = np.array([[6.0, 0.05, 0.0]]) * (1 + rng.normal(0, noise, (count, 3)))
    return Spoken(estimator.network.shape, rotations, betas, cameras)


def take_of(frames: range, hands: list[tuple[str, bool]], context: int = 0) -> ClipInput:
    """A clip with a hand of (side, is_wearer) each, the same in every frame."""
    clip = clip_of(noise(), [])
    row = dict(clip.clip) | {"start_frame": frames[0], "context_frames": context}
    clip = replace(clip, clip=row)
    rows = [
        clip.row(f, f / 30)
        | {"track_id": f"t-h{i:03d}", "side": side, "box": BOX, "score": 0.9}
        | NO_MASK
        | {"is_wearer": wearer}
        for f in frames
        for i, (side, wearer) in enumerate(hands)
    ]
    return replace(clip, tables={"hand_masks": pa.Table.from_pylist(rows)})


def bones(rows: list[dict[str, Any]]) -> np.ndarray:
    joints = np.array([r["joints_camera_m"] for r in rows])
    ends = [(0, 4 * f + 1) for f in range(5)] + [
        (4 * f + k, 4 * f + k + 1) for f in range(5) for k in (1, 2, 3)
    ]
    lengths = np.linalg.norm(
        joints[:, [b for _, b in ends]] - joints[:, [a for a, _ in ends]], axis=-1
    )
    # The last bones end in vertices of the skin, which bends: the skeleton's are the others.
    return np.delete(lengths, [7, 10, 13, 16, 19], axis=1)


@pytest.fixture
def own(folder: Path) -> HamerEstimator:
    """With a network of its own to replace."""
    return HamerEstimator(HamerSettings(checkpoint="tiny"), folder.parent)


def test_bones_keep_their_lengths_through_a_take(own: HamerEstimator) -> None:
    """Over two clips, both hands of the wearer; another's hand has lengths of its own."""
    hands = [("right", True), ("left", True), ("right", False)]
    own.network = shaky(own, 0.1, hands=3)  # type: ignore[assignment]
    first = own.process(take_of(range(24), hands), None)
    second = own.process(take_of(range(20, 34), hands, context=4), first.carried)
    rows = first.tables["hand_poses"] + second.tables["hand_poses"]
    wearers = bones([r for r in rows if r["track_id"] != "t-h002"])
    assert len(wearers) == 2 * 38
    assert np.ptp(wearers, axis=0).max() < 1e-6
    other = bones([r for r in rows if r["track_id"] == "t-h002"])
    assert np.ptp(other, axis=0).max() < 1e-6
    assert np.abs(other[0] - wearers[0]).max() > 1e-4
    shapes = {tuple(r["mano_betas"]) for r in rows}
    assert len(shapes) == 2


def test_shape_is_robust(own: HamerEstimator) -> None:
    own.network = network = shaky(own, 0.0)  # type: ignore[assignment]
    network.values[1][:8] += 30
    rows = own.process(take_of(range(TAKE), [("right", True)]), None).tables["hand_poses"]
    assert np.allclose(rows[0]["mano_betas"], np.linspace(-1, 1, 10), atol=1e-6)


def test_an_even_motion_is_left_as_it_is(own: HamerEstimator) -> None:
    own.network = shaky(own, 0.0)  # type: ignore[assignment]
    clip = take_of(range(TAKE), [("left", True)])
    smooth = own.process(clip, None).tables["hand_poses"]
    own.network = shaky(own, 0.0)  # type: ignore[assignment]
    own.settings = HamerSettings(checkpoint="tiny", smoothing_s=0, depth_smoothing_s=0)
    plain = own.process(clip, None).tables["hand_poses"]
    for one, other in zip(smooth, plain, strict=True):
        assert np.allclose(one["joints_camera_m"], other["joints_camera_m"], atol=1e-4)
        assert np.allclose(one["mano_pose"], other["mano_pose"], atol=1e-4)


def test_jitter_goes_and_the_hand_stays_in_its_place(own: HamerEstimator) -> None:
    clip = take_of(range(TAKE), [("right", True)])
    found = {}
    for name, size, deviation in (("clean", 0.0, 0.0), ("shaky", 0.03, 0.0), ("calm", 0.03, 0.05)):
        own.network = shaky(own, size)  # type: ignore[assignment]
        own.settings = HamerSettings(
            checkpoint="tiny", smoothing_s=deviation, depth_smoothing_s=3 * deviation
        )
        rows = own.process(clip, None).tables["hand_poses"]
        assert all(r["is_valid"] for r in rows), rows[0]["invalid_reason"]
        found[name] = np.array([r["joints_camera_m"] for r in rows])

    def jitter(joints: np.ndarray) -> float:
        return float(np.sqrt(np.mean(np.diff(joints, n=2, axis=0) ** 2)))

    def error(joints: np.ndarray) -> float:
        return float(np.sqrt(np.mean((joints - found["clean"]) ** 2)))

    assert jitter(found["calm"]) < 0.4 * jitter(found["shaky"])
    assert error(found["calm"]) < 0.8 * error(found["shaky"])


def test_another_shape_looks_the_same_from_another_distance(own: HamerEstimator) -> None:
    """A frame in which the network sees a larger hand as near: one of the take's size is nearer."""
    own.settings = HamerSettings(checkpoint="tiny", smoothing_s=0, depth_smoothing_s=0)
    own.network = network = shaky(own, 0.0)  # type: ignore[assignment]
    bigger = own.mano.template[:, :, None] * 0.1  # the first of the betas is its size
    own.mano = replace(own.mano, shape_basis=bigger)
    network.values[0][:] = network.values[0][0]
    network.values[1][:] = 0
    network.values[1][3, 0] = 2.0  # 1.2 times
    rows = own.process(take_of(range(TAKE), [("right", True)]), None).tables["hand_poses"]
    before, here = (np.array(rows[i]["camera_from_hand_m"]) for i in (2, 3))
    assert here[2] / before[2] == pytest.approx(1 / 1.2, rel=0.02)
    sizes = [np.ptp(rows[i]["joints_px"], axis=0).max() for i in (2, 3)]
    assert sizes[1] / sizes[0] == pytest.approx(1.2, rel=0.05)


def test_a_track_has_one_side(own: HamerEstimator) -> None:
    """What most of its masks say, weighed by score; and what the clip before said counts on."""
    own.network = shaky(own, 0.0)  # type: ignore[assignment]
    clip = take_of(range(10), [("left", True)])
    rows = clip.tables["hand_masks"].to_pylist()
    for row in rows[:4]:
        row["side"] = "right"
    clip = replace(clip, tables={"hand_masks": pa.Table.from_pylist(rows)})
    first = own.process(clip, None)
    assert {r["side"] for r in first.tables["hand_poses"]} == {"left"}
    for row in rows:
        row["side"] = "right"
        row["frame_index"] += 8
    later = take_of(range(8, 10), [("left", True)], context=2)
    # Two frames of context and one that is new: too few to overrule.
    later = replace(later, tables={"hand_masks": pa.Table.from_pylist(rows[:3])})
    second = own.process(later, first.carried)
    assert {r["side"] for r in second.tables["hand_poses"]} == {"left"}
    assert second.carried["votes"]["t-h000"]["right"] == pytest.approx(5 * 0.9)
    alone = own.process(later, None)
    assert {r["side"] for r in alone.tables["hand_poses"]} == {"right"}
