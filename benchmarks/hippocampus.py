# SPDX-License-Identifier: Apache-2.0
"""How releases of hippocampi with their masks look, what they keep, and what a segmentation learns from them.

python -m benchmarks.hippocampus --data msd_hippocampus/ --checkpoint model.pt --observer realism.py \
    --out results/hippocampus.json

The data are a folder with ``images/``, ``labels/`` and ``cases.csv``, which has the columns ``name``, ``split`` and
``patient_pair``, the same for volumes of one patient; the network is one that ``bundles/cadp_3d/configs/train.yaml``
has trained on the cases of ``train`` and ``val``. The observer is a Python file with a function ``judge(real, released,
reference)`` of arrays (n, D, H, W), and no part of this package. Everything is measured on the cases of ``test``, which
the network has not seen; ``--split val`` is for choosing, with a network of the cases of ``train`` alone.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import label as connected
from torch import Tensor
from tqdm import tqdm

from benchmarks.chest_xray import FAMILIES, observer
from benchmarks.report import print_table, write_json
from monai_cadp.attacks import linkage, train_verification
from monai_cadp.data import (
    PublicGrid,
    ReadLabelledVolume,
    join_masks,
    outlined_slices,
    save_image_grid,
    split_masks,
)
from monai_cadp.metrics import (
    MaskFeatures,
    bootstrap_mean,
    segmentation_dice,
    train_segmentation,
    within_class_correlation,
)
from monai_cadp.networks import DeclaredContent
from monai_cadp.privacy import Mechanism, PriorOnly, SubsetSelection
from monai_cadp.release import Privatizer
from monai_cadp.release.checkpoint import load_model

LABELS = ("anterior", "posterior")
NUM_MASK_CLASSES, SPACING, REACH = 3, 1.0, 3.0
DECLARED = {"both volumes": ("volume_1", "volume_2"), "the volume": ("volume_all",)}
DECLARED_EPSILONS = (4.0, 8.0)
BASIS_EPSILON = 8.0
# Splits whose volumes the network has learnt from, by the split that it is measured on.
LEARNT_FROM = {"test": ("train", "val"), "val": ("train",)}
BATCH_SIZE = 8
# Of a volume against another before they are compared, in voxels.
LARGEST_SHIFT = 2


def load(folder: Path, splits: Sequence[str], spatial_shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the volumes of splits with their masks as channels (n, 3, D, H, W), and whose they are (n,)."""
    with open(folder / "cases.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] in splits]
    names, people = [row["name"] for row in rows], torch.tensor([int(row["patient_pair"]) for row in rows])
    read = ReadLabelledVolume(PublicGrid(spatial_shape, SPACING), NUM_MASK_CLASSES)
    pairs = [read(folder / "images" / name, folder / "labels" / name) for name in tqdm(names, " and ".join(splits))]
    images, masks = (torch.stack(part) for part in zip(*pairs, strict=True))
    return join_masks(images, masks, NUM_MASK_CLASSES, REACH), people


def release(privatizer: Privatizer, volumes: Tensor, name: str) -> Tensor:
    """Return a release of every volume."""
    return torch.cat([privatizer(x).clamp(0, 1) for x in tqdm(volumes.split(BATCH_SIZE), desc=name)])


def realism(judge: Callable[..., dict[str, Any]], real: Tensor, seen: Tensor, reference: Tensor) -> dict[str, float]:
    """Return the distance of intensities, and the AUC of the observer by each family of features."""
    found = judge(*(x[:, 0].double().numpy() for x in (real, seen, reference)))
    return {"distance": found["distance"]} | {family: found[family]["observer"] for family in FAMILIES}


def pieces(volumes: Tensor) -> np.ndarray:
    """Return how many connected pieces each label of each volume has (n, labels); voxels that share a corner touch."""
    _, masks = split_masks(volumes, NUM_MASK_CLASSES)
    touching = np.ones((3, 3, 3))
    return np.array(
        [
            [connected(mask == label, touching)[1] for label in range(1, NUM_MASK_CLASSES)]
            for mask in masks[:, 0].numpy()
        ]
    )


def volume_row(volumes: Tensor, real: Tensor) -> dict[str, object]:
    """Return mean and deviation of the volume of every label in millilitres, and of both, beside real ones."""
    row: dict[str, object] = {}
    features = MaskFeatures(["volume_1", "volume_2", "volume_all"], NUM_MASK_CLASSES, SPACING)
    ours, theirs = map(features, (volumes, real))
    for column, name in enumerate((*LABELS, "both")):
        mean, deviation = float(ours[:, column].mean()), float(ours[:, column].std())
        row |= {f"{name}, ml": round(mean, 3), f"{name}, deviation": round(deviation, 3)}
        row[f"{name}, mean beside real"] = round(mean / float(theirs[:, column].mean()), 3)
        row[f"{name}, deviation beside real"] = round(deviation / float(theirs[:, column].std()), 3)
    return row


def content_row(originals: Tensor, released: Tensor) -> dict[str, float]:
    """Return how volumes and intensities of labels of originals and releases correlate."""
    names = ["volume_1", "volume_2", "volume_all", "intensity_1", "intensity_2"]
    one, other = map(MaskFeatures(names, NUM_MASK_CLASSES, SPACING), (originals, released))
    kept = within_class_correlation(one, other, torch.zeros(len(one), dtype=torch.long)).tolist()
    return {name: round(value, 3) for name, value in zip(names, kept, strict=True)}


def aligned_correlation(probes: Tensor, gallery: Tensor) -> Tensor:
    """Return how probes (n, 1, D, H, W) correlate with a gallery (m, 1, D, H, W), shifted as it is best: (n, m)."""
    one, other = (
        torch.fft.fftn((x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True), dim=(1, 2, 3))
        for x in (probes[:, 0], gallery[:, 0])
    )
    shifts = torch.arange(-LARGEST_SHIFT, LARGEST_SHIFT + 1)
    x, y, z = torch.meshgrid(shifts, shifts, shifts, indexing="ij")
    rows = []
    for probe in one:
        correlation = torch.fft.ifftn(probe * other.conj(), dim=(1, 2, 3)).real / probe.numel()
        rows.append(correlation[:, x, y, z].flatten(1).amax(1))
    return torch.stack(rows)


def other_volumes(people: Tensor) -> list[tuple[int, int]]:
    """Return the pairs of two volumes of one patient, both ways round."""
    same = (people[:, None] == people) & ~torch.eye(len(people), dtype=torch.bool)
    return [(int(i), int(j)) for i, j in same.nonzero()]


def reidentification_row(
    originals: tuple[Tensor, Tensor], seen: Tensor, learnt_from: tuple[Tensor, Tensor], learnt_seen: Tensor
) -> dict[str, object]:
    """Return how well patients are found in a gallery by another volume of theirs, by the better of two attackers.

    One is not trained; the other has learnt from pairs of the training volumes and of what was made of these.
    """
    (volumes, people), (learnt, learnt_people) = originals, learnt_from
    pairs = other_volumes(learnt_people)
    one, other = (list(side) for side in zip(*pairs, strict=True))
    network = train_verification(learnt_seen[one, :1], learnt[other, :1], people=learnt_people[one], progress=True)
    with torch.no_grad():
        learned = network(volumes[:, :1], 1) @ network(seen[:, :1], 0).T
    own = torch.eye(len(people), dtype=torch.bool)
    attackers = {"aligned correlation": aligned_correlation(volumes[:, :1], seen[:, :1]), "Siamese network": learned}
    found = {
        name: linkage(similarity, people, people, left_out=own, num_bootstraps=1000)
        for name, similarity in attackers.items()
    }
    row: dict[str, object] = {"patients with two volumes": len(other_volumes(people)) // 2}
    for name, result in found.items():
        row |= {f"{name}, top 1": result.top_1.to_dict(3), f"{name}, AUC": result.auc.to_dict(3)}
    return row | {"guess": round(next(iter(found.values())).guess, 3)}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with images/, labels/ and cases.csv")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--observer", type=Path, help="Python file with judge(real, released, reference)")
    parser.add_argument("--split", choices=tuple(LEARNT_FROM), default="test")
    parser.add_argument("--draws", type=int, default=200, help="prior samples whose masks are looked at")
    parser.add_argument("--candidates", type=int, default=2048, help="of declared content; 0 to leave it out")
    parser.add_argument("--reidentification", action="store_true", help="of patients who have two volumes")
    parser.add_argument("--segmentation_epochs", type=int, default=0, help="of segmentations; 0 to leave them out")
    parser.add_argument("--out", type=Path, default=Path("results/hippocampus.json"))
    options = parser.parse_args()

    model = load_model(options.checkpoint)
    model.network.eval()
    shape = model.network.spatial_shape
    train, train_people = load(options.data, LEARNT_FROM[options.split], shape)
    real, people = load(options.data, [options.split], shape)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    reference, others = train[order[: len(real)]], train[order[-len(real) :]]
    basis_mechanism = SubsetSelection(BASIS_EPSILON)
    privatizers: dict[str, tuple[Mechanism, Privatizer]] = {
        "prior only": (PriorOnly(), Privatizer(model, PriorOnly())),
        f"content basis, epsilon {BASIS_EPSILON:g}": (basis_mechanism, Privatizer(model, basis_mechanism)),
    }
    if options.candidates:
        for name, declared_names in DECLARED.items():
            features = MaskFeatures(declared_names, NUM_MASK_CLASSES, SPACING)
            content = DeclaredContent(features, num_candidates=options.candidates)
            # All budgets share one table of candidates.
            declared = Privatizer(model, SubsetSelection(DECLARED_EPSILONS[0]), content).prepare()
            for epsilon in DECLARED_EPSILONS:
                mechanism = SubsetSelection(epsilon)
                privatizers[f"{name} declared, epsilon {epsilon:g}"] = mechanism, declared.with_mechanism(mechanism)

    judge = None if options.observer is None else observer(options.observer)
    rows: list[dict[str, object]] = []
    released: dict[str, Tensor] = {}
    for name, (mechanism, privatizer) in privatizers.items():
        released[name] = release(privatizer, real, name)
        row: dict[str, object] = {"method": name, "epsilon": mechanism.epsilon}
        if judge is not None:
            row |= realism(judge, real, released[name], reference)
        rows.append(row | content_row(real, released[name]))
    if judge is not None:
        rows.append({"method": "real volumes", "epsilon": None} | realism(judge, real, others, reference))
    print_table([{name: row.get(name, "") for name in rows[0]} for row in rows])

    sizes = [BATCH_SIZE] * (options.draws // BATCH_SIZE)
    drawn = torch.cat(
        [
            model.network.draw(torch.randn(size, model.network.num_latents)).clamp(0, 1)
            for size in tqdm(sizes, desc="prior samples")
        ]
    )
    counts = {"prior samples": pieces(drawn), "real volumes": pieces(real)}
    volumes = [
        {"method": name, **volume_row(found, real)}
        for name, found in (("prior samples", drawn), *released.items(), ("real volumes", real))
    ]
    print_table([{name: value for name, value in row.items() if "beside" not in name} for row in volumes])
    result: dict[str, object] = {
        "split": options.split,
        "volumes": len(real),
        "training_volumes": len(train),
        "parameters": sum(parameter.numel() for parameter in model.network.parameters()),
        "rows": rows,
        "label_volumes": volumes,
        "pieces_per_label": {
            name: {
                "volumes": len(found),
                "in_one_piece": round(float((found == 1).all(1).mean()), 3),
                "with_more_than_two": int((found > 2).any(1).sum()),
                "with_none": int((found == 0).any(1).sum()),
                "most": int(found.max()),
            }
            for name, found in counts.items()
        },
    }
    print_table([{"volumes of": name, **found} for name, found in result["pieces_per_label"].items()])  # type: ignore[attr-defined]
    # First what takes little time: the rest may be stopped.
    shown = [part[:4] for part in (real, released[f"content basis, epsilon {BASIS_EPSILON:g}"], released["prior only"])]
    pictures = torch.cat([outlined_slices(part, NUM_MASK_CLASSES) for part in shown])
    save_image_grid(pictures, options.out.with_suffix(".png"), columns=len(shown[0]))
    write_json(options.out, result)
    if not (options.segmentation_epochs or options.reidentification):
        return
    learnt = {"originals": train}
    learnt |= {
        name: release(privatizers[name][1], train, f"{name}, training volumes")
        for name in ("prior only", f"content basis, epsilon {BASIS_EPSILON:g}")
    }
    if options.reidentification:
        seen = {"originals": real} | released
        result["reidentification"] = linked = [
            {"gallery": name, **reidentification_row((real, people), seen[name], (train, train_people), source)}
            for name, source in learnt.items()
        ]
        write_json(options.out, result)
        print_table([{k: v["value"] if isinstance(v, dict) else v for k, v in row.items()} for row in linked])
    if options.segmentation_epochs:
        result["dice_on_originals_of_a_unet_trained_on"] = dices = {}
        result["dice_of_a_unet_trained_on_originals_on"] = reverse = {}
        for name, source in learnt.items():
            images, masks = split_masks(source, NUM_MASK_CLASSES)
            unet = train_segmentation(
                images,
                masks,
                NUM_MASK_CLASSES,
                epochs=options.segmentation_epochs,
                batch_size=BATCH_SIZE,
                progress=True,
            )
            dices[name] = bootstrap_mean(segmentation_dice(unet, *split_masks(real, NUM_MASK_CLASSES))).to_dict(3)
            if name == "originals":
                for tested, found in {"originals": real, **released}.items():
                    dice = segmentation_dice(unet, *split_masks(found, NUM_MASK_CLASSES))
                    reverse[tested] = bootstrap_mean(dice).to_dict(3)
            write_json(options.out, result)
        for column, found in (("trained on", dices), ("tested on", reverse)):
            print_table([{column: name, "Dice": one["value"], "95 %": one["interval"]} for name, one in found.items()])


if __name__ == "__main__":
    main()
