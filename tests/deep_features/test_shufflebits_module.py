import io
import warnings

import numpy as np
import pytest
import torch

from stages.common.errors import InputError
from stages.deep_features.shufflebits import oracle
from stages.deep_features.shufflebits.keys import BitKey
from stages.deep_features.shufflebits.module import (
    CIPHERS,
    INTEGERS,
    ShuffleBits,
    UnshuffleBits,
    delta_swaps,
    mask_table,
)

FLOATS = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
DTYPES = [*FLOATS, torch.int8]
DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=str)
DEVICE = pytest.mark.parametrize("device", ["cpu", *(["cuda"] * torch.cuda.is_available())])
SIGNALLING = 0x7F800001


def key_of(dtype, seed=0):
    return BitKey.random(np.random.default_rng(seed), width=8 * dtype.itemsize)


def values_of(dtype, n=4096, seed=0):
    """All patterns of 16 bits; else random patterns, among them NaN, infinity and denormals."""
    bits = 8 * dtype.itemsize
    if bits == 16:
        words = np.arange(1 << 16, dtype=np.uint16)
    else:
        content = np.random.default_rng(seed).integers(0, 256, n * bits // 8, dtype=np.uint8)
        words = content.view(f"u{bits // 8}")
    if bits == 32:
        words[:4] = SIGNALLING, 0xFFC12345, 1, 0xFF800000
    return torch.from_numpy(words.view(f"i{bits // 8}")).view(dtype)


def integers(x):
    return x.view(INTEGERS[8 * x.element_size()])


@DEVICE
@DTYPE
def test_the_round_trip_is_bit_exact_and_the_cipher_the_oracles(dtype, device):
    x, key = values_of(dtype).to(device), key_of(dtype)
    cipher = ShuffleBits(key).to(device)(x)
    assert cipher.dtype == CIPHERS.get(dtype, torch.int8)
    unsigned = integers(x).cpu().numpy().view(f"u{dtype.itemsize}")
    expected = oracle.encrypt(unsigned, key)
    np.testing.assert_array_equal(cipher.cpu().numpy().view(unsigned.dtype), expected)
    back = UnshuffleBits(key, dtype=dtype).to(device)(cipher)
    assert back.dtype == dtype and torch.equal(integers(back), integers(x))


def test_masks_for_each_row_are_a_key_for_each_row():
    keys = [key_of(torch.float32, i) for i in range(5)]
    x = values_of(torch.float32, 5 * 2 * 3).view(5, 2, 3)
    table = mask_table(*keys)
    cipher = ShuffleBits()(x, table)
    for i, key in enumerate(keys):
        assert torch.equal(cipher[i], ShuffleBits(key)(x[i]))
        assert torch.equal(cipher[i], ShuffleBits()(x[i], table[i]))
    assert torch.equal(integers(UnshuffleBits()(cipher, table)), integers(x))


def test_masks_of_the_call_stand_in_for_the_modules_key():
    x, other = values_of(torch.float32), key_of(torch.float32, 1)
    module = ShuffleBits(key_of(torch.float32))
    assert torch.equal(module(x, mask_table(other)[0]), ShuffleBits(other)(x))


@pytest.mark.parametrize("shape", [(), (0,), (0, 5), (1,), (3, 4)])
def test_any_shape_goes(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    key = key_of(torch.float32)
    cipher = ShuffleBits(key)(x)
    assert cipher.shape == x.shape and cipher.dtype == torch.int32
    assert torch.equal(UnshuffleBits(key)(cipher), x)


def test_strides_do_not_matter():
    x, key = values_of(torch.float32).view(64, 64), key_of(torch.float32)
    whole = ShuffleBits(key)(x)
    assert torch.equal(ShuffleBits(key)(x.T), whole.T)
    assert torch.equal(ShuffleBits(key)(x[::2, 5:60:7]), whole[::2, 5:60:7])


# Storage.


def test_as_float_is_the_same_storage_and_survives_storage(tmp_path):
    x, key = values_of(torch.float32), key_of(torch.float32)
    bits = ShuffleBits(key)(x)
    viewed = ShuffleBits(key, as_float=True)(x)
    assert viewed.dtype == torch.float32 and torch.equal(integers(viewed), bits)
    assert integers(viewed).data_ptr() == viewed.data_ptr()
    assert viewed.isnan().any()  # or nothing would be shown here
    buffer = io.BytesIO()
    torch.save(viewed, buffer)
    buffer.seek(0)
    np.savez(tmp_path / "cipher.npz", cipher=viewed.numpy())
    with np.load(tmp_path / "cipher.npz") as saved:
        copies = [torch.load(buffer, weights_only=True), torch.from_numpy(saved["cipher"])]
    copies += [torch.from_numpy(viewed.numpy().copy()), viewed.clone()]
    if torch.cuda.is_available():
        copies.append(viewed.cuda().cpu())
    for copy in copies:
        assert torch.equal(integers(copy), bits)
        assert torch.equal(integers(UnshuffleBits(key)(copy)), integers(x))


def test_float64_and_back_breaks_a_signalling_nan():
    """Why the cipher is integers: this is what must not be done with ``as_float``."""
    words = np.array([SIGNALLING], np.uint32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy may say "invalid value"
        there_and_back = words.view(np.float32).astype(np.float64).astype(np.float32)
    assert there_and_back.view(np.uint32)[0] == 0x7FC00001
    torch_way = torch.from_numpy(words.view(np.float32)).double().float()
    assert torch_way.view(torch.int32).item() == 0x7FC00001


def test_the_key_is_in_no_state_dict_and_no_text():
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), ShuffleBits(key_of(torch.float32)))
    assert set(module.state_dict()) == {"0.weight", "0.bias"}
    assert f"ShuffleBits({key_of(torch.float32)!r})" in repr(module)
    assert str(key_of(torch.float32).masks[0]) not in repr(module)
    assert "masks with the features" in repr(ShuffleBits())


def test_half_of_a_network_does_not_touch_the_masks():
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), ShuffleBits(key_of(torch.float16)))
    with torch.no_grad():
        assert network.half()(torch.ones(1, 3, dtype=torch.half)).dtype == torch.int16
    assert network[1].masks.dtype == torch.int16


# What is refused.


def test_a_gradient_is_refused_or_cut():
    x, key = torch.randn(4, requires_grad=True), key_of(torch.float32)
    with pytest.raises(InputError, match="want a gradient.*no_grad"):
        ShuffleBits(key)(x)
    cipher = ShuffleBits(key, detach=True)(x)
    with torch.no_grad():
        assert torch.equal(ShuffleBits(key)(x), cipher)
    assert not ShuffleBits(key, detach=True, as_float=True)(x).requires_grad


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64], ids=str)
def test_other_types_are_refused(dtype):
    with pytest.raises(InputError, match="have the wrong type"):
        ShuffleBits(key_of(torch.float32))(torch.zeros(3, dtype=dtype))


def test_a_key_of_another_width_is_refused():
    with pytest.raises(InputError, match="does not fit.*64 bits, found 32"):
        ShuffleBits(key_of(torch.float32))(torch.zeros(3, dtype=torch.float64))
    with pytest.raises(InputError, match="one width"):
        mask_table(key_of(torch.float32), key_of(torch.float64))
    with pytest.raises(InputError, match="0 keys"):
        mask_table()


@pytest.mark.parametrize(
    "masks",
    [torch.zeros(7, dtype=torch.int32), torch.zeros(9), torch.zeros(3, 9, dtype=torch.int32)],
)
def test_masks_that_do_not_fit_are_refused(masks):
    with pytest.raises(InputError, match="do not fit the features"):
        ShuffleBits()(torch.zeros(2, 5), masks)


def test_neither_key_nor_masks_is_refused():
    with pytest.raises(InputError, match="has no key"):
        ShuffleBits()(torch.zeros(2))


def test_ciphers_of_16_bits_need_the_type_of_the_numbers():
    key = key_of(torch.float16)
    cipher = ShuffleBits(key)(values_of(torch.float16))
    with pytest.raises(InputError, match="torch.float16 or torch.bfloat16"):
        UnshuffleBits(key)(cipher)
    with pytest.raises(InputError, match="does not say what is in it"):
        UnshuffleBits(key, dtype=torch.float32)(cipher)


# On a device.


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_nothing_leaves_the_device_before_the_cipher():
    module, x = ShuffleBits(key_of(torch.float32)).cuda(), torch.randn(1 << 16, device="cuda")
    module(x)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        module(x)
        torch.cuda.synchronize()
    assert not [event.key for event in profile.key_averages() if "DtoH" in event.key]


def test_the_shift_may_copy_the_sign():
    """-1 >> 16 is -1: the masks must hide what an arithmetic shift brings in."""
    words = torch.tensor([-1, -(2**31), 2**31 - 1], dtype=torch.int32)
    cipher = delta_swaps(words, mask_table(BitKey.rotation(5))[0])
    assert cipher.tolist() == [-1, 16, -17]
