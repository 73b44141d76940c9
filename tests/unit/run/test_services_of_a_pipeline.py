"""Which service runs a process: options, then a catalog, then the pipeline's own."""

from pathlib import Path

import pytest

from pesto_runtime.contract import Description, Pipeline
from pesto_runtime.errors import InvalidContract, InvalidInput, PestoError
from pesto_runtime.run.services import Services, discover, resolve_services
from tests.support.commands import saved
from tests.support.runs import PROCESSES, chain

PIPELINE = Pipeline.parse(chain("grow"))
FAR, SHORT = f"{PROCESSES}:grow_far", f"{PROCESSES}:grow_short"


def resolved(*options: str, catalog: Path | None = None) -> Services:
    return resolve_services(PIPELINE, base=PROCESSES.parent, options=options, catalog=catalog)


def margin(services: Services) -> int:
    return services.descriptions["grow"].margin.top


def test_options_come_before_a_catalog_and_that_before_the_pipeline(tmp_path: Path) -> None:
    """Told apart by their margins: 1, 40 and 39."""
    catalog = saved(tmp_path / "services.json", {"grow": FAR})
    assert margin(resolved()) == 1
    assert margin(resolved(catalog=catalog)) == 40
    assert margin(resolved(f"grow={SHORT}", catalog=catalog)) == 39


def test_a_relative_target_is_relative_to_the_file_that_names_it(tmp_path: Path) -> None:
    """Not to the working directory."""
    (tmp_path / "code.py").write_text(PROCESSES.read_text())
    catalog = saved(tmp_path / "services.json", {"grow": "code.py:grow_far"})
    found = resolved(catalog=catalog)
    assert found.services["grow"].targets == (f"{tmp_path}/code.py:grow_far",)


def test_a_relative_target_is_saved_as_its_catalog_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pesto discover code.py:f --save catalog` writes a catalog that finds the code again."""
    (tmp_path / "code.py").write_text(PROCESSES.read_text())
    monkeypatch.chdir(tmp_path)
    discover(["code.py:grow"], tmp_path / "catalog")
    monkeypatch.chdir("/")
    found = resolved(catalog=tmp_path / "catalog")
    assert found.services["grow"].targets == (f"{tmp_path}/code.py:grow",)


def test_an_overlay_is_merged_into_what_the_service_says(tmp_path: Path) -> None:
    """The digest stays that of the service itself."""
    overlay = {"input": {"properties": {"image": {"x-raster": {"margin": 7}}}}}
    entry = {"url": f"{PROCESSES}:grow", "overlay": overlay}
    catalog = saved(tmp_path / "services.json", {"grow": entry})  # type: ignore[dict-item]  # JSON
    found = resolved(catalog=catalog)
    assert margin(found) == 7
    assert found.digests == resolved().digests


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("{", InvalidInput, "not JSON"),
        ("[1]", InvalidContract, "JSON object"),
        ('{"grow": 5}', InvalidInput, "neither a target"),
        ('{"grow": []}', InvalidInput, "neither a target"),
        ('{"grow": {"overlay": {}}}', InvalidInput, "neither a target"),
        ('{"grow": {"url": "x.py:f", "overlay": 5}}', InvalidInput, "overlay"),
        ('{"grow": "nowhere.py:f"}', PestoError, "nowhere.py"),
    ],
)
def test_a_catalog_that_cannot_be_understood_is_refused(
    tmp_path: Path, text: str, error: type[PestoError], message: str
) -> None:
    """By its file, or the value that is wrong."""
    path = tmp_path / "services.json"
    path.write_text(text)
    with pytest.raises(error, match=message):
        resolved(catalog=path)


def test_an_empty_folder_is_no_catalog(tmp_path: Path) -> None:
    """It says how to fill it."""
    with pytest.raises(InvalidInput, match="pesto discover"):
        resolved(catalog=tmp_path)


@pytest.mark.parametrize("option", ["grow", "=x.py:f", "grow="])
def test_an_option_that_names_nothing_is_refused(option: str) -> None:
    """With what it may be."""
    with pytest.raises(InvalidInput, match="NAME=TARGET_OR_URL"):
        resolved(option)


def versions_of_grow(folder: Path, *versions: str) -> None:
    """A catalog with several versions."""
    description = resolved().descriptions["grow"].to_json()
    for version in versions:
        document = {**description, "version": version}
        saved(folder / f"grow@{version}.json", {"url": FAR, "description": document})


def without_services(process: str) -> Pipeline:
    """A pipeline that names a process, and no target of its own."""
    return Pipeline.parse({**chain(process), "services": {}})


@pytest.mark.parametrize(
    ("process", "version"),
    [("grow", "1.10.0"), ("grow@1.9", "1.9.3"), ("grow@1.9.0", "1.9.0"), ("grow@1", "1.10.0")],
)
def test_a_pin_takes_the_newest_compatible_version(
    tmp_path: Path, process: str, version: str
) -> None:
    """Numbers count as numbers; the choice among several is reported."""
    versions_of_grow(tmp_path, "1.9.0", "1.9.3", "1.10.0")
    pipeline = without_services(process)
    found = resolve_services(pipeline, base=tmp_path, catalog=tmp_path, ask=False)
    assert found.found[process].said.version == version
    warned = [str(each) for each in found.changed]
    assert bool(warned) == (process != "grow@1.9.0")
    assert all(f"{version} is used" in each for each in warned)


@pytest.mark.parametrize("process", ["grow@2", "grow@1.9"])
def test_a_pin_without_a_version_in_the_catalog_is_an_error(tmp_path: Path, process: str) -> None:
    """The control: another major version is not taken instead, nor 1.90 for 1.9."""
    versions_of_grow(tmp_path, "1.90.0")
    with pytest.raises(InvalidInput, match=r"has version 1\.90"):
        resolve_services(without_services(process), base=tmp_path, catalog=tmp_path, ask=False)


def test_a_service_of_another_version_than_the_pin_is_refused(tmp_path: Path) -> None:
    """By its own description, not by its name in an option."""
    pipeline = without_services("grow@7")
    with pytest.raises(InvalidInput, match="is pinned, and its service has version"):
        resolve_services(
            pipeline, base=tmp_path, options=["grow@7=tests/support/processes.py:grow"]
        )
    version = resolved().descriptions["grow"].version
    pipeline = without_services(f"grow@{version}")
    found = resolve_services(
        pipeline, base=tmp_path, options=["grow=tests/support/processes.py:grow"]
    )
    assert found.found[f"grow@{version}"].said.version == version


def test_a_description_is_parsed_once_until_its_file_changes(tmp_path: Path) -> None:
    """A DAG file of many pipelines reads one catalog for each of them."""
    description = resolved().descriptions["grow"].to_json()

    def read(version: str) -> Description:
        document = {**description, "version": version}
        saved(tmp_path / "grow@1.json", {"url": "x.py:f", "description": document})
        pipeline = Pipeline.parse(chain("grow"))
        found = resolve_services(pipeline, base=tmp_path, catalog=tmp_path, ask=False)
        return found.found["grow"].said

    first = read("1.0.0")
    assert read("1.0.0") is first
    assert read("1.0.1").version == "1.0.1"
