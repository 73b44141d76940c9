"""How an error looks on the wire: a problem document (RFC 9457) that says whether to ask again."""

from __future__ import annotations

from pydantic import Field

from pesto_runtime.contract.raster import ClosedValue, Value


class ProblemField(ClosedValue):
    """One wrong field."""

    pointer: str = Field(description="JSON pointer (RFC 6901) into the request")
    detail: str
    value: str | None = Field(default=None, description="the start of the offending value")


class Problem(Value):
    """The body of every answer that is an error."""

    type: str = Field(default="about:blank", description="urn:pesto:error:SLUG")
    title: str = ""
    status: int = Field(ge=400, le=599)
    detail: str
    retryable: bool = Field(default=False, description="whether the same request can succeed later")
    errors: tuple[ProblemField, ...] = ()
