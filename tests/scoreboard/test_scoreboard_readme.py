import pytest

from stages.common.files import write_json
from stages.scoreboard.readme import deep_features


def _flat(**values):
    found = {"n": 144}
    for name, value in values.items():
        found |= {name: value, f"{name}_ci": [value - 0.1, value + 0.1]}
        found[f"{name}_seeds"] = [value, value]
    return found


@pytest.fixture
def results(tmp_path):
    """Two black boxes, one of which was not attacked, and a third of which there is nothing."""
    folder = tmp_path / "deep_features"
    names = ["bot-synth_a", "agw-synth_a", "sbs-synth_a"]
    write_json(folder / "table.json", {"level": 0.95, "cells": [{"name": n} for n in names]})
    write_json(folder / "claims.json", {"verdicts": {"C1": "supported", "C15": "contradicted"}})
    plain = {"ba_mean": 0.6, "ba_wrong_key": 0.4, "ba_popcount": 0.5}
    attack = {"ba_attacked": 0.59, "attacked_cos_median": 0.999}
    attack |= {"attacked_centred_median": 0.98, "guess_cos_median": 0.9}
    write_json(folder / f"{names[0]}.json", {**_flat(**plain, **attack), "chance": 0.41})
    write_json(folder / f"{names[1]}.json", {**_flat(**plain), "chance": 0.41})
    return tmp_path


def test_the_cosine_stands_beside_the_centred_one_and_a_guess(results):
    text = deep_features(results)
    head = next(line for line in text.splitlines() if line.startswith("| black box"))
    assert head.endswith("| after the attack, % | cosine | centred | guess |")
    row = next(line for line in text.splitlines() if line.startswith("| bot-synth_a"))
    assert row.endswith("| 0.999 [0.899, 1.099] | 0.980 [0.880, 1.080] | 0.900 [0.800, 1.000] |")
    assert "144 test images of drawn people, 2 seeds" in text
    assert "so that a guess has 0" in text


def test_what_was_not_attacked_has_a_dash(results):
    lines = deep_features(results).splitlines()
    row = next(line for line in lines if line.startswith("| agw-synth_a"))
    assert row.endswith("| 50.0 [40.0, 60.0] | – | – | – | – |")
    assert not any(line.startswith("| sbs") for line in lines)
