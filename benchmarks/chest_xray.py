# SPDX-License-Identifier: Apache-2.0
"""How releases of real chest X-rays look, what they keep, and what a classifier learns from them.

python -m benchmarks.chest_xray --data nih_cxr_128.npz --observer realism.py --out results/chest_xray.json

The observer is a Python file with a function ``judge(real, released, reference)`` of arrays (n, H, W), which tells the
two sets apart; it is no part of this package, so that nothing here can be fitted to it. Everything is measured on the
films of validation and test patients, whom the network has not seen.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.report import print_table, write_json
from monai_cadp.attacks import membership
from monai_cadp.data import ClassFolder, save_image_grid
from monai_cadp.engines import GaussianNoise
from monai_cadp.metrics import (
    CHEST_FEATURES,
    Estimate,
    auc,
    bootstrap,
    chest_features,
    train_residual_classifier,
    within_class_correlation,
)
from monai_cadp.metrics.classifier import classifier_logits
from monai_cadp.networks import ConditionalINN, DeclaredContent
from monai_cadp.privacy import Mechanism, PriorOnly, SubsetSelection
from monai_cadp.release import Privatizer
from monai_cadp.release.checkpoint import load_model

BUNDLE = Path(__file__).parents[1] / "bundles" / "cadp_chest_xray"
SHIPPED, SAMPLES = BUNDLE / "models" / "model.pt", BUNDLE / "samples"
EPSILONS = (1.0, 4.0, 8.0)
DECLARED_EPSILONS = (4.0, 8.0)
BATCH_SIZE = 16
CLASSIFIER_SEEDS = 3
# Of every film, for the content that they keep: of one release, it is the draw of a lottery.
RELEASES = 3
NOISE = 0.01  # of the training, under which likelihoods are compared
FAMILIES = ("spectrum", "intensity", "anatomy")


def load(path: Path, *splits: str) -> tuple[Tensor, Tensor, np.ndarray]:
    """Return films (n, 1, H, W) from 0 to 1, labels (n,) and patients (n,)."""
    with np.load(path, allow_pickle=False) as file:
        parts = [[file[f"{split}_{name}"] for split in splits] for name in ("images", "labels", "patients")]
    images, labels, patients = (np.concatenate(part) for part in parts)
    return (
        torch.from_numpy(images)[:, None].float() / 255,
        torch.from_numpy(labels.astype(np.int64)).flatten(),
        patients,
    )


def sample_films(spatial_shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the films that the bundle ships, which are draws from a prior, and their labels."""
    folder = ClassFolder(SAMPLES, spatial_shape, 1)
    items = [folder[index] for index in range(len(folder))]
    return torch.stack([item["image"] for item in items]), torch.stack([item["label"] for item in items])


def observer(path: Path) -> Callable[..., dict[str, Any]]:
    """Return the function ``judge`` of a Python file."""
    spec = importlib.util.spec_from_file_location("observer", path)
    if spec is None or spec.loader is None:
        raise ValueError("The observer is no Python file; give one with a function judge(real, released, reference).")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.judge  # type: ignore[no-any-return]


def release(privatizer: Privatizer, images: Tensor, labels: Tensor, name: str) -> Tensor:
    """Return a release of every film, in 256 grey values as the sources have."""
    batches = list(zip(images.split(BATCH_SIZE), labels.split(BATCH_SIZE), strict=True))
    released = torch.cat([privatizer(x, y) for x, y in tqdm(batches, desc=name)])
    return (released.clamp(0, 1) * 255).round() / 255


def realism(judge: Callable[..., dict[str, Any]], real: Tensor, seen: Tensor, reference: Tensor) -> dict[str, float]:
    """Return distance and AUC by each family of features, at full and half size."""
    row: dict[str, float] = {}
    for name, factor in (("", 1), (", half size", 2)):
        real_, seen_, reference_ = (
            torch.nn.functional.avg_pool2d(x, factor)[:, 0].double().numpy() for x in (real, seen, reference)
        )
        found = judge(real_, seen_, reference_)
        row[f"distance{name}"] = found["distance"]
        row |= {f"{family}{name}": found[family]["observer"] for family in FAMILIES}
    return row


def nearest(images: Tensor, among: Tensor) -> float:
    """Return the mean distance of films to the nearest of others, over their 16 x 16 pixels."""
    one, other = (torch.nn.functional.avg_pool2d(x, x.shape[-1] // 16).flatten(1) for x in (images, among))
    return float(torch.cdist(one, other).amin(1).mean())


def utility(
    models: Sequence[torch.nn.Module], images: Tensor, labels: Tensor, patients: np.ndarray
) -> dict[str, Estimate]:
    """Return the mean AUC and accuracy of classifiers; patients are drawn again with all their films for intervals."""
    logits = [classifier_logits(model, images) for model in models]
    margins = [(scores[:, 1] - scores[:, 0]).numpy() for scores in logits]
    films = [np.flatnonzero(patients == patient) for patient in np.unique(patients)]

    def mean(figure: Callable[[np.ndarray, np.ndarray], float]) -> Callable[[Tensor], float]:
        def of_drawn(drawn: Tensor) -> float:
            index = np.concatenate([films[person] for person in drawn.tolist()])
            return float(np.mean([figure(labels.numpy()[index], margin[index]) for margin in margins]))

        return of_drawn

    def area(truth: np.ndarray, margin: np.ndarray) -> float:
        return auc(torch.as_tensor(margin[truth == 1]), torch.as_tensor(margin[truth == 0]))

    def accuracy(truth: np.ndarray, margin: np.ndarray) -> float:
        return float(((margin > 0) == truth).mean())

    figures = {"auc": area, "accuracy": accuracy}
    return {name: bootstrap(mean(figure), len(films), num_bootstraps=500) for name, figure in figures.items()}


@torch.no_grad()
def membership_auc(
    network: ConditionalINN, members: tuple[Tensor, Tensor, np.ndarray], others: tuple[Tensor, Tensor, np.ndarray]
) -> dict[str, dict[str, object]]:
    """Return how well likelihoods tell films of the training from others: of the whole image, and of every part.

    Patients are drawn again with all their films for intervals.
    """
    scores: list[Tensor] = []
    for images, labels, _ in (members, others):
        noisy = GaussianNoise(NOISE)(images, generator=torch.Generator().manual_seed(0))
        batches = zip(noisy.split(BATCH_SIZE), labels.split(BATCH_SIZE), strict=True)
        parts = [torch.stack(network.part_log_probs(x, y)[: network.num_flows]) for x, y in tqdm(batches, "membership")]
        scores.append(torch.cat(parts, dim=1))
    people = torch.as_tensor(members[2]), torch.as_tensor(others[2])
    resampled: dict[str, Any] = {"people": people, "num_bootstraps": 500}
    found = {"the whole film": membership(*(score.sum(0) for score in scores), **resampled)}
    for part, (member, other) in enumerate(zip(*scores, strict=True)):
        name = f"level to {network.coarse_shape[1] * 2**part} pixels" if part else "coarse image"
        found[name] = membership(member, other, **resampled)
    return {name: result.auc.to_dict(3) for name, result in found.items()}


def _learnt(
    options: argparse.Namespace,
    privatizers: Mapping[str, tuple[Mechanism, Privatizer]],
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor, np.ndarray],
) -> dict[str, object]:
    """Train classifiers on training films and on releases of them, and test them on other originals."""
    sets = {"originals": train[0]}
    for name in ("prior only", "content basis, epsilon 8"):
        sets[name] = release(privatizers[name][1], *train, f"{name}, training films")
    found = {}
    for name, seen in sets.items():
        classifiers = [
            train_residual_classifier(seen, train[1], 2, seed=seed, progress=True) for seed in range(options.seeds)
        ]
        found[name] = utility(classifiers, *test)
    result: dict[str, object] = {"classifiers_of_each_set": options.seeds}
    for figure in ("auc", "accuracy"):
        of_sets = {name: figures[figure].to_dict(3) for name, figures in found.items()}
        result[f"{figure}_on_originals_of_a_classifier_trained_on"] = of_sets
        print_table(
            [{"trained on": name, figure: one["value"], "95 %": one["interval"]} for name, one in of_sets.items()]
        )
    return result


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help=".npz with patients, in MedMNIST's format")
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED)
    parser.add_argument("--observer", type=Path, help="Python file with judge(real, released, reference)")
    parser.add_argument("--declared", action="store_true", help="also release declared content; an hour more")
    parser.add_argument("--utility", action="store_true", help="also train classifiers, on releases of training films")
    parser.add_argument("--films", type=int, help="so many of the films, at random: a distance depends on their number")
    parser.add_argument("--alone", action="store_true", help="with --utility: nothing but the classifiers")
    parser.add_argument("--seeds", type=int, default=CLASSIFIER_SEEDS, help="classifiers of each set")
    parser.add_argument("--draws", type=int, default=320, help="prior samples that are looked at for what is odd")
    parser.add_argument("--out", type=Path, default=Path("results/chest_xray.json"))
    options = parser.parse_args()
    if options.alone and not options.utility:
        parser.error("--alone was given without --utility, and nothing is left to do")

    model = load_model(options.checkpoint)
    model.network.eval()
    train, train_labels, train_patients = load(options.data, "train")
    films, labels, patients = load(options.data, "val", "test")
    generator = torch.Generator().manual_seed(0)
    if options.films is not None:
        few = torch.randperm(len(films), generator=generator)[: options.films]
        films, labels, patients = films[few], labels[few], patients[few.numpy()]
    reference = train[torch.randperm(len(train), generator=generator)[: len(films)]]
    privatizers: dict[str, tuple[Mechanism, Privatizer]] = {
        "prior only": (PriorOnly(), Privatizer(model, PriorOnly())),
    }
    for epsilon in EPSILONS:
        mechanism = SubsetSelection(epsilon)
        privatizers[f"content basis, epsilon {epsilon:g}"] = mechanism, Privatizer(model, mechanism)
    if options.declared:
        # All budgets share one table of candidates.
        declared = Privatizer(model, SubsetSelection(DECLARED_EPSILONS[0]), DeclaredContent(chest_features)).prepare()
        for epsilon in DECLARED_EPSILONS:
            mechanism = SubsetSelection(epsilon)
            privatizers[f"declared content, epsilon {epsilon:g}"] = mechanism, declared.with_mechanism(mechanism)

    if options.utility and options.alone:
        write_json(options.out, _learnt(options, privatizers, (train, train_labels), (films, labels, patients)))
        return
    rows: list[dict[str, object]] = []
    released: dict[str, Tensor] = {}
    for name, (mechanism, privatizer) in privatizers.items():
        released[name] = release(privatizer, films, labels, name)
        row: dict[str, object] = {"method": name, "epsilon": mechanism.epsilon}
        if options.observer is not None:
            row |= realism(observer(options.observer), films, released[name], reference)
        seen = [released[name]] + [release(privatizer, films, labels, f"{name}, again") for _ in range(RELEASES - 1)]
        found = [within_class_correlation(chest_features(films), chest_features(one), labels) for one in seen]
        kept = torch.stack(found).mean(0).tolist()
        row |= {feature: round(value, 3) for feature, value in zip(CHEST_FEATURES, kept, strict=True)}
        row["content kept"] = round(sum(kept) / len(kept), 3)
        rows.append(row)
    if options.observer is not None:
        rows.append(
            {"method": "real films", "epsilon": None} | realism(observer(options.observer), films, reference, reference)
        )
    print_table([{name: row.get(name, "") for name in rows[0]} for row in rows])

    raw = torch.cat(
        [
            model.network.draw(torch.randn(size, model.network.num_latents), torch.arange(size) % 2)
            for size in tqdm([BATCH_SIZE] * (options.draws // BATCH_SIZE), desc="prior samples")
        ]
    )
    result: dict[str, object] = {
        "films": len(films),
        "patients": len(np.unique(patients)),
        "releases_whose_content_is_averaged": RELEASES,
        "parameters": sum(parameter.numel() for parameter in model.network.parameters()),
        "rows": rows,
        "nearest_training_film": {
            "samples_to_train_over_held_out_to_train": round(
                nearest(released["prior only"], train) / nearest(films, train), 3
            )
        },
        "membership_auc_by_likelihood": membership_auc(
            model.network, (train, train_labels, train_patients), (films, labels, patients)
        ),
        "prior_samples": {
            "number": len(raw),
            "finite": bool(raw.isfinite().all()),
            "largest_value": round(float(raw.abs().max()), 2),
            "share_outside_-0.3_to_1.3": round(float(((raw < -0.3) | (raw > 1.3)).flatten(1).any(1).float().mean()), 3),
        },
    }
    if options.utility:
        result |= _learnt(options, privatizers, (train, train_labels), (films, labels, patients))
    # Films that show nobody, as the pictures are for everybody.
    shown, shown_labels = sample_films(model.network.spatial_shape)
    strips = [shown]
    for name in (*(f"content basis, epsilon {epsilon:g}" for epsilon in EPSILONS[::-1]), "prior only"):
        strips.append(release(privatizers[name][1], shown, shown_labels, f"picture, {name}"))
    save_image_grid(torch.cat(strips), options.out.with_suffix(".png"), columns=len(shown))
    save_image_grid(released["content basis, epsilon 8"][:64], options.out.with_name(f"{options.out.stem}_64.png"), 8)
    write_json(options.out, result)


if __name__ == "__main__":
    main()
