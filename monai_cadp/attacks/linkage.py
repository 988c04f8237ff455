# SPDX-License-Identifier: Apache-2.0
"""Whose image is it? People of whom there are several images, and an attacker who sorts a gallery by similarity."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from monai_cadp.attacks.pair_auc import PairAUC
from monai_cadp.extras import extra
from monai_cadp.metrics.intervals import Estimate, bootstrap

__all__ = ["LinkageResult", "edge_features", "linkage"]

ORIENTATIONS = 9
CELL = 16  # pixels a side, of an image of 128 x 128
CELLS_OF_BLOCK = (2, 2)


class LinkageResult(NamedTuple):
    """How well a similarity links images of one person.

    Args:
        auc: area under the curve over pairs of a probe and a gallery image, of one person or of two; 0.5 is guessing.
        top_1: share of probes whose most similar gallery image is of the same person.
        guess: the share that guessing finds.
    """

    auc: Estimate
    top_1: Estimate
    guess: float


def linkage(
    similarity: Tensor,
    probe_people: Tensor,
    gallery_people: Tensor,
    *,
    left_out: Tensor | None = None,
    balanced: bool = False,
    num_bootstraps: int = 1000,
    seed: int = 0,
) -> LinkageResult:
    """Return how well probes are linked to a gallery of images of known people.

    Only probes count of whose person the gallery holds an image.

    Args:
        similarity: of every probe to every gallery image (n, m).
        probe_people: whose each probe is (n,), as numbers.
        gallery_people: whose each gallery image is (m,).
        left_out: pairs (n, m) that take no part, such as a release and its own original, or images of different public
            classes; None for none.
        balanced: give every gallery image the same weight among pairs of two people as it has among pairs of one. Of
            releases as probes, no similarity then passes :func:`~monai_cadp.privacy.largest_auc` in expectation;
            otherwise one that knows nothing but the public class of an image may pass it, where classes differ in size.
        num_bootstraps: how often people are drawn again for the intervals, with all their images.
        seed: of the drawing.

    Returns:
        The result; similarities that are equal count as sorted at random.

    Raises:
        ValueError: if shapes do not fit, a similarity is not a number, or no person of a probe is in the gallery.

    Example:
        >>> similarity = torch.tensor([[0.9, 0.8, 0.1], [0.2, 0.7, 0.6]])
        >>> result = linkage(similarity, torch.tensor([1, 3]), torch.tensor([1, 2, 3]), num_bootstraps=10)
        >>> result.top_1.value, result.auc.value, round(result.guess, 2)
        (0.5, 0.75, 0.33)
    """
    if similarity.shape != (len(probe_people), len(gallery_people)) or similarity.isnan().any():
        raise ValueError(
            f"The similarities have shape {tuple(similarity.shape)}; expected numbers for "
            f"{len(probe_people)} probes and {len(gallery_people)} images of the gallery."
        )
    similarity = similarity.cpu()
    people, owner = torch.cat([probe_people.cpu(), gallery_people.cpu()]).unique(return_inverse=True)
    probe, gallery = owner[: len(probe_people)], owner[len(probe_people) :]
    allowed = torch.ones_like(similarity, dtype=torch.bool) if left_out is None else ~left_out.cpu()
    same = (probe[:, None] == gallery) & allowed
    counted = same.any(1)
    if not counted.any():
        raise ValueError("No person of a probe has an image in the gallery; expected at least one.")
    similarity, same, allowed, probe = similarity[counted], same[counted], allowed[counted], probe[counted]
    resampled: dict[str, Any] = {"num_bootstraps": num_bootstraps, "seed": seed}

    # The chance that the first of equally similar images is the right person's.
    best = similarity.masked_fill(~allowed, -torch.inf).amax(1, keepdim=True)
    first = (similarity == best) & allowed
    found = (first & same).sum(1).double() / first.sum(1)
    present = probe.unique()

    def share_found(drawn: Tensor) -> float:
        times = present[drawn].bincount(minlength=len(people))[probe].double()
        return float((times * found).sum() / times.sum())

    pairs = PairAUC(similarity, allowed, probe, gallery, balanced=balanced)
    everybody = torch.cat([probe, gallery]).unique()
    auc = bootstrap(lambda drawn: pairs(everybody[drawn].bincount(minlength=len(people))), len(everybody), **resampled)
    guess = float((same.sum(1).double() / allowed.sum(1)).mean())
    return LinkageResult(auc, bootstrap(share_found, len(present), **resampled), guess)


def edge_features(images: Tensor) -> Tensor:
    """Return histograms of the orientations of edges: an attacker's eye that need not be trained.

    Ribs, heart and clavicles of one person run alike in all their films. Each block of cells is normalised by itself,
    so that exposure and contrast do not count.

    Args:
        images: (B, 1, H, W), in two dimensions.

    Returns:
        Features (B, n) of length 1, from which the mean of all images is taken away: the inner product of two is
        their similarity.

    Raises:
        ValueError: if the images are no such images.

    References:
        Dalal, Triggs: Histograms of oriented gradients for human detection, CVPR 2005.

    Example:
        >>> features = edge_features(torch.rand(3, 1, 64, 64))
        >>> features.shape[0], round(float(features[0] @ features[0]), 3)
        (3, 1.0)
    """
    with extra("studies", "Comparing edges"):
        from skimage.feature import hog

    if images.ndim != 4 or images.shape[1] != 1 or min(images.shape[2:]) < 2 * CELLS_OF_BLOCK[0]:
        raise ValueError(f"The images have shape {tuple(images.shape)}; expected (B, 1, H, W).")
    cell = tuple(max(1, size * CELL // 128) for size in images.shape[2:])
    rows = [
        hog(image.cpu().numpy(), orientations=ORIENTATIONS, pixels_per_cell=cell, cells_per_block=CELLS_OF_BLOCK)
        for image in images[:, 0].double().cpu()
    ]
    features = torch.from_numpy(np.stack(rows))
    return nn.functional.normalize(features - features.mean(0), dim=1)
