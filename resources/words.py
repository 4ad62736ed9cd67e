"""Replaces the words that name a forgotten video: ids wherever they are, paths where they end.

The path of another file may begin or end with that of a forgotten one, and stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property

INSTEAD = "(forgotten)"
"""Stands where a name was erased."""
_BEFORE = r"(?:(?<![\w.\-])|(?<=\\[nrt]))"
"""What is before a path: the end of a line may be escaped there."""
_AFTER = r"(?![\w/\-]|\.\w)"


class ErasedWords:
    """Words that name a video, as texts have them; the longest go first. are_quoted: they count
    only where they stand alone inside of quotes, as JSON has them."""

    def __init__(self, words: Iterable[str], *, are_quoted: bool = False) -> None:
        self.words = sorted(set(words), key=lambda w: (-len(w), w))
        self.are_quoted = are_quoted

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(map(self._pattern_of, self.words)) or r"(?!)")

    def are_in(self, text: str) -> bool:
        return self._pattern.search(text) is not None

    def replaced(self, text: str) -> str:
        """The text without them."""
        return self._pattern.sub(INSTEAD, text)

    def _pattern_of(self, word: str) -> str:
        if self.are_quoted:
            return rf'(?<="){re.escape(word)}(?=\\*")'
        return f"{_BEFORE}{re.escape(word)}{_AFTER}" if "/" in word else re.escape(word)


def names_alone(words: Iterable[str]) -> ErasedWords:
    """The names of the files of paths, which count in quotes only: other files may have them."""
    given = set(words)
    return ErasedWords({word.rpartition("/")[2] for word in given} - {"", *given}, are_quoted=True)
