from __future__ import annotations

import pytest

from tests.viewing.shown_lake import ShownLake


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> ShownLake:
    return ShownLake(tmp_path_factory.mktemp("shown"))
