# SPDX-License-Identifier: Apache-2.0
"""The pairs of latents that are most easily told apart."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from monai_cadp.attacks.distinguisher import Game
from monai_cadp.privacy import AttributeResponse, Mechanism, RandomizedResponse

__all__ = ["PRIOR_REACH", "latent_games"]

# In standard deviations of the prior, for mechanisms that clip nothing.
PRIOR_REACH = 3.0
FAR = 1000.0


def latent_games(mechanism: Mechanism, num_directions: int = 2, weights: Tensor | None = None) -> list[Game]:
    """Return the games that attack a mechanism by itself.

    With C the clipping bound, or three deviations of the prior where nothing is clipped: inputs far outside at
    opposite ends of the first direction; the same at opposite corners of all directions; inputs inside at unequal
    distances from the middle; the largest numbers that a float holds; and opposite ends beside a companion that is NaN.
    Elsewhere the companion is zero. A label mechanism is attacked by every label against the first, and one of
    attributes by all yes against all no.

    Args:
        mechanism: what is attacked.
        num_directions: k, for a mechanism that was not configured.
        weights: of the directions (k,); None for equal ones.

    Returns:
        The games.

    Example:
        >>> from monai_cadp.privacy import LaplaceMechanism
        >>> game = latent_games(LaplaceMechanism(epsilon=1.0, clipping_bound=2.0))[0]
        >>> game.release(0, 5).shape
        torch.Size([5, 2, 2])
    """
    if isinstance(mechanism, RandomizedResponse):
        return [_label_game(mechanism, label) for label in range(1, mechanism.num_classes)]
    if isinstance(mechanism, AttributeResponse):
        return [_attribute_game(mechanism)]
    size = mechanism.num_directions or num_directions
    mechanism = mechanism if mechanism.num_directions else mechanism.configured(size, weights)
    reach = float(mechanism.parameters().get("clipping_bound", PRIOR_REACH))
    axis, corner, zero = torch.eye(size)[0], torch.ones(size), torch.zeros(size)
    far, largest = FAR * reach, torch.finfo(torch.float32).max
    pairs = {
        "opposite ends": (far * axis, -far * axis, zero),
        "opposite corners": (far * corner, -far * corner, zero),
        "unequal distances": (reach * axis, -reach / 4 * axis, zero),
        "largest numbers": (largest * axis, -largest * axis, zero),
        "opposite ends beside NaN": (far * axis, -far * axis, torch.full_like(zero, torch.nan)),
    }
    weights = torch.ones(size) if weights is None else weights.detach().cpu()
    games = []
    for name, (first, second, companion) in pairs.items():
        inputs = [torch.stack([candidate, companion]) for candidate in (first, second)]
        games.append(Game(name, partial(_release, mechanism, inputs), torch.stack([first, second]), weights))
    return games


def _label_game(mechanism: RandomizedResponse, label: int) -> Game:
    classes = mechanism.num_classes
    inputs = [torch.tensor([candidate, 0]) for candidate in (0, label)]

    def release(index: int, trials: int) -> Tensor:
        return one_hot(_release(mechanism, inputs, index, trials)[..., 0], classes).float()

    return Game(f"label 0 or {label}", release, torch.eye(classes)[[0, label]], torch.ones(classes))


def _attribute_game(mechanism: AttributeResponse) -> Game:
    no = torch.zeros(mechanism.num_attributes)
    yes = no.index_fill(0, torch.tensor(mechanism.randomized), 1.0)
    inputs = [torch.stack([candidate, no]) for candidate in (yes, no)]
    return Game("all yes or all no", partial(_release, mechanism, inputs), torch.stack([yes, no]), torch.ones(len(no)))


def _release(mechanism: Mechanism, inputs: list[Tensor], index: int, trials: int) -> Tensor:
    """Release an input and its companion (2, ...) in every trial; return (trials, 2, k)."""
    rows = inputs[index].repeat(trials, *[1] * (inputs[index].ndim - 1))
    return mechanism(rows).reshape(trials, 2, -1)
