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
