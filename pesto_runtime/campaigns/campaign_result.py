"""Publish a campaign: each scene into its folder, then `campaign.html` and `campaign.json`."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_runtime.campaigns.campaign_plan import CampaignRecords, load_campaign
from pesto_runtime.campaigns.campaign_tasks import STOPPED, stopped_scenes
from pesto_runtime.contract import ProductForm
from pesto_runtime.errors import Interrupted, InvalidInput, NotFound, PestoError, StoreFailed
from pesto_runtime.places import href_of, output_place
from pesto_runtime.report.campaign_page import render_campaign
from pesto_runtime.report.page import write_page
from pesto_runtime.run.context import load_context
from pesto_runtime.run.output_files import json_text
from pesto_runtime.run.owner_records import WORKSPACE
from pesto_runtime.run.ownership import abandon
from pesto_runtime.run.publishing import publish_run
from pesto_runtime.run.result import read_result

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import JsonValue

    from pesto_runtime.campaigns.campaign_plan import SceneRun
    from pesto_runtime.errors import LimitReached
    from pesto_runtime.places import AnyPath
    from pesto_runtime.run.result import RunRecord

CAMPAIGN = "campaign.json"
CAMPAIGN_PAGE = "campaign.html"


def publish_campaign(
    href: str,
    folder: AnyPath,
    record: RunRecord,
    *,
    form: ProductForm = ProductForm.TIF,
    keep: bool = False,
    limit: LimitReached | None = None,
    on_scene: Callable[[str, str], None] = lambda _name, _status: None,
) -> dict[str, JsonValue]:
    """Publish every scene that did not fail; return the content of `campaign.json`.

    A second call publishes what the first one could not.

    Args:
        href: Href of the campaign's plan.
        folder: Folder of the campaign.
        record: The facts that the engine knows.
        form: Form of image outputs.
        keep: Whether the run stores of complete runs are preserved.
        limit: The limit at which the tasks were stopped: scenes that are not complete are STOPPED.
        on_scene: Receives id and status of each scene.

    Raises:
        NotFound: there is neither such a campaign nor its `campaign.json`.
        StoreFailed: `campaign.json` cannot be written.
        PestoError: the store is away.
    """
    records = CampaignRecords(href)
    try:
        campaign = load_campaign(href)
    except NotFound:
        finished = _finished(folder, records.identity)
        if finished is None:
            raise
        return finished
    failed = records.failed_before(len(campaign.tasks))
    stopped = stopped_scenes(href) if limit else set()
    scenes: dict[str, JsonValue] = {}
    for scene in campaign.scenes:
        why = STOPPED if scene.id in stopped else failed.get(scene.id, scene.error)
        entry = _entry(scene, why, record, form=form, keep=keep)
        scenes[scene.id] = entry
        on_scene(scene.id, str(entry["status"]))
    counts = Counter(str(each["status"]) for each in scenes.values() if isinstance(each, dict))
    document: dict[str, JsonValue] = {
        "campaign": records.identity,
        "pipeline": campaign.pipeline,
        "status": "COMPLETE" if set(counts) == {"COMPLETE"} else "PARTIAL",
        "engine": dict(record.engine),
        "counts": dict(counts),
        **({"stopped": {**(limit.stopped or {}), "detail": limit.detail}} if limit else {}),
        "scenes": scenes,
    }
    if campaign.report != "none":
        write_page(folder / CAMPAIGN_PAGE, render_campaign(document))
    _write(folder, document)
    if document["status"] == "COMPLETE" and not keep:
        records.delete()
        if isinstance(folder, Path):
            with suppress(OSError):  # something else is in it
                (folder / WORKSPACE).rmdir()
    return document


def _entry(
    scene: SceneRun, why_failed: str, record: RunRecord, *, form: ProductForm, keep: bool
) -> dict[str, JsonValue]:
    """Publish a scene; return its status, folder, outputs and tiles, or its error."""
    folder = output_place(scene.folder)
    place: dict[str, JsonValue] = {"folder": scene.folder}
    if scene.bbox is not None:
        place["bbox"] = [*scene.bbox]
    if why_failed:
        _give_up(scene)
        status = "STOPPED" if why_failed == STOPPED else "FAILED"
        return {"status": status, **place, "error": why_failed}
    try:
        if scene.is_complete:
            found = read_result(folder)
            result = {} if found is None else found.document
        else:
            result = publish_run(scene.plan, folder, record, form=form, keep=keep)
    except Interrupted:
        raise
    except PestoError as error:
        return {"status": "FAILED", **place, "error": error.detail}
    if not result:
        gone = "its result.json was deleted while the campaign ran; run it again"
        return {"status": "FAILED", **place, "error": gone}
    return {
        "status": result["status"],
        **place,
        "run": result["run"],
        "inputs": result["inputs"],
        "outputs": _outputs(result, folder),
        "tiles": result["tiles"],
    }


def _outputs(result: Mapping[str, JsonValue], folder: AnyPath) -> dict[str, JsonValue]:
    """Output name -> its value, or href and sha256 of its file."""
    outputs = result["outputs"]
    found = outputs.items() if isinstance(outputs, dict) else ()
    return {
        name: entry["value"]
        if "value" in entry
        else {"href": href_of(folder / str(entry["path"])), "sha256": entry["sha256"]}
        for name, entry in found
        if isinstance(entry, dict)
    }


def _give_up(scene: SceneRun) -> None:
    """Let other runs have the folder of a scene that failed."""
    if scene.plan:
        try:
            abandon(load_context(scene.plan).plan)
        except PestoError:
            return


def _finished(folder: AnyPath, identity: str) -> dict[str, JsonValue] | None:
    """Return the `campaign.json` of a campaign whose plan was deleted at its end."""
    try:
        document = json.loads((folder / CAMPAIGN).read_bytes())
    except (OSError, ValueError):
        return None
    is_own = isinstance(document, dict) and document.get("campaign") == identity
    return document if is_own else None


def complete_scenes(
    folder: AnyPath, pipeline: str
) -> dict[str, tuple[float, float, float, float] | None]:
    """Return the scenes that `campaign.json` has as COMPLETE -> their bounds in degrees.

    Raises:
        InvalidInput: there is no `campaign.json`, it cannot be read, or it is of another pipeline.
    """
    path = folder / CAMPAIGN
    try:
        document = json.loads(path.read_bytes())
        scenes, found = document["scenes"].items(), document["pipeline"]
        if found != pipeline:
            detail = f"{path} is of the pipeline {found!r}, not {pipeline!r}"
            raise InvalidInput(f"{detail}: leave --only-failed out, or choose another folder")
        return {
            name: tuple(scene["bbox"]) if "bbox" in scene else None
            for name, scene in scenes
            if scene["status"] == "COMPLETE"
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        told = error.strerror if isinstance(error, OSError) else f"is no result of one: {error}"
        detail = f"{path}: {told or error}; without --only-failed every scene is looked at"
        raise InvalidInput(detail) from error


def _write(folder: AnyPath, document: dict[str, JsonValue]) -> None:
    path, text = folder / CAMPAIGN, json_text(document) + "\n"
    if not isinstance(path, Path):
        path.write_text(text)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(text)
        part.replace(path)
    except OSError as error:
        raise StoreFailed(f"{path}: {error.strerror or error}") from error
