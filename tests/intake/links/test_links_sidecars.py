"""What lies beside a video says what intake can read."""

from __future__ import annotations

import json

import pytest

from ego_assets.intake.links.sidecars import (
    fault_of,
    license_expression,
    says,
    sidecar_of_link,
)
from resources.raw.sidecars import FileBeside


def test_a_list_says_more_than_a_page() -> None:
    found = sidecar_of_link("k/a.b.mp4", {"license": "mit", "task": "cook"}, "of the page")
    assert found is not None
    assert found[0] == "k/a.b.footage.json"
    assert json.loads(found[1]) == {"license": "MIT", "task": "cook"}
    found = sidecar_of_link("a.mp4", {}, "Creative Commons Attribution (reuse allowed)")
    assert found is not None
    assert json.loads(found[1]) == {
        "license": "LicenseRef-Creative-Commons-Attribution-reuse-allowed"
    }
    assert sidecar_of_link("a.mp4", {}, "") is None


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ("cc-by-4.0", "CC-BY-4.0"),
        ("mit OR apache-2.0", "MIT OR Apache-2.0"),
        ("CC BY 4.0", "LicenseRef-CC-BY-4.0"),
        ("???", "LicenseRef-unknown"),
    ],
)
def test_a_license_is_an_expression(given: str, right: str) -> None:
    assert license_expression(given) == right
    assert license_expression(right) == right


def test_a_file_says_what_a_list_does_whatever_more_it_says() -> None:
    found = FileBeside("x.footage.yaml", b"license: CC-BY-4.0\nperson: 7\nsite: lab\n")
    assert says(found, {"license": "cc-by-4.0", "person": "7"})
    assert says(found, {})
    assert not says(found, {"person": "8"})
    assert not says(found, {"consent": "granted"})
    assert not says(FileBeside("x.footage.json", b"nonsense"), {"person": "7"})
    assert not says(FileBeside("x.footage.json", b"", "it is a pipe"), {"person": "7"})


def test_what_intake_would_refuse_is_a_fault() -> None:
    assert fault_of({"consent": "yes"})
    assert not fault_of({"consent": "granted", "person": "p"})
    assert not fault_of({})
