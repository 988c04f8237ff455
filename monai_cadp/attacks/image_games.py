# SPDX-License-Identifier: Apache-2.0
"""The pairs of images that are most easily told apart, and what an attacker reads from a released image."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from monai_cadp.attacks.distinguisher import Game
from monai_cadp.attacks.latent_games import PRIOR_REACH
from monai_cadp.networks import ContentBasis
from monai_cadp.privacy import AttributeResponse
from monai_cadp.release import Privatizer, Releaser
from monai_cadp.release.releaser import BaseReleaser, as_releaser

__all__ = ["image_games"]

NUM_SAMPLES = 256


def image_games(releaser: Releaser) -> list[Game]:
    r"""Return the games that attack a releaser end to end: images in, images out.

    The attacker knows the network. They encode the released image again and read the content from its latents; with
    declared content, they read the features. They also see the pixels along the difference of the two originals, where
    a leak past the mechanism would show, and the released label. The images are samples of the prior with contents at
    opposite ends and corners, and at unequal distances from the middle (with declared content: the two of 256 samples
    whose features are farthest apart); all black and all white; and :math:`\pm 10^{30}`. The companion is the middle of
    the prior, and once NaN. A public condition is the same for both: the default one, the first class, or zeros. If
    the label is private, the two images have different ones.

    An image that consists of several images of a privatizer, such as the slices of a volume, is attacked with all of
    them alike, and what is read is their mean. Of a releaser without a privatizer in it the attacker knows nothing, and
    looks at pixels. Ledgers are left out, for every trial is a draw of its own.

    Args:
        releaser: what is attacked.

    Returns:
        The games.

    Example:
        >>> from monai_cadp.networks import ConditionalINN
        >>> from monai_cadp.privacy import SubsetSelection
        >>> inn = ConditionalINN(spatial_shape=(8, 8))
        >>> privatizer = Privatizer(inn, SubsetSelection(2.0, num_candidates=64), ContentBasis.leading(inn, 4))
        >>> game = image_games(privatizer)[0]
        >>> game.release(0, 5).shape  # four contents and the pixels, of the release and of its companion
        torch.Size([5, 2, 5])
    """
    whole = as_releaser(releaser).unrecorded
    attacker = _Stranger(whole) if whole.core is None else _Insider(whole, whole.core)
    return [attacker.game(name, torch.stack(images)) for name, images in attacker.pairs().items()]


class _Stranger:
    """Knows which two images it may be; sees what is released, and nothing of how."""

    def __init__(self, releaser: BaseReleaser) -> None:
        self.releaser, self.weights = releaser, torch.ones(1)
        space, device = releaser.condition_space, releaser.device
        # Of the first image, the second, and their companion.
        self.conditions: Tensor | None = None
        if space.default is not None:
            self.conditions = torch.stack([space.default] * 3)
        elif space.num_classes is not None:
            self.conditions = torch.zeros(3, dtype=torch.long, device=device)
        elif space.condition_size is not None:
            self.conditions = torch.zeros(3, space.condition_size, device=device)

    def game(self, name: str, images: Tensor) -> Game:
        """Return the game of two images and their companion (3, C, *spatial)."""
        # The difference of the largest numbers has a norm that float32 does not hold.
        line = (images[0].double() - images[1].double()).flatten()
        line = line / line.norm()
        targets = self._see(images[:2], None if self.conditions is None else self.conditions[:2], line)
        weights = torch.zeros(targets.shape[1])
        weights[: len(self.weights)] = self.weights
        return Game(name, partial(self._release, images, line), targets, weights)

    def pairs(self) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        """Return two images (C, *spatial) and their companion, by name."""
        middle = torch.full(self.releaser.image_shape, 0.5, device=self.releaser.device)
        return {
            "black and white": (torch.zeros_like(middle), torch.ones_like(middle), middle),
            "black and white beside NaN": (
                torch.zeros_like(middle),
                torch.ones_like(middle),
                torch.full_like(middle, torch.nan),
            ),
            "largest numbers": (torch.full_like(middle, 1e30), torch.full_like(middle, -1e30), middle),
        }

    def _release(self, images: Tensor, line: Tensor, index: int, trials: int) -> Tensor:
        both = [index, 2] * trials
        condition = None if self.conditions is None else self.conditions[both]
        released, used = self.releaser.release_with_conditions(images[both], condition)
        return self._see(released, used, line).reshape(trials, 2, -1)

    def _see(self, released: Tensor, condition: Tensor | None, line: Tensor) -> Tensor:
        """Return all that is read from released images: pixels along a line."""
        return (released.flatten(1).double() @ line)[:, None]


class _Insider(_Stranger):
    """Knows the network as well."""

    def __init__(self, releaser: BaseReleaser, privatizer: Privatizer) -> None:
        super().__init__(releaser)
        self.privatizer, self.inn, self.content = privatizer, privatizer.inn, privatizer.content
        response = privatizer.label_mechanism
        if isinstance(response, AttributeResponse):
            # Attributes that are kept are public: both images have the same.
            assert self.conditions is not None
            self.conditions[1, response.randomized] = 1
        elif response is not None:
            self.conditions = torch.tensor([0, 1, 0], device=self.inn.device)
        if isinstance(self.content, ContentBasis):
            self.weights = self.content.weights.cpu()
        else:
            self.samples = self._decode(self._prior(NUM_SAMPLES))
            self.features = torch.nan_to_num(self.content.describe(self.samples))
            self.weights = 1 / self.features.var(0).clamp(min=1e-12).cpu()

    @torch.no_grad()
    def pairs(self) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        """Return two images (C, *spatial) and their companion, by name."""
        (middle,) = self._decode(torch.zeros(1, self.inn.num_latents, device=self.inn.device))
        pairs = {}
        if isinstance(self.content, ContentBasis):
            size = self.content.num_directions
            # Past the bound, but not so far that the network's inverse loses its digits.
            bound = float(self.privatizer.mechanism.parameters().get("clipping_bound", 0.0))
            axis, corner = torch.eye(size)[0], torch.ones(size)
            contents = max(2 * bound, PRIOR_REACH) * torch.stack([axis, -axis, corner, -corner, axis, -axis / 4])
            # What lies outside the contents differs as well, so that it would show if it got through.
            images = self._decode(self.content.complete(contents.to(self.inn.device), self._prior(len(contents))))
            left, right = images[0], images[1]
            pairs["opposite corners"] = (images[2], images[3], middle)
            pairs["unequal distances"] = (images[4], images[5], middle)
        else:
            features = self.features * self.weights.sqrt().to(self.inn.device)
            farthest = int(torch.cdist(features, features).argmax())
            left, right = self.samples[farthest // NUM_SAMPLES], self.samples[farthest % NUM_SAMPLES]
        pairs["opposite ends"] = (left, right, middle)
        pairs["opposite ends beside NaN"] = (left, right, torch.full_like(middle, torch.nan))
        pairs["black and white"] = (torch.zeros_like(middle), torch.ones_like(middle), middle)
        pairs["largest numbers"] = (torch.full_like(middle, 1e30), torch.full_like(middle, -1e30), middle)
        return pairs

    @torch.no_grad()
    def _decode(self, z: Tensor) -> Tensor:
        return self.inn.decode(z, self._for_all(0, len(z)))

    def _prior(self, count: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(count, self.inn.num_latents, generator=generator).to(self.inn.device)

    def _for_all(self, index: int, count: int) -> Tensor | None:
        if self.conditions is None:
            return None
        return self.conditions[index].expand(count, *self.conditions.shape[1:])

    def _release(self, images: Tensor, line: Tensor, index: int, trials: int) -> Tensor:
        both = torch.tensor([index, 2] * trials, device=self.releaser.device)
        count = self.releaser.num_pieces
        condition = None if self.conditions is None else self.conditions[both]
        whole = self.releaser.whole(images[both].repeat_interleave(count, dim=0))
        released, used = self.releaser.release_with_conditions(whole, condition)
        of_pieces = None if used is None else used.repeat_interleave(count, dim=0)
        seen = self._see(self.releaser.pieces(released), of_pieces, line)
        return seen.reshape(trials, 2, count, -1).mean(2)

    @torch.no_grad()
    def _see(self, released: Tensor, condition: Tensor | None, line: Tensor) -> Tensor:
        """Return all that is read from released images: contents, pixels along a line, the label if it is private."""
        if isinstance(self.content, ContentBasis):
            content = self.content.project(self.inn.encode(released, condition)[0])
        else:
            content = self.content.describe(released)
        seen = [content.double(), (released.flatten(1).double() @ line)[:, None]]
        response = self.privatizer.label_mechanism
        if isinstance(response, AttributeResponse) and condition is not None:
            seen.append(condition[:, response.randomized].double())
        elif response is not None and condition is not None:
            seen += [(condition == label).double()[:, None] for label in (0, 1)]
        return torch.cat(seen, dim=1)
