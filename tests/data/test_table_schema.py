# SPDX-License-Identifier: Apache-2.0
"""A schema takes in valid rows only, and gives out valid rows only, whatever it is given."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import yaml

from monai_cadp.data import CategoricalColumn, Column, ContinuousColumn, OrdinalColumn, TableSchema

CANARY = "Mustermann"
PLAIN = {
    "columns": [
        {"name": "age", "kind": "continuous", "lowest": 20, "highest": 100},
        {"name": "crp", "kind": "continuous", "lowest": 0.1, "highest": 1000, "log": True},
        {"name": "grade", "kind": "ordinal", "values": ["low", "middle", "high"]},
        {"name": "site", "kind": "categorical", "values": ["a", "b", "c", "d"]},
        {"name": "diagnosis", "kind": "categorical", "values": [0, 1]},
    ],
    "condition": ["diagnosis"],
}
ROWS = [
    {"age": 20, "crp": 10, "grade": "low", "site": "d", "diagnosis": 0},
    {"age": "60.0", "crp": "0.1", "grade": " high ", "site": "a", "diagnosis": "1.0"},
]


def schema(**changes):
    plain = {**copy.deepcopy(PLAIN), **changes}
    return TableSchema(plain["columns"], plain["condition"])


def test_rows_come_back_from_their_encoding():
    read = schema()
    assert read.width == 7 and read.num_classes == 2 and read.condition_size is None
    again = read.decode(read.encode(ROWS), read.encode_condition(ROWS))
    assert again == [
        {"age": 20.0, "crp": 10.0, "grade": "low", "site": "d", "diagnosis": 0},
        {"age": 60.0, "crp": 0.1, "grade": "high", "site": "a", "diagnosis": 1},
    ]


def test_encoded_rows_are_of_a_comparable_size_and_do_not_change():
    encoded = schema().encode(ROWS)
    assert encoded.dtype == torch.float32 and encoded.min() >= 0 and encoded.max() <= 1
    assert torch.equal(encoded, schema().encode(ROWS))
    assert encoded[:, :3].tolist() == [[0.0, 0.5, pytest.approx(1 / 6)], [0.5, 0.0, pytest.approx(5 / 6)]]


def test_noise_within_the_steps_changes_no_listed_value():
    read = schema()
    steps = torch.tensor(read.steps)
    assert steps.tolist() == pytest.approx([0, 0, 1 / 3, 0.2, 0.2, 0.2, 0.2])
    noisy = read.encode(ROWS * 200) + steps * (torch.rand(400, 7, generator=torch.Generator().manual_seed(0)) - 0.5)
    labels = read.encode_condition(ROWS * 200)
    assert {tuple(row.items()) for row in read.decode(noisy, labels)} == {
        tuple(row.items()) for row in read.decode(read.encode(ROWS), labels[:2])
    }


def test_every_step_of_an_ordinal_column_has_the_same_share_of_the_numbers():
    column = OrdinalColumn("stage", [1, 2, 3, 4])
    numbers = (torch.arange(100)[:, None] + 0.5) / 100
    assert [column.decode(numbers).count(value) for value in (1, 2, 3, 4)] == [25] * 4


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e30, float("inf"), float("nan")])
def test_whatever_is_decoded_is_valid(scale):
    read = schema()
    numbers = torch.randn(200, 7, generator=torch.Generator().manual_seed(1)) * scale
    rows = read.decode(numbers, torch.randint(2, (200,)))
    assert len(rows) == 200
    for row in rows:
        assert list(row) == ["age", "crp", "grade", "site", "diagnosis"]
        assert 20 <= row["age"] <= 100 and 0.1 <= row["crp"] <= 1000
        assert row["grade"] in ("low", "middle", "high") and row["site"] in ("a", "b", "c", "d")
    assert torch.isfinite(read.encode(rows)).all()


def test_digits_that_are_rounded_away_do_not_leave_the_bounds():
    column = ContinuousColumn("x", lowest=0.1234567, highest=0.9876543)
    assert (f"{column.highest:.6g}", f"{-column.lowest:.6g}") == ("0.987654", "-0.123457")
    assert column.decode(torch.tensor([[1.0]])) == [0.987654]
    column = ContinuousColumn("x", lowest=0.1234564, highest=0.9876547)
    assert column.decode(torch.tensor([[0.0], [1.0]])) == [0.1234564, 0.9876547]


def test_values_outside_the_bounds_are_cut():
    column = ContinuousColumn("age", 20, 100)
    assert column.encode([-5, 1e9, "inf"])[:, 0].tolist() == [0.0, 1.0, 1.0]


def test_codes_for_missing_values_are_pointed_out():
    column = ContinuousColumn("age", 20, 100)
    for codes in ([-999], ["-99.0", 50], [9999, 99999], [-1, -1, "-1", 50], [0, 0, 0]):
        with pytest.warns(
            UserWarning, match=f"of {len(codes)} values of the column 'age' .* codes for a missing value"
        ):
            column.encode(codes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        column.encode([99, -5, 1e9, 50.5, "inf", 100, 100, 100, 101, 101, 102])


@pytest.mark.parametrize("text", ["5_0", "1_000", "_5"])
def test_digits_of_a_program_are_no_number_of_a_table(refused, text):
    with refused(ValueError, "values of the column 'age' are not numbers"):
        ContinuousColumn("age", 20, 100).encode([50, text])


def test_several_conditions_are_a_vector_and_written_back():
    read = schema(condition=["age", "grade", "diagnosis"])
    assert read.num_classes is None and read.condition_size == 4 and read.width == 5
    vectors = read.encode_condition(ROWS)
    assert vectors.shape == (2, 4) and vectors.dtype == torch.float32 and vectors.abs().max() <= 1
    rows = read.decode(torch.zeros(2, 5), vectors)
    assert [(row["age"], row["grade"], row["diagnosis"]) for row in rows] == [(20.0, "low", 0), (60.0, "high", 1)]


def test_one_continuous_condition_is_a_vector_of_one():
    read = schema(condition=["age"])
    assert (read.num_classes, read.condition_size) == (None, 1)
    assert read.encode_condition(ROWS).tolist() == [[-1.0], [0.0]]


def test_without_conditions_there_is_none():
    read = schema(condition=[])
    assert (read.num_classes, read.condition_size, read.encode_condition(ROWS)) == (None, None, None)
    assert read.decode(read.encode(ROWS))[0]["diagnosis"] == 0


def test_a_yaml_file_holds_a_schema(tmp_path):
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump(PLAIN))
    read = TableSchema.read(tmp_path / "schema.yaml")
    assert read.to_dict() == schema().to_dict()
    assert TableSchema(**read.to_dict()).to_dict() == read.to_dict()


@pytest.mark.parametrize("content", ["", "- 1", "columns: [", "rows: []", "columns: []\nmore: 1", "\x00"])
def test_another_file_is_no_schema(tmp_path, content, refused):
    (tmp_path / f"{CANARY}.yaml").write_text(content)
    with refused(ValueError, "schema file is missing, damaged"):
        TableSchema.read(tmp_path / f"{CANARY}.yaml")
    with refused(ValueError, "schema file is missing, damaged"):
        TableSchema.read(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"age": None}, "1 of 2 rows have no value in the column 'age'"),
        ({"age": "  "}, "1 of 2 rows have no value in the column 'age'"),
        ({"age": float("nan")}, "1 of 2 rows have no value in the column 'age'"),
        ({"site": "nan"}, "1 of 2 rows have no value in the column 'site'"),
        ({"age": CANARY}, "1 of 2 values of the column 'age' are not numbers"),
        ({"grade": CANARY}, "1 of 2 rows have a value in the column 'grade' that is not one of the 3"),
        ({"site": CANARY}, "1 of 2 rows have a value in the column 'site' that is not one of the 4"),
        ({"diagnosis": CANARY}, "1 of 2 rows have a value in the column 'diagnosis' that is not one of the 2"),
        ({CANARY: 1}, "1 columns that the schema does not know"),
    ],
)
def test_rows_that_do_not_fit_are_refused_without_a_value(change, match, refused):
    read = schema()
    encode = read.encode_condition if "diagnosis" in change else read.encode
    with refused(ValueError, match):
        encode([ROWS[0], ROWS[1] | change])


def test_no_error_quotes_a_value():
    for change in ({"age": CANARY}, {"site": CANARY}, {CANARY: 1}):
        with pytest.raises(ValueError) as caught:
            schema().encode([ROWS[0] | change])
        assert CANARY not in str(caught.value)
        assert caught.value.__cause__ is None and caught.value.__context__ is None


def test_a_column_that_all_rows_lack_is_named(refused):
    rows = [{name: value for name, value in row.items() if name != "age"} for row in ROWS]
    with refused(ValueError, "lack the column 'age'"):
        schema().encode(rows)


CONTINUOUS = {"name": "x", "kind": "continuous", "lowest": 0, "highest": 1}


@pytest.mark.parametrize(
    ("column", "match"),
    [
        ({"name": "x", "kind": "numeric"}, "kind of a column is 'numeric'"),
        ("x", "kind of a column is None"),
        ({"name": "x", "kind": ["ordinal"]}, "kind of a column is"),
        (CONTINUOUS | {"name": ""}, "name of a column is a str or empty"),
        (CONTINUOUS | {"name": 3}, "name of a column is a int"),
        (CONTINUOUS | {"values": [1, 2]}, "expected highest, kind, log, lowest, name"),
        ({"name": "x", "kind": "ordinal"}, "expected kind, name, values"),
        (CONTINUOUS | {"highest": 0}, "bounds of the column 'x'"),
        (CONTINUOUS | {"highest": float("inf")}, "bounds of the column 'x'"),
        (CONTINUOUS | {"lowest": "a"}, "bounds of the column 'x'"),
        (CONTINUOUS | {"log": True}, "above 0 with log"),
        ({"name": "x", "kind": "ordinal", "values": [1]}, "at least two different"),
        ({"name": "x", "kind": "ordinal", "values": "ab"}, "at least two different"),
        ({"name": "x", "kind": "categorical", "values": [1, 1.0]}, "at least two different"),
        ({"name": "x", "kind": "categorical", "values": [True, False]}, "quotation marks"),
    ],
)
def test_mistakes_in_a_column_are_named(column, match, refused):
    with refused(ValueError, match):
        Column.from_dict(column)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("age", []), "columns are a str"),
        (([CONTINUOUS, CONTINUOUS], []), "stands twice"),
        (([CONTINUOUS], "x"), "not a list of different column names"),
        (([CONTINUOUS], [["x"]]), "not a list of different column names"),
        (([CONTINUOUS], ["y"]), "condition 'y' is no column"),
        (([CONTINUOUS], ["x"]), "no column besides its conditions"),
        (([], []), "no column besides its conditions"),
    ],
)
def test_mistakes_in_a_schema_are_named(arguments, match, refused):
    with refused(ValueError, match):
        TableSchema(*arguments)


def test_tensors_of_another_shape_are_refused(refused):
    read = schema()
    with refused(ValueError, r"shape \(2, 6\); expected \(n, 7\)"):
        read.decode(torch.zeros(2, 6), torch.zeros(2))
    for condition in (None, torch.zeros(3), torch.zeros(2, 2)):
        with refused(ValueError, r"the schema expects \(2,\)"):
            read.decode(torch.zeros(2, 7), condition)
    with refused(ValueError, "the schema expects None"):
        schema(condition=[]).decode(torch.zeros(2, 9), torch.zeros(2))


def test_columns_may_be_made_in_code():
    read = TableSchema([ContinuousColumn("x", 0, 1), CategoricalColumn("y", ["a", "b"])], ["y"])
    assert read.column("y").to_dict() == {"name": "y", "kind": "categorical", "values": ["a", "b"]}
    with pytest.raises(ValueError, match="no column 'z'"):
        read.column("z")
