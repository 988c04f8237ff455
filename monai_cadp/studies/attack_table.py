# SPDX-License-Identifier: Apache-2.0
"""Every attacker on every method at every budget, beside the most that the guarantee allows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from monai_cadp.privacy import largest_auc
from monai_cadp.reports import Section
from monai_cadp.studies.cells import epsilon_cell, figure_cell

__all__ = ["ATTACKS", "attack_table"]

TITLE = "What attackers get"
# How names of figures of attackers begin; not all of them have a column.
ATTACKS = "linkage", "reidentification", "attribute", "set_membership", "reconstruction"
# Columns of the page by the names of figures. Top 1 has a limit of its own, which depends on how many people there are.
COLUMNS = {
    "linkage_auc": "linkage, AUC",
    "linkage_top_1": "linkage, top 1",
    "linkage_another_auc": "linkage by another image, AUC",
    "linkage_another_top_1": "linkage by another image, top 1",
    "reidentification_auc": "Siamese network, AUC",
    "reidentification_top_1": "Siamese network, top 1",
    "reidentification_another_auc": "Siamese network by another image, AUC",
    "reidentification_another_top_1": "Siamese network by another image, top 1",
    "attribute_auc": "attribute, AUC",
    "set_membership_auc": "member of the set, AUC",
    "reconstruction_success": "nearest candidate, top 1",
}
LIMITS = {
    **{name: f"{name}_limit" for name in COLUMNS if name.endswith("_top_1")},
    "reconstruction_success": "reconstruction_limit",
}
SMALL_EPSILON = 1.0
ABOVE = "above the limit"
WORDS = (
    "Attackers know the method, all that is public of everybody, and releases of other people that they made "
    "themselves. Linkage: who has learnt nothing lays a release over originals, moved to where their edges agree best. "
    "Siamese network: trained on pairs of a release and an image of the same person. Both hold the image that was "
    "released and images of others of the same class: they tell which of two it is (AUC), and name the person (top 1). "
    "By another image: they hold other images of the person alone. Attribute: whether the original is in the upper "
    "half of its class. Member of the set: whether somebody is among half of the people, whose releases are seen "
    "without names. Nearest candidate: which of a few originals it is. Brackets hold intervals of 95 % over {people}. "
    "The row of the originals is the positive control. Who looks for people of one class is left out where too few "
    "share a class, or all of several labels. {verdict}{small}Where the limit is what guessing reaches, as for prior "
    "only, about one interval in forty lies above it by chance."
)


class _Attack(NamedTuple):
    """One figure of an attacker, and the most that the guarantee allows."""

    column: str
    figure: Mapping[str, Any]
    limit: float
    is_auc: bool

    @property
    def is_above(self) -> bool:
        return self.figure["interval"][0] > self.limit

    @property
    def cell(self) -> str:
        # The limit of an AUC has a column.
        limit = "" if self.is_auc else f", at most {self.limit:.3f}"
        return figure_cell(self.figure) + limit + (f", {ABOVE}" if self.is_above else "")


def attack_table(variants: Sequence[Mapping[str, Any]], people_are_known: bool) -> Section | None:
    """Return the table of attackers.

    Args:
        variants: of ``results.json``.
        people_are_known: whether images say whose they are, so that intervals are over people.

    Returns:
        The section of the page, or None where nothing was attacked. Intervals that lie above what the guarantee allows
        are marked.
    """
    attacked = [(variant, list(_attacks(variant))) for variant in variants]
    attacked = [(variant, attacks) for variant, attacks in attacked if attacks]
    if not attacked:
        return None
    rows = []
    for variant, attacks in attacked:
        row: dict[str, object] = {"method": variant["method"], "epsilon": epsilon_cell(variant)}
        if any(attack.is_auc for attack in attacks):
            row["largest possible AUC"] = f"{_largest_auc(variant):.3f}"
        rows.append(row | {attack.column: attack.cell for attack in attacks})
    above = sum(attack.is_above for _, attacks in attacked for attack in attacks)
    count = sum(len(attacks) for _, attacks in attacked)
    verdict = (
        f"{above} of {count} intervals lie above what epsilon allows, and are marked. "
        if above
        else "No interval lies above what epsilon allows. "
    )
    people = "people, drawn with all their images" if people_are_known else "images, one for each person"
    return Section(TITLE, text=WORDS.format(people=people, verdict=verdict, small=_at_small(attacked)), rows=rows)


def _attacks(variant: Mapping[str, Any]) -> Iterator[_Attack]:
    figures = variant["figures"]
    for name, column in COLUMNS.items():
        if name in figures:
            is_auc = name not in LIMITS
            limit = _largest_auc(variant) if is_auc else figures[LIMITS[name]]
            yield _Attack(column, figures[name], limit, is_auc)


def _largest_auc(variant: Mapping[str, Any]) -> float:
    # JSON has no infinity.
    epsilon = math.inf if isinstance(variant["epsilon"], str) else variant["epsilon"]
    return largest_auc(epsilon, variant["delta"])


def _at_small(attacked: Sequence[tuple[Mapping[str, Any], list[_Attack]]]) -> str:
    """The strongest attacker where epsilon is 1 or less."""
    small = [
        (attack.figure["value"], attack.column, variant["name"])
        for variant, attacks in attacked
        for attack in attacks
        if attack.is_auc and not isinstance(variant["epsilon"], str) and variant["epsilon"] <= SMALL_EPSILON
    ]
    if not small:
        return ""
    value, column, name = max(small)
    return (
        f"Where epsilon is {SMALL_EPSILON:g} or less, the largest AUC is {value:.3f} ({column.split(',')[0]}; {name}). "
    )
