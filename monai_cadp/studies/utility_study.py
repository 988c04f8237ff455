# SPDX-License-Identifier: Apache-2.0
"""Train a network, release with it at several epsilons, and write down what was kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.handlers import ValidationHandler
from torch.utils.data import DataLoader, Dataset

from monai_cadp.checkpoint import load_privatizer
from monai_cadp.engines.flow_evaluator import FlowEvaluator
from monai_cadp.engines.flow_trainer import FlowTrainer
from monai_cadp.engines.input_noise import GaussianNoise
from monai_cadp.handlers import ExportPrivatizer, MLflowTracking, ProgressBar, SamplePreview, TrackedRun
from monai_cadp.networks import ContentBasis, InvertibleNetwork
from monai_cadp.privacy import PriorOnly, SubsetSelection
from monai_cadp.reports import Picture, curves, save_image_grid, study_page
from monai_cadp.studies.release_evaluation import ReleaseEvaluation, ReleaseResult

__all__ = ["UtilityStudy"]


class UtilityStudy:
    r"""The privacy-utility curve of a data set that is public: metrics, a page, and an MLflow run.

    The page shows originals beside releases, so the images must be public.

    Args:
        network: untrained network for images (C, H, W) with class conditions.
        train_images: labelled images; the network and the classifiers learn from them.
        val_images: labelled images that choose the best epoch.
        test_images: labelled images that judge.
        output_dir: folder of the results.
        epsilons: budgets of one image.
        training: how the images are protected; the page shows them, so "public" is the only word that is taken.
        max_epochs: of the network.
        classifier_epochs: of the classifiers; small data sets need more.
        batch_size: of the network.
        learning_rate: of the network.
        noise: standard deviation of the input noise.
        num_directions: of the content basis.
        temperature: of the completion.
        title: heading of the page.
        tracking_uri: MLflow's store; None for the environment's, or an SQLite file in ``output_dir``.

    Raises:
        ValueError: if an epsilon is not usable, or the images are not declared public; before anything is trained.
    """

    def __init__(
        self,
        network: InvertibleNetwork,
        train_images: Dataset,
        val_images: Dataset,
        test_images: Dataset,
        output_dir: str | Path,
        epsilons: Sequence[float],
        *,
        training: str,
        max_epochs: int,
        classifier_epochs: int = 12,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        noise: float = 0.05,
        num_directions: int = 32,
        temperature: float = 1.0,
        title: str = "Privacy and utility",
        tracking_uri: str | None = None,
    ) -> None:
        if training != "public":
            raise ValueError(
                f"training is {training!r}, but a study shows original images on its page; expected 'public', for "
                "images that anybody may see."
            )
        self.mechanisms = [SubsetSelection(float(epsilon)) for epsilon in epsilons]
        self.training = training
        self.network, self.output_dir, self.title = network, Path(output_dir), title
        self.train_images, self.val_images, self.test_images = train_images, val_images, test_images
        self.max_epochs, self.batch_size, self.learning_rate = max_epochs, batch_size, learning_rate
        self.noise, self.num_directions, self.temperature = GaussianNoise(noise), num_directions, temperature
        self.run_tracking = TrackedRun(tracking_uri, experiment="utility study", store_dir=self.output_dir)
        self.classifier_epochs = classifier_epochs
        self.bits: list[float] = []

    def run(self) -> Path:
        """Run the study and return the path of its page."""
        self.output_dir.mkdir(parents=True, exist_ok=True)
        checkpoint = self.output_dir / "model.pt"
        with self.run_tracking as run:
            run.parameters(self._parameters())
            self._train(checkpoint, run)
            privatizer = load_privatizer(checkpoint, PriorOnly())
            assert isinstance(privatizer.content, ContentBasis)
            evaluation = ReleaseEvaluation(self.train_images, self.test_images, epochs=self.classifier_epochs)
            originals = evaluation.originals()
            results = evaluation.run(privatizer.inn, privatizer.content, self.mechanisms, temperature=self.temperature)
            for result in results:
                figures = {f"{name}_epsilon_{result.epsilon:g}": value for name, value in result.figures.items()}
                run.metrics(figures)
            metrics, page = self.output_dir / "metrics.json", self.output_dir / "report.html"
            content = {"originals": originals, "releases": [result.to_dict() for result in results]}
            metrics.write_text(json.dumps(content | {"validation_bits": self.bits}, indent=2) + "\n", encoding="utf-8")
            self._write_page(page, originals, results, evaluation)
            for artifact in (metrics, page):
                run.artifact(artifact)
        print(f"\nfigures: {metrics}\npage:    {page}\nMLflow:  run {run.name} in {run.tracking_uri}")
        return page

    def _parameters(self) -> dict[str, Any]:
        epsilons = [mechanism.epsilon for mechanism in self.mechanisms]
        return {"mechanism": "SubsetSelection", "epsilon": epsilons, "delta": 0.0, "unit": "image"}

    def _train(self, checkpoint: Path, run: TrackedRun) -> None:
        torch.manual_seed(0)
        loader: DataLoader = DataLoader(self.train_images, self.batch_size, shuffle=True)
        trainer = FlowTrainer(
            self.network,
            loader,
            max_epochs=self.max_epochs,
            learning_rate=self.learning_rate,
            noise=self.noise,
            averaging=0.99,
        )
        evaluator = FlowEvaluator(trainer.averaged, DataLoader(self.val_images, 256), noise=self.noise)
        export = ExportPrivatizer(checkpoint, self.training, evaluator, self.num_directions)
        tracking = MLflowTracking(run, trainer.parameters(), evaluator)
        preview = SamplePreview(self.output_dir / "samples", every=self.max_epochs)
        trainer.attach_all([ValidationHandler(1, evaluator), export, preview, tracking, ProgressBar()])
        trainer.add_event_handler(
            Events.EPOCH_COMPLETED, lambda: self.bits.append(evaluator.state.metrics["bits_per_dimension"])
        )
        trainer.run()

    def _write_page(
        self, path: Path, originals: dict[str, float], results: list[ReleaseResult], evaluation: ReleaseEvaluation
    ) -> None:
        epsilons = [result.epsilon for result in results]
        accuracies = [result.figures["accuracy"] for result in results]
        kept = [result.figures["kept_mean"] for result in results]
        examples = torch.cat([evaluation.test[0][: evaluation.num_examples], *(result.examples for result in results)])
        save_image_grid(examples, path.with_name("releases.png"), columns=evaluation.num_examples)
        names = ", ".join(["originals", *(result.name for result in results)])
        pictures = [
            Picture(examples, f"One row each, from the top: {names}.", evaluation.num_examples),
            Picture(
                curves(
                    epsilons,
                    {"classifier trained on releases": accuracies},
                    "epsilon of one image",
                    "accuracy on originals",
                    {"classifier trained on originals": originals["accuracy"]},
                ),
                "What can be learnt from releases; at epsilon 0 only the class survives.",
            ),
            Picture(
                curves(epsilons, {"mean of four features": kept}, "epsilon of one image", "within-class correlation"),
                "Content kept beyond the class: area, slant, width and height.",
            ),
            Picture(
                curves(list(range(1, len(self.bits) + 1)), {"validation": self.bits}, "epoch", "bits per dimension"),
                "Training of the network.",
            ),
        ]
        rows = [{"images": "originals", **originals}, *({"images": r.name, **r.figures} for r in results)]
        introduction = (
            "Every image was released by itself under local differential privacy. A classifier learnt from the "
            "releases of training images and was tested on original test images; content was measured on the releases "
            "of test images. The network was trained on public images."
        )
        notes = {f"What {result.name} promises": result.explanation for result in results}
        study_page(path, self.title, introduction, rows, pictures, notes)
