# SPDX-License-Identifier: Apache-2.0
"""Random draws are fair, exact and fresh."""

from __future__ import annotations

import multiprocessing
import os

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy import stats

from monai_cadp.privacy.randomness import (
    lattice_gaussian,
    lattice_laplace,
    random_below,
    random_normal,
    random_uniform,
    random_words,
    stream_words,
)

# Every statistical test here rejects a right sampler with probability 1e-7 at most, and accepts the negative control
# next to it with less than 1e-7.
ALPHA = 1e-7


def uniform_p_value(values: torch.Tensor, bound: int, bins: int) -> float:
    edges = (values.double() / bound * bins).long().clamp(max=bins - 1)
    return stats.chisquare(torch.bincount(edges, minlength=bins).numpy()).pvalue


@pytest.mark.parametrize("bound", [1, 2, 7, 1000, 3 * 2**60, 2**62])
def test_integers_stay_below_their_bound(bound):
    values = random_below(torch.zeros(5000, 1), bound)
    assert values.dtype == torch.int64
    assert int(values.min()) >= 0
    assert int(values.max()) < bound


@pytest.mark.parametrize("bound", [7, 12, 3 * 2**60])
def test_integers_are_uniform(bound):
    assert uniform_p_value(random_below(torch.zeros(60_000, 1), bound), bound, bins=6 if bound > 7 else 7) > ALPHA


def test_a_control_without_rejection_is_not_uniform():
    bound = 3 * 2**60
    words = np.frombuffer(os.urandom(8 * 60_000), dtype=np.int64) & np.int64(2**63 - 1)
    assert uniform_p_value(torch.from_numpy(words % bound), bound, bins=6) < ALPHA


@pytest.mark.parametrize("bound", [0, -3, 2**62 + 1])
def test_a_bound_out_of_range_is_refused(bound):
    with pytest.raises(ValueError, match="bound of a random integer"):
        random_below(torch.zeros(2, 1), bound)


def fairness_of_bits(words):
    """The smallest p-value of 64 tests, times their number."""
    ones = [int(((words >> bit) & 1).sum()) for bit in range(64)]
    return 64 * min(stats.binomtest(count, words.numel()).pvalue for count in ones)


def test_every_bit_of_a_word_is_a_fair_coin_and_a_control_with_one_that_is_not_is_rejected():
    words = random_words(torch.zeros(20_000, 3), 2)
    assert words.shape == (20_000, 2) and fairness_of_bits(words) > ALPHA
    # One word in ten has its lowest bit set: 5 % more ones, 20 deviations.
    words[::10] |= 1
    assert fairness_of_bits(words) < ALPHA


@pytest.mark.parametrize("generator", [None, torch.Generator().manual_seed(1)])
def test_words_take_both_signs(generator):
    words = random_words(torch.zeros(100, 3), 1, generator)
    assert bool((words < -(2**61)).any())
    assert bool((words > 2**61).any())


def likeness(noise, law):
    return stats.kstest(noise.flatten().double().numpy(), law).pvalue


def test_normal_noise_is_standard_normal_and_a_control_that_is_a_tenth_too_wide_is_rejected():
    noise = random_normal(torch.zeros(40_000, 2))
    assert noise.dtype == torch.float32
    assert likeness(noise, "norm") > ALPHA > likeness(1.1 * noise, "norm")


def test_normal_noise_is_the_box_muller_transform_of_the_stream(monkeypatch):
    """Computed again in 64 bits, from the streams of known keys."""
    keys = [os.urandom(32) for _ in range(3)]
    queue = list(keys)
    monkeypatch.setattr(os, "urandom", lambda count: queue.pop(0))
    noise = random_normal(torch.zeros(3, 7)).double().numpy()
    for key, row in zip(keys, noise, strict=True):
        cipher = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
        words = np.frombuffer(cipher.update(bytes(32)), dtype=np.int32).astype(np.float64)
        length = np.sqrt(-2 * np.log((words[:4] + 2**31 + 0.5) / 2**32))
        angle = 2 * np.pi * words[4:] / 2**32
        expected = np.concatenate([length * np.cos(angle), length * np.sin(angle)])[:7]
        assert row == pytest.approx(expected, abs=1e-5)


def test_the_smallest_words_make_different_finite_normal_numbers(monkeypatch):
    """As floats of 32 bits a hundred of these words are one, and the logarithm of the smallest would be infinite."""
    lengths = np.arange(-(2**31), -(2**31) + 300).astype(np.int32)
    words = np.concatenate([lengths, np.zeros(300, np.int32)])[None]
    monkeypatch.setattr("monai_cadp.privacy.randomness._streams", lambda *_: words)
    noise = random_normal(torch.zeros(1, 600))[0]
    assert bool(noise.isfinite().all()) and float(noise.abs().max()) < 6.8
    # The angle is 0, so that the first half are the lengths: the smaller a word, the longer.
    assert bool((noise[:300].diff() < 0).all())


def test_the_largest_word_makes_a_finite_normal_number(monkeypatch):
    words = np.array([[2**31 - 1, 0]], dtype=np.int32)
    monkeypatch.setattr("monai_cadp.privacy.randomness._streams", lambda *_: words)
    assert random_normal(torch.zeros(1, 2)).abs().max() < 1e-4


def test_uniform_noise_is_uniform_and_below_one_and_a_control_that_is_not_is_rejected():
    noise = random_uniform(torch.zeros(40_000, 2))
    assert 0 <= float(noise.min()) and float(noise.max()) < 1
    assert likeness(noise, "uniform") > ALPHA > likeness(noise**1.1, "uniform")


def test_every_image_has_a_stream_with_a_fresh_key_of_256_bits(monkeypatch):
    keys, entropy = [], os.urandom
    monkeypatch.setattr(os, "urandom", lambda count: keys.append(entropy(count)) or keys[-1])
    for draw in (random_normal, random_uniform):
        keys.clear()
        draw(torch.zeros(6, 3, 5))
        draw(torch.zeros(6, 3, 5))
        assert len(keys) == 12 and len(set(keys)) == 12 and {len(key) for key in keys} == {32}


def test_noise_of_images_is_independent_and_that_of_a_control_with_one_key_is_not(monkeypatch):
    """A correlation of 40,000 independent pairs passes 6 deviations with a probability of 2e-9."""

    def correlation():
        first, second = random_normal(torch.zeros(2, 40_000)).double()
        return abs(float((first * second).mean())) * 200

    assert correlation() < 6
    monkeypatch.setattr(os, "urandom", bytes)
    assert correlation() > 6


@pytest.mark.parametrize("shape", [(), (0, 4), (3,), (2, 0), (2, 3), (2, 3, 5)], ids=str)
def test_noise_has_the_shape_that_it_is_asked_for(shape):
    assert random_normal(torch.zeros(shape)).shape == random_uniform(torch.zeros(shape)).shape == shape


def test_the_children_of_a_process_draw_apart():
    """A stream is keyed at the call: there is nothing that a fork could copy."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found = pool.map(_words_of_a_child, range(4), chunksize=1)
    assert len({*found, _words_of_a_child(0)}) == 5


def _words_of_a_child(_):
    return tuple(random_normal(torch.zeros(1, 4))[0].tolist()) + tuple(stream_words(2).tolist())


def test_lattice_noise_saturates_and_never_wraps():
    top = torch.full((50, 2), 2**63 - 1)
    for noisy in (lattice_gaussian(top, 2.0**40), lattice_laplace(top, 2.0**40)):
        assert int(noisy.min()) > 2**62


@pytest.mark.slow
@pytest.mark.parametrize(
    ("draw", "law"),
    [
        (lattice_gaussian, lambda x: np.exp(-(x**2) / (2 * 1.5**2))),
        (lattice_laplace, lambda x: np.exp(-np.abs(x) / 1.5)),
    ],
    ids=["gaussian", "laplace"],
)
def test_small_discrete_noise_has_its_law_and_a_control_of_another_scale_is_rejected(draw, law):
    support = np.arange(-100, 101)
    shares = law(support) / law(support).sum()
    expected = [shares[support <= -5].sum(), *shares[(support > -5) & (support < 5)], shares[support >= 5].sum()]

    def p_value(scale):
        values = draw(torch.zeros(40_000, 1, dtype=torch.int64), scale).flatten().clamp(-5, 5) + 5
        return stats.chisquare(torch.bincount(values, minlength=11).numpy(), np.array(expected) * 40_000).pvalue

    assert p_value(1.5) > ALPHA > p_value(1.6)


@pytest.mark.parametrize(
    "draw",
    [
        lambda like, generator: random_words(like, 2, generator),
        lambda like, generator: random_below(like, 2**40, generator),
        lambda like, generator: random_normal(like, generator),
        lambda like, generator: random_uniform(like, generator),
        lambda like, generator: lattice_gaussian(like.long(), 2.0**20, generator),
        lambda like, generator: lattice_laplace(like.long(), 2.0**20, generator),
    ],
    ids=["words", "below", "normal", "uniform", "gaussian", "laplace"],
)
class TestDraws:
    def test_differ_at_every_call(self, draw):
        like = torch.zeros(3, 4)
        assert not torch.equal(draw(like, None), draw(like, None))

    def test_ignore_the_global_seed(self, draw):
        like = torch.zeros(3, 4)
        torch.manual_seed(0)
        first = draw(like, None)
        torch.manual_seed(0)
        assert not torch.equal(first, draw(like, None))

    def test_repeat_with_a_given_generator(self, draw):
        like = torch.zeros(3, 4)
        first, second = (draw(like, torch.Generator().manual_seed(5)) for _ in range(2))
        assert torch.equal(first, second)

    def test_of_two_calls_in_a_traced_function_are_never_merged(self, draw):
        def twice(like):
            return torch.stack([draw(like, None), draw(like, None)])

        traced = torch.jit.trace(twice, torch.zeros(3, 4), check_trace=False)
        like = torch.zeros(5, 4)
        for _ in range(4):  # the optimiser of TorchScript starts after some runs
            first, second = traced(like)
            again, _ = traced(like)
            assert first.shape[0] == 5
            assert not torch.equal(first, second)
            assert not torch.equal(first, again)

    def test_are_fresh_in_an_exported_module(self, draw):
        class Module(torch.nn.Module):
            def forward(self, like):
                return draw(like, None), draw(like, None)

        module = torch.export.export(Module(), (torch.zeros(3, 4),)).module()
        first, second = module(torch.zeros(3, 4))
        again, _ = module(torch.zeros(3, 4))
        assert not torch.equal(first, second)
        assert not torch.equal(first, again)
