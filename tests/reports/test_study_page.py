# SPDX-License-Identifier: Apache-2.0
"""A page holds all that it shows, says nothing that it was not given, and draws intervals as bars."""

from __future__ import annotations

import base64
import re

import torch

from monai_cadp.reports import Picture, Point, Section, curves, study_page


def page(tmp_path, *sections):
    path = tmp_path / "page.html"
    study_page(path, "A <title>", sections)
    return path.read_text()


def test_what_is_given_is_text_and_never_markup(tmp_path):
    rows = [{"<b>": "<script>alert(1)</script>"}]
    text = page(tmp_path, Section("<i>", text="a & b", rows=rows, pictures=[Picture(b"", '"><script>')]))
    assert "<script>" not in text and "<b>" not in text and "<i>" not in text
    assert "A &lt;title&gt;" in text and "a &amp; b" in text


def test_rows_of_different_columns_share_a_table(tmp_path):
    text = page(tmp_path, Section("Table", rows=[{"method": "one", "figure": 1}, {"method": "two", "other_figure": 2}]))
    assert re.findall(r"<th>(.*?)</th>", text) == ["method", "figure", "other figure"]
    assert re.findall(r"<td>(.*?)</td>", text) == ["one", "1", "", "two", "", "2"]


def test_pictures_are_inside_the_page(tmp_path):
    drawing = curves({"line": [Point(1, 2)]}, "x", "y")
    pictures = [Picture(torch.rand(2, 1, 8, 8), "grid"), Picture(drawing, "curves"), Picture(b"png", "bytes")]
    text = page(tmp_path, Section("Pictures", pictures=pictures))
    kinds = re.findall(r'src="data:image/([a-z+]+);base64,([^"]+)"', text)
    assert [kind for kind, _ in kinds] == ["png", "svg+xml", "png"]
    assert base64.b64decode(kinds[1][1]).decode() == drawing
    assert not re.search(r'(src|href)="(?!data:)', text)


def test_intervals_are_drawn_where_there_are_some():
    def marks(*points):
        return curves({"line": points}, "x", "y").count("LineCollection")

    assert marks(Point(1, 0.5), Point(2, 0.6)) == 0
    assert marks(Point(1, 0.5, 0.4, 0.6), Point(2, 0.6)) == 1
    assert marks(Point(1, 0.5, 0.4, 0.6), Point(2, 0.6, 0.5, 0.7)) == 2
