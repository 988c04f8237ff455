# SPDX-License-Identifier: Apache-2.0
"""Where every privacy coin comes from."""

from __future__ import annotations

import os
import secrets
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["lattice_gaussian", "lattice_laplace", "random_below", "random_normal", "random_words"]

# The coins are operators of their own, so that torch.jit.trace and torch.export record a call, and never its result: a
# traced module tosses fresh coins at every run. TorchScript replaces equal calls on equal inputs by one, whatever their
# tags say; `call` is a different constant at every call, so that no two tosses of a graph are ever merged. It is a
# name, not a coin.
_TAGS = [torch.Tag.nondeterministic_seeded]


def _operator(name: str) -> Any:
    return torch.library.custom_op(f"monai_cadp::{name}", mutates_args=(), tags=_TAGS)


def _call_name() -> int:
    state = torch._C._get_tracing_state()
    if state is None:
        return secrets.randbits(62)
    # The graph grows with every call, so its length never comes twice; and tracing again gives the same names, which
    # the comparison of traces by torch and MONAI asks for.
    return sum(1 for _ in state.graph().nodes())


def _entropy(count: int) -> np.ndarray:
    return np.frombuffer(os.urandom(8 * count), dtype=np.int64).copy()


@_operator("random_words")
def _random_words(like: Tensor, count: int, call: int) -> Tensor:
    words = _entropy(like.shape[0] * count)
    return torch.from_numpy(words).reshape(like.shape[0], count).to(like.device)


@_random_words.register_fake
def _(like: Tensor, count: int, call: int) -> Tensor:
    return like.new_empty((like.shape[0], count), dtype=torch.int64)


@_operator("random_below")
def _random_below(like: Tensor, bound: int, call: int) -> Tensor:
    # 63-bit words below the largest multiple of the bound: every remainder is then equally likely, exactly.
    limit = 2**63 // bound * bound
    words = _entropy(like.shape[0]) & np.int64(2**63 - 1)
    if limit < 2**63:
        rejected = np.flatnonzero(words >= limit)
        while rejected.size:
            words[rejected] = _entropy(rejected.size) & np.int64(2**63 - 1)
            rejected = rejected[words[rejected] >= limit]
    return torch.from_numpy(words % bound).to(like.device)


@_random_below.register_fake
def _(like: Tensor, bound: int, call: int) -> Tensor:
    return like.new_empty((like.shape[0],), dtype=torch.int64)


@_operator("random_normal")
def _random_normal(like: Tensor, call: int) -> Tensor:
    noise = np.random.default_rng().standard_normal(tuple(like.shape), dtype=np.float32)
    return torch.from_numpy(noise).to(like.device)


@_random_normal.register_fake
def _(like: Tensor, call: int) -> Tensor:
    return like.new_empty(like.shape, dtype=torch.float32)


def _opendp_noise(values: Tensor, law: str, scale: float) -> Tensor:
    import opendp.prelude as opendp

    opendp.enable_features("contrib")
    distance = opendp.l2_distance(T="f64") if law == "gaussian" else opendp.l1_distance(T="f64")
    make = opendp.m.make_gaussian if law == "gaussian" else opendp.m.make_laplace
    measurement = make(opendp.vector_domain(opendp.atom_domain(T="i64")), distance, scale=scale)
    noisy = measurement(values.detach().reshape(-1).tolist())
    return torch.tensor(noisy, dtype=torch.int64).reshape(values.shape).to(values.device)


@_operator("lattice_gaussian")
def _lattice_gaussian(values: Tensor, scale: float, call: int) -> Tensor:
    return _opendp_noise(values, "gaussian", scale)


@_lattice_gaussian.register_fake
def _(values: Tensor, scale: float, call: int) -> Tensor:
    return values.new_empty(values.shape, dtype=torch.int64)


@_operator("lattice_laplace")
def _lattice_laplace(values: Tensor, scale: float, call: int) -> Tensor:
    return _opendp_noise(values, "laplace", scale)


@_lattice_laplace.register_fake
def _(values: Tensor, scale: float, call: int) -> Tensor:
    return values.new_empty(values.shape, dtype=torch.int64)


def random_words(like: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Return uniform 64-bit words from the operating system's cryptographic generator.

    Args:
        like: tensor (B, ...) that gives the number of samples and the device.
        count: number of words for each sample.
        generator: draws from this instead. For tests only: its numbers can be foretold.

    Returns:
        Words (B, count), int64; read as signed numbers they are uniform in [-2^63, 2^63).

    Example:
        >>> random_words(torch.zeros(3, 5), 2).shape
        torch.Size([3, 2])
    """
    if generator is None:
        return _random_words(like, count, _call_name())
    words = torch.empty(like.shape[0], count, dtype=torch.int64)
    return words.random_(-(2**63), None, generator=generator).to(like.device)


def random_below(like: Tensor, bound: int, generator: torch.Generator | None = None) -> Tensor:
    """Return integers that are exactly uniform in [0, bound), by rejection from the cryptographic generator.

    Args:
        like: tensor (B, ...) that gives the number of samples and the device.
        bound: from 1 to 2^62.
        generator: draws from this instead. For tests only: its numbers can be foretold, and are uniform only nearly.

    Returns:
        Integers (B,), int64.

    Raises:
        ValueError: if the bound is outside its range.

    Example:
        >>> random_below(torch.zeros(3), 1)
        tensor([0, 0, 0])
    """
    if not 1 <= bound <= 2**62:
        raise ValueError(f"The bound of a random integer is {bound}; expected a number from 1 to 2^62.")
    if generator is None:
        return _random_below(like, bound, _call_name())
    return torch.randint(bound, (like.shape[0],), generator=generator).to(like.device)


def random_normal(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return standard-normal noise that does not depend on anything, for completion and for releases without content.

    No guarantee rests on the shape of this noise, only on its independence of every image. It comes from NumPy's
    default generator, seeded anew at every call with 128 bits of the operating system's entropy.

    Args:
        like: gives shape and device; its values are not looked at.
        generator: draws from this instead. For tests only.

    Returns:
        Noise of the same shape, float32.

    Example:
        >>> random_normal(torch.zeros(2, 3)).shape
        torch.Size([2, 3])
    """
    if generator is None:
        return _random_normal(like, _call_name())
    return torch.randn(like.shape, generator=generator).to(like.device)


def lattice_gaussian(values: Tensor, scale: float, generator: torch.Generator | None = None) -> Tensor:
    r"""Add independent discrete Gaussian noise to integers, exactly: :math:`\Pr[n] \propto e^{-n^2 / (2 s^2)}`.

    The sum is formed in unbounded integers and then saturates at the ends of int64, which is post-processing.

    Args:
        values: integers of any shape, int64.
        scale: s, in units of the lattice.
        generator: draws from this instead and rounds, which is neither exact nor safe. For tests only.

    Returns:
        Noisy integers of the same shape, int64.

    References:
        Canonne, Kamath, Steinke: The discrete Gaussian for differential privacy, NeurIPS 2020; OpenDP, make_gaussian.

    Example:
        >>> lattice_gaussian(torch.zeros(2, 3, dtype=torch.int64), 4.0).shape
        torch.Size([2, 3])
    """
    if generator is None:
        return _lattice_gaussian(values, float(scale), _call_name())
    noise = torch.randn(values.shape, generator=generator, dtype=torch.float64) * scale
    return values + noise.round().long().to(values.device)


def lattice_laplace(values: Tensor, scale: float, generator: torch.Generator | None = None) -> Tensor:
    r"""Add independent discrete Laplace noise to integers, exactly: :math:`\Pr[n] \propto e^{-|n| / b}`.

    The sum is formed in unbounded integers and then saturates at the ends of int64, which is post-processing.

    Args:
        values: integers of any shape, int64.
        scale: b, in units of the lattice.
        generator: draws from this instead and rounds, which is neither exact nor safe. For tests only.

    Returns:
        Noisy integers of the same shape, int64.

    References:
        Ghosh, Roughgarden, Sundararajan: Universally utility-maximizing privacy mechanisms, SIAM J. Comput. 41, 2012;
        OpenDP, make_laplace.

    Example:
        >>> lattice_laplace(torch.zeros(2, 3, dtype=torch.int64), 4.0).shape
        torch.Size([2, 3])
    """
    if generator is None:
        return _lattice_laplace(values, float(scale), _call_name())
    uniform = torch.rand(2, *values.shape, generator=generator, dtype=torch.float64).clamp(min=1e-300)
    noise = (uniform[0].log() - uniform[1].log()) * scale
    return values + noise.round().long().to(values.device)
