# SPDX-License-Identifier: Apache-2.0
"""From a table of originals to a table of releases."""

from __future__ import annotations

import csv
import io
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from torch import Tensor

from monai_cadp.data import TableRows, TableSchema
from monai_cadp.data.stage import Stage, check_output
from monai_cadp.privacy import PrivacyLedger
from monai_cadp.privacy.exact_numbers import as_read
from monai_cadp.release.problems import listed_problems
from monai_cadp.release.release_loop import check_conditions, recorded_in, release_items
from monai_cadp.release.released_folder import nameless_errors, software_versions
from monai_cadp.release.releaser import Releaser

__all__ = ["release_rows", "release_table"]

CARD = "_privacy.json"


def release_rows(
    privatizer: Releaser,
    table: TableRows,
    batch_size: int = 256,
    description: str = "privatizing",
    ledger: PrivacyLedger | None = None,
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Release every row of a table once, batch by batch, under a progress bar.

    Args:
        privatizer: the privatizer, or any other releaser, for rows of this table.
        table: the rows; they have subjects with a ledger.
        batch_size: rows encoded at once; it has no influence on the guarantee.
        description: of the progress bar.
        ledger: pays for the releases and keeps them; what it has kept is returned, not drawn again.

    Yields:
        Releases (B, width), for the schema to decode, and their conditions as released.

    Raises:
        ValueError: if the table does not fit the network, or subjects are missing.
        BudgetExceededError: if a subject would be over its cap; nothing of its batch is released or spent.
    """
    releaser = recorded_in(privatizer, ledger, table, batch_size)
    schema, space = table.schema, releaser.condition_space
    expected = ((schema.width,), schema.num_classes, schema.condition_size)
    found = (releaser.image_shape, space.num_classes, space.condition_size)
    if found != expected:
        raise ValueError(
            f"The network is for rows, classes and conditions of the sizes {found}, but the schema has {expected}; "
            "give the schema with which it was trained."
        )
    learnt = None if releaser.core is None else releaser.core.schema
    if learnt not in (None, schema.to_dict()):
        raise ValueError(
            "The table came with another schema than that of the network's training, so that its numbers would mean "
            "something else; give the schema with which it was trained."
        )
    if releaser.needs_subjects and not table.has_subjects:
        raise ValueError(
            "The rows say nothing of their subjects, whose budgets the ledger keeps; give a CSV file with a "
            "subject_column."
        )
    yield from release_items(releaser, table, batch_size, description, unit="row")


def release_table(
    privatizer: Releaser,
    table: TableRows,
    output: str | os.PathLike[str],
    *,
    batch_size: int = 256,
    ledger: PrivacyLedger | None = None,
) -> Path:
    """Release every row of a table once into a new CSV file, in random order.

    Beside ``released.csv`` lies ``released_privacy.json`` with the guarantee of every row and the public schema. The
    file holds the columns of the schema and nothing else: no subject, no item, no place in the source. Both files are
    collected in a hidden folder and appear when they are complete; if anything fails, there is none. With a ledger a
    second attempt gets the releases of the first from it, and spends only what is missing. Subjects who are over their
    caps are named in ``released_problems.csv``, which its owner alone may read.

    Args:
        privatizer: the privatizer, or any other releaser.
        table: the rows.
        output: the new file, ``*.csv``; it must not exist, nor its card. Missing parents are made.
        batch_size: rows encoded at once.
        ledger: as in :func:`release_rows`.

    Returns:
        The file.

    Raises:
        ValueError: if a file exists, the name is no CSV file's, or the table does not fit the network.
        BudgetExceededError: if a subject would be over its cap.

    Example:
        >>> import tempfile
        >>> from monai_cadp.data import ScikitTable
        >>> from monai_cadp.networks import ConditionalINN, ContentBasis
        >>> from monai_cadp.privacy import SubsetSelection
        >>> from monai_cadp.release import Privatizer
        >>> table = ScikitTable("two_moons", "test")
        >>> inn = ConditionalINN((), in_channels=2, num_classes=2)
        >>> privatizer = Privatizer(inn, SubsetSelection(4.0), ContentBasis.leading(inn, 2), unit="row")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = release_table(privatizer, table, f"{folder}/released.csv")
        ...     len(file.read_text().splitlines())
        400 rows released with epsilon 4 each: ...released.csv
        401
    """
    if idist.get_world_size() > 1:
        raise ValueError("A table came to several processes, of which each would release all of it; use one.")
    output = Path(output).absolute()
    card = output.with_name(output.stem + CARD)
    if output.suffix != ".csv":
        raise ValueError(f"The output has the ending {output.suffix!r}; expected the name of a new .csv file.")
    check_output(output)
    _refuse_existing(output, card)
    releaser = recorded_in(privatizer, ledger, table, batch_size)
    check_conditions(releaser, table)
    guarantee = releaser.guarantee.to_dict()
    drawing = None if releaser.core is None else releaser.core.drawing
    with nameless_errors():
        stage = Stage(output)
    try:
        rows: list[dict[str, Any]] = []
        with listed_problems(table, output, ledger):
            for released, condition in release_rows(releaser, table, batch_size):
                rows += table.schema.decode(released, condition)
        secrets.SystemRandom().shuffle(rows)
        contents = {output: _csv(table.schema, rows), card: _card(table.schema, len(rows), guarantee, drawing)}
        with nameless_errors():
            for file, content in contents.items():
                (stage.path / file.name).write_text(content, encoding="utf-8", newline="")
            _refuse_existing(output, card)
            output.parent.mkdir(parents=True, exist_ok=True)
            # The card first: where there is a table, there is its card.
            (stage.path / card.name).rename(card)
            try:
                (stage.path / output.name).rename(output)
            except OSError:
                card.unlink()
                raise
    finally:
        stage.remove()
    print(f"{len(rows)} rows released with epsilon {as_read(guarantee['epsilon'])} each: {output}")
    return output


def _refuse_existing(*files: Path) -> None:
    if any(file.exists() or file.is_symlink() for file in files):
        raise ValueError("The output file or its privacy card exists; give a new name, releases are never overwritten.")


def _csv(schema: TableSchema, rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, schema.names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _card(schema: TableSchema, count: int, guarantee: dict[str, Any], drawing: dict[str, Any] | None) -> str:
    card = {"count": count, "guarantee": guarantee, "schema": schema.to_dict(), "software": software_versions()}
    if drawing is not None:
        card["drawing"] = drawing
    return json.dumps(card, indent=2, sort_keys=True, allow_nan=False) + "\n"
