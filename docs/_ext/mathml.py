# SPDX-License-Identifier: Apache-2.0
"""Formulas as MathML, which browsers draw by themselves: no page asks another host for a script."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

__all__ = ["setup"]

logger = logging.getLogger(__name__)


def _inline(translator: Any, node: nodes.Element) -> None:
    _write(translator, node, as_block=False)


def _block(translator: Any, node: nodes.Element) -> None:
    _write(translator, node, as_block=True)


def _write(translator: Any, node: nodes.Element, as_block: bool) -> None:
    try:
        translator.body.append(tex2mathml(node.astext(), as_block=as_block))
    except MathError as error:
        # A warning ends a build of this site.
        logger.warning("A formula is not understood: %s", error, location=node)
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the renderer."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))  # type: ignore[arg-type]
    return {"parallel_read_safe": True, "parallel_write_safe": True}
