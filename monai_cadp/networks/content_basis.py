# SPDX-License-Identifier: Apache-2.0
"""The latent directions along which images change most."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from monai_cadp.networks.base import InvertibleNetwork
from monai_cadp.networks.inn import ConditionalINN
from monai_cadp.networks.training_record import as_events, as_texts, derived_event
from monai_cadp.networks.weights_snapshot import WeightsSnapshot

__all__ = ["ContentBasis"]

# Of directions that nobody has recorded, and of those that somebody has changed.
UNRECORDED = "a content basis without a record"
CHANGED = "a content basis that was changed without a record"
OVERSAMPLING = 16
# Numbers, of four bytes each.
MOST_KEPT = 2**26


class ContentBasis(nn.Module):
    r"""Orthonormal latent directions that carry the content of images, with the share of change that each carries.

    With :math:`J(z)` the Jacobian of ``decode``, the directions are the leading eigenvectors of

    .. math:: M = E_{z \sim N(0, I)} [ J(z)^T J(z) ],

    so that :math:`w^T M w` is the mean squared change of the image for a unit step along w. The expectation runs over
    the network's own prior, never over images: the basis costs no privacy. It tells of the network's weights, and so it
    carries the record of what these have learnt from (:attr:`training_events`), wherever it is used.

    Args:
        directions: orthonormal columns (R, k) over the first R of D latents; the others carry no content.
        weights: positive (k,), largest first: the eigenvalues or a power of them; only their ratios matter.
        num_latents: D; R if left out.
        training_events: all that the directions and weights have been learnt from, as
            :attr:`InvertibleNetwork.training_events` gives it: ``()`` for directions that depend on no data, such as
            the axes. None, if nobody knows: they count as learnt from unprotected people, and so do tensors that are
            changed in place.

    Raises:
        ValueError: if shapes do not fit, the columns are not orthonormal within 1e-3, or the record is not usable.
    """

    directions: Tensor
    weights: Tensor

    def __init__(
        self,
        directions: Tensor,
        weights: Tensor,
        num_latents: int | None = None,
        *,
        training_events: Iterable[Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        if directions.ndim != 2 or weights.shape != directions.shape[1:] or weights.numel() == 0:
            raise ValueError(
                f"The basis got directions of shape {tuple(directions.shape)} and weights of shape "
                f"{tuple(weights.shape)}; expected (R, k) and (k,)."
            )
        error = (directions.T @ directions - torch.eye(len(weights)).to(directions)).abs().max()
        if not bool(error < 1e-3) or not bool((weights > 0).all()):
            raise ValueError("The basis got directions that are not orthonormal, or weights that are not positive.")
        self.num_latents = directions.shape[0] if num_latents is None else num_latents
        if self.num_latents < directions.shape[0]:
            raise ValueError(
                f"The basis got directions of length {directions.shape[0]} for {num_latents} latents; expected no more."
            )
        # Of its own: whoever has given them may change them.
        self.register_buffer("directions", directions.detach().float().clone())
        self.register_buffer("weights", weights.detach().float().clone())
        if training_events is None:
            training_events = [derived_event(UNRECORDED, self.fingerprint())]
        self._events = as_texts(training_events)
        self._sealed = WeightsSnapshot(self)
        # Of a load that is under way: the name of the record, whether tensors come, and what their record says.
        self._incoming: tuple[str, bool, Mapping[str, Any] | None] = ("", False, None)
        self.register_load_state_dict_pre_hook(_before_loading)
        self.register_load_state_dict_post_hook(_after_loading)

    @property
    def training_events(self) -> tuple[dict[str, Any], ...]:
        """All that the directions and weights have been learnt from, as plain data; it only grows."""
        self._notice_changes()
        return as_events(self._events)

    def first(self, num_directions: int) -> ContentBasis:
        """Return the basis of the first directions alone, with its record.

        Args:
            num_directions: how many.

        Returns:
            A basis with tensors of its own.

        Raises:
            ValueError: if there are not so many.
        """
        if not 1 <= num_directions <= self.num_directions:
            raise ValueError(f"num_directions is {num_directions}; expected 1 to {self.num_directions}.")
        directions, weights = self.directions[:, :num_directions], self.weights[:num_directions]
        return ContentBasis(directions, weights, self.num_latents, training_events=self.training_events)

    def round_to_half(self) -> None:
        """Round the directions to the numbers of half precision, in place; whoever stores them may store them so."""
        self._notice_changes()
        self.directions.copy_(self.directions.half())
        self._sealed = WeightsSnapshot(self)

    def _notice_changes(self) -> None:
        """Record a change of the directions or weights that nobody has recorded."""
        if not self._sealed.matches(self):
            self._events |= as_texts([derived_event(CHANGED, self.fingerprint())])
            self._sealed = WeightsSnapshot(self)

    def _apply(self, fn: Any, recurse: bool = True) -> ContentBasis:
        """Follow a move to another device or type, which adds nothing that was learnt."""
        self._notice_changes()
        before = self._sealed
        super()._apply(fn, recurse)
        if before.matches_converted(self):
            self._sealed = WeightsSnapshot(self)
        return self

    def get_extra_state(self) -> dict[str, Any]:
        """Return the record, which travels in the state dict."""
        return {"training_events": list(self.training_events), "fingerprint": self.fingerprint()}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Add the record of what is loaded.

        Raises:
            ValueError: if it is none.
        """
        self._events |= as_texts(state["training_events"])
        self._incoming = (*self._incoming[:2], state)

    @property
    def num_directions(self) -> int:
        """k, the number of directions."""
        return self.directions.shape[1]

    def fingerprint(self) -> str:
        """Return the SHA-256 of the directions and weights, in single precision."""
        tensors = (self.directions, self.weights)
        plain = (tensor.detach().cpu().float().contiguous().numpy() for tensor in tensors)
        return hashlib.sha256(b"".join(numbers.tobytes() for numbers in plain)).hexdigest()

    @classmethod
    def fit(
        cls,
        inn: InvertibleNetwork,
        num_directions: int = 64,
        *,
        num_samples: int = 2048,
        num_passes: int = 3,
        batch_size: int = 128,
        in_subspace: bool = False,
        weight_power: float = 1.0,
        seed: int = 0,
        progress: bool = False,
    ) -> ContentBasis:
        r"""Find the content of a network without looking at data.

        Vector-Jacobian products with Gaussian probes, :math:`y = J(z)^T g`, have the covariance M. Randomised
        subspace iteration on their sample covariance needs memory for a few D x k matrices; the products of all samples
        are kept beside, if they are no more than 2^26 numbers, and drawn again in every pass otherwise.

        Args:
            inn: the network; not changed.
            num_directions: k, clipped to D.
            num_samples: prior samples (and probes).
            num_passes: passes of subspace iteration over the samples.
            batch_size: samples decoded at once.
            in_subspace: look for content only where a :class:`ConditionalINN` whitens its coarse image, whose latents
                come first: R is their number. Far fewer directions to choose from need far fewer samples.
            weight_power: weights are the eigenvalues to this power. 1 is for the smallest squared error of the image
                as a whole; less leaves more of the budget to what changes fewer voxels.
            seed: of the prior samples; public.
            progress: show a progress bar.

        Returns:
            The basis, with weights whose mean is 1.

        Raises:
            ValueError: if a number is out of range, or a network that has no such subspace was asked for it.

        References:
            Halko, Martinsson, Tropp: Finding structure with randomness, SIAM Review 53, 2011, algorithm 4.4.

        Example:
            >>> inn = ConditionalINN(spatial_shape=(), in_channels=4)
            >>> basis = ContentBasis.fit(inn, num_directions=2, num_samples=64)
            >>> basis.directions.shape, basis.weights.shape
            (torch.Size([4, 2]), torch.Size([2]))
        """
        cls.check_fit(inn, num_directions, num_samples, in_subspace=in_subspace, weight_power=weight_power)
        subspace = _subspace(inn) if in_subspace else None
        size = inn.num_latents if subspace is None else subspace.shape[1]
        num_directions = min(num_directions, size)
        width = min(size, num_directions + OVERSAMPLING)
        device = inn.device
        directions = torch.randn(size, width, generator=torch.Generator().manual_seed(seed)).to(device)
        small = torch.zeros(width, width, device=device)
        num_batches = -(-num_samples // batch_size)
        # Decoding takes nearly all of the time: what every pass would find again is kept, where there is memory for it.
        is_kept = num_batches * batch_size * size <= MOST_KEPT
        total = num_batches * (1 if is_kept else num_passes + 1)
        with tqdm(total=total, desc="content basis", disable=not progress) as bar:

            def drawn() -> Iterator[Tensor]:
                generator = torch.Generator().manual_seed(seed + 1)
                for _ in range(num_batches):
                    gradients = _probe(inn, batch_size, generator, device)
                    yield gradients if subspace is None else gradients[:, : len(subspace)] @ subspace
                    bar.update()

            kept = list(drawn()) if is_kept else None
            for index in range(num_passes + 1):
                directions = torch.linalg.qr(directions).Q
                product = torch.zeros_like(directions)
                small = torch.zeros(width, width, device=device)
                for gradients in drawn() if kept is None else kept:
                    inside = gradients @ directions
                    small += inside.T @ inside
                    if index < num_passes:
                        product += gradients.T @ inside
                directions = product if index < num_passes else directions
        values, vectors = torch.linalg.eigh(small.double())
        vectors = vectors.flip(1)[:, :num_directions].float()
        values = values.flip(0)[:num_directions].float().clamp(min=1e-12)
        weights = values**weight_power
        directions = directions @ vectors
        if subspace is not None:
            directions = subspace @ directions
        return cls(directions, weights / weights.mean(), inn.num_latents, training_events=inn.training_events)

    @staticmethod
    def check_fit(
        inn: InvertibleNetwork,
        num_directions: int,
        num_samples: int,
        *,
        in_subspace: bool = False,
        weight_power: float = 1.0,
    ) -> None:
        """Raise what a fit with these arguments would raise, before a network is trained for it."""
        if num_directions < 1 or num_samples < 1:
            raise ValueError(
                f"The basis got num_directions {num_directions} and num_samples {num_samples}; expected 1 or more of "
                "each."
            )
        if not 0 <= weight_power <= 1:
            raise ValueError(f"weight_power is {weight_power}; expected 0 to 1.")
        if in_subspace:
            _subspace(inn)

    @classmethod
    def leading(cls, inn: ConditionalINN, num_directions: int = 64, *, in_subspace: bool = False) -> ContentBasis:
        """Return the leading directions of the whitening layer with equal weights: the shape of a basis, before any
        fit.

        Args:
            inn: the network.
            num_directions: k, clipped to the rank of the whitening layer.
            in_subspace: as in ``fit``.

        Returns:
            A basis into which a fitted one can be loaded.
        """
        size = inn.whitening.size
        directions = torch.zeros(size if in_subspace else inn.num_latents, min(num_directions, inn.whitening.rank))
        directions[:size] = inn.whitening.basis[:, : directions.shape[1]].cpu()
        leading, weights = torch.linalg.qr(directions).Q, torch.ones(directions.shape[1])
        return cls(leading, weights, inn.num_latents, training_events=inn.training_events)

    def project(self, z: Tensor) -> Tensor:
        """Return the content (B, k) of latents (B, D)."""
        return z[:, : self.directions.shape[0]] @ self.directions

    def complete(self, content: Tensor, rest: Tensor) -> Tensor:
        """Return latents (B, D) with this content (B, k), and all other directions taken from ``rest`` (B, D)."""
        leading = self.directions.shape[0]
        completed = rest[:, :leading] + (content - self.project(rest)) @ self.directions.T
        return torch.cat([completed, rest[:, leading:]], dim=1)


def _before_loading(basis: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """See what was changed before it is overwritten."""
    assert isinstance(basis, ContentBasis)
    basis._notice_changes()
    brings_tensors = any(prefix + name in state for name, _ in basis.named_buffers())
    basis._incoming = (f"{prefix}_extra_state", brings_tensors, None)


def _after_loading(basis: nn.Module, incompatible: Any) -> None:
    """Take directions of versions in which a basis had no record, and count them as learnt from unprotected people."""
    assert isinstance(basis, ContentBasis)
    (name, brings_tensors, record), basis._incoming = basis._incoming, ("", False, None)
    if name in incompatible.missing_keys:
        incompatible.missing_keys.remove(name)
    # Of earlier versions, records did not say what they were of.
    known = None if record is None else record.get("fingerprint", basis.fingerprint())
    if brings_tensors and known != basis.fingerprint():
        basis._events |= as_texts([derived_event(UNRECORDED, basis.fingerprint())])
    basis._sealed = WeightsSnapshot(basis)


def _subspace(inn: InvertibleNetwork) -> Tensor:
    if not isinstance(inn, ConditionalINN):
        raise ValueError(f"in_subspace was asked for with a {type(inn).__name__}; expected a ConditionalINN.")
    return inn.whitening.basis


def _probe(inn: InvertibleNetwork, batch_size: int, generator: torch.Generator, device: torch.device) -> Tensor:
    z = torch.randn(batch_size, inn.num_latents, generator=generator).to(device).requires_grad_()
    condition = inn.condition_space.sample(batch_size, generator)
    # In training mode, with gradients, a network may leave features out at random.
    was_training = inn.training
    inn.eval()
    with torch.enable_grad():
        image = inn.decode(z, None if condition is None else condition.to(device))
        probe = torch.randn(image.shape, generator=generator).to(image)
        (gradient,) = torch.autograd.grad(image, z, probe)
    inn.train(was_training)
    return gradient
