# SPDX-License-Identifier: Apache-2.0
"""How much of an image's content a release still has, beyond what its class says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.metrics import CumulativeIterationMetric
from torch import Tensor

__all__ = ["PixelCosine", "WithinClassCorrelation", "pixel_cosine", "sharing_labels", "within_class_correlation"]

# Differences within classes, below which a correlation is chance.
FEWEST = 5


def within_class_correlation(original: Tensor, released: Tensor, labels: Tensor | None = None) -> Tensor:
    """Return the Pearson correlation of every feature between originals and releases, class means taken away.

    Args:
        original: features (n, k) of originals.
        released: features (n, k) of their releases.
        labels: classes (n,), or several labels (n, K), of which equal rows are one class; None for one class.

    Returns:
        Correlations (k,); 0 where a feature does not vary.

    Raises:
        ValueError: if shapes do not fit.

    Example:
        >>> x = torch.randn(100, 2)
        >>> within_class_correlation(x, 3 * x + 1)
        tensor([1., 1.])
    """
    if original.shape != released.shape or original.ndim != 2 or (labels is not None and len(labels) != len(original)):
        raise ValueError(
            f"The features have shapes {tuple(original.shape)} and {tuple(released.shape)}; expected (n, k) twice, "
            "and labels (n,) or (n, K)."
        )
    labels = original.new_zeros(len(original), dtype=torch.long) if labels is None else labels
    a, b = _centred(original.double(), labels), _centred(released.double(), labels)
    scale = (a.square().sum(0) * b.square().sum(0)).sqrt()
    return torch.where(scale > 0, (a * b).sum(0) / scale.clamp(min=1e-300), 0.0).float()


def sharing_labels(labels: Tensor) -> Tensor:
    """Return indices of samples whose labels (n,) or (n, K) another one has too; none where too few are to correlate.

    Example:
        >>> sharing_labels(torch.tensor([0, 1, 0, 0, 0, 0, 0]))
        tensor([0, 2, 3, 4, 5, 6])
    """
    _, groups, counts = labels.unique(dim=0, return_inverse=True, return_counts=True)
    sharing = (counts[groups] > 1).nonzero()[:, 0]
    return sharing if len(labels) - len(counts) >= FEWEST else sharing[:0]


def pixel_cosine(original: Tensor, released: Tensor) -> float:
    r"""Return the mean cosine between originals and releases (n, \*shape), each set minus its own mean image.

    Example:
        >>> x = torch.rand(10, 1, 4, 4)
        >>> round(pixel_cosine(x, x), 3)
        1.0
    """
    a, b = original.flatten(1).double(), released.flatten(1).double()
    return torch.nn.functional.cosine_similarity(a - a.mean(0), b - b.mean(0)).mean().item()


class _Pairs(CumulativeIterationMetric):
    """A metric of all pairs of a release and an original, which come in batches or as lists of items."""

    def _compute_list(self, y_pred: Any, y: Any = None, **kwargs: Any) -> Any:
        return self._compute_tensor(torch.stack(list(y_pred)), torch.stack(list(y)), **kwargs)

    def _pairs(self) -> list[Tensor]:
        buffers = self.get_buffer()
        if buffers is None:
            raise ValueError("No release came to be measured; expected at least one.")
        return buffers


class WithinClassCorrelation(_Pairs):
    r"""The metric form of :func:`within_class_correlation`: gathers over batches and ranks what the function takes.

    Call it with releases ``y_pred`` (B, C, \*spatial), originals ``y`` and their ``condition``, classes (B,) or several
    labels (B, K); for one class, with zeros. To attach it to an engine, see
    :class:`~monai_cadp.handlers.ReleaseMetric`.

    Args:
        features: images (B, C, \*spatial) to (B, k).

    Example:
        >>> from monai_cadp.metrics import shape_features
        >>> metric = WithinClassCorrelation(shape_features)
        >>> for x in torch.rand(4, 25, 1, 8, 8):
        ...     _ = metric(y_pred=x, y=x, condition=torch.arange(25) % 2)
        >>> metric.aggregate()
        tensor([1., 1., 1., 1.])
    """

    def __init__(self, features: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.features = features

    def _compute_tensor(  # type: ignore[override]
        self, y_pred: Tensor, y: Tensor, *, condition: Tensor | Sequence[Tensor | int]
    ) -> tuple[Tensor, ...]:
        rows = condition if isinstance(condition, Tensor) else torch.stack([torch.as_tensor(one) for one in condition])
        return self.features(y_pred), self.features(y), rows.to(y.device).reshape(len(y), -1)

    def aggregate(self) -> Tensor:
        """Return the correlations (k,) over all that came.

        Raises:
            ValueError: if nothing came.
        """
        released, original, labels = self._pairs()
        return within_class_correlation(original, released, labels)


class PixelCosine(_Pairs):
    r"""The metric form of :func:`pixel_cosine`: keeps all images until they are gathered over ranks.

    Call it with releases ``y_pred`` (B, C, \*spatial) and originals ``y``; a condition is not used.

    Example:
        >>> metric = PixelCosine()
        >>> for x in torch.rand(4, 25, 1, 8, 8):
        ...     _ = metric(y_pred=x, y=x)
        >>> round(metric.aggregate(), 3)
        1.0
    """

    def _compute_tensor(  # type: ignore[override]
        self, y_pred: Tensor, y: Tensor, *, condition: Any = None
    ) -> tuple[Tensor, ...]:
        return y_pred, y

    def aggregate(self) -> float:
        """Return the mean cosine over all that came.

        Raises:
            ValueError: if nothing came.
        """
        released, original = self._pairs()
        return pixel_cosine(original, released)


def _centred(features: Tensor, labels: Tensor) -> Tensor:
    classes, groups = labels.unique(dim=0, return_inverse=True)
    sums = features.new_zeros(len(classes), features.shape[1]).index_add_(0, groups, features)
    return features - (sums / groups.bincount()[:, None])[groups]
