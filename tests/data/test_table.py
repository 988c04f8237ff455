# SPDX-License-Identifier: Apache-2.0
"""Tables are read whole or not at all, and split by a rule that looks at no value."""

from __future__ import annotations

import pickle
from collections import Counter

import pytest
import torch
from torch.utils.data import default_collate

from monai_cadp.data import ScikitTable, Table, TableRows, TableSchema, open_schema, open_table
from monai_cadp.engines import ColumnNoise, prepare_flow_batch

CANARY = "Mustermann"
SCHEMA = TableSchema(
    [
        {"name": "age", "kind": "continuous", "lowest": 0, "highest": 100},
        {"name": "sex", "kind": "categorical", "values": ["f", "m"]},
        {"name": "diagnosis", "kind": "categorical", "values": ["no", "yes"]},
    ],
    ["diagnosis"],
)
SPLITS = ("train", "val", "test")


def write(folder, count=50, header="patient,age,sex,diagnosis", line="P{subject},{age},f,yes"):
    path = folder / "table.csv"
    lines = [line.format(subject=index // 3, age=index, visit=index) for index in range(count)]
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def ages(table):
    return {round(float(table[index]["image"][0]) * 100) for index in range(len(table))}


def test_items_are_those_of_other_data_sets(tmp_path):
    table = Table(write(tmp_path), SCHEMA, "all", subject_column="patient")
    item = table[4]
    assert len(table) == 50 and item["subject"] == "P1" and item["item"] == "row 1"
    assert item["image"].tolist() == [pytest.approx(0.04), 1.0, 0.0] and item["label"].tolist() == 1
    x, condition = prepare_flow_batch(default_collate([table[0], table[1]]))
    assert x.shape == (2, 3) and x.dtype == torch.float32 and condition.tolist() == [1, 1]
    assert pickle.loads(pickle.dumps(table))[4]["subject"] == "P1"


def test_an_item_is_not_the_table_itself(tmp_path):
    table = Table(write(tmp_path), SCHEMA, "all", subject_column="patient")
    table[0]["image"].fill_(9.0)
    table[0]["label"].fill_(9)
    assert float(table[0]["image"][0]) == 0.0 and int(table[0]["label"]) == 1


def test_the_splits_are_a_partition_in_the_stated_shares(tmp_path):
    path = write(tmp_path, header="age,sex,diagnosis", line="{age},f,yes")
    parts = [ages(Table(path, SCHEMA, split)) for split in SPLITS]
    assert [len(part) for part in parts] == [30, 10, 10] and set.union(*parts) == set(range(50))
    assert parts == [ages(Table(path, SCHEMA, split)) for split in SPLITS]
    assert parts[0] != ages(Table(path, SCHEMA, "train", seed=1))
    assert len(Table(path, SCHEMA, "train", fractions=(0.2, 0.4, 0.4))) == 10


def test_what_a_row_holds_does_not_decide_where_it_is(tmp_path):
    path = write(tmp_path, header="age,sex,diagnosis", line="{age},f,yes")
    before = sorted(ages(Table(path, SCHEMA, "test")))
    path.write_text(path.read_text().replace("7,f,yes", "7,m,no"))
    assert sorted(ages(Table(path, SCHEMA, "test"))) == before


def test_all_rows_of_a_subject_are_in_one_split(tmp_path):
    path = write(tmp_path)
    parts = [Table(path, SCHEMA, split, subject_column="patient") for split in SPLITS]
    subjects = [{part[index]["subject"] for index in range(len(part))} for part in parts]
    assert [len(part) for part in subjects] == [10, 4, 3] and sum(map(len, parts)) == 50
    assert not (subjects[0] & subjects[1] or subjects[0] & subjects[2] or subjects[1] & subjects[2])


def test_a_row_has_the_same_item_in_every_split(tmp_path):
    path = write(tmp_path)
    whole = Table(path, SCHEMA, "all", subject_column="patient")
    names = {float(item["image"][0]): (item["subject"], item["item"]) for item in (whole[i] for i in range(50))}
    assert len(set(names.values())) == 50
    for split in SPLITS:
        table = Table(path, SCHEMA, split, subject_column="patient")
        for item in (table[index] for index in range(len(table))):
            assert names[float(item["image"][0])] == (item["subject"], item["item"])


def test_a_column_may_name_the_rows_of_a_subject(tmp_path):
    path = write(tmp_path, header="patient,visit,age,sex,diagnosis", line="P{subject},v{visit},{age},f,yes")
    table = Table(path, SCHEMA, "all", subject_column="patient", item_column="visit")
    assert table[4]["item"] == "v4"


def test_without_the_column_of_the_condition_items_have_no_label(tmp_path):
    table = Table(write(tmp_path, header="age,sex", line="{age},m"), SCHEMA, "all")
    assert set(table[0]) == {"image"}


@pytest.mark.parametrize(
    ("content", "options", "match"),
    [
        (None, {}, "missing, empty or damaged"),
        (b"", {}, "missing, empty or damaged"),
        (b"\xff\xfe\x00", {}, "missing, empty or damaged"),
        (b'age,sex,diagnosis\n"1,f', {}, "missing, empty or damaged"),
        (b"age,sex,diagnosis\n", {}, "no rows"),
        (b"age,age,diagnosis\n1,1,no\n", {}, "have one name"),
        (b"age,sex,diagnosis\n1,f\n", {}, "1 of 1 rows of the table file do not have the 3 cells"),
        (b"age,sex,diagnosis\n1,f,no,4\n", {}, "1 of 1 rows of the table file do not have the 3 cells"),
        (b"age,diagnosis\n1,no\n", {}, "lack the column 'sex'"),
        (b"Mustermann,sex,diagnosis\n1,f,no\n", {}, "1 columns that the schema does not know"),
        (b"age,sex,diagnosis,patient\n1,f,no,7\n", {}, "name those of subjects and items as subject_column"),
        (b"age,sex,diagnosis\n1,,no\n", {}, "no value in the column 'sex'"),
        (b"age,sex,diagnosis\nMustermann,f,no\n", {}, "are not numbers"),
        (b"age,sex,diagnosis\n1,Mustermann,no\n", {}, "not one of the 2 listed"),
        (b"age,sex,diagnosis\n1,f,no\n", {"split": "valid"}, "split is 'valid'"),
        (b"age,sex,diagnosis\n1,f,no\n", {"split": "val"}, "'val' of 1 rows is empty"),
        (b"age,sex,diagnosis\n1,f,no\n", {"fractions": (0.5, 0.5)}, "fractions is"),
        (b"age,sex,diagnosis\n1,f,no\n", {"fractions": (0.5, 0.5, 0.5)}, "fractions is"),
        (b"age,sex,diagnosis\n1,f,no\n", {"subject_column": "patient"}, "no column 'patient'"),
        (b"age,sex,diagnosis\n1,f,no\n", {"subject_column": "age"}, "is in the schema"),
        (b"age,sex,diagnosis\n1,f,no\n", {"item_column": "visit"}, "without subject_column"),
        (b"age,sex,diagnosis,patient\n1,f,no,\n", {"subject_column": "patient"}, "1 of 1 rows have no subject"),
    ],
)
def test_bad_files_and_options_are_refused_without_a_value(tmp_path, content, options, match, refused):
    path = tmp_path / f"{CANARY}.csv"
    if content is not None:
        path.write_bytes(content)
    with refused(ValueError, match):
        Table(path, SCHEMA, **{"split": "all", **options})
    with pytest.raises(ValueError) as caught:
        Table(path, SCHEMA, **{"split": "all", **options})
    assert CANARY not in str(caught.value) and caught.value.__cause__ is None and caught.value.__context__ is None


def test_all_rows_of_one_person_are_in_one_split_however_the_id_was_typed(tmp_path):
    """Some programs take a column of numbers for floats: then patient 12 is patient 12.0 in a file."""
    typed = [(f"{n}", f"{n}.0", f" {n:04d}")[i % 3] for n in range(10, 60) for i in range(3)]
    path = tmp_path / "typed.csv"
    path.write_text("patient,age,sex,diagnosis\n" + "".join(f"{one},{i % 90},f,yes\n" for i, one in enumerate(typed)))
    for split in SPLITS:
        table = Table(path, SCHEMA, split, subject_column="patient")
        rows = [table[index] for index in range(len(table))]
        people = Counter(float(row["subject"]) for row in rows)
        assert set(people.values()) == {3}
        assert Counter(row["item"] for row in rows) == dict.fromkeys(("row 0", "row 1", "row 2"), len(people))


@pytest.mark.parametrize("subject", [12, 12.0, float("nan"), None])
def test_rows_of_a_subject_that_is_no_text_are_refused(refused, subject):
    with refused(ValueError, "put it in quotes"):
        TableRows([{"age": 1, "sex": "f"}], SCHEMA, subjects=[subject])


def test_two_rows_of_a_subject_may_not_be_one_item(tmp_path, refused):
    path = write(tmp_path, header="patient,visit,age,sex,diagnosis", line="P{subject},1,{age},f,yes")
    with refused(ValueError, "same item"):
        Table(path, SCHEMA, "all", subject_column="patient", item_column="visit")


def test_a_mark_at_the_beginning_and_quotes_are_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes('\ufeffage,sex,diagnosis\r\n"5","f"," yes "\r\n'.encode())
    assert Table(path, SCHEMA, "all")[0]["label"] == 1


TABLES = {"breast_cancer": (569, 30), "diabetes": (442, 10), "two_moons": (2000, 2)}


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_of_scikit_learn_are_split_five_ways(name):
    count, width = TABLES[name]
    table = ScikitTable(name, "all")
    assert (len(table), table.schema.width, table.schema.num_classes) == (count, width, 2)
    assert table.rows.min() == 0 and table.rows.max() == 1
    shares = [len(ScikitTable(name, split)) / count for split in SPLITS]
    assert shares == pytest.approx([0.6, 0.2, 0.2], abs=0.01)
    tests = [ScikitTable(name, "test", fold) for fold in range(5)]
    assert sum(map(len, tests)) == count
    distinct = {tuple(row.tolist()) for test in tests for row in test.rows}
    assert distinct == {tuple(row.tolist()) for row in table.rows}


def test_the_splits_of_a_fold_share_no_row():
    parts = [{tuple(row.tolist()) for row in ScikitTable("breast_cancer", split, fold=3).rows} for split in SPLITS]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 569


def test_what_one_fold_validates_on_the_next_one_tests_on():
    for fold in range(5):
        validated, tested = ScikitTable("diabetes", "val", fold), ScikitTable("diabetes", "test", (fold + 1) % 5)
        assert torch.equal(validated.rows, tested.rows)


def test_real_values_come_back():
    first = ScikitTable("breast_cancer", "all").decoded()[0]
    assert first["mean radius"] == pytest.approx(17.99, abs=1e-3) and first["diagnosis"] == "malignant"
    first = ScikitTable("diabetes", "all").decoded()[0]
    assert (first["age"], first["sex"], first["progression"]) == (pytest.approx(59, abs=1e-3), 2, 151.0)


def test_unknown_names_are_refused(refused):
    with refused(ValueError, "table is 'iris'"):
        ScikitTable("iris")
    with refused(ValueError, "fold is 5"):
        ScikitTable("diabetes", "train", fold=5)
    with refused(ValueError, "split is 'valid'"):
        ScikitTable("diabetes", "valid")


def test_one_door_opens_every_table(tmp_path, refused):
    import yaml

    (tmp_path / "schema.yaml").write_text(yaml.safe_dump(SCHEMA.to_dict()))
    path, file = write(tmp_path), tmp_path / "schema.yaml"
    assert len(open_table(path, "all", file, subject_column="patient")) == 50
    assert open_schema(path, file).to_dict() == SCHEMA.to_dict()
    assert len(open_table("diabetes", "test")) == len(ScikitTable("diabetes", "test"))
    with refused(ValueError, "csv file without a schema"):
        open_table(path, "all")
    with refused(ValueError, "has its own"):
        open_table("diabetes", "all", file)
    with refused(ValueError, "of no known kind"):
        open_table(tmp_path, "all", file)
    with refused(ValueError, "without subjects"):
        open_table("diabetes", "all", subject_column="patient")


def test_every_row_needs_a_subject_if_one_has(refused):
    with refused(ValueError, "1 subjects for 2 rows"):
        TableRows([{"age": 1, "sex": "f"}] * 2, SCHEMA, subjects=["a"])


def test_column_noise_is_uniform_over_steps_and_normal_else(refused):
    noise = ColumnNoise([0.5, 0.0], deviation=0.01)
    added = noise(torch.zeros(4000, 2), torch.Generator().manual_seed(0))
    assert added[:, 0].abs().max() <= 0.25 and float(added[:, 0].std()) == pytest.approx(0.5 / 12**0.5, rel=0.05)
    assert float(added[:, 1].std()) == pytest.approx(0.01, rel=0.05) and added[:, 1].abs().max() > 0.02
    with refused(ValueError, "expected numbers of at least 0"):
        ColumnNoise([0.1], deviation=-1.0)
