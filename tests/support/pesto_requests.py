"""Requests that are sent to PESTO 1.7.2 and to us alike; what PESTO answers is kept in tests/data.

`{file:NAME}`, `{base64:NAME}` and `{http:NAME}` stand for an image of `pesto_images` in that form,
`{path:NAME}` for its bare path, `{job}` for the id of the job that the first step has made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import JsonValue

PROCESS = "/process"
FORM = '--b\r\nContent-Disposition: form-data; name="show"\r\n\r\nx\r\n--b--\r\n'


@dataclass(frozen=True)
class Step:
    """One request below `/api/v1`.

    Attributes:
        document: Sent as JSON, where `raw` is None.
        raw: Sent as it is.
    """

    method: str
    path: str
    document: JsonValue = None
    raw: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """Requests that follow each other, to the process or to its asynchronous profile."""

    id: str
    steps: tuple[Step, ...]
    is_stateful: bool = False


def cases() -> tuple[Case, ...]:
    """All of them."""
    return (*_documents(), *_values(), *_images(), *_windows(), *_mistakes(), *_jobs())


def _get(path: str) -> tuple[Step, ...]:
    return (Step("GET", path),)


def _post(**document: JsonValue) -> tuple[Step, ...]:
    return (Step("POST", PROCESS, {"show": "x", **document}),)


def _documents() -> Iterator[Case]:
    for name in ("health", "describe", "version", "config", "jobs"):
        yield Case(name, _get(f"/{name}"))
    for name in ("health", "describe", "version"):
        yield Case(f"stateful-{name}", _get(f"/{name}"), is_stateful=True)
    yield Case("no-such-path", _get("/nosuch"))
    yield Case("get-process", _get(PROCESS))
    yield Case("post-jobs", (Step("POST", "/jobs", {"show": "x", "count": 1}),))


def _values() -> Iterator[Case]:
    given: dict[str, dict[str, JsonValue]] = {
        "nothing": {}, "number": {"amount": 2.5}, "whole-number": {"amount": 3},
        "integer": {"count": 3}, "integer-as-float": {"count": 3.0}, "text": {"word": "été"},
        "true": {"flag": True}, "row": {"row": [1, 2.5, -3e10]}, "empty-row": {"row": []},
        "tree": {"tree": {"a": 1, "b": {"c": "q"}}}, "choice": {"mode": "fast"},
        "tree-strangers": {"tree": {"a": 1, "zz": 2, "b": {"c": "q", "d": 3}}},
        "metadata": {"facts": {"k": [1, {"l": None}], "e": ""}},
        "metadatas": {"notes": [{"a": 1}, {"b": [2]}]}, "stranger-input": {"nope": 1, "amount": 1},
        "empty-options": {"amount": 1, "pesto": {}},
    }  # fmt: skip
    for name, values in given.items():
        yield Case(name, _post(**values))
    for shown in ("area", "none", "nan", "scalar", "stranger", "digit", "scale", "fault"):
        yield Case(f"shows-{shown}", _post(show=shown))
    text = {"Content-Type": "text/plain"}
    raw = '{"show": "x", "amount": 1}'
    yield Case("as-text", (Step("POST", PROCESS, raw=raw, headers=text),))
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    yield Case("as-form", (Step("POST", PROCESS, raw=FORM, headers=form),))


def _images() -> Iterator[Case]:
    for shown in ("flat", "uint16", "float32", "four", "six", "twelve"):
        yield Case(f"shows-{shown}", _post(show=shown))
    for name in ("rgb.tif", "rgb.png", "grey.png", "rgb.jpg", "u16.tif", "u16x4.tif", "u8x6.tif"):
        yield Case(f"file-{name}", _post(picture=f"{{file:{name}}}"))
        yield Case(f"base64-{name}", _post(picture=f"{{base64:{name}}}"))
    yield Case("http-rgb.tif", _post(picture="{http:rgb.tif}"))
    yield Case("float32-in", _post(picture="{file:f32.tif}"))
    yield Case("list", _post(pictures=["{base64:grey.png}", "{file:rgb.tif}"]))
    yield Case("empty-list", _post(pictures=[]))


def _windows() -> Iterator[Case]:
    bands = {
        "inside": (_band(10, 20, 5), _band(8, 16, 4)),
        "no-margin": (_band(10, 20, None), _band(8, 16, None)),
        "first-line-last-column": (_band(0, 20, 5), _band(48, 16, 4)),
        "last-line-first-column": (_band(44, 20, 5), _band(0, 16, 4)),
        "beyond": (_band(60, 20, 5), _band(8, 16, 4)),
    }
    lines, columns = bands["inside"]
    for name, each in bands.items():
        roi = _roi(lines=each[0], columns=each[1])
        yield Case(f"roi-{name}", _post(picture="{file:wide.tif}", pesto={"roi": roi}))
    lines_only, both = _roi(lines=lines), _roi(lines=lines, columns=columns)
    yield Case("roi-lines-only", _post(picture="{file:wide.tif}", pesto={"roi": lines_only}))
    yield Case("roi-of-base64", _post(picture="{base64:wide.tif}", pesto={"roi": both}))
    kept: JsonValue = {**both, "target_out": []}
    yield Case("roi-kept-margin", _post(picture="{file:wide.tif}", pesto={"roi": kept}))


def _roi(**bands: JsonValue) -> dict[str, JsonValue]:
    return {"target_in": ["picture"], "target_out": ["picture"], **bands}


def _band(first: int, number: int, margin: int | None) -> JsonValue:
    return {"first": first, "number": number, **({} if margin is None else {"margin": margin})}


def _mistakes() -> Iterator[Case]:
    wrong: dict[str, dict[str, JsonValue]] = {
        "not-an-integer": {"count": 2.5}, "below-minimum": {"amount": -1}, "null": {"amount": None},
        "not-a-number": {"amount": "1"}, "too-long": {"word": "x" * 11}, "no-choice": {"mode": "z"},
        "wrong-item": {"row": [1, "a"]}, "wrong-leaf": {"tree": {"a": "x"}},
        "number-for-image": {"picture": 12}, "image-for-list": {"pictures": "{file:rgb.tif}"},
        "null-image": {"picture": None}, "no-such-file": {"picture": "{file:nosuch.tif}"},
        "no-such-url": {"picture": "{http:nosuch.tif}"}, "empty-image": {"picture": ""},
        "text-file": {"picture": "{file:text.txt}"}, "not-base64": {"picture": "!!!"},
        "base64-of-text": {"picture": "{base64:text.txt}"},
        "bare-path": {"picture": "{path:rgb.tif}"}, "broken-file": {"picture": "{file:broken.tif}"},
    }  # fmt: skip
    for name, values in wrong.items():
        yield Case(name, _post(**values))
    yield Case("missing", (Step("POST", PROCESS, {"amount": 1}),))
    yield Case("list-for-body", (Step("POST", PROCESS, []),))
    for name, raw in (("null-body", "null"), ("empty-body", ""), ("no-json", "not json")):
        yield Case(name, (Step("POST", PROCESS, raw=raw),))


def _jobs() -> Iterator[Case]:
    plain: dict[str, JsonValue] = {
        "amount": 2.5, "count": 3, "word": "abc", "flag": True, "row": [1, 2],
        "tree": {"a": 1}, "facts": {"a": 1}, "notes": [{"a": 1}],
    }  # fmt: skip
    yield _job("job-values", plain, *plain)
    yield _job("job-image", {"picture": "{file:rgb.tif}"}, "picture", "facts")
    listed: JsonValue = ["{file:rgb.tif}", "{file:grey.png}"]
    yield _job("job-list", {"pictures": listed}, "pictures0", "pictures1")
    yield _job("job-area", {"show": "area"}, "area", "areas")
    yield _job("job-uint16", {"show": "uint16"}, "picture")
    yield _job("job-float32", {"show": "float32"}, "picture")
    yield _job("job-six", {"show": "six"}, "picture")
    yield _job("job-twelve", {"show": "twelve"}, "pictures10")
    yield _job("job-digit", {"show": "digit"}, "band1")
    yield _job("job-no-such-result", {"amount": 1}, "nosuch")
    result = "/jobs/{job}/results/amount"
    deleting = (Step("DELETE", result), Step("DELETE", result), Step("GET", "/jobs/{job}/results"))
    yield Case("job-delete", (*_post(amount=1, count=2), *deleting), is_stateful=True)
    last = (Step("DELETE", result), Step("GET", result), Step("GET", "/jobs/{job}/status"))
    yield Case("job-delete-last", (*_post(amount=1), *last), is_stateful=True)
    yield Case("job-fault", _post(show="fault"), is_stateful=True)
    yield Case("job-wrong", _post(amount=-1), is_stateful=True)
    yield Case("job-unknown", _get("/jobs/nosuch/status"), is_stateful=True)


def _job(name: str, values: dict[str, JsonValue], *results: str) -> Case:
    below = "/jobs/{job}"
    asked = (f"{below}/status", f"{below}/results", *(f"{below}/results/{r}" for r in results))
    return Case(name, (*_post(**values), *(Step("GET", path) for path in asked)), is_stateful=True)
