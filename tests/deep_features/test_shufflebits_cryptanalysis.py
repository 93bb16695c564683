import inspect

import numpy as np
import pytest

from stages.common.errors import InputError
from stages.deep_features.cryptanalysis import (
    hamming,
    known_plaintext,
    likelihood,
    popcount,
    search,
    synthetic,
)
from stages.deep_features.cryptanalysis.calibration import fit_by_trial
from stages.deep_features.cryptanalysis.measures import (
    centred_cosines,
    cosines,
    measure,
    similarity,
)
from stages.deep_features.cryptanalysis.planes import arrange, planes, words
from stages.deep_features.cryptanalysis.reference import CODES, LOW, PAIRS, fit, forget_dimensions
from stages.deep_features.cryptanalysis.search import attack, decode
from stages.deep_features.requests import Requests
from stages.deep_features.shufflebits.arrays import decrypt_numpy, encrypt_numpy
from stages.deep_features.shufflebits.keys import BitKey

D = 512
N = 800  # vectors of the adversary's own


def draw(kind, n, dims=D, *, seed, domain=1):
    return synthetic.draw(kind, n, dims, network=0, domain=domain, seed=seed)


@pytest.fixture(scope="module")
def references():
    """Fitted to the domain that batch normalisation was, not to that of the requests."""
    kinds = ("bn", "gem", "sym", "iid")
    return {kind: fit(draw(kind, N, seed=0, domain=0)) for kind in kinds}


def keys(n):
    return [BitKey.random(np.random.default_rng([7, i])) for i in range(n)]


def broken(reference, plain, cipher, **options):
    found = attack(reference, cipher, **options)
    recovered = decode(reference, cipher, found.perm)
    mean = np.zeros(plain.shape[1], np.float32)
    return measure(plain, cipher, found.perm, recovered, mean), found


# ------------------------------------------------ the adversary's own trials


def test_correlations_of_signs_are_used_where_they_are_needed():
    """The dimensions of symmetric features tell nothing about their signs; others' do."""
    assert len(fit_by_trial(draw("sym", N, seed=0, domain=0)).variances) > 0
    for kind in ("bn", "iid"):
        assert len(fit_by_trial(draw(kind, N, seed=0, domain=0)).variances) == 0


def test_correlations_that_mislead_are_left_out():
    """Two halves whose signs go together differently: the first's axes are none of the second's."""
    bn, rng = draw("bn", N, seed=0), np.random.default_rng(0)
    first = np.where(rng.random((N // 2, 1)) < 0.5, 1, -1) * np.abs(bn[: N // 2])
    mixed = np.concatenate([first.astype(np.float32), bn[N // 2 :]])
    assert len(fit(mixed).variances) > 0 and len(fit_by_trial(mixed).variances) == 0


@pytest.mark.parametrize("n", [2, 3, 4, 9])
def test_few_vectors_are_tried_too(n):
    plain = draw("bn", n + 1, seed=0)
    values, _ = broken(fit_by_trial(plain[:n]), plain[n:], encrypt_numpy(plain[n:], keys(1)[0]))
    assert -1 <= values["cos"] <= 1


# ---------------------------------------------------------------- t18: it works


@pytest.mark.parametrize("i", range(5))
def test_one_vector_of_bn_features_is_enough(references, i):
    plain = draw("bn", 5, seed=1)[i : i + 1]
    values, found = broken(references["bn"], plain, encrypt_numpy(plain, keys(5)[i]))
    assert values["cos"] > 0.99 and values["sign_ok"] == 1
    assert found.confidence > 0.95


@pytest.mark.parametrize("kind", ["gem", "sym"])
def test_other_features_are_recovered_from_one_vector(references, kind):
    plain = draw(kind, 6, seed=1)
    cosine = [
        broken(references[kind], x[None], encrypt_numpy(x[None], key))[0]["cos"]
        for x, key in zip(plain, keys(6), strict=True)
    ]
    assert np.median(cosine) > 0.98


def test_many_vectors_under_one_key_give_at_least_as_much(references):
    plain = draw("sym", 32, seed=1)  # more floats than the joint model looks at
    assert plain.size > search.FLOATS
    values, _ = broken(references["sym"], plain, encrypt_numpy(plain, keys(1)[0]))
    assert values["cos_min"] > 0.998


def test_simpler_attacks_recover_less(references):
    plain = draw("gem", 6, seed=1)
    median = {}
    for method in ("hungarian", "profile", "full"):
        median[method] = np.median(
            [
                broken(references["gem"], x[None], encrypt_numpy(x[None], key), method=method)[0][
                    "cos"
                ]
                for x, key in zip(plain, keys(6), strict=True)
            ]
        )
    assert median["hungarian"] < median["profile"] < median["full"]


def test_twenty_vectors_are_reference_enough():
    plain = draw("bn", 5, seed=1)
    reference = fit(draw("bn", 20, seed=0))
    for x, key in zip(plain, keys(5), strict=True):
        assert broken(reference, x[None], encrypt_numpy(x[None], key))[0]["cos"] > 0.95


def test_without_any_feature_of_the_black_box_a_request_of_16_falls():
    """Another network of the same kind, and nothing known of single dimensions."""
    simulated = synthetic.draw("bn", 300, 256, network=5, domain=2, seed=3)
    reference = forget_dimensions(fit(simulated, rank=0), D)
    plain = draw("bn", 16, seed=1)
    values, _ = broken(reference, plain, encrypt_numpy(plain, keys(1)[0]))
    assert values["cos"] > 0.9


# ---------------------------------------------------------------- t18: it fails where it must


def test_of_independent_features_the_sign_stays_unknown(references):
    rows = [
        broken(references["iid"], x[None], encrypt_numpy(x[None], key))
        for x, key in zip(draw("iid", 9, seed=1), keys(9), strict=True)
    ]
    assert abs(np.median([values["cos"] for values, _ in rows])) < 0.1
    assert min(values["abs_cos"] for values, _ in rows) > 0.99
    assert np.median([found.confidence for _, found in rows]) < 0.9


@pytest.mark.parametrize("cipher", ["seal", "add_stream"])
def test_conventional_ciphers_give_nothing(references, cipher):
    requests, cosine = Requests(0, "test"), []
    for i, x in enumerate(draw("bn", 9, seed=1)):
        plain = x[None]
        shuffled = requests.shuffle(plain, f"shuffle{i}")
        sealed = (
            requests.seal(shuffled, f"{i}")
            if cipher == "seal"
            else requests.add_stream(plain, f"{i}")
        )
        values, found = broken(references["bn"], plain, sealed)
        assert found.confidence < 0.1 and 0.3 < values["sign_ok"] < 0.7
        cosine.append(values["cos"])
    assert abs(np.median(cosine)) < 0.1 and np.abs(cosine).max() < 6 / np.sqrt(D)


def test_aes_gcm_is_a_control_that_decrypts():
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import CTR

    requests, x = Requests(0, "test"), words(draw("bn", 2, seed=1))
    sealed = requests.seal(x, "a")
    counter = bytes(12) + (2).to_bytes(4, "big")  # GCM's first block of the message
    stream = Cipher(AES(requests._secret("a", b"aes-gcm")), CTR(counter)).decryptor()
    np.testing.assert_array_equal(
        np.frombuffer(stream.update(sealed.tobytes()), np.uint32), x.ravel()
    )
    assert np.bitwise_count(sealed).mean() == pytest.approx(16, abs=0.5)


# ---------------------------------------------------------------- t19: it does not peek


def test_the_attack_is_given_a_reference_and_a_ciphertext_and_nothing_else():
    signature = inspect.signature(attack)
    assert list(signature.parameters) == ["reference", "cipher", "method", "starts"]
    assert list(inspect.signature(decode).parameters) == ["reference", "cipher", "perm", "mantissa"]
    assert list(inspect.signature(fit).parameters) == ["features", "rank"]


@pytest.mark.parametrize("kind", ["bn", "gem", "sym", "iid"])
@pytest.mark.parametrize("method", ["hungarian", "profile", "full"])
def test_two_keys_give_the_same_floats(references, kind, method):
    plain = draw(kind, 1, seed=2)
    recovered = []
    for key in keys(3):
        cipher = encrypt_numpy(plain, key)
        found = attack(references[kind], cipher, method=method)
        recovered.append((decode(references[kind], cipher, found.perm), found))
    for features, found in recovered[1:]:
        np.testing.assert_array_equal(words(features), words(recovered[0][0]))
        assert found.confidence == recovered[0][1].confidence
        assert found.likelihood == recovered[0][1].likelihood


# ---------------------------------------------------------------- search


def test_gains_are_those_of_exchanging(references):
    reference = references["bn"]
    bits = planes(encrypt_numpy(draw("bn", 1, seed=1), keys(1)[0]))
    rng = np.random.default_rng(0)
    linear = rng.standard_normal((32, 32))
    perm = rng.permutation(32)

    def value(p):
        return (
            reference.table[likelihood.codes(bits, p[None])[0]].sum() + linear[range(32), p].sum()
        )

    for few in (0, 10**6):  # by a histogram, and row by row
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(search, "FEW", few)
            gains = search._gains(
                reference, linear, bits.T.astype(np.float64), perm[None],
                likelihood.codes(bits, perm[None]),
            )[0]  # fmt: skip
        for a, b in [(31, 30), (25, 20), (31, 3), (22, 0), (19, 4), (7, 7)]:
            swapped = perm.copy()
            swapped[[a, b]] = swapped[[b, a]]
            assert gains[a, b] == pytest.approx(value(swapped) - value(perm), abs=1e-6)
            assert gains[a, b] == pytest.approx(gains[b, a], abs=1e-6)


def test_the_search_ends_where_no_exchange_gains(references):
    bits = planes(encrypt_numpy(draw("gem", 1, seed=1), keys(1)[0]))
    linear = np.random.default_rng(0).standard_normal((32, 32))
    start = np.stack([np.random.default_rng(i).permutation(32) for i in range(3)])
    perms, values = search._climb(references["gem"], linear, bits, start)
    for perm, value in zip(perms, values, strict=True):
        coded = likelihood.codes(bits, perm[None])
        gains = search._gains(
            references["gem"], linear, bits.T.astype(np.float64), perm[None], coded
        )
        assert gains.max() <= search.LEAST_GAIN
        expected = references["gem"].table[coded].sum() + linear[range(32), perm].sum()
        assert value == pytest.approx(expected)
        np.testing.assert_array_equal(np.sort(perm), np.arange(32))


def test_exchanges_of_the_table_by_hand(references):
    reference = references["bn"]
    column = PAIRS.index((11, 0))  # sign and the lowest of the twelve
    code, swapped = 0b100000000000, 0b000000000001
    assert reference.exchanges[code, column] == reference.table[swapped] - reference.table[code]
    assert reference.exchanges[0, column] == 0
    assert np.exp(reference.table).sum() == pytest.approx(1)
    assert reference.table.shape == (CODES,)


@pytest.mark.parametrize("key", [BitKey.identity(), *keys(2)])
def test_arranging_by_a_key_is_decryption(key):
    plain = draw("bn", 2, seed=1)
    cipher = encrypt_numpy(plain, key)
    np.testing.assert_array_equal(arrange(cipher, key.perm), words(plain))
    np.testing.assert_array_equal(decrypt_numpy(cipher, key), plain)


def test_planes_are_the_bits():
    x = np.array([1, 2**31, 0x3F800000], np.uint32)
    rows, columns = np.nonzero(planes(x))
    assert sorted(zip(columns.tolist(), rows.tolist(), strict=True)) == [
        (0, 0), (1, 31), *[(2, i) for i in range(23, 30)]
    ]  # fmt: skip


def test_decoding_stays_within_the_reference(references):
    x = np.array([[np.nan, np.inf, -np.inf, 1e30, -1e30, 0.5]], np.float32)
    found = decode(references["bn"], words(x), np.arange(32, dtype=np.uint8))
    largest = np.float32(references["bn"].largest)
    np.testing.assert_array_equal(found, np.array([[0, 0, 0, largest, -largest, 0.5]], np.float32))


def test_the_mantissa_hardly_matters(references):
    """d1: cosine 0.981 with the mantissa in the middle, 0.9997 with three bits of it."""
    plain = draw("bn", 4, seed=1)
    right = np.arange(32, dtype=np.uint8)
    none, three = (
        cosines(plain, decode(references["bn"], words(plain), right, mantissa=m)).min()
        for m in (0, 3)
    )
    assert 0.96 < none < 0.99 and three > 0.9993


def test_dimensions_have_to_fit(references):
    for shape in [(1, D - 1), (0, D)]:
        with pytest.raises(InputError, match=f"vectors of {D} dimensions, found shape"):
            attack(references["bn"], np.zeros(shape, np.uint32))


@pytest.mark.parametrize(
    "features, message",
    [(np.zeros((1, 4), np.float32), "too few"), (np.full((3, 4), np.nan, np.float32), "12 values")],
)
def test_a_reference_has_to_be_numbers(features, message):
    with pytest.raises(InputError, match=message):
        fit(features)


@pytest.mark.parametrize("value", [0.0, 1.0, -2.5])
def test_constant_features_are_no_error(value):
    x = np.full((3, 8), value, np.float32)
    cipher = encrypt_numpy(x, keys(1)[0])
    reference = fit(x)
    found = attack(reference, cipher)
    assert 0 <= found.confidence <= 1
    np.testing.assert_array_equal(decode(reference, cipher, found.perm), x)


# ---------------------------------------------------------------- known plaintext, d4


@pytest.mark.parametrize("count, least", [(12, 0.9), (32, 0.999), (D, 0.9999)])
def test_known_floats_give_the_key(references, count, least):
    plain = draw("bn", 5, seed=1)
    cosine = []
    for x, key in zip(plain, keys(5), strict=True):
        cipher = encrypt_numpy(x, key)
        perm = known_plaintext.find_perm(cipher[:count], x[:count])
        cosine.append(cosines(x[None], decode(references["bn"], cipher[None], perm))[0])
    assert np.median(cosine) > least


def test_more_known_floats_are_better(references):
    x, key = draw("bn", 1, seed=1)[0], keys(1)[0]
    cipher = encrypt_numpy(x, key)
    bits = [
        np.count_nonzero(known_plaintext.find_perm(cipher[:k], x[:k]) == key.perm)
        for k in (1, 8, D)
    ]
    assert bits[0] < bits[1] < bits[2] and bits[2] >= 28


@pytest.mark.parametrize("key", keys(3))
def test_five_chosen_words_give_the_key_exactly(key):
    chosen = known_plaintext.probes()
    cipher = encrypt_numpy(chosen.view(np.float32), key)
    np.testing.assert_array_equal(known_plaintext.read_perm(cipher), key.perm)


# ---------------------------------------------------------------- likelihood, popcount, hamming


def test_the_true_key_is_far_likelier_than_any_other(references):
    plain = draw("bn", 4, seed=1)
    true, *others = keys(101)
    cipher = encrypt_numpy(plain, true)
    values = likelihood.per_float(
        references["bn"], cipher, np.stack([k.perm for k in (true, *others)])
    )
    assert values[0] > values[1:].max() + 3
    assert values[0] == pytest.approx(likelihood.of_own_features(references["bn"]), abs=0.5)
    by_hand = references["bn"].table[words(plain) >> LOW].mean()
    assert values[0] == pytest.approx(by_hand)


@pytest.fixture(scope="module")
def labelled():
    """Features and three tasks that a linear map of their latents decides; one class is absent."""
    x, z = draw("bn", 900, 256, seed=3), draw("sym", 900, 256, seed=3)  # the same latents
    score = z @ np.random.default_rng(0).standard_normal((256, 3))
    limits = [np.quantile(column, q) for column, q in zip(score.T, (0.5, 0.7, 0.4), strict=True)]
    labels = (score > limits).astype(np.int64)
    labels[:, 2] *= 2
    return x, labels


def test_numbers_of_ones_give_the_same_classes_under_any_keys(labelled):
    """t20."""
    x, labels = labelled
    classifier = popcount.fit(x[:600], labels[:600], [2, 2, 3])
    plain = classifier.predict(words(x[600:]))
    for key in keys(3):
        np.testing.assert_array_equal(classifier.predict(encrypt_numpy(x[600:], key)), plain)
    assert not (plain[:, 2] == 1).any()


def test_numbers_of_ones_tell_attributes(labelled):
    x, labels = labelled
    classifier = popcount.fit(x[:600], labels[:600], [2, 2, 3])
    found, true = classifier.predict(words(x[600:])), labels[600:]
    for t in range(3):
        rates = [np.mean(found[true[:, t] == c, t] == c) for c in np.unique(true[:, t])]
        assert np.mean(rates) > 0.55  # chance 0.5, standard error 0.03


def test_permuted_labels_are_not_told(labelled):
    x, labels = labelled
    permuted = labels[np.random.default_rng(0).permutation(len(labels))]
    found = popcount.fit(x[:600], permuted[:600], [2, 2, 3]).predict(words(x[600:]))
    rates = [
        np.mean([np.mean(found[permuted[600:, t] == c, t] == c) for c in np.unique(labels[:, t])])
        for t in range(3)
    ]
    assert np.mean(rates) == pytest.approx(0.5, abs=0.05)


def test_hamming_distances_survive_encryption():
    a, b = draw("bn", 4, 70, seed=1), draw("bn", 6, 70, seed=2)
    by_hand = np.bitwise_count(words(a)[:, None] ^ words(b)).sum(2)
    np.testing.assert_array_equal(hamming.distances(words(a), words(b)), by_hand)
    key = keys(1)[0]
    found = hamming.distances(encrypt_numpy(a, key), encrypt_numpy(b, key))
    np.testing.assert_array_equal(found, by_hand)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hamming, "AT_ONCE", 32 * 6 * 13)  # in parts
        np.testing.assert_array_equal(hamming.distances(words(a), words(b)), by_hand)


# ---------------------------------------------------------------- measures, synthetic features


def test_measures_by_hand():
    plain = np.array([[1.0, -2.0], [3.0, 0.5]], np.float32)
    right = np.arange(32, dtype=np.uint8)
    mean = np.array([2.0, 0.0], np.float32)
    values = measure(plain, words(plain), right, plain, mean)
    assert values == pytest.approx(
        dict(cos=1, centred=1, cos_min=1, abs_cos=1, sign_ok=1, exponent_ok=1, prefix_bits=23)
    )
    swapped = right.copy()
    swapped[[31, 22, 21]] = [22, 31, 20]  # not a permutation: two planes wrong, one of no effect
    values = measure(plain, words(plain), swapped, -plain, mean)
    assert values["cos"] == pytest.approx(-1) and values["abs_cos"] == pytest.approx(1)
    assert values["sign_ok"] == 0.5  # bit 22 is set in 3.0 alone, the sign in -2.0 alone
    assert values["exponent_ok"] == 1 and values["prefix_bits"] == 0
    assert cosines(plain, np.zeros_like(plain)).tolist() == [0, 0]


def test_the_mean_alone_has_a_cosine_but_no_centred_one():
    mean = draw("gem", 50, 64, seed=1).mean(0)
    plain = draw("gem", 3, 64, seed=2)
    found = similarity(plain, np.repeat(mean[None], 3, 0), mean)
    assert found["cos"] > 0.5 and found["centred"] == 0
    moved = 2 * mean - plain  # the other side of the mean
    assert similarity(plain, moved, mean)["centred"] == pytest.approx(-1)
    assert centred_cosines(plain, plain, mean) == pytest.approx(np.ones(3))


def test_synthetic_bn_features_have_the_bits_of_real_ones():
    """d1: marginals of bits 31 to 16 of BNNeck features."""
    expected = [0.70, 0.06, 0.94, 0.94, 0.94, 0.94, 0.88, 0.57]
    found = planes(words(draw("bn", 500, seed=0))).mean(1)[::-1][:8]
    np.testing.assert_allclose(found, expected, atol=0.15)


@pytest.mark.parametrize("kind", synthetic.KINDS)
def test_synthetic_features_repeat_and_differ_by_seed(kind):
    first = draw(kind, 3, 40, seed=0)
    assert first.dtype == np.float32 and first.shape == (3, 40) and np.isfinite(first).all()
    np.testing.assert_array_equal(first, draw(kind, 3, 40, seed=0))
    assert (first != draw(kind, 3, 40, seed=1)).any()
    assert (first != draw(kind, 3, 40, seed=0, domain=0)).any()
    if kind == "gem":
        assert (first >= 0).all()
    if kind == "l2":
        np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, rtol=1e-6)


def test_a_request_id_serves_once():
    requests = Requests(0, "test")
    first = requests.key("a")
    with pytest.raises(InputError, match="has a key of 32 bits already"):
        requests.key("a")
    assert Requests(0, "test").key("a") == first
    assert Requests(1, "test").key("a") != first and Requests(0, "else").key("a") != first
