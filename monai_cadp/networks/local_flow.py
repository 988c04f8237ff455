# SPDX-License-Identifier: Apache-2.0
"""The flow of what no common subspace holds: lesions, which are somewhere else in every image."""

from __future__ import annotations

from collections.abc import Sequence

from FrEIA.modules import InvertibleModule
from torch import Tensor

from monai_cadp.networks.detail import DetailFlow
from monai_cadp.networks.haar import HaarLevel
from monai_cadp.networks.spline import SplineField

__all__ = ["LocalFlow"]


class LocalFlow(InvertibleModule):
    r"""Turn whitened voxels, whose neighbours may be far off together, into normal ones.

    Whitening leaves a lesion as a clump of voxels that are all far off. One Haar level makes one cell of the clump; a
    spline gives every cell the distribution that it has for this condition, and the details inside the cell are
    predicted from the cells around it.

    Args:
        dims_in: one shape (C, \*spatial), every spatial size even.
        dims_c: not used.
        num_couplings: of the details.
        width: hidden channels.
        depth: further convolutions where the details are predicted.
        num_maps: learned maps of the shared space, at least 1.
        embedding_size: length of the embedded condition; 0 for none.
    """

    def __init__(
        self,
        dims_in: Sequence[Sequence[int]],
        dims_c: Sequence[Sequence[int]] | None = None,
        *,
        num_couplings: int,
        width: int,
        depth: int,
        num_maps: int,
        embedding_size: int,
    ) -> None:
        super().__init__(dims_in, dims_c)
        self.haar = HaarLevel(dims_in)
        cells, details = self.haar.output_dims([tuple(dims_in[0])])
        self.cell_flow = SplineField([cells], width=width, num_maps=num_maps, embedding_size=embedding_size)
        self.detail_flow = DetailFlow(
            details[0],
            cells[0],
            cells[1:],
            num_couplings=num_couplings,
            width=width,
            depth=depth,
            num_maps=num_maps,
            embedding_size=embedding_size,
        )

    def forward(
        self, x_or_z: Sequence[Tensor], c: Sequence[Tensor] = (), rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor], Tensor | None]:
        """Map whitened voxels (B, C, *spatial) to normal ones, or back with ``rev``; the condition is (embedding,)."""
        (cells, details), _ = self.haar(x_or_z, jac=False)
        if rev:
            (cells,), cell_log_det = self.cell_flow([cells], c=c, rev=True, jac=jac)
            (details,), detail_log_det = self.detail_flow([details], c=[cells, *c], rev=True, jac=jac)
        else:
            (details,), detail_log_det = self.detail_flow([details], c=[cells, *c], jac=jac)
            (cells,), cell_log_det = self.cell_flow([cells], c=c, jac=jac)
        (y,), _ = self.haar([cells, details], rev=True, jac=False)
        return (y,), cell_log_det + detail_log_det if jac else None

    def inside_cells(self, x: Tensor) -> Tensor:
        """Return what voxels (B, C, *spatial) hold besides the mean of their cell."""
        (cells, _), _ = self.haar([x], jac=False)
        for axis in range(2, x.ndim):
            cells = cells.repeat_interleave(2, dim=axis)
        return x - cells / 2 ** ((x.ndim - 2) / 2)

    def output_dims(self, input_dims: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Shapes are kept."""
        return input_dims
