"""Find the scenes of a campaign in the catalogs of the field: STAC items, catalogs, APIs.

Files of items are JSON. Catalogs are read by pystac, APIs by pystac-client: the extra `stac`.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from pesto_runtime.credentials import object_authorization
from pesto_runtime.errors import InvalidInput, Unreachable, shortened
from pesto_runtime.places import href_of, place_of
from pesto_runtime.run.stac_items import absolute_item, is_item, self_href

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import JsonValue

_SEARCH = "/search"
_SERVER_ERROR = 500
_PARAMETERS = ("collections", "ids", "bbox", "datetime", "filter", "query", "sortby", "limit",
               "max_items")  # fmt: skip


def is_search(text: str) -> bool:
    """Whether a text is a search of a STAC API: `https://…/search?…`."""
    parts = urlsplit(text)
    return parts.scheme in ("http", "https") and parts.path.rstrip("/").endswith(_SEARCH)


def listed_items(text: str) -> list[JsonValue]:
    """Return the list in a JSON file, or the items in one of STAC.

    Args:
        text: Path or href of a list, an item, a collection of features, a catalog or a collection,
            whose items are those of its children, too.

    Raises:
        InvalidInput: it does not exist, or is none of these.
        Unreachable: its server is away.
    """
    place = place_of(text)
    try:
        document: JsonValue = json.loads(place.read_text())
    except (OSError, ValueError) as error:
        told = error.strerror if isinstance(error, OSError) else f"is not JSON: {error}"
        raise InvalidInput(f"--scenes {text}: {told or error}") from error
    if isinstance(document, list):
        return document
    href = href_of(place)
    known = document if isinstance(document, dict) else {}
    if known.get("type") == "FeatureCollection":
        features = known.get("features")
        found = [each for each in features if is_item(each)] if isinstance(features, list) else []
        return [absolute_item(each, self_href(each) or href) for each in found]
    if is_item(document):
        return [absolute_item(document, href)]
    if known.get("type") in ("Catalog", "Collection"):
        return [*_items_of_catalog(href)]
    raise InvalidInput(
        f"--scenes {text} is JSON, but neither a list nor an item, a collection of features, a "
        f"catalog or a collection of STAC: its type is {shortened(known.get('type'))}"
    )


def searched_items(text: str) -> list[JsonValue]:
    """Return the items that a STAC API finds.

    Args:
        text: `https://…/search?collections=…&bbox=…&datetime=…`, with the parameters of the API;
            `max_items` limits the number of items, of all pages.

    Raises:
        InvalidInput: the API refuses the search, or is none; or the extra is not installed.
        Unreachable: its server is away.
    """
    with _extra():
        from pystac.errors import STACError
        from pystac_client import Client
        from pystac_client.exceptions import APIError

    root, _, query = text.partition(_SEARCH)
    given = dict(parse_qsl(query.removeprefix("/").removeprefix("?")))
    unknown = ", ".join(sorted(given.keys() - {*_PARAMETERS}))
    if unknown:
        raise InvalidInput(
            f"--scenes {text}: a search has no {unknown}; it has {', '.join(_PARAMETERS)}"
        )
    limit, most = given.get("limit"), given.get("max_items")
    authorization = object_authorization(root)
    try:
        client = Client.open(
            root, headers={"Authorization": authorization} if authorization else {}
        )
        found = client.search(
            collections=given.get("collections"),
            ids=given.get("ids"),
            bbox=given.get("bbox"),
            datetime=given.get("datetime"),
            filter=given.get("filter"),
            query=[each for each in given.get("query", "").split(",") if each] or None,
            sortby=given.get("sortby"),
            limit=int(limit) if limit else None,
            max_items=int(most) if most else None,
        )
        return [absolute_item(each) for each in found.items_as_dicts()]
    except (APIError, STACError, TypeError, ValueError, NotImplementedError) as error:
        status = getattr(error, "status_code", None)
        if isinstance(error, APIError) and (status is None or status >= _SERVER_ERROR):
            raise Unreachable(f"{root} does not respond: {error}") from error
        raise InvalidInput(f"--scenes {text}: the search is refused: {error}") from error


def _items_of_catalog(href: str) -> Iterator[JsonValue]:
    with _extra():
        import pystac

    class _Places(pystac.StacIO):
        def read_text(self, source: pystac.link.HREF, *_: object, **__: object) -> str:
            return place_of(str(source)).read_text()

        def write_text(self, *_: object, **__: object) -> None:
            raise NotImplementedError

    try:
        catalog = pystac.read_file(href, stac_io=_Places())
        if isinstance(catalog, pystac.Catalog):
            for item in catalog.get_items(recursive=True):
                document = item.to_dict(transform_hrefs=False)
                yield absolute_item(document, item.get_self_href() or href)
    except (OSError, ValueError, pystac.STACError) as error:
        raise InvalidInput(f"--scenes {href}: an item cannot be read: {error}") from error


@contextmanager
def _extra() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise InvalidInput(
            f"catalogs and searches of STAC need the extra: pip install 'pesto-workflows[stac]' "
            f"({error})"
        ) from error
