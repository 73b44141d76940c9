"""Keep what the stages of finished runs took, by build, for the estimates of later runs.

`pesto plan` measures the first phase itself. It cannot measure services, nor stages that read what
does not exist yet: for these it has the figures of earlier runs on this machine.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_runtime.run.result import entries

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.contract import Service
    from pesto_runtime.run.context import RunContext

_OLD = 0.5
"""Weight of all earlier runs together, against that of the last one."""


@dataclass(frozen=True)
class StageRate:
    """What a stage took in earlier runs.

    Attributes:
        pixels: Pixels of tiles, without margins; earlier runs count for less.
        seconds: Time of its calls.
        cpu_seconds: CPU seconds of its calls in the worker; of a service, those of sending.
    """

    pixels: float
    seconds: float
    cpu_seconds: float

    def joined(self, earlier: StageRate | None) -> StageRate:
        """Return the rate with that of earlier runs."""
        if earlier is None:
            return self
        return StageRate(
            self.pixels + _OLD * earlier.pixels,
            self.seconds + _OLD * earlier.seconds,
            self.cpu_seconds + _OLD * earlier.cpu_seconds,
        )


def keep_costs(context: RunContext, manifests: Sequence[Mapping[str, JsonValue]]) -> None:
    """Keep what each stage of a run took; a folder that cannot be written is ignored.

    Args:
        context: The run.
        manifests: Of its chunks and single calls.
    """
    for stage in context.stages.values():
        pixels, seconds, cpu_seconds = _total(manifests, stage.id)
        if pixels and seconds:
            service = context.plan.services[stage.stage.process]
            rate = StageRate(pixels, seconds, cpu_seconds)
            _write(_file(service), rate.joined(kept_rate(service)))


def kept_rate(service: Service) -> StageRate | None:
    """Return what a process took in earlier runs of this build; None if there are none."""
    with suppress(OSError, ValueError, TypeError):
        rate = StageRate(**json.loads(_file(service).read_text()))
        return rate if rate.pixels > 0 else None
    return None


def _file(service: Service) -> Path:
    stated, caches = os.environ.get("PESTO_COSTS"), os.environ.get("XDG_CACHE_HOME")
    folder = Path(caches) if caches else Path.home() / ".cache"
    folder = Path(stated) if stated else folder / "pesto-workflows" / "costs"
    # A service elsewhere runs on another machine, whatever its code.
    place = service.targets[0] if service.is_remote else ""
    key = hashlib.sha256(repr((service.build, service.digest, place)).encode()).hexdigest()
    return folder / f"{key[:32]}.json"


def _write(path: Path, rate: StageRate) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part.write_text(json.dumps(asdict(rate)) + "\n")
        part.replace(path)


def _total(manifests: Sequence[Mapping[str, JsonValue]], stage: str) -> tuple[float, float, float]:
    """Return pixels of the tiles that were computed, seconds and CPU seconds of a stage."""
    pixels = seconds = cpu_seconds = 0.0
    for manifest in manifests:
        found = manifest.get("stages")
        cost = found.get(stage) if isinstance(found, dict) else None
        tiles = [each for each in entries(manifest, "tiles") if isinstance(each, list)]
        if isinstance(cost, dict) and tiles:
            pixels += sum(float(str(t[2])) * float(str(t[3])) for t in tiles if t[-1] == "done")
            seconds += float(str(cost["seconds"]))
            cpu_seconds += float(str(cost["cpu_seconds"]))
    return pixels, seconds, cpu_seconds
