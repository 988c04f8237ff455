# SPDX-License-Identifier: Apache-2.0
"""A line is repeated if it stands in another place, whatever its indentation and comment."""

from __future__ import annotations

from benchmarks.repeated_lines import copied, lines, measure, repeated


def test_what_a_configuration_says_is_without_indentation_comments_and_blank_lines(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text("# a title\n\nnetwork:\n  width: 8 # of a coupling\n  name: a#b\n")
    assert lines(path) == ["network:", "width: 8", "name: a#b"]


def test_lines_are_counted_that_stand_in_another_place_of_any_file():
    assert repeated([["a", "b", "a"], ["b", "c"]]) == [3, 1]


def test_runs_are_counted_as_a_whole_and_no_shorter_ones():
    shared = [str(number) for number in range(4)]
    assert copied([["x", *shared], [*shared, "y"]], run=4) == [4, 4]
    assert copied([["x", *shared], [*shared, "y"]], run=5) == [0, 0]


def test_bundles_are_counted_apart_and_together(tmp_path):
    for name, text in (
        ("bundles/one/configs/train.yaml", "a: 1\nb: 2\n"),
        ("bundles/one/configs/infer.yaml", "b: 2\n"),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "quick.yaml").write_text("a: 1\nc: 3\n")
    one, configs, everything = (list(row.values()) for row in measure(tmp_path))
    assert one == ["one", 3, 3, 2, 0] and configs == ["configs", 2, 1, 0, 0] and everything == ["all", 5, 4, 2, 0]
