# SPDX-License-Identifier: Apache-2.0
"""How a study trains its network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.handlers import ValidationHandler

from monai_cadp.engines import ColumnNoise, FlowEvaluator, FlowTrainer, GaussianNoise, LevelTrainer
from monai_cadp.handlers import ExportPrivatizer, MLflowTracking, ProgressBar, TrackedRun, TrainingCheckpoint
from monai_cadp.networks import ConditionalINN, InvertibleNetwork
from monai_cadp.studies.variant import Split

__all__ = ["NetworkTraining"]

QUICK_EPOCHS = 2


class NetworkTraining:
    """Maximum likelihood with checkpoints, validation and a content basis at the end.

    A network whose levels see the whole coarser image is trained by :class:`~monai_cadp.engines.LevelTrainer`, all
    others by :class:`~monai_cadp.engines.FlowTrainer`.

    Args:
        network: untrained.
        training_data: how the images are protected: "public" or "unprotected".
        max_epochs: passes over the training images.
        max_minutes: stop after this time at the latest.
        batch_size: images of a step.
        learning_rate: the highest one.
        weight_decay: of AdamW.
        noise: adds the input noise; None for normal noise of deviation 0.05.
        averaging: weight of the past in the average of weights.
        num_directions: of the content basis.
        in_subspace: whether they are looked for in the coarse image only.
        augmentation: MONAI's dictionary transforms of the key image, that training images pass.

    Raises:
        ValueError: if ``training_data`` is neither public nor unprotected.
    """

    def __init__(
        self,
        network: InvertibleNetwork,
        training_data: str,
        *,
        max_epochs: int,
        max_minutes: float | None = None,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        noise: GaussianNoise | ColumnNoise | None = None,
        averaging: float = 0.998,
        num_directions: int = 32,
        in_subspace: bool = False,
        augmentation: Sequence[Callable[..., Any]] = (),
    ) -> None:
        if training_data not in FlowTrainer.declarable:
            raise ValueError(f"training_data is {training_data!r}; expected 'public' or 'unprotected'.")
        self.network, self.training_data = network, training_data
        self.max_epochs, self.max_minutes, self.batch_size = max_epochs, max_minutes, batch_size
        self.learning_rate, self.weight_decay, self.averaging = learning_rate, weight_decay, averaging
        self.noise, self.num_directions, self.in_subspace = noise or GaussianNoise(), num_directions, in_subspace
        self.augmentation = list(augmentation)

    def run(
        self,
        train: Split,
        val: Split,
        output_dir: Path,
        tracked: TrackedRun,
        quick: bool,
        class_names: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """Train, and write ``model.pt``.

        Args:
            train: images to learn from; the network is trained where they are.
            val: images that choose the best epoch.
            output_dir: folder of the checkpoint, and of the state from which an interrupted training goes on.
            tracked: open MLflow run.
            quick: whether two epochs are enough.
            class_names: of the images, in the order of their labels, which the checkpoint keeps; None for none.

        Returns:
            Bits per dimension of every validation, and the number of parameters.
        """
        torch.manual_seed(0)
        max_epochs = min(self.max_epochs, QUICK_EPOCHS) if quick else self.max_epochs
        loader = train.loader(self.batch_size, shuffle=True, transform=self.augmentation)
        options: dict[str, Any] = {
            "max_epochs": max_epochs,
            "max_minutes": self.max_minutes,
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
            "noise": self.noise,
            "averaging": self.averaging,
            "training_data": self.training_data,
            "device": train.x.device,
        }
        if isinstance(self.network, ConditionalINN) and self.network.knows_noise:
            trainer: FlowTrainer = LevelTrainer(
                self.network, loader, plain_data_loader=train.loader(self.batch_size), **options
            )
        else:
            trainer = FlowTrainer(self.network, loader, **options)
        evaluator = FlowEvaluator(trainer.averaged, val.loader(256), noise=self.noise, device=train.x.device)
        export = ExportPrivatizer(
            output_dir / "model.pt",
            evaluator=evaluator,
            num_directions=self.num_directions,
            in_subspace=self.in_subspace,
            class_names=class_names,
        )
        trainer.attach_all(
            [
                ValidationHandler(1, evaluator),
                TrainingCheckpoint(output_dir / "last.pt", resume=True),
                export,
                MLflowTracking(tracked, trainer.parameters(), evaluator),
                ProgressBar(),
            ]
        )
        trainer.run()
        (output_dir / "last.pt").unlink(missing_ok=True)
        parameters = sum(parameter.numel() for parameter in self.network.parameters())
        bits = [round(value, 4) for value in export.validations]
        return {"validation_bits": bits, "parameters": parameters}
