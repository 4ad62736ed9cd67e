"""`ego config` tells every setting and who says so; the order is one for all."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dagster_project.cli import main
from ego_assets.environment import VARIABLES
from ego_assets.graph.backends import Backends
from ego_assets.hands.settings import HandPoseSettings
from resources.environment import BACKENDS_FILE

ROOT = Path(__file__).resolve().parents[2]
OF_OURS = {"EGO_LEASE", "EGO_OUTER_TMPDIR", "EGO_WITHOUT_GPU", "EGO_WORKERS_OF"}
"""What our processes tell each other; no person sets them."""


def told(*arguments: str) -> dict[str, tuple[Any, str]]:
    result = CliRunner().invoke(main, ["config", "--json", *arguments])
    assert result.exit_code == 0, result.output
    return {each["name"]: (each["value"], each["source"]) for each in json.loads(result.output)}


def test_each_value_says_where_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EGO_KEEP_VERSIONS", "5")
    monkeypatch.setenv("EGO_ALERT_SLACK_URL", "https://hooks.example/secret")
    settings = tmp_path / "settings.yaml"
    settings.write_text("hand_poses: {side_px: 640, smoothing_s: 0.2}\n")
    found = told("--config", str(settings), "--set", "hand_poses.side_px=800")
    assert found["hand_poses.side_px"] == (800, "--set")
    assert found["hand_poses.smoothing_s"] == (0.2, str(settings))
    assert found["hand_poses.depth_smoothing_s"] == (0.15, "default")
    assert found["hand_poses.backend"] == ("landmarks", "default")
    assert found["EGO_KEEP_VERSIONS"] == ("5", "environment")
    assert found["EGO_ALERT_SLACK_URL"] == ("(set)", "environment")


def test_a_file_of_backends_goes_before_defaults_and_behind_what_a_person_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "backends.yaml"
    file.write_text(
        "retargeter: gauss_newton\nsettings: {hand_estimator: {side_px: 960, smoothing_s: 0.4}}\n"
    )
    monkeypatch.setenv(BACKENDS_FILE, str(file))
    source = f"{file} ({BACKENDS_FILE})"
    found = told("--set", "hand_poses.side_px=1280")
    assert found["robot_mappings.backend"] == ("gauss_newton", source)
    assert found["hand_poses.side_px"] == (1280, "--set")
    assert found["hand_poses.smoothing_s"] == (0.4, source)
    # As a run takes them.
    form = {"side_px": 1280, "smoothing_s": 0.04, "depth_smoothing_s": 0.15}
    used = Backends().settings_of("hand_estimator", form, {"side_px"})
    assert (used["side_px"], used["smoothing_s"]) == (1280, 0.4)


def test_what_a_person_gives_holds_also_where_it_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backends, settings = tmp_path / "backends.yaml", tmp_path / "settings.yaml"
    backends.write_text("settings: {hand_estimator: {side_px: 960, smoothing_s: 0.4}}\n")
    usual = HandPoseSettings()
    settings.write_text(f"hand_poses: {{smoothing_s: {usual.smoothing_s}}}\n")
    monkeypatch.setenv(BACKENDS_FILE, str(backends))
    found = told("--config", str(settings), "--set", f"hand_poses.side_px={usual.side_px}")
    assert found["hand_poses.side_px"] == (usual.side_px, "--set")
    assert found["hand_poses.smoothing_s"] == (usual.smoothing_s, str(settings))
    # The file, too, may say what another one says.
    found = told("--set", "hand_poses.side_px=960")
    assert found["hand_poses.side_px"] == (960, "--set")


def test_a_schema_and_a_check_of_files(tmp_path: Path) -> None:
    run = CliRunner().invoke
    schema = json.loads(run(main, ["config", "schema"]).output)
    assert "side_px" in schema["properties"]["hand_poses"]["properties"]
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("clips: {max_clip_s: 10}\n")
    bad.write_text("clips: {max_clips: 10}\n")
    assert run(main, ["config", "validate", str(good)]).exit_code == 0
    refused = run(main, ["config", "validate", str(bad)])
    assert refused.exit_code == 2
    assert "clips has no setting max_clips" in refused.output


def test_every_variable_that_the_code_reads_is_told() -> None:
    found: set[str] = set()
    for package in ("ego_assets", "resources", "sensors", "dagster_project"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found |= {node.value} if re.fullmatch(r"EGO_[A-Z0-9_]+", node.value) else set()
    assert found - OF_OURS == {variable.name for variable in VARIABLES}
