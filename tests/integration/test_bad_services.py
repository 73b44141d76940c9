"""Services that are down, slow, talk garbage or lie: a clear error, and nothing half-written."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pesto_runtime.client.client import Client
from pesto_runtime.errors import (
    AlgorithmFailed,
    ContractBroken,
    InvalidInput,
    PestoError,
    RunFailed,
    ServiceMisbehaved,
    Unreachable,
)
from tests.support.commands import pesto, saved
from tests.support.fakes import as_npy, fake_service, slow
from tests.support.rasters import noise, tree, write_scene
from tests.support.runs import chain, run_local

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.integration

Answer = tuple[int, str, bytes]
PIXELS = noise(300, 200)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "s.tif", PIXELS)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience of tests: half a second for an answer, and one more try."""

    def quick(url: str, **options: Any) -> Client:
        limits = {"timeout_s": 0.5, "retries": 1, "patience_s": 1.0, "outage_s": 0.0}
        return Client(url, **options | limits)

    monkeypatch.setattr("pesto_runtime.client.client.Client", quick, raising=False)


def wrong_dtype(pixels: np.ndarray) -> Answer:
    return as_npy(pixels.astype(np.float32))


def wrong_shape(pixels: np.ndarray) -> Answer:
    return as_npy(pixels[:, 1:, :])


def two_bands(pixels: np.ndarray) -> Answer:
    return as_npy(np.concatenate([pixels, pixels]))


def no_npy(_pixels: np.ndarray) -> Answer:
    return 200, "application/x-npy", b"\x93NUMPY and then nothing"


def a_web_page(_pixels: np.ndarray) -> Answer:
    return 200, "text/html", b"<html><body>It works!</body></html>"


def other_json(_pixels: np.ndarray) -> Answer:
    return 200, "application/json", b'{"picture": "none"}'


def broken_json(_pixels: np.ndarray) -> Answer:
    return 200, "application/json", b'{"image": '


def crash(_pixels: np.ndarray) -> Answer:
    return 500, "application/json", b'{"detail": "KeyError: weights"}'


def refuse(_pixels: np.ndarray) -> Answer:
    body = {"detail": "1 error", "errors": [{"pointer": "/size", "detail": "must be at least 3"}]}
    return 422, "application/problem+json", json.dumps(body).encode()


def test_a_fake_that_tells_the_truth_is_believed(tmp_path: Path, scene: Path) -> None:
    """The control of all that follows."""
    with fake_service(as_npy) as fake:
        done = run_local(
            chain("grow"), tmp_path / "out", {"scene": scene}, services=(f"grow={fake.url}",)
        )
    assert done.result["status"] == "COMPLETE"
    assert fake.calls == 2


@pytest.mark.parametrize(
    ("lie", "told"),
    [(wrong_dtype, "uint8.*float32"), (wrong_shape, "rows|shape|window"), (two_bands, "band")],
)
def test_a_service_that_lies_about_its_contract_ends_the_run(
    tmp_path: Path, scene: Path, lie: Callable[[np.ndarray], Answer], told: str
) -> None:
    """Which stage, which tile, what was promised and what came."""
    with fake_service(lie) as fake, pytest.raises(ContractBroken, match=told) as caught:
        run_local(chain("grow"), tmp_path / "out", {"scene": scene},
                  services=(f"grow={fake.url}",))  # fmt: skip
    assert "stage 's0'" in str(caught.value)
    assert caught.value.exit_code == 1
    assert all(name.startswith(".pesto/") for name in tree(tmp_path / "out"))


@pytest.mark.parametrize("answer", [no_npy, a_web_page, other_json, broken_json])
def test_a_service_that_talks_garbage_ends_the_run(
    tmp_path: Path, scene: Path, answer: Callable[[np.ndarray], Answer]
) -> None:
    """Whatever it is, it is the service's fault and told with its address."""
    with (
        fake_service(answer) as fake,
        pytest.raises((ServiceMisbehaved, ContractBroken)) as caught,
    ):
        run_local(chain("grow"), tmp_path / "out", {"scene": scene},
                  services=(f"grow={fake.url}",))  # fmt: skip
    assert "stage 's0'" in str(caught.value)
    assert caught.value.exit_code == 1
    assert all(name.startswith(".pesto/") for name in tree(tmp_path / "out"))


def test_a_service_that_is_slow_is_given_up_with_its_address(tmp_path: Path, scene: Path) -> None:
    """After the client's timeout; the run can be resumed later."""
    with (
        fake_service(slow(1.2)) as fake,
        pytest.raises(Unreachable, match=r"within 0\.5 s") as caught,
    ):
        run_local(chain("grow"), tmp_path / "out", {"scene": scene}, tile=1024,
                  services=(f"grow={fake.url}",))  # fmt: skip
    assert fake.url in str(caught.value)
    assert caught.value.exit_code == 1
    assert all(name.startswith(".pesto/") for name in tree(tmp_path / "out"))


def test_a_service_that_goes_down_ends_the_run_and_it_resumes(tmp_path: Path, scene: Path) -> None:
    """Down from the second call on; up again, only what is missing is computed."""
    pixels = noise(1100, 600)
    large = write_scene(tmp_path / "l.tif", pixels)
    calls = []

    def failing(given: np.ndarray) -> Answer:
        calls.append(1)
        if len(calls) > 9:
            raise ConnectionAbortedError
        return as_npy(given)

    with fake_service(failing) as fake:
        with pytest.raises(Unreachable):
            run_local(chain("grow"), tmp_path / "out", {"scene": large}, workers=1,
                      services=(f"grow={fake.url}",))  # fmt: skip
        assert all(name.startswith(".pesto/") for name in tree(tmp_path / "out"))
        fake.answer = as_npy
        done = run_local(chain("grow"), tmp_path / "out", {"scene": large}, workers=1,
                         services=(f"grow={fake.url}",))  # fmt: skip
    computed, reused, _ = done.tiles
    assert computed + reused == 24
    assert reused == 9
    assert (tmp_path / "out" / "image.tif").exists()
    assert scene.exists()


def test_a_service_whose_algorithm_crashes_leaves_holes_only(tmp_path: Path, scene: Path) -> None:
    """A 500 is the algorithm's; every tile failing is a failed run with its word."""
    with fake_service(crash) as fake, pytest.raises((RunFailed, AlgorithmFailed), match="weights"):
        run_local(chain("grow"), tmp_path / "out", {"scene": scene},
                  services=(f"grow={fake.url}",))  # fmt: skip


def test_a_service_that_refuses_its_inputs_ends_the_run(tmp_path: Path) -> None:
    """At the first tiles, with the fields; a crash (control) is one of each of the 25 tiles."""
    scene = write_scene(tmp_path / "s.tif", noise(1000, 1000))

    def error_of(answer: Callable[[np.ndarray], Answer]) -> tuple[PestoError, int]:
        with fake_service(answer) as fake, pytest.raises(PestoError) as caught:
            run_local(chain("grow"), tmp_path / "out", {"scene": scene}, workers=1, max_tasks=1,
                      services=(f"grow={fake.url}",))  # fmt: skip
        return caught.value, fake.calls

    error, calls = error_of(refuse)
    assert (type(error), error.exit_code) == (InvalidInput, 2)
    assert [str(field) for field in error.fields] == ["/size: must be at least 3"]
    assert calls <= 8  # as many as a chunk has in flight at once
    error, calls = error_of(crash)
    assert (error.exit_code, calls) == (1, 25)


def test_a_service_that_is_not_there_fails_before_anything_is_made(
    tmp_path: Path, scene: Path
) -> None:
    """By the command line: exit code 1, its address, no traceback, no folder."""
    with socket.socket() as taken:  # bound, but never listened on: nobody answers
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/api/v1"
        path = saved(tmp_path / "p.json", chain("grow"))
        done = pesto("run", path, "-i", f"scene={scene}", "-o", tmp_path / "out",
                     "-s", f"grow={url}")  # fmt: skip
    assert done.returncode == Unreachable.exit_code == 1
    assert url in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
    assert issubclass(Unreachable, PestoError)
