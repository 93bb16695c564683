import subprocess
import sys

import numpy as np
import pytest

from stages.deep_features.break_shufflebits import main
from stages.deep_features.cryptanalysis import synthetic
from stages.deep_features.cryptanalysis.measures import cosines
from stages.deep_features.requests import Requests

D = 256


def draw(n, seed):
    return synthetic.draw("bn", n, D, network=0, domain=1, seed=seed)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("break")
    np.save(folder / "ref.npy", draw(300, 0))
    plain, requests = draw(2, 1), Requests(0, "cli")
    np.save(folder / "plain.npy", plain)
    cipher = requests.shuffle(plain, "two")
    np.save(folder / "two.npy", cipher)
    np.save(folder / "one.npy", requests.shuffle(plain[0], "one").view(np.int32))
    np.save(folder / "aes.npy", requests.seal(cipher, "two"))
    return folder


def call(files, capsys, ciphertext, *more, reference="ref.npy"):
    main(["--reference", str(files / reference), "--ciphertext", str(files / ciphertext), *more])
    return capsys.readouterr().out


@pytest.mark.parametrize("name, vectors", [("one.npy", 1), ("two.npy", 2)])
def test_it_recovers_the_features(files, capsys, tmp_path, name, vectors):
    out = call(files, capsys, name, "--out", str(tmp_path / "recovered.npy"))
    recovered = np.load(tmp_path / "recovered.npy", allow_pickle=False)
    plain = np.load(files / "plain.npy")[:vectors]
    assert recovered.shape == (vectors, D) and recovered.dtype == np.float32
    assert cosines(plain, recovered).min() > 0.99
    assert out.splitlines()[0].startswith(f"{vectors} vector") and "(broken)" in out
    row = next(line for line in out.splitlines() if line.startswith("standard deviation"))
    assert float(row.split()[-1]) == pytest.approx(plain.astype(float).std(), rel=0.05)
    assert "wrote" in out


def test_it_says_so_when_there_is_nothing(files, capsys):
    out = call(files, capsys, "aes.npy")
    assert "(not broken: nothing to rely on)" in out and "wrote" not in out


def refused(files, capsys, array=None, *, name="bad.npy", reference=None):
    if array is not None:
        np.save(files / "bad.npy", array)
    with pytest.raises(SystemExit) as stop:
        call(files, capsys, "one.npy" if reference else name, reference=reference or "ref.npy")
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("error: break_shufflebits: ")
    return err


def test_wrong_ciphertexts_are_one_sentence(files, capsys):
    word = np.zeros(D, np.uint32)
    assert "found float32; save words.view" in refused(files, capsys, word.astype(np.float32))
    assert "found float64" in refused(files, capsys, word.astype(np.float64))
    assert "found uint8 of shape (1024,)" in refused(files, capsys, word.view(np.uint8))
    assert "found int64" in refused(files, capsys, word.astype(np.int64))
    assert "found >u4" in refused(files, capsys, word.astype(">u4"))
    assert "found uint32 of shape (1, 1, 256)" in refused(files, capsys, word[None, None])
    assert "found uint32 of shape (0, 256)" in refused(files, capsys, word[None][:0])
    assert "vectors of 256 dimensions, found shape (1, 255)" in refused(files, capsys, word[1:])
    assert "No such file" in refused(files, capsys, name="absent.npy")


def test_wrong_references_are_one_sentence(files, capsys):
    def bad(array):
        np.save(files / "bad_ref.npy", array)
        return refused(files, capsys, reference="bad_ref.npy")

    plain = draw(30, 0)
    broken = plain.copy()
    broken[3, 4] = np.nan
    assert "found 1 values that are NaN or infinite" in bad(broken)
    assert "found float64 of shape (30, 256)" in bad(plain.astype(float))
    assert "found float32 of shape (256,)" in bad(plain[0])
    assert "found uint32 of shape" in bad(plain.view(np.uint32))
    assert "found shape (1, 256)" in bad(plain[:1])
    assert "vectors of 255 dimensions, found shape (1, 256)" in bad(plain[:, 1:])


def test_files_that_are_no_arrays_are_one_sentence(files, capsys):
    (files / "text.npy").write_text("no array")
    assert "cannot be read" in refused(files, capsys, name="text.npy")
    (files / "empty.npy").write_bytes(b"")
    assert "cannot be read" in refused(files, capsys, name="empty.npy")
    np.savez(files / "several.npz", a=np.zeros(3))
    assert "found an .npz" in refused(files, capsys, name="several.npz")
    np.save(files / "objects.npy", np.array([{}]), allow_pickle=True)
    assert "cannot be read" in refused(files, capsys, name="objects.npy")


def test_it_runs_from_the_command_line_without_torch(files):
    code = (
        "import sys, runpy; sys.argv[1:] = "
        f"['--reference', {str(files / 'ref.npy')!r}, '--ciphertext', {str(files / 'one.npy')!r}];"
        "runpy.run_module('stages.deep_features.break_shufflebits', run_name='__main__');"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "confidence: " in done.stdout
