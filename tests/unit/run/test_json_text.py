"""The JSON of published files: indented, and the same as Python's own."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pesto_runtime.run.output_files import json_text

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False).filter(
        lambda value: abs(value) != float("inf")
    )
)  # fmt: skip
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(DOCUMENTS)
@settings(deadline=None, derandomize=True, max_examples=300)
def test_it_is_the_text_of_the_standard_library(document: object) -> None:
    """Byte for byte, so that no checksum of a product depends on how it was written."""
    assert json_text(document) == json.dumps(document, indent=2)  # type: ignore[arg-type]


@pytest.mark.parametrize("document", [float("nan"), [float("inf")], {"a": [[1], float("nan")]}])
def test_a_number_that_is_not_finite_is_refused(document: object) -> None:
    """At any depth."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text(document)  # type: ignore[arg-type]
