"""Depth networks on tiny random checkpoints: metres, batches, and checkpoints that are not one."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from ego_assets.models import registry
from ego_assets.models.batching import MicroBatcher
from ego_assets.models.weights import WeightsError, WeightsMissingError
from ego_assets.operator import MetricDepth
from ego_assets.scene.depth import DepthAnything, DepthPro, load_depth_model
from ego_assets.scene.settings import DepthAnythingSettings, DepthProSettings
from tests.models.tiny_models import Tattletale, tiny_depth_anything, tiny_depth_pro

pytestmark = pytest.mark.usefixtures("one_thread")

MADE = {"depth_pro": tiny_depth_pro, "depth_anything": tiny_depth_anything}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("weights")
    for name, make in MADE.items():
        make(root / name)
    return root


@pytest.fixture(scope="module")
def pro(weights: Path) -> DepthPro:
    return DepthPro(DepthProSettings(checkpoint="depth_pro"), weights)


@pytest.fixture(scope="module")
def anything(weights: Path) -> DepthAnything:
    return DepthAnything(DepthAnythingSettings(checkpoint="depth_anything"), weights)


def noise(seed: int, size: tuple[int, int] = (54, 96)) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3)).astype(np.uint8)
    rows = np.arange(size[0]) * 6 // size[0]
    return coarse[rows][:, np.arange(size[1]) * 8 // size[1]]


def test_depth_anything_sees_metres_within_its_range(anything: DepthAnything) -> None:
    (depth,) = anything([noise(0)], 0.8)
    assert depth.shape == (56, 98), "the shorter side is the network's, in whole patches"
    assert depth.min() > 0
    assert depth.max() < 20
    assert np.ptp(depth) > 0.1, "it looks at nothing"
    (same,) = anything([noise(0)], None)
    assert np.array_equal(depth, same), "it knows nothing of lenses"


@pytest.mark.parametrize(
    ("picture", "wanted"),
    [((1080, 1920), (518, 924)), ((480, 640), (518, 686)), ((1920, 1080), (924, 518))],
)
def test_depth_anything_is_shown_what_its_authors_show_it(
    picture: tuple[int, int], wanted: tuple[int, int]
) -> None:
    network = DepthAnything.__new__(DepthAnything)
    config = SimpleNamespace(patch_size=14, backbone_config=SimpleNamespace(image_size=518))
    network.model = SimpleNamespace(config=config)
    assert network.size(*picture) == wanted


def test_depth_pro_is_in_metres_of_the_real_lens(pro: DepthPro) -> None:
    """Canonical inverse depth C: depth = focal length / (width C)."""
    import torch

    (near,), (far,) = pro([noise(0)], 0.5), pro([noise(0)], 1.0)
    assert near.shape == (256, 256)
    assert np.ptp(near) > 0.1, "it looks at nothing"
    assert np.allclose(far, 2 * near)
    pixels = torch.from_numpy(noise(0)).permute(2, 0, 1)[None].float() / 255
    shown = torch.nn.functional.interpolate((pixels - 0.5) / 0.5, (128, 128), mode="bilinear")
    with torch.inference_mode():
        seen = pro.model(pixel_values=shown)
    assert np.allclose(near, 0.5 / seen.predicted_depth[0].numpy(), rtol=1e-5)
    # A lens that nobody knows: the network's own view of it, degrees along the width.
    focal = 0.5 / np.tan(np.radians(seen.field_of_view.item()) / 2)
    assert focal == pytest.approx(0.866, abs=0.02)  # 60 degrees
    assert np.allclose(pro([noise(0)], None)[0], 2 * focal * near, rtol=1e-4)


def test_results_do_not_depend_on_the_batch(pro: DepthPro, anything: DepthAnything) -> None:
    """Batched convolutions round otherwise: within 1e-4 of the depth. Sizes may be mixed."""
    sizes = [(54, 96), (96, 54), (54, 96), (60, 80), (96, 54)]
    asked = [(noise(i, size), 0.5 + 0.1 * i) for i, size in enumerate(sizes)]
    for network in (pro, anything):
        together = network.see(asked)
        for one, found in zip(asked, together, strict=True):
            (alone,) = network.see([one])
            assert alone.shape == found.shape
            assert np.allclose(alone, found, rtol=1e-4)
        assert not np.allclose(together[0], together[2], rtol=1e-2)


def test_who_asks_alone_waits_for_nobody(
    anything: DepthAnything, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FoundationPose asks for one picture at a time: there is nobody to share a batch with."""

    def waits(*_: Any) -> Any:
        raise AssertionError("it waits for company")

    monkeypatch.setattr(MicroBatcher, "__call__", waits)
    assert len(anything([noise(0)], None)) == 1


# -- checkpoints that are none ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["pycolmap_depth_pro", "pycolmap_depth_anything"])
def test_nothing_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsMissingError, match=r"model\.safetensors.*EGO_WEIGHTS"):
        registry.build("reconstructor", name, {}, str(tmp_path))


@pytest.mark.parametrize("kind", MADE)
def test_a_file_that_is_cut_off(tmp_path: Path, kind: str) -> None:
    file = MADE[kind](tmp_path / "x") / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(WeightsError, match=f"cannot be read as {kind} weights"):
        load_depth_model(file.parent, kind)


def test_another_architecture(weights: Path) -> None:
    with pytest.raises(WeightsError, match="holds a depth_anything, not a depth_pro model"):
        load_depth_model(weights / "depth_anything", "depth_pro")


def test_relative_depth_has_no_metres(tmp_path: Path) -> None:
    folder = tiny_depth_anything(tmp_path / "x", depth_estimation_type="relative", max_depth=1)
    with pytest.raises(WeightsError, match="sees relative depth, which has no metres"):
        load_depth_model(folder, "depth_anything")


@pytest.mark.parametrize("kind", MADE)
def test_weights_that_are_missing_inside(tmp_path: Path, kind: str) -> None:
    from safetensors.torch import load_file, save_file

    file = MADE[kind](tmp_path / "x") / "model.safetensors"
    state: dict[str, Any] = load_file(file)
    name = next(n for n in sorted(state) if n.startswith("head."))
    del state[name]
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=f"1 weights .*{name}"):
        load_depth_model(file.parent, kind)


def test_a_network_of_other_sizes(tmp_path: Path) -> None:
    folder = tiny_depth_anything(tmp_path / "x")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"head_hidden_size": 9}))
    with pytest.raises(WeightsError, match=r"depth_anything"):
        load_depth_model(folder, "depth_anything")


@pytest.mark.parametrize("kind", MADE)
def test_a_pickle_is_not_even_opened(tmp_path: Path, kind: str) -> None:
    folder, told = MADE[kind](tmp_path / "x"), tmp_path / "told"
    hostile = pickle.dumps(Tattletale(told))
    (folder / "model.safetensors").write_bytes(hostile)
    with pytest.raises(WeightsError):
        load_depth_model(folder, kind)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(hostile)
    with pytest.raises(WeightsError):
        load_depth_model(folder, kind)
    assert not told.exists()


def configured(folder: Path, **changes: Any) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {"transformers_weights": "other.safetensors"},
        {"quantization_config": {"quant_method": "nonsense"}},
    ],
)
def test_a_configuration_that_leads_to_other_weights(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    """Else what runs is not what was hashed."""
    folder = configured(tiny_depth_anything(tmp_path / "x"), **changes)
    other = tiny_depth_anything(tmp_path / "other", seed=1) / "model.safetensors"
    other.rename(folder / "other.safetensors")
    with pytest.raises(WeightsError, match=f"has {next(iter(changes))}: only plain weights"):
        load_depth_model(folder, "depth_anything")


def test_code_that_a_configuration_names_is_not_asked_for(tmp_path: Path) -> None:
    """With the package `kernels`, transformers would fetch and run that repository."""
    folder = tiny_depth_anything(tmp_path / "x")
    plain = load_depth_model(folder, "depth_anything").config._attn_implementation
    backbone = json.loads((folder / "config.json").read_text())["backbone_config"]
    backbone["_attn_implementation"] = "evil/kernel"
    configured(folder, attn_implementation="evil/kernel", backbone_config=backbone)
    config = load_depth_model(folder, "depth_anything").config
    assert config._attn_implementation == plain != "evil/kernel"
    assert config.backbone_config._attn_implementation != "evil/kernel"


def test_a_network_is_a_source_of_depth_for_other_backends(weights: Path, tmp_path: Path) -> None:
    """Built of a dict, as `MetricDepth` is; its identity is that of its weights."""
    chosen = {"checkpoint": "depth_anything"}
    source: MetricDepth = DepthAnything(chosen, weights)
    (depth,) = source([np.zeros((48, 64, 3), np.uint8)], 0.8)
    assert depth.shape[1] / depth.shape[0] == pytest.approx(64 / 48, rel=0.1)
    tiny_depth_anything(tmp_path / "depth_anything", seed=1)
    same, other = (DepthAnything.identity(chosen, w) for w in (weights, tmp_path))
    assert same.startswith("depth_anything ")
    assert same != other
    with pytest.raises(ValidationError, match="colour"):
        DepthAnything({"colour": "red"}, weights)
