"""Check a service under several calls at once: mixing, busy, health, cancellation, jobs."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx

from pesto_runtime.kit.answer_checks import equal_outputs
from pesto_runtime.kit.check_list import check
from pesto_runtime.kit.claims import NotApplicable, require
from pesto_runtime.kit.service_under_test import json_object, shown

if TYPE_CHECKING:
    from pesto_runtime.kit.sample_calls import SampleCall
    from pesto_runtime.kit.service_under_test import ServiceUnderTest

_AT_ONCE = 6
_BURST = 12
_LEAVING = 4
_LEAVES_AFTER_S = 0.3
_SHARE = 0.7
_ANSWERED_WITHIN_S = 0.9
_BUSY = (429, 503)


@check
def parallel_calls_do_not_mix(service: ServiceUnderTest) -> None:
    """Calls at the same time with different images return what each returns alone."""
    service.require_accepted()
    if not service.sample.images:
        raise NotApplicable("the process takes no image, so that calls cannot differ")
    if service.description.known.asynchronous:
        raise NotApplicable("an asynchronous service returns a link to each call")
    calls = [service.sample.turned(number) for number in range(_AT_ONCE)]
    alone = [service.decoded(service.called(call)) for call in calls]
    if all(equal_outputs(alone[0], each) for each in alone[1:]):
        raise NotApplicable("the outputs do not depend on the pixels of the sample call")
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = list(pool.map(service.called, calls))
    for number, (expected, answer) in enumerate(zip(alone, answers, strict=True)):
        require(answer.status_code == 200, f"call {number}: {shown(answer)}")
        require(
            equal_outputs(expected, service.decoded(answer)),
            f"call {number} returns other outputs beside {_AT_ONCE - 1} calls than alone",
        )


@check
def a_busy_service_states_when_to_retry(service: ServiceUnderTest) -> None:
    """A refusal of a busy service is 429 or 503 with Retry-After; other calls succeed."""
    service.require_accepted()
    call = service.slow_sample if service.slow else service.sample
    with ThreadPoolExecutor(_BURST) as pool:
        answers = list(pool.map(lambda _: service.post(call.wire()), range(_BURST)))
    refused = [each for each in answers if each.status_code in _BUSY]
    wrong = [each for each in answers if each.status_code not in (200, 201, *_BUSY)]
    require(not wrong, f"one of {_BURST} calls at once: {shown(wrong[0]) if wrong else ''}")
    if not refused:
        raise NotApplicable(f"the service accepts {_BURST} calls at once")
    for each in refused:
        require("retry-after" in each.headers, f"no Retry-After: {shown(each)}")


@check
def health_responds_during_a_call(service: ServiceUnderTest) -> None:
    """GET /health responds within a second, with OK, while a call runs."""
    call = service.slow_sample
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(service.called, call)
        time.sleep(_LEAVES_AFTER_S)
        health = service.send("GET", "/health", timeout=_ANSWERED_WITHIN_S * 10)
        was_running = not running.done()
        answer = running.result()
    require(answer.status_code < 300, f"the slow call fails: {shown(answer)}")
    seconds = health.elapsed.total_seconds()
    require(health.status_code == 200 and health.text.strip() == "OK", f"health: {shown(health)}")
    require(seconds <= _ANSWERED_WITHIN_S, f"health takes {seconds:.1f} s while a call runs")
    if not was_running:
        raise NotApplicable("the slow call ended before the request; make it longer: --pesto-slow")


@check
def a_caller_that_leaves_frees_its_place(service: ServiceUnderTest) -> None:
    """Calls whose callers have closed the connection are stopped: another call need not wait."""
    if service.description.known.asynchronous:
        raise NotApplicable("a job of an asynchronous service does not end with its caller")
    call = service.slow_sample
    with ThreadPoolExecutor(_LEAVING) as pool:
        left = list(pool.map(lambda _: _lasts(service, call, _LEAVES_AFTER_S), range(_LEAVING)))
    if not any(left):
        raise NotApplicable("the slow call ends at once; make it longer: --pesto-slow")
    started = time.monotonic()
    answer = service.called(service.sample)
    waited_s = time.monotonic() - started
    require(answer.status_code < 300, f"a call after that: {shown(answer)}")
    require(
        _lasts(service, call, waited_s / _SHARE),
        f"after other callers have left, a call waits {waited_s:.1f} s: as long as one lasts",
    )


@check
def a_job_can_be_dismissed(service: ServiceUnderTest) -> None:
    """A job that is deleted while it runs ends, and has no results afterwards."""
    call = service.slow_sample
    answer = service.post(call.wire(), Prefer="respond-async")
    document = json_object(answer)
    link = str(document.get("link") or document.get("status_url") or answer.headers.get("location"))
    if answer.status_code not in (200, 201, 202) or "/jobs/" not in link:
        raise NotApplicable(f"the service makes no jobs of calls: {shown(answer)}")
    name = link.partition("/jobs/")[2].partition("/")[0]
    deleted = service.send("DELETE", f"/jobs/{name}")
    require(deleted.status_code == 200, f"DELETE /jobs/{name}: {shown(deleted)}")
    status = service.get(f"/jobs/{name}/status")
    is_over = status.status_code in (404, 410) or "RUNNING" not in status.text
    require(is_over, f"after DELETE, the job has the status {shown(status)}")
    results = service.get(f"/jobs/{name}/results")
    require(results.status_code in (404, 410), f"a dismissed job has results: {shown(results)}")


def _lasts(service: ServiceUnderTest, call: SampleCall, seconds: float) -> bool:
    """Send a call, and close the connection after so many seconds; whether it still ran."""
    timeout = httpx.Timeout(10.0, read=max(seconds, _LEAVES_AFTER_S))
    with httpx.Client(trust_env=False, timeout=timeout) as http:
        try:
            http.post(f"{service.url}/process", content=json.dumps(call.wire()),
                      headers={"Content-Type": "application/json"})  # fmt: skip
        except httpx.ReadTimeout:
            return True
        except httpx.TransportError as error:
            raise AssertionError(f"the service drops a connection: {error!r}") from error
    return False
