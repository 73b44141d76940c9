"""All that is wrong with a request, gathered before anything is said."""

from __future__ import annotations

from pesto_runtime.errors import BadField, InvalidInput, PestoError, shortened

_ABSENT = object()


class Faults:
    """Wrong fields, and the kinds of error they are."""

    def __init__(self) -> None:
        """Start without any."""
        self._fields: list[BadField] = []
        self._kinds: set[type[PestoError]] = set()

    def __bool__(self) -> bool:
        return bool(self._fields)

    def add(self, pointer: str, detail: str, value: object = _ABSENT) -> None:
        """Add a field that does not fit the contract."""
        self.add_field(BadField(pointer, detail, _shown(value)))

    def add_field(self, field: BadField) -> None:
        """Add a field that does not fit the contract, already told."""
        self._fields.append(field)
        self._kinds.add(InvalidInput)

    def add_error(self, pointer: str, error: PestoError, value: object = _ABSENT) -> None:
        """Add what reading a field raised; its own fields come under the pointer."""
        self._kinds.add(type(error))
        inner = [BadField(pointer + f.pointer, f.detail, f.value) for f in error.fields]
        self._fields.extend(inner or [BadField(pointer, error.detail, _shown(value))])

    def raise_any(self, what: str) -> None:
        """Do nothing where nothing is wrong.

        Raises:
            PestoError: the kind that all faults share, `InvalidInput` for a mixture.
        """
        if not self._fields:
            return
        kind = self._kinds.pop() if len(self._kinds) == 1 else InvalidInput
        raise kind.of(what, self._fields)


def _shown(value: object) -> str | None:
    return None if value is _ABSENT else shortened(value)
