import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.common.errors import InputError
from stages.deep_features.shufflebits import arrays, native, oracle
from stages.deep_features.shufflebits.arrays import decrypt_numpy, encrypt_numpy, permute
from stages.deep_features.shufflebits.implementations import IMPLEMENTATIONS, lookup
from stages.deep_features.shufflebits.keys import WIDTHS, BitKey

# The authors' code: its key for seed 0 and what it does. Right: rotation to the left by 5.
INDEX = [
    2, 11, 25, 21, 10, 4, 29, 16, 23, 6, 18, 26, 3, 30, 8, 0,
    19, 12, 20, 13, 7, 5, 17, 14, 27, 22, 9, 28, 24, 1, 15, 31,
]  # fmt: skip
PERM = [
    0, 18, 25, 4, 7, 20, 29, 3, 23, 6, 28, 13, 15, 21, 9, 24,
    1, 8, 12, 14, 30, 27, 5, 17, 11, 22, 10, 26, 19, 31, 2, 16,
]  # fmt: skip
KNOWN = {
    0x3F800000: (0x844A0C00, 0xF0000007),  # 1.0
    0x80000000: (0x00010000, 0x00000010),  # -0.0
    0x40490FDB: (0x308460FF, 0x0921FB68),  # pi
    0xC0200000: (0x08010004, 0x04000018),  # -2.5
    0x7F800000: (0x844A0C04, 0xF000000F),  # inf
    0x00000001: (0x00000001, 0x00000020),
    0x7F800001: (0x844A0C05, 0xF000002F),  # a signalling NaN
    0xDEADBEEF: (0x3F7FF45F, 0xD5B7DDFB),
}
HALVES = np.arange(1 << 16, dtype=np.uint16)
SINGLES = np.array(
    [
        0x00000000, 0x80000000, 0x7F800000, 0xFF800000, 0x00000001, 0x807FFFFF, 0x00800000,
        0x7F7FFFFF, 0xFF7FFFFF, 0x7FC00000, 0x7FC12345, 0xFFFFFFFF, 0x7F800001, 0x7FBFFFFF,
        0xFF812345, 0xAAAAAAAA, 0x55555555,
    ],
    np.uint32,
)  # fmt: skip


def random_words(width, n, seed=0):
    content = np.random.default_rng(seed).integers(0, 256, n * width // 8, dtype=np.uint8)
    return content.view(f"u{width // 8}")


def words_of(width):
    if width == 16:
        return HALVES
    if width == 32:
        return np.concatenate([random_words(32, 1_000_000), SINGLES])
    return random_words(width, 50_000)


def key_of(width, seed=0):
    return BitKey.random(np.random.default_rng(seed), width=width)


def torch_way(name):
    def encrypt(words, key):
        signed = torch.from_numpy(words.view(f"i{words.itemsize}"))
        return IMPLEMENTATIONS[name](signed, key).numpy().view(words.dtype)

    return encrypt


WAYS = {
    **{f"{name}, numpy": way for name, way in IMPLEMENTATIONS.items()},
    **{f"{name}, torch": torch_way(name) for name in IMPLEMENTATIONS},
    "arrays": permute,
}
WAY = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
WIDTH = pytest.mark.parametrize("width", WIDTHS)
NATIVE = pytest.mark.skipif(native.compiler() is None, reason="no C compiler")


@WAY
def test_known_answers_of_the_authors_code(way):
    words = np.array(list(KNOWN), np.uint32)
    key = BitKey.from_index_array(INDEX)
    assert key.perm.tolist() == PERM
    shuffled, rotated = np.array(list(KNOWN.values()), np.uint32).T
    np.testing.assert_array_equal(way(words, key), shuffled)
    np.testing.assert_array_equal(way(words, BitKey.rotation(5)), rotated)


def test_the_oracle_gives_the_known_answers():
    words = np.array(list(KNOWN), np.uint32)
    for key, place in ((BitKey(PERM), 0), (BitKey.rotation(5), 1)):
        expected = [answers[place] for answers in KNOWN.values()]
        assert oracle.encrypt(words, key).tolist() == expected


@WIDTH
@WAY
def test_round_trip_is_exact_and_the_cipher_is_the_oracles(way, width):
    words, key = words_of(width)[-70_000:], key_of(width)
    cipher = way(words, key)
    np.testing.assert_array_equal(cipher, oracle.encrypt(words, key))
    np.testing.assert_array_equal(way(cipher, key.inverse()), words)


def test_round_trip_of_a_million_floats_and_all_special_ones():
    x = words_of(32).view(np.float32)
    for seed in range(3):
        cipher = encrypt_numpy(x, key_of(32, seed))
        back = decrypt_numpy(cipher, key_of(32, seed))
        np.testing.assert_array_equal(back.view(np.uint32), x.view(np.uint32))


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(32)), st.integers(0, 2**32 - 1))
def test_all_ways_agree_on_random_keys(perm, seed):
    words, key = random_words(32, 257, seed), BitKey(perm)
    expected = oracle.encrypt(words, key)
    for name, way in WAYS.items():
        np.testing.assert_array_equal(way(words, key), expected, err_msg=name)


@WIDTH
@WAY
def test_the_identity_changes_nothing(way, width):
    words = random_words(width, 999)
    key = BitKey.identity(width)
    assert not any(key.masks)
    np.testing.assert_array_equal(way(words, key), words)


def test_a_table_of_pieces_that_do_not_divide_the_word_is_the_same():
    words, key = random_words(32, 999), key_of(32)
    np.testing.assert_array_equal(lookup(words, key, [3, 13, 16]), oracle.encrypt(words, key))


# Arrays.


@pytest.mark.parametrize("shape", [(), (0,), (0, 5), (7,), (3, 4, 5)])
def test_any_shape_is_encrypted(shape):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    x = np.asarray(x, np.float32)
    cipher = encrypt_numpy(x, key_of(32))
    assert cipher.shape == shape and cipher.dtype == np.uint32
    np.testing.assert_array_equal(cipher, oracle.encrypt(x.view(np.uint32), key_of(32)))
    np.testing.assert_array_equal(decrypt_numpy(cipher, key_of(32)), x)


def test_strided_arrays_and_small_blocks_give_the_same(monkeypatch):
    x = np.random.default_rng(0).standard_normal((40, 30)).astype(np.float32)
    whole = encrypt_numpy(x, key_of(32))
    np.testing.assert_array_equal(encrypt_numpy(x.T[::-1], key_of(32)), whole.T[::-1])
    np.testing.assert_array_equal(encrypt_numpy(x[:, ::3], key_of(32)), whole[:, ::3])
    monkeypatch.setattr(arrays, "BLOCK", 28)
    before = x.copy()
    np.testing.assert_array_equal(encrypt_numpy(x, key_of(32)), whole)
    np.testing.assert_array_equal(x, before)


def test_a_key_of_another_width_is_refused():
    x = np.zeros(3, np.float32)
    for call in (encrypt_numpy, lambda x, key: decrypt_numpy(x.view(np.uint32), key)):
        with pytest.raises(InputError, match="does not fit.*expected a key of 32 bits, found 16"):
            call(x, key_of(16))


# What no key hides, and what a wrong key does.


@WIDTH
def test_the_number_of_ones_and_distances_are_kept(width):
    words, others = random_words(width, 3000), random_words(width, 3000, 1)
    for seed in range(3):
        cipher, ciphers = (permute(w, key_of(width, seed)) for w in (words, others))
        np.testing.assert_array_equal(np.bitwise_count(cipher), np.bitwise_count(words))
        np.testing.assert_array_equal(
            np.bitwise_count(cipher ^ ciphers), np.bitwise_count(words ^ others)
        )


def test_a_wrong_key_leaves_more_than_a_quarter_of_the_bits_wrong():
    x = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    wrong = []
    for seed in range(20):
        back = decrypt_numpy(encrypt_numpy(x, key_of(32, seed)), key_of(32, 100 + seed))
        wrong.append(np.bitwise_count(back.view(np.uint32) ^ x.view(np.uint32)).mean() / 32)
    assert np.mean(wrong) > 0.25


# The compiled form.


@NATIVE
@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, 1000, 100_003])
def test_the_compiled_form_is_the_same_at_any_length(n):
    words, key = random_words(32, n), key_of(32, n)
    cipher = native.permute(words, key)
    np.testing.assert_array_equal(cipher, permute(words, key))
    np.testing.assert_array_equal(native.permute(cipher, key, inverse=True), words)


@NATIVE
@pytest.mark.parametrize("start", range(9))
@pytest.mark.parametrize("n", [1, 5, 40, 200])
def test_the_compiled_form_is_the_same_at_any_address(n, start):
    words, key = random_words(32, 300)[start : start + n], key_of(32)
    out = np.zeros(300, np.uint32)
    native.permute(words, key, out=out[start + 1 : start + 1 + n])
    np.testing.assert_array_equal(out[start + 1 : start + 1 + n], permute(words, key))
    assert not out[: start + 1].any() and not out[start + 1 + n :].any()


@NATIVE
@settings(max_examples=15, deadline=None)
@given(st.permutations(range(32)))
def test_the_compiled_form_is_the_same_for_any_key(perm):
    words = np.concatenate([random_words(32, 100), SINGLES])
    np.testing.assert_array_equal(
        native.permute(words, BitKey(perm)), oracle.encrypt(words, BitKey(perm))
    )


@NATIVE
def test_the_compiled_form_without_avx2_is_the_same(monkeypatch):
    monkeypatch.setattr(native, "FLAGS", ("-O2", "-shared", "-fPIC"))
    native._kernel.cache_clear()
    try:
        words = random_words(32, 1000)
        expected = permute(words, key_of(32))
        np.testing.assert_array_equal(native.permute(words, key_of(32)), expected)
    finally:
        native._kernel.cache_clear()


@NATIVE
def test_the_compiled_form_reads_any_layout_and_refuses_a_bad_result_array():
    words, key = random_words(32, 600).reshape(20, 30), key_of(32)
    np.testing.assert_array_equal(native.permute(words.T, key), permute(words, key).T)
    for out in (words, np.empty((30, 20), np.uint32).T):
        with pytest.raises(InputError, match="cannot be written to"):
            native.permute(words, key, out=out)


def test_without_a_compiler_the_compiled_form_says_so(monkeypatch):
    monkeypatch.setattr(native, "compiler", lambda: None)
    native._kernel.cache_clear()
    with pytest.raises(InputError, match="expected a C compiler.*found none"):
        native.permute(random_words(32, 5), key_of(32))


@pytest.mark.skipif(native.shutil.which("false") is None, reason="no program that fails")
def test_a_compiler_that_fails_is_reported_in_one_sentence(monkeypatch):
    monkeypatch.setenv("CC", "false")
    native._kernel.cache_clear()
    with pytest.raises(InputError, match="native.c: cannot be compiled.*found status 1"):
        native.permute(random_words(32, 5), key_of(32))
