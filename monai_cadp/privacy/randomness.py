# SPDX-License-Identifier: Apache-2.0
"""Where every random draw that privacy rests on comes from."""

from __future__ import annotations

import math
import os
import secrets
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "SecretDraws",
    "lattice_gaussian",
    "lattice_laplace",
    "random_below",
    "random_normal",
    "random_uniform",
    "random_words",
    "stream_words",
]

# The draws are operators of their own, so that torch.jit.trace and torch.export record a call, and never its result: a
# traced module draws afresh at every run. TorchScript replaces equal calls on equal inputs by one, whatever their
# tags say; `call` is a different constant at every call, so that no two draws of a graph are ever merged. It is a
# name, and nothing random comes from it.
_TAGS = [torch.Tag.nondeterministic_seeded]


KEY_BYTES = 32


class SecretDraws:
    """Stands where a ``torch.Generator`` does, and asks for a cryptographic stream for every image.

    Input noise takes one or the other: a generator's numbers follow from a seed of 32 bits, these from nothing. It has
    no state, so that processes and threads may share it.
    """


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
    rows, size = _rows(like)
    pairs = -(-size // 2)
    words = torch.from_numpy(_streams(rows, 2 * pairs))
    # The middle of each of 2^32 intervals: never 0, and in 64 bits, so that small numbers keep their digits.
    uniform = ((words[:, :pairs].double() + (2**31 + 0.5)) * 2.0**-32).float()
    length = (-2 * uniform.log()).sqrt()
    angle = (2 * math.pi * 2.0**-32) * words[:, pairs:].float()
    noise = torch.cat([length * angle.cos(), length * angle.sin()], dim=1)[:, :size]
    return noise.reshape(like.shape).to(like.device)


@_random_normal.register_fake
def _(like: Tensor, call: int) -> Tensor:
    return like.new_empty(like.shape, dtype=torch.float32)


@_operator("random_uniform")
def _random_uniform(like: Tensor, call: int) -> Tensor:
    rows, size = _rows(like)
    # The upper 24 bits of a word, as many as a float of 32 bits holds.
    words = torch.from_numpy(_streams(rows, size)) >> 8
    return ((words + 2**23).float() * 2.0**-24).reshape(like.shape).to(like.device)


@_random_uniform.register_fake
def _(like: Tensor, call: int) -> Tensor:
    return like.new_empty(like.shape, dtype=torch.float32)


def _rows(like: Tensor) -> tuple[int, int]:
    rows = like.shape[0] if like.ndim else 1
    return rows, math.prod(like.shape[1:])


def _streams(rows: int, words: int) -> np.ndarray:
    """Return for every row words (rows, words), int32, of a stream cipher with a key of its own."""
    zeros = bytes(4 * words)
    # A bytearray: torch wants memory that it may write to.
    streams = bytearray().join(_stream(zeros) for _ in range(rows))
    return np.frombuffer(streams, dtype=np.int32).reshape(rows, words)


def _stream(zeros: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    # A key is used for one stream, so that the counter may begin at 0.
    return Cipher(algorithms.AES(os.urandom(KEY_BYTES)), modes.CTR(bytes(16))).encryptor().update(zeros)


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
    r"""Return standard-normal noise from a cryptographic stream of its own for every row.

    Every row is made from AES-256 in counter mode, under a key of 256 bits that is drawn from the operating system for
    this row and this call, and then forgotten. So rows are independent of each other and of everything else, as far as
    nobody can tell AES from a random permutation: a stream of n blocks then differs from fair draws by
    :math:`n^2 / 2^{129}` at most, :math:`2^{-89}` for a million numbers. Nothing is kept between calls, which a process
    could inherit or threads could share.

    Words of 32 bits become normal numbers by Box and Muller's formula, none further than 6.8 deviations from 0. No
    guarantee rests on the shape of this noise, only on its independence.

    Args:
        like: gives shape (B, ...) and device; its values are not looked at.
        generator: draws from this instead. For tests only: its numbers can be foretold.

    Returns:
        Noise of the same shape, float32.

    References:
        Box, Muller: A note on the generation of random normal deviates, Annals of Mathematical Statistics 29, 1958.
        Bellare, Desai, Jokipii, Rogaway: A concrete security treatment of symmetric encryption, FOCS 1997 (counter
        mode).

    Example:
        >>> random_normal(torch.zeros(2, 3)).shape
        torch.Size([2, 3])
    """
    if generator is None:
        return _random_normal(like, _call_name())
    return torch.randn(like.shape, generator=generator).to(like.device)


def random_uniform(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return uniform numbers in [0, 1) from a cryptographic stream of its own for every row, as ``random_normal``.

    Args:
        like: gives shape (B, ...) and device; its values are not looked at.
        generator: draws from this instead. For tests only: its numbers can be foretold.

    Returns:
        Multiples of 2^-24 of the same shape, float32.

    Example:
        >>> random_uniform(torch.zeros(2, 3)).shape
        torch.Size([2, 3])
    """
    if generator is None:
        return _random_uniform(like, _call_name())
    return torch.rand(like.shape, generator=generator).to(like.device)


def stream_words(count: int, generator: torch.Generator | None = None) -> np.ndarray:
    """Return many uniform words of 63 bits from one cryptographic stream with a fresh key.

    Args:
        count: number of words.
        generator: draws from this instead. For tests only: its numbers can be foretold.

    Returns:
        Words (count,), int64, from 0 to 2^63 - 1.

    Example:
        >>> stream_words(3).shape
        (3,)
    """
    if generator is not None:
        return torch.empty(count, dtype=torch.int64).random_(0, None, generator=generator).numpy()
    return np.frombuffer(_stream(bytes(8 * count)), dtype=np.int64) & np.int64(2**63 - 1)


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
