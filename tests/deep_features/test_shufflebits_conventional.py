import numpy as np
import pytest
import torch
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from stages.common.errors import InputError
from stages.deep_features.shufflebits import aes
from stages.deep_features.shufflebits.arrays import xor_numpy
from stages.deep_features.shufflebits.chacha20 import UnxorStream, XorStream, key_stream, words_of
from stages.deep_features.shufflebits.keys import RequestRegister

KEY = bytes(range(32))
NONCE = bytes.fromhex("000000000000004a00000000")
# RFC 8439, Sec. 2.3.2: the key stream block 1 of nonce 00000009 0000004a 00000000.
BLOCK = bytes.fromhex(
    "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
    "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"
)
# RFC 8439, Sec. 2.4.2: the plain text and its cipher, block counter 1.
PLAIN = (
    b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for "
    b"the future, sunscreen would be it."
)
CIPHER = bytes.fromhex(
    "6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0b"
    "f91b65c5524733ab8f593dabcd62b3571639d624e65152ab8f530c359f0861d8"
    "07ca0dbf500d6a6156a38e088a22b65e52bc514d16ccf806818ce91ab7793736"
    "5af90bbf74a35be6b40b8eedf2785e42874d"
)
FLOATS = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


def features(n=1000, seed=0):
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32)


def test_the_key_stream_is_the_rfcs():
    nonce = bytes.fromhex("000000090000004a00000000")
    stream = key_stream(words_of(KEY), words_of(nonce), 1, 1)
    assert stream.numpy().tobytes() == BLOCK


def test_the_cipher_is_the_rfcs():
    assert len(PLAIN) == len(CIPHER) == 114
    x = torch.frombuffer(bytearray(PLAIN), dtype=torch.int8)
    assert XorStream(KEY, NONCE, counter=1)(x).numpy().tobytes() == CIPHER


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 5000])
def test_the_stream_is_that_of_cryptography(n):
    x = features(n)
    stream = Cipher(ChaCha20(KEY, bytes(4) + NONCE), None).encryptor()
    expected = stream.update(x.tobytes())
    assert XorStream(KEY, NONCE)(torch.from_numpy(x)).numpy().tobytes() == expected
    assert xor_numpy(x, KEY, NONCE).tobytes() == expected


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int8], ids=str)
def test_xor_round_trips_every_type(dtype):
    x = (100 * torch.from_numpy(features(77))).to(dtype).view(7, 11).T
    cipher = XorStream(KEY, NONCE)(x)
    assert cipher.shape == x.shape and not cipher.dtype.is_floating_point
    back = UnxorStream(KEY, NONCE, dtype=dtype)(cipher)
    assert back.dtype == dtype and torch.equal(back, x)


def test_the_array_form_round_trips_and_takes_strides():
    x = features(60).reshape(6, 10).T
    cipher = xor_numpy(x, KEY, NONCE)
    np.testing.assert_array_equal(xor_numpy(cipher.view(np.float32), KEY, NONCE).view("f4"), x)
    assert xor_numpy(np.ones((), np.float32), KEY, NONCE).shape == ()


def test_the_counter_does_not_wrap():
    last = XorStream(KEY, NONCE, counter=2**32 - 1)
    assert last(torch.zeros(16)).numpy().tobytes() == Cipher(
        ChaCha20(KEY, b"\xff" * 4 + NONCE), None
    ).encryptor().update(bytes(64))
    with pytest.raises(InputError, match="too short.*2 blocks from 4294967295"):
        last(torch.zeros(17))


def test_a_request_has_one_stream_and_it_is_no_other_secret():
    register = RequestRegister()
    x = torch.from_numpy(features())
    cipher = XorStream.derive(KEY, "a", register=register)(x)
    assert not torch.equal(cipher, XorStream.derive(KEY, "b", register=register)(x))
    back = UnxorStream.derive(KEY, "a", register=None)(cipher)
    assert torch.equal(back, x)
    with pytest.raises(InputError, match="already"):
        XorStream.derive(KEY, "a", register=register)


def test_the_stream_is_in_no_state_dict_and_refuses_what_shufflebits_refuses():
    module = XorStream(KEY, NONCE)
    assert not module.state_dict() and repr(module).count("(") <= 3
    with pytest.raises(InputError, match="want a gradient"):
        module(torch.zeros(3, requires_grad=True))
    with pytest.raises(InputError, match="wrong type"):
        module(torch.zeros(3, dtype=torch.int32))


@pytest.mark.parametrize("key, nonce", [(KEY[:-1], NONCE), (KEY, NONCE + b"0")])
def test_lengths_are_checked(key, nonce):
    x = features(4)
    calls = [XorStream, lambda k, n: xor_numpy(x, k, n), lambda k, n: aes.seal(x, k, n)]
    for call in calls:
        with pytest.raises(InputError, match="has another length"):
            call(key, nonce)


# AES-GCM.


@pytest.mark.parametrize("size", [16, 24, 32])
def test_aes_gcm_round_trips_and_is_cryptographys(size):
    x = features().reshape(10, 100)
    words, tag = aes.encrypt_numpy(x, KEY[:size], NONCE, b"request 1")
    assert words.shape == x.shape
    sealed = AESGCM(KEY[:size]).encrypt(NONCE, x.tobytes(), b"request 1")
    assert words.tobytes() + tag == sealed
    back = aes.decrypt_numpy(words, tag, KEY[:size], NONCE, b"request 1")
    np.testing.assert_array_equal(back, x)
    with pytest.raises(InvalidTag):
        aes.decrypt_numpy(words, tag, KEY[:size], NONCE, b"request 2")


@pytest.mark.parametrize("shape", [(), (0,), (3, 4, 5)])
def test_a_message_carries_its_shape(shape):
    x = features(60)[: int(np.prod(shape))].reshape(shape)
    back = aes.unseal(aes.seal(x, KEY, NONCE), KEY)
    assert back.shape == shape
    np.testing.assert_array_equal(back, x)


@pytest.mark.parametrize("place", [5, 13, 25, 40, -1])
def test_a_changed_bit_is_detected(place):
    message = bytearray(aes.seal(features(12), KEY, NONCE))
    message[place] ^= 4
    with pytest.raises(InvalidTag):
        aes.unseal(bytes(message), KEY)


def test_another_key_is_detected_and_another_message_refused():
    with pytest.raises(InvalidTag):
        aes.unseal(aes.seal(features(12), KEY, NONCE), KEY[::-1])
    for message in (b"", b"SBG1", b"SBG1" + bytes(20), bytes(100)):
        with pytest.raises(InputError, match="sealed features: cannot be read"):
            aes.unseal(message, KEY)
