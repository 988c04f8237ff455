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
from tqdm import tqdm

from benchmarks.report import print_table, write_json
from monai_cadp.networks import ConditionalINN, ContentBasis
from monai_cadp.privacy import Budget, PrivacyLedger, SubsetSelection
from monai_cadp.privatizer import Privatizer
from monai_cadp.recorded_release import recorded_release

BATCH = 64
NUM_DIRECTIONS = 32
NUM_CLASSES = 10
# Image sizes, each with a number of batches.
SETTINGS = {(28, 28): 60, (128, 128): 20, (48, 48, 48): 6}


def overhead(shape: tuple[int, ...], repeats: int, folder: str) -> dict[str, object]:
    """Release batches without and with a ledger in turn, and compare them pair by pair; then meet them again."""
    inn = ConditionalINN(shape, 1, num_classes=NUM_CLASSES)
    privatizer = Privatizer(inn, SubsetSelection(8.0), ContentBasis.leading(inn, NUM_DIRECTIONS))
    ledger = PrivacyLedger.create(f"{folder}/{len(shape)}-{shape[0]}.db", bytes(32), Budget(8.0))
    plain, recorded, met = [], [], []
    for repeat in tqdm(range(repeats + 1), desc=str(shape)):
        x, labels = torch.rand(BATCH, 1, *shape), torch.randint(NUM_CLASSES, (BATCH,))
        subjects = [f"{repeat} {index}" for index in range(BATCH)]
        times = []
        for release in (
            lambda x=x, labels=labels: privatizer.release(x, labels),
            lambda x=x, labels=labels, s=subjects: recorded_release(privatizer, ledger, x, labels, s, range(BATCH)),
            lambda x=x, labels=labels, s=subjects: recorded_release(privatizer, ledger, x, labels, s, range(BATCH)),
        ):
            started = time.perf_counter()
            release()
            times.append(time.perf_counter() - started)
        if repeat > 0:  # the first is a warm-up
            plain.append(times[0])
            recorded.append(times[1])
            met.append(times[2])
    pairs = zip(plain, recorded, strict=True)
    return {
        "images": "x".join(map(str, shape)),
        "batch": BATCH,
        "plain, ms": round(1e3 * statistics.median(plain), 1),
        "with a ledger, ms": round(1e3 * statistics.median(recorded), 1),
        "overhead, %": round(100 * statistics.median(with_it / without - 1 for without, with_it in pairs), 1),
        "met again, ms": round(1e3 * statistics.median(met), 1),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/ledger.json"))
    options = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        rows = [overhead(shape, repeats, folder) for shape, repeats in SETTINGS.items()]
    print_table(rows)
    write_json(options.out, {"threads": torch.get_num_threads(), "rows": rows})


if __name__ == "__main__":
    main()
