# SPDX-License-Identifier: Apache-2.0
"""A classifier trained on originals with DP-SGD: for those who need no images."""

from __future__ import annotations

from typing import Any

import torch
from monai.networks.layers.factories import Conv, Pool
from torch import Tensor, nn
from tqdm import tqdm

from monai_cadp.baselines.cells import checked_images
from monai_cadp.baselines.classifier_gradient import clipped_gradient_sum
from monai_cadp.extras import extra
from monai_cadp.metrics.classifier import check_several_labels
from monai_cadp.privacy import PrivacyGuarantee, TrainingData
from monai_cadp.privacy.checks import checked_positive
from monai_cadp.privacy.noisy_sum import SumLattice, poisson_batch
from monai_cadp.privacy.training_accounting import noise_multiplier_for, sgd_epsilon

__all__ = ["PrivateClassifier", "train_private_classifier"]

LEAST_SIZE = 8
# Of the last feature maps.
SIDE = 4
MOMENTUM = 0.9


class PrivateClassifier(nn.Module):
    r"""A small convolutional network and what its training promises to everyone whose image it has learned from.

    Images of 28 x 28 pixels meet the network of Opacus' example of MNIST, with bounded activations, which keep
    gradients small (Papernot et al.). No layer looks at more than one image.

    Args:
        shape: of an image (C, \*spatial), in two or three dimensions, of 8 pixels or more a side.
        num_classes: number of classes.
        guarantee: of the training; None while there is none.

    References:
        Papernot, Thakurta, Song, Chien, Erlingsson: Tempered sigmoid activations for deep learning with differential
        privacy, AAAI 2021.

    Example:
        >>> PrivateClassifier((1, 28, 28), num_classes=10)(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(self, shape: tuple[int, ...], num_classes: int, guarantee: PrivacyGuarantee | None = None) -> None:
        super().__init__()
        self.network = _network(shape, num_classes)
        self.guarantee = guarantee

    @property
    def add_or_remove_one_epsilon(self) -> float | None:
        """The epsilon of the same training for sets that differ by one image more or less, as published numbers do."""
        return None if self.guarantee is None else self.guarantee.parameters["add_or_remove_one_epsilon"]

    def forward(self, x: Tensor) -> Tensor:
        r"""Return logits (B, num_classes) of images (B, C, \*spatial); intensities are clipped to 0 to 1, NaN is 0."""
        return self.network(checked_images(x))


def train_private_classifier(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    epsilon: float,
    delta: float,
    epochs: int = 8,
    batch_size: int = 2048,
    learning_rate: float = 4.0,
    largest_gradient: float = 0.1,
    unit: str = "image",
    seed: int = 0,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> PrivateClassifier:
    r"""Train a classifier by gradient descent with momentum, on noisy sums of clipped gradients of random batches.

    Proof. The promise compares two sets of n images with labels that differ in one image, its label, or both. The
    weights at the beginning come from the public seed. A step looks at the set once: every image enters the batch
    independently with probability batch_size / n, its gradient is clipped to the norm C, and the sum gets Gaussian
    noise of deviation s C. :func:`~monai_cadp.privacy.training_accounting.sgd_epsilon` proves what all steps promise
    together; s is what makes it (epsilon, delta). Dividing by ``batch_size``, which is public unlike the size of the
    batch, momentum and the step of the weights are post-processing. n is public: it is the same in both sets.
    Everything else that the caller chooses must be chosen without looking at these images.

    The guarantee is that of the classifier as a whole, towards those who see it and perhaps all its steps, and know
    all other images. A person with k images in the set has (k epsilon, k e^{(k - 1) epsilon} delta). Compared with a
    release of ``Privatized`` it is weaker in one way: whoever trains must be trusted with the originals.

    Clipped gradients, their sum and the noise are integers (:class:`~monai_cadp.privacy.noisy_sum.SumLattice`), so
    that no rounding is left out of the proof but one: the gradients of other images, which floating-point arithmetic
    may round differently where the batch has one image more. Not covered either is the time that training takes.

    Args:
        images: originals (n, C, \*spatial), in two or three dimensions, on the device that trains; intensities
            are clipped to 0 to 1, NaN is 0.
        labels: classes (n,), integers from 0, or yes-or-no labels (n, num_classes) of 1 and 0, of which several may
            apply. They are protected with their image.
        num_classes: number of classes, or of labels, public.
        epsilon: privacy budget of the classifier.
        delta: from 1e-10; far below 1 / n.
        epochs: expected number of times that an image is looked at.
        batch_size: expected size of a batch, n at most. Large ones need less noise.
        learning_rate: of the mean of the clipped gradients. On MNIST 4 did better than 8 at epsilon 1,
            and 8 better than 4 at 2.2.
        largest_gradient: C.
        unit: what one image is made from: image, volume or patient.
        seed: of the weights at the beginning; public.
        generator: makes all random draws. For tests only: its numbers can be foretold, so there is no guarantee.
        progress: show a progress bar.

    Returns:
        The classifier in evaluation mode, with its guarantee; without one where a generator was given.

    Raises:
        ValueError: if shapes do not fit, a label is no class or a number is out of its range.

    References:
        Abadi et al.: Deep learning with differential privacy, CCS 2016.

    Example:
        >>> images, labels = torch.rand(20, 1, 8, 8), torch.arange(20) % 2
        >>> model = train_private_classifier(images, labels, 2, epsilon=4.0, delta=1e-3, epochs=1, batch_size=10)
        >>> model.guarantee.epsilon, model.guarantee.relation, model.add_or_remove_one_epsilon < 4
        (4.0, 'replace-one', True)
    """
    with extra("dp-training", "Training a classifier with DP-SGD"):
        # Here, because it takes seconds, and other baselines do not need it.
        from opacus import GradSampleModule
    _check_data(images, labels, num_classes)
    labels = labels.long() if labels.ndim == 1 else labels
    _check_counts(len(images), epochs, batch_size)
    learning_rate = checked_positive("learning_rate", learning_rate)
    largest_gradient = checked_positive("largest_gradient", largest_gradient)
    steps, rate = -(-epochs * len(images) // batch_size), batch_size / len(images)
    multiplier = noise_multiplier_for(epsilon, delta, rate, steps)
    guarantee = PrivacyGuarantee(
        epsilon=epsilon,
        delta=delta,
        mechanism="DP-SGD",
        unit=unit,
        parameters={
            "noise_multiplier": multiplier,
            "sampling_rate": rate,
            "steps": steps,
            "largest_gradient": largest_gradient,
            "add_or_remove_one_epsilon": sgd_epsilon(multiplier, rate, steps, delta, add_or_remove_one=True),
        },
        public=("the number of images",),
        training_data=TrainingData.dp(epsilon, delta, unit, kind="classifier"),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        promised = guarantee if generator is None else None
        model = PrivateClassifier(tuple(images.shape[1:]), num_classes, promised).to(images.device)
    model.train()
    hooked = GradSampleModule(model, loss_reduction="sum")
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=MOMENTUM)
    lattice = SumLattice(largest_gradient, multiplier)
    for _ in tqdm(range(steps), desc="private classifier", disable=not progress):
        batch = poisson_batch(len(images), rate, generator)
        total = clipped_gradient_sum(hooked, images[batch], labels[batch], lattice)
        for parameter, noisy in zip(model.parameters(), lattice.noisy(total, generator), strict=True):
            parameter.grad = (noisy / batch_size).to(parameter.dtype)
        optimizer.step()
    hooked.to_standard_module()
    optimizer.zero_grad()
    return model.eval()


def _network(shape: tuple[int, ...], num_classes: int) -> nn.Module:
    channels, *sizes = shape
    dims = len(sizes)
    conv, largest, mean = Conv[Conv.CONV, dims], Pool[Pool.MAX, dims], Pool[Pool.ADAPTIVEAVG, dims]
    # A wide first look, which is too much for volumes.
    layers: list[nn.Module] = [conv(channels, 16, 8, stride=2, padding=3) if dims == 2 else conv(channels, 16, 4, 2, 1)]
    layers += [nn.Tanh(), largest(2, stride=1)]
    width, sizes = 16, [size // 2 - 1 for size in sizes]
    while min(sizes) >= 10:
        layers += [conv(width, 32, 4, stride=2), nn.Tanh(), largest(2, stride=1)]
        width, sizes = 32, [size // 2 - 2 for size in sizes]
    layers += [mean(SIDE), nn.Flatten(), nn.Linear(width * SIDE**dims, 32), nn.Tanh(), nn.Linear(32, num_classes)]
    return nn.Sequential(*layers)


def _check_data(images: Tensor, labels: Tensor, num_classes: int) -> None:
    if images.ndim not in (4, 5) or len(images) == 0 or min(images.shape[2:]) < LEAST_SIZE:
        raise ValueError(
            f"The images have shape {tuple(images.shape)}; expected (n, C, H, W) or (n, C, D, H, W) with at least one "
            f"image, and {LEAST_SIZE} pixels or more a side."
        )
    if labels.ndim > 1:
        check_several_labels(labels, num_classes)
        if len(labels) != len(images):
            raise ValueError(f"There are {len(images)} images and {len(labels)} rows of labels; expected as many.")
        return
    if labels.shape != images.shape[:1] or labels.is_floating_point() or labels.is_complex():
        raise ValueError(
            f"The labels have shape {tuple(labels.shape)} and dtype {labels.dtype}; expected one integer for each of "
            f"the {len(images)} images."
        )
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}; expected 2 or more.")
    if not ((labels >= 0) & (labels < num_classes)).all():
        raise ValueError(f"A label is no class; expected integers from 0 to {num_classes - 1}.")


def _check_counts(num_images: int, epochs: Any, batch_size: Any) -> None:
    for name, value in {"epochs": epochs, "batch_size": batch_size}.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}; expected an integer of 1 or more.")
    if batch_size > num_images:
        raise ValueError(f"batch_size is {batch_size}; expected at most the number of images, {num_images}.")
