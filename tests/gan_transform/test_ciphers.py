import hashlib

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.common.errors import InputError
from stages.common.metrics import ssim
from stages.data.images import load_images
from stages.gan_transform.ciphers import aes_ctr, degraded, pixel_based, tanaka

COUNTED = ((np.arange(192) * 37) % 256).astype(np.uint8).reshape(1, 8, 8, 3)
SEEDS = st.integers(0, 2**32 - 1)
FEW = settings(max_examples=25, deadline=None)


def random_images(n=3, h=8, w=12, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, h, w, 3), dtype=np.uint8)


def digest(images):
    return hashlib.sha256(images.tobytes()).hexdigest()[:16]


def tanaka_slowly(images, key):
    """Reverse, gather, reverse, block by block: the released code's three steps."""
    out = np.empty_like(images)
    reverse = key > 48
    for i, r, c in np.ndindex(len(images), images.shape[1] // 4, images.shape[2] // 4):
        here = (i, slice(4 * r, 4 * r + 4), slice(4 * c, 4 * c + 4))
        block = images[here].ravel()
        nibbles = np.concatenate([block & 15, block >> 4])
        nibbles = np.where(reverse, 15 - nibbles, nibbles)[key]
        nibbles = np.where(reverse, 15 - nibbles, nibbles)
        out[here] = (nibbles[48:] << 4 | nibbles[:48]).reshape(4, 4, 3)
    return out


# Tanaka's cipher. The digests are those of the released code's output.


def test_le_gives_the_released_codes_bytes():
    key = tanaka.make_key(0)
    assert digest(COUNTED) == "d481911458a6ad8a"
    assert key[:12].tolist() == [26, 84, 2, 55, 68, 81, 16, 78, 54, 66, 53, 88]
    cipher = tanaka.encrypt(COUNTED, key)
    assert digest(cipher) == "59c45990e92be71e"
    pixels = [[218, 102, 42], [144, 10, 220], [188, 76, 130], [117, 4, 96]]
    assert cipher[0, 0, :4].tolist() == pixels


def test_le_reverses_47_places_and_flips_48_nibbles_with_the_key_of_seed_0():
    key = tanaka.make_key(0)
    assert np.count_nonzero(key > 48) == 47
    assert np.count_nonzero(tanaka.flips(key)) == 48


@FEW
@given(SEEDS, st.integers(0, 4), st.integers(1, 3), st.integers(1, 4))
def test_le_is_the_three_steps_and_its_inverse_is_exact(seed, n, rows, columns):
    images, key = random_images(n, 4 * rows, 4 * columns, seed), tanaka.make_key(seed)
    cipher = tanaka.encrypt(images, key)
    np.testing.assert_array_equal(cipher, tanaka_slowly(images, key))
    np.testing.assert_array_equal(tanaka.decrypt(cipher, key), images)


def test_le_with_the_identity_as_key_is_the_identity():
    images = random_images()
    np.testing.assert_array_equal(tanaka.encrypt(images, np.arange(96)), images)


def test_le_in_pieces_is_le_of_the_whole(monkeypatch):
    images, key = random_images(7), tanaka.make_key(1)
    whole = tanaka.encrypt(images, key)
    monkeypatch.setattr(tanaka, "CHUNK", 2 * images[0].size)
    np.testing.assert_array_equal(tanaka.encrypt(images, key), whole)
    np.testing.assert_array_equal(tanaka.encrypt(images[:, ::-1, ::-1], key)[:, 0, 0].shape, (7, 3))


def test_le_changes_a_block_by_that_block_alone():
    images, key = random_images(), tanaka.make_key(2)
    changed = images.copy()
    changed[1, 4:8, 8:12] ^= 0x5A
    differs = (tanaka.encrypt(images, key) != tanaka.encrypt(changed, key)).any(-1)
    assert differs[1, 4:8, 8:12].all()
    differs[1, 4:8, 8:12] = False
    assert not differs.any()


def test_le_of_exchanged_blocks_is_the_exchanged_cipher():
    images, key = random_images(), tanaka.make_key(3)
    exchanged = np.concatenate([images[:, 4:], images[:, :4]], 1)
    cipher = tanaka.encrypt(images, key)
    np.testing.assert_array_equal(
        tanaka.encrypt(exchanged, key), np.concatenate([cipher[:, 4:], cipher[:, :4]], 1)
    )


def test_le_nibbles_lie_in_the_order_row_column_channel():
    image = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3) * 5
    np.testing.assert_array_equal(tanaka.to_blocks(image)[:, 0], np.arange(48) * 5)
    nibbles = tanaka.nibbles(image)[:, 0]
    np.testing.assert_array_equal(nibbles[:48] + 16 * nibbles[48:], np.arange(48) * 5)


@pytest.mark.parametrize("shape", [(1, 6, 8, 3), (1, 8, 30, 3)])
def test_le_refuses_sides_that_blocks_do_not_tile(shape):
    with pytest.raises(InputError, match="not tiled by 4 x 4.*multiples of 4"):
        tanaka.encrypt(np.zeros(shape, np.uint8), tanaka.make_key(0))


def test_ciphers_refuse_floats():
    images = random_images().astype(np.float32)
    with pytest.raises(Exception, match="images|plain"):
        tanaka.encrypt(images, tanaka.make_key(0))
    with pytest.raises(Exception, match="plain"):
        pixel_based.encrypt(images, np.zeros((1, 8, 12, 3), np.uint8))


# Pixel-based encryption. The digests were computed before this code existed.


def test_pe_gives_the_known_bytes():
    bits, perm = pixel_based.make_key(0, 1, 8, 8)
    assert COUNTED[0, 0, 0].tolist() == [0, 37, 74]
    cipher = pixel_based.encrypt(COUNTED, bits)
    assert (digest(cipher), cipher[0, 0, 0].tolist()) == ("7a112d55fedf6deb", [0, 218, 181])
    cipher = pixel_based.encrypt(COUNTED, bits, perm)
    assert (digest(cipher), cipher[0, 0, 0].tolist()) == ("319821face438bb2", [0, 181, 218])


@pytest.mark.parametrize("p", range(6))
def test_pe_order_p_puts_channel_orders_p_c_in_place_c(p):
    images = random_images()
    key = np.zeros((1, 8, 12, 3), np.uint8), np.full((1, 8, 12), p, np.uint8)
    np.testing.assert_array_equal(
        pixel_based.encrypt(images, *key), images[..., pixel_based.ORDERS[p]]
    )


@FEW
@given(SEEDS, st.integers(0, 4), st.booleans(), st.booleans())
def test_pe_is_the_plain_formula_and_its_inverse_is_exact(seed, n, same, shuffle):
    images = random_images(n, seed=seed)
    bits, perm = pixel_based.make_key(seed, 1 if same else n, 8, 12)
    expected = np.where(bits == 1, 255 - images, images)
    if shuffle:
        order = np.broadcast_to(pixel_based.ORDERS[perm], images.shape)
        expected = np.take_along_axis(expected, order, -1)
    key = (bits, perm) if shuffle else (bits,)
    cipher = pixel_based.encrypt(images, *key)
    np.testing.assert_array_equal(cipher, expected)
    np.testing.assert_array_equal(pixel_based.decrypt(cipher, *key), images)
    if not shuffle:  # an involution
        np.testing.assert_array_equal(pixel_based.encrypt(cipher, bits), images)


def test_pe_in_pieces_is_pe_of_the_whole(monkeypatch):
    images = random_images(7)
    for n in (1, 7):
        key = pixel_based.make_key(1, n, 8, 12)
        whole = pixel_based.encrypt(images, *key)
        with monkeypatch.context() as patch:
            patch.setattr(pixel_based, "CHUNK", 2 * images[0].size)
            np.testing.assert_array_equal(pixel_based.encrypt(images, *key), whole)
            np.testing.assert_array_equal(pixel_based.decrypt(whole, *key), images)


def test_pe_with_the_same_key_masks_alike_and_with_different_keys_half_differs():
    blank = np.zeros((40, 32, 32, 3), np.uint8)
    same = pixel_based.encrypt(blank, pixel_based.make_key(0, 1, 32, 32)[0])
    assert (same == same[0]).all()
    other = pixel_based.encrypt(blank, pixel_based.make_key(0, 40, 32, 32)[0])
    assert np.mean(other[1:] != other[:-1]) == pytest.approx(0.5, abs=0.02)
    assert np.mean(other == 255) == pytest.approx(0.5, abs=0.02)


def test_pe_keeps_the_smaller_of_a_value_and_its_reverse():
    images = random_images()
    cipher = pixel_based.encrypt(images, pixel_based.make_key(0, 3, 8, 12)[0])
    np.testing.assert_array_equal(
        np.minimum(cipher, 255 - cipher), np.minimum(images, 255 - images)
    )


def test_pe_of_a_shifted_image_is_the_shifted_cipher_under_the_shifted_key():
    """Why a server may crop ciphers: it shifts the key along."""
    images = random_images(3, 16, 16)
    bits, perm = pixel_based.make_key(5, 1, 16, 16)
    crop = np.s_[:, 3:13, 1:15]
    np.testing.assert_array_equal(
        pixel_based.encrypt(images, bits, perm)[crop],
        pixel_based.encrypt(images[crop], bits[crop], perm[crop]),
    )


def test_pe_refuses_a_key_for_another_number_of_images():
    with pytest.raises(InputError, match="key's bits.*expected 1 or 3 of 8 x 12.*found 2"):
        pixel_based.encrypt(random_images(), pixel_based.make_key(0, 2, 8, 12)[0])


def test_pe_refuses_a_key_for_another_size():
    bits, perm = pixel_based.make_key(0, 1, 12, 8)
    with pytest.raises(Exception, match="bits"):  # by its annotation in tests, else InputError
        pixel_based.encrypt(random_images(), bits)
    with pytest.raises(Exception, match="perm|orders"):
        pixel_based.decrypt(random_images(), bits.swapaxes(1, 2), perm)


# AES


def test_aes_stream_is_the_block_cipher_of_index_and_counter():
    key = aes_ctr.make_key(0)
    stream = aes_ctr.encrypt(np.zeros((2, 8, 8, 3), np.uint8), key, first=6)[1].tobytes()
    counters = b"".join((7).to_bytes(8, "big") + i.to_bytes(8, "big") for i in range(12))
    assert stream == Cipher(AES(key.tobytes()), ECB()).encryptor().update(counters)


@FEW
@given(SEEDS, st.integers(0, 3), st.integers(0, 10**9))
def test_aes_twice_is_the_identity(seed, n, first):
    images, key = random_images(n, seed=seed), aes_ctr.make_key(seed)
    cipher = aes_ctr.encrypt(images, key, first=first)
    np.testing.assert_array_equal(aes_ctr.decrypt(cipher, key, first=first), images)


def test_aes_of_an_image_depends_on_its_index_and_not_on_its_batch():
    images, key = random_images(), aes_ctr.make_key(1)
    whole = aes_ctr.encrypt(images, key)
    np.testing.assert_array_equal(aes_ctr.encrypt(images[2:], key, first=2), whole[2:])
    assert (aes_ctr.encrypt(images[2:], key) != whole[2:]).mean() > 0.9


def test_aes_refuses_a_key_of_another_length():
    with pytest.raises(InputError, match="expected 16 bytes, found 15"):
        aes_ctr.encrypt(random_images(), aes_ctr.make_key(0)[:15])


# What needs no key


def test_blur_of_nothing_is_nothing_and_of_a_constant_the_constant():
    images = random_images()
    np.testing.assert_array_equal(degraded.blur(images, 0), images)
    np.testing.assert_array_equal(degraded.blur(np.full_like(images, 77), 2.5), 77)


def test_blur_leaves_channels_and_images_apart():
    images = np.zeros((2, 16, 16, 3), np.uint8)
    images[1, 8, 8, 2] = 255
    blurred = degraded.blur(images, 1)
    assert not blurred[0].any() and not blurred[1, ..., :2].any()
    assert blurred[1, 8, 8, 2] == round(255 * (1 / np.sqrt(2 * np.pi)) ** 2)


def test_random_sign_moves_every_value_by_epsilon_unless_clipped():
    images = np.full((4, 16, 16, 3), 100, np.uint8)
    moved = degraded.random_sign(images, 64, 0)
    assert set(np.unique(moved)) == {36, 164}
    assert np.mean(moved == 36) == pytest.approx(0.5, abs=0.05)
    assert set(np.unique(degraded.random_sign(images, 128, 0))) == {0, 228}
    np.testing.assert_array_equal(degraded.random_sign(images, 64, 0), moved)
    assert (degraded.random_sign(images, 64, 1) != moved).any()


def test_the_stronger_the_random_signs_the_less_similar():
    images = load_images("emoji10", "test", 32, per_class=4).images
    values = [
        ssim(degraded.random_sign(images, e, 0), images, data_range=255).mean()
        for e in (0, 8, 32, 128)
    ]
    assert values[0] == 1 and values == sorted(values, reverse=True)


def test_degradations_refuse_impossible_strengths():
    with pytest.raises(InputError, match="negative"):
        degraded.blur(random_images(), -1)
    with pytest.raises(InputError, match="expected 0..255 levels, found 300"):
        degraded.random_sign(random_images(), 300, 0)
