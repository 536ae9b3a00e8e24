"""A site of drawn pictures with captions, and a server over it, for tests that change neither."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from starlette.testclient import TestClient


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 30 pictures, each with four captions."""
    from tests.support import serving

    return serving.write_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def client(index: Path) -> Iterator[TestClient]:
    from tests.support import serving

    with serving.client(index) as client:
        yield client
