# SPDX-License-Identifier: Apache-2.0
"""A made-up table by Private Evolution, private as a whole: for those who need no row of anybody."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from monai_cadp.data import TableRows, TableSchema
from monai_cadp.data.table_column import CategoricalColumn, Column, OrdinalColumn
from monai_cadp.privacy import PrivacyGuarantee, TrainingData
from monai_cadp.privacy.noisy_sum import SumLattice
from monai_cadp.privacy.training_accounting import NoisySums, noise_scale_for, training_epsilon

__all__ = ["EvolvedTable", "evolve_table"]

# Distance of two votes for different candidates, not below the root of 2.
REPLACEMENT = 2.0**0.5
# As in the authors' program: so many rounds draw candidates by their votes; later ones keep the best and vary each of
# them so many times.
DRAWING_ROUNDS, VARIATIONS = 5, 3
# How far candidates are varied, as a share of a column's range, falls from the one to the other by this power.
FIRST_RATE, LAST_RATE, DECAY = 0.5, 0.01, 0.2
# Of a category's 0s and 1s in the distance of two rows.
CATEGORY_WEIGHT = 1 / 3
# Originals whose distances from all candidates are in memory together.
ROWS_AT_ONCE = 2**12


class EvolvedTable(TableRows):
    """Made-up rows, and what all of them together promise to everybody whose row was looked at.

    Args:
        rows: values by the names of columns.
        schema: of the table.
        guarantee: of the whole table; None where the noise can be foretold.
    """

    def __init__(
        self, rows: Sequence[Mapping[str, Any]], schema: TableSchema, guarantee: PrivacyGuarantee | None
    ) -> None:
        super().__init__(rows, schema)
        self.guarantee = guarantee

    @property
    def add_or_remove_one_epsilon(self) -> float | None:
        """The epsilon of the same rows for tables that differ by one row more or less, as published numbers do."""
        return None if self.guarantee is None else self.guarantee.parameters["add_or_remove_one_epsilon"]


def evolve_table(
    table: TableRows,
    *,
    epsilon: float,
    delta: float,
    num_rows: int = 150,
    iterations: int = 20,
    seed: int = 0,
    generator: torch.Generator | None = None,
) -> EvolvedTable:
    r"""Make up rows that resemble a table: noisy votes of originals choose among candidates, which are then varied.

    This is central differential privacy of a whole table, and not local privacy of each row as that of a
    ``Privatizer``: whoever runs it must be trusted with all originals, and no made-up row stands for anybody's. For it
    the whole table comes at the price of one budget, and it needs no public rows.

    Proof. The promise compares two tables of n rows that differ in one, which has the same condition in both. The first
    candidates come from the schema and the public seed. In a round every original votes for the nearest candidate of
    its condition, and its vote depends on that row and the candidates alone: distances are computed pair by pair. The
    votes are a vector v of integers, one for each candidate. Another row in one place moves one vote, so that
    :math:`v - v'` is 0 or :math:`e_j - e_k`, of length :math:`\sqrt 2` at most. Times the integer c of
    :class:`~monai_cadp.privacy.noisy_sum.SumLattice`, a vote is a contribution of length c exactly, :math:`n c <
    2^{53}`, and the noise promises what continuous Gaussian noise of deviation m on the votes does. The next candidates
    are made from these noisy votes, the schema and the seed, which is post-processing; a round looks at no original
    otherwise. So T rounds are T Gaussian mechanisms, one after the other, which
    :func:`~monai_cadp.privacy.training_accounting.training_epsilon` composes by dp_accounting for a replacement of
    :math:`\sqrt 2`: exactly one of deviation :math:`m / \sqrt T`. m is what makes all noisy votes together (epsilon,
    delta) private, and the rows are made from them. The number of rows of each condition is public, as it is the same
    in both tables; a schema without a condition protects every column. Everything else that the caller chooses must be
    chosen without looking at these rows.

    A person with k rows in the table has (k epsilon, k e^{(k - 1) epsilon} delta). If one row more or less is what two
    tables differ by, one vote comes or goes, and epsilon is smaller (:attr:`EvolvedTable.add_or_remove_one_epsilon`);
    sizes then count as public although they differ. Not covered is the time that it takes.

    Rounds, variations and distance are those of the authors' program. It calibrates the noise for one row more or less
    by the same formula; for the same epsilon there is more noise here.

    Args:
        table: originals, whose schema has no condition or one with listed values.
        epsilon: privacy budget of the whole made-up table.
        delta: from 1e-10; far below 1 / n.
        num_rows: of the made-up table, shared out among conditions as originals are; rounded for each of them, to 1 or
            more.
        iterations: T.
        seed: of the candidates; public.
        generator: draws the noise. For tests only: its numbers can be foretold, so there is no guarantee.

    Returns:
        Valid rows of the same schema, with their guarantee; without one where a generator was given.

    Raises:
        ValueError: if the table lacks its condition or has another kind of it, or a number is out of its range.

    References:
        Tran, Backurs, Lin, Reis, Li, Yekhanin: Differentially private synthetic data via APIs 4: tabular data,
        arXiv 2606.08259 (Tab-PE). Lin, Gopi, Kulkarni, Nori, Yekhanin: Differentially private synthetic data via
        foundation model APIs 1: images, ICLR 2024 (Private Evolution).

    Example:
        >>> from monai_cadp.data import ScikitTable
        >>> made_up = evolve_table(ScikitTable("two_moons"), epsilon=4.0, delta=1e-4, num_rows=50, iterations=6)
        >>> len(made_up), made_up.guarantee.epsilon, made_up.guarantee.relation
        (50, 4.0, 'replace-one')
    """
    schema = table.schema
    groups = _groups(table)
    for name, value in {"num_rows": num_rows, "iterations": iterations}.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}; expected an integer of 1 or more.")
    sums = NoisySums(1.0, steps=iterations, replacement=REPLACEMENT)
    sums = sums.scaled(noise_scale_for(epsilon, delta, [sums]))
    guarantee = PrivacyGuarantee(
        epsilon=epsilon,
        delta=delta,
        mechanism="private evolution",
        unit="row",
        parameters={
            "noise_multiplier": sums.noise_multiplier,
            "replacement": REPLACEMENT,
            "iterations": iterations,
            "num_rows": num_rows,
            "add_or_remove_one_epsilon": training_epsilon([sums], delta, add_or_remove_one=True),
        },
        public=("the number of rows", *(column.name for column in schema.conditions)),
        # There is no network: nobody's row was looked at but by the votes.
        training_data=TrainingData(),
    )
    rows, labels = _evolve(table, groups, num_rows, sums, torch.Generator().manual_seed(seed), generator)
    promised = guarantee if generator is None else None
    return EvolvedTable(schema.decode(rows, labels if schema.conditions else None), schema, promised)


def _groups(table: TableRows) -> Tensor:
    """Return the class of every row; 0 without a condition."""
    schema = table.schema
    if not schema.conditions:
        return torch.zeros(len(table), dtype=torch.int64)
    if schema.num_classes is None:
        raise ValueError(
            f"The schema has the conditions {', '.join(column.name for column in schema.conditions)}; expected one "
            "with listed values, or none, as rows vote for candidates of their own class."
        )
    if table.labels is None:
        raise ValueError(f"The rows lack the condition {schema.conditions[0].name!r}; add it to the table.")
    return table.labels


def _evolve(
    table: TableRows,
    groups: Tensor,
    num_rows: int,
    sums: NoisySums,
    chance: torch.Generator,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    columns, lattice = table.schema.encoded, SumLattice(1.0, sums.noise_multiplier)
    counts = groups.bincount(minlength=table.schema.num_classes or 1)
    sizes = (counts * num_rows / len(groups)).round().long().clamp(min=1) * (counts > 0)
    labels = torch.arange(len(sizes)).repeat_interleave(sizes)
    rows = _drawn(columns, len(labels), chance)
    for step in range(sums.steps):
        votes = _votes(columns, table.rows, groups, rows, labels)
        (noisy,) = lattice.noisy([votes * lattice.bound], generator)
        drawing = step < DRAWING_ROUNDS
        chosen = _chosen(noisy, labels, sizes, drawing, chance)
        rows, labels = rows[chosen], labels[chosen]
        if step + 1 == sums.steps:
            break
        rate = FIRST_RATE - (FIRST_RATE - LAST_RATE) * (step / sums.steps) ** DECAY
        if drawing:
            rows = _varied(columns, rows, rate, chance)
        else:
            rows = torch.cat([rows, *(_varied(columns, rows, rate, chance) for _ in range(VARIATIONS))])
            labels = labels.repeat(1 + VARIATIONS)
    return rows, labels


def _votes(columns: Sequence[Column], originals: Tensor, groups: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
    """Return how many originals have each candidate as the nearest one of their class."""
    weights = torch.tensor(
        [
            CATEGORY_WEIGHT if isinstance(column, CategoricalColumn) else 1.0
            for column in columns
            for _ in range(column.width)
        ],
        dtype=torch.float64,
    )
    candidates = rows.double() * weights
    votes = torch.zeros(len(rows), dtype=torch.int64)
    for some, classes in zip(originals.split(ROWS_AT_ONCE), groups.split(ROWS_AT_ONCE), strict=True):
        # Pair by pair, and not by a product of matrices: no rounding lets one original have a say in another's vote.
        distances = torch.cdist(some.double() * weights, candidates, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = distances.masked_fill(classes[:, None] != labels, math.inf).argmin(dim=1)
        votes += nearest.bincount(minlength=len(rows))
    return votes


def _chosen(noisy: Tensor, labels: Tensor, sizes: Tensor, drawing: bool, chance: torch.Generator) -> Tensor:
    """Return places of candidates, so many of each class: drawn in proportion to their votes, or those with most."""
    chosen = []
    for label, size in enumerate(sizes.tolist()):
        members = (labels == label).nonzero()[:, 0]
        if size and drawing:
            shares = noisy[members].clamp(min=0)
            # All alike where noise has left nobody a vote.
            shares = shares if shares.any() else torch.ones_like(shares)
            members = members[torch.multinomial(shares, size, replacement=True, generator=chance)]
        else:
            members = members[noisy[members].argsort(descending=True, stable=True)[:size]]
        chosen.append(members)
    return torch.cat(chosen)


def _drawn(columns: Sequence[Column], count: int, chance: torch.Generator) -> Tensor:
    """Return encoded rows whose values are uniform in what the schema allows."""
    return torch.cat([_valid(column, torch.rand(count, column.width, generator=chance)) for column in columns], dim=1)


def _varied(columns: Sequence[Column], rows: Tensor, rate: float, chance: torch.Generator) -> Tensor:
    """Return rows with numbers moved by up to this share of their range, and so many categories drawn anew."""
    varied = []
    for column, part in zip(columns, rows.split([column.width for column in columns], dim=1), strict=True):
        drawn = torch.rand(part.shape, generator=chance)
        if isinstance(column, CategoricalColumn):
            anew = torch.rand(len(part), 1, generator=chance) < rate
            varied.append(torch.where(anew, _valid(column, drawn), part))
        else:
            varied.append(_valid(column, part + rate * (2 * drawn - 1)))
    return torch.cat(varied, dim=1)


def _valid(column: Column, numbers: Tensor) -> Tensor:
    """Return what a column's encoding has next to some numbers (n, width)."""
    if isinstance(column, CategoricalColumn):
        return functional.one_hot(numbers.argmax(dim=1), column.width).float()
    if isinstance(column, OrdinalColumn):
        return ((numbers / column.step).floor().clamp(0, len(column.values) - 1) + 0.5) * column.step
    return numbers.clamp(0, 1)
