# SPDX-License-Identifier: Apache-2.0
"""A study's network that was trained before, such as the weights that a bundle ships."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_cadp.engines import FlowTrainer
from monai_cadp.handlers import TrackedRun
from monai_cadp.release.checkpoint import load_model
from monai_cadp.studies.variant import Split

__all__ = ["PretrainedNetwork"]


class PretrainedNetwork:
    """A network that is read from a checkpoint, in the place of :class:`~monai_cadp.studies.NetworkTraining`.

    Nothing is trained. Test images must be of people from whom the network has not learnt, or attackers and classifiers
    meet what it has memorized.

    Args:
        checkpoint: ``model.pt`` of a bundle or of another study.
        training_data: how the study's images are protected: "public" or "unprotected".

    Raises:
        ValueError: if ``training_data`` is neither public nor unprotected, or the checkpoint is missing, damaged or not
            a model's.

    Example:
        >>> import tempfile
        >>> from monai_cadp.networks import ConditionalINN, ContentBasis, TrainedModel
        >>> from monai_cadp.release.checkpoint import save_model
        >>> inn = ConditionalINN((8, 8), num_classes=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_model(TrainedModel(inn, ContentBasis.leading(inn, 4)), f"{folder}/model.pt")
        ...     PretrainedNetwork(f"{folder}/model.pt", "public").network.spatial_shape
        (8, 8)
    """

    def __init__(self, checkpoint: str | Path, training_data: str) -> None:
        if training_data not in FlowTrainer.declarable:
            raise ValueError(f"training_data is {training_data!r}; expected 'public' or 'unprotected'.")
        self.checkpoint, self.training_data = Path(checkpoint), training_data
        self._model = load_model(self.checkpoint)
        # What tells two studies apart: paths do not, and a network is described by its architecture.
        self.sha256 = hashlib.sha256(self.checkpoint.read_bytes()).hexdigest()
        self.network = self._model.network

    def run(
        self,
        train: Split,
        val: Split,
        output_dir: Path,
        tracked: TrackedRun,
        quick: bool,
        class_names: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """Copy the checkpoint to ``model.pt``.

        Args:
            train: images of the study, whose shape and classes the network must have.
            val: not used.
            output_dir: folder of the copy.
            tracked: open MLflow run.
            quick: not used.
            class_names: of the images, in the order of their labels; None if they have none.

        Returns:
            No bits per dimension, for nothing was validated, and the number of parameters.

        Raises:
            ValueError: if the images are of another shape, or their classes are others.
        """
        shape, expected = tuple(train.x.shape[1:]), (self.network.in_channels, *self.network.spatial_shape)
        if shape != expected:
            raise ValueError(
                f"The images have the shape {shape}, and those that the network was trained on had {expected}; give "
                "spatial_shape as it was in the training."
            )
        known = self._model.condition_names
        if class_names is not None and known is not None and list(class_names) != known:
            raise ValueError(
                f"The classes of the images are {', '.join(class_names)}, and those of the network {', '.join(known)}; "
                "give images of the same classes, by the same names."
            )
        shutil.copyfile(self.checkpoint, output_dir / "model.pt")
        parameters = sum(parameter.numel() for parameter in self.network.parameters())
        tracked.parameters({"pretrained": self.sha256, "parameters": parameters})
        return {"validation_bits": [], "parameters": parameters}
