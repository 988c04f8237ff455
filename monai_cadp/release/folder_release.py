# SPDX-License-Identifier: Apache-2.0
"""From a data set of originals to a folder of releases."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

import ignite.distributed as idist
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from monai_cadp.data import PublicGrid, image_grid, keep_pieces, outlined_slices, save_image_grid
from monai_cadp.data.stage import check_output
from monai_cadp.data.within import all_within
from monai_cadp.privacy import PrivacyLedger
from monai_cadp.privacy.exact_numbers import as_read
from monai_cadp.release.problems import listed_problems, readable_items
from monai_cadp.release.release_loop import check_class_names, check_conditions, recorded_in, release_items
from monai_cadp.release.released_folder import ReleasedFolder
from monai_cadp.release.releaser import BaseReleaser, Releaser
from monai_cadp.release.shuffled_set import set_guarantee

__all__ = ["release_batches", "release_folder"]


def release_batches(
    privatizer: Releaser,
    images: Dataset,
    batch_size: int = 64,
    description: str = "privatizing",
    ledger: PrivacyLedger | None = None,
) -> Iterator[tuple[Tensor, Tensor | None]]:
    r"""Release every image of a data set once, batch by batch, under a progress bar.

    Args:
        privatizer: the privatizer, or any other releaser; its device is used.
        images: items {"image": (C, \*spatial), "label": ..., "subject": ..., "item": ...}; labels are conditions, where
            it takes any; subjects are needed with a ledger, and items name their images to it.
        batch_size: images encoded at once; it has no influence on the guarantee.
        description: of the progress bar.
        ledger: pays for the releases and keeps them; what it has kept is returned, not drawn again.

    Yields:
        Releases (B, C, \*spatial) with intensities clipped to 0 to 1, and their conditions as released.

    Raises:
        ValueError: if an image, label or subject does not fit, or subjects are missing.
        BudgetExceededError: if a subject would be over its cap; nothing of its batch is released or spent.
    """
    releaser = recorded_in(privatizer, ledger, images, batch_size)
    check_class_names(releaser, images)
    yield from _clipped(releaser, images, batch_size, description)


def release_folder(
    privatizer: Releaser,
    images: Dataset,
    output_dir: str | Path,
    *,
    batch_size: int = 64,
    num_preview: int = 0,
    ledger: PrivacyLedger | None = None,
    grid: PublicGrid | None = None,
    volume_format: str = "nifti",
    set_delta: float | None = None,
    set_epsilon: float | None = None,
    skip_unreadable: bool = False,
    num_mask_classes: int | None = None,
    num_pieces: int | None = None,
    image_format: str = "png",
) -> Path:
    """Release every image of a data set once into a new folder, in random order under random numbers.

    The folder holds an image and a ``*_privacy.json`` card for every release, with a picture of three slices beside a
    volume, a summary, and a datalist of images and labels where labels are released. If anything fails, there is no
    folder. With a ledger a second attempt gets the releases of the first from it, and spends only what is missing.
    Images that cannot be read, or whose subjects are over their caps, are named in ``<output_dir>_problems.csv``, which
    its owner alone may read.

    Under torchrun, once ``ignite.distributed`` is initialised, every process releases its part into the ledger; then
    the first one gets all of them from the ledger, and writes the folder.

    Args:
        privatizer: the privatizer, or any other releaser.
        images: as in :func:`release_batches`.
        output_dir: the new folder.
        batch_size: images encoded at once.
        num_preview: releases to show in ``<output_dir>_preview.png``; 0 for none.
        ledger: as in :func:`release_batches`.
        grid: the public grid on which volumes lie; voxels of one millimetre around nowhere if left out.
        volume_format: of volumes, "nifti" or "dicom"; masks become DICOM segmentations then.
        set_delta: of the whole folder: states what its releases promise together to those who see nothing else
            (:func:`~monai_cadp.release.shuffled_set.set_guarantee`); None to state nothing of it.
        set_epsilon: what the whole folder must not exceed at ``set_delta``; None for any.
        skip_unreadable: release the others where some images cannot be read; cards and the summary say how many were
            left out.
        num_mask_classes: with the background, of the masks that volumes hold as their last channels
            (:class:`~monai_cadp.data.WithMasks`), which get files of their own; None for images without masks.
        num_pieces: how many connected pieces of every class are kept, the largest ones
            (:func:`~monai_cadp.data.keep_pieces`); None to keep what was drawn.
        image_format: of images in two dimensions, "png" or "dicom".

    Returns:
        The folder.

    Raises:
        ValueError: if the folder exists, it lies in that of the images or they in it, an image, label, condition or
            subject does not fit, several processes have no ledger, or the whole set exceeds ``set_epsilon``.
        BudgetExceededError: if a subject would be over its cap.
    """
    check_output(Path(output_dir))
    _check_apart(images, Path(output_dir))
    images, left_out = readable_items(images, output_dir) if skip_unreadable else (images, 0)
    with listed_problems(images, output_dir, ledger) as images, ExitStack() as at_the_end:
        releaser = recorded_in(privatizer, ledger, images, batch_size)
        at_the_end.callback(releaser.end_set)
        if idist.get_world_size() > 1 and not releaser.needs_subjects:
            raise ValueError(
                "Several processes came without a ledger, by which they know of one another; give them one."
            )
        check_conditions(releaser, images)
        if set_epsilon is not None and set_delta is None:
            raise ValueError("set_epsilon was given without set_delta; give both.")
        if num_pieces is not None and (num_mask_classes is None or num_pieces < 1):
            raise ValueError(f"num_pieces is {num_pieces}; expected 1 or more, for images with num_mask_classes.")
        guarantee = releaser.guarantee.to_dict()
        whole = None if set_delta is None else set_guarantee(releaser, images, set_delta, set_epsilon)
        if whole is not None:
            # A smaller last batch may differ in its last bits, and would show who came last.
            images = Subset(images, secrets.SystemRandom().sample(range(len(images)), len(images)))  # type: ignore[arg-type]
        # Chosen and ordered at random: the first ones would show which release belongs to which place in the source.
        count = len(images)  # type: ignore[arg-type]
        chosen = set(secrets.SystemRandom().sample(range(count), min(num_preview, count)))
        shown: list[Tensor] = []
        seen = 0
        affine = None if grid is None else grid.affine
        drawing = None if releaser.core is None else releaser.core.drawing
        folder = ReleasedFolder(
            output_dir,
            num_expected=count,
            affine=affine,
            volume_format=volume_format,
            image_format=image_format,
            drawing=drawing,
            left_out=left_out,
            set_guarantee=None if whole is None else whole.to_dict(),
            num_mask_classes=num_mask_classes,
        )
        if idist.get_world_size() > 1:
            part: Subset = Subset(images, range(idist.get_rank(), count, idist.get_world_size()))
            for _ in _clipped(releaser, part, batch_size):
                pass
            idist.barrier()
            if idist.get_rank() > 0:
                return Path(output_dir)
        with folder:
            for released, condition in _clipped(releaser, images, batch_size):
                if num_mask_classes is not None and num_pieces is not None:
                    released = keep_pieces(released, num_mask_classes, num_pieces)
                for index, image in enumerate(released):
                    pictured = (
                        image[None] if num_mask_classes is None else outlined_slices(image[None], num_mask_classes)
                    )
                    picture = image_grid(pictured, columns=1) if image.ndim == 4 else None
                    folder.write(image, guarantee, None if condition is None else condition[index], picture)
                    if index + seen in chosen:
                        shown.append(pictured[0])
                seen += len(released)
        output_dir = Path(output_dir)
        secrets.SystemRandom().shuffle(shown)
        if shown:
            preview = output_dir.with_name(output_dir.name + "_preview.png")
            save_image_grid(torch.stack(shown), preview, columns=8)
        together = (
            "" if whole is None else f"epsilon {as_read(whole.epsilon, digits=3)} to those who see the set alone, "
        )
        print(f"{count} images released with {together}epsilon {as_read(guarantee['epsilon'])} each: {output_dir}")
        return output_dir


def _check_apart(images: Dataset, output_dir: Path) -> None:
    """Refuse an output among the originals, where the next release would take it for some of them."""
    for given in chain.from_iterable(all_within(images, "input_folders")):
        if _lies_in(output_dir, given):
            raise ValueError(
                "The output folder lies in the input folder, where the next release would take it, and the preview "
                "beside it, for originals; give an output folder outside."
            )
        if _lies_in(given, output_dir):
            raise ValueError("The input folder lies in the output folder; give a new folder for the output.")


def _lies_in(path: Path, folder: Path) -> bool:
    """Tell whether a path is a folder or in it, however the two are spelled, and wherever links lead."""
    real = Path(os.path.realpath(path))
    return os.path.exists(folder) and any(os.path.exists(one) and one.samefile(folder) for one in (real, *real.parents))


def _clipped(
    releaser: BaseReleaser, images: Dataset, batch_size: int, description: str = "privatizing"
) -> Iterator[tuple[Tensor, Tensor | None]]:
    for released, used in release_items(releaser, images, batch_size, description, unit="image"):
        yield released.clamp(0, 1), used
