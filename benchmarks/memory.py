# SPDX-License-Identifier: Apache-2.0
"""Peak memory and seconds of a training step, by depth: activations recomputed (reversible) beside activations stored.

python -m benchmarks.memory --out results/memory.json
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.report import print_table, write_json
from benchmarks.timing import fastest_step, peak_bytes, training_step
from monai_cadp.networks import ConditionalINN

DEPTHS = (4, 8, 16, 32)
ROUNDS = 2
# Images of a batch, and their sizes.
BATCHES = {"2D": (64, (128, 128)), "3D": (1, (64, 64, 64))}


def measure(dimensions: str, depth: int, reversible: bool, threads: int, seconds: float) -> tuple[float, float]:
    """Return the seconds of the fastest step, and the bytes that steps take at most; called in a process of its own."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    count, sizes = BATCHES[dimensions]
    network = ConditionalINN(sizes, num_classes=2, num_detail_couplings=depth)
    network.set_reversible(reversible)
    step = training_step(network, torch.rand(count, 1, *sizes), torch.arange(count) % 2)
    gc.collect()
    before = peak_bytes()
    return fastest_step(step, seconds), peak_bytes() - before


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=12.0, help="time for each measurement, at least one step")
    parser.add_argument("--out", type=Path, default=Path("results/memory.json"))
    options = parser.parse_args()
    threads = torch.get_num_threads()
    rows: list[dict[str, object]] = []
    for dimensions, depth in tqdm([(dimensions, depth) for dimensions in BATCHES for depth in DEPTHS], desc="depths"):
        found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
        # In turn, because a machine that others share is not as fast at all times.
        for reversible in (False, True) * ROUNDS:
            # A new process each: the peak is that of one measurement.
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found[reversible].append(pool.apply(measure, (dimensions, depth, reversible, threads, options.seconds)))
        (stored_seconds, stored_bytes), (seconds, recomputed_bytes) = (
            (min(fastest for fastest, _ in rounds), max(peak for _, peak in rounds)) for rounds in found.values()
        )
        row = {
            "images": dimensions,
            "couplings a level": depth,
            "stored, GB": round(stored_bytes / 1e9, 3),
            "recomputed, GB": round(recomputed_bytes / 1e9, 3),
            "memory": f"{recomputed_bytes / stored_bytes:.1%}",
            "time": round(seconds / stored_seconds, 2),
        }
        rows.append(row)
    print_table(rows)
    batches = {name: {"images": count, "sizes": sizes} for name, (count, sizes) in BATCHES.items()}
    write_json(options.out, {"threads": threads, "batches": batches, "rows": rows})


if __name__ == "__main__":
    main()
