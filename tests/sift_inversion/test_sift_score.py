import shutil
from pathlib import Path

import numpy as np
import pytest

from stages.common.errors import InputError
from stages.common.files import read_json, read_npz, write_json, write_npz
from stages.sift_inversion import keypoints as stored
from stages.sift_inversion.evaluations import read_crowding
from stages.sift_inversion.score import read_paper, score
from stages.sift_inversion.summaries import METRICS, PAIRS, RUNS

STAGES = ("prepare", "extract", "train", "refine", "evaluate")
KNOBS = {
    **{"seeds": [0, 1], "variants": list(RUNS), "level": 0.95},
    **{"resamples": 200, "fd_resamples": 10, "seed": 0},
}
TABLES = {f"{name}.json" for name in ("table", "partial", "ablation", "keypoints", "claims")}
FLOORS = ("mean", "mean_colour", "other", "grey", "blur")
N, N_MULTI = 48, 40  # test images of the tree
FEW = ("B5", "R42_J", "R42_G")  # enough for tests that need no more
SMALL = {"runs": FEW, "conditions": ("box-centre-centre-0.1", "keep-0.5")}


def run(tree: Path, out: Path | None = None, **changes) -> dict[str, dict]:
    out = out or tree / "results"
    score(*(tree / s for s in STAGES), out, **{**KNOBS, **changes})
    return {path.name: read_json(path) for path in out.iterdir()}


def change(path: Path, **arrays: np.ndarray) -> None:
    write_npz(path, **{**read_npz(path), **arrays})


def details(found: dict[str, dict]) -> dict[str, dict]:
    return {d["id"]: d for d in found["claims.json"]["details"]}


def rows(found: dict[str, dict]) -> dict[tuple[str, str], dict]:
    return {(row["set"], row["name"]): row for row in found["table.json"]["rows"]}


@pytest.fixture
def tree(artifacts_tree) -> Path:
    return artifacts_tree(**SMALL)


@pytest.fixture(scope="session")
def scored(unchanged_artifacts, tmp_path_factory) -> dict[str, dict]:
    """Return what the score of the unchanged tree writes, for tests that only read it."""
    return run(unchanged_artifacts, tmp_path_factory.mktemp("scored"))


# ---------------------------------------------------------------- what is written


def test_score_writes_a_file_a_run_and_the_tables(tree, capsys):
    found = run(tree)
    assert set(found) == {*TABLES, *(f"{name}.json" for name in FEW)}
    shown = capsys.readouterr().out
    assert all(f"\n{id} " in shown for id in found["claims.json"]["verdicts"])


def test_a_runs_numbers_are_means_with_intervals_in_lists(scored, unchanged_artifacts):
    found = scored["R42_G.json"]
    arrays = read_npz(unchanged_artifacts / "evaluate/R42_G/full.npz")
    for name in ("psnr", "ssim", "pd", "chk", "kpr", "log_sharp"):
        assert found[name] == pytest.approx(np.nanmean(arrays[name]), rel=1e-4)
        seeds = np.nanmean(arrays[name], axis=1).tolist()
        assert found[f"{name}_seeds"] == pytest.approx(seeds, rel=1e-4)
        assert found[f"{name}_ci"][0] < found[name] < found[f"{name}_ci"][1]
    assert found["id1"] == pytest.approx(100 * arrays["id1"].mean(), rel=1e-4)
    assert found["id1_chance"] == pytest.approx(100 / N, rel=1e-4)
    assert found["log_sharp_abs"] == pytest.approx(np.abs(arrays["log_sharp"]).mean(), rel=1e-4)
    assert found["nerr"] == pytest.approx(np.sqrt(arrays["rse"]).mean() / 8, rel=1e-4)
    assert 0.3 < found["fd"] < 0.5  # 8 features, each moved by 0.2
    assert 0.5 < found["r_cb"] < 1
    assert found["n"] == N


def test_the_numbers_that_dvc_compares_are_flat(scored):
    for name, content in scored.items():
        if name not in TABLES:
            assert not any(isinstance(value, dict) for value in content.values())


def test_the_table_has_all_runs_and_floors_in_order(scored):
    table = scored["table.json"]
    faces = [r["name"] for r in table["rows"] if r["set"] == "faces" and r["kind"] == "run"]
    assert faces == [name for name in RUNS if not name.startswith("M_")]
    names = [(r["set"], r["name"]) for r in table["rows"]]
    floors = [(s, f) for s in ("faces", "multi") for f in FLOORS]
    assert [n for n in names if n[1] in FLOORS] == floors
    places = [names.index(name) for name in (("faces", "R42_G"), floors[0], ("multi", "M_R42_J"))]
    assert places == sorted(places)
    assert [m["name"] for m in table["metrics"]] == list(METRICS)
    assert {m["better"] for m in table["metrics"]} == {"lower", "higher", None}
    assert "size 16 instead of 256" in table["apart"]
    assert "faces toy_faces instead of celeba" in table["apart"]
    assert "multi_images 104 instead of 8000" in table["apart"]
    assert table["missing"] == {}


def test_a_tables_row_says_what_was_measured_on_how_many(scored):
    ours, floor = rows(scored)["faces", "R42_G"], rows(scored)["faces", "mean"]
    assert (ours["stage"], ours["inputs"], ours["loss"]) == ("refine", [4, 2], "gan")
    assert (ours["images_seen"], ours["trained_on"], ours["collapsed"]) == (96, 60, [])
    assert rows(scored)["faces", "R42_J_half"]["trained_on"] == 28
    assert (ours["n"], ours["values"]["psnr"]["n"]) == (N, N)
    assert ours["values"]["dcos"]["n"] == N - 1  # one image has no keypoints
    assert set(METRICS) == set(ours["values"])
    assert len(ours["values"]["fd"]["seeds"]) == 2
    assert set(METRICS) - set(floor["values"]) == {"r_cb", "r_cr", "pd_gap_equal"}
    assert floor["values"]["id1"]["value"] == pytest.approx(100 / N, rel=1e-4)
    assert len(floor["values"]["psnr"]["seeds"]) == 1
    assert rows(scored)["multi", "mean"]["n"] == N_MULTI


def test_curves_are_sorted_by_what_was_removed(scored, unchanged_artifacts):
    found = scored["partial.json"]
    assert (found["run"], found["set"]) == ("R42_G", "faces")
    boxes = [(b["mode"], b["place"], b["f"]) for b in found["boxes"]]
    expected = [
        (mode, place, f)
        for mode in ("centre", "support")
        for place in ("centre", "eyes")
        for f in (0.1, 0.4)
    ]
    assert boxes == expected
    assert [k["p"] for k in found["keeps"]] == [0.1, 0.5]
    assert [s["half"] for s in found["sigmas"]] == ["above", "below"]
    first = found["boxes"][0]
    assert {"pd_in", "pd_out", "pd_in_full", "pd_in_mean", "psnr_in", "id1"} <= set(first["values"])
    assert "pd_in" not in found["keeps"][0]["values"]
    arrays = read_npz(unchanged_artifacts / "evaluate/R42_G/box-centre-centre-0.1.npz")
    assert first["removed"] == pytest.approx(arrays["removed"].mean(), rel=1e-4)
    assert first["values"]["pd_in"]["value"] == pytest.approx(arrays["pd_in"].mean(), rel=1e-4)
    (full,) = found["full"]
    assert full["condition"] == "full"
    assert full["values"] == rows(scored)["faces", "R42_G"]["values"]


def test_ablations_are_differences_of_the_second_run_to_the_first(scored):
    axes = {a["axis"]: a for a in scored["ablation.json"]["axes"]}
    assert list(axes) == list(PAIRS)
    pairs = {(r["first"], r["second"]): r for a in axes.values() for r in a["rows"]}
    assert all(row["missing"] is None for row in pairs.values())
    effect = pairs["R42_L2", "R42_J"]["effects"]["pd"]
    assert effect["difference"] == pytest.approx(effect["second"] - effect["first"], rel=1e-3)
    assert effect["lo"] < effect["difference"] < effect["hi"] < 0
    assert effect["better"] is True
    assert pairs["R42_L2", "R42_J"]["effects"]["psnr"]["better"] is False
    assert pairs["R42_N", "R42_G"]["effects"]["ssim_y"]["better"] is None


def test_keypoints_are_counted_in_both_maps(scored, unchanged_artifacts):
    found = scored["keypoints.json"]["faces"]
    meta = read_json(unchanged_artifacts / "extract/faces_test/meta.json")
    assert (found["n"], found["without"]) == (N, 1)
    assert found["per_image"]["value"] == pytest.approx(meta["keypoints"] / N, rel=1e-4)
    for d in ("4", "2"):
        assert found["occupancy"][d]["value"] == pytest.approx(meta["occupancy"][d], rel=1e-4)
        collisions = found["collisions"][d]
        assert collisions["value"] == pytest.approx(meta["collisions"][d], abs=0.05)
        assert collisions["n"] == N - 1
    assert found["same_point"]["value"] > 0.05


def test_collisions_are_those_of_a_cell_counted_by_hand(tmp_path):
    # one cell of 4 px holds three, two of them on one point; of 2 px only these share theirs
    xy = np.array([[1, 1], [1, 1], [3, 3], [9, 9]], np.float32)
    kp = np.column_stack([xy, np.ones((4, 3), np.float32)]).astype(np.float32)
    cells = np.array([[0, 0, 0, 0], [0, 1, 0, 1], [255, 255, 1, 1], [2, 2, 4, 4]], np.uint8)
    whole = stored.Descriptors(
        desc=np.zeros((4, 128), np.uint8),
        cells=cells,
        kp=kp,
        octave=np.zeros(4, np.int32),
        offsets=np.array([0, 4, 4]),
        ids=np.arange(2),
        meta={"size": 16},
    )
    stored.write(tmp_path, whole)
    found = read_crowding(tmp_path, 2)
    assert found["keypoints"].tolist() == [[4, 0]]
    assert found["occupancy_4"].tolist() == [[3 / 16, 0]]
    assert found["occupancy_2"].tolist() == [[4 / 64, 0]]
    assert (found["collisions_4"][0, 0], found["collisions_2"][0, 0]) == (0.5, 0.25)
    assert (found["dropped_4"][0, 0], found["dropped_2"][0, 0]) == (0.25, 0.0)
    assert found["same_point"][0, 0] == 0.25
    assert np.isnan(found["collisions_4"][0, 1])
    with pytest.raises(InputError, match="does not fit"):
        read_crowding(tmp_path, 3)


# ---------------------------------------------------------------- claims


def test_claims_are_judged_on_these_numbers(scored):
    verdicts = scored["claims.json"]["verdicts"]
    assert list(verdicts) == sorted(read_paper().claims)
    supported = dict.fromkeys(read_paper().claims, "supported")
    assert verdicts == {**supported, "C10": "inconclusive"}
    by_id = details(scored)
    assert {id: d["verdict"] for id, d in by_id.items()} == verdicts
    assert {d["table1"] for d in by_id.values()} == {None}  # the paper prints no number
    assert (by_id["C1"]["n"], by_id["C1"]["seeds"], by_id["C9"]["n"]) == (N, 2, N_MULTI)
    assert "two scales, not merely two networks" in by_id["C3"]["reason"]
    assert "no control: R42_J_shuffled is not among the runs" in by_id["C7"]["reason"]


def test_another_world_turns_the_verdicts(artifacts_tree):
    ours = {"pd": 1.5, "log_sharp": -2.0, "kpr": 0.02, "dmatch": 0.05, "fd_shift": 3.0, "id1": 0.1}
    tree = artifacts_tree(
        world={
            **{("R42_G", name): value for name, value in ours.items()},
            **{("R42_G", "colour"): -0.8, ("R42_G", "chroma_error"): 20.0},
            **{("R42_G", "pd_face"): 2.0, ("R42_G", "pd_rest"): 1.0},
            **{("R42_J", "pd"): 0.9, ("R42_J", "chk"): 0.2, ("R42_J_half", "pd"): 0.8},
            **{("M_R42_G", "pd"): 0.3, ("M_R42_G", "log_sharp"): 0.0},
            **{("box-centre-centre-0.1", "pd_in"): 2.0},
            ("mean", "pd"): 3.0,  # all have learnt something
        }
    )
    verdicts = run(tree)["claims.json"]["verdicts"]
    against = set(verdicts) - {"C3b", "C10"}  # C10 needs twice the paper's images to be refuted
    assert {id for id, verdict in verdicts.items() if verdict == "contradicted"} == against


def test_one_seed_decides_nothing_that_was_trained(artifacts_tree):
    verdicts = run(artifacts_tree(seeds=[7]), seeds=[7])["claims.json"]["verdicts"]
    assert verdicts.pop("C3b") == "supported"  # nothing in it was trained
    assert set(verdicts.values()) == {"inconclusive"}


def test_a_constant_colour_correlates_with_nothing(tree):
    path = tree / "evaluate/R42_G/full.npz"
    grey = np.full((2, N), 128.0)
    change(path, mean_cb=grey, mean_cr=grey)
    found = run(tree)
    assert (found["R42_G.json"]["r_cb"], found["R42_G.json"]["r_cb_seeds"]) == (0.0, [0.0, 0.0])
    assert details(found)["C7"]["verdict"] != "supported"
    assert "permutation p 1 for Cb, 1 for Cr" in details(found)["C7"]["reason"]


# ---------------------------------------------------------------- what is not there


def test_runs_that_were_dropped_leave_their_claims_not_run(tree):
    found = run(tree)
    by_id = details(found)
    not_run = {id for id, d in by_id.items() if d["verdict"] == "not run"}
    assert not_run == {"C2", "C3", "C9", "C10", "C11"}
    assert by_id["C2"]["reason"] == "R42_L2 has no evaluation"
    assert by_id["C9"]["reason"] == "M_R42_G has no evaluation"
    assert found["table.json"]["missing"]["R4_G"] == "R4_G has no evaluation"
    missing = [r for a in found["ablation.json"]["axes"] for r in a["rows"] if r["missing"]]
    assert ("R4_L2", "R4_J") in {(r["first"], r["second"]) for r in missing}
    assert all(r["effects"] == {} and r["set"] is None for r in missing)
    assert {r["set"] for r in found["table.json"]["rows"]} == {"faces"}


def test_a_run_that_is_no_variant_any_more_is_not_read(tree):
    (tree / "evaluate/B5/full.npz").write_bytes(b"not read")
    found = run(tree, variants=["R42_J", "R42_G"])
    assert "B5.json" not in found
    assert details(found)["C1"]["reason"] == "B5 is not among the runs"
    assert details(found)["C4"]["verdict"] != "not run"


@pytest.mark.parametrize("left", ["B5", "R2_J", "R42_J", "R42_G", "M_R42_G"])
def test_any_run_alone_is_no_crash(unchanged_artifacts, tmp_path, left):
    found = run(unchanged_artifacts, tmp_path, variants=[left], resamples=50, fd_resamples=4)
    assert {name for name in found if name not in TABLES} == {f"{left}.json"}
    assert details(found)["C1"]["verdict"] == "not run"


def test_without_partial_inputs_c5_is_not_run(artifacts_tree):
    found = run(artifacts_tree(runs=FEW, conditions=()))
    assert details(found)["C5"]["reason"] == "no run was fed a part of the keypoints"
    assert found["partial.json"] == {
        **{"run": None, "set": None, "level": 0.95, "full": []},
        **{"boxes": [], "keeps": [], "sigmas": []},
    }


def test_the_share_of_removed_keypoints_may_be_missing(tree):
    path = tree / "evaluate/R42_G/keep-0.5.npz"
    write_npz(path, **{k: v for k, v in read_npz(path).items() if k != "removed"})
    found = run(tree)["partial.json"]
    assert found["keeps"][0]["removed"] is None
    assert found["boxes"][0]["removed"] > 0


def test_a_floor_that_is_missing_leaves_its_claims_not_run(tree):
    (tree / "evaluate/floors/faces-mean.npz").unlink()
    by_id = details(run(tree))
    assert by_id["C6"]["reason"] == "pd_far of the floor mean of faces was not measured"
    assert by_id["C12"]["verdict"] == "not run"
    assert by_id["C5"]["reason"] == "dcos of the floor mean of faces was not measured"


def test_a_region_that_no_image_has_is_no_crash(tree):
    for path in [*(tree / "evaluate").glob("*/full.npz"), *(tree / "evaluate/floors").iterdir()]:
        arrays = read_npz(path)
        nothing = np.full_like(arrays["pd_far"], np.nan)
        change(path, **{f"{m}_far": nothing for m in ("pd", "psnr", "log_sharp")})
    found = run(tree)
    reason = "pd_far of R42_G was not measured, or in too few of the images"
    assert details(found)["C6"]["reason"] == reason
    assert "pd_far" not in rows(found)["faces", "R42_G"]["values"]


def test_an_image_without_a_value_in_one_run_counts_in_none(tree):
    path = tree / "evaluate/B5/full.npz"
    dcos = read_npz(path)["dcos"].copy()
    dcos[0, 10:13] = np.nan
    change(path, dcos=dcos)
    found = rows(run(tree))
    for name in ("B5", "R42_G", "mean"):
        assert found["faces", name]["values"]["dcos"]["n"] == N - 4
    assert found["faces", "R42_G"]["values"]["kpr"]["n"] == N - 1


def test_a_run_without_validation_is_no_crash(artifacts_tree):
    tree = artifacts_tree(runs=("R2_J", "R4_J"), conditions=())
    for seed in (0, 1):
        path = tree / f"train/R2_J/history-s{seed}.json"
        write_json(path, {**read_json(path), "epochs": []})
    reason = details(run(tree))["C3b"]["reason"]
    assert reason.endswith("no spread of losses: R2_J logged no validation loss")


# ---------------------------------------------------------------- reproducible


def test_the_same_artifacts_give_the_same_bytes(tree):
    run(tree)
    first = {p.name: p.read_bytes() for p in (tree / "results").iterdir()}
    run(tree)
    assert {p.name: p.read_bytes() for p in (tree / "results").iterdir()} == first


def test_another_seed_moves_intervals_and_not_means(tree):
    first, second = run(tree)["R42_G.json"], run(tree, seed=1)["R42_G.json"]
    for metric in ("pd", "fd", "r_cb"):
        assert first[metric] == second[metric]
        assert first[f"{metric}_ci"] != second[f"{metric}_ci"]


def test_images_of_one_cluster_are_drawn_together(tree):
    for file in ("prepare/faces_test.npz", "evaluate/faces-real.npz"):
        change(tree / file, groups=np.arange(N, dtype=np.int64) // (N // 2))
    halves = np.repeat([[0.1, 0.9]], N // 2, axis=1).reshape(1, -1).repeat(2, axis=0)
    for name in FEW:  # all seeds equal, so that only the images' draw is left
        change(tree / f"evaluate/{name}/full.npz", chk=np.sort(halves, axis=1))
    assert run(tree)["R42_G.json"]["chk_ci"] == pytest.approx([0.1, 0.9])


def test_a_spread_between_seeds_widens_all_runs_of_one_metric(tree):
    def widths(found: dict[str, dict]) -> dict[str, float]:
        cells = rows(found)["faces", "R42_G"]["values"]
        return {m: cells[m]["hi"] - cells[m]["lo"] for m in ("pd", "ssim", "id1")}

    before = widths(run(tree))
    path = tree / "evaluate/B5/full.npz"
    change(path, pd=read_npz(path)["pd"] + np.array([[-0.1], [0.1]]))
    after = widths(run(tree))
    assert after["pd"] > 2 * before["pd"]
    assert (after["ssim"], after["id1"]) == (before["ssim"], before["id1"])


# ---------------------------------------------------------------- bad input

OURS = "evaluate/R42_G/full.npz"
BAD = {
    OURS: "psnr",
    "evaluate/R42_G/box-centre-centre-0.1.npz": "mean_cb",
    "evaluate/floors/faces-grey.npz": "chroma_error",
    "evaluate/faces-real.npz": "gradient_rest",
}


@pytest.mark.parametrize("file", BAD)
def test_numbers_that_are_none_are_refused_by_file(tree, file):
    values = read_npz(tree / file)[BAD[file]].copy()
    values[..., 5] = np.nan
    change(tree / file, **{BAD[file]: values})
    with pytest.raises(InputError, match=rf"{BAD[file]} has values that are no numbers"):
        run(tree)
    assert not (tree / "results").exists()


def test_a_measure_of_keypoints_may_lack_only_where_there_are_none(tree):
    kpr = read_npz(tree / OURS)["kpr"].copy()
    assert np.isnan(kpr).any()
    kpr[1, 10] = np.nan
    change(tree / OURS, kpr=kpr)
    with pytest.raises(InputError, match=r"kpr has values that are no numbers.*1 NaN"):
        run(tree)


def test_an_infinite_value_of_a_region_is_refused(tree):
    far = read_npz(tree / OURS)["pd_far"].copy()
    far[0, 0] = np.inf
    change(tree / OURS, pd_far=far)
    with pytest.raises(InputError, match="pd_far has values that are no numbers"):
        run(tree)


@pytest.mark.parametrize("file", BAD)
def test_other_images_are_refused_by_file(tree, file):
    name = BAD[file]
    change(tree / file, **{name: read_npz(tree / file)[name][..., :-1]})
    with pytest.raises(InputError, match=f"{file}: {name} does not fit the seeds and images"):
        run(tree)


def test_features_of_another_length_are_refused(tree):
    change(tree / OURS, features=read_npz(tree / OURS)["features"][..., :-1])
    with pytest.raises(InputError, match="features does not fit the seeds and images"):
        run(tree)


def test_other_seeds_than_the_parameters_are_refused(tree):
    change(tree / OURS, seeds=np.array([0, 5]))
    with pytest.raises(
        InputError, match=r"full\.npz: was run with other seeds.*\[0, 1\], found seeds \[0, 5"
    ):
        run(tree)


def test_a_floor_of_several_rows_is_refused(tree):
    change(tree / "evaluate/floors/faces-blur.npz", seeds=np.array([0, 1]))
    with pytest.raises(InputError, match=r"faces-blur\.npz: was run with other seeds.*one row"):
        run(tree)


def test_other_test_images_than_were_prepared_are_refused(tree):
    change(tree / "prepare/faces_test.npz", groups=np.arange(N, dtype=np.int64)[::-1].copy())
    with pytest.raises(InputError, match="is of other test images than were prepared"):
        run(tree)


def test_test_images_without_distance_are_refused(tree):
    change(tree / "evaluate/faces-real.npz", pairwise=np.array(0.0))
    with pytest.raises(InputError, match="has no distance between test images"):
        run(tree)


def test_an_array_that_is_missing_is_named(tree):
    write_npz(tree / OURS, **{k: v for k, v in read_npz(tree / OURS).items() if k != "ssim"})
    with pytest.raises(InputError, match=r"without \['ssim'\]"):
        run(tree)


def test_a_damaged_file_is_refused(tree):
    (tree / OURS).write_bytes((tree / OURS).read_bytes()[:100])
    with pytest.raises(InputError, match=r"full\.npz: is not a readable array file"):
        run(tree)


@pytest.mark.parametrize(("key", "value"), [("run", "R42_J"), ("set", "toy")])
def test_a_run_of_another_name_or_set_is_refused(tree, key, value):
    path = tree / "refine/R42_G/meta.json"
    write_json(path, {**read_json(path), key: value})
    with pytest.raises(InputError, match=rf"R42_G/meta\.json: is of another {key}"):
        run(tree)


def test_a_run_without_meta_is_refused(tree):
    (tree / "train/B5/meta.json").unlink()
    with pytest.raises(InputError, match=r"B5/meta\.json: is not a readable JSON"):
        run(tree)


@pytest.mark.parametrize(
    ("lost", "match"),
    [(None, "is not a readable JSON"), ("trained_on", "does not say how long the training was")],
)
def test_a_history_that_says_too_little_is_refused(tree, lost, match):
    path = tree / "refine/R42_G/history-s1.json"
    if lost is None:
        path.unlink()
    else:
        write_json(path, {k: v for k, v in read_json(path).items() if k != lost})
    with pytest.raises(InputError, match=rf"history-s1\.json: {match}"):
        run(tree)


def test_no_run_at_all_is_refused(tree):
    shutil.rmtree(tree / "evaluate/R42_G")
    with pytest.raises(InputError, match="has no run to score"):
        run(tree, variants=["R42_G"])


def test_a_level_without_interval_is_refused(tree):
    with pytest.raises(InputError, match="level of the intervals is wrong"):
        run(tree, level=1.0)
