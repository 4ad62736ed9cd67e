"""What a file beside a video may say of its footage: checked, brought to one form, never quoted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ego_assets.consent import SAID, are_among, canonical_license, split_key
from ego_assets.videos.footage.sidecar import (
    FootageSidecarError,
    footage_columns,
    is_described_by,
    parse,
)
from resources.raw.sidecars import FileBeside

TOKEN = "TOKEN-77ab01"
WHOLE = {
    "person": "P 07",
    "consent": "research_only",
    "license": "CC-BY-4.0",
    "site": "lab 2",
    "device": "GoPro 12",
    "task": "fold the towel",
}


def test_json_and_yaml_say_the_same() -> None:
    yaml = "\n".join(f"{key}: {value}" for key, value in WHOLE.items())
    assert parse(json.dumps(WHOLE).encode()) == WHOLE
    assert parse(b"\xef\xbb\xbf---\n" + yaml.encode()) == WHOLE


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("person: 007\nsite: no\n", {"person": "007", "site": "no"}),  # not 7, not False
        ('{"person": 7}', {"person": "7"}),
        ("task: >\n  fold\n  the towel\n", {"task": "fold the towel"}),
        ("license: cc-by-nc-sa-4.0 or mit", {"license": "CC-BY-NC-SA-4.0 OR MIT"}),
        ("license: LicenseRef-our.terms", {"license": "LicenseRef-our.terms"}),
        ("person:\nsite: ~\n", {"person": None, "site": None}),
        ('{"device": null}', {"device": None}),
        ("person: e\u0301", {"person": "\u00e9"}),
    ],
)
def test_values_are_brought_to_one_form(content: str, said: dict[str, Any]) -> None:
    assert parse(content.encode()) == said


FAULTS: dict[str, tuple[str | bytes, str]] = {
    "a near name": (f"licence: {TOKEN}", "entry 1 .* did you mean license"),
    "a far name": (f"site: a\n{TOKEN}: x", "entry 2 has a name that is not known: there are"),
    "consent": (f"consent: {TOKEN}", "its consent is none of granted"),
    "license": (f"license: {TOKEN}", "its license .* no SPDX"),
    "another text": (f"license: LicenseRef-{TOKEN} x", "its license"),
    "twice": ("person: a\nperson: b", "says person twice"),
    "twice in JSON": ('{"site": "a", "site": "b"}', "says site twice"),
    "a list": (f"person: [{TOKEN}]", "not plain text"),
    "references": (f"person: &a {TOKEN}\nsite: *a", "not plain text"),
    "a tag": ("person: !!python/object:os.system x", "not plain text"),
    "two documents": ("person: a\n---\nsite: b", "not plain text"),
    "no mapping": (f"- {TOKEN}", "name: value"),
    "text": (f"{TOKEN}", "name: value"),
    "an array": ("[]", "not a JSON object"),
    "cut off": ('{"person": "', "not JSON"),
    "no YAML": (f"person: '{TOKEN}", "not YAML"),
    "no character": (f'person: "{TOKEN}\\U00110000"', "not YAML"),
    "no number of a character": (f'person: "{TOKEN}\\UFFFFFFFF"', "not YAML"),
    "a version without end": ("%YAML 1." + "1" * 5000 + "\n---\nperson: a", "not YAML"),
    "true": ('{"person": true}', "its person is not text"),
    "empty value": ('{"person": " "}', "its person is empty"),
    "long": ('{"person": "' + "x" * 201 + '"}', "more than 200"),
    "control": ('{"person": "a\\u0007"}', "cannot be shown"),
    "half a pair": ('{"person": "\\ud83d"}', "cannot be shown"),
    "not a number": ('{"person": NaN}', "not finite"),
    "deep": ('{"a":' * 10_000, "too deep"),
    "empty": (" \n", "it is empty"),
    "another encoding": ("person: ä".encode("utf-16"), "not UTF-8"),
    "large": ("#" * 70_000, "larger than 64 KiB"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_makes_no_sense_is_told_and_not_quoted(name: str) -> None:
    content, words = FAULTS[name]
    data = content if isinstance(content, bytes) else content.encode()
    with pytest.raises(FootageSidecarError, match=words) as error:
        footage_columns([FileBeside("v.footage.yaml", data)])
    assert str(error.value).startswith("v.footage.yaml does not say whose footage this is: ")
    assert TOKEN not in str(error.value)
    assert len(str(error.value)) < 300


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_whatever_it_holds_there_are_columns_or_a_reason(data: bytes) -> None:
    try:
        said = footage_columns([FileBeside("footage.json", data)])
    except FootageSidecarError as error:
        row = dict.fromkeys(SAID) | {"reject_reason": "bad_sidecar", "reject_detail": str(error)}
        assert is_described_by(row, [FileBeside("footage.json", data)])
    else:
        assert set(said) == set(SAID)


def test_a_row_is_compared_with_what_the_file_says() -> None:
    found = [FileBeside("footage.json", json.dumps(WHOLE).encode())]
    row = {**WHOLE, "reject_reason": None, "reject_detail": None}
    assert is_described_by(row, found)
    assert not is_described_by(row, [])
    assert not is_described_by(row | {"consent": "withdrawn"}, found)
    assert not is_described_by(row | {"reject_reason": "bad_sidecar"}, found)
    assert is_described_by(dict.fromkeys(SAID) | {"reject_reason": None}, [])


def test_of_two_files_the_later_counts_where_it_says_something() -> None:
    folder = FileBeside("footage.json", b'{"consent": "refused", "person": "p1"}')
    own = FileBeside("v.footage.json", b'{"person": "p2", "license": "MIT", "consent": null}')
    said = {k: v for k, v in footage_columns([folder, own]).items() if v is not None}
    assert said == {"consent": "refused", "person": "p2", "license": "MIT"}
    granted = FileBeside("v.footage.json", b"consent: granted")
    assert footage_columns([folder, granted])["consent"] == "granted"
    with pytest.raises(FootageSidecarError, match=r"^footage\.json"):
        footage_columns([FileBeside("footage.json", b"x"), own])


def test_a_split_goes_by_the_first_of_wearer_recording_and_video() -> None:
    row = {"person": "p", "recording_id": "r", "video_id": "v"}
    assert split_key(row) == "p"
    assert split_key(row | {"person": None}) == "r"
    assert split_key({"person": None, "video_id": "v"}) == "v"


def test_rows_are_chosen_by_what_is_said() -> None:
    row = {"consent": "granted", "site": None}
    assert are_among(row, {"consent": "", "site": ""})
    assert are_among(row, {"consent": "research_only, granted"})
    assert not are_among(row, {"consent": "granted", "site": "lab"})
    assert canonical_license("apache-2.0") == "Apache-2.0"
