"""Words of a forgotten video are replaced, those of others that look alike are not."""

from __future__ import annotations

import pytest

from resources.words import ErasedWords

PATH = "/raw/a.mp4"


@pytest.mark.parametrize(
    ("text", "replaced"),
    [
        (f"could not read {PATH}.", "could not read (forgotten)."),
        (f'{{"uri": "{PATH}"}}', '{"uri": "(forgotten)"}'),
        (f"file://{PATH}: gone", "file://(forgotten): gone"),
        (rf"it said\n{PATH}\nand", r"it said\n(forgotten)\nand"),
        (f"{PATH}.mov", f"{PATH}.mov"),
        (f"/data{PATH}", f"/data{PATH}"),
        (f"{PATH}/b", f"{PATH}/b"),
        ("of 0123456789abcdef-0000, f0123456789abcdef", "of (forgotten)-0000, f(forgotten)"),
    ],
)
def test_a_path_is_replaced_as_a_whole(text: str, replaced: str) -> None:
    words = ErasedWords([PATH, "0123456789abcdef"])
    assert words.replaced(text) == replaced
    assert words.are_in(text) is (text != replaced)


def test_a_name_is_replaced_where_it_stands_alone() -> None:
    words = ErasedWords(["a.mp4"], are_quoted=True)
    assert words.replaced('["a.mp4", "b/a.mp4"]') == '["(forgotten)", "b/a.mp4"]'
    assert words.replaced(r"{\"x\": \"a.mp4\"} a.mp4") == r"{\"x\": \"(forgotten)\"} a.mp4"
