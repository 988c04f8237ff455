# SPDX-License-Identifier: Apache-2.0
"""A standard MONAI script that trains a 3D classifier, with one transform inserted: it never sees an original.

python examples/classify_released_volumes.py --checkpoint bundles/cadp_brain_mr/models/model.pt --epsilon 8
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import ROCAUC, StatsHandler, ValidationHandler, from_engine
from monai.networks.nets import DenseNet
from monai.transforms import Activationsd, AsDiscreted, Compose, EnsureTyped, RandFlipd, RandGaussianNoised

from monai_cadp.data import BrainCohort
from monai_cadp.privacy import Budget, PrivacyLedger, SubsetSelection
from monai_cadp.privacy.ledger import write_secret
from monai_cadp.release.checkpoint import load_privatizer
from monai_cadp.transforms import Privatized


def main() -> float:
    """Train on releases, test on originals; returns the area under the curve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--epsilon", type=float, required=True)
    parser.add_argument("--patients", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--ledger", type=Path, default=Path("ledger.db"))
    parser.add_argument("--spatial_shape", type=int, nargs=3, default=(48, 60, 48))
    parser.add_argument("--spacing", type=float, default=3.6)
    options = parser.parse_args()
    grid = {"spatial_shape": tuple(options.spatial_shape), "spacing": options.spacing}

    schema = {"spacing": options.spacing}
    privatizer = load_privatizer(options.checkpoint, SubsetSelection(options.epsilon), unit="patient", schema=schema)
    secret = write_secret(options.ledger.with_suffix(".secret"))
    ledger = PrivacyLedger.create(options.ledger, secret, Budget(epsilon=options.epsilon))
    train_transforms = Compose(
        [
            EnsureTyped(keys="image"),
            # The inserted transform. All that follows, in every epoch, sees one release of each patient.
            Privatized(
                keys="image",
                privatizer=privatizer,
                condition_key="label",
                ledger=ledger,
                subject_key="subject",
                item_key="item",
            ),
            RandFlipd(keys="image", prob=0.5, spatial_axis=0),
            RandGaussianNoised(keys="image", prob=0.5, std=0.02),
        ]
    )
    train_data = Dataset(BrainCohort(seed=21, num_patients=options.patients, **grid), train_transforms)
    train_loader = DataLoader(train_data, batch_size=8, shuffle=True, num_workers=2)
    test_loader = DataLoader(BrainCohort(seed=22, num_patients=max(options.patients // 2, 4), **grid), batch_size=8)

    network = DenseNet(3, 1, 2, init_features=16, growth_rate=8, block_config=(2, 2, 2))
    post = Compose([Activationsd(keys="pred", softmax=True), AsDiscreted(keys="label", to_onehot=2)])
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=test_loader,
        network=network,
        postprocessing=post,
        key_val_metric={"auc": ROCAUC(output_transform=from_engine(["pred", "label"]))},
    )
    SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=options.epochs,
        train_data_loader=train_loader,
        network=network,
        optimizer=torch.optim.Adam(network.parameters(), 1e-3),
        loss_function=torch.nn.CrossEntropyLoss(),
        train_handlers=[
            ValidationHandler(interval=options.epochs, validator=evaluator),
            StatsHandler(output_transform=from_engine("loss", first=True)),
        ],
    ).run()
    auc = float(evaluator.state.metrics["auc"])
    print(f"trained on releases at epsilon {options.epsilon:g} a patient, tested on originals: AUC {auc:.3f}")
    return auc


if __name__ == "__main__":
    main()
