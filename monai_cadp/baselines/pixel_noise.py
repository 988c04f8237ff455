# SPDX-License-Identifier: Apache-2.0
"""Noise on pixels, or on the means of cells of pixels."""

from __future__ import annotations

import math

from torch import Tensor, nn

from monai_cadp.baselines.cells import cell_means, checked_images, painted_cells
from monai_cadp.privacy import LaplaceMechanism, PrivacyGuarantee, TrainingData, check_unit

__all__ = ["PixelNoise"]


class PixelNoise(nn.Module):
    r"""Release the means of cells of an image with Laplace noise: on every pixel, or as DP-Pix with larger cells.

    Proof. The n means of an image lie in [0, 1]; shifted by one half their L1 norm is at most n / 2, so that
    :class:`~monai_cadp.privacy.LaplaceMechanism` with the clipping bound n / 2 changes nothing and promises epsilon for
    any two images. Undoing its rescaling, painting the cells and cutting to [0, 1] are post-processing. (DP-Pix as
    published protects images that differ in m pixels; here all pixels may differ, as for every other mechanism.)

    Args:
        epsilon: privacy budget of one image.
        cell: pixels a side of a cell; 1 puts noise on every pixel.
        unit: what one image is made from: image, volume or patient.

    Raises:
        ValueError: if a number is not positive.

    References:
        Fan: Image pixelization with differential privacy, DBSec 2018, definition 4 and theorem 1.

    Example:
        >>> import torch
        >>> noisy = PixelNoise(epsilon=8.0, cell=4)
        >>> noisy(torch.rand(2, 1, 10, 8)).shape, noisy.guarantee.epsilon
        (torch.Size([2, 1, 10, 8]), 8.0)
    """

    def __init__(self, epsilon: float, cell: int = 1, unit: str = "image") -> None:
        super().__init__()
        if isinstance(cell, bool) or not isinstance(cell, int) or cell < 1:
            raise ValueError(f"cell is {cell!r}; expected an integer of 1 or more.")
        self.epsilon, self.cell, self.unit = LaplaceMechanism(epsilon, 1.0).epsilon, cell, check_unit(unit)

    @property
    def guarantee(self) -> PrivacyGuarantee:
        """What one call promises for each image."""
        return PrivacyGuarantee(
            unit=self.unit,
            epsilon=self.epsilon,
            delta=0.0,
            mechanism=type(self).__name__,
            parameters={"cell": self.cell},
            # There is no network.
            training_data=TrainingData(),
        )

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        r"""Release images.

        Args:
            x: originals (B, C, \*spatial); intensities are clipped to 0 to 1.
            condition: public, and not used.

        Returns:
            Releases (B, C, \*spatial), with intensities 0 to 1.
        """
        x = checked_images(x)
        means = cell_means(x, self.cell)
        rows = means.flatten(1) - 0.5
        mechanism = LaplaceMechanism(self.epsilon, rows.shape[1] / 2)
        noisy = mechanism(rows) * math.sqrt(1 + mechanism.noise_deviation**2) + 0.5
        return painted_cells(noisy.reshape(means.shape), self.cell, x.shape[2:]).clamp(0, 1)
