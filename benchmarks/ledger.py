# SPDX-License-Identifier: Apache-2.0
"""What a ledger adds to the time of a release, at batches of 64.

python -m benchmarks.ledger --out results/ledger.json
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch.utils.data import Dataset

from benchmarks.report import print_table, write_json
from monai_cadp.networks import ConditionalINN, ContentBasis
from monai_cadp.privacy import Budget, PrivacyLedger, SubsetSelection
from monai_cadp.release import release_batches
from monai_cadp.release.privatizer import Privatizer

BATCH = 64
NUM_DIRECTIONS = 32
NUM_CLASSES = 10
# Image sizes, each with a number of images and of comparisons.
SETTINGS = {(28, 28): (2048, 9), (128, 128): (512, 7), (48, 48, 48): (256, 5)}


class Cohort(Dataset):
    """Random images of as many subjects."""

    def __init__(self, shape: tuple[int, ...], size: int, name: int) -> None:
        self.images = torch.rand(size, 1, *shape)
        self.name = name

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, object]:
        subject = f"{self.name} {index}"
        return {"image": self.images[index], "label": index % NUM_CLASSES, "subject": subject, "item": 0}


def seconds(privatizer: Privatizer, cohort: Cohort, ledger: PrivacyLedger | None) -> float:
    """Return how long the release of a cohort takes."""
    started = time.perf_counter()
    for _ in release_batches(privatizer, cohort, BATCH, ledger=ledger):
        pass
    return time.perf_counter() - started


def overhead(shape: tuple[int, ...], size: int, repeats: int, folder: str) -> dict[str, object]:
    """Release cohorts without and with a ledger in turn, and compare them pair by pair; then meet them again."""
    inn = ConditionalINN(shape, 1, num_classes=NUM_CLASSES)
    privatizer = Privatizer(inn, SubsetSelection(8.0), ContentBasis.leading(inn, NUM_DIRECTIONS))
    ledger = PrivacyLedger.create(f"{folder}/{len(shape)}-{shape[0]}.db", bytes(32), Budget(8.0))
    plain, recorded, returned = [], [], []
    for repeat in range(repeats + 1):
        cohort = Cohort(shape, size, repeat)
        times = [seconds(privatizer, cohort, used) for used in (None, ledger, ledger)]
        if repeat > 0:  # the first is a warm-up
            for kept, one in zip((plain, recorded, returned), times, strict=True):
                kept.append(one)
    pairs = zip(plain, recorded, strict=True)
    return {
        "images": "x".join(map(str, shape)),
        "number": size,
        "batch": BATCH,
        "plain, ms/image": round(1e3 * statistics.median(plain) / size, 2),
        "with a ledger, ms/image": round(1e3 * statistics.median(recorded) / size, 2),
        "overhead, %": round(100 * statistics.median(with_it / without - 1 for without, with_it in pairs), 1),
        "returned, ms/image": round(1e3 * statistics.median(returned) / size, 2),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/ledger.json"))
    options = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        rows = [overhead(shape, size, repeats, folder) for shape, (size, repeats) in SETTINGS.items()]
    print_table(rows)
    write_json(options.out, {"threads": torch.get_num_threads(), "rows": rows})


if __name__ == "__main__":
    main()
