"""Measure the memory of a call: resident bytes of a new process, for images of three sizes."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.contract import Memory, Window
from pesto_runtime.errors import BadField, InvalidInput, PestoError, RunFailed, json_pointer
from pesto_runtime.probing.data import GIVEN, TestImages
from pesto_runtime.probing.subject import ProbedProcess
from pesto_runtime.run.builds import is_url

if TYPE_CHECKING:
    from collections.abc import Mapping
    from multiprocessing.connection import Connection

    from pesto_runtime.contract import Description

_RESET = Path("/proc/self/clear_refs")
_SIDES = (1024, 1536, 2048)
_SMALL = (64, 64)
_TOLERANCE, _SLACK = 1.2, 4 << 20
"""A contract may declare a sixth less, or 4 MiB: allocators round, and pages are shared."""


@dataclass(frozen=True)
class MemoryUse:
    """The memory that calls need beside their input and output arrays.

    Attributes:
        input_pixel: Bytes per input pixel.
        fixed: Bytes per call.
        samples: Input pixels, output pixels and bytes of each call.
    """

    input_pixel: float
    fixed: float
    samples: tuple[tuple[int, int, int], ...]


def measure_memory(target: str, texts: Mapping[str, str]) -> MemoryUse:
    """Call a target in new processes on images of three sizes.

    Args:
        target: A function or a PESTO project.
        texts: Its inputs, as for `ProbedProcess.load`.

    Raises:
        InvalidInput: it is the URL of a service, whose memory is that of another process; or the
            system is not Linux.
        RunFailed: the process died.
        PestoError: the call failed.
    """
    if is_url(target):
        raise InvalidInput("--memory measures a function or a PESTO project, not a service")
    if not _RESET.exists():
        raise InvalidInput("--memory needs Linux: /proc has the peak of a process")
    samples = tuple(_sample(target, dict(texts), side) for side in _SIDES)
    pixels = [sample[0] for sample in samples]
    slope, intercept = np.polyfit(pixels, [sample[2] for sample in samples], 1)
    return MemoryUse(max(0.0, float(slope)), max(0.0, float(intercept)), samples)


def memory_faults(description: Description, use: MemoryUse) -> tuple[BadField, ...]:
    """Return a fault if the contract declares less memory than the largest call needed."""
    ports = (*description.inputs, *description.outputs)
    declared = [port.raster.memory for port in ports if port.raster and port.raster.memory]
    pixels_in, pixels_out, needed = use.samples[-1]
    expected = sum(_expected(each, pixels_in, pixels_out) for each in declared)
    if not declared or needed <= _TOLERANCE * expected + _SLACK:
        return ()
    pointer = "/input" + json_pointer("properties", description.data_inputs[0].name, "x-raster")
    return (
        BadField(
            f"{pointer}/memory",
            f"declared {expected:.0f} bytes for {pixels_in} pixels, measured {needed}: declare "
            f'memory={{"input_pixel": {use.input_pixel:.1f}, "fixed": {use.fixed:.0f}}}',
        ),
    )


def _expected(memory: Memory, pixels_in: int, pixels_out: int) -> float:
    return memory.input_pixel * pixels_in + memory.output_pixel * pixels_out + memory.fixed


def _sample(target: str, texts: dict[str, str], side: int) -> tuple[int, int, int]:
    # A new process for each size: an allocator keeps memory of earlier calls.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_measure_in_child, args=(theirs, target, texts, side))
    child.start()
    theirs.close()
    try:
        answer: tuple[int, int, int] | PestoError = ours.recv()
    except EOFError as error:
        child.join()
        raise RunFailed(
            f"{target}: the process died (exit code {child.exitcode}) on an image of {side} x "
            f"{side} pixels: it crashes, or memory runs out"
        ) from error
    child.join()
    if isinstance(answer, PestoError):
        raise answer
    return answer


def _measure_in_child(answers: Connection, target: str, texts: dict[str, str], side: int) -> None:
    os.dup2(2, 1)  # output of the author's code
    try:
        subject = ProbedProcess.load(target, texts)
        images = TestImages(subject.specs)
        kind = GIVEN if GIVEN in images.kinds else "smooth"
        small = images.images(kind, 0, _SMALL)
        subject.call(small, window=Window(0, 0, *_SMALL), scene=_SMALL)  # imports, set-up, caches
        made = images.images(kind, 0, (side, side))
        before = _reset_peak()
        outputs = subject.call(made, window=Window(0, 0, side, side), scene=(side, side))
        used = _peak() - before - sum(each.nbytes for each in outputs.values())
    except PestoError as error:
        answers.send(error)
        return
    pixels = sum(each.shape[1] * each.shape[2] for each in outputs.values())
    answers.send((side * side, pixels, max(0, used)))


def _reset_peak() -> int:
    """Return freed memory to the system, and return the resident size of this process, bytes."""
    with suppress(AttributeError):  # another libc than glibc
        ctypes.CDLL(None).malloc_trim(0)
    _RESET.write_text("5")  # https://man7.org/linux/man-pages/man5/proc_pid_clear_refs.5.html
    return _peak()


def _peak() -> int:
    """Return the largest resident size since the last reset, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
