"""Damage one object of the store of a run that is not published yet, and run it again."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks.reliability.kills import Tally
from benchmarks.reliability.scenario import RESULTS, TILE, products, scenario, undisturbed
from pesto_runtime.engines import RunRequest, SilentListener
from pesto_runtime.errors import PestoError
from pesto_runtime.run.context import load_context
from pesto_runtime.run.local import engine
from pesto_runtime.run.planning import load_pipeline

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable
    from pathlib import Path

_KINDS = ("blocks", "partials", "scalars", "manifests", "plans", "rasters")
_HARMS = ("flip", "cut", "empty", "swap", "foreign")


def campaign(count: int, *, seed: int, tell: Callable[[str], None]) -> Tally:
    """Damage `count` objects, each in a folder of its own, and count wrong products.

    Args:
        count: Number of damaged objects.
        seed: Of what is damaged, and how.
        tell: Receives a line for each complete run.
    """
    dice, tally = random.Random(seed), Tally()  # noqa: S311  # places, not secrets
    with scenario("--workers", "2", "--keep") as place:
        expected = undisturbed(place)
        computed = place.root / "undisturbed"
        for name in RESULTS:
            (computed / name).unlink()
        request = RunRequest(
            pipeline=load_pipeline(place.root / "pipeline.json"),
            base=place.root,
            inputs={"scene": str(place.root / "s.tif")},
            folder=computed,
            tile=TILE,
            workers=2,
            keep=True,
        )
        for number in range(count):
            out = place.root / "out"
            shutil.copytree(computed, out)
            kind, harm = _KINDS[number % len(_KINDS)], _HARMS[number % len(_HARMS)]
            _damage(out / ".pesto" / kind, harm, dice)
            tally.kills[f"{harm} of {kind}"] += 1
            load_context.cache_clear()  # as in a new process
            try:
                engine.run(replace(request, folder=out), watcher=SilentListener())
            except PestoError as error:
                tally.complaints.append(f"{harm} of {kind}: {error}")
            else:
                if products(out) != expected:
                    tally.complaints.append(f"{harm} of {kind}: other bytes")
            tally.runs += 1
            tell(f"{tally.runs} runs, {len(tally.complaints)} complaints")
            shutil.rmtree(out)
    return tally


def _damage(folder: Path, harm: str, dice: random.Random) -> None:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    victim, data = dice.choice(paths), b""
    before = victim.read_bytes()
    if harm == "flip":
        place = dice.randrange(len(before))
        flipped = before[place] ^ 1 << dice.randrange(8)
        data = before[:place] + bytes([flipped]) + before[place + 1 :]
    elif harm == "cut":
        data = before[: dice.randrange(1, len(before))]
    elif harm == "swap":
        others = [path.read_bytes() for path in paths if path.read_bytes() != before]
        data = dice.choice(others) if others else bytes(len(before))
    elif harm == "foreign":
        data = dice.randbytes(len(before))
    victim.write_bytes(data)


def summary(tally: Tally) -> str:
    """Return the figures of a campaign in one line."""
    kinds: Counter[str] = tally.kills
    return f"{kinds.total()} damaged objects of {len(kinds)} kinds, {len(tally.complaints)} wrong"
