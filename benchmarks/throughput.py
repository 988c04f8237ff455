# SPDX-License-Identifier: Apache-2.0
"""Images per second of the paper's network and of ours, in one run, with the same batch and threads.

python -m benchmarks.throughput --out results/throughput.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.report import print_table, write_json
from benchmarks.timing import fastest_step, matmul_rate, operations, training_step
from monai_cadp.networks import (
    ConditionalINN,
    ContentBasis,
    InvertibleNetwork,
    PaperINN,
    calibrate_edges,
    calibrate_histogram,
    calibrate_spectrum,
)
from monai_cadp.privacy import SubsetSelection
from monai_cadp.release.privatizer import Privatizer

NUM_DIRECTIONS = 32
# Size, batch, seconds for each measurement, classes: the paper's large network takes half a minute for one step.
SETTINGS = ((28, 256, 15.0, 10), (128, 32, 30.0, 4))


def measure(
    network: InvertibleNetwork, size: int, batch: int, seconds: float, classes: int
) -> dict[str, tuple[float, float | None]]:
    """Return images per second, and operations per second if known, of a training step and of privatizing."""
    images, labels = torch.rand(batch, 1, size, size), torch.randint(classes, (batch,))
    # Any orthonormal directions cost the same.
    directions = torch.linalg.qr(torch.randn(network.num_latents, NUM_DIRECTIONS)).Q
    content = ContentBasis(directions, torch.ones(NUM_DIRECTIONS), training_events=())
    privatizer = Privatizer(network, SubsetSelection(8.0), content)
    steps = {
        "train": training_step(network, images, labels),
        "privatize": lambda: privatizer(images, labels),
    }
    found = {}
    for task, step in steps.items():
        if task == "privatize" and isinstance(network, ConditionalINN) and network.knows_noise:
            # What draws of a trained network pass, and those of a new one do not.
            for calibrate in (calibrate_spectrum, calibrate_edges, calibrate_histogram):
                calibrate(network, lambda: [(images, labels)])
        fastest, count = fastest_step(step, seconds), operations(step)
        found[task] = (batch / fastest, None if count is None else count / fastest)
    return found


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/throughput.json"))
    options = parser.parse_args()
    torch.manual_seed(0)
    rows, rate = [], matmul_rate()
    for size, batch, seconds, classes in tqdm(SETTINGS, desc="sizes"):
        paper = PaperINN.mnist(classes) if size == 28 else PaperINN.large(classes)
        theirs = measure(paper, size, batch, seconds, classes)
        del paper
        ours = measure(ConditionalINN((size, size), 1, num_classes=classes), size, batch, seconds, classes)
        for task in ("train", "privatize"):
            images, done = ours[task]
            rows.append(
                {
                    "images": f"1x{size}x{size}",
                    "task": task,
                    "batch": batch,
                    "paper, images/s": round(theirs[task][0], 1),
                    "ours, images/s": round(images, 1),
                    "ratio": round(images / theirs[task][0], 1),
                    "share of the matrix-product rate": None if done is None else round(done / rate, 2),
                }
            )
    print_table(rows)
    write_json(
        options.out, {"threads": torch.get_num_threads(), "matrix_product_gflops": round(rate / 1e9, 1), "rows": rows}
    )


if __name__ == "__main__":
    main()
