"""The config: an empty one is the demo, and every mistake is one line that names key and value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from attrib_core.common.errors import InputError
from attrib_core.config import checks
from attrib_core.config.load import load_config, plain
from attrib_core.config.schema import Config
from attrib_core.storage import yaml_files

ROOT = Path(__file__).parents[2]


def given(path: str, value: Any) -> dict[str, Any]:
    """A config that sets one key: given("a.b", 1) is {"a": {"b": 1}}."""
    for part in reversed(path.split(".")):
        value = {part: value}
    return value


def test_an_empty_config_is_the_demo():
    assert load_config({}) == load_config(None) == load_config(ROOT / "config.yaml")


def test_config_yaml_shows_every_key_with_its_default():
    shown = yaml_files.read(ROOT / "config.yaml")
    default = Config().model_dump(mode="json")
    assert shown.keys() == default.keys()
    assert shown == default


def test_every_key_has_a_description():
    def walk(model: Any, where: str) -> None:
        assert model.__doc__, where
        for name, field in model.model_fields.items():
            assert field.description, f"{where}.{name}"
            assert not field.is_required(), f"{where}.{name}"
            if hasattr(field.annotation, "model_fields") and field.annotation.__name__ != "Family":
                walk(field.annotation, f"{where}.{name}")

    walk(Config, "config")


def test_plain_values_have_the_defaults_of_the_families():
    values = plain(load_config({"encoders": {"mine": {"family": "pixel", "size": 16}}}))
    assert yaml.safe_load(yaml.safe_dump(values)) == values
    assert values["encoders"]["mine"]["size"] == 16
    assert values["customizer"]["stack"] == 8
    assert load_config(values) == load_config(plain(load_config(values)))


def test_other_keys_of_a_section_keep_their_defaults():
    config = load_config({"exemplars": {"object_sets": 5}})
    assert config.exemplars.object_sets == 5
    assert config.exemplars.style_sets == Config().exemplars.style_sets


def test_encoders_replace_the_default_ones():
    assert list(load_config({"encoders": {"mine": {"family": "pixel", "size": 8}}}).encoders) == ["mine"]


def test_numbers_with_exponents_are_numbers(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("customizer: {family: custom_diffusion, learning_rate: 1e-3}\n")
    assert plain(load_config(path))["customizer"]["learning_rate"] == 0.001


WRONG = [
    (given("sead", 1), ["sead", "1", "did you mean 'seed'"]),
    (given("pool.imagess", 5), ["pool.imagess", "5", "did you mean 'images'"]),
    (given("exemplars.splits.training", 0.5), ["exemplars.splits.training", "did you mean 'train'"]),
    (given("pool.images", 0), ["pool.images", "0", "greater than or equal to 1"]),
    (given("pool.images", "many"), ["pool.images", "'many'", "integer"]),
    (given("pool.images", True), ["pool.images", "True", "integer"]),
    (given("pool.images", 10**20), ["pool.images: 100000000000000000000 is wrong", "below 2147483648"]),
    (given("report.gallery_sets", 1 << 31), ["report.gallery_sets: 2147483648 is wrong, it should be below"]),
    (given("metrics.recall_ks", [5, 10**20]), ["metrics.recall_ks.1: 1", "below 2147483648"]),
    (
        given("encoders", {"mine": {"family": "pixel", "size": 10**20}}),
        ["encoders.mine.size: 1", "below 2147483648"],
    ),
    (
        given("customizer", {"family": "lora", "alpha": float("inf")}),
        ["customizer.alpha: inf is wrong", "finite"],
    ),
    (
        given("customizer", {"family": "lora", "alpha": float("nan")}),
        ["customizer.alpha: nan is wrong", "finite"],
    ),
    (given("a\nb", 1), [r"a\nb: no such key (value 1)"]),
    (given("encoders", {"x\ny": {"family": "pixel"}}), [r"encoders.x\ny: 'x\ny' is wrong"]),
    (
        given("encoders", {"x": {"family": "pixel", "size\n": 3}}),
        [r"encoders.x.size\n: no option of family 'pixel'"],
    ),
    (given("pool.images", 12.5), ["pool.images", "12.5", "integer"]),
    (given("pool", None), ["pool", "None"]),
    (given("pool", [1]), ["pool", "[1]"]),
    (given("seed", -1), ["seed", "-1"]),
    (given("run", "a/b"), ["run", "'a/b'", "pattern"]),
    (given("run", ".."), ["run", "'..'", "pattern"]),
    (given("run", "a" * 300), [f"run: '{'a' * 78}… is wrong, it should have at most 100 characters"]),
    (
        given("encoders", {"e" * 300: {"family": "pixel"}}),
        ["encoders.e", "e… is wrong", "at most 100 characters"],
    ),
    (given("prompts.object", {"k" * 300: "object_scene"}), ["prompts.object.k", "at most 100 characters"]),
    (given("prompts.object", {"scene": "p" * 300 + ".txt"}), ["prompts.object.scene: no file 'p"]),
    (given("pool.source", {"family": "folder", "path": "p" * 300}), ["pool.source.path: 'p", "is no folder"]),
    (
        given("base_model", {"family": "folder", "path": "p" * 300}),
        ["no such file", "'ppp", "File name too long"],
    ),
    (given("run", "a\ud83d"), ["half of an emoji"]),
    (given("x" * 500, "y" * 500), [f"{'x' * 79}…: no such key (value '{'y' * 78}…)"]),
    (given("synthesis.guidance", float("inf")), ["synthesis.guidance", "inf"]),
    (given("synthesis.image_format", "jpg"), ["synthesis.image_format", "'jpg'", "'webp_lossy' or 'jpeg'"]),
    (given("encoders", {}), ["encoders", "at least 1"]),
    (given("encoders", {"a/b": {"family": "pixel"}}), ["encoders.a/b", "pattern"]),
    (given("encoders", {"mine": {"size": 8}}), ["encoders.mine.family", "missing"]),
    (
        given("encoders", {"mine": {"family": "pixle"}}),
        ["encoders.mine.family", "'pixle'", "did you mean 'pixel'"],
    ),
    (
        given("encoders", {"mine": {"family": "pixel", "sise": 8}}),
        ["encoders.mine.sise", "did you mean 'size'"],
    ),
    (given("encoders", {"mine": {"family": "pixel", "size": 0}}), ["encoders.mine.size", "0"]),
    (
        given("pool.source", {"family": "openmoj"}),
        ["pool.source.family", "'openmoj'", "did you mean 'openmoji'"],
    ),
    (
        given("customizer", {"family": "custom_difusion"}),
        ["customizer.family", "did you mean 'custom_diffusion'"],
    ),
    (
        given("customizer", {"family": "textual_inversion", "prior_batch": 1}),
        ["customizer.prior_batch: 1", "expected 0"],
    ),
    (given("base_model", {"family": "bundeled"}), ["base_model.family", "did you mean 'bundled'"]),
    (given("exemplars.splits.train", 0.6), ["exemplars.splits", "0.6", "sum to 1"]),
    (given("exemplars.style_set_size", [8, 4]), ["exemplars.style_set_size", "[8, 4]"]),
    (given("exemplars.style_set_size", [4]), ["exemplars.style_set_size"]),
    ({"exemplars": {"object_sets": 0, "style_sets": 0}}, ["object_sets", "style_sets"]),
    (given("pool.images", 100), ["pool.images", "100", "112"]),
    (given("pool.images", 10**7), ["pool.images", "10000000", "openmoji"]),
    (
        given("pool.source", {"family": "folder", "path": "/no/such/folder"}),
        ["pool.source.path", "/no/such/folder"],
    ),
    (given("parts.exemplar_sets", 30), ["parts.exemplar_sets", "30", "stack of 8", "32"]),
    (given("metrics.recall_ks", [10, 5]), ["metrics.recall_ks", "[10, 5]", "[5, 10]"]),
    (given("metrics.recall_ks", []), ["metrics.recall_ks"]),
    (given("metrics.alike", [["bird", "fish"], ["bird"]]), ["metrics.alike", "'bird'", "twice"]),
    (given("calibration.shown", 101), ["calibration.shown", "101", "ranking.top_k = 100"]),
    (given("prompts.object.scene", "object_scenes"), ["prompts.object.scene", "did you mean 'object_scene'"]),
    (given("prompts.style.theme", "mine.txt"), ["prompts.style.theme", "'mine.txt'"]),
    (given("prompts.prompts_each", 10**4), ["prompts.object.scene", "10000", "entries"]),
    (given("prompts.object", {}), ["prompts.object", "exemplars.object_sets"]),
    (given("exemplars.object_sets", 72), ["exemplars.object_sets: 72", "only 71 different", "never seen"]),
    (given("exemplars.style_sets", 17), ["exemplars.style_sets: 17", "only 16 styles", "4 different"]),
    (given("exemplars.unseen_categories", ["brid"]), ["exemplars.unseen_categories: 'brid'", "'bird'"]),
    (given("mapper.head", "cubic"), ["mapper.head", "'cubic'", "'linear', 'mlp' or 'channel'"]),
    (given("mapper.shared", "yes"), ["mapper.shared", "'yes'", "boolean"]),
    (given("mapper.hidden", 0), ["mapper.hidden", "0", "greater than or equal to 1"]),
    (
        given("mapper.head", "channel"),
        ["mapper.starts", "identity, whitened, within", "channel", "identity alone"],
    ),
    (given("mapper.trained_on", []), ["mapper.trained_on", "at least 1"]),
    (given("mapper.trained_on", ["objects"]), ["mapper.trained_on", "'objects'", "'object'"]),
    (given("mapper.trained_on", ["both", "both"]), ["mapper.trained_on", "each once: ['both']"]),
    (
        given("exemplars.style_sets", 0),
        ["mapper.trained_on", "exemplars.style_sets is 0", "take 'style' out", "['object']"],
    ),
    (
        {"exemplars": {"object_sets": 0}, "mapper": {"trained_on": ["both", "object"]}},
        ["mapper.trained_on", "exemplars.object_sets is 0", "take 'object' out", "['both']"],
    ),
]


@pytest.mark.parametrize(("values", "words"), WRONG, ids=[" ".join(words) for _, words in WRONG])
def test_a_mistake_is_one_line_with_key_and_value(values, words):
    with pytest.raises(InputError) as caught:
        load_config(values)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_the_config_without_mistakes_is_valid():
    """So each case above fails for its own reason."""
    load_config({})


def test_a_list_of_the_user(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("# three\n\n" + "".join(f"a {{token}} {{category}} number {n}\n" for n in range(3)))
    values = {"prompts": {"object": {"scene": str(path)}, "prompts_each": 3}}
    assert load_config(values).prompts.object == {"scene": str(path)}
    with pytest.raises(
        InputError, match=r"prompts.object.scene: .*mine.txt.* has 3 entries.*prompts_each = 4"
    ):
        load_config({"prompts": values["prompts"] | {"prompts_each": 4}})
    path.write_text("no placeholder\n")
    with pytest.raises(InputError, match=r"prompts.object.scene: .*mine.txt: line 1"):
        load_config(values)


def test_more_denoising_steps_than_in_training_are_an_error():
    for section in ({"prior": {"family": "generated", "steps": 1001}}, {"synthesis": {"steps": 1001}}):
        with pytest.raises(InputError, match="steps: 1001 is wrong"):
            load_config(section)


def test_a_duplicate_key_is_an_error(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("seed: 1\npool: {images: 5}\nseed: 2\n")
    with pytest.raises(InputError, match="c.yaml: .*line 3: duplicate key 'seed'"):
        load_config(path)


def test_unreadable_files_are_errors(tmp_path):
    with pytest.raises(InputError, match="gone.yaml: no such config file"):
        load_config(tmp_path / "gone.yaml")
    with pytest.raises(InputError, match=f"{tmp_path}: Is a directory; expected a config file"):
        load_config(tmp_path)
    path = tmp_path / "c.yaml"
    for text, words in [
        ("a: [1", "c.yaml: not readable as YAML"),
        ("- 1\n- 2\n", "c.yaml: holds list"),
        ("seed: -3\n", "c.yaml: seed: -3"),
    ]:
        path.write_text(text)
        with pytest.raises(InputError, match=words) as caught:
            load_config(path)
        assert "\n" not in str(caught.value)
    path.write_text("# nothing\n")
    assert load_config(path) == load_config({})
    path.write_bytes(b"run: \xff\xfe")
    with pytest.raises(InputError, match="c.yaml: not UTF-8 at byte 5"):
        load_config(path)


def test_a_source_without_a_length_may_have_any(add_family):
    source = "class Rows:\n    pass\ndef load(*, colour: str = 'red') -> Rows:\n    return Rows()\n"
    add_family("sources", "endless", source)
    assert load_config({"pool": {"images": 10**9, "source": {"family": "endless"}}}).pool.images == 10**9


def test_parts_are_multiples_of_the_stack_if_the_customizer_has_one():
    checks.check_stacks({"customizer": {"family": "x"}, "parts": {"exemplar_sets": 7}})
    with pytest.raises(InputError, match="7 is not a multiple of the stack of 2.*try 8"):
        checks.check_stacks({"customizer": {"family": "x", "stack": 2}, "parts": {"exemplar_sets": 7}})


@pytest.mark.parametrize(
    ("sets", "images", "stack", "sizes"),
    [
        (64, 2992, 8, (16, 1500)),
        (2560, 240_000, 8, (16, 1500)),
        (2561, 240_001, 8, (32, 3000)),
        (20_000, 1_000_000, 8, (128, 12_000)),
        (64, 2992, 1, (16, 1500)),
        (64, 2992, 5, (20, 1500)),
        (20_000, 2992, 24, (192, 1500)),
    ],
)
def test_null_sizes_of_parts_grow_with_the_run(sets, images, stack, sizes):
    config = {
        "parts": {"pool_images": None, "exemplar_sets": None, "decoding_threads": 3},
        "pool": {"images": images},
        "exemplars": {"object_sets": sets - 4, "style_sets": 4},
        "customizer": {"stack": stack},
    }
    parts = checks.fill_part_sizes(config)["parts"]
    assert parts == {"pool_images": sizes[1], "exemplar_sets": sizes[0], "decoding_threads": 3}
    assert parts["exemplar_sets"] % stack == 0
    assert sets <= checks.MOST_PARTS * sizes[0] and images <= checks.MOST_PARTS * sizes[1]


def test_given_sizes_of_parts_are_kept():
    parts = {"pool_images": 7, "exemplar_sets": 24}
    config = plain(load_config({"parts": parts}))
    assert config["parts"].items() >= parts.items()
    assert plain(load_config({}))["parts"]["exemplar_sets"] == 16


def test_prompt_lists_by_split_and_solvers_are_checked() -> None:
    lists = {"train": "object_media", "test": "object_media"}
    with pytest.raises(InputError, match="prompts.object.media: no list for validation"):
        load_config({"prompts": {"object": {"media": lists}}})
    with pytest.raises(InputError, match="prompts.object.media: no list 'object_medias'"):
        load_config({"prompts": {"object": {"media": lists | {"validation": "object_medias"}}}})
    found = load_config({"prompts": {"object": {"media": lists | {"validation": "published_media_test"}}}})
    assert found.prompts.object["media"]["validation"] == "published_media_test"
    with pytest.raises(InputError, match="synthesis.eta: 0.5, but synthesis.solver 'dpm"):
        load_config({"synthesis": {"solver": "dpm++", "eta": 0.5}})
