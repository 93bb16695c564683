"""A whole tree of artifacts, prepare to classify, in small: made up, not computed by the stages."""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from stages.common.files import write_json, write_npz

TRAINED = ("plain", "tanaka", "pe_same", "pe_diff", "noise", "proposed", "proposed_sum")
EXTRAS = ("pe_same_shuffle", "pe_diff_shuffle", "blur", "random_sign")
GA = ("ga_blockwise", "ga_shared", "ga_local", "ga_unet")
PAIRS = ("uwa_literal", "uwa_strong", "uwa_block", "itn")
FREE = ("fr", "fr_advanced", "pc1", "qap", "kpa_le", "kpa_pe")
FLOORS = {"blank": 0.15, "mean_colour": 0.16, "other_image": 0.05, "noise": 0.01}
CIPHERS = {"plain": "identity", "tanaka": "tanaka", "noise": "aes"} | {
    name: name for name in ("blur", "random_sign")
}
RAW = {"plain": 1.0, "blur": 0.6, "random_sign": 0.3}  # SSIM of the cipher itself
# Mean SSIM of an attack on a scheme, where it is not 0.1: a world in which the paper is right.
SSIM = {
    **{("plain", attack): 0.9 for attack in (*GA, *PAIRS, *FREE)},
    **{("tanaka", attack): 0.6 for attack in (*GA, "uwa_block", "itn")},
    **{("pe_same", attack): 0.4 for attack in (*GA, "uwa_literal", "itn")},
    **{("pe_diff", attack): 0.25 for attack in (*GA, "itn")},
    ("plain", "itn"): 0.95,
    ("proposed_sum", "itn"): 0.8,
    ("proposed_sum", "g_ba"): 0.85,
    ("proposed_sum", "g_ba_float"): 0.9,
    ("pe_same", "uwa_strong"): 0.95,
    ("tanaka", "qap"): 0.95,
    ("tanaka", "kpa_le"): 1.0,
    ("pe_same", "pc1"): 0.97,
    ("pe_same", "kpa_pe"): 1.0,
    ("pe_diff", "fr"): 0.3,
    ("pe_same", "fr"): 0.3,
}
ACC = {  # (ten, transfer), share of correct answers
    "plain": (1.0, 0.9),
    "pe_same": (0.9, 0.75),
    "pe_diff": (0.9, 0.75),
    "proposed": (0.9, 0.75),
    "proposed_sum": (0.9, 0.75),
    "tanaka": (0.8, 0.8),
    "noise": (0.1, 0.1),
}


def arms(scheme: str) -> list[str]:
    """Return the augmentation arms of a scheme's classifiers, the primary one first."""
    if scheme.startswith("pe_"):
        return ["server", "client", "none"]
    return ["server"] if scheme == "noise" else ["client", "server"]


def hits(rng: np.random.Generator, seeds: int, n: int, share: float) -> np.ndarray:
    """Return correct answers (seeds, n), ``share`` of them True, in an order of chance."""
    right = np.arange(n) < round(share * n)
    return np.stack([rng.permutation(right) for _ in range(seeds)])


def ssims(rng: np.random.Generator, seeds: int, n: int, mean: float) -> np.ndarray:
    """Return SSIMs of one row a seed, near their mean; 1 and 0 exactly."""
    spread = 0.02 * (0 < mean < 1)
    return np.clip(mean + spread * rng.standard_normal((seeds, n)), -1, 1)


def write_artifacts(
    folder: Path,
    *,
    seeds: Sequence[int] = (0, 1),
    schemes: Iterable[str] = (*TRAINED, *EXTRAS),
    attacked: Iterable[str] = TRAINED,
    ssim: Mapping[tuple[str, str], float] | None = None,
    raw: Mapping[str, float] | None = None,
    acc: Mapping[str, tuple[float, float]] | None = None,
    arm_acc: Mapping[tuple[str, str, str], float] | None = None,
    htheta: Mapping[str, float] | None = None,
    protection: Mapping[str, float] | None = None,
    meta: Mapping[str, object] | None = None,
    n: int = 12,
    size: int = 16,
    attack_size: int = 16,
) -> Path:
    """Write artifacts of all stages before score and return their folder.

    The arguments change the world: ``ssim`` {(scheme, attack): mean}, ``raw`` {scheme: mean},
    ``acc`` {scheme: (ten, transfer)}, ``arm_acc`` {(scheme, data set, arm): share}, ``htheta``
    {scheme: share of h_theta's correct answers}, ``protection`` {acc_x, acc_p, ssim}, ``meta``
    (keys of prepare/meta.json); ``schemes``, ``attacked``, ``seeds``; and the numbers and sides
    of the images.
    """
    schemes, attacked = list(schemes), [s for s in attacked if s in set(schemes)]
    means = {**SSIM, **(ssim or {})}
    ciphers = {**RAW, **(raw or {})}
    shares = {**ACC, **(acc or {})}
    answers = {"plain": 1.0, "proposed": 1.0, "proposed_sum": 1.0} | dict(htheta or {})
    shown = {"acc_x": 1.0, "acc_p": 1.0, "ssim": 0.1, **(protection or {})}
    rng = np.random.default_rng(0)
    S = len(seeds)
    n_test, n_transfer, n_attack, n_train = n, n + 2, n - 2, 2 * n
    numbers = np.array(seeds, np.int64)
    panel = list(range(4))

    def pictures(many: int, side: int) -> np.ndarray:
        coarse = rng.integers(0, 256, (many, side // 4, side // 4, 3), dtype=np.uint8)
        return coarse.repeat(4, axis=1).repeat(4, axis=2)

    def noise(many: int, side: int) -> np.ndarray:
        return rng.integers(0, 256, (many, side, side, 3), dtype=np.uint8)

    def weights(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"weight": np.zeros((1, 3, 1, 1), np.float32)}, path)

    # ---------------------------------------------------------------- prepare
    sets = {
        "train": (n_train, size),
        "test": (n_test, size),
        "transfer_train": (n_train, size),
        "transfer_test": (n_transfer, size),
        "attack_train": (n_train, attack_size),
        "attack_test": (n_attack, attack_size),
    }
    images = {name: pictures(many, side) for name, (many, side) in sets.items()}
    for name, (many, _) in sets.items():
        write_npz(
            folder / "prepare" / f"{name}.npz",
            images=images[name],
            labels=np.arange(many, dtype=np.int64) % 4,
            groups=np.arange(many, dtype=np.int64),
        )
    content = {
        "dataset": "toy",
        "transfer_dataset": "toy_transfer",
        "attack_dataset": "toy",
        "size": size,
        "attack_size": attack_size,
        "classes": ["w", "x", "y", "z"],
        "attribution": {name: "made up for a test" for name in sets},
        **{f"n_{name}": many for name, (many, _) in sets.items()},
        "panel": panel,
    }
    write_json(folder / "prepare" / "meta.json", {**content, **(meta or {})})

    # ---------------------------------------------------------------- the target and P
    log = [{"step": step, "loss": 1 / step, "ce": 1 / step} for step in (1, 2, 4, 8)]
    for seed in seeds:
        weights(folder / "train_target" / f"htheta-s{seed}.safetensors")
        write_json(folder / "train_target" / f"history-s{seed}.json", {"log": log})
        write_npz(
            folder / "perturb" / f"P-s{seed}.npz",
            images=noise(n_train, size),
            labels=np.arange(n_train, dtype=np.int64) % 4,
            index=np.arange(n_train, dtype=np.int64),
        )
        write_json(
            folder / "perturb" / f"history-s{seed}.json",
            {"log": [{"step": i, "ce": 1 / i, "zero_gradient": 0.1} for i in (1, 2, 3)]},
        )
    write_npz(
        folder / "train_target" / "evaluation.npz",
        seeds=numbers,
        correct=hits(rng, S, n_test, answers["plain"]),
    )
    write_npz(
        folder / "perturb" / "evaluation.npz",
        seeds=numbers,
        correct_plain=hits(rng, S, n_train, shown["acc_x"]),
        correct=hits(rng, S, n_train, shown["acc_p"]),
        ssim=ssims(rng, S, n_train, shown["ssim"]),
        ssim_blank=ssims(rng, S, n_train, FLOORS["blank"]),
        groups=np.tile(np.arange(n_train, dtype=np.int64), (S, 1)),
    )

    # ---------------------------------------------------------------- h_p
    variants = [s for s in schemes if s.startswith("proposed")]
    terms = ("adv", "lp", "lc", "lr", "ce_xhatp", "d_loss")
    for variant in variants:
        for seed in seeds:
            weights(folder / "transform" / variant / f"generator-s{seed}.safetensors")
            weights(folder / "transform" / variant / f"inverse-s{seed}.safetensors")
            steps = [
                {"step": i, "pairs": 8 * i, "capped": False, **dict.fromkeys(terms, 1 / i)}
                for i in (1, 2, 4, 8)
            ]
            write_json(
                folder / "transform" / variant / f"history-s{seed}.json",
                {
                    "log": steps,
                    "guard": {"capped_at_step": None, "reason": ""},
                    "steps": 8,
                    "batch_size": 8,
                },
            )

    # ---------------------------------------------------------------- ciphers
    for scheme in schemes:
        base = folder / "encrypt" / scheme
        transform, pe = scheme in variants, scheme.startswith("pe_")
        keys = ("same" if "same" in scheme else "diff") if pe else None
        cipher = "transform" if transform else "pe" if pe else CIPHERS[scheme]
        write_json(
            base / "meta.json",
            {
                "scheme": scheme,
                "cipher": cipher,
                "keys": "same" if scheme in ("tanaka", "noise") else keys,
                "shuffle": "shuffle" in scheme,
                "variant": scheme if transform else None,
                "augment": arms(scheme) if scheme in TRAINED else [],
                "seeds": list(seeds),
            },
        )
        for seed in seeds:
            if scheme == "tanaka":
                write_npz(base / f"key-s{seed}.npz", key=rng.permutation(96).astype(np.int64))
            elif scheme == "noise":
                write_npz(base / f"key-s{seed}.npz", key=rng.integers(0, 256, 16, np.uint8))
            elif pe:
                key = {}
                for name, (many, side) in sets.items():
                    shape = (1 if keys == "same" else many, side, side)
                    key[f"bits_{name}"] = rng.integers(0, 2, (*shape, 3), np.uint8)
                    if "shuffle" in scheme:
                        key[f"perm_{name}"] = rng.integers(0, 6, shape, np.uint8)
                write_npz(base / f"key-s{seed}.npz", **key)
            for name in ("attack_train", "attack_test"):
                same = scheme in ("plain", "blur")
                out = images[name] if same else noise(*sets[name])
                write_npz(base / f"{name}-s{seed}.npz", images=out)
        mean = ciphers.get(scheme, 0.02)
        more = {}
        if transform:
            more["ssim_g_ba_test"] = ssims(rng, S, n_test, 0.3)
            more["mismatches"] = np.zeros(S, np.int64)
        write_npz(
            base / "evaluation.npz",
            seeds=numbers,
            ssim=ssims(rng, S, n_attack, mean),
            ssim_test=ssims(rng, S, n_test, mean),
            htheta_correct=hits(rng, S, n_test, answers.get(scheme, 0.1)),
            **more,
        )
    write_npz(
        folder / "encrypt" / "floors.npz",
        **{
            f"{name}_{where}": ssims(rng, 1, many, mean)
            for name, mean in FLOORS.items()
            for where, many in (("attack", n_attack), ("test", n_test))
        },
    )

    # ---------------------------------------------------------------- attacks
    for scheme in attacked:
        insider = ("g_ba", "g_ba_float") if scheme in variants else ()
        found: dict[str, np.ndarray] = {}
        for attack in (*GA, *PAIRS, *insider):
            found[f"ssim_{attack}"] = ssims(rng, S, n_attack, means.get((scheme, attack), 0.1))
            found[f"gauss_{attack}"] = found[f"ssim_{attack}"][:, :4] + 0.01
        for attack in GA:
            found[f"oracle_{attack}"] = found[f"ssim_{attack}"].mean(axis=1) + 0.02
        names = [name.removeprefix("ssim_") for name in found if name.startswith("ssim_")]
        base = folder / "attack" / scheme
        write_npz(base / "evaluation.npz", seeds=numbers, **found)
        views = {name: noise(len(panel), attack_size) for name in names}
        write_npz(base / "reconstructions.npz", **views)
        for seed in seeds:
            curves = {name: {"log": log} for name in names}
            write_json(base / f"history-s{seed}.json", curves)
    for scheme in schemes:
        found = {}
        for attack in FREE:
            found[f"ssim_{attack}"] = ssims(rng, S, n_attack, means.get((scheme, attack), 0.1))
            found[f"gauss_{attack}"] = found[f"ssim_{attack}"][:, :4] + 0.01
        rates = {"pe": ("pc1", "kpa_pe"), "tan": ("qap_upper", "qap", "kpa_le")}
        for attack in rates.get("pe" if scheme.startswith("pe_") else scheme[:3], ()):
            found[f"rate_{attack}"] = np.linspace(0.9, 1.0, S)
        base = folder / "cryptanalyse" / scheme
        write_npz(base / "evaluation.npz", seeds=numbers, **found)
        views = {name: noise(len(panel), attack_size) for name in FREE}
        write_npz(base / "reconstructions.npz", **views)

    # ---------------------------------------------------------------- classifiers
    for scheme in attacked:
        answers_by_arm: dict[str, np.ndarray] = {}
        for i, (dataset, many) in enumerate((("ten", n_test), ("transfer", n_transfer))):
            for j, arm in enumerate(arms(scheme)):
                share = max(0.0, shares[scheme][i] - 0.2 * j)  # the primary arm is the best
                share = (arm_acc or {}).get((scheme, dataset, arm), share)
                correct = hits(rng, S, many, share)
                answers_by_arm[f"correct_{dataset}_{arm}"] = correct
                answers_by_arm[f"best_{dataset}_{arm}"] = correct.mean(axis=1)
        base = folder / "classify" / scheme
        write_npz(base / "evaluation.npz", seeds=numbers, **answers_by_arm)
        epochs = [{"step": 4 * i, "test_accuracy": 50.0} for i in (1, 2)]
        curves = {
            name.removeprefix("correct_"): {"log": log, "epochs": epochs}
            for name in answers_by_arm
            if name.startswith("correct_")
        }
        for seed in seeds:
            write_json(base / f"history-s{seed}.json", curves)
    return folder


@pytest.fixture(scope="session")
def unchanged_artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of artifacts that no test may change."""
    return write_artifacts(tmp_path_factory.mktemp("unchanged") / "artifacts")


@pytest.fixture
def artifacts_tree(tmp_path: Path, unchanged_artifacts: Path) -> Callable[..., Path]:
    """Return :func:`write_artifacts`, which writes to tmp_path / "artifacts" if not told."""

    def build(root: Path | None = None, **changes) -> Path:
        folder = root or tmp_path / "artifacts"
        if changes:
            return write_artifacts(folder, **changes)
        return shutil.copytree(unchanged_artifacts, folder, copy_function=shutil.copyfile)

    return build
