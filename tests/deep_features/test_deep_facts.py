import numpy as np
import pytest

from stages.deep_features import facts
from stages.deep_features.shufflebits.keys import BitKey

CLEAN = {
    *("wrong16", "wrong32", "wrong64", "wrong_special", "wrong_inverses", "wrong_compositions"),
    *("wrong_definition", "wrong_rotations", "wrong_aes", "changed_ones"),
}


def test_nothing_goes_wrong_and_what_was_tried_is_counted():
    found = facts.check(words=1000, keys=7, seed=0)
    assert {name for name, count in found.items() if count == 0} == CLEAN
    assert (found["keys"], found["words"], found["key_bits"]) == (7, 994, 256)


def test_at_least_one_word_a_key_is_tried():
    assert facts.check(words=3, keys=5, seed=0)["words"] == 5


@pytest.mark.parametrize("lost", ["permute", "encrypt_numpy"])
def test_a_lost_bit_is_counted(monkeypatch, lost):
    right = getattr(facts, lost)
    monkeypatch.setattr(facts, lost, lambda *args, **how: right(*args, **how) & ~np.uint8(1))
    found = facts.check(words=1000, keys=3, seed=0)
    assert found["wrong_special"] + found["wrong64"] > 0


def test_definition_puts_bit_i_at_place_perm_i():
    key = BitKey.random(np.random.default_rng(0))
    for i in (0, 5, 31):
        word = np.array([1 << i], np.uint32)
        assert facts.by_definition(word, key)[0] == 1 << int(key.perm[i])


def test_example_is_the_known_answer_bit_by_bit():
    rotation, released = facts.example()["items"]
    assert int(rotation["plain"], 2) == 0x40490FDB
    assert int(rotation["cipher"], 2) == 0x0921FB68  # rotl 5, specification c4
    assert int(released["cipher"], 2) == 0x308460FF  # the released code's key, c4
    assert released["decrypted"] == released["plain"] == rotation["decrypted"]
    assert sorted(released["perm"]) == list(range(32))
    assert released["perm"][:5] == [0, 18, 25, 4, 7]
