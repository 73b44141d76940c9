"""What others build upon does not change unnoticed: bytes, keys, names, options, routes, errors."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING

import pytest

import pesto_runtime
from pesto_runtime.contract import PRODUCT_FORMAT
from pesto_runtime.errors import Busy
from tests.support.outside import golden, products

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import JsonValue

pytestmark = pytest.mark.contract

REST = sorted(set(golden.KINDS) - {"products"})


@functools.cache
def made(kind: str) -> dict[str, JsonValue]:
    return golden.KINDS[kind]()


def require_same(was: JsonValue, now: JsonValue, why: str) -> None:
    found = list(golden.differences(was, now))
    assert not found, "\n".join([why, *found[:40]])


@pytest.mark.parametrize("kind", REST)
def test_what_others_see_is_as_it_was(kind: str) -> None:
    """Every value of a golden file; a change on purpose is written by the refresh."""
    why = f"others depend on this; where it is meant to change: {golden.REFRESH} {kind}"
    require_same(golden.frozen(kind), made(kind), why)


def test_products_decode_to_what_they_were() -> None:
    """Pixels, place, nodata, vectors, values and the keys of their blocks, whoever compressed."""
    was, now = (
        products.decoded_alone(each) for each in (golden.frozen("products"), made("products"))
    )
    require_same(was, now, f"{products.COUNT_UP}; then {golden.REFRESH}")


def test_products_are_the_bytes_that_they_were() -> None:
    """Every dtype with and without nodata, three bands, COG, holes: each file and each block."""
    was, now = golden.frozen("products"), made("products")
    if was["written_by"] != now["written_by"]:
        pytest.skip(f"NOT COMPARED: frozen by {was['written_by']}, this is {now['written_by']}")
    was, now = products.by_any_python(was), products.by_any_python(now)
    require_same(was, now, f"{products.COUNT_UP}; then {golden.REFRESH}")


def test_bytes_that_change_without_their_format_are_not_frozen_anew() -> None:
    """The refresh itself refuses; counted up, or written by another GDAL, they are taken."""
    was = golden.frozen("products")
    now = json.loads(json.dumps(was))
    now["runs"]["dtypes"]["files"]["plain_uint8.tif"] = "0" * 64
    assert products.are_unannounced(was, now)
    with pytest.raises(ValueError, match="count PRODUCT_FORMAT up"):
        golden.refresh("products", now)
    assert not products.are_unannounced(was, {**now, "format": PRODUCT_FORMAT + 1})
    assert not products.are_unannounced(was, {**now, "written_by": {}})
    assert not products.are_unannounced(was, was)


def paths_of(document: JsonValue, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The keys that lead to every value."""
    for key, value in document.items() if isinstance(document, dict) else ():
        yield (*at, key)
        yield from paths_of(value, (*at, key))


@pytest.mark.parametrize("kind", golden.KINDS)
def test_a_value_that_goes_comes_or_changes_is_seen(kind: str) -> None:
    """Negative control of the comparison, at ten places of every golden file."""
    was = golden.frozen(kind)
    paths = [*paths_of(was)]
    for *way, last in paths[:: max(1, len(paths) // 10)]:
        now, where = json.loads(json.dumps(was)), "/" + "/".join([*way, last])
        place = functools.reduce(lambda found, key: found[key], way, now)
        place[last] = ["another", place[last]]
        (told,) = golden.differences(was, now)
        assert told.startswith(f"{where}: was ")
        del place[last]
        assert [*golden.differences(was, now)] == [f"{where}: is gone"]
        assert [*golden.differences(now, was)] == [f"{where}: is new"]


def test_a_default_and_a_status_that_change_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control of two descriptions: the real things are touched."""

    def log(text: str, level: int = 1) -> None: ...

    monkeypatch.setattr(pesto_runtime, "log", log, raising=False)
    monkeypatch.setattr(Busy, "status", 429)
    told = [
        *golden.differences(golden.frozen("public"), golden.KINDS["public"]()),
        *golden.differences(golden.frozen("errors"), golden.KINDS["errors"]()),
    ]
    assert [each.partition(": ")[0] for each in told] == ["/pesto_runtime/log", "/busy/status"]
