"""A real Conductor for the tests of this folder; it ends with the last of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.conductor_workers import Desk


@pytest.fixture(scope="package")
def conductor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A real Conductor that knows our task types; 20 s to start, one for all tests.

    PESTO_TEST_CONDUCTOR names the data folder of one that runs already.
    """
    from pesto_conductor.trial_server import borrowed, down
    from tests.support.conductor_workers import Desk

    named = os.environ.get("PESTO_TEST_CONDUCTOR")
    folder = Path(named) if named else tmp_path_factory.mktemp("conductor")
    with borrowed(folder):
        desk = Desk(folder)
        desk.register()
        yield desk
        if named is None:  # a test that starts a killed server again asks to keep it
            down(folder)
