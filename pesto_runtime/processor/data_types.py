"""Types of an author's values: a schema on the wire, decoding for the author, encoding of results.

An entry point of the group `pesto.types` is a function from a type hint to a `DataType`, or None if
the hint is not its own. Images and GeoJSON are two of them; JSON values are all that nobody takes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
from pydantic import TypeAdapter, ValidationError

from pesto_runtime.contract import bad_fields
from pesto_runtime.errors import (
    BadField,
    ContractBroken,
    InvalidContract,
    InvalidInput,
    PestoError,
    shortened,
)
from pesto_runtime.processor.hints import Hint, adapter_of, validate_json
from pesto_runtime.processor.values import (
    encode_value,
    image_faults,
    output_image,
    output_images,
    read_only,
    received_mask,
)
from pesto_runtime.schema import schema_faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import PortKind, RasterContract

GROUP = "pesto.types"
_NOT_JSON = "must be a list of arrays (band, row, col)"


@dataclass(frozen=True)
class DataType:
    """A type of values.

    Attributes:
        kind: How its values travel: `image`, `images`, `vector` (GeoJSON) or `json`.
        schema: JSON schema of its values on the wire; empty if `adapter` writes it.
        decode: A value of the wire, with the contract of an image -> a value for the author; raises
            `InvalidInput` with pointers below the value, or `ValueError`.
        encode: A value of the author, with the name of the output -> a value of the wire; raises
            `ContractBroken` or `ValueError`.
        adapter: Pydantic's adapter for its values; None without one.
    """

    kind: PortKind
    schema: Mapping[str, JsonValue]
    decode: Callable[[object, RasterContract | None], object]
    encode: Callable[[object, str], object]
    adapter: TypeAdapter[object] | None = field(default=None, repr=False)

    @classmethod
    def json(
        cls,
        schema: Mapping[str, JsonValue],
        *,
        decode: Callable[[object], object],
        encode: Callable[[object], object],
    ) -> DataType:
        """Return a type whose values are JSON on the wire.

        Args:
            schema: Their JSON schema, draft-06; values are validated before they are decoded.
            decode: JSON -> a value for the author; raises `ValueError` for a wrong one.
            encode: A value of the author -> JSON; raises `ValueError` for a wrong one.
        """

        def valid(value: object, _contract: RasterContract | None) -> object:
            _require(schema_faults(schema, cast("JsonValue", value)))
            return decode(value)

        return cls("json", schema, valid, lambda value, name: encode_value(name, encode(value)))

    def faults(self, name: str, value: object, contract: RasterContract | None,
               into: dict[str, object]) -> Iterator[BadField]:  # fmt: skip
        """Decode an input and add it to the arguments; yield its faults."""
        try:
            into[name] = self.decode(value, contract)
        except InvalidInput as error:
            for each in error.fields or [BadField("", error.detail, shortened(value))]:
                yield BadField(f"/{name}{each.pointer}", each.detail, each.value)
        except ValueError as error:
            yield BadField(f"/{name}", str(error), shortened(value))

    def encoded(self, name: str, value: object) -> object:
        """Encode an output.

        Raises:
            ContractBroken: the value is not one of this type; names the output.
        """
        try:
            return self.encode(value, name)
        except PestoError:
            raise
        except (ValueError, TypeError, AttributeError) as error:
            raise ContractBroken(f"output {name!r}: {error}, not {shortened(value)}") from error


Finder: TypeAlias = "Callable[[Hint, str], DataType | None]"


def reference(definition: str) -> dict[str, JsonValue]:
    """Return a reference to a definition of the same object schema."""
    return {"$ref": f"#/definitions/{definition}"}


def image_type(hint: Hint, _where: str) -> DataType | None:
    """Return the type of an image, an array (band, row, col), or of a list of them."""
    if hint.is_array:
        return IMAGE
    return IMAGES if hint.items is not None and hint.items.is_array else None


def geojson_type(hint: Hint, where: str) -> DataType | None:
    """Return the type of a FeatureCollection, whose hint has a `Vector`.

    Raises:
        InvalidContract: the value may be None, or is an array.
    """
    if hint.vector is None:
        return None
    if hint.is_array:
        raise InvalidContract(f"{where}: Vector is for dict, a FeatureCollection; not for an array")
    if hint.optional:
        raise InvalidContract(
            f"{where}: a vector must not be None; without features it is an empty list"
        )
    return _by_adapter("vector", adapter_of(hint.whole, where))


def data_type_of(hint: Hint, where: str) -> DataType:
    """Return the type of a hint: that of an entry point, or a JSON value.

    Args:
        hint: The type hint.
        where: Its place, for messages.

    Raises:
        InvalidContract: two entry points take it, or it has no JSON schema.
    """
    found = {name: each for name, finder in _finders().items() if (each := finder(hint, where))}
    if len(found) > 1:
        raise InvalidContract(f"{where}: its type is that of {' and '.join(sorted(found))}")
    if found:
        return next(iter(found.values()))
    return _by_adapter("json", adapter_of(hint.whole, where))


def encode_as(kind: PortKind, name: str, value: object) -> object:
    """Encode an output of which only the kind is known: of a project without type hints.

    Raises:
        ContractBroken: the value has no such form.
    """
    known = {"image": IMAGE, "images": IMAGES}.get(kind)
    return known.encoded(name, value) if known else encode_value(name, value)


@cache
def _finders() -> Mapping[str, Finder]:
    return {each.name: cast("Finder", each.load()) for each in entry_points(group=GROUP)}


def _decode_image(value: object, contract: RasterContract | None) -> object:
    _require(image_faults("", value, contract))
    pixels = np.asarray(value)
    is_mask = contract is not None and bool(contract.mask)
    return read_only(received_mask(pixels, contract) if is_mask else pixels)


def _decode_images(value: object, contract: RasterContract | None) -> object:
    if not isinstance(value, (list, tuple)):
        raise InvalidInput.of("images", [BadField("", _NOT_JSON, shortened(value))])
    _require(fault for index, each in enumerate(value)
             for fault in image_faults(f"/{index}", each, contract))  # fmt: skip
    is_mask = contract is not None and bool(contract.mask)
    arrays = [np.asarray(each) for each in value]
    return [read_only(received_mask(a, contract) if is_mask else a) for a in arrays]


def _require(faults: Iterator[BadField]) -> None:
    if found := list(faults):
        raise InvalidInput.of("value", found)


def _by_adapter(kind: PortKind, adapter: TypeAdapter[object]) -> DataType:
    """Return the type of values that pydantic validates, as JSON, strictly."""

    def decode(value: object, _contract: RasterContract | None) -> object:
        try:
            # Strict mode accepts a list for a tuple only in JSON, not in Python values:
            # https://docs.pydantic.dev/latest/concepts/strict_mode/
            return validate_json(adapter, json.dumps(value, allow_nan=False))
        except ValidationError as error:
            raise InvalidInput.of("value", bad_fields(error, value=value)) from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"is not JSON: {error}") from error

    def encode(value: object, name: str) -> object:
        encoded = encode_value(name, value)
        try:
            adapter.validate_json(json.dumps(encoded), strict=True)
        except ValidationError as error:
            faults = list(bad_fields(error, prefix=f"/{name}", value=encoded))
            detail = f"output {name!r} does not fit its type hint: {faults[0].detail}"
            raise ContractBroken(f"{detail}, not {faults[0].value}", fields=faults) from error
        return encoded

    return DataType(kind, {}, decode, encode, adapter)


IMAGE = DataType(
    "image", reference("Image"), _decode_image,
    lambda value, name: output_image(name, value),
)  # fmt: skip
IMAGES = DataType(
    "images", reference("Images"), _decode_images,
    lambda value, name: output_images(name, value),
)  # fmt: skip
