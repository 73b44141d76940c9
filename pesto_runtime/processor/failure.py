"""An author's exception, told to its reader: which process, what, and at which line of theirs."""

from __future__ import annotations

import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_runtime.errors import AlgorithmFailed, PestoError

if TYPE_CHECKING:
    from collections.abc import Iterator

_OURS = Path(__file__).parent
_READ_ONLY = "; inputs are read-only: copy one before writing into it"


@contextmanager
def author_code(name: str, root: Path) -> Iterator[None]:
    """Translate whatever the author's code raises; errors of this package pass through.

    Args:
        name: The process, and what it was doing.
        root: Directory of the author's files.

    Raises:
        AlgorithmFailed: the block raised; the detail ends with the author's innermost line.
    """
    try:
        yield
    except PestoError:
        raise
    except (Exception, SystemExit) as error:  # any author's error, translated once
        text = " ".join(str(error).split())
        hint = _READ_ONLY if isinstance(error, ValueError) and "read-only" in text else ""
        told = f"{type(error).__name__}: {text}" if text else type(error).__name__
        detail = f"{name}: {shortened_text(told)}{hint}{_where(error, root)}"
        raise AlgorithmFailed(detail) from error


def shortened_text(text: str) -> str:
    """Keep a message readable: at most 500 characters."""
    return text if len(text) <= 500 else text[:500] + "..."


def _where(error: BaseException, root: Path) -> str:
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return f" ({_shown(error.filename, root)}:{error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    foreign = [frame for frame in frames if not Path(frame.filename).is_relative_to(_OURS)]
    own = [frame for frame in foreign if _is_own(frame.filename, root)]
    found = (own or foreign)[-1:]
    return f" ({_shown(found[0].filename, root)}:{found[0].lineno})" if found else ""


def _is_own(file: str, root: Path) -> bool:
    path = Path(file)
    return path.is_relative_to(root) and "site-packages" not in path.parts


def _shown(file: str, root: Path) -> str:
    path = Path(file)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
