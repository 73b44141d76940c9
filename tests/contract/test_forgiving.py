"""Requests with a slip: what is ignored is named in a header, and other spellings are read."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.raster.codec import decode_image
from tests.contract.serving import Server, served
from tests.support.rasters import noise, write_scene

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.contract, pytest.mark.integration]
AUTHOR = """
from typing import Annotated
import numpy as np
from pesto_runtime import Raster, process

@process(version="1.0.0", margin=0)
def same(scene: np.ndarray, threshold: float = 1) -> Annotated[np.ndarray, Raster(name="image")]:
    return scene
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    target = tmp_path_factory.mktemp("author") / "t.py"
    target.write_text(AUTHOR)
    with served(f"{target}:same", "--unknown-inputs", "ignore") as running:
        yield running


def test_a_function_refuses_names_that_are_not_inputs(tmp_path: Path, scene: Path) -> None:
    """All of them at once, in each form of a request; a right one is the control."""
    (tmp_path / "t.py").write_text(AUTHOR)
    href, raw = scene.as_uri(), {"Content-Type": "image/tiff"}
    with served(f"{tmp_path / 't.py'}:same") as server:
        answers = [
            server("POST", "/process", json={"scene": href, "treshold": 5, "é": 1}),
            server("POST", "/process", files={"scene": scene.read_bytes()}, data={"treshold": "5"}),
            server("POST", "/process?treshold=5", content=scene.read_bytes(), headers=raw),
        ]
        for answer in answers:
            assert answer.status_code == 422
            first = answer.json()["errors"][0]
            assert (first["pointer"], first["detail"]) == (
                "/treshold", "is not an input; inputs are scene, threshold",
            )  # fmt: skip
        assert len(answers[0].json()["errors"]) == 2
        assert server("POST", "/process", json={"scene": href, "pesto": {}}).status_code == 200


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scene(tmp_path_factory.mktemp("data") / "s.tif", noise(300, 260))


def test_names_that_are_not_inputs_are_in_a_header(server: Server, scene: Path) -> None:
    """A typing error keeps its answer, as of PESTO; the header says what had no effect."""
    href, wrong = scene.as_uri(), {"treshold": 5, "é,ü": 1}
    body = server("POST", "/process", json={"scene": href, **wrong})
    assert (body.status_code, body.headers["X-Pesto-Ignored"]) == (
        200, "treshold, %C3%A9%2C%C3%BC",
    )  # fmt: skip
    form = server("POST", "/process", files={"scene": scene.read_bytes()}, data={"treshold": "5"})
    assert (form.status_code, form.headers["X-Pesto-Ignored"]) == (200, "treshold")
    raw = server(
        "POST", "/process?treshold=5", content=scene.read_bytes(),
        headers={"Content-Type": "image/tiff"},
    )  # fmt: skip
    assert (raw.status_code, raw.headers["X-Pesto-Ignored"]) == (200, "treshold")
    right = server("POST", "/process", json={"scene": href, "threshold": 5})
    assert "X-Pesto-Ignored" not in right.headers
    with_options = server("POST", "/process", json={"scene": href, "pesto": {}})
    assert "X-Pesto-Ignored" not in with_options.headers


@pytest.mark.parametrize("size", [(20, 10), (300, 260)])
def test_an_image_may_be_a_data_uri(server: Server, tmp_path: Path, size: tuple[int, int]) -> None:
    """Browsers write so; small and larger than the parts into which a body is divided."""
    pixels = noise(*size)
    file = write_scene(tmp_path / "s.tif", pixels, options={"compress": "deflate"}).read_bytes()
    text = "data:image/tiff;base64," + base64.b64encode(file).decode()
    said = server("POST", "/process", json={"scene": text}, headers={"Accept": "image/tiff"})
    assert said.status_code == 200, said.text
    assert np.array_equal(decode_image(said.content).pixels, pixels)
    plain = server("POST", "/process", json={"scene": "data:image/tiff,II*"})
    assert (plain.status_code, "base64" in plain.text) == (422, True)


def test_a_urlencoded_form_is_told_apart_from_json(server: Server, scene: Path) -> None:
    """Curl sends this type for -d, so JSON of this type is read; a form of it never was."""
    said = server("POST", "/process", data={"scene": scene.as_uri()})
    assert said.status_code == 400
    assert "a form is multipart/form-data" in said.json()["detail"]
