"""The verb `discover`: ask targets and services what they are, and keep it in a catalog folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_runtime.contract import Description, Service
from pesto_runtime.errors import InvalidContract, InvalidInput, StoreRefused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import JsonValue


@dataclass(frozen=True)
class Discovered:
    """A process and what runs it.

    Attributes:
        service: As a plan has it.
        description: Overlay merged in.
        said: The description as the service itself has it.
    """

    service: Service
    description: Description
    said: Description

    @property
    def is_plain(self) -> bool:
        """Whether it is a service that takes and gives PESTO's own images only."""
        return self.service.is_remote and not self.service.transports


def find(
    targets: Sequence[str],
    *,
    base: Path | None = None,
    overlay: Mapping[str, JsonValue] | None = None,
) -> Discovered:
    """Ask a target, or the replicas of a service, what it is.

    Args:
        targets: One target, or one URL or more of the same process.
        base: Directory that a relative target is relative to.
        overlay: Merged into the description (RFC 7396).

    Raises:
        PestoError: the target cannot be loaded, or the service does not answer.
        InvalidContract: replicas describe different processes.
    """
    said, build, transports, places = (
        _asked(targets) if is_url(targets[0]) else _loaded(targets[0], base)
    )
    description = said.overlaid(overlay) if overlay else said
    service = Service(
        targets=places, description=description.to_json(), build=build, transports=transports
    )
    return Discovered(service, description, said)


def discover(urls: Sequence[str], folder: Path) -> list[Path]:
    """Save the description of every service as `NAME@VERSION.json`; answers the files.

    Raises:
        PestoError: a service does not answer; nothing is saved then.
        StoreRefused: the folder cannot be written.
        InvalidContract: a service's name or version cannot be part of a file's name.
        InvalidInput: a file that is there is not JSON.
    """
    found = [(url, find((url,))) for url in urls]
    return [
        save_description(folder, url, each.said, each.service.transports) for url, each in found
    ]


def save_description(folder: Path, url: str, said: Description, transports: Sequence[str]) -> Path:
    """Save what a service says of itself as `NAME@VERSION.json`; an overlay in that file stays.

    Args:
        folder: Made where it is missing.
        url: Where the service is.
        said: What it says.
        transports: Media types that it takes; none of PESTO 1.7.2.

    Raises:
        StoreRefused: the folder cannot be written.
        InvalidContract: its name or version cannot be part of a file's name.
        InvalidInput: a file that is there is not JSON.
    """
    file = f"{said.name}@{said.version}.json"
    if Path(file).name != file:
        raise InvalidContract(f"{url} calls itself {file[:-5]!r}, which cannot be a file's name")
    path = folder / file
    try:
        folder.mkdir(parents=True, exist_ok=True)
        document: dict[str, JsonValue] = {"url": url, "digest": said.digest, **_overlay_of(path)}
        document["transports"] = list(transports)
        document["description"] = said.to_json()
        part = path.with_suffix(".part")
        part.write_text(json.dumps(document, indent=2) + "\n")
        part.replace(path)
    except OSError as error:
        raise StoreRefused(f"{folder}: {error.strerror or error}") from error
    return path


def is_url(target: str) -> bool:
    """Whether a target is a service's URL."""
    return target.startswith(("http://", "https://"))


def _overlay_of(path: Path) -> dict[str, JsonValue]:
    """The overlay that somebody wrote into a saved description; it outlives the description."""
    try:
        kept = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InvalidInput(f"{path} is not JSON: {error}; correct or delete it") from error
    return {"overlay": kept["overlay"]} if isinstance(kept, dict) and "overlay" in kept else {}


def _loaded(
    target: str, base: Path | None
) -> tuple[Description, str, tuple[str, ...], tuple[str, ...]]:
    from pesto_runtime.processor import load_processor

    processor = load_processor(target, base=base)
    return processor.description, processor.build, (), (_absolute(target, base),)


def _asked(
    urls: Sequence[str],
) -> tuple[Description, str, tuple[str, ...], tuple[str, ...]]:
    from pesto_runtime.client import Client

    replies = []
    for url in urls:
        if not is_url(url):
            raise InvalidInput(f"{url!r} stands among replicas, which are URLs of one process")
        with Client(url) as client:
            replies.append(client.described)
    first = replies[0]
    for url, other in zip(urls, replies, strict=True):
        if other.digest != first.digest:
            raise InvalidContract(
                f"{urls[0]} and {url} are given as replicas of one process, but describe "
                f"{first.description.name} {first.description.version} and "
                f"{other.description.name} {other.description.version} differently"
            )
    return first.description, first.build, first.transports, tuple(urls)


def _absolute(target: str, base: Path | None) -> str:
    """A target that means the same from any working directory: files by absolute path."""
    place, colon, function = target.rpartition(":")
    path = Path(base or Path.cwd(), place if colon else target)
    return f"{path.resolve()}{colon}{function if colon else ''}" if path.exists() else target
