# SPDX-License-Identifier: Apache-2.0
"""Who is it? A network that learns to tell whether two images are of one person."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from monai_cadp.attacks.nearest import among_nearest
from monai_cadp.attacks.pair_auc import PairAUC
from monai_cadp.metrics.convolutional_features import convolutional_features
from monai_cadp.metrics.intervals import Estimate, bootstrap, bootstrap_mean
from monai_cadp.metrics.standardise import Standardise

__all__ = ["ReidentificationResult", "reidentification", "train_verification"]

BATCH_SIZE = 32
EMBEDDING_SIZE = 64
TEMPERATURE = 0.1


class ReidentificationResult(NamedTuple):
    """How well an attacker tells pairs of one person from pairs of two, and finds a probe's person in the gallery.

    Args:
        auc: area under the curve over pairs; 0.5 is guessing.
        precision_at_1: share of probes whose most similar gallery image is the right one.
        recall_at_k: share of probes whose right gallery image is among the k most similar.
        guess_at_1: the share that guessing finds with one image, 1 / n.
        guess_at_k: with k images, k / n.
    """

    auc: Estimate
    precision_at_1: Estimate
    recall_at_k: Estimate
    guess_at_1: float
    guess_at_k: float


def train_verification(
    gallery: Tensor,
    probes: Tensor,
    *,
    people: Tensor | None = None,
    epochs: int = 20,
    learning_rate: float = 1e-3,
    seed: int = 0,
    progress: bool = False,
) -> nn.Module:
    r"""Train an embedding under which two images of one person are closer than those of two.

    The attacker of Packhaeuser et al. learns from pairs like those that they will meet: for an attack on releases, from
    releases on one side. Images are standardised pixel by pixel, on each side by its own; volumes are looked at with
    half the resolution.

    Args:
        gallery: one image of each of n people (n, C, \*spatial), released or not; the network is trained where they
            are.
        probes: another image of the same people, in the same order.
        people: whose each pair is (n,), as numbers, where people have several pairs; None for n people.
        epochs: passes over the pairs.
        learning_rate: of Adam at the beginning.
        seed: of weights and order.
        progress: show a progress bar.

    Returns:
        The network: images and their side, 0 for the gallery and 1 for probes, to embeddings (B, 64) of length 1.

    References:
        Packhaeuser, Guendel, Muenster, Syben, Christlein, Maier: Deep learning-based patient re-identification is able
        to exploit the biometric nature of medical chest X-ray data, Scientific Reports 12, 2022.
        van den Oord, Li, Vinyals: Representation learning with contrastive predictive coding, 2018 (the loss).
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _Embedding(gallery, probes).to(gallery.device)
        optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
        steps = epochs * -(-len(gallery) // BATCH_SIZE)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, total_iters=steps)
        model.train()
        for _ in tqdm(range(epochs), desc="verification", disable=not progress):
            for batch in torch.randperm(len(gallery)).split(BATCH_SIZE):
                optimizer.zero_grad(set_to_none=True)
                similarity = model(gallery[batch], 0) @ model(probes[batch], 1).T / TEMPERATURE
                same = torch.arange(len(batch), device=similarity.device)
                if people is not None:
                    # Two pairs of one person are no pairs of two.
                    owner = people[batch].to(similarity.device)
                    other_pair = (owner[:, None] == owner) & (same[:, None] != same)
                    similarity = similarity.masked_fill(other_pair, -torch.inf)
                loss = nn.functional.cross_entropy(similarity, same) + nn.functional.cross_entropy(similarity.T, same)
                loss.backward()
                optimizer.step()
                schedule.step()
    return model.eval()


@torch.no_grad()
def reidentification(
    model: nn.Module,
    gallery: Tensor,
    probes: Tensor,
    seed: int = 0,
    *,
    k: int = 10,
    labels: Tensor | None = None,
    num_bootstraps: int = 1000,
) -> ReidentificationResult:
    r"""Return how well the network tells people whom it has not learnt from.

    Args:
        model: from :func:`train_verification`.
        gallery: one image of each of n other people (n, C, \*spatial).
        probes: another image of the same people, in the same order.
        seed: of the resampling.
        k: gallery images that the attacker looks at, for the recall.
        labels: public classes (n,). Pairs are of one class then, and so is a probe's gallery: what the class tells is
            no re-identification.
        num_bootstraps: how often people are drawn again for the intervals.

    Returns:
        The result over all n pairs of one person and all pairs of two, and over the n probes before their gallery;
        intervals by resampling people, and probes before the same gallery.

    Raises:
        ValueError: if k is not positive.
    """
    embedded = [torch.cat([model(x, side) for x in images.split(64)]) for side, images in enumerate((gallery, probes))]
    similarity = (embedded[0] @ embedded[1].T).cpu()
    people = torch.arange(len(gallery))
    labels = torch.zeros(len(gallery)) if labels is None else labels.cpu()
    comparable = labels[:, None] == labels
    resampled: dict[str, Any] = {"num_bootstraps": num_bootstraps, "seed": seed}
    pairs = PairAUC(similarity.T, comparable.T, people, people)
    auc = bootstrap(lambda drawn: pairs(drawn.bincount(minlength=len(people))), len(people), **resampled)
    sorted_from = similarity.T.masked_fill(~comparable, -torch.inf)
    at_1, at_k = (bootstrap_mean(among_nearest(sorted_from, people, looked_at), **resampled) for looked_at in (1, k))
    sizes = comparable.sum(1)
    guess_at_1, guess_at_k = (float((looked_at / sizes.double()).clamp(max=1).mean()) for looked_at in (1, k))
    return ReidentificationResult(auc, at_1, at_k, guess_at_1, guess_at_k)


class _Embedding(nn.Module):
    def __init__(self, gallery: Tensor, probes: Tensor) -> None:
        super().__init__()
        coarser = nn.AvgPool3d(2, ceil_mode=True) if gallery.ndim == 5 else nn.Identity()
        # Released and original images look different; each kind is brought into one space by maps of its own.
        self.sides = nn.ModuleList(nn.Sequential(Standardise(images), coarser) for images in (gallery, probes))
        self.features, size = convolutional_features(tuple(coarser(gallery[:1]).shape[1:]))
        self.maps = nn.ModuleList(nn.Linear(size, EMBEDDING_SIZE) for _ in range(2))

    def forward(self, x: Tensor, side: int) -> Tensor:
        return nn.functional.normalize(self.maps[side](self.features(self.sides[side](x))), dim=1)
