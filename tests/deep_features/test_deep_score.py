import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from stages.common.claims import Estimate
from stages.common.errors import InputError
from stages.common.files import read_json, read_npz, write_json, write_npz
from stages.deep_features.score import read_paper, score
from stages.deep_features.summaries import CONDITIONS, record, returned

STAGES = (
    *("prepare", "train_reid", "extract", "attributes", "reconstruct", "evaluate", "encrypt"),
    "cryptanalyse",
)
KNOBS = {
    **{"seeds": [0, 1], "variants": ["sbs", "bot", "agw", "pixel", "fr", "fr_adv"], "level": 0.95},
    **{"resamples": 200, "seed": 0, "words": 2000, "keys": 5},
}
CELLS = [f"{model}-{name}" for model in ("bot", "agw", "sbs") for name in ("synth_a", "synth_b")]
TABLES = {f"{name}.json" for name in ("table", "iiid", "attacks", "keyspace", "claims")}
SMALL = {"models": ["bot"], "local_sets": ["synth_a"]}
ONE = "bot-synth_a"


def run(tree: Path, out: Path | None = None, **changes) -> dict[str, dict]:
    out = out or tree / "results"
    score(*(tree / s for s in STAGES), out, **{**KNOBS, **changes})
    return {path.name: read_json(path) for path in out.iterdir()}


def small(tree: Path, **changes) -> dict[str, dict]:
    return run(tree, **{"variants": ["bot"], **changes})


def change(path: Path, **arrays: np.ndarray) -> None:
    write_npz(path, **{**read_npz(path), **arrays})


def verdicts(found: dict[str, dict]) -> dict[str, str]:
    return found["claims.json"]["verdicts"]


@pytest.fixture
def tree(artifacts_tree) -> Path:
    return artifacts_tree(**SMALL)


@pytest.fixture(scope="session")
def scored(unchanged_artifacts, tmp_path_factory) -> dict[str, dict]:
    """Return what the score of the unchanged tree writes, for tests that only read it."""
    return run(unchanged_artifacts, tmp_path_factory.mktemp("scored"))


def truth(folder: Path, name: str = "synth_a") -> np.ndarray:
    return read_npz(folder / f"prepare/{name}_test.npz")["attributes"]


# ---------------------------------------------------------------- what is written


def test_score_writes_a_file_a_cell_and_the_tables(tree, capsys):
    found = small(tree)
    assert set(found) == {*TABLES, f"{ONE}.json"}
    shown = capsys.readouterr().out
    assert all(f"\n{id} " in shown for id in verdicts(found))


def test_the_same_input_gives_the_same_bytes(tree, tmp_path):
    for name in ("one", "two"):
        small(tree, out=tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_the_numbers_that_dvc_compares_are_flat(scored):
    flat = {name: content for name, content in scored.items() if name not in TABLES}
    assert set(flat) == {f"{cell}.json" for cell in CELLS}
    assert not any(isinstance(v, dict) for content in flat.values() for v in content.values())
    wanted = {"ba_mean", "ba_hat", "chance", "distance_pixel", "distance_fr", "distance_fr_adv",
              "distance_floor", "distance_other", "distance_mean", "n",
              "attacked_cos_median", "attacked_centred_median", "guess_cos_median"}  # fmt: skip
    assert wanted <= set(flat["bot-synth_a.json"])


def test_balanced_accuracies_are_scikit_learns_over_seeds(scored, unchanged_artifacts):
    labels = truth(unchanged_artifacts)
    path = unchanged_artifacts / f"attributes/{ONE}/headline.npz"
    predictions = read_npz(path)["predictions"]
    known = labels[:, 0] >= 0
    of = [
        [balanced_accuracy_score(labels[known, t], p[known, t]) for t in range(labels.shape[1])]
        for p in predictions
    ]
    cell = next(c for c in scored["table.json"]["cells"] if c["name"] == ONE)
    names = [t["name"] for t in scored["table.json"]["sets"]["synth_a"]["tasks"]]
    for t, name in enumerate(names):
        ba = cell["tasks"][name]["ba"]
        assert ba["seeds"] == pytest.approx([row[t] for row in of], rel=1e-4)
        assert ba["lo"] < ba["value"] < ba["hi"]
    mean = cell["settings"]["headline"]["mean"]
    assert mean["value"] == pytest.approx(np.mean(of), rel=1e-4)
    assert scored[f"{ONE}.json"]["ba_mean"] == mean["value"]


def test_guessing_counts_the_classes_that_occur(scored):
    cell = next(c for c in scored["table.json"]["cells"] if c["name"] == ONE)
    chances = {name: of["chance"] for name, of in cell["tasks"].items()}
    assert chances == {"height": 0.25, "backpack": 0.5, "hat": 0.5, "up_colour": 0.25}
    hat = cell["tasks"]["hat"]
    assert hat["ba5"] is None and hat["chance5"] is None  # two persons wear one
    assert cell["tasks"]["height"]["chance5"] == 0.25
    for of in cell["tasks"].values():
        assert of["null"]["lo"] < of["null"]["mean"] < of["null"]["hi"]
        assert of["null"]["mean"] == pytest.approx(of["chance"], abs=0.1)
    for control in ("permuted", "noise"):
        of = cell["settings"][control]
        assert of["mean"]["lo"] - 0.05 < of["chance"] < of["mean"]["hi"] + 0.05


def test_an_attribute_that_the_other_set_lacks_is_left_out_of_cross(scored):
    cell = next(c for c in scored["table.json"]["cells"] if c["name"] == ONE)
    assert cell["settings"]["cross"]["chance"] == pytest.approx((0.5 + 0.5 + 0.25) / 3, rel=1e-4)
    assert cell["settings"]["headline"]["chance"] == pytest.approx(0.375)


def test_reconstructions_and_floors_are_means_over_images(scored, unchanged_artifacts):
    cell = next(c for c in scored["table.json"]["cells"] if c["name"] == ONE)
    arrays = read_npz(unchanged_artifacts / f"evaluate/{ONE}.npz")
    for name in ("pixel", "fr", "fr_adv", "fr_equal", "floor", "other"):
        found = cell["reconstructions"][name]["distance"]
        assert found["value"] == pytest.approx(arrays[f"distance_{name}"].mean(), rel=1e-4)
    assert "psnr" not in cell["reconstructions"]["same"]  # infinite
    assert cell["original"]["hf"] == pytest.approx(arrays["hf_original"].mean(), rel=1e-4)
    assert cell["recipes"]["fr_adv"]["updates_g"] == 30


def test_sec_iii_d_has_all_conditions(scored, unchanged_artifacts):
    rows = {(r["cell"], r["condition"]): r for r in scored["iiid.json"]["rows"]}
    assert {c for cell, c in rows if cell == ONE} == set(CONDITIONS)
    assert rows[ONE, "right"]["mean"]["value"] == rows[ONE, "headline"]["mean"]["value"]
    assert rows[ONE, "wrong"]["mean"]["value"] == pytest.approx(0.375, abs=0.02)
    assert rows[ONE, "wrong"]["distance"]["value"] == pytest.approx(0.97, abs=0.01)
    assert rows[ONE, "popcount"]["distance"] is None
    arrays = read_npz(unchanged_artifacts / f"encrypt/{ONE}.npz")
    weak, ones = (
        next(row for row in scored["iiid.json"][key] if row["cell"] == ONE)
        for key in ("weak", "ones")
    )
    assert (weak["keys"], weak["max"]) == (100, pytest.approx(np.abs(arrays["wrong_cos"]).max()))
    assert weak["share"] == 0.05 and weak["sorted"] == sorted(weak["sorted"], reverse=True)
    retrieval = {row["cell"]: row for row in scored["iiid.json"]["retrieval"]}
    assert retrieval[ONE]["hamming"]["value"] == pytest.approx(arrays["rank1_hamming"].mean(), 1e-4)
    assert 0 < ones["popcount"] < 5


def test_attacks_are_medians_over_requests(scored, unchanged_artifacts):
    cell = next(c for c in scored["attacks.json"]["cells"] if c["cell"] == ONE)
    arrays = read_npz(unchanged_artifacts / f"cryptanalyse/{ONE}.npz")
    main = cell["attacks"]["co-same_domain-img1"]
    cos = arrays["co-same_domain-img1-cos"]
    assert main["measures"]["cos"]["seeds"] == pytest.approx(np.median(cos, axis=1), rel=1e-4)
    assert main["share_95"]["value"] == 1 and main["n"] == 12
    centred = arrays["co-same_domain-img1-centred"]
    assert main["measures"]["centred"]["value"] == pytest.approx(
        np.median(centred, axis=1).mean(), rel=1e-4
    )
    assert main["lowest"] == pytest.approx(centred.min(), rel=1e-4)
    guess = cell["attacks"]["control-mean"]
    assert guess["measures"]["centred"]["value"] == guess["share_95"]["value"] == 0
    assert guess["measures"]["cos"]["value"] == scored[f"{ONE}.json"]["guess_cos_median"] > 0.7
    assert "abs_cos" in cell["attacks"]["control-iid"]["measures"]
    assert {"hungarian", "kpa-K4", "kpa-K32", "co-none-img1"} <= set(cell["attacks"])
    assert cell["ll"]["best"]["value"] < cell["ll"]["mean"]["value"]
    made = {(of["kind"], of["dims"]): of for of in scored["attacks.json"]["synthetic"]}
    assert set(made) == {(kind, d) for kind in ("bn", "iid") for d in (64, 512)}


def test_attacked_features_are_compared_with_plain_ones_of_the_same_images(
    scored, unchanged_artifacts
):
    cell = next(c for c in scored["attacks.json"]["cells"] if c["cell"] == ONE)
    arrays = read_npz(unchanged_artifacts / f"cryptanalyse/{ONE}.npz")
    plain = read_npz(unchanged_artifacts / f"attributes/{ONE}/headline.npz")["predictions"]
    index = arrays["attacked_index"]
    of = cell["attributes"]
    assert of["n"] == len(index)
    same = (plain[:, index] == arrays["attacked_predictions"]).mean()
    assert of["same"] == pytest.approx(same, rel=1e-4)
    assert of["returns"] == "yes" and of["difference"]["lo"] > -0.02
    assert cell["distance"]["difference"]["value"] == pytest.approx(0.001, rel=0.01)


@pytest.mark.parametrize(
    ("seeds", "spread", "word"),
    [
        ((0.0, 0.0), 0.01, "yes"),
        ((-0.3, -0.3), 0.1, "no"),
        ((0.0, 0.0), 0.1, "open"),
        ((0.03, -0.03), 0.01, "open"),  # the seeds disagree
        ((0.0,), 0.01, "open"),  # one seed
        ((-0.3,), 0.1, "open"),
    ],
)
def test_whether_accuracy_returns_is_judged_as_claims_are(seeds, spread, word):
    mean = float(np.mean(seeds))
    samples = np.linspace(mean - spread, mean + spread, 101)
    assert returned(Estimate(mean, samples, seeds, trained=True), 0.95) == word


def test_key_spaces_are_exact_integers(scored):
    found = scored["keyspace.json"]
    keys = {of["width"]: int(of["keys"]) for of in found["widths"]}
    assert keys == {w: math.factorial(w) for w in (8, 16, 32, 64)}
    assert keys[32] == 263130836933693530167218012160000000
    logs = {of["width"]: round(of["log2"], 2) for of in found["widths"]}
    assert logs == {8: 15.3, 16: 44.25, 32: 117.66, 64: 296.0}
    assert round(found["effective"]["log2"], 2) == 43.21
    assert found["checks"]["keys"] == 5 and len(found["example"]["items"]) == 2


def test_re_identification_stands_beside_the_zoo(scored):
    rows = {(r["model"], r["set"]): r for r in scored["table.json"]["reid"]}
    assert set(rows) == {(m, s) for m in ("bot", "agw", "sbs")
                         for s in ("synth_p", "synth_a", "synth_b")}  # fmt: skip
    assert 40 < rows["bot", "synth_p"]["mAP"]["value"] < 60
    assert scored["table.json"]["zoo"]["sbs"]["rank1"] == 81.8


def test_black_boxes_are_in_the_papers_order(scored):
    assert scored["table.json"]["models"] == ["bot", "agw", "sbs"]
    assert [c["name"] for c in scored["table.json"]["cells"]] == CELLS
    assert "locals synth_a and synth_b instead of market and duke" in scored["table.json"]["apart"]
    assert "net mini instead of resnet50" in scored["table.json"]["apart"]


# ---------------------------------------------------------------- claims


def test_claims_are_judged_on_these_numbers(scored):
    found = verdicts(scored)
    assert list(found) == sorted(read_paper().claims)
    contradicted = {id for id, verdict in found.items() if verdict == "contradicted"}
    assert contradicted == {"C10", "C11", "C13", "C15"}
    assert found["C16"] == "not run"
    assert {found[id] for id in ("C1", "C3", "C4", "C4b", "C5", "C6", "C7", "C8", "C9", "C12",
                                 "C14", "C17")} == {"supported"}  # fmt: skip


def test_a_world_in_which_nothing_is_recovered(artifacts_tree):
    safe = {"co-same_domain-img1": 0.0, "co-n20-img1": 0.0}
    tree = artifacts_tree(cosine=safe, ll=(-15.0, -14.0), skill={"popcount": 0.0})
    found = verdicts(run(tree))
    assert (found["C15"], found["C10"]) == ("supported", "supported")
    assert found["C13"] != "contradicted" and found["C11"] == "contradicted"


def test_a_bit_that_changes_contradicts_what_is_exact(artifacts_tree):
    found = verdicts(run(artifacts_tree(changed=1)))
    assert (found["C7"], found["C14"]) == ("contradicted", "contradicted")


def test_a_wrong_key_is_paired_with_the_images_it_was_tried_on(tree):
    path = tree / f"evaluate/{ONE}.npz"
    other = read_npz(path)["distance_other"]
    other[:, 1::2] = 2.0  # images that no wrong key was tried on: recon_index has the even ones
    change(path, distance_other=other)
    names = {p["name"]: p for d in small(tree)["claims.json"]["details"] for p in d["parts"]}
    wrong = read_npz(tree / f"encrypt/{ONE}.npz")["distance_wrong"]
    part = names[f"d wrong key - another image {ONE}"]
    assert part["effect"] == pytest.approx(wrong.mean() - other[:, ::2].mean(), rel=1e-3)
    assert part["verdict"] == "supported"


def test_a_smaller_phi_is_said_with_the_claims_it_touches(artifacts_tree):
    found = small(artifacts_tree(**SMALL, phi_factor=2))
    reasons = {d["id"]: d["reason"] for d in found["claims.json"]["details"]}
    assert {id for id, reason in reasons.items() if "φ sees" in reason} == {"C4", "C4b", "C5"}
    assert found["table.json"]["cells"][0]["recipes"]["fr"]["phi_factor"] == 2


def test_re_identification_stays_within_per_cents(tree):
    for seed, share in ((0, 1.0), (1, 0.5)):
        change(tree / f"extract/bot/reid_synth_p-s{seed}.npz", rank1=np.full(36, share))
    row = next(r for r in small(tree)["table.json"]["reid"] if r["set"] == "synth_p")
    assert row["rank1"]["hi"] == 100


def test_a_reconstruction_of_some_cells_is_no_support_for_all(artifacts_tree):
    found = run(artifacts_tree(cells=[ONE]))
    claims = {d["id"]: d for d in found["claims.json"]["details"]}
    assert claims["C4"]["verdict"] == "inconclusive"
    assert "of 6 cells 1 were run, in all of which it holds" in claims["C4"]["reason"]
    assert claims["C6"]["verdict"] == "supported"


def test_one_seed_decides_nothing_that_was_trained(artifacts_tree):
    found = verdicts(run(artifacts_tree(seeds=(0,)), seeds=[0]))
    assert {id for id, v in found.items() if v == "supported"} == {"C6", "C7", "C8", "C9", "C14"}
    assert {id for id, v in found.items() if v == "contradicted"} == {"C11"}


def test_evidence_of_a_gpu_is_read(tree):
    graph = {"device": "a GPU", "fullgraph": True, "copies_to_host": 0, "wrong_bits": 0}
    write_json(tree / "encrypt/graph.json", graph)
    assert verdicts(small(tree))["C16"] == "supported"
    write_json(tree / "encrypt/graph.json", {"device": "a GPU"})
    with pytest.raises(InputError, match=r"graph\.json: lacks arrays"):
        small(tree)


def test_predictions_before_encryption_are_those_of_the_same_heads(tree):
    path = tree / f"encrypt/{ONE}.npz"
    right = read_npz(path)["predictions_right"]
    other = right.copy()
    other[0, 0, 1] = 1 - other[0, 0, 1]
    change(path, predictions_right=other)
    assert verdicts(small(tree))["C14"] == "contradicted"
    change(path, predictions_plain=other)
    assert verdicts(small(tree))["C14"] == "supported"


# ---------------------------------------------------------------- what is missing, or wrong


@pytest.mark.parametrize(
    ("folder", "stage", "lost"),
    [
        ("attributes", "attributes", {"C1", "C2", "C3"}),
        ("evaluate", "evaluate", {"C4", "C4b", "C5", "C6"}),
        ("encrypt", "encrypt", {"C12", "C13", "C14"}),
        ("cryptanalyse", "cryptanalyse", {"C10", "C15", "C17"}),
    ],
)
def test_a_stage_that_was_not_run_is_named(tree, folder, stage, lost):
    shutil.rmtree(tree / folder)
    found = small(tree)
    not_run = {id for id, verdict in verdicts(found).items() if verdict == "not run"}
    assert lost | {"C16"} == not_run
    assert stage in found["table.json"]["cells"][0]["missing"]


def test_nothing_at_all_is_refused(tree):
    for folder in ("attributes", "evaluate", "encrypt", "cryptanalyse"):
        shutil.rmtree(tree / folder)
    with pytest.raises(InputError, match="has nothing to score"):
        small(tree)


def test_a_level_without_interval_is_refused(tree):
    with pytest.raises(InputError, match="level of the intervals is wrong"):
        small(tree, level=1.0)


@pytest.mark.parametrize(
    ("file", "array", "value", "match"),
    [
        (f"attributes/{ONE}/headline.npz", "seeds", np.array([0, 7]), "other seeds"),
        (f"attributes/{ONE}/noise.npz", "predictions", np.zeros((2, 3, 4), int), "does not fit"),
        (f"attributes/{ONE}/headline.npz", "best", np.full((2, 144, 4), 9), "are no classes"),
        (f"evaluate/{ONE}.npz", "distance_fr", np.full((2, 144), np.nan), "are no numbers"),
        (f"evaluate/{ONE}.npz", "seeds", np.array([1, 0]), "other seeds"),
        (f"encrypt/{ONE}.npz", "wrong_cos", np.zeros((2, 3)), "does not fit"),
        (f"encrypt/{ONE}.npz", "recon_index", np.full(72, 5), "does not name test images"),
        (f"encrypt/{ONE}.npz", "nan_share", np.array([np.inf]), "are no numbers"),
        (f"cryptanalyse/{ONE}.npz", "attacked_index", np.full(72, 900), "name test images"),
        (f"cryptanalyse/{ONE}.npz", "kpa-K4-cos", np.full((2, 5), np.nan), "are no numbers"),
        ("prepare/synth_a_train.npz", "attributes", np.full((144, 4), 8), "does not name"),
        ("extract/bot/reid_synth_a-s1.npz", "ap", np.zeros(4), "does not fit"),
        ("cryptanalyse/synthetic.npz", "synthetic-bn-D64-cos", np.full(6, np.nan), "no numbers"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(tree, file, array, value, match):
    change(tree / file, **{array: value})
    with pytest.raises(InputError, match=match) as error:
        small(tree)
    assert Path(file).name in str(error.value)


@pytest.mark.parametrize(
    ("file", "array"),
    [
        (f"evaluate/{ONE}.npz", "hf_fr"),
        (f"encrypt/{ONE}.npz", "predictions_own"),
        (f"encrypt/{ONE}.npz", "distance_right"),
        (f"cryptanalyse/{ONE}.npz", "ll_random"),
    ],
)
def test_an_array_that_is_missing_is_named(tree, file, array):
    arrays = read_npz(tree / file)
    arrays.pop(array)
    write_npz(tree / file, **arrays)
    with pytest.raises(InputError, match=f"lacks arrays: .* found no .*{array}"):
        small(tree)


def test_a_loss_that_was_not_trained_is_no_error(tree):
    path = tree / f"evaluate/{ONE}.npz"
    kept = {name: a for name, a in read_npz(path).items() if not name.endswith(("_fr", "_equal"))}
    write_npz(path, **kept)
    found = verdicts(small(tree))
    assert (found["C4"], found["C4b"], found["C6"]) == ("not run", "not run", "supported")


def test_a_set_that_meta_does_not_describe_is_refused(tree):
    meta = read_json(tree / "prepare/meta.json")
    write_json(tree / "prepare/meta.json", {**meta, "locals": ["synth_a", "synth_z"]})
    with pytest.raises(InputError, match="does not describe the local set synth_z"):
        small(tree)


def test_distractors_are_persons_of_their_own(tree):
    path = tree / "prepare/synth_a_test.npz"
    pids = read_npz(path)["pids"]
    pids[:8] = 0
    change(path, pids=pids)
    assert small(tree)["table.json"]["sets"]["synth_a"]["ids"] == 34 + 8


@pytest.mark.parametrize(
    ("metric", "lo", "hi"),
    [
        *(("cos/a", -1, 1), ("ba/b", 0, 1), ("ll/c", -9, 9), ("mean centred/d", -1, 1)),
        *(("ba5/e", 0, 1), ("best/f", 0, 1), ("imbalanced/g", 0, 1), ("abs_cos/h", -1, 1)),
        *(("mean cos/i", -1, 1), ("centred/j", -1, 1), ("reid/mAP", 0, 9)),
    ],
)
def test_no_interval_goes_beyond_what_a_metric_can_be(metric, lo, hi):
    wide = Estimate(0.9, np.linspace(-9, 9, 1001), (0.9,))
    found = record(wide, 0.9999, metric)
    assert (found["lo"], found["hi"]) == (pytest.approx(lo, abs=0.1), pytest.approx(hi, abs=0.1))
