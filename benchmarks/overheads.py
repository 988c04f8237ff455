# SPDX-License-Identifier: Apache-2.0
"""What two precautions cost beside a release of 64 images: being sure of the weights, and cryptographic noise.

python -m benchmarks.overheads --out results/overheads.json

Every release looks at all weights, byte by byte, before it states its guarantee; and the noise that completes its
latents comes from a cryptographic stream for every image, where torch's generator would be quicker. All are measured in
turn, many times, in one process, and the fastest of each counts, which other work on the machine disturbs least.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.report import print_table, write_json
from monai_cadp.networks import ConditionalINN, ContentBasis
from monai_cadp.privacy import SubsetSelection
from monai_cadp.privacy.randomness import random_normal
from monai_cadp.release.privatizer import Privatizer

NUM_IMAGES, NUM_CLASSES, NUM_DIRECTIONS = 64, 10, 32
SIZES = (28, 128)
LARGEST_SHARES = {"weights": 0.02, "noise": 0.05}


def measure(size: int, rounds: int) -> dict[str, float | int | str]:
    """Return the time of a release, of the look at the weights before it, and of its noise from either source."""
    torch.manual_seed(0)
    network = ConditionalINN((size, size), 1, num_classes=NUM_CLASSES)
    privatizer = Privatizer(network, SubsetSelection(8.0), ContentBasis.leading(network, NUM_DIRECTIONS))
    images, labels = torch.rand(NUM_IMAGES, 1, size, size), torch.randint(NUM_CLASSES, (NUM_IMAGES,))
    latents = torch.zeros(NUM_IMAGES, network.num_latents)
    steps: dict[str, Callable[[], object]] = {
        "release": lambda: privatizer(images, labels),
        "looking at the weights": lambda: privatizer.description,
        "cryptographic noise": lambda: random_normal(latents),
        "torch's noise": lambda: torch.randn_like(latents),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in tqdm(range(rounds), desc=f"{size} x {size}"):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - started)
    fastest = {name: min(found) for name, found in times.items()}
    weights = fastest["looking at the weights"]
    noise = fastest["cryptographic noise"] - fastest["torch's noise"]
    return {
        "images": f"{NUM_IMAGES} x 1x{size}x{size}",
        **{f"{name}, ms": round(1e3 * seconds, 2) for name, seconds in fastest.items()},
        "share of the weights": round(weights / fastest["release"], 4),
        "share of the noise": round(noise / fastest["release"], 4),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/overheads.json"))
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    rows = [measure(size, options.rounds) for size in SIZES]
    print_table(rows)
    write_json(options.out, {"threads": torch.get_num_threads(), "largest_shares": LARGEST_SHARES, "rows": rows})


if __name__ == "__main__":
    main()
