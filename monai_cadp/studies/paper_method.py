# SPDX-License-Identifier: Apache-2.0
"""The paper's network with the paper's mechanism, as a study compares it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from monai_cadp.baselines import PublishedLaplace
from monai_cadp.engines import FlowTrainer, GaussianNoise
from monai_cadp.handlers import ProgressBar, TrainingCheckpoint
from monai_cadp.networks import PaperINN
from monai_cadp.studies.methods import in_batches
from monai_cadp.studies.variant import StudyContext, Variant

__all__ = ["PublishedMethod"]

NOISE = 0.1


class PublishedMethod:
    """The CADP paper as published: its network, trained on the study's images, and its mechanism.

    Args:
        network: of the paper, untrained.
        epsilons: what the paper calls epsilon; the true ones stand beside them.
        max_minutes: of the network's training, which on a GPU took the paper hundreds of epochs.
        learning_rate: of its training.
    """

    def __init__(
        self, network: PaperINN, epsilons: Sequence[float], max_minutes: float = 20.0, learning_rate: float = 5e-4
    ) -> None:
        self.network, self.epsilons = network, [float(epsilon) for epsilon in epsilons]
        self.max_minutes, self.learning_rate = max_minutes, learning_rate

    def variants(self, context: StudyContext) -> list[Variant]:
        """Return the method at each of its budgets; the network is trained when the first one releases."""
        return [self._variant(PublishedLaplace(self.network, epsilon), context) for epsilon in self.epsilons]

    def _variant(self, published: PublishedLaplace, context: StudyContext) -> Variant:
        words = (
            f"What its authors call epsilon {published.epsilon:g} spends epsilon {published.true_epsilon:,.0f} of one "
            "image, as long as the other images of its batch are taken for public: nothing that anybody can rely on."
        )

        def release(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            self._train(context)
            self.network.to(x.device)
            return in_batches(published)(x, y).clamp(0, 1)

        name = "the paper as published"
        settings = {"network": self.network.config, "minutes": self.max_minutes, "learning_rate": self.learning_rate}
        return Variant(
            name,
            published.true_epsilon,
            0.0,
            words,
            nominal_epsilon=published.epsilon,
            release=release,
            settings=settings,
        )

    def _train(self, context: StudyContext) -> None:
        trained = context.state_dir / "paper.pt"
        if trained.exists():
            self.network.load_state_dict(torch.load(trained, map_location="cpu", weights_only=True))
            return
        torch.manual_seed(0)
        trainer = FlowTrainer(
            self.network,
            context.train.loader(128, shuffle=True),
            max_epochs=1 if context.quick else 10_000,
            max_minutes=self.max_minutes,
            learning_rate=self.learning_rate,
            noise=GaussianNoise(NOISE),
            averaging=0.99,
            device=context.train.x.device,
        )
        trainer.attach_all([TrainingCheckpoint(context.state_dir / "paper_last.pt", resume=True), ProgressBar()])
        trainer.run()
        self.network.load_state_dict(trainer.averaged_network.state_dict())
        torch.save(self.network.cpu().state_dict(), trained)
