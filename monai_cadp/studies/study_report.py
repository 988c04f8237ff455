# SPDX-License-Identifier: Apache-2.0
"""The page of a study."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai_cadp.privacy import largest_auc
from monai_cadp.reports import Picture, Point, Section, curves, study_page
from monai_cadp.studies.attack_table import ATTACKS, attack_table
from monai_cadp.studies.cells import epsilon_cell, figure_cell
from monai_cadp.studies.illustrations import Illustration, WhichIsWhich
from monai_cadp.studies.measurements import Releases
from monai_cadp.studies.subgroups import SMALLEST_GROUP, gaps
from monai_cadp.studies.variant import ORIGINALS, Split, Variant

__all__ = ["write_report"]

# Figures by the beginning of their names, and what the page says of them.
GROUPS = {
    "What releases are good for": (
        ("accuracy", "auc", "r2", "uncertainty", "dice"),
        "p/o: learnt from releases (private) and tested on originals; p/p: tested on releases; o/p: learnt from "
        "originals and tested on releases. In the row of the originals p/o is o/o. Images of several labels are judged "
        "by the mean AUC over those that some test images have and others have not. Uncertainty is that of Monte-Carlo "
        "dropout, from 0 to 1.",
    ),
    "What of the content is kept": (
        ("kept", "pixel_cosine", "perceptual"),
        "Correlation between original and release within a class; what prior-only reaches, chance and class explain. "
        "Images that share all of several labels are a class; where hardly any do, nothing is measured.",
    ),
    "How real releases look": (
        ("frechet", "precision", "recall"),
        "On the last features of the classifier of originals: the distance of both sets, the share of releases that "
        "lie among originals, and of originals that lie among releases.",
    ),
}
FURTHER = "What other measurements of this study's configuration have found."
CURVES = {
    "accuracy_p_o": "accuracy, trained on releases, tested on originals",
    "auc_p_o": "mean AUC over labels, trained on releases, tested on originals",
    "dice_p_o": "Dice, segmentation trained on releases, tested on originals",
    "r2_p_o": "R2, trained on releases, tested on originals",
    "kept_mean": "content kept, within-class correlation",
    "linkage_auc": "AUC of linkage by who has learnt nothing",
    "reidentification_auc": "AUC of re-identification by a Siamese network",
}
WHO_PAYS = (
    "The same figures for groups of test people, as the table of subgroups names them: what releases are good for, "
    "what they keep, how many look real, what attackers get. Classifiers and attackers learnt from everybody. Groups "
    f"of fewer than {SMALLEST_GROUP} people are withheld. These figures are averages over originals, and not "
    "themselves private."
)
GAPS = (
    "Groups whose 95 % intervals do not meet. The row of the originals tells what is so without any release. Among "
    "many pairs a few differ by chance."
)
NO_GAPS = "The 95 % intervals of all groups of a column meet: no gap is larger than chance explains."
MEMBERSHIP = (
    "Membership inference. No guarantee of a release covers this: it is about the people of the training "
    "set. True positives are the members that are found while 1 or 0.1 percent of others are taken for members."
)
AUDIT = (
    "Attackers who know the network were given releases of two originals, chosen as the easiest to tell apart. Their "
    "success is a lower bound of the true epsilon, wrong with a probability of at most one in a million: above the "
    "promise it would contradict it; below, it does not prove it. Promises that so few trials could not contradict are "
    "left out."
)
SHOWN = "Of images one row each; those in a column are made from one original."
NOT_SHOWN = (
    "Samples of the prior, which hold nothing of anybody. Releases of people are not shown: every one that is seen "
    "adds to what is spent of them."
)
PACKAGES = ("monai_cadp", "monai", "torch", "pytorch-ignite", "FrEIA", "mlflow", "opendp", "dp-accounting")


def write_report(
    path: Path,
    results: Mapping[str, Any],
    illustrations: Sequence[Illustration],
    picture: Callable[[str, Illustration], Path],
    public: tuple[Split, Split] | None,
) -> None:
    """Write the page.

    Args:
        path: of the HTML file.
        results: what :class:`~monai_cadp.studies.Study` writes as ``results.json``.
        illustrations: what was drawn of every variant.
        picture: gives the PNG file of a variant, by its name, and an illustration; not every variant has one.
        public: originals that may be shown, of training and test, or None where they are not public.
    """
    variants = results["variants"]
    sections = [Section("In words", text=_introduction(results, public is not None))]
    for title, (beginnings, text) in GROUPS.items():
        rows = [_row(variant, beginnings) for variant in variants]
        rows = [row for row in rows if len(row) > 2]
        if rows:
            drawn = _curves(variants, beginnings, results["unit"])
            sections.append(Section(title, text=text, rows=rows, pictures=drawn))
    further = _further(variants)
    if further:
        rows = [row for row in (_row(variant, further) for variant in variants) if len(row) > 2]
        drawn = [Picture(_curve(variants, name, name.replace("_", " "), results["unit"]), name) for name in further]
        sections.append(Section("Further figures", text=FURTHER, rows=rows, pictures=drawn))
    attacks = attack_table(variants, results["people_are_known"])
    if attacks is not None:
        sections.append(replace(attacks, pictures=_curves(variants, ("linkage", "reidentification"), results["unit"])))
    if any(variant.get("subgroups") for variant in variants):
        sections += _who_pays(variants)
    names = list(dict.fromkeys(variant["name"] for variant in variants))
    puzzles = [part for part in illustrations if isinstance(part, WhichIsWhich)]
    shown = [part for part in illustrations if part not in puzzles]
    pictures = [p for part in shown for p in [*_originals(part, public), *_pictures(part, names, picture)]]
    sections.append(Section("What is released", text=SHOWN if public is not None else NOT_SHOWN, pictures=pictures))
    if public is not None:
        sections += [_puzzle(part, public[1], _pictures(part, names, picture)) for part in puzzles]
    sections.append(_network(results["network"]))
    if "membership" in results:
        rows = [{name: figure_cell(value) for name, value in row.items()} for row in results["membership"]]
        sections.append(Section("What the network tells of its training images", text=MEMBERSHIP, rows=rows))
    if results.get("audit"):
        rows = [{name: figure_cell(value) for name, value in row.items()} for row in results["audit"]]
        sections.append(Section("Can attackers contradict the promises?", text=AUDIT, rows=rows))
    explanations = {variant["name"]: variant["explanation"] for variant in variants}
    rows = [{"variant": name, "promise": text} for name, text in explanations.items()]
    sections.append(Section("What is promised, in words", rows=rows, wide_text=True))
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    sections.append(Section("Versions", text=versions))
    study_page(path, results["title"], sections)


def _who_pays(variants: Sequence[Mapping[str, Any]]) -> list[Section]:
    rows, differences = [], []
    for variant in variants:
        method = {"method": variant["method"], "epsilon": epsilon_cell(variant)}
        for group in variant["subgroups"]:
            row: dict[str, object] = {**method, "group": f"{group['column']}: {group['value']}"}
            row["people"] = group.get("people", f"under {SMALLEST_GROUP}")
            rows.append(row | {name: figure_cell(figure) for name, figure in group["figures"].items()})
        differences += [
            {**method, **{name: text.replace("_", " ") for name, text in gap.items()}}
            for gap in gaps(variant["subgroups"])
        ]
    found = Section("Where groups differ", text=GAPS if differences else NO_GAPS, rows=differences)
    return [Section("Who pays", text=WHO_PAYS, rows=rows), found]


def _introduction(results: Mapping[str, Any], public: bool) -> str:
    unit = results["unit"]
    text = (
        f"Every {unit} was released by itself under local differential privacy: epsilon bounds how much any attacker, "
        "whatever else they know, learns of one original from its release; they tell two candidates apart with an area "
        "under the curve of at most e^epsilon / (1 + e^epsilon): .73 at 1, .98 at 4. Public are the class or labels of "
        "each, their number, all that was chosen here, and the figures on this page. "
    )
    text += (
        f"The {unit}s were declared public, so that originals are shown beside releases."
        if public
        else f"The {unit}s are not declared public: originals, and whatever compares single ones with their releases, "
        "are left out. The figures are averages over the test set and are not themselves private; the network learnt "
        "from the training set, and no guarantee covers what it tells of it."
    )
    of_people, of_anybody = "people, drawn with all their images", f"{unit}s, as if each were of another person"
    people = of_people if results["people_are_known"] else of_anybody
    text += f" Brackets hold intervals of 95 % over {people}."
    return text + (" This was a short run: its figures mean nothing." if results["quick"] else "")


def _network(network: Mapping[str, Any]) -> Section:
    size, bits = f"{network['parameters']:,} trained parameters", network["validation_bits"]
    if not bits:
        return Section("The network", text=f"{size}. It was trained before.")
    line = {"validation": [Point(epoch + 1, value) for epoch, value in enumerate(bits)]}
    drawn = Picture(curves(line, "epoch", "bits per dimension"), "Training of the network.")
    return Section("The network", text=f"{size}.", pictures=[drawn])


def _further(variants: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the names of figures that belong to no other section."""
    known = sum((beginnings for beginnings, _ in GROUPS.values()), ATTACKS)
    names = dict.fromkeys(name for variant in variants for name in variant["figures"])
    return tuple(name for name in names if not name.startswith(known))


def _row(variant: Mapping[str, Any], beginnings: tuple[str, ...]) -> dict[str, object]:
    row: dict[str, object] = {"method": variant["method"], "epsilon": epsilon_cell(variant)}
    for name, figure in variant["figures"].items():
        if name.startswith(beginnings):
            row[name] = figure_cell(figure)
    return row


def _curves(variants: Sequence[Mapping[str, Any]], beginnings: tuple[str, ...], unit: str) -> list[Picture]:
    return [
        Picture(_curve(variants, figure, label, unit), label)
        for figure, label in CURVES.items()
        if figure.startswith(beginnings) and any(figure in variant["figures"] for variant in variants)
    ]


def _curve(variants: Sequence[Mapping[str, Any]], figure: str, label: str, unit: str) -> str:
    """Methods with budgets are lines; what has none, or no meaningful one, is a level."""
    lines: dict[str, list[Point]] = {}
    levels: dict[str, float] = {}
    for variant in variants:
        measured = variant["figures"].get(figure)
        if measured is None:
            continue
        value, (low, high) = (
            (measured["value"], measured["interval"]) if isinstance(measured, Mapping) else (measured, (None, None))
        )
        epsilon = variant["epsilon"]
        if not _is_promise(variant) or epsilon == 0:
            levels[variant["name"]] = value
        else:
            lines.setdefault(variant["method"], []).append(Point(epsilon, value, low, high))
    if figure in ("linkage_auc", "reidentification_auc"):
        grid = [0.25 * step for step in range(33)]
        lines["the most that is possible"] = [Point(e, largest_auc(e), None, None) for e in grid]
    return curves(lines, f"true epsilon of one {unit}", label, levels)


def _pictures(
    illustration: Illustration, names: Sequence[str], picture: Callable[[str, Illustration], Path]
) -> list[Picture]:
    paths = {name: picture(name, illustration) for name in names}
    return [Picture(path.read_bytes(), name) for name, path in paths.items() if path.exists()]


def _is_promise(variant: Mapping[str, Any]) -> bool:
    return variant["nominal_epsilon"] is None and not isinstance(variant["epsilon"], str)


def _originals(illustration: Illustration, public: tuple[Split, Split] | None) -> list[Picture]:
    if public is None:
        return []
    train, test = public
    drawn = illustration(Releases(Variant(ORIGINALS, math.inf, 0.0, ""), train, test, train.x, test.x))
    return [] if drawn is None else [Picture(drawn, ORIGINALS)]


def _puzzle(puzzle: WhichIsWhich, originals: Split, released: Sequence[Picture]) -> Section:
    chosen = puzzle.chosen(originals.y)
    names = f"A to {chr(64 + len(chosen))}"
    first = Picture(originals.x[chosen], f"originals, {names} from the left", columns=len(chosen))
    text = (
        f"Originals {names} of one class or the same labels, and their releases, 1 to {len(chosen)}, in another order: "
        f"who is who? The solution is the same in every row: {puzzle.solution(originals.y)}."
    )
    return Section("Which is which?", text=text, pictures=[first, *released])
