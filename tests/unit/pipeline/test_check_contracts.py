"""A check against what contracts, scenes and services say: bands, dtypes, grids, pins."""

import pytest

from pesto_runtime.contract import BandValues, Description
from pesto_runtime.pipeline import RasterType
from tests.unit.pipeline.building import (
    IMAGE,
    NUMBER,
    checked,
    image,
    known,
    pipeline,
    process,
    scene,
    the_error,
    told,
)

SMOOTHED = ("smooth", {"x": "$inputs.scene"})


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"bands": ("red", "green")}, "band nir is missing: $inputs.scene has 2 (red, green)"),
        ({"bands": (None, None, None)}, "the 3 bands of $inputs.scene have no names"),
        ({"bands": ("red", None)}, "band nir is missing: $inputs.scene has 2 (red, unnamed)"),
        ({"dtype": "float32"}, "$inputs.scene is float32, but the port takes uint16"),
    ],
)
def test_a_scene_that_does_not_fit_is_told(facts: dict[str, object], words: str) -> None:
    """Known scenes are checked as edges are: missing bands by name, what is there listed."""
    made = pipeline({"m": ("mask", {"x": "$inputs.scene"})}, {"o": "$m.mask"})
    pointer, detail = the_error(checked(made, scenes={"scene": scene(**facts)}))  # type: ignore[arg-type]  # facts by name

    assert pointer == "/stages/0/inputs/x"
    assert words in detail


def test_what_fits_by_luck_is_a_warning() -> None:
    """Another nodata, no CRS, exactness within a tolerance: no errors."""
    near = process("near", {"x": image(bands=["a", "b"], nodata=0, exactness={"rtol": 1e-6})},
                   {"y": image()})  # fmt: skip
    made = pipeline({"s": ("near", {"x": "$inputs.scene"})}, {"o": "$s.y"})
    there = scene(bands=("a", "b"), nodata=65535, crs=None, transform=None)
    found = checked(made, descriptions=known(near=near), scenes={"scene": there})
    assert found.errors == ()
    words = " | ".join(each.detail for each in found.warnings)
    assert len(found.warnings) == 3
    for part in ("nodata of $inputs.scene is 65535, the port expects 0", "has no CRS",
                 "exact within a tolerance only"):  # fmt: skip
        assert part in words


@pytest.mark.parametrize(
    ("there", "wanted", "words"),
    [
        (0, "nan", "nodata of $inputs.scene is 0, the port expects nan"),
        ("nan", 0, "nodata of $inputs.scene is nan, the port expects 0"),
        (1, 0, "nodata of $inputs.scene is 1, the port expects 0"),
        ("nan", "nan", None),
        (0, 0, None),
        (None, "nan", None),
        ("nan", None, None),
    ],
)
def test_another_nodata_is_warned_about(there: object, wanted: object, words: str | None) -> None:
    """Not-a-number is another value than any number, and the same as itself."""
    picky = process("picky", {"x": image(nodata=wanted)}, {"y": image()})
    made = pipeline({"s": ("picky", {"x": "$inputs.scene"})}, {"o": "$s.y"})
    found = checked(made, descriptions=known(picky=picky), scenes={"scene": scene(nodata=there)})
    assert found.errors == ()
    assert [each.detail for each in found.warnings] == ([] if words is None else [words])


@pytest.mark.parametrize(
    ("contract", "tileable", "words"),
    [
        ({"margin": 2}, "reduce", "a reduce reads product blocks"),
        ({"align": 2}, "reduce", "a reduce reads product blocks"),
        ({"tile": {"fixed": 256}}, "reduce", "a reduce reads product blocks"),
        ({"tile": {"min": 64}}, "reduce", "a reduce reads product blocks"),
        ({"tile": {"fixed": 256}}, "whole", "has no `tile.fixed`"),
    ],
)
def test_a_contract_that_cannot_be_planned_is_told(
    contract: dict[str, object], tileable: str, words: str
) -> None:
    """Better than a plan that does something else."""
    folds = {"n": "sum"} if tileable == "reduce" else None
    odd = process("odd", {"x": image(**contract)}, {"n": NUMBER}, tileable=tileable, folds=folds)
    made = pipeline({"s": ("odd", {"x": "$inputs.scene"}), "a": SMOOTHED}, {"o": "$a.y"})
    pointer, detail = the_error(checked(made, descriptions=known(odd=odd)))
    assert pointer == "/stages/0/inputs/x"
    assert words in detail


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (process("odd", {"n": NUMBER}, {"y": image()}, tileable=None), "an image that is not on"),
        (process("odd", {"x": image()}, {"y": image()}, tileable="reduce",
                 folds={"n": "sum"}), "an image that is not on"),
        (process("odd", {"x": image()}, {"y": image(), "z": image(scale=2)}), "different scales"),
    ],
)  # fmt: skip
def test_images_off_the_pipeline_s_grid_are_told(odd: Description, words: str) -> None:
    """Made of nothing, of a reduce, or on two grids at once."""
    bound = {"n": 1} if odd.input("n") else {"x": "$inputs.scene"}
    made = pipeline({"s": ("odd", bound)}, {"o": "$s.y"})
    pointer, detail = the_error(checked(made, descriptions=known(odd=odd)))
    assert pointer == "/stages/0/process"
    assert words in detail


@pytest.mark.parametrize(
    ("dtype", "bands", "fits"),
    [("uint8", 1, True), ("uint16", 3, True), ("float32", 4, True), ("float32", 1, False),
     ("int16", 3, False), (["uint8", "int16"], 1, False)],
)  # fmt: skip
def test_a_plain_pesto_service_gives_what_png_holds(
    dtype: object,
    bands: int,
    fits: bool,  # a row of the table
) -> None:
    """uint8 and uint16, or more than three bands; one that speaks binary gives anything."""
    odd = process("odd", {"x": image()}, {"y": image(dtype=dtype, bands=bands)})
    made = pipeline({"s": ("odd", {"x": "$inputs.scene"}),
                     "a": ("smooth", {"x": "$inputs.scene"})}, {"o": "$a.y"})  # fmt: skip
    plain = checked(made, descriptions=known(odd=odd), plain=frozenset({"odd"}))
    assert [each.pointer for each in plain.errors] == ([] if fits else ["/stages/0/process"])
    assert not checked(made, descriptions=known(odd=odd)).errors


def test_a_product_has_one_dtype() -> None:
    """A raster that may be several is fine between stages, but not as a file."""
    either = process("either", {"x": image()}, {"y": image(dtype=["uint8", "int16"])})
    stages = {"e": ("either", {"x": "$inputs.scene"}), "s": ("sharpen", {"x": "$e.y"})}
    found = checked(pipeline(stages, {"o": "$e.y"}), descriptions=known(either=either))
    assert the_error(found)[0] == "/outputs/o"


def test_a_pin_holds_what_the_service_said() -> None:
    """The same digest is fine; another is an error; an unknown one cannot be compared."""
    made = pipeline({"a": SMOOTHED}, {"o": "$a.y"}, pins={"smooth": "sha256:1"})
    assert not checked(made, digests={"smooth": "sha256:1"}).errors
    assert not checked(made).errors
    pointer, detail = the_error(checked(made, digests={"smooth": "sha256:2"}))
    assert pointer == "/pins/smooth"
    assert "the digest of the service's description is now sha256:2" in detail


def test_parameters_are_checked_where_they_are_known() -> None:
    """Missing, unknown and of the wrong type: each by its name, with how to give it."""
    made = pipeline(
        {"s": ("stretch", {"x": "$inputs.scene", "gain": "$inputs.gain"})},
        {"o": "$s.y"},
        inputs={"scene": "image", "gain": "number"},
    )
    assert not checked(made).errors
    assert not checked(made, scenes={"scene": scene()}, parameters={"gain": 2}).errors
    found = checked(made, parameters={"gain": "two", "gian": 1})
    assert told(found) == [
        ("/inputs/gian", "the pipeline has no such input; it has scene, gain"),
        ("/inputs/scene", "requires a value for 'x' of stage 's': -i scene=…"),
        ("/inputs/gain", "must be number, not 'two', for 'gain' of stage 's': correct -i gain=…"),
    ]


@pytest.mark.parametrize("schema", [{"type": "nmber"}, {"$ref": "#/definitions/Nope"}])
def test_a_service_whose_schema_is_none_is_told_of(schema: dict[str, object]) -> None:
    """An error of the report like any other, not the end of it."""
    odd = process("odd", {"x": image(), "n": schema}, {"y": image()})
    made = pipeline({"s": ("odd", {"x": "$inputs.scene", "n": 1})}, {"o": "$s.nothing"})
    found = checked(made, descriptions=known(odd=odd))
    assert [each.pointer for each in found.errors] == ["/stages/0/inputs/n", "/outputs/o"]


def test_what_is_not_known_of_a_plain_service_is_no_error() -> None:
    """A port without a raster contract takes any image, and gives one of any kind."""
    plain = process("plain", {"image": IMAGE}, {"image": IMAGE}, tileable=None)
    made = pipeline({"p": ("plain", {"image": "$inputs.scene"})}, {"o": "$p.image"})
    found = checked(made, descriptions=known(plain=plain))
    assert found.errors == ()
    assert found.stages[0].kind == "whole"


@pytest.mark.parametrize(("tileable", "warned"), [(None, True), ("whole", False), ("map", False)])
def test_a_process_that_forgot_its_margin_is_warned_about(
    tileable: str | None, warned: bool
) -> None:
    """It gets the whole image; one that says so itself is left alone."""
    silent = process("p", {"image": image()}, {"out": image()}, tileable=tileable)
    made = pipeline({"a": ("p", {"image": "$inputs.scene"})}, {"o": "$a.out"})
    warnings = checked(made, descriptions=known(p=silent)).warnings
    assert any("declare its margin" in each.detail for each in warnings) is warned


@pytest.mark.parametrize(("dtype", "fits"), [("uint8", False), ("int16", True), ("float32", True)])
def test_nodata_must_fit_a_dtype_that_is_inherited(dtype: str, fits: bool) -> None:
    """A product could not be written: it is an error before a pixel is computed."""
    deep = process("deep", {"x": image()}, {"y": image(nodata=-9999)})
    made = pipeline({"s": ("deep", {"x": "$inputs.scene"})}, {"o": "$s.y"})
    found = checked(made, descriptions=known(deep=deep), scenes={"scene": scene(dtype=dtype)})
    details = [each.detail for each in found.errors]
    assert (details == []) == fits
    assert fits or "output 'y': nodata -9999 does not fit dtype uint8" in details[0]


def test_an_output_without_a_pixel_is_refused() -> None:
    """A third of two pixels is none; a third of three is one (control)."""
    third = process("third", {"x": image()}, {"y": image(scale="1/3")})
    made = pipeline({"s": ("third", {"x": "$inputs.scene"})}, {"o": "$s.y"})
    small, enough = scene(width=2, height=9), scene(width=3, height=9)
    pointer, detail = the_error(
        checked(made, descriptions=known(third=third), scenes={"scene": small})
    )
    assert pointer == "/stages/0/process"
    assert "output 'y' would have 0 x 3 pixels: at its scale of 1/3" in detail
    assert checked(made, descriptions=known(third=third), scenes={"scene": enough}).errors == ()


@pytest.mark.parametrize(
    ("output", "lost"),
    [
        (image(), ""),
        (image(dtype="float32"), "nodata, offset, scale, unit"),
        (image(dtype="float32", nodata=1), "offset, scale, unit"),
        (image(dtype="float32", values={"unit": "K"}), "nodata"),
        (image(dtype="float32", nodata=None, values={}), ""),
        (image(bands=["class"], dtype="uint8"), "nodata"),
        (image(bands=["class"], dtype="uint8", nodata=None), ""),
    ],
)
def test_facts_that_an_output_loses_are_one_warning(output: dict[str, object], lost: str) -> None:
    """With the way out; a later stage that declares them, or has none to lose, is quiet."""
    there = scene(nodata=0, values=(BandValues(scale=2, offset=1, unit="K"),) * 2)
    facts = known(
        first=process("first", {"x": image()}, {"y": output}),
        last=process("last", {"x": image()}, {"y": image()}),
    )
    for stages, out in (
        ({"a": ("first", {"x": "$inputs.scene"})}, "$a.y"),
        ({"a": ("first", {"x": "$inputs.scene"}), "b": ("last", {"x": "$a.y"})}, "$b.y"),
    ):
        made = pipeline(stages, {"o": out})
        found = checked(made, descriptions=facts, scenes={"scene": there})
        assert found.errors == ()
        told_of = [each.detail for each in found.warnings]
        assert told_of == [] if not lost else f"does not keep {lost} of $inputs.scene" in told_of[0]
        assert len(told_of) == bool(lost)
        assert checked(made, descriptions=facts, scenes={"scene": scene()}).warnings == ()


def test_bands_that_a_port_takes_are_the_bands_of_its_output() -> None:
    """Also of later stages: by name, in the port's order, with their facts."""
    there = scene(
        bands=("blue", "red", "nir"), dtype="uint16",
        values=tuple(BandValues(scale=each) for each in (1, 2, 3)),
    )  # fmt: skip
    facts = known(
        pick=process("pick", {"x": image(bands=["nir", "red"])}, {"y": image()}),
        same=process("same", {"x": image()}, {"y": image()}),
        si=process("si", {"x": image(bands=["red"], scaled=True)}, {"y": image()}),
    )
    made = pipeline(
        {"a": ("pick", {"x": "$inputs.scene"}), "b": ("same", {"x": "$a.y"}),
         "c": ("si", {"x": "$b.y"})},
        {"o": "$b.y", "p": "$c.y"},
    )  # fmt: skip
    types = checked(made, descriptions=facts, scenes={"scene": there}).types
    assert types["$b.y"] == types["$a.y"] == RasterType(
        ("nir", "red"), ("uint16",), scene="scene", facts=(3, 2),
        values=(BandValues(scale=3), BandValues(scale=2)),
    )  # fmt: skip
    physical = types["$c.y"]
    assert isinstance(physical, RasterType)
    assert (physical.bands, physical.dtype, str(physical.nodata)) == (("red",), ("float32",), "nan")
    assert (physical.values, physical.facts) == ((), (2,))


def test_the_first_image_is_that_of_the_first_port() -> None:
    """Whichever line of the pipeline comes first."""
    two = process("two", {"a": image(), "b": image()}, {"y": image()})
    bound = {"a": "$inputs.one", "b": "$inputs.two"}
    for inputs in (bound, dict(reversed(bound.items()))):
        made = pipeline(
            {"s": ("two", inputs)}, {"o": "$s.y"}, inputs={"one": "image", "two": "image"}
        )
        scenes = {"one": scene(nodata=1), "two": scene(nodata=2)}
        found = checked(made, descriptions=known(two=two), scenes=scenes)
        assert [getattr(found.types["$s.y"], each) for each in ("scene", "nodata")] == ["one", 1]


@pytest.mark.parametrize(
    ("width", "height", "contract", "warned"),
    [
        (64, 96, {"align": 32}, False),
        (65, 96, {"align": 32}, True),
        (64, 95, {"align": 32}, True),
        (65, 95, {"align": 32, "fill": "reflect"}, False),
        (65, 95, {}, False),
    ],
)
def test_windows_that_are_not_aligned_at_the_far_edge_are_warned_about(
    width: int, height: int, contract: dict[str, object], warned: bool
) -> None:
    """With the way out for networks; before a tile fails."""
    process_of_net = process("net", {"x": image(margin=0, **contract)}, {"y": image()})
    made = pipeline({"s": ("net", {"x": "$inputs.scene"})}, {"y": "$s.y"})
    facts = scene(bands=("a",)).model_copy(update={"width": width, "height": height})
    found = checked(made, descriptions=known(net=process_of_net), scenes={"scene": facts})
    assert any('declare fill="reflect"' in str(each) for each in found.warnings) is warned
