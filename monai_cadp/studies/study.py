# SPDX-License-Identifier: Apache-2.0
"""The privacy-utility curve of a data set, beside the methods that people would use otherwise."""

from __future__ import annotations

import importlib.metadata
import json
import math
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from monai_cadp.data import class_names_of
from monai_cadp.data.people import people_of
from monai_cadp.extras import extra
from monai_cadp.handlers import NestedRuns, TrackedRun
from monai_cadp.metrics import Estimate
from monai_cadp.networks.devices import usable_device
from monai_cadp.privacy import check_unit
from monai_cadp.release.checkpoint import load_model
from monai_cadp.studies.description import code_of
from monai_cadp.studies.illustrations import Illustration
from monai_cadp.studies.measurements import Figures, LearnedMeasurement, Measurement, Releases
from monai_cadp.studies.methods import control_variants
from monai_cadp.studies.network_membership import NetworkMembership
from monai_cadp.studies.network_training import NetworkTraining
from monai_cadp.studies.pretrained_network import PretrainedNetwork
from monai_cadp.studies.release_audit import ReleaseAudit
from monai_cadp.studies.study_report import write_report
from monai_cadp.studies.subgroups import SMALLEST_GROUP, Subgroup, Subgroups, comparable
from monai_cadp.studies.variant import Method, Split, StudyContext, Variant

__all__ = ["Study"]

EXPERIMENT = "cadp studies"
# A short run, to see whether everything works.
QUICK_TRAIN, QUICK_TEST = 200, 100
SECONDS_WITHOUT_BAR = 5.0


class MeasuredOn(NamedTuple):
    """What every variant releases: training and test images, whose they are, and groups of the latter."""

    train: Split
    test: Split
    train_people: Tensor | None
    test_people: Tensor | None
    groups: list[Subgroup]


class Study:
    r"""Train a network, release a data set by every method at every budget, measure, and write it on one page.

    Every (method, budget, seed) is a nested child of one MLflow run, with its figures and a picture of releases. A
    study that was interrupted goes on: what is finished is not run again, as long as nothing that was chosen changes.

    ``output_dir`` gets ``report.html``, ``results.json`` and the network, ``model.pt``; what is kept between attempts
    lies in ``state``. Originals, and whatever compares single ones with their releases, appear on the page only where
    the images are declared public.

    Args:
        title: heading of the page.
        training: of the network, or one that was trained before.
        train_images: labelled images; the network learns from them, and so do classifiers from their releases.
        val_images: labelled images that choose the best epoch.
        test_images: labelled images that judge, of which nothing learns.
        output_dir: folder of the results.
        methods: what is compared, besides originals and prior-only.
        measurements: what is measured of every variant.
        illustrations: what is drawn of every variant.
        membership: attack on the network that the study trains; None for none.
        audit: of the promises; None for none.
        subgroups: of test images, by whose they are; their figures stand on the page, too. None for none.
        num_released: training images that are released for classifiers; None for all.
        num_test: test images that are used; None for all.
        temperature: of the completion.
        unit: what one image is in guarantees: "image", "volume" or "patient".
        seeds: of classifiers and attackers; every variant is run once for each.
        tracking_uri: MLflow's store; None for the environment's, or an SQLite file in ``output_dir``.
        device: where networks are trained, images released, and figures computed.
        quick: a short run on a few images, to see whether everything works; its figures mean nothing.

    Raises:
        ValueError: if a number or the device is not usable, membership is asked for of a network that the study does
            not train, or subgroups of images that do not say whose they are.
    """

    def __init__(
        self,
        title: str,
        training: NetworkTraining | PretrainedNetwork,
        train_images: Dataset,
        val_images: Dataset,
        test_images: Dataset,
        output_dir: str | Path,
        methods: Sequence[Method],
        measurements: Sequence[Measurement],
        illustrations: Sequence[Illustration] = (),
        *,
        membership: NetworkMembership | None = None,
        audit: ReleaseAudit | None = None,
        subgroups: Subgroups | None = None,
        num_released: int | None = None,
        num_test: int | None = None,
        temperature: float = 1.0,
        unit: str = "image",
        seeds: Sequence[int] = (0,),
        tracking_uri: str | None = None,
        device: torch.device | str = "cpu",
        quick: bool = False,
    ) -> None:
        if not seeds:
            raise ValueError("The study got no seed; expected one at least.")
        if membership is not None and isinstance(training, PretrainedNetwork):
            raise ValueError(
                "membership was given with a network that was trained before, but its control is trained in the same "
                "way; leave one of the two out."
            )
        self.title, self.training, self.output_dir = title, training, Path(output_dir)
        self.images = (train_images, val_images, test_images)
        self.methods, self.measurements, self.illustrations = list(methods), list(measurements), list(illustrations)
        self.membership, self.audit, self.subgroups = membership, audit, subgroups
        self.num_released, self.num_test = num_released, num_test
        self.temperature, self.unit, self.seeds = temperature, check_unit(unit), [int(seed) for seed in seeds]
        self.tracking_uri, self.device, self.quick = tracking_uri, usable_device(device), quick

    def run(self) -> Path:
        """Run what is not finished yet, and return the path of the page."""
        with extra("studies", "A study"):
            # Now, and not after an hour.
            import matplotlib  # noqa: F401
            import sklearn  # noqa: F401
        limits = (QUICK_TRAIN, QUICK_TEST, QUICK_TEST) if self.quick else (None, None, self.num_test)
        splits = [_split(images, limit) for images, limit in zip(self.images, limits, strict=True)]
        train, val, test = (split.to(self.device) for split, _ in splits)
        groups = self._groups(splits[-1][1])
        states = self.output_dir / "state"
        self.output_dir.mkdir(parents=True, exist_ok=True)
        # Networks and figures that no guarantee covers.
        states.mkdir(mode=0o700, exist_ok=True)
        salt = _salt(states)
        key = self.key(salt, train, val, test)
        # Of this study only: another network, or images that may be shown, must never be read from here.
        state_dir = states / key
        state_dir.mkdir(exist_ok=True)
        runs = NestedRuns(key, tracking_uri=self.tracking_uri, experiment=EXPERIMENT, store_dir=self.output_dir)
        with runs:
            network = self._train(runs, train, val, state_dir)
            shutil.copyfile(state_dir / "model.pt", self.output_dir / "model.pt")
            released = _first(train, self.num_released)
            model = load_model(state_dir / "model.pt", device=self.device)
            context = StudyContext(model, self.temperature, self.unit, released, state_dir, self.quick)
            variants = list(self._variants(context))
            people = [_people(splits[place][1]) for place in (0, 2)]
            # Under the salt, for it says who is who, and in which group.
            grouped = code_of(salt, self.subgroups, people)
            of_released = None if people[0] is None else people[0][: self.num_released]
            measured_on = MeasuredOn(released, test, of_released, people[1], groups)
            rows = [
                self._finished(runs, variant, seed, measured_on, state_dir, grouped)
                for variant in variants
                for seed in self.seeds
            ]
            results = {
                "title": self.title,
                "quick": self.quick,
                "unit": self.unit,
                "people_are_known": people[1] is not None,
                "network": network,
                "variants": rows,
            }
            if self.membership is not None:
                inn = model.network
                assert isinstance(self.training, NetworkTraining)
                attack = partial(self.membership, inn, self.training, train, test, self.quick, (people[0], people[1]))
                key = code_of("membership", self.membership, inn.fingerprint(), code_of(salt, people))
                results["membership"] = self._stored(runs, key, "membership", attack)
            if self.audit is not None:
                results["audit"] = [
                    row
                    for variant in filter(self.audit.applies, variants)
                    for row in self._stored(
                        runs,
                        code_of("audit", self.audit, variant.name, variant.settings),
                        f"audit, {variant.name}",
                        partial(self.audit, variant, self.quick),
                    )
                ]
            figures, page = self.output_dir / "results.json", self.output_dir / "report.html"
            figures.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
            public = (released.to("cpu"), test.to("cpu")) if self.training.training_data == "public" else None
            write_report(page, results, self.illustrations, partial(_picture_path, state_dir), public)
            for artifact in (figures, page):
                runs.parent.artifact(artifact)
        print(f"\nfigures: {figures}\npage:    {page}\nMLflow:  experiment {EXPERIMENT!r}")
        return page

    def key(self, salt: str, *splits: Split) -> str:
        """Return a code of the images and of all that was chosen for the network: what makes two runs one study.

        It names a folder and an MLflow run. Without the secret salt, whoever sees it could test whether they have the
        images.
        """
        chosen = [self.title, self.training, self.temperature, self.unit, self.quick]
        return code_of(salt, importlib.metadata.version("monai_cadp"), chosen, [tuple(split) for split in splits])

    def _groups(self, subjects: Sequence[str] | None) -> list[Subgroup]:
        if self.subgroups is None:
            return []
        if subjects is None:
            raise ValueError("Subgroups were given, but the test images do not say whose they are; leave them out.")
        return list(self.subgroups.of(subjects))

    def _variant_key(self, variant: Variant, seed: int, grouped: str) -> str:
        measured = [*self.measurements, *self.illustrations]
        budget = [variant.epsilon, variant.nominal_epsilon, variant.delta]
        sizes = [self.num_released, self.num_test]
        return code_of(variant.name, budget, variant.settings, seed, measured, *sizes, grouped)

    def _train(self, runs: NestedRuns, train: Split, val: Split, state_dir: Path) -> dict[str, Any]:
        result = runs.result("network")
        if result is None or not (state_dir / "model.pt").exists():
            with runs.child("network", "network") as child:
                names = class_names_of(self.images[0])
                result = self.training.run(train, val, state_dir, child, self.quick, names)
                runs.store_result(child, result)
        return result

    def _variants(self, context: StudyContext) -> Iterator[Variant]:
        yield from control_variants(context)
        for method in self.methods:
            yield from method.variants(context)

    def _finished(
        self, runs: NestedRuns, variant: Variant, seed: int, measured_on: MeasuredOn, state_dir: Path, grouped: str
    ) -> dict[str, Any]:
        key, name = self._variant_key(variant, seed, grouped), f"{variant.name}, seed {seed}"
        result = runs.result(key)
        if result is None:
            print(f"\n{name}")
            with runs.child(key, name) as child:
                result = self._measured(variant, seed, measured_on, child, state_dir)
                runs.store_result(child, result)
        return result

    def _measured(
        self, variant: Variant, seed: int, measured_on: MeasuredOn, child: TrackedRun, state_dir: Path
    ) -> dict[str, Any]:
        train, test, *people, groups = measured_on
        budget = {"epsilon": variant.epsilon, "nominal_epsilon": variant.nominal_epsilon, "delta": variant.delta}
        child.parameters({"method": variant.method, "seed": seed, **{k: v for k, v in budget.items() if v is not None}})
        torch.manual_seed(seed)
        released = [None if variant.release is None else variant.release(*split) for split in (train, test)]
        releases = Releases(variant, train, test, *released, *people)
        figures: Figures = {}
        of_groups: list[Figures] = [{} for _ in groups]
        for measurement in self.measurements:
            if not isinstance(measurement, LearnedMeasurement):
                figures |= measurement(releases, seed)
                continue
            measured = measurement.learn(releases, seed)
            figures |= measured(releases)
            for group, found in zip(groups, of_groups, strict=True):
                if group.people >= SMALLEST_GROUP:
                    found |= comparable(measured(releases.part(group.members)))
        child.metrics({name: _value(figure) for name, figure in figures.items()})
        if self._may_draw(variant):
            shown = releases.to("cpu")
            for illustration in self.illustrations:
                picture = illustration(shown)
                if picture is not None:
                    path = _picture_path(state_dir, variant.name, illustration)
                    path.parent.mkdir(exist_ok=True)
                    path.write_bytes(picture)
                    child.artifact(path)
        return {
            "name": variant.name,
            "method": variant.method,
            "seed": seed,
            **{name: _plain(value) for name, value in budget.items()},
            "explanation": variant.explanation,
            "figures": _plain_figures(figures),
            "subgroups": [
                {"column": group.column, "value": group.value, "figures": _plain_figures(found)}
                | ({"people": group.people} if found else {})
                for group, found in zip(groups, of_groups, strict=True)
            ],
        }

    def _stored(
        self, runs: NestedRuns, key: str, name: str, found: Callable[[], list[dict[str, Any]]]
    ) -> list[dict[str, Any]]:
        result = runs.result(key)
        if result is None:
            print(f"\n{name}")
            with runs.child(key, name) as child:
                result = {"rows": found()}
                runs.store_result(child, result)
        return result["rows"]

    def _may_draw(self, variant: Variant) -> bool:
        """Of private images only what has nothing of theirs is drawn: every other release that is seen adds up.

        Originals are never drawn here; the page has its own, where they are public.
        """
        return variant.epsilon == 0 or (self.training.training_data == "public" and not variant.is_original)


def _picture_path(state_dir: Path, name: str, illustration: Illustration) -> Path:
    kind = type(illustration).__name__
    return state_dir / "pictures" / f"{re.sub(r'[^a-z0-9]+', '_', f'{name} {kind}'.lower())}.png"


def _salt(states: Path) -> str:
    file = states / "salt"
    if not file.exists():
        temporary = states / f"salt-{secrets.token_hex(4)}"
        temporary.touch(mode=0o600)
        temporary.write_text(secrets.token_hex(32), encoding="utf-8")
        temporary.rename(file)
    return file.read_text(encoding="utf-8")


def _plain(value: float | None) -> float | str | None:
    """JSON has no infinity."""
    return "infinite" if value is not None and math.isinf(value) else value


def _plain_figures(figures: Figures) -> dict[str, Any]:
    return {
        name: figure.to_dict() if isinstance(figure, Estimate) else round(float(figure), 4)
        for name, figure in figures.items()
    }


def _value(figure: float | Estimate) -> float:
    return figure.value if isinstance(figure, Estimate) else float(figure)


def _split(images: Dataset, limit: int | None) -> tuple[Split, list[str] | None]:
    """Read images, and whose they are, in a random order that is always the same, for many sets are sorted by class."""
    count = len(images)  # type: ignore[arg-type]
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))[:limit].tolist()
    labels, subjects = [], []
    for place, index in enumerate(tqdm(order, desc="reading", unit="image", delay=SECONDS_WITHOUT_BAR)):
        item = images[index]
        image = torch.as_tensor(item["image"])
        if place == 0:
            x = torch.empty(len(order), *image.shape)
        x[place] = image
        labels.append(torch.as_tensor(item["label"]))
        subjects += [item["subject"]] if "subject" in item else []
    return Split(x, torch.stack(labels)), subjects if len(subjects) == len(order) else None


def _people(subjects: Sequence[str] | None) -> Tensor | None:
    """Return whose each image is, as numbers that say nothing else."""
    return None if subjects is None else torch.tensor(people_of([{"subject": one} for one in subjects]))


def _first(split: Split, count: int | None) -> Split:
    return Split(split.x[:count], split.y[:count])
