# SPDX-License-Identifier: Apache-2.0
"""A standard MONAI script that trains a SegResNet, with one transform inserted: it sees released pairs alone.

An image and its mask are one release under one budget, by a network that bundles/cadp_3d has trained. Volumes are a
folder with images/ and labels/, or a MONAI datalist of {"image", "mask", "subject"}, whose lists "training" and "test"
are taken:

python examples/segment_released_volumes.py --checkpoint model.pt --epsilon 8 --train list.json --test list.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from monai.data import CacheDataset, DataLoader
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import MeanDice, StatsHandler, ValidationHandler, from_engine
from monai.losses import DiceCELoss
from monai.networks.nets import SegResNet
from monai.transforms import AsDiscreted, Compose, RandAffined, RandGaussianNoised

from monai_cadp.data import LabelledVolumes, PublicGrid, ReadLabelledVolume
from monai_cadp.privacy import Budget, PrivacyLedger, SubsetSelection
from monai_cadp.privacy.ledger import write_secret
from monai_cadp.release.checkpoint import load_privatizer
from monai_cadp.transforms import Privatized


def image_and_mask(batch: dict[str, Any], device: torch.device, non_blocking: bool = False) -> tuple[Any, Any]:
    """Return what the engines take; "label" is the class of a volume here."""
    return batch["image"].to(device), batch["mask"].to(device)


def main() -> float:
    """Train on releases, test on originals; returns the mean Dice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--epsilon", type=float, required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--subject_pattern", help="finds whose volume a file of the folder to train on is")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--ledger", type=Path, default=Path("ledger.db"))
    # As in the training of the checkpoint.
    parser.add_argument("--num_mask_classes", type=int, default=3)
    parser.add_argument("--spatial_shape", type=int, nargs=3, default=(32, 48, 32))
    parser.add_argument("--spacing", type=float, default=1.0)
    parser.add_argument("--intensity_range", type=float, nargs=2)
    parser.add_argument("--reach", type=float, default=3.0)
    options = parser.parse_args()
    num_classes = options.num_mask_classes
    grid = PublicGrid(tuple(options.spatial_shape), options.spacing)
    read = ReadLabelledVolume(grid, num_classes, options.intensity_range)

    schema = {"spacing": options.spacing}
    privatizer = load_privatizer(options.checkpoint, SubsetSelection(options.epsilon), unit="volume", schema=schema)
    secret = write_secret(options.ledger.with_suffix(".secret"))
    ledger = PrivacyLedger.create(options.ledger, secret, Budget(epsilon=options.epsilon))
    train_transforms = Compose(
        [
            # The inserted transform. All that follows, in every epoch, sees one release of each volume with its mask.
            Privatized(
                keys=["image", "mask"],
                mask_key="mask",
                num_mask_classes=num_classes,
                reach=options.reach,
                privatizer=privatizer,
                ledger=ledger,
                subject_key="subject",
                item_key="item",
            ),
            RandAffined(
                keys=["image", "mask"],
                prob=0.5,
                rotate_range=0.1,
                scale_range=0.1,
                mode=["bilinear", "nearest"],
                padding_mode="border",
            ),
            RandGaussianNoised(keys="image", prob=0.5, std=0.02),
        ]
    )
    originals = LabelledVolumes(options.train, read, subject_pattern=options.subject_pattern)
    train_loader = DataLoader(CacheDataset(originals, train_transforms, num_workers=0), batch_size=4, shuffle=True)
    test_loader = DataLoader(LabelledVolumes(options.test, read, split="test"), batch_size=4)

    network = SegResNet(spatial_dims=3, init_filters=8, in_channels=1, out_channels=num_classes)
    post = Compose(
        [
            AsDiscreted(keys="pred", argmax=True, to_onehot=num_classes),
            AsDiscreted(keys="label", to_onehot=num_classes),
        ]
    )
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=test_loader,
        network=network,
        prepare_batch=image_and_mask,
        postprocessing=post,
        key_val_metric={"dice": MeanDice(include_background=False, output_transform=from_engine(["pred", "label"]))},
    )
    SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=options.epochs,
        train_data_loader=train_loader,
        network=network,
        prepare_batch=image_and_mask,
        optimizer=torch.optim.Adam(network.parameters(), 2e-3),
        loss_function=DiceCELoss(to_onehot_y=True, softmax=True),
        train_handlers=[
            ValidationHandler(interval=options.epochs, validator=evaluator),
            StatsHandler(output_transform=from_engine("loss", first=True)),
        ],
    ).run()
    dice = float(evaluator.state.metrics["dice"])
    print(f"trained on releases at epsilon {options.epsilon:g} a volume, tested on originals: Dice {dice:.3f}")
    return dice


if __name__ == "__main__":
    main()
