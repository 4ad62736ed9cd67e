"""Namespaces of one's own, as containers have them: for tests, where the machine permits it."""

from __future__ import annotations

import subprocess

import pytest


def _why_not() -> str:
    try:
        made = subprocess.run(
            ["unshare", "--pid", "--fork", "--mount-proc", "--time", "true"],
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        return "there is no unshare (util-linux)"
    return "" if made.returncode == 0 else f"unshare is not permitted: {made.stderr.strip()}"


WHY_NOT = _why_not()
needs_namespaces = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
