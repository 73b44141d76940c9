"""A service under test: requests as any HTTP client would send them, and one sample call.

`ServiceUnderTest.get` and `post` send requests exactly as given, right or wrong, without a retry;
`client` is the client of this package, which waits for a busy service.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, cast

import httpx

from pesto_runtime.client.answering import outputs_of_json
from pesto_runtime.client.client import Client
from pesto_runtime.client.sending import OutgoingCall
from pesto_runtime.client.transport import http_options, service_url
from pesto_runtime.errors import PestoError
from pesto_runtime.kit.claims import NotApplicable, require
from pesto_runtime.kit.sample_calls import SampleCall, sample_call

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from pydantic import JsonValue

    from pesto_runtime.contract import Description

_WAIT_S = 60.0
_SHOWN = 300


@dataclass(frozen=True, eq=False)
class ServiceUnderTest:
    """A service, and a call that it accepts.

    Attributes:
        url: Its address, `/api/v1` included.
        given: Input name -> text or value for the sample call, as for `pesto process`.
        slow: Further inputs that make the sample call last for a second or more.
        pin: Digest, or file that `pesto discover` saved, that the service must still have.
    """

    url: str
    given: Mapping[str, JsonValue] = field(default_factory=dict)
    slow: Mapping[str, JsonValue] = field(default_factory=dict)
    pin: str | None = None

    @classmethod
    def at(cls, url: str, **options: object) -> Self:
        """Return the service at an address, with or without `/api/v1`.

        Raises:
            InvalidInput: it is not an http(s) URL.
        """
        return cls(service_url(url), **options)  # type: ignore[arg-type]  # the fields of the class

    @cached_property
    def http(self) -> httpx.Client:
        """The connection of `get` and `post`."""
        return httpx.Client(**http_options(self.url, timeout_s=_WAIT_S, headers=None, verify=True))

    @cached_property
    def client(self) -> Client:
        """The client of this package for the service."""
        return Client(self.url, timeout_s=_WAIT_S, patience_s=_WAIT_S)

    def close(self) -> None:
        """Close the connections."""
        self.http.close()
        self.client.close()

    def send(self, method: str, path: str, **options: object) -> httpx.Response:
        """Send one request; its path is below `/api/v1`, or a URL."""
        target = path if "://" in path else self.url + path
        return self.http.request(method, target, **options)  # type: ignore[arg-type]  # those of httpx

    def get(self, path: str, **headers: str) -> httpx.Response:
        """Send a GET."""
        return self.send("GET", path, headers=headers)

    def post(self, document: object, **headers: str) -> httpx.Response:
        """Post JSON to `/process`."""
        return self.send("POST", "/process", content=json.dumps(document),
                         headers={"Content-Type": "application/json", **headers})  # fmt: skip

    @cached_property
    def description(self) -> Description:
        """Its description.

        Raises:
            AssertionError: it has none that is valid.
        """
        try:
            return self.client.describe()
        except PestoError as error:
            raise AssertionError(str(error)) from error

    @cached_property
    def sample(self) -> SampleCall:
        """A call that it should accept.

        Raises:
            InvalidInput: an input that was given does not exist.
        """
        return sample_call(self.description, self.given)

    @cached_property
    def slow_sample(self) -> SampleCall:
        """The same call with the inputs that make it last.

        Raises:
            NotApplicable: there are no such inputs.
        """
        if not self.slow:
            raise NotApplicable(
                "it needs a call that lasts a second or more: --pesto-slow NAME=VALUE"
            )
        return sample_call(self.description, {**self.given, **self.slow})

    @cached_property
    def answer(self) -> httpx.Response:
        """The response to the sample call, requested once.

        A busy service is asked again; one that is `asynchronous` answers by a job.
        """
        return self.called(self.sample)

    def called(self, call: SampleCall) -> httpx.Response:
        """Post a call, again while the service is busy."""
        answer = self.post(call.wire())
        for _ in range(int(_WAIT_S)):
            if answer.status_code not in (429, 503):
                break
            _pause(answer)
            answer = self.post(call.wire())
        return answer

    def outputs(self, call: SampleCall | None = None) -> dict[str, object]:
        """Return the outputs of a call: images as arrays (band, row, col).

        The call is JSON with images in base64, as any client can send it; a job of an
        `asynchronous` service.

        Args:
            call: The sample call if None.

        Raises:
            NotApplicable: the service refuses the sample call: values that fit are not known.
            AssertionError: the call fails.
        """
        self.require_accepted()
        if self.description.known.asynchronous:
            return self.client_outputs(call)
        answer = self.answer if call is None else self.called(call)
        require(answer.status_code == 200, f"the call fails: {shown(answer)}")
        return self.decoded(answer)

    def client_outputs(
        self, call: SampleCall | None = None, *, accept: str | None = None
    ) -> dict[str, object]:
        """Return the outputs as the client of this package receives them.

        Args:
            call: The sample call if None.
            accept: `image/tiff` for images as `Image`, with their georeference.

        Raises:
            NotApplicable: the service refuses the sample call.
            AssertionError: the call fails.
        """
        self.require_accepted()
        try:
            return self.client.process((call or self.sample).arguments(), accept=accept)
        except PestoError as error:
            raise AssertionError(f"the call failed: {error}") from error

    def decoded(self, answer: httpx.Response) -> dict[str, object]:
        """Read the outputs of a JSON response, images as arrays (band, row, col).

        Raises:
            AssertionError: it is not a JSON object of outputs.
        """
        document = json_object(answer)
        try:
            return outputs_of_json(
                document, OutgoingCall({}), self.client.described, where=self.url
            )
        except PestoError as error:
            raise AssertionError(str(error)) from error

    def require_accepted(self) -> None:
        """Require that the service accepts the sample call.

        Raises:
            NotApplicable: it refuses it: its inputs are made from the schema alone.
            AssertionError: it fails on it.
        """
        answer = self.answer
        if 400 <= answer.status_code < 500:
            raise NotApplicable(
                f"the service refuses the sample call ({shown(answer)}); give inputs that it "
                "accepts: --pesto-input NAME=VALUE"
            )
        require(answer.status_code < 300, f"the sample call fails: {shown(answer)}")


def json_object(answer: httpx.Response) -> dict[str, JsonValue]:
    """Return the JSON object of a response.

    Raises:
        AssertionError: it is something else.
    """
    try:
        document = answer.json()
    except ValueError as error:
        raise AssertionError(f"not JSON: {shown(answer)}") from error
    require(isinstance(document, dict), f"not a JSON object: {shown(answer)}")
    return cast("dict[str, JsonValue]", document)


def shown(answer: httpx.Response) -> str:
    """Return status, type and start of a response as text."""
    kind = answer.headers.get("content-type", "no type")
    text = answer.content[:_SHOWN].decode("utf-8", "replace")
    rest = f"... ({len(answer.content)} bytes)" if len(answer.content) > _SHOWN else ""
    return f"HTTP {answer.status_code}, {kind}: {text}{rest}"


def _pause(answer: httpx.Response) -> None:
    import time

    stated = answer.headers.get("retry-after", "")
    time.sleep(min(float(stated), 5.0) if stated.isdigit() else 0.5)
