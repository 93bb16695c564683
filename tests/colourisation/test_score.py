import json
from pathlib import Path

import numpy as np
import pytest

from stages.colourisation.evaluations import BASELINES, PER_IMAGE
from stages.colourisation.score import score
from stages.colourisation.summaries import histogram_estimates, pooled_psnr
from stages.common.errors import InputError
from stages.common.files import read_json, write_json, write_npz

N, N_EVAL, SEEDS = 24, 12, (0, 1)
VARIANTS = ["bn", "in", "bn_sn", "in_sn", "bn_sn_md", "ibn_sn_md", "ibn_sn"]
KNOBS = {
    "resamples": 200,
    "histogram_resamples": 50,
    "permutations": 50,
    "level": 0.95,
    "seed": 0,
    "perc_backbone": "efflite0",
    "perc_size": 224,
    "quant": "trunc8",
}
L1 = {"bn": 9.0, "in": 9.4, "in_sn": 9.5, "bn_sn": 10.0, "ibn_sn_md": 11.0, "bn_sn_md": 12.0}


def histograms(rng: np.random.Generator, seeds: int, width: float) -> np.ndarray:
    ab = rng.normal(0, width, (seeds, N, 2, 64)).clip(-109, 108)
    counts = np.zeros((seeds, N, 2, 219), np.int32)
    for index in np.ndindex(seeds, N, 2):
        counts[index] = np.histogram(ab[index], bins=np.arange(-110, 110))[0]
    return counts


def evaluation(name: str, seeds: tuple[int, ...], l1: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(sum(map(ord, name)))
    level = {"l1": l1, "psnr": 40 - l1, "lperc": 3 - l1 / 10}
    arrays = {
        m: rng.normal(level.get(m, 5.0), 0.05, (len(seeds), N)).astype(np.float32)
        for m in PER_IMAGE
    }
    return arrays | {
        "kid": np.full(len(seeds), 0.1, np.float32),
        "kid_se": np.full(len(seeds), 0.01, np.float32),
        "l1_train": rng.normal(l1 - 1, 0.05, (len(seeds), N_EVAL)).astype(np.float32),
        "image_hist": histograms(rng, len(seeds), 20 if "sn" in name else 10),
        "hist2d": rng.integers(1, 9, (len(seeds), 22, 22)),
        "seeds": np.array(seeds, np.int64),
    }


def history(epochs: int = 6) -> dict:
    log = [
        {"step": s, "epoch": s / 4, "l1": 9.0, "d_loss": 0.2, "g_adv": 0.5, "adv_share": 0.4}
        for s in range(2, 4 * epochs + 1, 2)
    ]
    each = [
        {"epoch": e + 1, "l1_train": 9.0 - e, "l1_val": 9 + (e - 3) ** 2} for e in range(epochs)
    ]
    return {"steps_per_epoch": 4, "steps": 4 * epochs, "log": log, "epochs": each}


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Artifacts of all stages before score, in small: prepared, trained, evaluated, out."""
    prepared, trained, evaluated = (tmp_path / s for s in ("prepare", "train", "evaluate"))
    rng = np.random.default_rng(0)
    write_json(prepared / "meta.json", {"dataset": "toy", "size": 8, "classes": ["x", "y", "z"]})
    write_npz(prepared / "train.npz", groups=np.arange(20, dtype=np.int64))
    real = evaluation("real", (-1,), 0.0)
    write_npz(
        evaluated / "baselines" / "real.npz",
        **{m: real[m][0] for m in ("chroma", "m3", "hf")},
        image_hist=histograms(rng, 1, 20)[0],
        hist2d=rng.integers(1, 9, (22, 22)),
        labels=np.arange(N, dtype=np.int64) % 2,
        groups=np.arange(N, dtype=np.int64) // 2,
    )
    for i, name in enumerate(BASELINES):
        write_npz(evaluated / "baselines" / f"{name}.npz", **evaluation(name, (-1,), 9.5 + i))
    saturated = evaluation("bn_saturated", SEEDS, 9.9)
    write_npz(evaluated / "baselines" / "bn_saturated.npz", **saturated)
    for variant in VARIANTS:
        add(variant, trained, evaluated)
    return [prepared, trained, evaluated, tmp_path / "results"]


def add(variant: str, trained: Path, evaluated: Path, seeds: tuple[int, ...] = SEEDS) -> None:
    write_npz(evaluated / f"{variant}.npz", **evaluation(variant, seeds, L1.get(variant, 10.0)))
    for seed in seeds:
        write_json(trained / variant / f"history-s{seed}.json", history())


def run(folders: list[Path], **changes) -> dict[str, dict]:
    score(*folders, **{"variants": VARIANTS, **KNOBS, **changes})
    return {path.name: read_json(path) for path in folders[-1].iterdir()}


def test_score_writes_a_file_a_variant_and_baseline_and_the_two_tables(folders, capsys):
    found = run(folders)
    assert set(found) == {
        *(f"{v}.json" for v in VARIANTS),
        *(f"baseline_{b}.json" for b in (*BASELINES, "bn_saturated")),
        "table1.json",
        "claims.json",
    }
    shown = capsys.readouterr().out
    assert all(f"\n{id} " in shown for id in found["claims.json"]["verdicts"])


def test_a_variants_numbers_are_means_with_intervals_in_lists(folders):
    bn = run(folders)["bn.json"]
    l1 = evaluation("bn", SEEDS, 9.0)["l1"]
    assert bn["l1"] == pytest.approx(l1.mean(), rel=1e-4)
    assert bn["l1_seeds"] == pytest.approx(l1.mean(axis=1).tolist(), rel=1e-4)
    assert bn["l1_ci"][0] < bn["l1"] < bn["l1_ci"][1]
    assert (bn["n"], bn["seeds"], bn["best_val_epoch"]) == (N, 2, 4)
    assert bn["chroma_ratio"] == pytest.approx(1.0, abs=0.02)
    assert [(c["class"], c["n"]) for c in bn["per_class"]] == [("x", 12), ("y", 12)]
    numbers = {k for k, v in bn.items() if isinstance(v, (int, float))}
    names = "l1 l1_train psnr psnr_median psnr_pooled lperc lperc_unit chroma chroma_ratio m3"
    names += " m3_ratio hf_ratio auc delta_e kid overlap_a overlap_b js_a js_b w1_a w1_b"
    assert numbers >= {*names.split(), "dhist_a", "dhist_b", "js_2d", "best_val_epoch"}


def test_claims_are_judged_on_these_numbers(folders):
    claims = run(folders)["claims.json"]
    verdicts = claims["verdicts"]
    assert verdicts["C2"] == verdicts["C3"] == "supported"  # made so: L1 up, PSNR down
    assert verdicts["C4"] == "supported"
    assert verdicts["C1"] == "contradicted"  # ibn_sn_md is not the lowest in lperc here
    assert verdicts["C8"] == "supported"
    assert verdicts["C15"] == verdicts["X3"] == verdicts["X4"] == "not run"
    details = {d["id"]: d for d in claims["details"]}
    assert {id: d["verdict"] for id, d in details.items()} == verdicts
    assert details["X3"]["reason"] == "bn_sn_unnormed is not among the variants"
    assert details["C1"]["table1"] is True
    assert details["C8"]["table1"] is None
    assert [p["name"].split("_")[0] for p in details["C8"]["parts"]] == [
        *("dhist", "dhist", "js", "js", "w1", "w1")
    ]
    assert (details["C3"]["n"], details["C3"]["seeds"]) == (N, 2)


def test_table_1_is_judged_by_direction_where_values_are_not_comparable(folders):
    table = run(folders)["table1.json"]
    assert table["comparable"] is False
    assert "dataset toy instead of imagenet" in table["not_comparable_because"]
    rows = {(r["variant"], r["metric"]): r for r in table["rows"]}
    cell = rows["bn_sn", "l1"]
    assert (cell["paper"], cell["verdict"]) == (10.76, "supported")
    assert cell["deviation"] == pytest.approx(cell["ours"] - 10.76, abs=1e-3)
    assert cell["lo"] < cell["ours"] < cell["hi"]
    assert rows["bn", "l1"]["verdict"] == rows["bn", "psnr"]["verdict"] == "supported"
    assert rows["bn", "l1"]["reason"].startswith("5 of 5 parts supported")
    assert (rows["ln", "l1"]["verdict"], rows["ln", "l1"]["ours"]) == ("not run", None)
    assert [b["name"] for b in table["baselines"]] == [*BASELINES, "bn_saturated"]


def test_table_1_is_judged_by_value_in_the_papers_setting(folders):
    meta = {"dataset": "imagenet", "size": 256, "n_test": 10000, "classes": ["x", "y"]}
    write_json(folders[0] / "meta.json", meta)
    near = evaluation("bn", SEEDS, 9.83)
    write_npz(folders[2] / "bn.npz", **near)
    table = run(folders, perc_backbone="vgg19_keras")["table1.json"]
    assert table["comparable"] is True
    rows = {(r["variant"], r["metric"]): r["verdict"] for r in table["rows"]}
    assert rows["bn", "l1"] == "supported"
    assert rows["bn_sn_md", "l1"] == "contradicted"  # 12.0, the paper has 11.50
    assert rows["bn", "lperc"] == "contradicted"


def test_the_same_artifacts_give_the_same_bytes(folders):
    run(folders)
    first = {p.name: p.read_bytes() for p in folders[-1].iterdir()}
    run(folders)
    assert {p.name: p.read_bytes() for p in folders[-1].iterdir()} == first


def test_another_seed_moves_intervals_and_not_means(folders):
    first, second = run(folders)["bn.json"], run(folders, seed=1)["bn.json"]
    assert first["l1"] == second["l1"]
    assert first["l1_ci"] != second["l1_ci"]


def test_a_stale_variant_in_the_folders_is_ignored(folders):
    before = run(folders)
    add("removed", folders[1], folders[2])
    (folders[2] / "damaged.npz").write_bytes(b"not read")
    assert run(folders) == before


def test_a_variant_without_evaluation_leaves_its_claims_not_run(folders):
    (folders[2] / "bn_sn.npz").unlink()
    found = run(folders)
    details = {d["id"]: d for d in found["claims.json"]["details"]}
    assert details["C6"]["verdict"] == "not run"
    assert details["C6"]["reason"] == "bn_sn has no evaluation"
    assert details["C7"]["verdict"] != "not run"
    assert "bn_sn.json" not in found


def test_the_saturated_control_is_scored_with_bn_and_only_then(folders):
    assert "baseline_bn_saturated.json" in run(folders)
    for path in folders[-1].iterdir():
        path.unlink()
    assert "baseline_bn_saturated.json" not in run(folders, variants=["in"])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused_by_file(folders, bad):
    arrays = evaluation("in_sn", SEEDS, 9.0)
    arrays["psnr"][1, 3] = bad
    write_npz(folders[2] / "in_sn.npz", **arrays)
    with pytest.raises(InputError, match=r"in_sn\.npz: psnr has values that are no numbers.*1 NaN"):
        run(folders)
    assert not folders[-1].exists()


def test_an_evaluation_on_other_images_is_refused_by_file(folders):
    arrays = evaluation("in", SEEDS, 9.0)
    write_npz(folders[2] / "in.npz", **(arrays | {"l1": arrays["l1"][:, :-1]}))
    with pytest.raises(
        InputError, match=r"in\.npz: l1 does not fit.*\(2, 24\), found shape \(2, 23"
    ):
        run(folders)


def test_variants_of_other_seeds_are_refused_by_file(folders):
    add("in", folders[1], folders[2], seeds=(0, 5))
    with pytest.raises(InputError, match=r"in\.npz: has other seeds.*\[0, 1\], found seeds \[0, 5"):
        run(folders)


def test_other_training_images_are_refused_by_file(folders):
    arrays = evaluation("in", SEEDS, 9.0)
    write_npz(folders[2] / "in.npz", **(arrays | {"l1_train": arrays["l1_train"][:, :-1]}))
    with pytest.raises(InputError, match="l1_train is of other training images"):
        run(folders)


def test_a_missing_history_is_refused_by_file(folders):
    (folders[1] / "bn" / "history-s1.json").unlink()
    with pytest.raises(InputError, match="history-s1.json: is not a readable JSON"):
        run(folders)


def test_a_level_without_interval_is_refused(folders):
    with pytest.raises(InputError, match="level of the intervals is wrong"):
        run(folders, level=1.0)


def test_images_without_colour_have_no_chroma_ratio(folders):
    path = folders[2] / "baselines" / "real.npz"
    with np.load(path) as file:
        real = dict(file)
    write_npz(path, **(real | {"chroma": np.zeros_like(real["chroma"])}))
    bn = run(folders)["bn.json"]
    assert bn["chroma_ratio"] is None
    assert bn["per_class"][0]["chroma_ratio"] is None


def test_pooled_psnr_weighs_images_by_their_error():
    mse = np.array([[100.0, 0.0]], np.float32)  # one image is perfect
    assert pooled_psnr(mse) == pytest.approx(10 * np.log10(255**2 / 50))
    assert pooled_psnr(np.array([[0.0]], np.float32)) == 60


def test_histogram_distances_of_the_real_images_to_themselves_are_none(folders):
    counts = histograms(np.random.default_rng(3), 1, 15)
    real = {"image_hist": counts[0], "groups": np.arange(N, dtype=np.int64)}
    found = histogram_estimates({"image_hist": counts}, real, resamples=20, seed=0)
    for name in ("dhist_a", "js_b", "w1_a"):
        assert found[name].value == 0
        np.testing.assert_allclose(found[name].samples, 0, atol=1e-6)
    assert found["overlap_b"].value == pytest.approx(1)


def test_the_numbers_that_dvc_compares_are_flat(folders):
    run(folders)
    for path in folders[-1].glob("*.json"):
        content = json.loads(path.read_text())
        if path.name not in ("claims.json", "table1.json"):
            assert not any(isinstance(value, dict) for value in content.values())
