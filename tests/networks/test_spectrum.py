# SPDX-License-Identifier: Apache-2.0
"""The cosine transform is that of the field, and can be undone."""

from __future__ import annotations

import pytest
import scipy.fft
import torch

from monai_cadp.networks.spectrum import cosine_transform, inverse_cosine_transform, smoothed_over_frequencies


@pytest.mark.parametrize("spatial", [(6, 9), (4, 5, 7)])
def test_it_is_the_orthonormal_transform_along_every_axis(spatial):
    x = torch.randn(2, 3, *spatial, dtype=torch.float64)
    expected = scipy.fft.dctn(x.numpy(), axes=range(2, x.ndim), norm="ortho")
    assert torch.allclose(cosine_transform(x), torch.from_numpy(expected))
    assert torch.allclose(inverse_cosine_transform(cosine_transform(x)), x)


def test_smoothing_keeps_constants_and_spreads_single_frequencies():
    assert torch.allclose(smoothed_over_frequencies(torch.full((2, 8, 8), 3.0), 2.0), torch.tensor(3.0))
    values = torch.zeros(1, 9, 9)
    values[0, 4, 4] = 1
    spread = smoothed_over_frequencies(values, 1.0)[0]
    assert spread[4, 4] == spread.max() and spread[4, 5] > spread[4, 6] > 0
