# SPDX-License-Identifier: Apache-2.0
"""The conditional invertible network: whiten, couple, detail."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import partial
from types import MappingProxyType
from typing import cast

import torch
from torch import Tensor, nn

from monai_cadp.networks.base import InvertibleNetwork
from monai_cadp.networks.chain import Chain
from monai_cadp.networks.conditional_level import LARGEST_INPUT, LARGEST_LOG_SCALE, ConditionalLevel
from monai_cadp.networks.coupling import CLAMP, AffineCoupling
from monai_cadp.networks.detail import ChannelScale, DetailFlow
from monai_cadp.networks.haar import HaarLevel
from monai_cadp.networks.image_format import ImageFormat
from monai_cadp.networks.local_filter import LocalFilter
from monai_cadp.networks.local_flow import LocalFlow
from monai_cadp.networks.mask_refiner import MaskRefiner
from monai_cadp.networks.refiner import Refiner
from monai_cadp.networks.spectrum import cosine_transform, inverse_cosine_transform
from monai_cadp.networks.subnets import DenseSubnet
from monai_cadp.networks.whitening import GroupWhitening, LowRankWhitening

__all__ = ["ConditionalINN", "as_channels"]

# Images up to this size have detail flows that see their neighbourhood, larger ones such that see the whole image.
LARGEST_LOCAL_SIZE = 32
LARGEST_COARSE_SIZE = 512
# Of the coarse image, in pixels or voxels, where levels see all of it: split while it has more, or keeps the fewest.
# Volumes are few, and an organ lies in its grid alike: a Gaussian of low rank then knows more than levels can learn.
LARGEST_COARSE_PLACES = {2: 64, 3: 8192}
FEWEST_COARSE_PLACES = {2: 16, 3: 64}
# Of sizes that cannot be halved often enough: more are slow and drawn badly, and many more fill the memory.
MANY_COARSE_PLACES, TOO_MANY_COARSE_PLACES = {2: 1024, 3: 8192}, {2: 8192, 3: 32768}
NARROWEST_DETAIL = 8
CONTEXT_WIDTHS = {2: 64, 3: 32}
# What a refiner sees is the largest of the coarser images that is no larger than this along any axis.
LARGEST_REFINED_SIZE = 32
MASK_REFINER_WIDTH = 32
CONTEXT_GROUPS = 8
# Values of a channel that the curve of its histogram is given at.
NUM_MATCHED = 65
# Of a channel whose range is not known.
LARGEST_VALUE = torch.finfo(torch.float32).max


class ConditionalINN(InvertibleNetwork):
    r"""Exactly invertible network between images and standard-normal latents, given a public condition.

    An image is split by ``num_levels`` Haar levels into a coarse image and details. The coarse image is whitened
    inside a subspace, class by class, and passes dense couplings there: all global structure for almost no
    arithmetic. Every level's details pass a convolutional flow conditioned on the coarser image. Time and memory are
    linear in the number of pixels, and no batch statistic exists in any mode.

    Images larger than 32 are split down to a coarse image of 4 x 4 if their sizes allow it, of at most 8 x 8 otherwise,
    and volumes once, or to one of at most 8192 voxels. Every level sees the whole of its coarser image through a U-Net
    (:class:`ConditionalLevel`): what is drawn at one place knows what was drawn at all others. Smaller images have
    flows that see their neighbourhood (:class:`DetailFlow`), and a table row has no levels. ``context_width`` chooses.

    The likelihood is a sum over the coarse image and the levels (:meth:`part_log_probs`), and no level shares a
    parameter with another: each can be trained for as long as it learns.

    What is drawn (:meth:`draw`) passes a :class:`Refiner` on its way down: the coarser image of at most 32 x 32 is
    brought nearer to the training images, and finer levels draw the details of what comes out. Last, filters give it
    the grain and the range of images (:func:`~monai_cadp.networks.calibrate_spectrum`) and the strength of their edges
    (:func:`~monai_cadp.networks.calibrate_edges`), and a curve their histogram
    (:func:`~monai_cadp.networks.calibrate_histogram`), on the scale and in the grey values of images
    (:class:`ImageFormat`); channels that are masks are laid along the edges of what was drawn (:class:`MaskRefiner`).
    Encoding, decoding and the likelihood know of none of it.

    The latent vector holds the coarse image's latents first, then every level's details, coarsest first.

    Args:
        spatial_shape: (), (H, W) or (D, H, W); () is a table row with ``in_channels`` columns.
        in_channels: number of image channels or table columns.
        num_classes: for conditions that are class indices (B,).
        condition_size: for conditions that are float vectors (B, condition_size).
        num_levels: Haar levels, each of which needs even sizes; None takes as many as make the coarse image small
            enough for the dense part, and as the sizes allow.
        rank: dimension of the whitened subspace; at most the size of the coarse image. None takes all of a coarse
            image that levels see as a whole, and 80 otherwise.
        num_couplings: dense couplings inside the subspace; None for 16 with a U-Net, and 20 without.
        width: hidden features of the dense couplings.
        dropout: share of hidden features of the dense couplings that are left out in training; None for 0.3 with a
            U-Net, whose coarse image overfits a few hundred images within minutes, and 0 without.
        context_width: hidden channels of the U-Net through which a level sees the whole coarser image, a multiple of
            16. 0 for flows that see their neighbourhood; None for 64 (volumes: 32) or 0 by the size of the image.
        num_detail_couplings: couplings of every detail level; None for 10 with a U-Net, and 4 without. Without one the
            first of them predicts mean and scale from the coarser image.
        detail_width: hidden channels of the couplings; without a U-Net at the coarsest level, and every finer level has
            half as many, at least 8. None for as many as the U-Net has, or 16.
        num_unfolded_levels: of the levels that see the whole coarser image, how many of the coarsest do not fold their
            details. Cells of a volume have eight times its details, too many for few places: None for all but the
            finest level of volumes, and 0 in 2D.
        detail_depth: further convolutions where mean and scale are predicted.
        num_maps: learned maps at every detail level, for images that share a space, such as one organ on one grid; 0
            where a place has no meaning.
        num_local_couplings: couplings of the flow of what is somewhere else in every image, such as lesions; 0 for no
            such flow. It needs learned maps and even sizes of the coarse image.
        refiner_width: hidden channels of the refiner, a multiple of 16; 0 for no refiner. It needs a U-Net and two
            levels or more: None for half as many again as the U-Net has in 2D, and 0 otherwise.
        num_masks: how many of the last channels are masks' (:func:`~monai_cadp.data.join_masks`).
        mask_refiner_width: hidden channels of the refiner of masks, a multiple of 16; 0 for none. It needs masks and a
            U-Net: None for 32, and 0 without these.

    Raises:
        ValueError: if a size is not positive, there are not 0, 2 or 3 of them, ``num_levels`` does not divide them,
            ``num_masks`` leaves no channel to the image, or ``num_local_couplings``, ``refiner_width`` or
            ``mask_refiner_width`` was given without what it needs.

    References:
        Dinh, Sohl-Dickstein, Bengio: Density estimation using Real NVP, ICLR 2017.
        Yu, Derpanis, Brubaker: Wavelet Flow, NeurIPS 2020.
        Durkan, Bekasov, Murray, Papamakarios: Neural spline flows, NeurIPS 2019.
        Toelle, Koethe, Andre, Meder, Engelhardt: Content-aware differential privacy with conditional invertible neural
        networks, MICCAI DeCaF 2022.

    Example:
        >>> inn = ConditionalINN(spatial_shape=(28, 28), in_channels=1, num_classes=10)
        >>> x, condition = torch.rand(2, 1, 28, 28), torch.tensor([3, 7])
        >>> z, log_det = inn.encode(x, condition)
        >>> z.shape, log_det.shape
        (torch.Size([2, 784]), torch.Size([2]))
        >>> torch.allclose(inn.decode(z, condition), x, atol=1e-4)
        True
    """

    input_noise: Tensor
    latent_deviations: Tensor
    spectrum_gains: Tensor
    lowest_value: Tensor
    highest_value: Tensor
    matched_values: Tensor
    later_options = MappingProxyType(
        {
            "dropout": 0.0,
            "context_width": 0,
            "num_unfolded_levels": 0,
            "refiner_width": 0,
            "num_masks": 0,
            "mask_refiner_width": 0,
        }
    )
    later_tensors = MappingProxyType(
        {
            "latent_deviations": 1.0,
            "spectrum_gains": 1.0,
            "lowest_value": -LARGEST_VALUE,
            "highest_value": LARGEST_VALUE,
            "matched_values": 0.0,
            "local_filter.gains": 1.0,
            "image_format.percentiles": 0.0,
            "image_format.steps": 0.0,
            "image_format.mask_lines": 0.0,
            "image_format.most_pieces": 0.0,
        }
    )

    def __init__(
        self,
        spatial_shape: Sequence[int],
        in_channels: int = 1,
        num_classes: int | None = None,
        condition_size: int | None = None,
        *,
        num_levels: int | None = None,
        rank: int | None = None,
        num_couplings: int | None = None,
        width: int = 256,
        dropout: float | None = None,
        context_width: int | None = None,
        num_detail_couplings: int | None = None,
        detail_width: int | None = None,
        num_unfolded_levels: int | None = None,
        detail_depth: int = 0,
        num_maps: int = 0,
        num_local_couplings: int = 0,
        refiner_width: int | None = None,
        num_masks: int = 0,
        mask_refiner_width: int | None = None,
    ) -> None:
        super().__init__(spatial_shape, in_channels, num_classes, condition_size)
        spatial_shape, embedding_size = self.spatial_shape, self.condition_space.embedding_size
        if context_width is None:
            is_large = max(spatial_shape, default=0) > LARGEST_LOCAL_SIZE and not num_maps
            context_width = CONTEXT_WIDTHS[len(spatial_shape)] if is_large else 0
        if context_width < 0 or context_width % (2 * CONTEXT_GROUPS) or (context_width and num_maps):
            raise ValueError(
                f"context_width is {context_width} with num_maps {num_maps}; expected a multiple of "
                f"{2 * CONTEXT_GROUPS} without learned maps, or 0."
            )
        if num_couplings is None:
            num_couplings = 16 if context_width else 20
        if dropout is None:
            dropout = 0.3 if context_width else 0.0
        if num_detail_couplings is None:
            num_detail_couplings = 10 if context_width else 4
        if detail_width is None:
            detail_width = context_width or 16
        if num_levels is None:
            num_levels = _default_levels(spatial_shape, in_channels, whole=context_width > 0)
            if context_width:
                _check_coarse(spatial_shape, num_levels)
        if num_levels < 0 or (num_levels and not spatial_shape):
            raise ValueError(
                f"num_levels is {num_levels} for the sizes {spatial_shape}; expected 0 or more, and 0 for a table row."
            )
        if any(size % 2**num_levels for size in spatial_shape):
            raise ValueError(
                f"num_levels is {num_levels}, but the sizes {spatial_shape} are not all multiples of {2**num_levels}; "
                "pad the images or take fewer levels."
            )
        if num_unfolded_levels is None:
            num_unfolded_levels = max(num_levels - 1, 0) if context_width and len(spatial_shape) == 3 else 0
        if num_unfolded_levels < 0:
            raise ValueError(f"num_unfolded_levels is {num_unfolded_levels}; expected 0 or more.")
        self.coarse_shape = (in_channels, *(size // 2**num_levels for size in spatial_shape))
        coarse_size = math.prod(self.coarse_shape)
        if num_local_couplings and not (num_maps and all(size % 2 == 0 for size in self.coarse_shape[1:])):
            raise ValueError(
                f"num_local_couplings is {num_local_couplings} with num_maps {num_maps} and the coarse image "
                f"{self.coarse_shape}; a local flow needs num_maps of 1 or more and even sizes of the coarse image."
            )
        refined = self._refined_level(num_levels)
        may_refine = bool(context_width and refined)
        if refiner_width is None:
            refiner_width = max(context_width * 3 // 32, 1) * 16 if may_refine and len(spatial_shape) == 2 else 0
        if refiner_width < 0 or refiner_width % (2 * CONTEXT_GROUPS) or (refiner_width and not may_refine):
            raise ValueError(
                f"refiner_width is {refiner_width} with context_width {context_width} and num_levels {num_levels}; "
                f"expected a multiple of {2 * CONTEXT_GROUPS} with a U-Net and two levels or more, or 0."
            )
        if not 0 <= num_masks < in_channels:
            raise ValueError(
                f"num_masks is {num_masks}; expected 0 or more, and fewer than the {in_channels} channels of images."
            )
        has_masks = bool(context_width and num_masks)
        if mask_refiner_width is None:
            mask_refiner_width = MASK_REFINER_WIDTH if has_masks else 0
        if (
            mask_refiner_width < 0
            or mask_refiner_width % (2 * CONTEXT_GROUPS)
            or (mask_refiner_width and not has_masks)
        ):
            raise ValueError(
                f"mask_refiner_width is {mask_refiner_width} with context_width {context_width} and num_masks "
                f"{num_masks}; expected a multiple of {2 * CONTEXT_GROUPS} with a U-Net and masks, or 0."
            )
        if rank is None:
            rank = min(coarse_size, LARGEST_COARSE_SIZE) if context_width else 80
        rank = min(rank, coarse_size)
        self.config |= {
            "num_levels": num_levels,
            "rank": rank,
            "num_couplings": num_couplings,
            "width": width,
            "dropout": dropout,
            "context_width": context_width,
            "num_detail_couplings": num_detail_couplings,
            "detail_width": detail_width,
            "num_unfolded_levels": num_unfolded_levels,
            "detail_depth": detail_depth,
            "num_maps": num_maps,
            "num_local_couplings": num_local_couplings,
            "refiner_width": refiner_width,
            "num_masks": num_masks,
            "mask_refiner_width": mask_refiner_width,
        }
        self.input_scale = ChannelScale([(in_channels, *spatial_shape)])
        # Where images share a space, what the subspace leaves of a voxel has a size of its own.
        self.coarse_scale = ChannelScale([self.coarse_shape], per_voxel=True) if num_maps else None
        self.whitening = LowRankWhitening(
            [(coarse_size,)],
            rank=rank,
            num_groups=self.condition_space.num_groups,
            embedding_size=embedding_size,
            flow=_dense_flow(rank, num_couplings, width, dropout, embedding_size, is_bounded=context_width > 0),
        )
        self.local_flow = (
            LocalFlow(
                [self.coarse_shape],
                num_couplings=num_local_couplings,
                width=2 * detail_width,
                depth=detail_depth,
                num_maps=num_maps,
                embedding_size=embedding_size,
            )
            if num_local_couplings
            else None
        )
        # The local flow sees the subspace among all voxels, and does not leave it white.
        self.rewhitening = (
            GroupWhitening([(rank,)], num_groups=1, embedding_size=embedding_size) if num_local_couplings else None
        )
        if self.knows_noise:
            # The standard deviation of the noise that training added to images.
            self.register_buffer("input_noise", torch.zeros(()))
        # Index 0 is the coarsest level, next to the whitened coarse image.
        self.haar_levels = nn.ModuleList()
        self.detail_flows = nn.ModuleList()
        for level in range(num_levels):
            half = [size // 2 ** (num_levels - level) for size in spatial_shape]
            self.haar_levels.append(HaarLevel([(in_channels, *(2 * size for size in half))]))
            channels = (2 ** len(half) - 1) * in_channels
            flow: ConditionalLevel | DetailFlow
            if context_width:
                flow = ConditionalLevel(
                    channels,
                    in_channels,
                    half,
                    num_couplings=num_detail_couplings,
                    width=detail_width,
                    context_widths=_context_widths(context_width, half),
                    embedding_size=embedding_size,
                    may_fold=level >= num_unfolded_levels,
                )
            else:
                flow = DetailFlow(
                    channels,
                    in_channels,
                    half,
                    num_couplings=num_detail_couplings,
                    width=max(detail_width // 2**level, NARROWEST_DETAIL),
                    depth=detail_depth,
                    num_maps=num_maps,
                    embedding_size=embedding_size,
                )
            self.detail_flows.append(flow)
        if self.knows_noise:
            # Of latents of images that nothing was learnt from, part by part: see calibrate_latents.
            self.register_buffer("latent_deviations", torch.ones(self.num_flows))
            # Of the filter that draws pass, and the range of every channel: see calibrate_spectrum.
            self.register_buffer("spectrum_gains", torch.ones(in_channels, *spatial_shape))
            self.register_buffer("lowest_value", torch.full((in_channels,), -LARGEST_VALUE))
            self.register_buffer("highest_value", torch.full((in_channels,), LARGEST_VALUE))
            # What becomes of values at equal distances in that range; all alike for no change: see calibrate_histogram.
            self.register_buffer("matched_values", torch.zeros(in_channels, NUM_MATCHED))
            # Of edges, by direction, scale and place: see calibrate_edges. In space there are too many directions.
            self.local_filter = LocalFilter(in_channels, spatial_shape) if len(spatial_shape) == 2 else nn.Identity()
            self.image_format = ImageFormat(in_channels)
        # Drawing passes the refiner after so many levels.
        self.refined_level = refined
        self.refined_shape = [size // 2 ** (num_levels - refined) for size in spatial_shape]
        self.refiner = (
            Refiner(
                in_channels,
                self.refined_shape,
                widths=_context_widths(refiner_width, self.refined_shape),
                embedding_size=embedding_size,
            )
            if refiner_width
            else None
        )
        self.num_masks = num_masks
        self.mask_refiner = (
            MaskRefiner(
                in_channels - num_masks,
                num_masks,
                spatial_shape,
                widths=_context_widths(mask_refiner_width, spatial_shape),
                embedding_size=embedding_size,
            )
            if mask_refiner_width
            else None
        )

    def _refined_level(self, num_levels: int) -> int:
        """Return after how many levels there is the largest coarser image of a size that is refined; 0 for none."""
        size = max(self.spatial_shape, default=1)
        drawn = [level for level in range(1, num_levels) if size <= LARGEST_REFINED_SIZE * 2 ** (num_levels - level)]
        return max(drawn, default=0)

    def set_reversible(self, reversible: bool) -> None:
        """Choose whether training recomputes what couplings were given, and stores none of it.

        It says how gradients are computed and nothing of the network: checkpoints are the same.

        Args:
            reversible: True for memory that does not grow with the number of couplings, for a third more time.
        """
        # With dropout couplings would not be computed twice alike.
        dense = None if self.config["dropout"] else self.whitening
        for part in (dense, self.local_flow, *self.detail_flows):
            for module in [] if part is None else part.modules():
                if isinstance(module, Chain):
                    module.is_reversible = reversible

    @property
    def knows_noise(self) -> bool:
        """Whether drawing takes away the noise of training; so it is where levels see the whole coarser image."""
        return bool(self.config["context_width"])

    @property
    def has_details(self) -> bool:
        """Whether there are finer levels, cells, or a coarse image that its subspace does not hold all of."""
        has_inside = self.local_flow is not None or self.whitening.rank < self.whitening.size
        return len(self.detail_flows) > 0 or has_inside

    @property
    def has_refiner(self) -> bool:
        """Whether what is drawn passes a refiner, of the image or of its masks, that has learnt something."""
        return any(one is not None and one.is_trained for one in (self.refiner, self.mask_refiner))

    @property
    def is_new(self) -> bool:
        """Whether nothing was fitted to data yet: every coupling and the whitening are still the identity."""
        inside = self.whitening.inside
        identity = torch.eye(self.whitening.rank).to(inside.factor).expand_as(inside.factor)
        subnets = [module.subnet for module in self.modules() if isinstance(module, AffineCoupling)]
        last = [cast(nn.Module, subnet.last) for subnet in subnets]
        return torch.equal(inside.factor, identity) and not any(bool(p.any()) for one in last for p in one.parameters())

    def _encode(self, x: Tensor, embedding: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
        coarser, details = self.split(x)
        latent, log_det = self._encode_coarse(coarser[0], embedding, group)
        log_det = log_det + self.input_scale.log_det(x)
        if self.rewhitening is not None:
            one_group = torch.zeros_like(group)
            (inside,), inside_log_det = self.rewhitening([latent @ self.whitening.basis], c=[one_group, embedding])
            latent = self.whitening.with_inside(latent, inside)
            log_det = log_det + inside_log_det
        latents = [latent]
        for flow, context, detail in zip(self.detail_flows, coarser, details, strict=False):
            (latent,), level_log_det = flow([detail], c=[context, embedding])
            latents.append(latent.flatten(1))
            log_det = log_det + level_log_det
        if self.knows_noise:
            for part, deviation in enumerate(self.latent_deviations):
                log_det = log_det - latents[part].shape[1] * deviation.log()
                latents[part] = latents[part] / deviation
        return torch.cat(latents, dim=1), log_det

    @property
    def num_parts(self) -> int:
        """The coarse image, the levels and the refiners; one flow where a local flow whitens the subspace once more."""
        return self.num_flows + (self.refiner is not None) + (self.mask_refiner is not None)

    @property
    def num_flows(self) -> int:
        """The coarse image and the levels."""
        return 1 if self.rewhitening is not None else 1 + len(self.detail_flows)

    def part_of(self, name: str) -> int:
        """Return the part of a tensor of the state dict: 0 for the coarse image, then the levels, then the refiners."""
        first, _, rest = name.partition(".")
        if first == "refiner":
            return self.num_flows
        if first == "mask_refiner":
            return self.num_parts - 1
        return 1 + int(rest.partition(".")[0]) if first == "detail_flows" and self.num_parts > 1 else 0

    def _part_log_probs(
        self, x: Tensor, embedding: Tensor, group: Tensor, counts: Sequence[int], context: Tensor
    ) -> list[Tensor]:
        if self.num_parts == 1:
            return super()._part_log_probs(x, embedding, group, counts, context)
        coarser, details = self.split(x)
        seen = coarser if context is x else self.split(context)[0]
        scale = self.input_scale.log_det(x[:1]) / x[0].numel()
        parts = []
        for part, count in enumerate(counts[: self.num_flows]):
            if count == 0:
                parts.append(x.new_zeros(0))
                continue
            if part == 0:
                latent, log_det = self._encode_coarse(coarser[0][:count], embedding[:count], group[:count])
            else:
                conditions = [seen[part - 1][:count], embedding[:count]]
                (latent,), log_det = self.detail_flows[part - 1]([details[part - 1][:count]], c=conditions)
            size = math.prod(latent.shape[1:])
            if self.knows_noise:
                latent = latent / self.latent_deviations[part]
                log_det = log_det - size * self.latent_deviations[part].log()
            log_prior = -0.5 * (latent.flatten(1).square().sum(1) + size * math.log(2 * math.pi))
            parts.append(log_prior + log_det + scale * size)
        if self.refiner is not None:
            count = counts[self.num_flows]
            error = self.refiner.error(coarser[self.refined_level][:count], embedding[:count])
            parts.append(-self.num_latents * error)
        if self.mask_refiner is not None:
            count = counts[-1]
            images, masks = self._without_masks(x[:count])
            parts.append(-self.num_latents * self.mask_refiner.error(images, masks, embedding[:count]))
        return parts

    def _without_masks(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return the channels of images (B, C, \*spatial) without their masks', scaled, and those of the masks."""
        (scaled,), _ = self.input_scale([x], jac=False)
        first = self.in_channels - self.num_masks
        return scaled[:, :first], x[:, first:]

    def _encode_coarse(self, coarse: Tensor, embedding: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
        """Map the coarse image to latents (B, D) before the subspace is whitened again, and to log-determinants."""
        coarse, log_det = self.scaled(coarse)
        (latent,), linear_log_det = self.whitening([coarse.flatten(1)], c=[group, embedding])
        log_det = log_det + linear_log_det
        if self.local_flow is not None:
            (latent,), local_log_det = self.local_flow([latent.reshape(coarse.shape)], c=[embedding])
            log_det = log_det + local_log_det
        return latent.flatten(1), log_det

    def before_rewhitening(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        r"""Return what the local flow makes of the subspace (B, rank) of images (B, C, \*spatial)."""
        self.check_images(x)
        return self._encode_coarse(self.split(x)[0][0], *self.embed(condition, x))[0] @ self.whitening.basis

    def _decode(self, z: Tensor, embedding: Tensor, group: Tensor) -> Tensor:
        return self._from_latents(z, embedding, group, denoised=False, refined=False)

    def _draw(self, z: Tensor, embedding: Tensor, group: Tensor, refined: bool) -> Tensor:
        # A traced program holds no gradients, and no random numbers.
        drawn = not torch.jit.is_tracing()
        x = self._from_latents(z, embedding, group, denoised=drawn, refined=drawn and refined)
        return self._finished(x, embedding, refined) if drawn and self.knows_noise else x

    def unfiltered(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return what :meth:`draw` makes of latents (B, D) before the filter of :func:`calibrate_spectrum`."""
        return self._from_latents(z, *self.embed(condition, z), denoised=True, refined=True)

    def filtered(self, x: Tensor) -> Tensor:
        r"""Return images (B, C, \*spatial) with the grain, and within the range, of :func:`calibrate_spectrum`."""
        x = self.within_range(x)
        if bool((self.spectrum_gains == 1).all()):
            return x
        return self.within_range(inverse_cosine_transform(self.spectrum_gains * cosine_transform(x)))

    def unmatched(self, x: Tensor) -> Tensor:
        r"""Return images (B, C, \*spatial) with all that images have but their histogram."""
        x = self.within_range(self.local_filter(self.filtered(x)))
        return self.within_range(self.image_format.scaled(x))

    def _finished(self, x: Tensor, embedding: Tensor, refined: bool) -> Tensor:
        x = self.image_format.sized(self._matched(self.unmatched(x)))
        if refined and self.mask_refiner is not None:
            images, masks = self._without_masks(x)
            x = torch.cat([x[:, : -self.num_masks], self.mask_refiner(images, masks, embedding)], dim=1)
        return self.within_range(self.image_format.stored(x))

    def within_range(self, x: Tensor) -> Tensor:
        r"""Return images (B, C, \*spatial), every channel clipped to its range."""
        return x.clamp(as_channels(self.lowest_value, x), as_channels(self.highest_value, x))

    def _matched(self, x: Tensor) -> Tensor:
        """Return filtered images with the histogram of :func:`calibrate_histogram`, by lines between matched values."""
        if bool((self.matched_values == self.matched_values[:, :1]).all()):
            return x
        extent = (self.highest_value - self.lowest_value).clamp(min=torch.finfo(x.dtype).tiny)
        steps = (x - as_channels(self.lowest_value, x)) / as_channels(extent, x) * (NUM_MATCHED - 1)
        place = steps.floor().clamp(0, NUM_MATCHED - 2)
        channels = []
        for channel, (values, places) in enumerate(zip(self.matched_values, place.long().unbind(1), strict=True)):
            share = steps[:, channel] - place[:, channel]
            channels.append(values[places] + share * values.diff()[places])
        return torch.stack(channels, dim=1)

    def _from_latents(self, z: Tensor, embedding: Tensor, group: Tensor, denoised: bool, refined: bool) -> Tensor:
        latents = self.part_latents(z)
        if self.knows_noise:
            latents = [latent * deviation for latent, deviation in zip(latents, self.latent_deviations, strict=True)]
        latent = latents[0]
        if self.rewhitening is not None:
            inside = latent @ self.whitening.basis
            (inside,), _ = self.rewhitening([inside], c=[torch.zeros_like(group), embedding], rev=True, jac=False)
            latent = self.whitening.with_inside(latent, inside)
        if self.local_flow is not None:
            (latent,), _ = self.local_flow([self._as_image(latent)], c=[embedding], rev=True, jac=False)
        (coarse,), _ = self.whitening([latent.flatten(1)], c=[group, embedding], rev=True, jac=False)
        coarse = self._as_image(coarse)
        if self.coarse_scale is not None:
            (coarse,), _ = self.coarse_scale([coarse], rev=True, jac=False)
        levels = zip(self.haar_levels, self.detail_flows, latents[1:], strict=True)
        for level, (haar, flow, latent) in enumerate(levels):
            if refined and self.refiner is not None and level == self.refined_level:
                coarse = self.refiner(coarse, embedding, z)
            latent = latent.reshape(-1, *cast(DetailFlow, flow).dims_in[0])
            if denoised and isinstance(flow, ConditionalLevel):
                # The Haar levels are orthonormal: noise of pixels is noise of details.
                detail = flow.denoised(latent, coarse, embedding, self.input_noise / self.input_scale.scale)
            else:
                (detail,), _ = flow([latent], c=[coarse, embedding], rev=True, jac=False)
            (coarse,), _ = haar([coarse, detail], rev=True, jac=False)
        (x,), _ = self.input_scale([coarse], rev=True, jac=False)
        return x

    def with_details(self, z: Tensor, temperature: float) -> Tensor:
        """Multiply what latents (B, D) hold of details: the finer levels, and the coarse image outside the subspace.

        With a local flow it is what is smaller than its cells, for the cells hold lesions.
        """
        coarse, finer = z[:, : self.whitening.size], z[:, self.whitening.size :]
        details = coarse - (coarse @ self.whitening.basis) @ self.whitening.basis.T
        if self.local_flow is not None:
            details = self.local_flow.inside_cells(self._as_image(details)).flatten(1)
        return torch.cat([coarse - (1 - temperature) * details, temperature * finer], dim=1)

    def _as_image(self, coarse: Tensor) -> Tensor:
        return coarse.reshape(-1, *self.coarse_shape)

    def scaled(self, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """Return the coarse image as the whitening sees it, and the log-determinant (B,) of the scale."""
        if self.coarse_scale is None:
            return coarse, coarse.new_zeros(coarse.shape[0])
        (scaled,), log_det = self.coarse_scale([coarse])
        return scaled, cast(Tensor, log_det)

    def part_latents(self, z: Tensor) -> list[Tensor]:
        """Return latents (B, D) part by part: of the coarse image, then of every level."""
        levels = (math.prod(cast(DetailFlow, flow).dims_in[0]) for flow in self.detail_flows)
        return list(z.split([self.whitening.size, *levels], dim=1))

    def split(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the coarser image, scaled, and the details of every level, coarsest first.

        The first coarser image is the coarse one of the dense part; without levels it is the scaled image itself.
        """
        coarser: list[Tensor] = []
        details: list[Tensor] = []
        (x,), _ = self.input_scale([x], jac=False)
        for haar in reversed(self.haar_levels):
            (x, detail), _ = haar([x], jac=False)
            coarser.insert(0, x)
            details.insert(0, detail)
        return coarser or [x], details


def as_channels(values: Tensor, x: Tensor) -> Tensor:
    r"""Return values (C,) in a shape that goes with images (B, C, \*spatial)."""
    return values.reshape(1, -1, *(1 for _ in x.shape[2:]))


def _default_levels(spatial_shape: tuple[int, ...], in_channels: int, whole: bool) -> int:
    def is_split(places: int, levels: int) -> bool:
        if not whole:
            return in_channels * places > LARGEST_COARSE_SIZE
        dims = len(spatial_shape)
        # What may stay as it is goes on as long as enough is kept; of volumes one such level is enough.
        may_go_on = dims == 2 or levels == 0
        keeps_enough = places >= 2**dims * FEWEST_COARSE_PLACES[dims]
        return places > LARGEST_COARSE_PLACES[dims] or (may_go_on and keeps_enough)

    levels = 0
    sizes = list(spatial_shape)
    while sizes and is_split(math.prod(sizes), levels) and not any(size % 2 for size in sizes):
        sizes = [size // 2 for size in sizes]
        levels += 1
    return levels


def _check_coarse(spatial_shape: tuple[int, ...], num_levels: int) -> None:
    """Warn of sizes that leave a coarse image which is large for couplings; raise ValueError if it is far too large."""
    coarse = [size // 2**num_levels for size in spatial_shape]
    places, dims = math.prod(coarse), len(spatial_shape)
    if places <= MANY_COARSE_PLACES[dims]:
        return
    step = 2 ** math.ceil(math.log2(max(spatial_shape) / 8))
    better = " x ".join(str(max(round(size / step), 1) * step) for size in spatial_shape)
    said = (
        f"Images of {' x '.join(map(str, spatial_shape))} can be halved {num_levels} times, to "
        f"{' x '.join(map(str, coarse))}; sizes that can be halved more often, such as {better},"
    )
    if places > TOO_MANY_COARSE_PLACES[dims]:
        raise ValueError(f"{said} are needed, for the coarse image would be too large; give such a spatial_shape.")
    warnings.warn(f"{said} train faster and are drawn better.", stacklevel=3)


def _context_widths(width: int, spatial_shape: Sequence[int]) -> list[int]:
    """Return the widths of a U-Net at full, half and quarter size, as far as the image has these."""
    # Details are folded before: an image of 8 x 8 is one of 4 x 4 to the U-Net.
    sizes = max(1, min(3, min(spatial_shape).bit_length() - 1))
    return [width, width * 3 // 2, width * 2][:sizes]


def _dense_flow(
    rank: int, num_couplings: int, width: int, dropout: float, embedding_size: int, is_bounded: bool
) -> Chain | None:
    """Couplings over random halves; every second one swaps the halves of the one before."""
    if rank < 2 or num_couplings == 0:
        return None
    generator = torch.Generator().manual_seed(0)
    subnet = partial(
        DenseSubnet,
        width=width,
        dropout=dropout,
        embedding_size=embedding_size,
        largest_input=LARGEST_INPUT if is_bounded else None,
    )
    bound = LARGEST_LOG_SCALE if is_bounded else CLAMP
    couplings = []
    for index in range(num_couplings):
        if index % 2 == 0:
            order = torch.randperm(rank, generator=generator).tolist()
        passive = order[: rank // 2] if index % 2 == 0 else order[rank // 2 :]
        couplings.append(
            AffineCoupling([(rank,)], [(embedding_size,)], passive=passive, subnet=subnet, largest_log_scale=bound)
        )
    return Chain(couplings)
