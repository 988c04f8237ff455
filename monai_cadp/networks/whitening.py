# SPDX-License-Identifier: Apache-2.0
"""The linear layers that carry the global structure: a Gaussian of low rank for every class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from FrEIA.modules import InvertibleModule
from torch import Tensor, nn

from monai_cadp.networks.chain import Chain
from monai_cadp.networks.spectrum import orthonormal_cosines

__all__ = ["GroupWhitening", "LowRankWhitening"]

# Smallest variance beside the largest one: bounds the error that float32 makes in the inverse.
SMALLEST_RATIO = 1e-5


class GroupWhitening(InvertibleModule):
    r"""Whiten a vector, group by group.

    With a mean :math:`m_g` and an invertible factor :math:`L_g` of the covariance :math:`L_g L_g^T` of every group g (a
    class, or everything), and a linear regression B on the embedded condition c,

    .. math:: z = L_g^{-1} (a - m_g - B c).

    The factor is the symmetric square root of the covariance, and not a Cholesky factor: of all factors it turns the
    coordinates least, so they mean nearly the same in every class, and couplings and content basis serve all classes.
    It is fitted by :mod:`monai_cadp.networks.moments`; before, this is the identity.

    Args:
        dims_in: one shape (K,).
        dims_c: not used.
        num_groups: number of groups with moments of their own.
        embedding_size: length of the embedded condition c.
    """

    mean: Tensor
    slope: Tensor
    factor: Tensor
    inverse_factor: Tensor
    # Buffers that follow from others.
    derived = ("inverse_factor",)

    def __init__(
        self,
        dims_in: Sequence[Sequence[int]],
        dims_c: Sequence[Sequence[int]] | None = None,
        *,
        num_groups: int,
        embedding_size: int,
    ) -> None:
        super().__init__(dims_in, dims_c)
        rank = dims_in[0][0]
        identity = torch.eye(rank).repeat(num_groups, 1, 1)
        self.register_buffer("mean", torch.zeros(num_groups, rank))
        self.register_buffer("slope", torch.zeros(rank, embedding_size))
        self.register_buffer("factor", identity)
        self.register_buffer("inverse_factor", identity.clone(), persistent=False)
        # A checkpoint holds the factor only.
        self.register_load_state_dict_post_hook(_after_loading)

    def forward(
        self, x_or_z: Sequence[Tensor], c: Sequence[Tensor] = (), rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor], Tensor | None]:
        """Map a (B, K) to z (B, K), or back with ``rev``; the conditions are (group index (B,), embedding (B, E))."""
        (x,) = x_or_z
        group, embedding = c
        offset = self.mean[group] + embedding @ self.slope.T
        if rev:
            y = torch.einsum("bij,bj->bi", self.factor[group], x) + offset
        else:
            y = torch.einsum("bij,bj->bi", self.inverse_factor[group], x - offset)
        if not jac:
            return (y,), None
        log_volume = self.log_volume()[group]
        return (y,), log_volume if rev else -log_volume

    def set_factor(self, factor: Tensor) -> None:
        """Take over symmetric positive factors (G, K, K), and make their inverses, which are not stored."""
        self.factor.copy_(factor)
        # By Cholesky; the threads of some BLAS libraries break inv.
        self.inverse_factor.copy_(torch.cholesky_inverse(torch.linalg.cholesky(self.factor.double())))

    def set_covariances(self, covariances: Tensor) -> None:
        """Take over covariances (G, K, K), by their symmetric roots; no variance is far below the largest one."""
        values, vectors = torch.linalg.eigh(covariances)
        scale = values.clamp(min=smallest_variance(float(values.max()))).sqrt()[:, None, :]
        self.set_factor((vectors * scale) @ vectors.transpose(1, 2))

    def derive(self) -> None:
        """Make the inverses again from the factors."""
        self.set_factor(self.factor)

    def log_volume(self) -> Tensor:
        """Return log |det| of the linear map from z to a, for every group (G,)."""
        # The factor is symmetric and positive.
        return 2 * torch.linalg.cholesky(self.factor.double()).diagonal(dim1=1, dim2=2).log().sum(1).float()

    def output_dims(self, input_dims: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Shapes are kept."""
        return input_dims


class LowRankWhitening(InvertibleModule):
    r"""Whiten a vector inside a subspace, class by class, run a flow there, and divide what is outside by one scale.

    With an orthonormal basis :math:`E` (D x K), a mean :math:`\mu`, and a :class:`GroupWhitening` w,

    .. math::
        a = E^T (x - \mu), \quad r = x - \mu - E a, \quad a' = f(w(a; g, c); c), \quad z = r / \sigma + E a'.

    The inverse is a' = E^T z, r = sigma (z - E a'), and so on; the log-determinant is that of f and w minus
    (D - K) log sigma. All of it is fitted by :mod:`monai_cadp.networks.moments`.

    Args:
        dims_in: one shape (D,).
        dims_c: not used.
        rank: K, the dimension of the subspace, at most D.
        num_groups: number of groups with moments of their own.
        embedding_size: length of the embedded condition c.
        flow: the flow f inside the subspace, or None for the identity.
    """

    mean: Tensor
    basis: Tensor
    residual_scale: Tensor

    def __init__(
        self,
        dims_in: Sequence[Sequence[int]],
        dims_c: Sequence[Sequence[int]] | None = None,
        *,
        rank: int,
        num_groups: int,
        embedding_size: int,
        flow: Chain | None = None,
    ) -> None:
        super().__init__(dims_in, dims_c)
        size = dims_in[0][0]
        self.size, self.rank = size, rank
        self.inside = GroupWhitening([(rank,)], num_groups=num_groups, embedding_size=embedding_size)
        self.flow = flow
        self.register_buffer("mean", torch.zeros(size))
        # The usual subspace before any data are seen.
        self.register_buffer("basis", orthonormal_cosines(size, rank).float())
        self.register_buffer("residual_scale", torch.ones(()))

    def forward(
        self, x_or_z: Sequence[Tensor], c: Sequence[Tensor] = (), rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor], Tensor | None]:
        """Map x (B, D) to z (B, D), or back with ``rev``; the conditions are (group index (B,), embedding (B, E))."""
        (x,) = x_or_z
        _, embedding = c
        log_det = None
        if rev:
            inside = x @ self.basis
            outside = (x - inside @ self.basis.T) * self.residual_scale
            if self.flow is not None:
                (inside,), log_det = self.flow([inside], c=[embedding], rev=True, jac=jac)
            (inside,), linear = self.inside([inside], c=c, rev=True, jac=jac)
            y = outside + inside @ self.basis.T + self.mean
        else:
            centred = x - self.mean
            inside = centred @ self.basis
            outside = (centred - inside @ self.basis.T) / self.residual_scale
            (inside,), linear = self.inside([inside], c=c, jac=jac)
            if self.flow is not None:
                (inside,), log_det = self.flow([inside], c=[embedding], jac=jac)
            y = outside + inside @ self.basis.T
        if not jac:
            return (y,), None
        assert linear is not None
        scale = (self.size - self.rank) * self.residual_scale.log()
        linear = linear + scale if rev else linear - scale
        return (y,), (linear if log_det is None else linear + log_det)

    def with_inside(self, z: Tensor, inside: Tensor) -> Tensor:
        """Return ``z`` (B, D) with ``inside`` (B, K) in the subspace, and outside of it as it is."""
        return z + (inside - z @ self.basis) @ self.basis.T

    def output_dims(self, input_dims: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Shapes are kept."""
        return input_dims


def _after_loading(layer: nn.Module, incompatible_keys: object) -> None:
    assert isinstance(layer, GroupWhitening)
    layer.derive()


def smallest_variance(largest: float) -> float:
    """Return the smallest variance beside the largest one; data that do not vary still leave a network to invert."""
    return SMALLEST_RATIO * (largest if largest > 0 else 1.0)
