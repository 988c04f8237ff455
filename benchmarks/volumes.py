# SPDX-License-Identifier: Apache-2.0
"""Seconds and peak memory of one volume, at sizes from 32 to 128 cubed, with the network of the brain bundle.

python -m benchmarks.volumes --out results/volumes.json
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import torch
from monai.bundle import ConfigParser
from tqdm import tqdm

from benchmarks.report import print_table, write_json
from benchmarks.timing import fastest_step, peak_bytes, training_step
from monai_cadp.networks import ConditionalINN, ContentBasis
from monai_cadp.privacy import SubsetSelection
from monai_cadp.release.privatizer import Privatizer

SIZES = (32, 48, 64, 96, 128)
TASKS = ("train", "privatize")
NUM_DIRECTIONS = 32
CONFIG = Path("bundles/cadp_brain_mr/configs/train.yaml")


def task_step(task: str, size: int) -> Callable[[], object]:
    """Return one training step, or the release of one volume, of a network of this size."""
    parser = ConfigParser(ConfigParser.load_config_file(CONFIG) | {"spatial_shape": [size] * 3})
    inn: ConditionalINN = parser.get_parsed_content("network")
    volume, label = torch.rand(1, 1, size, size, size), torch.tensor([1])
    if task == "privatize":
        content = ContentBasis.leading(inn, NUM_DIRECTIONS, in_subspace=True)
        privatizer = Privatizer(inn, SubsetSelection(8.0), content)
        return lambda: privatizer(volume, label)
    return training_step(inn, volume, label)


def measure(task: str, size: int, threads: int, seconds: float) -> tuple[float, float, float]:
    """Return the seconds of the fastest step, and how many bytes the process took before there was a network, and at
    most; called in a process of its own."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    before = peak_bytes()
    step = task_step(task, size)
    gc.collect()
    fastest = fastest_step(step, seconds)
    return fastest, before, peak_bytes()


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=12.0, help="time for each measurement, at least one step")
    parser.add_argument("--out", type=Path, default=Path("results/volumes.json"))
    options = parser.parse_args()
    threads = torch.get_num_threads()
    rows: list[dict[str, object]] = []
    per_voxel = {}
    for task, size in tqdm([(task, size) for task in TASKS for size in SIZES], desc="sizes"):
        # A new process each: the peak is that of one measurement.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, before, peak = pool.apply(measure, (task, size, threads, options.seconds))
        per_voxel[task, size] = seconds / size**3, (peak - before) / size**3
        row = {
            "task": task,
            "volume": f"{size} cubed",
            "seconds": round(seconds, 3),
            "peak memory, GB": round(peak / 1e9, 2),
            "microseconds a voxel": round(1e6 * per_voxel[task, size][0], 2),
            "bytes a voxel": round(per_voxel[task, size][1]),
        }
        rows.append(row)
    print_table(rows)
    ratios = [
        {
            "task": task,
            "time a voxel, 128 beside 48": round(per_voxel[task, 128][0] / per_voxel[task, 48][0], 2),
            "memory a voxel, 128 beside 48": round(per_voxel[task, 128][1] / per_voxel[task, 48][1], 2),
        }
        for task in TASKS
    ]
    print_table(ratios)
    write_json(options.out, {"threads": threads, "batch": 1, "rows": rows, "ratios": ratios})


if __name__ == "__main__":
    main()
