# SPDX-License-Identifier: Apache-2.0
"""One self-contained HTML page about a study."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from monai_cadp.reports.image_grid import image_grid

__all__ = ["Picture", "study_page"]

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24; }
h1, h2 { line-height: 1.2; } figure { margin: 1.5rem 0; } img { max-width: 100%; height: auto; }
figcaption, .note { color: #57606a; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .8rem; border-bottom: 1px solid #d0d7de; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
@media print { body { margin: 0; } figure, table { break-inside: avoid; } }
"""


class Picture:
    """A figure of the page, kept inside it.

    Args:
        source: bytes of an SVG drawing, or images (B, C, H, W) to arrange in a grid.
        caption: what the reader sees.
        columns: of the grid.
    """

    def __init__(self, source: str | Tensor, caption: str, columns: int = 10) -> None:
        if isinstance(source, str):
            self.kind, self.content = "svg+xml", source.encode()
        else:
            buffer = io.BytesIO()
            Image.fromarray(image_grid(source, columns)).save(buffer, format="PNG")
            self.kind, self.content = "png", buffer.getvalue()
        self.caption = caption

    def to_html(self) -> str:
        """Return the figure as HTML."""
        data, caption = base64.b64encode(self.content).decode(), html.escape(self.caption)
        return (
            f'<figure><img alt="{caption}" src="data:image/{self.kind};base64,{data}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )


def study_page(
    path: str | Path,
    title: str,
    introduction: str,
    rows: Sequence[Mapping[str, object]],
    pictures: Sequence[Picture],
    notes: Mapping[str, str],
) -> None:
    """Write the page.

    Args:
        path: of the HTML file.
        title: heading.
        introduction: one paragraph.
        rows: the table; all rows have the columns of the first, and missing values stay empty.
        pictures: figures, in order.
        notes: paragraphs by their headings, such as guarantees in words.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    head = "".join(f"<th>{html.escape(column.replace('_', ' '))}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(row.get(column, '')))}</td>" for column in columns) + "</tr>"
        for row in rows
    )
    remarks = "".join(f"<h2>{html.escape(name)}</h2><p>{html.escape(text)}</p>" for name, text in notes.items())
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{html.escape(title)}</h1><p>{html.escape(introduction)}</p>"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        + "".join(picture.to_html() for picture in pictures)
        + remarks
        + "</body></html>\n"
    )
    Path(path).write_text(page, encoding="utf-8")
