"""Compare the code of functions and services with the code that was planned.

It reads builds and digests, and finds code at another path on another machine. Services that state
their code in each response are compared by the client; the others, for example PESTO 1.7.2, are
compared here, before and after each chunk.
"""

from __future__ import annotations

import hashlib
import json
import socket
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_runtime.client.describing import Described
from pesto_runtime.client.steps import process_changed
from pesto_runtime.contract import Description
from pesto_runtime.contract.pipeline import LIVE, PROFILES
from pesto_runtime.errors import (
    InvalidContract,
    InvalidInput,
    NotFound,
    ProcessChanged,
    ServiceMisbehaved,
    Unreachable,
)
from pesto_runtime.run.access import REPLICA_OUTAGE_S, open_client

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pesto_runtime.client.client import Client
    from pesto_runtime.contract import Plan, Service
    from pesto_runtime.pipeline import BoundStage
    from pesto_runtime.processor import Processor

_code_root: Path | None = None


@contextmanager
def code_below(root: Path | None) -> Iterator[None]:
    """Name code below a folder by its path in this folder, in the plans of the block; load it so.

    Another machine may have the folder at another path: an Airflow bundle, of which each worker has
    a copy. The build shows that it is the same code.

    Args:
        root: The folder; None for absolute paths.
    """
    global _code_root  # noqa: PLW0603  # of the process: threads of a chunk load code, too
    outer, _code_root = _code_root, root.resolve() if root else None
    try:
        yield
    finally:
        _code_root = outer


def portable_target(target: str, base: Path | None) -> str:
    """Return a target for a plan: its file relative to the folder of `code_below`, or absolute.

    Args:
        target: `file.py:function`, a project directory, or a module, which stays as it is.
        base: Directory that a relative target is relative to.
    """
    if target.startswith(LIVE):
        return target
    code, mark, profiles = target.partition(PROFILES)
    place, colon, function = code.rpartition(":")
    path = Path(base or Path.cwd(), place if colon else code)
    if not path.exists():
        return target
    path = path.resolve()
    if _code_root and path.is_relative_to(_code_root):
        path = path.relative_to(_code_root)
    return f"{path}{colon}{function if colon else ''}{mark}{profiles}"


def profiled_target(target: str, profiles: Sequence[str]) -> str:
    """Return a target with the profiles of `-p`.

    Raises:
        InvalidInput: it is a service, which has its profiles already, or a pipeline.
    """
    if not profiles:
        return target
    if is_url(target) or target.endswith(".json"):
        kind = "a service" if is_url(target) else "a pipeline"
        raise InvalidInput(
            f"{target}: {kind} has no option -p; a pipeline names profiles of its projects by -s "
            f"NAME=DIRECTORY{PROFILES}{','.join(profiles)}"
        )
    return f"{target}{',' if PROFILES in target else PROFILES}{','.join(profiles)}"


def is_url(target: str) -> bool:
    """Whether a target is a service's URL."""
    return target.startswith(("http://", "https://"))


@lru_cache(maxsize=256)
def parsed_description(text: str) -> Description:
    """Parse a description as JSON text, once: a DAG file of many pipelines reads the same ones.

    Raises:
        InvalidContract: as for `Description.parse`.
    """
    return Description.parse(json.loads(text))


def processes_at(target: str) -> list[str]:
    """Return the URLs of the processes of a service; a target, or a URL of one process, is itself.

    Raises:
        PestoError: the service does not respond, or has neither a process nor a list of them.
    """
    if not is_url(target):
        return [target]
    with open_client(target) as client:
        if client.url.endswith("/processes"):
            return client.listed()
        try:
            client.describe()
        except (NotFound, ServiceMisbehaved) as error:
            try:
                return client.listed()
            except (NotFound, ServiceMisbehaved):
                raise error from None
    return [target]


def described_at(
    targets: Sequence[str], base: Path | None = None
) -> tuple[Described, tuple[str, ...]]:
    """Return the description and the build of a target, or of all replicas of a service.

    Replicas that are away are not compared if the others state their code in each response: then
    their own responses will be, as soon as they are back.

    Args:
        targets: One target, or several that must have the same code.
        base: Directory that a relative target is relative to.

    Returns:
        The description; and the URLs of replicas that are away.

    Raises:
        InvalidInput: services and functions are listed for one process.
        InvalidContract: they describe different processes.
        ProcessChanged: they describe the same process, and their builds differ; names each.
        PestoError: a target cannot be loaded, or a service does not respond.
    """
    are_urls = [is_url(each) for each in targets]
    if any(are_urls) and not all(are_urls):
        target = targets[are_urls.index(False)]
        raise InvalidInput(f"{target!r} is listed as a replica, and is not a URL")
    if all(are_urls) and len(targets) > 1:
        return _of_replicas(targets)
    found = {
        each: _of_service(each) if is_url(each) else _of_target(each, base) for each in targets
    }
    _require_one_code(found)
    return found[targets[0]], ()


def require_planned(plan: Plan, stages: Iterable[BoundStage]) -> None:
    """Check that services whose responses do not state their code are still the planned ones.

    Functions, and services that state their code, are compared elsewhere.

    Raises:
        ProcessChanged: a replica has another description, version or build.
        PestoError: a replica does not respond, or returns an error.
    """
    for stage in stages:
        service = plan.services[stage.stage.process]
        if not service.is_remote or service.states_code:
            continue
        planned = (service.build, service.digest)
        for url in service.targets:
            found = _of_service(url, outage_s=plan.patience_s)
            if (found.build, found.digest) != planned:
                error = process_changed(url, planned=planned, found=(found.build, found.digest))
                raise error.prefixed(f"stage {stage.id!r}")


def load_planned(service: Service) -> Processor:
    """Load the function or project of a service that runs in this process.

    Raises:
        ProcessChanged: it is not the code that was planned.
        PestoError: it cannot be loaded.
    """
    from pesto_runtime.processor import load_processor

    target = service.targets[0]
    processor = load_processor(target, base=_code_root)
    if processor.build != service.build:
        raise ProcessChanged(
            f"{target} on {socket.gethostname()} is not the code that was planned: build "
            f"{processor.build}, planned {service.build}; run again for a new plan, or give all "
            "workers the planned code, and restart those that have loaded another"
        )
    return processor


def _of_replicas(urls: Sequence[str]) -> tuple[Described, tuple[str, ...]]:
    found: dict[str, Described] = {}
    away: dict[str, Unreachable] = {}
    for url in urls:
        try:
            found[url] = _of_service(url, outage_s=REPLICA_OUTAGE_S)
        except Unreachable as error:
            away[url] = error
    # Code that is not stated in each response is only compared by asking all replicas.
    if away and not (found and all(each.states_code for each in found.values())):
        raise next(iter(away.values()))
    _require_one_code(found)
    return next(iter(found.values())), tuple(away)


def _of_target(target: str, base: Path | None) -> Described:
    from pesto_runtime.processor import load_processor

    processor = load_processor(target, base=base)
    return Described(processor.description, (), processor.build, processor.description.digest)


def _of_service(url: str, *, outage_s: float = 0.0) -> Described:
    with open_client(url, outage_s=outage_s) as client:
        described = client.described
        if described.states_code:
            return described
        # Name and version alone, as PESTO 1.7.2 states them, stay the same after many a change.
        build = f"{described.build}+{_version_hash(client)}"
        return Described(described.description, described.transports, build, described.digest)


def _version_hash(client: Client) -> str:
    """Return a hash of the version document; that of null for a service without a valid one."""
    try:
        document = client.version()
    except (NotFound, ServiceMisbehaved):
        document = None
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:12]


def _require_one_code(found: Mapping[str, Described]) -> None:
    (leading, first), *_ = found.items()
    for target, other in found.items():
        if other.digest != first.digest:
            raise InvalidContract(
                f"{leading} and {target} are listed as replicas of one process, but describe "
                f"{first.description.name} {first.description.version} and "
                f"{other.description.name} {other.description.version} differently"
            )
    if len({each.build for each in found.values()}) > 1:
        raise ProcessChanged(
            f"the replicas of {first.description.name} do not run the same code; deploy one build "
            "to all of them:"
            + "".join(f"\n  {target}: {each.build}" for target, each in found.items())
        )
