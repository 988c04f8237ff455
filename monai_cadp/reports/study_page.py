# SPDX-License-Identifier: Apache-2.0
"""One self-contained HTML page about a study."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from torch import Tensor

from monai_cadp.data.image_grid import image_grid

__all__ = ["Picture", "Section", "study_page"]

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
figure { margin: 1.2rem 0; } img { max-width: 100%; height: auto; }
figcaption { color: #57606a; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #d0d7de; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.text td { white-space: normal; text-align: left; vertical-align: top; } .text td:first-child { min-width: 9rem; }
@media print {
  body { margin: 0; max-width: none; font-size: 11px; } figure, tr { break-inside: avoid; }
  .scroll { overflow: visible; } table { font-size: 8px; } th, td { padding: .15rem .3rem; white-space: normal; }
}
"""


class Picture:
    """A figure of the page, kept inside it.

    Args:
        source: text of an SVG drawing, bytes of a PNG picture, or images (B, C, H, W) to arrange in a grid.
        caption: what the reader sees.
        columns: of the grid.
    """

    def __init__(self, source: str | bytes | Tensor, caption: str, columns: int = 10) -> None:
        self.kind = "png"
        if isinstance(source, str):
            self.kind, self.content = "svg+xml", source.encode()
        elif isinstance(source, bytes):
            self.content = source
        else:
            buffer = io.BytesIO()
            Image.fromarray(image_grid(source, columns)).save(buffer, format="PNG")
            self.content = buffer.getvalue()
        self.caption = caption

    def to_html(self) -> str:
        """Return the figure as HTML."""
        data, caption = base64.b64encode(self.content).decode(), html.escape(self.caption)
        return (
            f'<figure><img alt="{caption}" src="data:image/{self.kind};base64,{data}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )


@dataclass(frozen=True)
class Section:
    """A part of the page under one heading.

    Args:
        title: heading.
        text: one paragraph.
        rows: a table, whose columns are those of all rows; missing values stay empty.
        pictures: figures, in order.
        wide_text: whether cells of the table hold whole sentences.
    """

    title: str
    text: str = ""
    rows: Sequence[Mapping[str, object]] = field(default_factory=list)
    pictures: Sequence[Picture] = field(default_factory=list)
    wide_text: bool = False

    def to_html(self) -> str:
        """Return the section as HTML."""
        parts = [f"<h2>{html.escape(self.title)}</h2>"]
        if self.text:
            parts.append(f"<p>{html.escape(self.text)}</p>")
        if self.rows:
            parts.append(_table(self.rows, "scroll text" if self.wide_text else "scroll"))
        return "".join([*parts, *(picture.to_html() for picture in self.pictures)])


def study_page(path: str | Path, title: str, sections: Sequence[Section]) -> None:
    """Write the page.

    Args:
        path: of the HTML file.
        title: heading of the page.
        sections: its parts, in order.
    """
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{html.escape(title)}</h1>" + "".join(section.to_html() for section in sections) + "</body></html>\n"
    )
    Path(path).write_text(page, encoding="utf-8")


def _table(rows: Sequence[Mapping[str, object]], kind: str) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    head = "".join(f"<th>{html.escape(column.replace('_', ' '))}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(row.get(column, '')))}</td>" for column in columns) + "</tr>"
        for row in rows
    )
    return f'<div class="{kind}"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
