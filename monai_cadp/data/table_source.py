# SPDX-License-Identifier: Apache-2.0
"""One door to every kind of table."""

from __future__ import annotations

import os

from monai_cadp.data.scikit_table import SCIKIT_TABLES, ScikitTable
from monai_cadp.data.table import Table
from monai_cadp.data.table_rows import TableRows
from monai_cadp.data.table_schema import TableSchema

__all__ = ["open_schema", "open_table"]


def open_schema(source: str | os.PathLike[str], schema: str | os.PathLike[str] | None = None) -> TableSchema:
    """Return the public schema of a table.

    Args:
        source: as in :func:`open_table`; a CSV file is not read for it.
        schema: YAML file, for a CSV file.

    Raises:
        ValueError: as :func:`open_table`.

    Example:
        >>> open_schema("diabetes").width
        10
    """
    if str(source) in SCIKIT_TABLES:
        if schema is not None:
            raise ValueError("A schema was given for a table that has its own; leave it out.")
        return ScikitTable(str(source), "all").schema
    if not str(source).lower().endswith(".csv"):
        raise ValueError(f"The source is of no known kind; expected a .csv file or one of {', '.join(SCIKIT_TABLES)}.")
    if schema is None:
        raise ValueError("The source is a .csv file without a schema; give the YAML file that describes its columns.")
    return TableSchema.read(schema)


def open_table(
    source: str | os.PathLike[str],
    split: str,
    schema: str | os.PathLike[str] | None = None,
    subject_column: str | None = None,
    item_column: str | None = None,
) -> TableRows:
    """Open a table by what ``source`` is.

    Args:
        source: "breast_cancer", "diabetes" or "two_moons" for a :class:`~monai_cadp.data.ScikitTable`; the path of a
            ``.csv`` file for a :class:`~monai_cadp.data.Table`.
        split: "train", "val", "test" or "all".
        schema: YAML file, for a CSV file; see :meth:`~monai_cadp.data.TableSchema.read`.
        subject_column: of a CSV file; see :class:`~monai_cadp.data.Table`.
        item_column: of a CSV file.

    Returns:
        A data set of items {"image": float32 (width,), "label": ..., "subject": ..., "item": ...}; the last three
        where the table has them.

    Raises:
        ValueError: if the source is of no known kind, the split is unknown, a parameter does not belong to the kind, or
            the table does not fit its schema.

    Example:
        >>> len(open_table("breast_cancer", split="val"))
        114
    """
    described = open_schema(source, schema)
    if str(source) not in SCIKIT_TABLES:
        return Table(source, described, split, subject_column=subject_column, item_column=item_column)
    if subject_column is not None or item_column is not None:
        raise ValueError("subject_column or item_column was given for a table without subjects; leave them out.")
    return ScikitTable(str(source), split)
