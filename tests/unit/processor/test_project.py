"""PESTO project directories load unmodified: description, profiles, defaults, both styles."""

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pesto_runtime.errors import (
    AlgorithmFailed,
    ContractBroken,
    InvalidContract,
    InvalidInput,
    NotFound,
)
from pesto_runtime.processor import Processor, load_processor
from pesto_runtime.processor.description_builder import DEFINITIONS

PROJECT = Path(__file__).parents[2] / "data" / "pesto_project"
IMAGE = np.full((1, 2, 2), 10, np.uint8)

KEYWORDS_STYLE = """
import numpy as np

class Process:
    def process(self, action, image=None, images=None, number=4, text=None, table={"a": 1}):
        if action == "echo":
            return {"number": number, "text": text, "table": table, "surplus": 1, "image": None}
        if action == "image2d":
            return {"image": image[0], "images": [image, image[0]]}
        if action == "scalar":
            return {"number": np.float32(1.5)}
        if action == "nan":
            return {"number": float("nan")}
        if action == "nothing":
            return None
        raise ValueError("algorithm says no")
"""
KEYWORDS_PORTS = {
    "action": {"type": "string"}, "image": {"$ref": "#/definitions/Image"},
    "images": {"$ref": "#/definitions/Images"}, "number": {"type": "number", "maximum": 9},
    "text": {"type": "string"}, "table": {"type": "object"},
    "shape": {"$ref": "#/definitions/Polygon"},
}  # fmt: skip
POLYGON = {"type": "Polygon", "coordinates": [[[0, 0], [0, 4], [4, 4], [0, 0]]]}


def written(folder: Path, source: str = KEYWORDS_STYLE, *, shape: bool = False) -> Path:
    """A project in keyword style, without any file that it could do without."""
    api = folder / "pesto" / "api"
    api.mkdir(parents=True)
    (folder / "algorithm").mkdir()
    (folder / "algorithm" / "process.py").write_text(source)
    ports = {name: port for name, port in KEYWORDS_PORTS.items() if shape or name != "shape"}
    (api / "description.json").write_text(json.dumps({"name": folder.name, "version": "1"}))
    (api / "input_schema.json").write_text(json.dumps(ports | {"required": ["action"]}))
    (api / "output_schema.json").write_text(json.dumps(ports))
    return folder


def report(processor: Processor, **inputs: object) -> dict[str, object]:
    told = processor.run({"image": IMAGE, **inputs})["report"]
    assert isinstance(told, dict)
    return told


def test_the_description_is_the_one_a_pesto_service_answers():
    """PESTO's keys and no other; licence and the values of config are not told."""
    document = load_processor(str(PROJECT)).description.to_json()
    assert set(document) == {
        "title", "name", "version", "family", "description", "organization", "email", "resources",
        "asynchronous", "keywords", "config", "input", "output",
    }  # fmt: skip
    taken = document["input"]
    assert isinstance(taken, dict)
    assert (taken["title"], taken["description"]) == ("brighten input", "Expected format")
    assert isinstance(taken["properties"], dict)
    assert list(taken["properties"]) == ["image", "gain", "offset", "label", "options"]
    assert taken["required"] == ["image"]
    assert taken["definitions"] == {
        **DEFINITIONS, "report": {"type": "object", "description": "What was done"}
    }  # fmt: skip
    given = document["output"]
    assert isinstance(given, dict)
    assert "required" not in given


def test_profiles_merge_at_every_depth_in_the_order_given():
    """Objects merge, lists and scalars replace; the last profile wins."""
    resources, keywords = {}, {}
    for profiles in [(), ("gpu",), ("gpu", "big"), ("big", "gpu")]:
        document = load_processor(str(PROJECT), profiles=profiles).description.to_json()
        resources[profiles], keywords[profiles] = document["resources"], document["keywords"]
    assert resources == {
        (): {"cpu": 1, "gpu": 0, "ram": 2}, ("gpu",): {"cpu": 1, "gpu": 1, "ram": 2},
        ("gpu", "big"): {"cpu": 1, "gpu": 2, "ram": 64},
        ("big", "gpu"): {"cpu": 1, "gpu": 1, "ram": 64},
    }  # fmt: skip
    assert keywords[("gpu",)] == ["gpu"]


def test_a_profile_that_no_file_has_is_an_error_and_one_of_the_build_alone_is_none():
    """A typo must not serve the default profile in silence."""
    with pytest.raises(NotFound, match=r"profile 'gpuu'; there is big, gpu, nogpu"):
        load_processor(str(PROJECT), profiles=["gpuu"])
    assert load_processor(str(PROJECT), profiles=["nogpu"]).description.version == "1.2.0"


def test_an_unreadable_file_is_an_error_that_names_it(tmp_path):
    """Broken JSON, no object, or not there at all."""
    for name, text, message in [
        ("description.gpu.json", "{", "is not JSON: line 1 column 2"),
        ("input_schema.json", "[]", "must be a JSON object"),
        ("output_schema.json", None, "is missing"),
    ]:
        copy = shutil.copytree(PROJECT, tmp_path / name)
        file = copy / "pesto" / "api" / name
        file.unlink() if text is None else file.write_text(text)
        with pytest.raises(InvalidContract, match=f"{name}: .*{message}"):
            load_processor(str(copy), profiles=["gpu"])


def test_absent_inputs_take_the_schemas_default_then_the_codes_then_none():
    """`gain` from the schema over the dataclass, `offset` from the dataclass, `label` None."""
    told = report(load_processor(str(PROJECT)))
    assert (told["gain"], told["offset"], told["label"]) == (2, 7, None)
    told = report(load_processor(str(PROJECT)), gain=3.5, offset=0, label="x")
    assert (told["gain"], told["offset"], told["label"]) == (3.5, 0, "x")


def test_the_code_is_told_its_profiles_exactly():
    """`is_profile_active("gpu")` is false for `nogpu`; get_profile has PESTO's form."""
    told = {
        profiles: (each["profile"], each["gpu"])
        for profiles in [(), ("gpu", "big"), ("nogpu",)]
        for each in [report(load_processor(str(PROJECT), profiles=profiles))]
    }
    assert told == {
        (): ("1.2.0", False), ("gpu", "big"): ("1.2.0-gpu-big", True),
        ("nogpu",): ("1.2.0-nogpu", False),
    }  # fmt: skip


def test_a_project_may_write_into_its_inputs_which_are_its_own():
    """Arrays and objects: the caller's stay as they are, the next call sees none of it."""
    processor = load_processor(str(PROJECT))
    image = IMAGE.copy()
    image.flags.writeable = False
    options: dict[str, object] = {}
    for _ in range(2):
        brighter = processor.run({"image": image, "options": options})["image"]
        assert isinstance(brighter, np.ndarray)
        assert brighter.tolist() == [[[27, 27], [27, 27]]]
    assert image.tolist() == IMAGE.tolist()
    assert options == {}


def test_on_start_runs_once_before_the_first_call(tmp_path):
    """Whoever calls first, and however often; a failure is told and tried again."""
    processor = load_processor(str(shutil.copytree(PROJECT, tmp_path / "fresh")))
    processor.setup()
    processor.setup()
    assert report(processor)["starts"] == 1
    source = KEYWORDS_STYLE + "    def on_start(self):\n        raise OSError('no model')\n"
    failing = load_processor(str(written(tmp_path / "failing", source)))
    with pytest.raises(AlgorithmFailed, match=r"on_start of failing: OSError.*process.py:18"):
        failing.run({"action": "echo"})


def test_projects_share_the_name_algorithm_and_never_meet(tmp_path):
    """Two in one process, called from several threads, with imports inside `process`."""
    copies = [shutil.copytree(PROJECT, tmp_path / f"copy{n}") for n in range(2)]
    gain = copies[1] / "algorithm" / "gain.py"
    gain.write_text(gain.read_text().replace("* gain + offset", "* 0 + 99"))
    processors = [load_processor(str(copy)) for copy in copies]

    def first_pixel(number: int) -> int:
        image = processors[number % 2].run({"image": IMAGE})["image"]
        assert isinstance(image, np.ndarray)
        return int(image[0, 0, 0])

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(first_pixel, range(20))) == [27, 99] * 10


def test_loading_and_running_leaves_neither_modules_nor_paths_behind():
    """`algorithm` and `pesto` are gone, and what bore the names before is back."""
    mine = type(sys)("pesto")
    sys.modules["pesto"] = mine
    try:
        before = list(sys.path)
        assert report(load_processor(str(PROJECT)))
        assert sys.modules["pesto"] is mine
        assert sys.path == before
        assert not [name for name in sys.modules if name.split(".")[0] == "algorithm"]
        assert "pesto.cli.fields" not in sys.modules
    finally:
        del sys.modules["pesto"]


def test_keyword_style_takes_its_own_defaults_and_drops_surplus_outputs(tmp_path):
    """What the schema does not know is dropped, an absent image output is absent."""
    processor = load_processor(str(written(tmp_path / "keywords")))
    echo = {"number": 4, "text": None, "table": {"a": 1}}
    assert processor.run({"action": "echo"}) == echo
    assert processor.run({"action": "echo", "number": 5, "unknown": 1}) == echo | {"number": 5}


def test_images_of_a_project_may_be_two_dimensional(tmp_path):
    """PESTO takes (row, col) and (band, row, col); numpy scalars are numbers."""
    processor = load_processor(str(written(tmp_path / "keywords")))
    outputs = processor.run({"action": "image2d", "image": IMAGE})
    image, images = outputs["image"], outputs["images"]
    assert isinstance(image, np.ndarray)
    assert isinstance(images, list)
    assert [image.shape, *(each.shape for each in images)] == [(1, 2, 2)] * 3
    assert processor.run({"action": "scalar"}) == {"number": 1.5}


def test_bad_inputs_of_a_project_are_told_at_once_with_their_pointers(tmp_path):
    """Missing, of another type, over its maximum, no array, no list."""
    processor = load_processor(str(written(tmp_path / "keywords")))
    bad = {"number": 10, "text": 3, "image": "x", "images": [IMAGE, 1], "table": None}
    with pytest.raises(InvalidInput) as refused:
        processor.run(bad)
    pointers = {field.pointer for field in refused.value.fields}
    assert pointers == {"/action", "/number", "/text", "/image", "/images/1", "/table"}


def test_a_polygon_in_the_input_schema_works(tmp_path):
    """PESTO 1.7.2 fails every request of such a project."""
    source = KEYWORDS_STYLE.replace("text=None", "text=None, shape=None").replace(
        '"surplus": 1', '"shape": shape'
    )
    processor = load_processor(str(written(tmp_path / "shapes", source, shape=True)))
    assert processor.run({"action": "echo", "shape": POLYGON})["shape"] == POLYGON
    with pytest.raises(InvalidInput, match=r"/shape/coordinates/0: .*too short"):
        processor.run({"action": "echo", "shape": {**POLYGON, "coordinates": [[[0, 0]]]}})


def test_what_a_project_does_wrong_is_told_by_name(tmp_path):
    """Its exception with its line, a number that is none, no dict at all."""
    processor = load_processor(str(written(tmp_path / "wrong")))
    with pytest.raises(AlgorithmFailed, match=r"wrong: ValueError: algorithm says no.*\.py:16\)"):
        processor.run({"action": "fail"})
    with pytest.raises(ContractBroken, match="'number' is nan"):
        processor.run({"action": "nan"})
    with pytest.raises(ContractBroken, match="must return a dict or Output, not None"):
        processor.run({"action": "nothing"})
    with pytest.raises(InvalidInput, match="wrong is not a reduce"):
        processor.partial({})


@pytest.mark.parametrize(
    ("source", "message"),
    [("x = 1", "needs a class Process with a method process"),
     ("class Process: pass", "needs a class Process with a method process"),
     ("class Process:\n    def process(self, action): ...", r"\['image', .*does not take"),
     ("class Process:\n    def process(self, more, **rest): ...", None),
     (KEYWORDS_STYLE.replace("action,", "action, extra,"), r"needs \['extra'\]")],
)  # fmt: skip
def test_code_that_contradicts_the_schema_is_refused_when_it_loads(tmp_path, source, message):
    """Not at each request; `**rest` takes anything."""
    folder = written(tmp_path / "p", source)
    if message is None:
        assert load_processor(str(folder)).description.name == "p"
        return
    with pytest.raises(InvalidContract, match=f"p, algorithm/process.py: .*{message}"):
        load_processor(str(folder))


def test_the_build_changes_with_code_schemas_and_profiles(tmp_path):
    """And with nothing else: not the place, not what neither is code nor contract."""
    copy = shutil.copytree(PROJECT, tmp_path / "copy")
    original = load_processor(str(PROJECT)).build
    assert load_processor(str(copy)).build == original
    (copy / "README.txt").write_text("text")
    assert load_processor(str(copy)).build == original
    builds = {original, load_processor(str(PROJECT), profiles=["gpu"]).build}
    (copy / "algorithm" / "gain.py").write_text("")
    builds.add(load_processor(str(copy)).build)
    (copy / "pesto" / "api" / "version.json").write_text("{}")
    builds.add(load_processor(str(copy)).build)
    assert len(builds) == 4


def test_the_version_document_is_version_json():
    """Free text goes to `/version` as it is, beside the name of the packaging format."""
    assert load_processor(str(PROJECT)).version_document == {
        "version": "1.2.0",
        "__packaging": "packaged with PESTO v1.7.2",
        "note": "free text",
    }
