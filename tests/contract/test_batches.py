"""Several payloads in one request: on the wire, by the client, and of a run's threads."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.client.client import Client
from pesto_runtime.contract import Service, TileInfo, Window
from pesto_runtime.errors import AlgorithmFailed, InvalidInput, PestoError
from pesto_runtime.run.callers import caller_for, close_callers
from tests.contract.calls import FORM, NPY, npy, pointers
from tests.contract.serving import AT_ONCE, served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.contract.serving import Server

    Serve = Callable[[str], Server]

pytestmark = [pytest.mark.contract, pytest.mark.integration]

BATCHED = "tests/contract/batched.py:"


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    """Serve processes of `batched.py`, each once."""
    running: dict[str, Server] = {}
    with ExitStack() as stack:

        def of(name: str) -> Server:
            if name not in running:
                running[name] = stack.enter_context(served(BATCHED + name, "--workers", "2"))
            return running[name]

        yield of


def requests_to(web: Server) -> int:
    """How many calls the service has counted."""
    found = re.findall(
        r'pesto_requests_total\{endpoint="process".*?\} (\S+)', web("GET", "/metrics").text
    )
    return int(sum(map(float, found)))


def scene(value: int) -> np.ndarray:
    """A small image of one value."""
    return np.full((1, 3, 5), value, np.uint16)


def tile_at(column: int) -> TileInfo:
    """A tile of a wide scene."""
    window = Window(column, 0, 5, 3)
    return TileInfo(read=window, write=window, scene_size=(500, 3))


def test_an_array_of_payloads_is_answered_by_an_array(serve: Serve) -> None:
    """In their order, defaults and all; none is none."""
    web = serve("add")
    answer = web("POST", "/process", json=[{"a": 1}, {"a": 2, "b": 5}, {"a": 3, "b": 0}])
    assert answer.json() == [{"result": 2}, {"result": 7}, {"result": 3}]
    assert web("POST", "/process", json=[]).json() == []
    assert web("POST", "/process", json={"a": 1}).json() == {"result": 2}


def test_every_payload_is_judged_before_any_runs(serve: Serve) -> None:
    """All faults at once, by pointers that begin with the payload."""
    answer = serve("add")("POST", "/process", json=[{"a": "x"}, {"a": 13}, {"b": "y"}, 4])
    assert answer.status_code == 422
    assert pointers(answer) == ["/0/a", "/2/a", "/2/b", "/3"]


def test_a_payload_that_fails_fails_the_request(serve: Serve) -> None:
    """As it would alone."""
    answer = serve("add")("POST", "/process", json=[{"a": 1}, {"a": 13}])
    assert (answer.status_code, answer.json()["retryable"]) == (500, False)


def test_more_than_it_takes_is_refused_by_the_number(serve: Serve) -> None:
    """The limit is named; one less is the control."""
    web = serve("add")
    refused = web("POST", "/process", json=[{"a": 1}] * 5)
    assert (refused.status_code, "at most 4" in refused.json()["detail"]) == (413, True)
    assert web("POST", "/process", json=[{"a": 1}] * 4).status_code == 200


def test_a_process_that_is_not_batched_says_so(serve: Serve) -> None:
    """422, whatever is in the array."""
    answer = serve("double_alone")("POST", "/process", json=[{}])
    assert (answer.status_code, "not batched" in answer.json()["detail"]) == (422, True)


def test_a_batch_is_no_job(serve: Serve) -> None:
    """Its payloads are."""
    answer = serve("add")("POST", "/process", json=[{"a": 1}], headers=AT_ONCE)
    assert (answer.status_code, "one by one" in answer.json()["detail"]) == (422, True)


def test_pixels_of_a_batch_travel_as_they_are(serve: Serve) -> None:
    """A form both ways: parts are named by payload and input, or output."""
    files = [(f"/{index}/scene", ("a.npy", npy(scene(index)), NPY)) for index in (0, 1)]
    headers = {"Accept": f"{FORM}, {NPY};q=0.5"}
    answer = serve("double_only")("POST", "/process", files=files, headers=headers)
    assert answer.headers["content-type"].startswith(FORM)
    assert answer.content.count(b"\x93NUMPY") == 2
    assert re.findall(rb' name="([^"]*)"', answer.content) == [b"/0/doubled", b"/1/doubled"]


def test_payloads_of_a_form_count_from_nought(serve: Serve) -> None:
    """A gap is told."""
    files = [(f"/{index}/scene", ("a.npy", npy(scene(1)), NPY)) for index in (0, 2)]
    answer = serve("double_only")("POST", "/process", files=files)
    assert (answer.status_code, "[0, 2]" in answer.json()["detail"]) == (400, True)


@pytest.mark.parametrize("name", ["double", "double_only"])
def test_the_client_sends_as_few_requests_as_it_may(serve: Serve, name: str) -> None:
    """Nine calls of four at most are three requests; each answer is that of its call."""
    web = serve(name)
    before = requests_to(web)
    with Client(web.url) as client:
        found = client.process_many(
            [{"scene": scene(n)} for n in range(9)], tiles=[tile_at(n) for n in range(9)]
        )
    assert requests_to(web) - before == 3
    for number, outputs in enumerate(found):
        assert np.array_equal(outputs["doubled"], scene(2 * number))  # type: ignore[arg-type]  # an image
        assert outputs.get("column", number) == number


def test_where_it_is_not_batched_calls_follow_each_other(serve: Serve) -> None:
    """Control: the same answers, a request each."""
    web = serve("double_alone")
    before = requests_to(web)
    with Client(web.url) as client:
        found = client.process_many([{"scene": scene(n)} for n in range(3)])
    assert requests_to(web) - before == 3
    assert [int(each["doubled"].max()) for each in found] == [0, 2, 4]  # type: ignore[attr-defined]  # images


def test_a_wrong_call_is_named_by_its_place(serve: Serve) -> None:
    """What the service says of it comes back."""
    with Client(serve("add").url) as client, pytest.raises(InvalidInput) as told:
        client.process_many([{"a": 1}, {"a": "x"}])
    assert [each.pointer for each in told.value.fields] == ["/1/a"]


def at_once(web: Server, values: list[int]) -> list[object]:
    """Call a service from as many threads as there are values, as a run does."""
    with Client(web.url) as client:
        known = client.described
    service = Service(
        targets=(web.url,),
        description=known.description.to_json(),
        build=known.build,
        transports=known.transports,
    )
    caller, start = caller_for(service), threading.Barrier(len(values))

    def call(value: int) -> object:
        start.wait()
        try:
            return int(caller.run({"scene": scene(value)}, tile=None)["doubled"].max())  # type: ignore[attr-defined]  # an image
        except PestoError as error:
            return type(error)

    try:
        with ThreadPoolExecutor(len(values)) as pool:
            return list(pool.map(call, values))
    finally:
        close_callers()


def test_calls_of_a_runs_threads_share_requests(serve: Serve) -> None:
    """Eight at once of four at most: far fewer requests than calls, and each has its answer."""
    web = serve("double_only")
    before = requests_to(web)
    assert at_once(web, list(range(8))) == [2 * value for value in range(8)]
    assert requests_to(web) - before <= 5


def test_calls_to_a_process_that_is_not_batched_do_not(serve: Serve) -> None:
    """Control: eight calls, eight requests."""
    web = serve("double_alone")
    before = requests_to(web)
    assert at_once(web, list(range(8))) == [2 * value for value in range(8)]
    assert requests_to(web) - before == 8


def test_a_call_that_fails_fails_alone(serve: Serve) -> None:
    """The others of its request are answered."""
    found = at_once(serve("double_only"), [1, 2, 2000, 3])
    assert found == [2, 4, AlgorithmFailed, 6]
