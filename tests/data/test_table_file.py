# SPDX-License-Identifier: Apache-2.0
"""A CSV file is read as the program meant it that wrote it, or what is wrong with it is said."""

from __future__ import annotations

import pytest

from monai_cadp.data import TableSchema
from monai_cadp.data.table_file import read_table_file

SCHEMA = TableSchema(
    [
        {"name": "age", "kind": "continuous", "lowest": 0, "highest": 100},
        {"name": "sex", "kind": "categorical", "values": ["f", "m"]},
    ]
)
ROWS = [{"age": "50.5", "sex": "f"}, {"age": "20", "sex": "m"}]


@pytest.mark.parametrize(
    "content",
    [
        "age,sex\n50.5,f\n20,m\n",
        "age;sex\n50.5;f\n20;m\n",
        "age\tsex\n50.5\tf\n20\tm\n",
        "age|sex\r\n50.5|f\r\n20|m\r\n",
        "sep=;\nage;sex\n50.5;f\n20;m\n",
        "\ufeffsep=\t\nage\tsex\n50.5\tf\n20\tm\n",
        "# exported, by hand; today\n#\n\nage,sex\n50.5,f\n20,m\n",
        ",age,sex\n0,50.5,f\n1,20,m\n",
        "Unnamed: 0;age;sex\n0;50.5;f\n1;20;m\n",
        '"";"age";"sex"\n"1";"50.5";"f"\n"2";"20";"m"\n',
    ],
)
def test_what_programs_write_is_recognised(tmp_path, content):
    (tmp_path / "a.csv").write_text(content, encoding="utf-8")
    assert read_table_file(tmp_path / "a.csv", SCHEMA) == ROWS


def test_other_columns_and_quoted_separators_are_kept(tmp_path):
    (tmp_path / "a.csv").write_text('age,sex,note\n50.5,f,"a; b, c"\n', encoding="utf-8")
    assert read_table_file(tmp_path / "a.csv", SCHEMA) == [{"age": "50.5", "sex": "f", "note": "a; b, c"}]


def test_a_column_without_a_name_that_does_not_number_the_rows_is_kept(tmp_path):
    (tmp_path / "a.csv").write_text(",age,sex\n7,50.5,f\n", encoding="utf-8")
    assert read_table_file(tmp_path / "a.csv", SCHEMA) == [{"": "7", "age": "50.5", "sex": "f"}]


def test_decimal_commas_are_named(tmp_path, refused):
    (tmp_path / "a.csv").write_text("age;sex\n50,5;f\n20;m\n", encoding="utf-8")
    with refused(ValueError, "1 of 2 values of the column 'age' have a decimal comma"):
        read_table_file(tmp_path / "a.csv", SCHEMA)
