"""Runs by the hundred: reports are drawn for real in the tests of the command line."""

import pytest


@pytest.fixture(autouse=True)
def _quick(without_pictures: None) -> None:
    """Every run here goes without pictures."""
