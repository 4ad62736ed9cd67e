"""Models in the graph and in `ego doctor`: chosen by a line, hashed, refused when broken."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest
import yaml

from dagster_project import doctor
from dagster_project.definitions import build_defs
from ego_assets.graph.backends import Backends
from ego_assets.graph.partitions import SHARDS
from ego_assets.intake.shards import find_files, register_files
from ego_assets.models import registry, tuning
from ego_assets.models.choice import BackendsFileError, read_choice
from ego_assets.models.weights import hash_files
from resources.compute import Compute
from resources.lake import Lake
from resources.storage import Storage
from tests.models.tiny_models import (
    Tattletale,
    tiny_depth_anything,
    tiny_depth_pro,
    tiny_hamer,
    tiny_owlv2,
    tiny_sam2,
    tiny_sam3,
)
from tests.support.instances import dagster_instance
from tests.support.linked_weights import link_default_weights
from tests.support.rendered import render_sample

pytestmark = pytest.mark.usefixtures("one_thread", "packaged_weights")

SAM2_FOLDER, HAMER_FOLDER = "sam2.1-hiera-small", "hamer"
DEPTH_FOLDER = "Depth-Anything-V2-Metric-Indoor-Small-hf"
MODEL_TABLES = ("hand_poses", "scene_reconstruction")
SAM3_FOLDER, OWLV2_FOLDER = "sam3", "owlv2-base-patch16-ensemble"
MODELS = {"segmenter": "sam2", "hand_estimator": "hamer"}
CHECKED = [*MODELS.items(), ("segmenter", "sam3"), ("segmenter", "owlv2_sam2")]
MASKS = ("detections", "object_masks", "hand_masks")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dagster_instance(tmp_path) as found:
        yield found


def origin(lake: Lake, table: str, shard: str) -> dict[str, Any]:
    path = lake.root / table / f"{shard}.parquet"
    (found,) = json.loads(pq.read_schema(path).metadata[b"ego.provenance"])
    return found


class Graph:
    """A lake with one short video, and runs of parts of the graph over it."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance, duration_s: float = 1.0) -> None:
        self.instance = instance
        self.lake = Lake(folder / "lake")
        video = render_sample(folder / "raw", seed=6, duration_s=duration_s)
        (self.shard,) = register_files(self.lake, find_files([video]).files)
        instance.add_dynamic_partitions(SHARDS, [self.shard])

    def run(self, *tables: str, **backends: Any) -> dg.ExecuteInProcessResult:
        overrides = {
            "storage": Storage(lake_root=str(self.lake.root)),
            "compute": Compute(isolate=False, backoff_s=0.01),
            "backends": Backends(**backends),
        }
        return (
            build_defs(overrides)
            .resolve_job_def("whole_graph")
            .execute_in_process(
                partition_key=self.shard,
                instance=self.instance,
                asset_selection=[dg.AssetKey(t) for t in ("video_manifest", "clips", *tables)],
                raise_on_error=False,
            )
        )

    def done(self, table: str) -> int:
        event = self.instance.get_latest_materialization_event(dg.AssetKey(table))
        assert event is not None
        assert event.asset_materialization is not None
        return int(event.asset_materialization.metadata["done"].value)  # type: ignore[arg-type]


@pytest.mark.heavy
def test_the_graph_with_models(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    weights = tmp_path / "weights"
    link_default_weights(weights)
    tiny_sam2(weights / "mine")
    tiny_hamer(weights / HAMER_FOLDER)
    tiny_depth_anything(weights / DEPTH_FOLDER)
    graph = Graph(tmp_path, instance)
    lake, shard, done = graph.lake, graph.shard, graph.done

    def run(**backends: Any) -> dg.ExecuteInProcessResult:
        return graph.run(*MASKS, *MODEL_TABLES, **backends)

    chosen = MODELS | {
        "reconstructor": "pycolmap_depth_anything",
        "weights_dir": str(weights),
        "settings": {
            "segmenter": {"checkpoint": "mine", "prompt_interval_s": 0.5},
            "reconstructor": {"work_side_px": 240, "max_tracks": 100, "depth_frames": 2},
        },
    }
    assert run(**chosen).success
    for table in ("hand_masks", *MODEL_TABLES):
        rows = lake.read(table, shard).to_pylist()
        assert len(rows) > 20
        assert {r["quality_tier"] for r in rows} == {"reference"}
        assert len(origin(lake, table, shard)["weights_hash"]) == 64
    cameras = lake.read("scene_reconstruction", shard).to_pylist()
    assert {r["backend"] for r in cameras} == {"pycolmap_depth_anything"}
    assert {r["scale_kind"] for r in cameras if r["is_valid"]} <= {"metric", "arbitrary"}
    settings = json.loads(origin(lake, "hand_masks", shard)["settings"])
    assert settings["checkpoint"] == "mine"
    assert "work_side_px" in settings, "the asset's form reaches the model too"
    assert "side_px" not in json.loads(origin(lake, "hand_poses", shard)["settings"])
    # The same weights elsewhere: nothing to do. Other weights: done again.
    weights = weights.rename(tmp_path / "moved")
    assert run(**chosen | {"weights_dir": str(weights)}).success
    assert (done("hand_masks"), done("hand_poses")) == (0, 0)
    tiny_hamer(weights / HAMER_FOLDER, seed=1)
    assert run(**chosen | {"weights_dir": str(weights)}).success
    assert (done("hand_masks"), done("hand_poses")) == (0, 1)
    # Broken ones end the stage, and no clip is charged.
    file = weights / "mine" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    result = run(**chosen | {"weights_dir": str(weights)})
    assert not result.success
    failed = [e for e in result.all_events if e.is_step_failure]
    assert "cannot be read as SAM 2.1" in str([e.step_failure_data for e in failed])
    states = {e.state.value for e in Storage(lake_root=str(lake.root)).ledger().entries()}
    assert "quarantined" not in states


@pytest.mark.parametrize("name", ["sam3", "owlv2_sam2"])
def test_other_words_are_another_result(
    tmp_path: Path, instance: dg.DagsterInstance, name: str
) -> None:
    weights = tmp_path / "weights"
    link_default_weights(weights)
    tiny_sam3(weights / SAM3_FOLDER)
    tiny_sam2(weights / SAM2_FOLDER)
    tiny_owlv2(weights / OWLV2_FOLDER)
    graph = Graph(tmp_path, instance, duration_s=0.4)
    settings: dict[str, Any] = {"min_score": 0.3, "max_objects": 1}
    settings |= {"min_new_score": 0.4} if name == "sam3" else {}
    words = {"left hand": "left", "robot arm": "object"}

    def run() -> int:
        chosen = {"segmenter": settings | {"vocabulary": words}}
        result = graph.run(*MASKS, segmenter=name, weights_dir=str(weights), settings=chosen)
        assert result.success
        return graph.done("detections")

    assert run() == 1
    rows = graph.lake.read("detections", graph.shard).to_pylist()
    assert {r["label"] for r in rows} <= {"hand", "robot arm"}
    assert rows
    assert json.loads(origin(graph.lake, "detections", graph.shard)["settings"])[
        "vocabulary"
    ] == dict(words)
    if name == "sam3":  # the rest of the way is the same
        words["cup"] = "object"
        assert run() == 1, "done again"


def test_a_hash_is_of_the_bytes(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(name.encode())
    first = hash_files(tmp_path, ["a", "b"])
    assert hash_files(tmp_path, ["b", "a"]) == first
    assert len(json.loads((tmp_path / "cache/ego/hashes.json").read_text())) == 2
    (tmp_path / "a").write_bytes(b"other")
    assert hash_files(tmp_path, ["a", "b"]) != first


def test_a_known_hash_is_not_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"a")
    first = hash_files(tmp_path, ["a"])
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("read again"))
    assert hash_files(tmp_path, ["a"]) == first


@pytest.mark.parametrize("text", ["[]", "3", "{", '{"x": 1', "null"])
def test_a_memory_that_is_spoilt_is_begun_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "a").write_bytes(b"a")
    wanted = hash_files(tmp_path, ["a"])
    memory = tmp_path / "cache/ego/hashes.json"
    memory.write_text(text)
    assert hash_files(tmp_path, ["a"]) == wanted
    assert len(json.loads(memory.read_text())) == 1


def test_the_hash_enters_the_version(tmp_path: Path) -> None:
    tiny_hamer(tmp_path / HAMER_FOLDER)
    _, one = registry.version("hand_estimator", "hamer", {}, str(tmp_path))
    tiny_hamer(tmp_path / HAMER_FOLDER, seed=1)
    _, other = registry.version("hand_estimator", "hamer", {}, str(tmp_path))
    assert len(one) == len(other) == 64
    assert one != other


# -- ego doctor ------------------------------------------------------------------------------


def findings(weights: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, str]]:
    monkeypatch.setenv("EGO_WEIGHTS", str(weights))
    found = [doctor._backend(registry.find(o, n)) for o, n in CHECKED]
    return {f.what.partition(": ")[2]: (f.state, f.facts) for f in found}


def test_doctor_finds_whole_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link_default_weights(tmp_path)
    tiny_sam2(tmp_path / SAM2_FOLDER)
    tiny_hamer(tmp_path / HAMER_FOLDER)
    tiny_sam3(tmp_path / SAM3_FOLDER)
    tiny_owlv2(tmp_path / OWLV2_FOLDER)
    for name, (state, facts) in findings(tmp_path, monkeypatch).items():
        assert state == "ok", name
        assert "M parameters" in facts
        assert "hash " in facts


def test_doctor_says_where_missing_ones_belong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for state, facts in findings(tmp_path, monkeypatch).values():
        assert state == "unused"
        assert str(tmp_path) in facts
        assert "https://" in facts


def test_doctor_tells_damaged_and_wrong_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link_default_weights(tmp_path)
    sam2, hamer = tmp_path / SAM2_FOLDER, tmp_path / HAMER_FOLDER
    tiny_sam2(sam2)
    config = json.loads((sam2 / "config.json").read_text())
    (sam2 / "config.json").write_text(json.dumps(config | {"model_type": "sam"}))
    tiny_hamer(hamer)
    checkpoint = hamer / "hamer_ckpts/checkpoints/hamer.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    found = findings(tmp_path, monkeypatch)
    assert found["sam2"][0] == found["hamer"][0] == "missing"
    assert "holds a sam, not a sam2_video" in found["sam2"][1]
    assert "cannot be read as a HaMeR checkpoint" in found["hamer"][1]


def test_doctor_tells_broken_models_of_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link_default_weights(tmp_path)
    sam3, owlv2 = tiny_sam3(tmp_path / SAM3_FOLDER), tiny_owlv2(tmp_path / OWLV2_FOLDER)
    tiny_sam2(tmp_path / SAM2_FOLDER)
    told = tmp_path / "told"
    (sam3 / "model.safetensors").write_bytes(pickle.dumps(Tattletale(told)))
    config = json.loads((owlv2 / "config.json").read_text())
    (owlv2 / "config.json").write_text(json.dumps(config | {"model_type": "owlvit"}))
    found = findings(tmp_path, monkeypatch)
    assert found["sam2"][0] == "ok"
    assert found["sam3"][0] == found["owlv2_sam2"][0] == "missing"
    assert "cannot be read as SAM 3 weights" in found["sam3"][1]
    assert "SAM License" in found["sam3"][1]
    assert "holds a owlvit, not a owlv2" in found["owlv2_sam2"][1]
    (owlv2 / "config.json").write_text(json.dumps(config))
    (owlv2 / "vocab.json").unlink()
    state, facts = findings(tmp_path, monkeypatch)["owlv2_sam2"]
    assert state == "unused"
    assert "vocab.json" in facts
    assert not told.exists()


def test_doctor_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link_default_weights(tmp_path)
    told, sam2 = tmp_path / "told", tmp_path / SAM2_FOLDER
    tiny_sam2(sam2)
    (sam2 / "model.safetensors").write_bytes(pickle.dumps(Tattletale(told)))
    hamer = tiny_hamer(tmp_path / HAMER_FOLDER, callbacks=Tattletale(told))
    found = findings(tmp_path, monkeypatch)
    assert found["sam2"][0] == found["hamer"][0] == "missing"
    assert "do not trust this file" in found["hamer"][1]
    tiny_hamer(hamer)
    (hamer / "data/mano/MANO_RIGHT.pkl").write_bytes(pickle.dumps(Tattletale(told)))
    assert "which no hand needs" in findings(tmp_path, monkeypatch)["hamer"][1]
    assert not told.exists()


def test_doctor_wants_what_the_file_chooses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link_default_weights(tmp_path)
    file = tmp_path / "backends.yaml"
    file.write_text(
        f"segmenter: sam2\nweights_dir: {tmp_path}\nsettings: {{segmenter: {{checkpoint: mine}}}}\n"
    )
    monkeypatch.setenv("EGO_BACKENDS", str(file))

    def found() -> doctor.Finding:
        return next(f for f in doctor._backends(tune=False) if f.what.startswith("segmenter: sam2"))

    assert found().state == "missing"
    tiny_sam2(tmp_path / "mine")
    assert found().what == "segmenter: sam2 (chosen)"
    assert found().state == "ok"


# -- the file of EGO_BACKENDS ----------------------------------------------------------------


def test_a_file_names_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "backends.yaml"
    file.write_text("segmenter: sam2\nsettings: {segmenter: {checkpoint: mine}}\n")
    monkeypatch.setenv("EGO_BACKENDS", str(file))
    assert Backends().chosen("segmenter") == "sam2"
    assert Backends().chosen("hand_estimator") == "landmarks"
    form = {"work_side_px": 320, "scan_interval_s": 0.7}
    assert Backends().settings_of("segmenter", form) == form | {"checkpoint": "mine"}
    # What a person picks in the launchpad counts before it, and then so do other settings.
    picked = Backends(segmenter="landmarks")
    assert picked.chosen("segmenter") == "landmarks"
    assert picked.settings_of("segmenter", form) == form


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("segmenter: sam9", "no segmenter named 'sam9'"),
        ("segmentor: sam2", "segmentor: Extra inputs"),
        ("settings: {segmenter: {checkpoint: mine}}", "checkpoint: Extra inputs"),
        ("settings: {camera: {}}", "no operator 'camera'"),
        ("segmenter: [", "while parsing"),
        ("- sam2", "valid dictionary"),
        (None, "No such file"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(tmp_path: Path, text: str | None, why: str) -> None:
    file = tmp_path / "backends.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(BackendsFileError, match=why) as caught:
        read_choice(file)
    assert str(file) in str(caught.value)


# -- as a run is configured ------------------------------------------------------------------

DEPTH = {"pycolmap_depth_pro": tiny_depth_pro, "pycolmap_depth_anything": tiny_depth_anything}


def write_choice(path: Path, **choice: Any) -> Path:
    path.write_text(yaml.safe_dump(choice))
    return path


def looked_at(name: str, **options: Any) -> dict[str, tuple[str, str]]:
    found = doctor._backends(**{"tune": False} | options)
    return {f.what: (f.state, f.facts) for f in found if name in f.what}


@pytest.mark.parametrize("name", DEPTH)
def test_doctor_looks_at_the_checkpoint_that_a_run_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(tuning, "TRIALS", (1, 2))
    folder, what = DEPTH[name](tmp_path / "mine"), f"reconstructor: {name} (chosen)"
    file = write_choice(
        tmp_path / "backends.yaml",
        reconstructor=name,
        weights_dir=str(tmp_path),
        settings={"reconstructor": {"checkpoint": "mine"}},
    )
    monkeypatch.setenv("EGO_BACKENDS", str(file))
    found = looked_at(name, tune=True)
    assert found[what][0] == "ok", found
    assert "M parameters, hash " in found[what][1]
    assert found[f"tuned {name}"][0] == "ok"
    assert "frames_per_batch " in found[f"tuned {name}"][1]
    # Not there, hostile, cut off, another network: a run would fail, so none is a mere warning.
    file, told = folder / "model.safetensors", tmp_path / "told"
    whole = file.read_bytes()
    file.unlink()
    found = looked_at(name, tune=True)
    assert list(found) == [what], "nothing to measure"
    assert found[what][0] == "missing"
    assert f"no weights at {file}" in found[what][1]
    for broken in (pickle.dumps(Tattletale(told)), whole[:999]):
        file.write_bytes(broken)
        state, facts = looked_at(name)[what]
        assert (state, "cannot be read as" in facts) == ("missing", True)
    assert not told.exists()
    next(make for n, make in DEPTH.items() if n != name)(folder)
    state, facts = looked_at(name)[what]
    assert (state, "not a depth" in facts) == ("missing", True)
