# SPDX-License-Identifier: Apache-2.0
"""What it costs to be sure that the weights are those of the guarantee, beside a release of 64 images.

python -m benchmarks.fingerprint --out results/fingerprint.json

Every release looks at all weights, byte by byte, before it states its guarantee. Both are measured in turn, many times,
in one process, and the fastest of each counts, which other work on the machine disturbs least.
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
from monai_cadp.release.privatizer import Privatizer

NUM_IMAGES, NUM_CLASSES, NUM_DIRECTIONS = 64, 10, 32
SIZES = (28, 128)
LARGEST_SHARE = 0.02


def measure(size: int, rounds: int) -> dict[str, float | int | str]:
    """Return the time of a release, of the look at the weights before it, and of hashing them anew."""
    torch.manual_seed(0)
    network = ConditionalINN((size, size), 1, num_classes=NUM_CLASSES)
    privatizer = Privatizer(network, SubsetSelection(8.0), ContentBasis.leading(network, NUM_DIRECTIONS))
    images, labels = torch.rand(NUM_IMAGES, 1, size, size), torch.randint(NUM_CLASSES, (NUM_IMAGES,))

    def state_guarantee() -> object:
        return privatizer.description

    def release() -> object:
        return privatizer(images, labels)

    state_guarantee()
    found: dict[Callable[[], object], list[float]] = {state_guarantee: [], release: []}
    for step in found:
        step()
    for _ in tqdm(range(rounds), desc=f"{size} x {size}"):
        for step, times in found.items():
            started = time.perf_counter()
            step()
            times.append(time.perf_counter() - started)
    started = time.perf_counter()
    network._digest()
    hashing = time.perf_counter() - started
    looking, releasing = (min(times) for times in found.values())
    megabytes = sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers())) / 1e6
    return {
        "images": f"{NUM_IMAGES} x 1x{size}x{size}",
        "weights, MB": round(megabytes, 1),
        "release, ms": round(1e3 * releasing, 2),
        "looking at the weights, ms": round(1e3 * looking, 2),
        "share of a release": round(looking / releasing, 4),
        "hashing them anew, ms": round(1e3 * hashing, 2),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/fingerprint.json"))
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    rows = [measure(size, options.rounds) for size in SIZES]
    print_table(rows)
    write_json(options.out, {"threads": torch.get_num_threads(), "largest share": LARGEST_SHARE, "rows": rows})


if __name__ == "__main__":
    main()
