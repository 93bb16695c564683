"""t22: the layouts of Market-1501, DukeMTMC-reID and MSMT17, on tiny pictures of noise."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from stages.common.errors import InputError
from stages.data.reid import ReidFolder, layouts, read_crop, read_csv, read_mat

MARKET = {
    "bounding_box_train": ["0002_c1s1_000451_03.jpg", "0002_c3s1_000551_01.jpg",
                           "0007_c2s3_070952_01.jpg"],
    "query": ["0001_c1s1_001051_00.jpg", "0003_c6s4_002202_00.jpg"],
    "bounding_box_test": ["-1_c1s1_000401_03.jpg", "0000_c4s2_000151_01.jpg",
                          "0001_c2s1_001051_02.jpg", "0001_c5s1_001051_02.jpg.jpg",
                          "0003_c1s6_015996_00.jpg"],
}  # fmt: skip
DUKE = {
    "bounding_box_train": ["0001_c2_f0046182.jpg", "0005_c8_f0064634.jpg"],
    "query": ["0003_c1_f0044158.jpg"],
    "bounding_box_test": ["0003_c4_f0044278.jpg", "7139_c2_f0160815.jpg"],
}
LISTS = {
    "list_train.txt": "0000/0000_000_01_0303morning_0008_0.jpg 0\n"
    "0001/0001_002_14_0113noon_0450_2.jpg 1\n",
    "list_query.txt": "0000/0000_001_05_0302afternoon_0044_1.jpg 0\n",
    "list_gallery.txt": "0000/0000_004_11_0302afternoon_0244_1.jpg 0\n"
    "0003/0003_000_15_0302morning_0017_0.jpg 3\n",
    "list_val.txt": "0001/0001_009_02_0113noon_0451_0.jpg 1\n",
}


def noise(path, seed, size=(16, 32)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 256, (*size[::-1], 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path, quality=95)
    return path


def write(root, folders):
    for folder, names in folders.items():
        for i, name in enumerate(names):
            noise(root / folder / name, i)


@pytest.fixture
def market(tmp_path, monkeypatch):
    root = tmp_path / "mine"
    write(root, MARKET)
    (root / "bounding_box_test" / "Thumbs.db").write_bytes(b"no image")
    monkeypatch.setenv("MARKET_ROOT", str(root))
    return root


@pytest.fixture
def msmt17(tmp_path):
    root = tmp_path / "msmt"
    for i, (name, text) in enumerate(LISTS.items()):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
        folder = "train" if name in ("list_train.txt", "list_val.txt") else "test"
        for line in text.splitlines():
            noise(root / folder / line.split()[0], i)
    return root


def facts(folder, split):
    crops, junk = folder.crops(split)
    return [(c.pid, c.camid, c.query) for c in crops], junk


def test_market_drops_junk_and_keeps_distractors(market):
    folder = ReidFolder("market")
    assert facts(folder, "train") == ([(2, 1, False), (2, 3, False), (7, 2, False)], 0)
    gallery = [(0, 4, False), (1, 2, False), (1, 5, False), (3, 1, False)]
    assert facts(folder, "test") == ([(1, 1, True), (3, 6, True), *gallery], 1)


def test_duke_has_identities_of_four_digits_and_eight_cameras(tmp_path):
    write(tmp_path, DUKE)
    folder = ReidFolder("duke", tmp_path)
    assert facts(folder, "train") == ([(1, 2, False), (5, 8, False)], 0)
    assert facts(folder, "test") == ([(3, 1, True), (3, 4, False), (7139, 2, False)], 0)


@pytest.mark.parametrize("version", [1, 2])
def test_msmt17s_identity_0_is_a_person_and_another_one_in_the_test_lists(msmt17, version):
    if version == 2:
        for split in ("train", "test"):
            (msmt17 / split).rename(msmt17 / f"mask_{split}_v2")
    folder = ReidFolder("msmt17", msmt17)
    assert facts(folder, "train") == ([(1, 1, False), (2, 14, False)], 0)  # list_val is left out
    assert facts(folder, "test") == ([(3, 5, True), (3, 11, False), (6, 15, False)], 0)


def test_images_come_in_the_order_of_their_identities_and_at_the_size_asked_for(market):
    found = ReidFolder("market").read("test", height=32, width=16)
    assert found.images.shape == (6, 32, 16, 3) and found.images.dtype == np.uint8
    assert found.pids.tolist() == [1, 3, 0, 1, 1, 3] and found.junk == 1
    assert found.query.tolist() == [True, True, False, False, False, False]
    assert found.camids.tolist() == [1, 6, 4, 2, 5, 1]
    path = market / "bounding_box_test" / "0003_c1s6_015996_00.jpg"
    np.testing.assert_array_equal(found.images[5], np.asarray(Image.open(path)))
    assert ReidFolder("market").read("train", height=96, width=32).images.shape == (3, 96, 32, 3)


def test_shrinking_is_area_interpolation(tmp_path):
    path = noise(tmp_path / "a.png", 0)
    expected = np.asarray(Image.open(path), float).reshape(8, 4, 4, 4, 3).mean(axis=(1, 3))
    assert np.abs(read_crop(path, height=8, width=4) - expected).max() <= 0.5 + 1e-6


TRAIN = {"image_index": ["0002", "0007"], "gender": [1, 2], "hat": [2, 1], "upblack": [2, 1],
         "upwhite": [1, 2]}  # fmt: skip
TEST = {"image_index": ["0001", "0003"], "gender": [2, 2], "hat": [1, 1], "upblack": [1, 1],
        "upwhite": [2, 1]}  # fmt: skip


def write_mat(path, train=TRAIN, test=TEST, do_compression=False):
    def part(columns):
        cells = np.array(columns["image_index"], object)
        return {k: np.array(v, float) for k, v in columns.items() if k != "image_index"} | {
            "image_index": cells
        }

    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {"market_attribute": {"test": part(test), "train": part(train)}}
    savemat(path, whole, do_compression=do_compression)


@pytest.mark.parametrize("name", ["market_attribute.mat", "attribute/market_attribute.mat"])
def test_attributes_of_markets_mat(market, name):
    write_mat(market / name)
    rows = ReidFolder("market").annotations()
    assert set(rows) == {1, 2, 3, 7}
    assert rows[2] == {"gender": "male", "hat": "yes", "upblack": "2", "upwhite": "1"}
    assert rows[3] == {"gender": "female", "hat": "no", "upblack": "1", "upwhite": "1"}


def test_attributes_of_one_identity_a_split(tmp_path):
    one = {k: v[:1] for k, v in TRAIN.items()}, {k: v[:1] for k, v in TEST.items()}
    write_mat(tmp_path / "m.mat", *one)
    assert read_mat(tmp_path / "m.mat", {})[2]["hat"] == "2"


def test_attributes_of_a_csv(market):
    (market / "attributes.csv").write_text("identity,hat,gender,coat\n2,2,female,3\n0001,no,1,\n")
    assert ReidFolder("market").annotations() == {
        2: {"hat": "yes", "gender": "female", "coat": "3"},
        1: {"hat": "no", "gender": "male", "coat": ""},
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("person,hat\n1,no\n", "expected a column identity"),
        ("identity,hat\n1,no\n1,yes\n", "found 1 twice"),
        ("identity,hat\n1\n", "line 2 of another length"),
        ("identity,hat\nx,no\n", "invalid literal"),
        ("identity\n1\n", "1 lines, no task"),
        ("identity,hat\n", "0 lines, no task"),
    ],
)
def test_a_bad_csv_is_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "attributes.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=f"not a readable file of attributes.*{sentence}"):
        read_csv(path, {})


def test_a_bad_mat_is_one_sentence(tmp_path):
    path = tmp_path / "m.mat"
    path.write_bytes(b"no mat")
    with pytest.raises(InputError, match="not a readable file of attributes"):
        read_mat(path, {})
    savemat(path, {"x": np.zeros(3)})
    with pytest.raises(InputError, match="a struct with train and test"):
        read_mat(path, {})
    write_mat(path, test={**TEST, "hat": [1]})
    with pytest.raises(InputError, match="a struct with train and test"):
        read_mat(path, {})
    write_mat(path, test={**TEST, "image_index": ["0002", "0003"]})
    with pytest.raises(InputError, match="found 2 twice"):
        read_mat(path, {})


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_a_mat_of_more_elements_than_bytes_is_refused_at_once(tmp_path, compress, nested):
    path = tmp_path / "m.mat"
    write_mat(path)
    content = path.read_bytes()
    one = struct.pack("<IIii", 5, 8, 1, 1)  # the dimensions of a struct
    at = content.index(one)
    if nested:
        at = content.index(one, at + len(one))
    inflated = content[: at + 8] + struct.pack("<i", 2**30 + 1) + content[at + 12 :]
    if compress:
        packed = zlib.compress(inflated[128:])
        inflated = inflated[:128] + struct.pack("<II", 15, len(packed)) + packed
    path.write_bytes(inflated)
    with pytest.raises(InputError, match=r"an array of the shape \(1073741825, 1\) in \d+ bytes"):
        read_mat(path, {})


def test_a_compressed_mat_is_read_as_the_plain_one(tmp_path):
    write_mat(tmp_path / "m.mat")
    write_mat(tmp_path / "c.mat", do_compression=True)
    assert (tmp_path / "c.mat").stat().st_size < (tmp_path / "m.mat").stat().st_size
    assert read_mat(tmp_path / "c.mat", {}) == read_mat(tmp_path / "m.mat", {})


def test_a_set_without_attributes_says_so(market, msmt17):
    with pytest.raises(InputError, match="has no attributes.*market_attribute.mat"):
        ReidFolder("market").annotations()
    with pytest.raises(InputError, match="has no attributes.*a set with attributes"):
        ReidFolder("msmt17", msmt17).annotations()


def test_unknown_names_get_a_suggestion(market, monkeypatch):
    with pytest.raises(InputError, match="did you mean 'market'"):
        ReidFolder("markt")
    with pytest.raises(InputError, match="is not a split.*did you mean 'train'"):
        ReidFolder("market").crops("trian")
    monkeypatch.delenv("MARKET_ROOT")
    with pytest.raises(InputError, match="MARKET_ROOT is not set"):
        ReidFolder("market")


def test_a_folder_of_another_layout_is_one_sentence(market, msmt17):
    noise(market / "query" / "0001_front.jpg", 0)
    with pytest.raises(InputError, match=r"0001_front.jpg: is not named as in market"):
        ReidFolder("market").crops("test")
    with pytest.raises(InputError, match="has no train images.*train/ or mask_train_v2/"):
        ReidFolder("msmt17", market).crops("train")
    for path in (market / "bounding_box_train").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="holds no images"):
        ReidFolder("market").crops("train")
    (msmt17 / "list_gallery.txt").write_text("../../secret.jpg 3\n")
    with pytest.raises(InputError, match="line 1: is no image"):
        ReidFolder("msmt17", msmt17).crops("test")
    (msmt17 / "list_gallery.txt").unlink()
    with pytest.raises(InputError, match="list_gallery.txt: cannot be read"):
        ReidFolder("msmt17", msmt17).crops("test")


def test_a_query_of_no_known_person_is_one_sentence(market):
    noise(market / "query" / "0000_c1s1_001051_00.jpg", 0)
    with pytest.raises(InputError, match="has no identity"):
        ReidFolder("market").crops("test")


def test_a_missing_or_damaged_image_is_one_sentence(msmt17):
    (msmt17 / "train/0000/0000_000_01_0303morning_0008_0.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="0008_0.jpg: is empty"):
        ReidFolder("msmt17", msmt17).read("train", height=32, width=16)
    (msmt17 / "train/0000/0000_000_01_0303morning_0008_0.jpg").unlink()
    with pytest.raises(InputError, match="0008_0.jpg: cannot be read"):
        ReidFolder("msmt17", msmt17).read("train", height=32, width=16)


def test_layouts_name_the_papers_three_sets():
    assert list(layouts()) == ["market", "duke", "msmt17"]
