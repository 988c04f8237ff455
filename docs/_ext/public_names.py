# SPDX-License-Identifier: Apache-2.0
"""The directive ``public-names``: every name in the ``__all__`` of a package, so that a new one cannot be forgotten."""

from __future__ import annotations

import inspect
import re
import sys
from importlib import import_module
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.inspect import stringify_signature

__all__ = ["PublicNames", "public_names", "setup"]

# Packages whose names another page describes too: the page of the name on the right is the one that does.
DESCRIBED_ELSEWHERE = {"monai_cadp": "monai_cadp.release", "monai_cadp.privacy": "monai_cadp.privacy.ledger"}


def public_names(package: str) -> dict[str, Any]:
    """Return every public object of a package by its name, in alphabetical order and never twice."""
    module = import_module(package)
    return {name: getattr(module, name) for name in sorted(module.__all__, key=str.lower)}


class PublicNames(Directive):
    """A table of the names with their first sentences, and what each docstring says."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Write the directives of autodoc, and have them parsed."""
        (package,) = self.arguments
        objects = public_names(package)
        elsewhere = DESCRIBED_ELSEWHERE.get(package)
        described = {name: package for name in objects}
        if elsewhere:
            described |= {name: elsewhere for name in objects if name in import_module(elsewhere).__all__}
        rows = [
            f"| {{py:obj}}`{name} <{described[name]}.{name}>` | {_summary(name, objects[name])} |" for name in objects
        ]
        here = [line for name in objects if described[name] == package for line in _described(package, name, objects)]
        text = ["| name | what it is |", "|---|---|", *rows, "", "```{eval-rst}", *here, "```"]
        # The other name of an object leads to the page that describes it.
        environment = self.state.document.settings.env
        container = nodes.container()
        for name in set(objects) - {name for name, home in described.items() if home == package}:
            kind = "exception" if issubclass(objects[name], BaseException) else "class"
            target = nodes.make_id(f"{package}.{name}")
            container["ids"].append(target)
            environment.domains.python_domain.note_object(f"{package}.{name}", kind, target, aliased=True)
        self.state.nested_parse(StringList(text, self.state.document.current_source), self.content_offset, container)
        return [container]


def _described(package: str, name: str, objects: dict[str, Any]) -> list[str]:
    """Return the directive that describes one object."""
    value = objects[name]
    if isinstance(value, type):
        kind = "autoexception" if issubclass(value, BaseException) else "autoclass"
        return [f".. {kind}:: {package}.{name}", ""]
    if inspect.isfunction(value):
        return [f".. autofunction:: {package}.{name}", ""]
    stated = [f"   :value: {value!r}"] if len(repr(value)) < 100 else []
    return [
        f".. py:currentmodule:: {package}",
        "",
        f".. py:data:: {name}",
        *stated,
        "",
        f"   {_comment(name, value)}",
        "",
    ]


def _summary(name: str, value: Any) -> str:
    """Return the first sentence of a docstring as one line of a table."""
    if isinstance(value, type) and value.__name__ != name:
        return f"the same as `{value.__name__}`"
    documented = isinstance(value, type) or inspect.isfunction(value)
    text = (inspect.getdoc(value) or "") if documented else _comment(name, value)
    line = " ".join(text.split("\n\n")[0].split())
    line = re.sub(r":math:`([^`]*)`", r"$\1$", line)
    # Other roles of reStructuredText become what they name.
    line = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", line)
    return line.replace("``", "`").replace("|", "\\|").replace(r"\*", "*")


def _comment(name: str, value: Any) -> str:
    """Return what the comment ``#:`` above a constant says, wherever it is defined."""
    for module in [module for known, module in sys.modules.items() if known.startswith("monai_cadp.")]:
        if getattr(module, name, None) is value:
            found = ModuleAnalyzer.for_module(module.__name__).find_attr_docs().get(("", name))
            if found:
                return " ".join(" ".join(found).split())
    return ""


def _own_signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, result: Any
) -> Any:
    """What ``__init__`` takes: classes that record their arguments have a ``__new__`` that takes anything."""
    if (
        what != "class"
        or "__new__" not in dir(obj)
        or obj.__new__ is object.__new__
        or "*args" not in (signature or "")
    ):
        return None
    own = inspect.signature(obj.__init__)
    return stringify_signature(own.replace(parameters=list(own.parameters.values())[1:])), None


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive."""
    app.setup_extension("sphinx.ext.autodoc")
    app.add_directive("public-names", PublicNames)
    app.connect("autodoc-process-signature", _own_signature)
    return {"parallel_read_safe": True}
