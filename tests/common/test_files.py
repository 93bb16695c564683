import io
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.errors import InputError
from stages.common.files import (
    read_json,
    read_npz,
    sha256,
    write_bytes,
    write_json,
    write_npz,
)


def test_json_is_rounded_sorted_and_the_same_each_time(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"b": 1 / 3, "a": [np.float32(2.0000001), np.int64(3)], "c": None})
    assert path.read_text() == '{\n "a": [\n  2.0,\n  3\n ],\n "b": 0.33333,\n "c": null\n}\n'
    assert read_json(path) == {"a": [2.0, 3], "b": 0.33333, "c": None}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.array([1, np.nan])])
def test_json_refuses_what_is_no_number_and_names_it(tmp_path, value):
    with pytest.raises(ValueError, match=r"a\.json\.x\.y.* is (nan|inf)"):
        write_json(tmp_path / "a.json", {"x": {"y": value}})
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize("text", ["", "{", "[1]", "{'a': 1}", "\x00"])
def test_a_damaged_json_is_one_sentence(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match="a.json: is not a readable JSON file"):
        read_json(tmp_path / "a.json")


def test_npz_bytes_depend_on_the_arrays_alone(tmp_path):
    arrays = {"b": np.arange(6).reshape(2, 3), "a": np.zeros(2, np.uint8)}
    write_npz(tmp_path / "1.npz", **arrays)
    write_npz(tmp_path / "2.npz", **dict(reversed(arrays.items())))
    assert sha256(tmp_path / "1.npz") == sha256(tmp_path / "2.npz")
    read = read_npz(tmp_path / "1.npz", ["b"])
    assert list(read) == ["b"]
    np.testing.assert_array_equal(read["b"], arrays["b"])


def test_npz_never_pickles(tmp_path):
    with pytest.raises(ValueError, match="allow_pickle"):
        write_npz(tmp_path / "a.npz", a=np.array([object()]))
    np.savez(tmp_path / "b.npz", a=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="b.npz: is not a readable array file"):
        read_npz(tmp_path / "b.npz")


@given(cut=st.integers(0, 400))
def test_a_truncated_npz_is_one_sentence(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "a.npz"
    write_npz(path, a=np.random.default_rng(0).integers(0, 9, 300))
    path.write_bytes(path.read_bytes()[:cut])
    try:
        read_npz(path, ["a"])
    except InputError as error:
        assert "\n" not in str(error) and "dvc repro" in str(error)
    else:
        assert path.stat().st_size == cut


def test_a_missing_array_is_named(tmp_path):
    write_npz(tmp_path / "a.npz", a=np.zeros(1))
    with pytest.raises(InputError, match=r"without \['b'\]"):
        read_npz(tmp_path / "a.npz", ["a", "b"])


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_bytes(path, b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match="No space left on device; free space"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def whole_in_memory(**arrays):
    """Return what write_npz wrote when it put the whole file together in memory first."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in sorted(arrays.items()):
            item = io.BytesIO()
            np.save(item, np.ascontiguousarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, item.getvalue())
    return buffer.getvalue()


@pytest.mark.parametrize("count", [0, 1, 5_000_000, 16 * 2**20, 16 * 2**20 + 1, 40_000_003])
def test_npz_written_piece_by_piece_has_the_bytes_of_the_whole(tmp_path, count):
    rng = np.random.default_rng(count)
    images = np.repeat(rng.integers(0, 256, count // 7 + 1, dtype=np.uint8), 7)[:count]
    arrays = {"images": images, "labels": np.arange(9)[::2], "x": rng.normal(size=(3, 4)).T}
    write_npz(tmp_path / "a.npz", **arrays)
    assert (tmp_path / "a.npz").read_bytes() == whole_in_memory(**arrays)


def test_an_array_that_needs_pickle_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        write_npz(tmp_path / "a.npz", a=np.arange(3), b=np.array([{}], object))
    assert not list(tmp_path.iterdir())


def test_writing_an_npz_takes_little_memory_beside_the_array(tmp_path):
    array = np.zeros(200 * 2**20, np.uint8)
    tracemalloc.start()
    write_npz(tmp_path / "a.npz", a=array)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60 * 2**20
