import shutil
from pathlib import Path

import numpy as np
import pytest

from stages.common.errors import InputError
from stages.common.files import read_json, read_npz, write_json, write_npz
from stages.gan_transform.score import read_paper, score

STAGES = ("prepare", "train_target", "perturb", "transform", "encrypt", "attack", "cryptanalyse")
VARIANTS = ["proposed", "proposed_sum"]
KNOBS = {"seeds": [0, 1], "variants": VARIANTS, "level": 0.95, "resamples": 200, "seed": 0}
SCHEMES = ("plain", "tanaka", "pe_same", "pe_diff", "noise", "proposed", "proposed_sum")
EXTRAS = ("pe_same_shuffle", "pe_diff_shuffle", "blur", "random_sign")
TABLES = {"table1.json", "matrix.json", "protection.json", "claims.json"}
N, N_ATTACK = 12, 10  # test images of the tree


def run(tree: Path, out: Path | None = None, **changes) -> dict[str, dict]:
    out = out or tree / "results"
    score(*(tree / s for s in STAGES), tree / "classify", out, **{**KNOBS, **changes})
    return {path.name: read_json(path) for path in out.iterdir()}


def change(path: Path, **arrays: np.ndarray) -> None:
    write_npz(path, **{**read_npz(path), **arrays})


def details(found: dict[str, dict]) -> dict[str, dict]:
    return {d["id"]: d for d in found["claims.json"]["details"]}


def cells(found: dict[str, dict]) -> dict[tuple[str, str], dict]:
    return {(r["scheme"], r["column"]): r for r in found["table1.json"]["rows"]}


@pytest.fixture
def tree(artifacts_tree) -> Path:
    return artifacts_tree()


@pytest.fixture(scope="session")
def scored(unchanged_artifacts, tmp_path_factory) -> dict[str, dict]:
    """Return what the score of the unchanged tree writes, for tests that only read it."""
    return run(unchanged_artifacts, tmp_path_factory.mktemp("scored"))


def test_score_writes_a_file_a_scheme_and_the_tables(tree, capsys):
    found = run(tree)
    assert set(found) == {*TABLES, *(f"{s}.json" for s in (*SCHEMES, *EXTRAS))}
    shown = capsys.readouterr().out
    assert all(f"\n{id} " in shown for id in found["claims.json"]["verdicts"])


def test_a_schemes_numbers_are_means_with_intervals_in_lists(scored, unchanged_artifacts):
    found, tree = scored["pe_same.json"], unchanged_artifacts
    ssim = read_npz(tree / "attack/pe_same/evaluation.npz")["ssim_itn"]
    assert found["ssim_itn"] == pytest.approx(ssim.mean(), rel=1e-4)
    assert found["ssim_itn_seeds"] == pytest.approx(ssim.mean(axis=1).tolist(), rel=1e-4)
    assert found["ssim_itn_ci"][0] < found["ssim_itn"] < found["ssim_itn_ci"][1]
    correct = read_npz(tree / "classify/pe_same/evaluation.npz")
    for name, key in (("", "server"), ("_client", "client"), ("_none", "none")):
        share = 100 * correct[f"correct_ten_{key}"].mean()
        assert found[f"acc_ten{name}"] == pytest.approx(share, rel=1e-4)
    assert found["rate_pc1"] == pytest.approx(0.95)
    assert (found["worst_attack"], found["worst_ssim"]) == ("kpa_pe", 1.0)
    assert {"ssim_raw", "htheta_acc", "acc_transfer"} <= set(found)


def test_insiders_are_not_the_worst_of_the_common_attacks(scored):
    found = scored["proposed_sum.json"]
    assert found["ssim_g_ba_float"] > found["ssim_g_ba"] > found["ssim_itn"]
    assert (found["worst_attack"], found["worst_ssim"]) == ("itn", found["ssim_itn"])


def test_a_scheme_without_trained_attacks_has_no_worst_case(scored):
    blur = scored["blur.json"]
    assert "worst_ssim" not in blur
    assert "acc_ten" not in blur
    assert blur["ssim_raw"] == pytest.approx(0.6, abs=0.03)


def test_the_numbers_that_dvc_compares_are_flat(scored):
    for name, content in scored.items():
        if name not in TABLES:
            assert not any(isinstance(value, dict) for value in content.values())


def test_the_matrix_has_every_attack_on_every_scheme(scored):
    found = scored["matrix.json"]
    rows = {(r["scheme"], r["attack"]): r for r in found["rows"]}
    assert len(rows) == len(found["rows"])
    attacks = [a for a in found["attacks"] if not a.startswith("g_ba")]
    assert set(rows) == {
        *((s, a) for s in SCHEMES for a in attacks),
        *((s, a) for s in EXTRAS for a in ("raw", *attacks) if rows.get((s, a))),
        *((s, a) for s in VARIANTS for a in ("g_ba", "g_ba_float")),
    }
    assert {r["attack"]: r["family"] for r in found["rows"]} == {
        "raw": "raw",
        **dict.fromkeys(("ga_blockwise", "ga_shared", "ga_local", "ga_unet"), "gan"),
        **dict.fromkeys(("uwa_literal", "uwa_strong", "uwa_block", "itn"), "pairs"),
        **dict.fromkeys(("g_ba", "g_ba_float"), "insider"),
        **dict.fromkeys(("fr", "fr_advanced", "pc1", "qap"), "free"),
        **dict.fromkeys(("kpa_le", "kpa_pe"), "pairs"),
    }
    ga = rows["tanaka", "ga_blockwise"]
    assert ga["lo"] < ga["ssim"] < ga["hi"]
    assert (ga["n"], ga["seeds"]) == (N_ATTACK, 2)
    assert ga["oracle"] == pytest.approx(ga["ssim"] + 0.02, abs=1e-4)
    assert ga["gauss"] == pytest.approx(ga["ssim"] + 0.01, abs=0.03)
    assert ga["abs"] == pytest.approx(ga["ssim"])  # none is negative
    assert ga["rate"] is None
    assert rows["tanaka", "qap"]["rate"] == pytest.approx(0.95)
    raw = rows["plain", "raw"]
    assert (raw["ssim"], raw["gauss"], raw["oracle"]) == (1.0, None, None)


def test_the_floors_stand_beside_with_intervals(scored):
    floors = {(f["name"], f["where"]): f for f in scored["matrix.json"]["floors"]}
    names = ("blank", "mean_colour", "other_image", "noise")
    assert set(floors) == {(f, w) for f in names for w in ("attack", "test")}
    blank = floors["blank", "attack"]
    assert blank["lo"] < blank["ssim"] < blank["hi"]
    assert (blank["n"], floors["blank", "test"]["n"]) == (N_ATTACK, N)


def test_a_negative_ssim_counts_in_the_mean_of_magnitudes(tree):
    path = tree / "attack/tanaka/evaluation.npz"
    values = np.tile([0.5, -0.5], (2, N_ATTACK // 2))
    change(path, ssim_itn=values)
    rows = {(r["scheme"], r["attack"]): r for r in run(tree)["matrix.json"]["rows"]}
    assert rows["tanaka", "itn"]["ssim"] == pytest.approx(0, abs=1e-9)
    assert rows["tanaka", "itn"]["abs"] == pytest.approx(0.5)


def test_protection_says_what_p_and_h_p_hide_and_keep(scored):
    found = scored["protection.json"]
    assert (found["perturb"]["acc_p"], found["perturb"]["acc_x"], found["htheta"]["acc"]) == (
        100.0,
        100.0,
        100.0,
    )
    assert found["perturb"]["ssim"] == pytest.approx(0.1, abs=0.02)
    assert found["perturb"]["ssim_blank"] == pytest.approx(0.15, abs=0.02)
    assert found["perturb"]["n"] == 2 * N
    assert set(found["variants"]) == set(VARIANTS)
    one = found["variants"]["proposed"]
    assert (one["variant"], one["mismatches"], len(one["guard"])) == ("proposed", 0, 2)
    assert one["ssim_test_ci"][0] < one["ssim_test"] < one["ssim_test_ci"][1]
    assert one["ssim_g_ba_test"] == pytest.approx(0.3, abs=0.02)


# ---------------------------------------------------------------- claims


def test_claims_are_judged_on_these_numbers(scored):
    found = scored
    verdicts = found["claims.json"]["verdicts"]
    assert list(verdicts) == sorted(read_paper().claims)
    supported = ("C1", "C3", "C4", "C8", "C9", "C11", "C13", "X1", "X2")
    assert {id: verdicts[id] for id in supported} == dict.fromkeys(supported, "supported")
    assert "not run" not in verdicts.values()
    by_id = details(found)
    assert {id: d["verdict"] for id, d in by_id.items()} == verdicts
    assert by_id["C1"]["table1"] is True
    assert by_id["C2"]["table1"] is False
    assert by_id["X1"]["table1"] is None
    assert (by_id["C1"]["n"], by_id["C1"]["seeds"]) == (N_ATTACK, 2)
    assert by_id["C1"]["reason"].endswith("the control, ga_unet on plain images, has 0.9")


def test_another_world_turns_the_verdicts(artifacts_tree):
    weak = {("proposed", "ga_unet"): 0.9, ("proposed", "itn"): 0.95, ("plain", "ga_unet"): 0.3}
    tree = artifacts_tree(
        n=200,
        size=4,
        attack_size=4,
        ssim={**weak, ("pe_diff", "uwa_strong"): 0.99, ("tanaka", "qap"): 0.2},
        acc={"plain": (0.5, 0.5), "proposed": (0.6, 0.55)},
        arm_acc={("pe_same", "ten", "none"): 0.98},
        htheta={"plain": 0.9, "proposed": 0.2},
        protection={"acc_p": 0.5},
    )
    found = run(tree)
    against = ("C1", "C3", "C4", "C5", "C6", "C7", "C8", "C9", "C10", "C12", "X1", "X2")
    verdicts = found["claims.json"]["verdicts"]
    assert {id: verdicts[id] for id in against} == dict.fromkeys(against, "contradicted")
    assert "the instrument fails on the identity" in details(found)["C1"]["reason"]


def test_pixels_that_depend_on_the_batch_and_a_key_contradict_c13(tree):
    change(tree / "encrypt/proposed/evaluation.npz", mismatches=np.array([2, 1]))
    found = run(tree)
    assert found["claims.json"]["verdicts"]["C13"] == "contradicted"
    assert found["protection.json"]["variants"]["proposed"]["mismatches"] == 3
    change(tree / "encrypt/proposed/evaluation.npz", mismatches=np.array([0, 0]))
    write_npz(tree / "encrypt/proposed/key-s0.npz", key=np.arange(3))
    assert details(run(tree))["C13"]["reason"].startswith("a key is stored, 0 pixels")


def test_one_seed_decides_nothing_that_was_trained(artifacts_tree):
    verdicts = run(artifacts_tree(seeds=[7]), seeds=[7])["claims.json"]["verdicts"]
    assert verdicts["C1"] == verdicts["C8"] == "inconclusive"
    assert verdicts["X2"] == "inconclusive"  # the GAN attack beside it was trained


# ---------------------------------------------------------------- Table I


def test_table_1_is_judged_by_direction_where_values_are_not_comparable(artifacts_tree):
    found = run(artifacts_tree(n=200, size=4, attack_size=4))
    table = found["table1.json"]
    assert table["comparable"] is False
    assert "dataset toy instead of cifar10" in table["not_comparable_because"]
    assert "transform epochs 0.16 instead of 5000" in table["not_comparable_because"]
    assert "classifier epochs 2 instead of 200" in table["not_comparable_because"]
    rows = cells(found)
    assert len(rows) == 20
    ga = rows["proposed", "ga"]
    assert (ga["paper"], ga["attack"], ga["verdict"]) == (0.0956, "ga_unet", "supported")
    assert ga["deviation"] == pytest.approx(ga["ours"] - 0.0956, abs=1e-4)
    assert ga["lo"] < ga["ours"] < ga["hi"]
    assert rows["pe_same", "ga"]["reason"].startswith("3 of 3 parts supported")
    assert rows["plain", "c10"]["reason"].startswith("4 of 4 parts supported")
    assert rows["plain", "c10"]["ours"] == 100.0
    assert rows["plain", "c10"]["attack"] is None
    assert (rows["pe_same", "c10"]["n"], rows["pe_same", "c100"]["n"]) == (200, 202)
    assert rows["pe_same", "uwa"]["n"] == 198


def test_a_row_on_the_other_side_contradicts_its_cell_and_the_references(artifacts_tree):
    tree = artifacts_tree(n=200, size=4, attack_size=4, ssim={("tanaka", "ga_blockwise"): 0.2})
    rows = cells(run(tree))
    assert rows["tanaka", "ga"]["verdict"] == rows["pe_same", "ga"]["verdict"] == "contradicted"
    assert rows["proposed", "ga"]["verdict"] == "supported"


def test_a_cell_without_a_value_in_the_paper_has_no_verdict(scored):
    rows = cells(scored)
    empty = {cell for cell, row in rows.items() if row["verdict"] is None}
    assert empty == {("plain", "ga"), *((s, "uwa") for s in ("proposed", "tanaka", "plain"))}
    for cell in empty:
        assert rows[cell]["ours"] is not None
        assert (rows[cell]["paper"], rows[cell]["deviation"]) == (None, None)


def test_table_1_is_judged_by_value_in_the_papers_setting(artifacts_tree):
    tree = artifacts_tree(
        n=1200,
        size=4,
        attack_size=4,
        schemes=SCHEMES,
        meta=read_paper().setting,
        acc={"plain": (0.95, 0.772), "proposed": (0.80, 0.67)},
        ssim={("proposed", "ga_unet"): 0.0956, ("tanaka", "ga_blockwise"): 0.5},
    )
    for seed in (0, 1):
        path = tree / f"transform/proposed/history-s{seed}.json"
        write_json(path, {**read_json(path), "steps": 390 * 5000, "batch_size": 128})
        path = tree / f"classify/plain/history-s{seed}.json"
        write_json(
            path, {task: {"epochs": [{}] * 200} for task in ("ten_client", "transfer_client")}
        )
    found = run(tree)
    assert found["table1.json"]["comparable"] is True
    rows = cells(found)
    assert rows["plain", "c100"]["verdict"] == rows["proposed", "ga"]["verdict"] == "supported"
    assert rows["tanaka", "ga"]["verdict"] == rows["proposed", "c10"]["verdict"] == "contradicted"


# ---------------------------------------------------------------- what is not there


def test_an_attack_that_was_dropped_leaves_its_claims_not_run(tree):
    for scheme in SCHEMES:
        path = tree / f"attack/{scheme}/evaluation.npz"
        left = {k: v for k, v in read_npz(path).items() if not k.endswith("ga_unet")}
        write_npz(path, **left)
    found = run(tree)
    by_id = details(found)
    for id in ("C1", "C2", "C4"):
        assert by_id[id]["verdict"] == "not run"
        assert by_id[id]["reason"] == "ga_unet was not run on proposed"
    assert by_id["C2b"]["verdict"] != "not run"
    row = cells(found)["proposed", "ga"]
    assert (row["ours"], row["verdict"]) == (None, "not run")
    assert "ga_unet" not in found["matrix.json"]["attacks"]


def test_a_scheme_that_was_dropped_leaves_its_claims_not_run(artifacts_tree):
    tree = artifacts_tree(schemes=[s for s in SCHEMES if s != "tanaka"])
    found = run(tree)
    assert "tanaka.json" not in found
    assert details(found)["C1"]["reason"] == "tanaka is not among the schemes"
    assert details(found)["C3"]["verdict"] == "supported"
    assert cells(found)["tanaka", "c10"]["verdict"] == "not run"


@pytest.mark.parametrize("stage", ["attack", "cryptanalyse", "classify"])
def test_a_stage_that_was_not_run_on_a_scheme_is_no_crash(tree, stage):
    shutil.rmtree(tree / stage / "pe_same")
    by_id = details(run(tree))
    assert by_id["C13"]["verdict"] == "supported"
    needs = {"attack": "C3", "cryptanalyse": "X2", "classify": "C5"}
    assert by_id[needs[stage]]["verdict"] == "not run"


@pytest.mark.parametrize("stage", ["attack", "cryptanalyse", "classify"])
def test_a_stage_that_was_not_run_at_all_is_no_crash(tree, stage):
    shutil.rmtree(tree / stage)
    assert "not run" in run(tree)["claims.json"]["verdicts"].values()


def test_a_cyclegan_that_is_no_variant_any_more_is_not_read(tree):
    (tree / "encrypt/proposed_sum/evaluation.npz").write_bytes(b"not read")
    found = run(tree, variants=["proposed"])
    assert "proposed_sum.json" not in found
    assert set(found["protection.json"]["variants"]) == {"proposed"}


def test_a_variant_without_a_cipher_is_said_to_be_missing(artifacts_tree):
    found = run(artifacts_tree(schemes=[s for s in SCHEMES if s != "proposed"]))
    reason = "no cipher was made by the CycleGAN proposed"
    assert details(found)["C9"]["reason"] == details(found)["C13"]["reason"] == reason
    assert "transform epochs None" in found["table1.json"]["not_comparable_because"]


# ---------------------------------------------------------------- reproducible


def test_the_same_artifacts_give_the_same_bytes(tree):
    run(tree)
    first = {p.name: p.read_bytes() for p in (tree / "results").iterdir()}
    run(tree)
    assert {p.name: p.read_bytes() for p in (tree / "results").iterdir()} == first


def test_another_seed_moves_intervals_and_not_means(tree):
    first, second = run(tree)["tanaka.json"], run(tree, seed=1)["tanaka.json"]
    assert first["ssim_ga_unet"] == second["ssim_ga_unet"]
    assert first["ssim_ga_unet_ci"] != second["ssim_ga_unet_ci"]


def test_images_of_one_cluster_are_drawn_together(tree):
    before = run(tree)["tanaka.json"]["ssim_qap_ci"]
    path = tree / "prepare/attack_test.npz"
    change(path, groups=np.arange(N_ATTACK, dtype=np.int64) // 5)
    values = np.repeat([[0.9, 0.5]], 5, axis=1).reshape(1, -1).repeat(2, axis=0)
    change(tree / "cryptanalyse/tanaka/evaluation.npz", ssim_qap=np.sort(values, axis=1))
    after = run(tree)["tanaka.json"]["ssim_qap_ci"]
    assert after == pytest.approx([0.5, 0.9])  # both clusters may be drawn twice
    assert before[1] - before[0] < 0.1


# ---------------------------------------------------------------- bad input

ATTACK = "attack/pe_diff/evaluation.npz"
BAD = {
    ATTACK: "ssim_itn",
    "cryptanalyse/tanaka/evaluation.npz": "ssim_qap",
    "encrypt/blur/evaluation.npz": "ssim_test",
    "encrypt/floors.npz": "blank_test",
    "perturb/evaluation.npz": "ssim_blank",
}
MISSHAPEN = {
    **BAD,
    "classify/plain/evaluation.npz": "correct_transfer_client",
    "train_target/evaluation.npz": "correct",
}


@pytest.mark.parametrize("file", BAD)
def test_numbers_that_are_none_are_refused_by_file(tree, file):
    values = read_npz(tree / file)[BAD[file]].copy()
    values[0, 3] = np.inf if file == ATTACK else np.nan
    change(tree / file, **{BAD[file]: values})
    with pytest.raises(InputError, match=rf"{BAD[file]} has values that are no numbers.*1 NaN"):
        run(tree)
    assert not (tree / "results").exists()


@pytest.mark.parametrize("file", MISSHAPEN)
def test_other_images_are_refused_by_file(tree, file):
    name = MISSHAPEN[file]
    change(tree / file, **{name: read_npz(tree / file)[name][:, :-1]})
    with pytest.raises(InputError, match=f"{file}: {name} does not fit the seeds and images"):
        run(tree)


@pytest.mark.parametrize("name", ["oracle_ga_unet", "gauss_itn"])
def test_arrays_of_a_wrong_number_of_seeds_are_refused(tree, name):
    change(tree / ATTACK, **{name: read_npz(tree / ATTACK)[name][:1]})
    with pytest.raises(InputError, match=f"{name} does not fit"):
        run(tree)


def test_words_in_place_of_numbers_are_refused(tree):
    change(tree / ATTACK, ssim_itn=np.array([["a"] * N_ATTACK] * 2))
    with pytest.raises(InputError, match="ssim_itn has values that are no numbers"):
        run(tree)


@pytest.mark.parametrize(
    "file",
    [
        *("train_target/evaluation.npz", "perturb/evaluation.npz", "encrypt/plain/evaluation.npz"),
        *(ATTACK, "cryptanalyse/noise/evaluation.npz", "classify/tanaka/evaluation.npz"),
    ],
)
def test_other_seeds_than_the_parameters_are_refused_by_file(tree, file):
    change(tree / file, seeds=np.array([0, 5]))
    with pytest.raises(
        InputError, match=rf"{file}: was run with other seeds.*\[0, 1\], found seeds \[0, 5"
    ):
        run(tree)


def test_an_array_that_is_missing_is_named(tree):
    path = tree / "encrypt/tanaka/evaluation.npz"
    left = {k: v for k, v in read_npz(path).items() if k != "ssim_test"}
    write_npz(path, **left)
    with pytest.raises(InputError, match=r"tanaka/evaluation\.npz: is not a readable array file"):
        run(tree)


def test_an_evaluation_without_seeds_is_refused(tree):
    left = {k: v for k, v in read_npz(tree / ATTACK).items() if k != "seeds"}
    write_npz(tree / ATTACK, **left)
    with pytest.raises(InputError, match=r"without \['seeds'\]"):
        run(tree)


def test_a_damaged_file_is_refused(tree):
    (tree / ATTACK).write_bytes((tree / ATTACK).read_bytes()[:100])
    with pytest.raises(InputError, match=r"pe_diff/evaluation\.npz: is not a readable array file"):
        run(tree)


def test_a_scheme_in_anothers_folder_is_refused(tree):
    path = tree / "encrypt/blur/meta.json"
    write_json(path, {**read_json(path), "scheme": "tanaka"})
    with pytest.raises(InputError, match=r"blur/meta\.json: is of another scheme than its folder"):
        run(tree)


def test_a_missing_history_of_h_p_is_refused_by_file(tree):
    (tree / "transform/proposed/history-s1.json").unlink()
    with pytest.raises(InputError, match=r"history-s1\.json: is not a readable JSON"):
        run(tree)


def test_a_level_without_interval_is_refused(tree):
    with pytest.raises(InputError, match="level of the intervals is wrong"):
        run(tree, level=1.0)


def test_a_spread_between_seeds_is_pooled_over_one_attacks_schemes_only(tree):
    before = {(r["scheme"], r["attack"]): r for r in run(tree)["matrix.json"]["rows"]}
    path = tree / "attack/tanaka/evaluation.npz"
    change(path, ssim_itn=read_npz(path)["ssim_itn"] + np.array([[-0.1], [0.1]]))
    after = {(r["scheme"], r["attack"]): r for r in run(tree)["matrix.json"]["rows"]}

    def width(rows: dict, *key: str) -> float:
        return rows[key]["hi"] - rows[key]["lo"]

    assert width(after, "pe_same", "itn") > 2 * width(before, "pe_same", "itn")
    assert width(after, "tanaka", "uwa_block") == width(before, "tanaka", "uwa_block")
