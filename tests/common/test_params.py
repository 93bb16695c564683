from typing import Literal

import pytest

from stages.common.errors import InputError
from stages.common.params import (
    Fraction,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    load_params,
    stage_params,
)

GOOD = """\
profile: small
profiles:
  small:
    demo:
      shared: {seeds: [0, 1]}
      train: {steps: 4}
demo:
  shared: {level: 0.95, unused: 3}
  train: {lr: 2e-4, steps: 100, norm: bn}
  variants:
    plain: {}
    other: {norm: in, lr: 1}
"""


def train(
    data,
    out,
    *,
    lr: PositiveFloat,
    steps: PositiveInt,
    norm: Literal["bn", "in"],
    seeds: list[NonNegativeInt],
    level: Fraction,
):
    """Stand in for a stage."""


def score(out, *, variants: list[str], level: Fraction):
    """Stand in for a stage that takes all variants."""


@pytest.fixture
def params(tmp_path):
    def write(text):
        path = tmp_path / "params.yaml"
        path.write_text(text)
        return path

    return write


def read(path, variant="plain", profile="small"):
    return stage_params(train, "demo.train", profile=profile, variant=variant, path=path)


def test_profile_overrides_defaults_and_variant_overrides_both(params):
    path = params(GOOD)
    assert read(path) == {"lr": 2e-4, "steps": 4, "norm": "bn", "seeds": [0, 1], "level": 0.95}
    assert read(path, "other")["norm"] == "in"
    assert read(path, "other")["lr"] == 1


def test_a_function_that_takes_variants_gets_their_names(params):
    path = params(GOOD.replace("  train: {lr", "  score: {}\n  train: {lr"))
    got = stage_params(score, "demo.score", profile="small", path=path)
    assert got == {"variants": ["plain", "other"], "level": 0.95}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("norm: in,", "nrom: in,", "did you mean 'norm'"),
        ("norm: bn}", "norms: bn}", "did you mean 'norm'"),
        ("seeds: [0, 1]", "seed: [0, 1]", "lacks the key 'seeds'"),
        ("steps: 4", "steps: -4", "a whole number from 1 to 2147483647, found -4"),
        ("steps: 4", "steps: 4.5", "found 4.5"),
        ("steps: 4", "steps: true", "found True"),
        ("steps: 4", "steps: ~", "found None"),
        ("lr: 1}", "lr: .nan}", "a number above 0, found nan"),
        ("lr: 1}", "lr: .inf}", "found inf"),
        ("lr: 1}", "lr: '1'}", "found '1'"),
        ("norm: in", "norm: layer", "found 'layer'"),
        ("seeds: [0, 1]", "seeds: 0", "a list"),
        ("seeds: [0, 1]", "seeds: [0, -1]", "found [0, -1]"),
        ("level: 0.95", "level: 95", "a number from 0 to 1, found 95"),
        ("steps: 100,", "steps: 100, steps: 3,", "cannot be read"),
        ("other: {norm: in, lr: 1}", "other: 3", "a map of keys"),
    ],
)
def test_a_bad_value_is_one_sentence_that_names_it(params, old, new, says):
    assert old in GOOD
    path = params(GOOD.replace(old, new))
    with pytest.raises(InputError) as error:
        read(path, "other")
    assert says in str(error.value)
    assert "params.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_key_is_named(params):
    with pytest.raises(InputError, match="lacks the key 'lr'"):
        read(params(GOOD.replace("lr: 2e-4, ", "")))


def test_an_unknown_profile_or_variant_is_suggested(params):
    path = params(GOOD)
    with pytest.raises(InputError, match="did you mean 'small'"):
        read(path, profile="smal")
    with pytest.raises(InputError, match="did you mean 'other'"):
        read(path, "othr")


@pytest.mark.parametrize("text", ["[1, 2]", "", "a: [", "\x00", "a: !!python/object:os.system x"])
def test_a_file_that_is_not_a_map_is_refused(params, text):
    with pytest.raises(InputError):
        load_params(params(text))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        load_params(tmp_path / "params.yaml")
