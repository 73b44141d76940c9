"""Read the list of scenes of a campaign: the inputs of each, and the name of its folder."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pesto_runtime.campaigns.stac_catalogs import is_search, listed_items, searched_items
from pesto_runtime.errors import InvalidInput, shortened
from pesto_runtime.hrefs import image_reference
from pesto_runtime.run.stac_items import is_item

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.contract import Pipeline

_ID = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
_LONGEST_ID = 255
_FILES = ("campaign.json", "campaign.html", "campaign.part", "items.json")
"""Files of a campaign, beside the folders of its scenes."""
_MOST_NAMED = 5
_SUFFIXES = (".tif", ".tiff")


@dataclass(frozen=True)
class SceneInputs:
    """One scene of a campaign.

    Attributes:
        id: Its name in the campaign, and that of its folder.
        inputs: Input name -> path or href of an image, or a value.
    """

    id: str
    inputs: Mapping[str, JsonValue]


def listed_scenes(text: str) -> list[JsonValue]:
    """Return the scenes that a text of the command line lists.

    Args:
        text: A folder, whose GeoTIFFs are meant; a pattern with `*`; a `.json` file of a list for
            `read_scenes`, or of STAC: an item, a collection of features, a catalog or a collection,
            also by href; a search of a STAC API, `https://…/search?…`; or a text file with an href
            or path in each line.

    Raises:
        InvalidInput: there is no such file or folder, it is not readable, or it has no scene.
        Unreachable: a server is away.
    """
    path = Path(text)
    listed: JsonValue = None
    try:
        if is_search(text):
            listed = searched_items(text)
        elif path.suffix == ".json":
            listed = listed_items(text)
        elif path.is_dir():
            found = sorted(each for each in path.iterdir() if each.suffix.lower() in _SUFFIXES)
            listed = [str(each) for each in found]
        elif "*" in text:
            listed = [*sorted(glob(text, recursive=True))]  # noqa: PTH207  # as a shell finds it
        else:
            lines = (line.strip() for line in path.read_text().splitlines())
            listed = [line for line in lines if line and not line.startswith("#")]
    except (OSError, ValueError) as error:
        told = error.strerror if isinstance(error, OSError) else f"is not a list: {error}"
        raise InvalidInput(f"--scenes {text}: {told or error}") from error
    if not isinstance(listed, list) or not listed:
        raise InvalidInput(
            f"--scenes {text} lists no scene; give a folder of GeoTIFFs, a pattern with '*', a "
            "JSON list, items of STAC, or a text file with an href in each line"
        )
    return listed


def read_scenes(
    listed: Sequence[JsonValue], pipeline: Pipeline, *, common: Mapping[str, JsonValue] = {}
) -> list[SceneInputs]:
    """Read a list of scenes.

    Args:
        listed: An item for each scene: the href or path of the pipeline's only image input, or an
            object of all its inputs, with an `id` if it has one. Without, the id is the name of the
            file of its first image.
        pipeline: Declares the inputs.
        common: Inputs that are the same for every scene that has no other value of them.

    Raises:
        InvalidInput: an item is wrong, or two have one id; names the item.
    """
    if isinstance(listed, str) or not isinstance(listed, (list, tuple)):
        raise InvalidInput(f"scenes must be a list, not {shortened(listed)}")
    images = [name for name, kind in pipeline.inputs.items() if kind == "image"]
    scenes = [_scene(f"scenes[{n}]", item, images, common) for n, item in enumerate(listed)]
    if not scenes:
        raise InvalidInput("scenes has no scene; give one or more")
    twice = [
        name for name, count in Counter(each.id.lower() for each in scenes).items() if count > 1
    ]
    if twice:
        raise InvalidInput(
            f"scenes: more than one has the id {', '.join(twice[:_MOST_NAMED])}, which names the "
            'folder of its outputs; give each its own "id"'
        )
    return scenes


def _scene(
    where: str, item: JsonValue, images: Sequence[str], common: Mapping[str, JsonValue]
) -> SceneInputs:
    if (
        isinstance(item, str)
        or is_item(item)
        or (isinstance(item, dict) and "href" in item and "href" not in images)
    ):
        free = [name for name in images if name not in common]
        if len(free) != 1:
            raise InvalidInput(
                f"{where} is one image, but the pipeline has the images "
                f"{', '.join(images) or 'none'}"
                ': give an object, {"INPUT": HREF, …}'
            )
        item = {free[0]: item}
    if not isinstance(item, dict):
        raise InvalidInput(f"{where} must be an href or an object of inputs, not {shortened(item)}")
    given = {name: value for name, value in item.items() if name != "id"}
    first = next((given[name] for name in images if name in given), None)
    name = item.get("id", None if first is None else _name_of(first))
    if name is None:
        raise InvalidInput(f'{where} has no image of its own to be named after; give it an "id"')
    if not isinstance(name, str) or not _ID.fullmatch(name):
        raise InvalidInput(
            f"{where}: the id {shortened(name)} cannot name a folder, which has letters, "
            "digits, '.', '_' and '-', and begins with a letter or digit; give another \"id\""
        )
    if len(name) > _LONGEST_ID or name.lower() in _FILES:
        why = "is a file of the campaign" if name.lower() in _FILES else "is too long for a folder"
        raise InvalidInput(f'{where}: the id {shortened(name)} {why}; give another "id"')
    return SceneInputs(name, {**common, **given})


def _name_of(image: JsonValue) -> str:
    """Return the name of a scene after its image: the id of an item, or the stem of a file."""
    if is_item(image):
        return re.sub(r"[^\w.-]", "_", str(image.get("id")), flags=re.ASCII)
    path = urlsplit(image_reference(image).href).path
    return unquote(path).rstrip("/").rpartition("/")[2].partition(".")[0]
