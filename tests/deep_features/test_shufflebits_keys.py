import hashlib
import hmac
import math
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from stages.common.errors import InputError
from stages.deep_features.shufflebits.arrays import permute
from stages.deep_features.shufflebits.benes import route, shifts
from stages.deep_features.shufflebits.keys import (
    WIDTHS,
    BitKey,
    RequestRegister,
    key_stream,
    log2_keys,
    shuffled,
)

MASTER = bytes(range(32))
WIDTH = pytest.mark.parametrize("width", WIDTHS)
PERMUTATIONS = st.sampled_from(WIDTHS).flatmap(lambda w: st.permutations(range(w)))


def random_words(width, n=500, seed=0):
    bits = np.random.default_rng(seed).integers(0, 256, n * width // 8, dtype=np.uint8)
    return bits.view(f"u{width // 8}")


@WIDTH
def test_the_inverse_undoes_the_key(width):
    key = BitKey.random(np.random.default_rng(0), width=width)
    assert key.inverse().perm[key.perm].tolist() == list(range(width))
    assert key.inverse().after(key) == key.after(key.inverse()) == BitKey.identity(width)


@WIDTH
def test_two_encryptions_are_one_with_the_composed_key(width):
    first, second = (BitKey.random(np.random.default_rng(i), width=width) for i in (0, 1))
    words = random_words(width)
    twice = permute(permute(words, first), second)
    np.testing.assert_array_equal(twice, permute(words, second.after(first)))
    assert first.after(second) != second.after(first)


def test_keys_of_two_widths_do_not_compose():
    with pytest.raises(InputError, match="do not compose.*32 and 64"):
        BitKey.identity(64).after(BitKey.identity(32))


@settings(max_examples=40, deadline=None)
@given(PERMUTATIONS)
def test_a_key_survives_both_ways_of_writing_it(perm):
    key = BitKey(perm)
    assert BitKey.from_bytes(key.to_bytes()) == key
    assert BitKey.from_lehmer(key.to_lehmer(), key.width) == key


def test_the_serialised_key_is_as_documented():
    content = BitKey.rotation(1, 8).to_bytes()
    assert content[:4] == b"SBK1" and list(content[4:13]) == [8, 1, 2, 3, 4, 5, 6, 7, 0]
    assert len(content) == 17
    ranks = {w: len(BitKey.identity(w).to_lehmer()) for w in WIDTHS}
    assert ranks == {8: 2, 16: 6, 32: 15, 64: 37}
    assert BitKey.identity(32).to_lehmer() == bytes(15)
    last = BitKey(list(range(31, -1, -1)))
    assert int.from_bytes(last.to_lehmer(), "big") == math.factorial(32) - 1


@pytest.mark.parametrize("place", [0, 4, 5, 20, -1])
def test_a_damaged_key_is_refused(place):
    content = bytearray(BitKey.rotation(3).to_bytes())
    content[place] ^= 1
    with pytest.raises(InputError, match="serialised key.*cannot be read"):
        BitKey.from_bytes(bytes(content))


@pytest.mark.parametrize("content", [b"", b"SBK1", b"SBK1" + bytes(4), bytes(41)])
def test_what_is_no_key_is_refused(content):
    with pytest.raises(InputError, match="cannot be read"):
        BitKey.from_bytes(content)


def test_ranks_out_of_range_are_refused():
    for content in (bytes(14), b"\xff" * 15):
        with pytest.raises(InputError, match="rank of a key"):
            BitKey.from_lehmer(content)


@pytest.mark.parametrize("perm", [[0] * 32, list(range(1, 33)), [-1, *range(31)]])
def test_what_is_no_permutation_is_refused(perm):
    with pytest.raises(InputError, match="is no permutation"):
        BitKey(perm)


@pytest.mark.parametrize("width", [0, 12, 33, 128])
def test_other_widths_are_refused(width):
    with pytest.raises(InputError, match="wrong width: expected 8, 16, 32 or 64"):
        BitKey(list(range(width)))
    with pytest.raises(InputError, match="wrong width"):
        BitKey.derive(MASTER, "a", width=width, register=None)


def test_no_text_of_a_key_shows_it():
    key = BitKey.rotation(7)
    for text in (repr(key), str(key), f"{key}"):
        assert text == f"BitKey(32 bits, fingerprint {key.fingerprint})"
    assert key.fingerprint == hashlib.sha256(key.to_bytes()).hexdigest()[:16]
    with pytest.raises(InputError) as refused:
        permute(random_words(64), key)
    assert key.fingerprint in str(refused.value) and str(key.perm.tolist()) not in str(
        refused.value
    )


# Where keys come from.


def hkdf_by_hand(master, salt, info):
    extracted = hmac.digest(salt, master, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


@WIDTH
def test_a_requests_key_is_hkdf_then_chacha20_then_fisher_yates(width):
    seed = hkdf_by_hand(MASTER, b"shufflebits-v1", f"request-1|{width}".encode())
    stream = iter(Cipher(ChaCha20(seed, bytes(16)), None).encryptor().update(bytes(4096)))
    perm = list(range(width))
    for i in reversed(range(1, width)):
        while (byte := next(stream)) >= 256 - 256 % (i + 1):
            pass
        perm[i], perm[byte % (i + 1)] = perm[byte % (i + 1)], perm[i]
    assert BitKey.derive(MASTER, "request-1", width=width, register=None).perm.tolist() == perm


def test_the_key_of_a_request_is_the_one_written_down():
    """The permutation that this code gave when it was written, for those who hold old ciphers."""
    key = BitKey.derive(MASTER, "request-1", register=None)
    assert key.to_lehmer().hex() == "309812ace09a6f1f7ec6979f14dc7b"


def test_keys_differ_by_master_request_and_width():
    keys = [
        BitKey.derive(master, request, width=width, register=None).perm.tolist()[:8]
        for master in (MASTER, MASTER[::-1])
        for request in ("a", "b")
        for width in (32, 64)
    ]
    assert len(set(map(tuple, keys))) == 8


def test_bad_secrets_and_ids_are_refused():
    with pytest.raises(InputError, match="master secret.*expected 32 bytes, found 5"):
        BitKey.derive(b"short", "a", register=None)
    with pytest.raises(InputError, match="seed of a key"):
        BitKey.random(b"short")
    with pytest.raises(InputError, match="has no id"):
        BitKey.derive(MASTER, "", register=None)


def test_random_keys_repeat_by_seed_and_else_do_not():
    assert BitKey.random(MASTER) == BitKey.random(MASTER)
    assert BitKey.random(np.random.default_rng(3)) == BitKey.random(np.random.default_rng(3))
    assert BitKey.random() != BitKey.random()


def test_all_permutations_are_equally_likely():
    """Chi-square of perm[i] = j over 20,000 keys: (32 - 1)^2 degrees of freedom."""
    n, stream = 20_000, key_stream(MASTER)
    perms = np.array([shuffled(32, stream) for _ in range(n)])
    counts = np.stack([np.bincount(column, minlength=32) for column in perms.T])
    expected = n / 32
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert chi2.sf(statistic, 31**2) > 1e-4
    assert chi2.cdf(statistic, 31**2) > 1e-4  # nor too even to be chance


def test_the_key_space_is_the_papers():
    assert log2_keys(32) == pytest.approx(math.log2(263130836933693530167218012160000000))
    spaces = {w: round(log2_keys(w), 2) for w in WIDTHS}
    assert spaces == {8: 15.30, 16: 44.25, 32: 117.66, 64: 296.00}


# The register of requests.


def claim(path):
    try:
        RequestRegister(path).claim("same")
    except InputError:
        return False
    return True


@pytest.mark.parametrize("kept", [False, True])
def test_a_request_gets_a_key_once(tmp_path, kept):
    register = RequestRegister(tmp_path / "deep" / "requests.json" if kept else None)
    key = BitKey.derive(MASTER, "a", register=register)
    with pytest.raises(InputError, match="request 'a': has a key of 32 bits already"):
        BitKey.derive(MASTER, "a", register=register)
    assert BitKey.derive(MASTER, "a", register=None) == key  # to decrypt
    BitKey.derive(MASTER, "b", register=register)
    BitKey.derive(MASTER, "a", width=64, register=register)


def test_the_register_outlives_the_run_and_names_no_request(tmp_path):
    path = tmp_path / "requests.json"
    BitKey.derive(MASTER, "Alice's photo", register=RequestRegister(path))
    with pytest.raises(InputError, match="already"):
        BitKey.derive(MASTER, "Alice's photo", register=RequestRegister(path))
    assert "Alice" not in path.read_text()


def test_of_many_at_once_one_gets_the_request(tmp_path):
    path = tmp_path / "requests.json"
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(claim, [path] * 16)) == 1


def test_a_key_that_cannot_be_made_claims_nothing():
    register = RequestRegister()
    with pytest.raises(InputError):
        BitKey.derive(b"short", "a", register=register)
    BitKey.derive(MASTER, "a", register=register)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"register": "other", "claimed": []}'])
def test_a_damaged_register_is_refused(tmp_path, content):
    path = tmp_path / "requests.json"
    path.write_text(content)
    with pytest.raises(InputError, match="requests.json"):
        RequestRegister(path).claim("a")
    assert path.read_text() == content


def test_a_register_that_vanished_is_refused(tmp_path):
    register = RequestRegister(tmp_path / "requests.json")
    register.claim("a")
    os.remove(tmp_path / "requests.json")
    with pytest.raises(InputError, match="no file, after one was written"):
        register.claim("b")


# Benes' network.


@settings(max_examples=100, deadline=None)
@given(PERMUTATIONS)
def test_the_delta_swaps_make_the_permutation(perm):
    width, masks = len(perm), route(perm)
    for i, j in enumerate(perm):
        word = 1 << i
        for shift, mask in zip(shifts(width), masks, strict=True):
            swap = (word >> shift ^ word) & mask
            word ^= swap ^ swap << shift
        assert word == 1 << j
    for shift, mask in zip(shifts(width), masks, strict=True):
        assert mask >> (width - shift) == 0


def test_the_stages_are_those_of_a_benes_network():
    assert shifts(32) == (16, 8, 4, 2, 1, 2, 4, 8, 16)
    assert [len(shifts(w)) for w in WIDTHS] == [5, 7, 9, 11]
    assert not any(route(range(32)))
