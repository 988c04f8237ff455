# SPDX-License-Identifier: Apache-2.0
"""``python -m monai_cadp audit``: attack a configured privatizer, or everything that is shipped."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_cadp.cli.configuration import overrides_of, read_configuration

if TYPE_CHECKING:
    from monai_cadp.handlers import TrackedRun
    from monai_cadp.release import BaseReleaser

__all__ = ["add_parser", "run", "tables"]

CONFIGURED_TRIALS = 4000


def add_parser(subparsers: Any) -> None:
    """Add the command to ``python -m monai_cadp``."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "audit",
        help="attack a privatizer and compare the measured epsilon with the promised one",
        description=(
            "Attack a configured privatizer, from image to image and at the latent, or with --mechanisms all that is "
            "shipped and its negative controls. Further options --KEY VALUE replace values of the configuration. Exit "
            "code: 0 if no promise was contradicted (and every control was caught), 1 if one was, 2 for bad arguments."
        ),
        allow_abbrev=False,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config_file", nargs="+", help="YAML or JSON files of a bundle, merged in this order")
    what.add_argument("--mechanisms", action="store_true", help="audit all that is shipped, and all negative controls")
    parser.add_argument("--privatizer_id", default="privatizer", help="where it is in the configuration")
    parser.add_argument(
        "--trials",
        type=int,
        help=f"of each input in every attack, many in each call; default: {CONFIGURED_TRIALS}, or with --mechanisms "
        "20000, and in the best attack as many as nine tenths of the promise need",
    )
    parser.add_argument(
        "--trials_alone", type=int, help="the same, one in each call; default: 500, and 1000 for negative controls"
    )
    parser.add_argument(
        "--failure_rate",
        type=float,
        default=1e-6,
        help="probability at most with which a promise that is kept is contradicted; default: 1e-6",
    )
    parser.add_argument(
        "--out", type=Path, help="JSON file for the results; with --mechanisms, an interrupted audit goes on beside it"
    )
    parser.add_argument("--tracking_uri", help="MLflow store in which the audit is recorded")
    parser.set_defaults(run=run, overrides=[])


def run(options: argparse.Namespace) -> int:
    """Run the audit; print tables, write JSON, record in MLflow.

    Returns:
        0 if no promise was contradicted and every control was caught, otherwise 1.

    Raises:
        ValueError: if an argument is out of its range, or the configuration has no privatizer.
    """
    from monai_cadp.attacks.audit import MIN_TRIALS

    overrides = overrides_of(options.overrides)
    if options.mechanisms and overrides:
        raise ValueError("Values of a configuration were given, but --mechanisms reads none; leave them out.")
    for name in ("trials", "trials_alone"):
        if (value := getattr(options, name)) is not None and value < MIN_TRIALS:
            raise ValueError(f"{name} is {value}; expected {MIN_TRIALS} or more.")
    if not 0 < options.failure_rate < 1:
        raise ValueError(f"failure_rate is {options.failure_rate}; expected a number between 0 and 1.")
    releaser = None if options.mechanisms else _build(options.config_file, options.privatizer_id, overrides)
    with _tracked(options.tracking_uri) as tracked:
        report = _shipped(options) if releaser is None else _configured(releaser, options)
        print(tables(report))
        if options.out is not None:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
            _finished_file(options.out).unlink(missing_ok=True)
            print(f"\nwritten to {options.out}")
        if tracked is not None:
            _record(tracked, report, options.out)
    contradicted = any(audit["contradicted"] for audit in report["audits"])
    return int(contradicted or not all(control["contradicted"] for control in report["controls"]))


def tables(report: Mapping[str, Any]) -> str:
    """Return the results of an audit as text.

    Args:
        report: what the JSON file of the command holds.

    Returns:
        One table for the promises, and one for the controls if there are any.
    """
    from monai_cadp.privacy.exact_numbers import as_read
    from monai_cadp.reports import text_table

    rows = [
        {
            "audited": audit["name"],
            "at the": audit["level"],
            "epsilon": as_read(audit["epsilon"]),
            "delta": as_read(audit["delta"]),
            "measured": f"{audit['measured']:.2f}",
            "ceiling": f"{audit['ceiling']:.2f}",
            "counted": max(game["positives"] for game in audit["games"]),
            "verdict": _verdict(audit),
        }
        for audit in report["audits"]
    ]
    parts = [text_table(rows)]
    if report["controls"]:
        controls = [
            {
                "negative control": control["name"],
                "at the": control["level"],
                "claimed": f"{control['epsilon']:g}",
                "true": f"{control['true_epsilon']:.2f}" if control["true_epsilon"] is not None else "infinite",
                "delta": as_read(control["delta"]),
                "measured": f"{control['measured']:.2f}",
                "verdict": "caught" if control["contradicted"] else "MISSED",
            }
            for control in report["controls"]
        ]
        parts.append(text_table(controls))
    return "\n\n".join(parts)


def _shipped(options: argparse.Namespace) -> dict[str, Any]:
    from monai_cadp.attacks.suite import audit_shipped

    finished = None if options.out is None else _finished_file(options.out)
    counts = (options.trials, options.trials_alone)
    return audit_shipped(*counts, options.failure_rate, finished=finished, progress=True)


def _finished_file(out: Path) -> Path:
    """Beside the results, what an audit has finished until it has written them."""
    return out.with_suffix(".finished.jsonl")


def _configured(releaser: BaseReleaser, options: argparse.Namespace) -> dict[str, Any]:
    from monai_cadp.attacks import audit_mechanism, audit_releaser
    from monai_cadp.attacks.audit import TRIALS_ALONE
    from monai_cadp.networks import ContentBasis

    audits = [partial(audit_releaser, releaser)]
    core = releaser.core
    # A choice among declared candidates is no map of latents; it is attacked from image to image only.
    if core is not None and isinstance(core.content, ContentBasis):
        audits.append(partial(audit_mechanism, core.mechanism, weights=core.content.weights))
    if core is not None and core.label_mechanism is not None:
        audits.append(partial(audit_mechanism, core.label_mechanism))
    counts = (options.trials or CONFIGURED_TRIALS, options.trials_alone or TRIALS_ALONE)
    share = options.failure_rate / len(audits)
    results = [audit(*counts, failure_rate=share, progress=True) for audit in audits]
    return {"failure_rate": options.failure_rate, "audits": [result.to_dict() for result in results], "controls": []}


def _build(config_files: Sequence[str], privatizer_id: str, overrides: Mapping[str, Any]) -> BaseReleaser:
    """Return the privatizer, or another releaser, of a configuration, and build nothing else of it."""
    from monai_cadp.bundle_options import OPTION_CHECK
    from monai_cadp.release import as_releaser

    parser = read_configuration(config_files, overrides)
    if privatizer_id not in parser:
        raise ValueError(f"The configuration has no {privatizer_id!r}; name its privatizer with --privatizer_id.")
    try:
        if OPTION_CHECK in parser:
            parser.get_parsed_content(OPTION_CHECK)
        built = parser.get_parsed_content(privatizer_id)
    except Exception as error:
        while error.__cause__ is not None:
            error = error.__cause__  # type: ignore[assignment]
        reason = str(error.args[0] if error.args else type(error).__name__).splitlines()[0]
        raise ValueError(f"{privatizer_id!r} of the configuration could not be built: {reason}") from None
    try:
        return as_releaser(built, f"{privatizer_id!r} of the configuration")
    except TypeError as error:
        raise ValueError(str(error)) from None


def _tracked(tracking_uri: str | None) -> contextlib.AbstractContextManager[TrackedRun | None]:
    if tracking_uri is None:
        return contextlib.nullcontext()
    from monai_cadp.handlers import TrackedRun

    return TrackedRun(tracking_uri, experiment="audit", run_name="audit")


def _record(run: TrackedRun, report: Mapping[str, Any], path: Path | None) -> None:
    run.parameters({"failure_rate": report["failure_rate"]})
    for row in [*report["audits"], *report["controls"]]:
        # MLflow takes no other characters in names.
        title = re.sub(r"[^\w. -]", "", f"{row['name']} {row['level']} epsilon {row['epsilon']:g}")
        run.metrics({f"{title} measured": row["measured"], f"{title} ceiling": row["ceiling"]})
    if path is not None:
        run.artifact(path)


def _verdict(audit: Mapping[str, Any]) -> str:
    if audit["contradicted"]:
        return "CONTRADICTED"
    return "kept" if audit["ceiling"] > audit["epsilon"] else "kept, but more trials are needed to contradict it"
