"""Choose the task domain of a workflow by where its scenes are: tasks go to the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pesto_conductor.definitions import PLAN_SETTINGS, PUBLISH_SETTINGS
from pesto_runtime.errors import InvalidInput
from pesto_runtime.hrefs import as_href

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pydantic import JsonValue

_NO_SCENES = frozenset({"folder", *PLAN_SETTINGS, *PUBLISH_SETTINGS})


def read_sites(texts: Sequence[str]) -> dict[str, str]:
    """Read `DOMAIN=PREFIX` texts; return prefix of an href -> task domain.

    Raises:
        InvalidInput: a text has no domain or no prefix, or two domains have one prefix.
    """
    found: dict[str, str] = {}
    for text in texts:
        domain, _, prefix = text.partition("=")
        if not domain or not prefix:
            raise InvalidInput(f"--site {text!r} must be DOMAIN=PREFIX, as eu=s3://eu-scenes/")
        href = as_href(prefix) + ("/" if prefix.endswith("/") and prefix[0] == "/" else "")
        if found.setdefault(href, domain) != domain:
            raise InvalidInput(f"--site gives {prefix!r} two domains")
    return found


def site_of(inputs: Mapping[str, JsonValue], sites: Mapping[str, str]) -> str | None:
    """Return the task domain of the scenes of a workflow; None if no prefix fits one.

    The longest prefix that fits a scene counts.

    Args:
        inputs: Input of the workflow: scenes are hrefs, objects with hrefs, or lists of both.
        sites: Prefix of an href -> task domain.

    Raises:
        InvalidInput: the scenes are at several sites; with one scene of each.
    """
    texts = _texts([value for name, value in inputs.items() if name not in _NO_SCENES])
    found: dict[str, str] = {}
    for href in map(as_href, texts):
        fitting = [prefix for prefix in sites if href.startswith(prefix)]
        if fitting:
            found.setdefault(sites[max(fitting, key=len)], href)
    if len(found) > 1:
        places = ", ".join(f"{href} at {domain}" for domain, href in found.items())
        raise InvalidInput(
            f"the scenes are at several sites: {places}; start one workflow for each site, or "
            "omit --site"
        )
    return next(iter(found), None)


def _texts(values: Iterable[JsonValue]) -> Iterator[str]:
    """Yield all texts in values, those of lists and objects too."""
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from _texts(value)
        elif isinstance(value, dict):
            yield from _texts(value.values())
