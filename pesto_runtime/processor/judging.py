"""Whether a value of a PESTO project fits its JSON Schema, which is compiled once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pesto_runtime.contract.plain import surely_fits
from pesto_runtime.errors import BadField, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jsonschema import Draft6Validator
    from pydantic import JsonValue

    from pesto_runtime.contract import Port
    from pesto_runtime.contract.plain import SurelyFits


@dataclass(frozen=True)
class Judge:
    """Judges the values of one input."""

    _name: str
    _surely_fits: SurelyFits
    _validator: Draft6Validator

    @classmethod
    def of(cls, port: Port, definitions: JsonValue) -> Judge:
        """Compile the schema of a port; `definitions` are those that it may refer to."""
        from jsonschema import Draft6Validator

        schema = dict(port.schema)
        validator = Draft6Validator({**schema, "definitions": definitions})
        return cls(port.name, surely_fits(schema), validator)

    def faults(self, value: object) -> Iterator[BadField]:
        """Everything wrong with a value."""
        if self._surely_fits(value):
            return
        for error in self._validator.iter_errors(value):
            pointer = "".join(f"/{part}" for part in (self._name, *error.absolute_path))
            yield BadField(pointer, error.message[:200], shortened(error.instance))
