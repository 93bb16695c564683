import os

import numpy as np
import pytest
from PIL import Image

from stages.common.errors import InputError
from stages.common.files import read_npz, write_npz
from stages.data import embedded
from stages.data.embedded import DATA
from stages.data.images import check_multiple, load_images
from stages.data.photo import read_photo
from stages.data.register import register

SENTENCE = r"^[^\n]+: expected [^\n]+, found [^\n]+; [^\n]+docs/data\.md$"


@pytest.fixture
def refused():
    """Call and check that the error is one whole sentence; return it."""

    def call(function, *args, **options) -> str:
        with pytest.raises(InputError, match=SENTENCE) as caught:
            function(*args, **options)
        return str(caught.value)

    return call


def test_missing_folder_names_the_variable(tiny, monkeypatch, refused):
    monkeypatch.setenv("TINY_ROOT", str(tiny / "nowhere"))
    assert "TINY_ROOT=" in refused(load_images, "tiny", "train", 8)
    monkeypatch.delenv("TINY_ROOT")
    assert "TINY_ROOT is not set" in refused(load_images, "tiny", "train", 8)


def test_registering_a_missing_folder(folder, refused):
    assert "is not a folder" in refused(register, "tiny", folder / "nowhere")


def test_folder_without_images(folder, tmp_path, refused):
    (tmp_path / "none").mkdir()
    assert "holds no images" in refused(register, "tiny", tmp_path / "none")


def test_empty_class(tiny, refused):
    (tiny / "train/eel").mkdir()
    assert "eel: is an empty class" in refused(load_images, "tiny", "train", 8)


def test_class_of_one_split_only(folder, refused):
    (folder / "train/dog").rename(folder / "train/wolf")
    assert "other classes" in refused(register, "tiny", folder)


def test_images_at_different_depths(folder, refused):
    os.link(folder / "train/cat/0.jpg", folder / "train/0.jpg")
    assert "mixes layouts" in refused(register, "tiny", folder)


def test_folders_below_a_class(folder, refused):
    (folder / "train/cat/young").mkdir()
    os.link(folder / "train/cat/0.jpg", folder / "train/cat/young/0.jpg")
    assert "lies too deep" in refused(register, "tiny", folder)


def test_missing_file(tiny, refused):
    (tiny / "test/cat/0.jpg").unlink()
    message = refused(load_images, "tiny", "train", 8)
    assert "expected count 8, found 7" in message and "stages.data.register tiny" in message


def test_extra_file(tiny, refused):
    os.link(tiny / "test/cat/0.jpg", tiny / "test/cat/9.jpg")
    assert "expected count 8, found 9" in refused(load_images, "tiny", "train", 8)


def test_renamed_file(tiny, refused):
    (tiny / "test/cat/0.jpg").rename(tiny / "test/cat/7.jpg")
    assert "listing_sha256" in refused(load_images, "tiny", "train", 8)


def test_file_changed_after_registration_at_equal_length(tiny, tmp_path, refused):
    path = tiny / "train/cat/0.jpg"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    assert "a file has changed" in refused(load_images, "tiny", "train", 8)
    assert not list((tmp_path / ".cache").glob("*.npy"))


def test_truncated_jpeg(folder, refused):
    path = folder / "train/cat/0.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    register("tiny", folder)
    assert "0.jpg: is a truncated or damaged image" in refused(load_images, "tiny", "train", 8)


def test_damaged_png(tmp_path, refused):
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "x.png")
    content = bytearray((tmp_path / "x.png").read_bytes())
    content[45] ^= 255
    (tmp_path / "x.png").write_bytes(content)
    assert "damaged" in refused(read_photo, tmp_path / "x.png", size=8)


def test_cmyk_image_is_refused_except_where_it_is_allowed(tmp_path, refused):
    path = tmp_path / "x.jpg"
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(path, quality=100)
    assert "is a CMYK image" in refused(read_photo, path, size=8)
    red, green, blue = read_photo(path, size=8, cmyk=True).pixels[0, 0]
    assert red > 200 and green < 40 and blue < 40


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_png(tmp_path, refused, channels):
    import cv2

    pixels = np.full((8, 8, channels), 300, np.uint16)
    assert cv2.imwrite(str(tmp_path / "x.png"), pixels)
    assert "is a 16-bit image" in refused(read_photo, tmp_path / "x.png", size=8)


def test_transparent_png(tmp_path, refused):
    Image.new("RGBA", (8, 8), (1, 2, 3, 40)).save(tmp_path / "x.png")
    assert "100% transparent pixels" in refused(read_photo, tmp_path / "x.png", size=8)


def test_text_named_jpg(tmp_path, refused):
    (tmp_path / "x.jpg").write_text("these are words")
    assert "is not an image" in refused(read_photo, tmp_path / "x.jpg", size=8)


def test_format_that_is_neither_jpeg_nor_png(tmp_path, refused):
    Image.new("RGB", (8, 8)).save(tmp_path / "x.jpg", "BMP")
    assert "is not an image" in refused(read_photo, tmp_path / "x.jpg", size=8)


def test_zero_byte_file(tmp_path, refused):
    (tmp_path / "x.jpg").touch()
    assert "is empty" in refused(read_photo, tmp_path / "x.jpg", size=8)


def test_unreadable_file(tmp_path, refused):
    assert "No such file" in refused(read_photo, tmp_path / "x.jpg", size=8)


@pytest.mark.parametrize("limit", [40, 63])  # PIL raises above twice the limit, warns above it
def test_image_bomb(tmp_path, refused, monkeypatch, limit):
    Image.new("RGB", (10, 10)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert "is too large an image" in refused(read_photo, tmp_path / "x.png", size=8)


def test_link_that_leads_out(folder, tmp_path, refused):
    Image.new("RGB", (8, 8)).save(tmp_path / "outside.png")
    (folder / "train/cat/2.png").symlink_to(tmp_path / "outside.png")
    assert "leads out of the image folder" in refused(register, "tiny", folder)


def test_link_in_a_circle(folder, refused):
    (folder / "train/cat/a.jpg").symlink_to(folder / "train/cat/b.jpg")
    (folder / "train/cat/b.jpg").symlink_to(folder / "train/cat/a.jpg")
    assert "is a broken link" in refused(register, "tiny", folder)


def test_link_to_a_folder_above(folder, refused):
    (folder / "train/cat/again").symlink_to(folder / "train")
    assert "links to a folder" in refused(register, "tiny", folder)


def test_link_to_a_file_of_the_same_folder_is_fine(folder):
    (folder / "train/cat/2.jpg").symlink_to(folder / "train/cat/0.jpg")
    register("tiny", folder)
    images = load_images("tiny", "train", 8).images
    np.testing.assert_array_equal(images[0], images[2])


def test_unknown_set_is_told_how_to_register(tiny, refused):
    message = refused(load_images, "tinny", "train", 8)
    assert "did you mean 'tiny'?" in message
    assert "python -m stages.data.register tinny FOLDER" in message


def test_set_name_that_is_a_path_is_unknown(tiny, refused):
    assert "is not a known image set" in refused(load_images, "../fingerprints/tiny", "train", 8)


@pytest.mark.parametrize("name", ["tiny", "cifar10"])
def test_unknown_split(tiny, name, refused):
    assert "did you mean 'train'?" in refused(load_images, name, "trian", 8)


def test_unknown_split_of_an_embedded_set(refused):
    assert "expected test or train" in refused(load_images, "emoji10", "val", 8)


@pytest.mark.parametrize("size", [0, -8, True])
def test_size_that_is_not_positive(tiny, size, refused):
    assert "expected a side of 1 to 4096 pixels" in refused(load_images, "tiny", "train", size)


def test_size_that_is_no_multiple_of_what_the_network_needs(refused):
    message = refused(check_multiple, 70, 32, "the generator's five halvings")
    assert "expected a multiple of 32 pixels, found 70; take 64 or 96" in message
    assert "take 32 in" in refused(check_multiple, 20, 32, "the generator")
    assert "take 32 in" in refused(check_multiple, 0, 32, "the generator")
    check_multiple(64, 32, "the generator")


@pytest.mark.parametrize("name", ["emoji10", "cifar10", "Tiny", "a/b", ""])
def test_name_that_cannot_be_registered(name, folder, refused, monkeypatch):
    if name == "emoji10":
        monkeypatch.undo()  # the committed fingerprints
    assert "cannot name an image folder" in refused(register, name, folder)


def test_group_that_is_no_regular_expression(folder, refused):
    assert "is no regular expression" in refused(register, "tiny", folder, group="(")


def test_unwritable_cache(tiny, tmp_path):
    (tmp_path / ".cache").write_text("a file is in the way")
    with pytest.raises(InputError, match="cannot be written"):
        load_images("tiny", "train", 8)


def test_missing_embedded_set_says_dvc_pull(tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    assert "dvc pull data.dvc" in refused(load_images, "emoji100", "test", 32)


def embedded_copy(tmp_path, monkeypatch, **changes):
    arrays = read_npz(DATA / "emoji100/test.npz")
    (tmp_path / "data/emoji100").mkdir(parents=True)
    write_npz(
        tmp_path / "data/emoji100/test.npz",
        **arrays | {k: f(arrays[k]) for k, f in changes.items()},
    )
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("array", "change"),
    [
        ("labels", lambda labels: labels[::-1]),
        ("groups", lambda groups: groups + 1),
        ("encoded", lambda encoded: np.concatenate([encoded[:-100], 0 * encoded[-100:]])),
        ("ends", lambda ends: np.concatenate([ends[:1], ends[:-1]])),
    ],
)
def test_embedded_set_with_other_content(tmp_path, monkeypatch, refused, array, change):
    embedded_copy(tmp_path, monkeypatch, **{array: change})
    assert "is not the embedded set of this version" in refused(load_images, "emoji100", "test", 32)


def test_truncated_embedded_file(tmp_path, monkeypatch):
    embedded_copy(tmp_path, monkeypatch)
    path = embedded.DATA / "emoji100/test.npz"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match="is not a readable array file"):
        load_images("emoji100", "test", 32)
