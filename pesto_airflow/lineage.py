"""Report the inputs and outputs of a run to OpenLineage, by the names that its specification gives.

Without the OpenLineage provider nobody asks for them, and its package is not imported.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pesto_runtime.contract.band_files import files_of, stacked_bands
from pesto_runtime.contract.selection import split_fragment

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from openlineage.client.event_v2 import Dataset
    from openlineage.client.facet_v2 import DatasetFacet
    from pydantic import JsonValue


@dataclass(frozen=True)
class Lineage:
    """What a task read and wrote, as the OpenLineage provider takes it.

    Attributes:
        inputs: Scenes; their version is the identity that was planned.
        outputs: Files; their version is the sha256.
        run_facets: None.
        job_facets: None.
    """

    inputs: list[Dataset] = field(default_factory=list)
    outputs: list[Dataset] = field(default_factory=list)
    run_facets: dict[str, object] = field(default_factory=dict)
    job_facets: dict[str, object] = field(default_factory=dict)


def lineage_of(
    results: Iterable[tuple[Mapping[str, JsonValue], Mapping[str, JsonValue]]],
) -> Lineage:
    """Return the lineage of runs.

    Args:
        results: Of each run, its inputs as in `result.json`, and output name -> `{"href",
            "sha256"}`; what has no `href` is a value, and no dataset.
    """
    inputs: dict[str, Dataset] = {}
    outputs: dict[str, Dataset] = {}
    for read, written in results:
        inputs |= _datasets(read, "identity")
        outputs |= _datasets(written, "sha256")
    return Lineage([*inputs.values()], [*outputs.values()])


def _datasets(found: Mapping[str, JsonValue], version: str) -> dict[str, Dataset]:
    from openlineage.client.event_v2 import Dataset
    from openlineage.client.generated.dataset_version_dataset import DatasetVersionDatasetFacet

    datasets = {}
    for entry in found.values():
        if isinstance(entry, dict) and isinstance(entry.get("href"), str):
            facets: dict[str, DatasetFacet] = {}
            if told := entry.get(version):
                facets["version"] = DatasetVersionDatasetFacet(datasetVersion=str(told))
            whole, _ = split_fragment(str(entry["href"]))
            for href in files_of(whole) if stacked_bands(whole) else (str(entry["href"]),):
                namespace, name = dataset_name(href)
                datasets[href] = Dataset(namespace=namespace, name=name, facets=facets)
    return datasets


def dataset_name(href: str) -> tuple[str, str]:
    """Return namespace and name of a file, as the naming rules of OpenLineage have them.

    >>> dataset_name("s3://scenes/2026/a.tif")
    ('s3://scenes', '2026/a.tif')
    >>> dataset_name("file:///data/a%20b.tif")
    ('file', '/data/a b.tif')
    """
    parts = urlsplit(href)
    if parts.scheme in ("file", ""):
        return "file", unquote(parts.path)
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}", parts.path.lstrip("/")
