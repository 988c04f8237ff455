# SPDX-License-Identifier: Apache-2.0
"""What canaries show of private training, beside what it claims; and of trainings that break their promise.

python -m benchmarks.audit_training --out results/audit_training.json
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from benchmarks.report import print_table, write_json
from monai_cadp.studies.training_audit import TrainingAudit, audit_moments, audit_training
from monai_cadp.studies.training_controls import BROKEN_MOMENTS, BROKEN_TRAINERS

EPSILONS = 1.0, 4.0, 8.0
CONTROL_EPSILON = 4.0
# Of each audit: runs and canaries of trainings, runs of moments; for the negative controls, and with --quick.
FULL, CONTROLS, QUICK = (20, 2000, 1500), (2, 1000, 60), (5, 2000, 300)


def row(result: TrainingAudit) -> dict[str, object]:
    """Return what a reader wants of an audit."""
    return {
        "audited": result.name,
        "claimed": result.epsilon,
        "measured": round(result.measured, 2),
        "share": round(result.measured / result.epsilon, 2),
        "one run": round(result.one_run, 2),
        "canaries": result.canaries,
        "verdict": "contradicted" if result.is_contradicted else "kept",
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/audit_training.json"))
    parser.add_argument("--quick", action="store_true", help="fewer canaries, epsilon 4 alone, and no file")
    options = parser.parse_args()
    torch.manual_seed(0)
    started = time.process_time()
    runs, canaries, fits = QUICK if options.quick else FULL
    audits = []
    for epsilon in (CONTROL_EPSILON,) if options.quick else EPSILONS:
        audits.append(audit_training(epsilon, runs=runs, canaries=canaries, progress=True))
        audits.append(audit_moments(epsilon, runs=fits, progress=True))
    runs, canaries, fits = CONTROLS
    controls = [
        audit_training(CONTROL_EPSILON, runs=runs, canaries=canaries, trainer=kind, name=name, progress=True)
        for name, kind in BROKEN_TRAINERS.items()
    ]
    controls += [
        audit_moments(CONTROL_EPSILON, runs=fits, moments=kind, name=f"moments, {name}", progress=True)
        for name, kind in BROKEN_MOMENTS.items()
    ]
    print_table([row(result) for result in audits])
    print("\nnegative controls, which must be contradicted")
    print_table([row(result) for result in controls])
    missed = [result.name for result in controls if not result.is_contradicted]
    broken = [result.name for result in audits if result.is_contradicted]
    if missed or broken:
        print(f"\nmissed: {missed}; contradicted, though believed to be right: {broken}")
    print(f"\n{time.process_time() - started:.0f} seconds of one core")
    if not options.quick:
        report = {
            "cpu_seconds": round(time.process_time() - started),
            "audits": [result.to_dict() for result in audits],
            "negative_controls": [result.to_dict() for result in controls],
        }
        write_json(options.out, report)
    raise SystemExit(bool(missed or broken))


if __name__ == "__main__":
    main()
