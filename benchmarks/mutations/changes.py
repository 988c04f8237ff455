# SPDX-License-Identifier: Apache-2.0
"""The small faults that are put into a file: each is one change of one expression or statement."""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Mutant", "mutants"]

ORDER = {ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt)}
OPPOSITE = {ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot}
OPPOSITE[ast.IsNot] = ast.Is
ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
# Functions of which the first argument can stand for the result.
LIKE_THEIR_ARGUMENT = {"abs", "ceil", "expm1", "float", "floor", "log1p", "max", "min", "nextafter", "round", "sqrt"}
# Calls whose texts are for people, or for the type checker.
WORDING = ("check", "_check", "warn", "cast", "_integer", "_number", "_operator", "getLogger", "tqdm", "_bar")
LOGGING = {"warn", "warning", "info", "debug", "tqdm", "_bar", "cast"}
# Of a statement: what are statements themselves, type hints, and decorators.
NO_BEHAVIOUR = "body orelse finalbody handlers annotation returns bases keywords decorator_list".split()
# Arguments without behaviour where the tests run.
SILENT_ARGUMENTS = {"strict", "encoding", "stacklevel", "desc", "unit", "delay", "disable", "progress", "daemon"}


@dataclass(frozen=True)
class Mutant:
    """One change of one file.

    Args:
        file: path from the root of the repository.
        line: of the changed statement.
        lines: first and last line that run it, None where it runs when the module is imported.
        where: name of the function or class around it.
        before: the statement as it is; a compound one without its body.
        after: the statement as it becomes.
        start, end: of the replaced text, in bytes of the file.
        text: what takes its place.
        identity: a code that stays the same while statement, function and file keep their names.
    """

    file: str
    line: int
    lines: tuple[int, int] | None
    where: str
    before: str
    after: str
    start: int
    end: int
    text: str
    identity: str

    def apply(self, source: bytes) -> bytes:
        """Return the changed file."""
        return source[: self.start] + self.text.encode() + source[self.end :]


def mutants(file: str, source: str) -> list[Mutant]:
    """Return all mutants of a file that Python can read, in the order of their places.

    Left out is what carries no behaviour: docstrings, type hints, the words of errors and warnings, texts of several
    words, logging, progress bars, assertions for the type checker, ``__all__`` and imports.

    Args:
        file: path from the root of the repository.
        source: its text.

    Returns:
        The mutants; their identities differ.

    Example:
        >>> [mutant.after for mutant in mutants("f.py", "def f(a, b):\\n    return a < b\\n")]
        ['return None', 'return (a <= b)', 'return (a >= b)']
    """
    text = source.encode()
    starts = [0]
    for row in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(row))
    found, seen = [], Counter[str]()
    for place in _places(ast.parse(source)):
        node = place.node
        start, end = starts[node.lineno - 1] + node.col_offset, starts[_end_line(node) - 1] + _end_column(node)
        first, last = place.header
        for replacement in _changes(node):
            changed = ast.unparse(replacement)
            if isinstance(node, ast.expr):
                changed = f"({changed})"
            if isinstance(node, ast.stmt) and "\n" in changed:
                continue
            after = text[:start] + changed.encode() + text[end:]
            try:
                compile(after, file, "exec", dont_inherit=True)
            except (SyntaxError, ValueError):
                continue
            head = text[starts[first - 1] : starts[last]]
            shift = len(after) - len(text)
            before_text, after_text = (
                " ".join(part.decode().split()) for part in (head, after[starts[first - 1] : starts[last] + shift])
            )
            if before_text == after_text:
                continue
            name = f"{file}::{place.where}::{before_text}::{after_text}"
            seen[name] += 1
            code = hashlib.sha256(f"{name}::{seen[name]}".encode()).hexdigest()[:16]
            found.append(
                Mutant(file, first, place.runs, place.where, before_text, after_text, start, end, changed, code)
            )
    return found


@dataclass(frozen=True)
class _Place:
    node: ast.expr | ast.stmt
    where: str
    header: tuple[int, int]
    runs: tuple[int, int] | None


def _places(tree: ast.Module) -> Iterator[_Place]:
    yield from _statements(tree.body, "", None)


def _statements(body: list[ast.stmt], where: str, function: tuple[int, int] | None) -> Iterator[_Place]:
    for index, statement in enumerate(body):
        if _is_silent(statement) or (index == 0 and _is_text(statement)):
            continue
        inner = [value for name in ("body", "orelse", "finalbody") for value in [getattr(statement, name, [])] if value]
        first = min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", []))])
        last = inner[0][0].lineno - 1 if inner else _end_line(statement)
        header = (first, max(first, last))
        definition = isinstance(statement, ast.FunctionDef | ast.ClassDef)
        name = f"{where}.{statement.name}".lstrip(".") if definition else where
        own = (statement.body[0].lineno, _end_line(statement)) if isinstance(statement, ast.FunctionDef) else function
        # A default argument matters where its function runs, another statement of a module or class anywhere in it.
        runs = own if definition else (header if function is not None else None)
        if not definition:
            yield _Place(statement, where, header, runs)
        for node in _expressions(statement):
            yield _Place(node, name, header, runs)
        for part in inner:
            yield from _statements(part, name, own)
        for handler in getattr(statement, "handlers", []):
            yield from _statements(handler.body, where, function)


def _expressions(statement: ast.stmt) -> Iterator[ast.expr]:
    """Yield the expressions of a statement, not those of the statements inside, nor what carries no behaviour."""
    if isinstance(statement, ast.Raise):
        return
    for name, value in ast.iter_fields(statement):
        if name in NO_BEHAVIOUR:
            continue
        if name in ("targets", "target") and not isinstance(statement, ast.For):
            continue
        if name == "args" and isinstance(value, ast.arguments):
            values: list[object] = [*value.defaults, *value.kw_defaults]
        else:
            values = value if isinstance(value, list) else [value]
        for part in values:
            if isinstance(part, ast.withitem):
                part = part.context_expr
            if isinstance(part, ast.expr):
                yield from _inside(part)


def _inside(node: ast.expr) -> Iterator[ast.expr]:
    yield node
    if isinstance(node, ast.JoinedStr | ast.Lambda):
        return
    for _, value in ast.iter_fields(node):
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, ast.keyword):
                if part.arg in SILENT_ARGUMENTS:
                    continue
                part = part.value
            if isinstance(part, ast.comprehension):
                yield from _inside(part.iter)
                for test in part.ifs:
                    yield from _inside(test)
            elif isinstance(part, ast.Slice):
                for end in (part.lower, part.upper, part.step):
                    if end is not None:
                        yield from _inside(end)
            elif isinstance(part, ast.expr) and not _is_word(node, part):
                yield from _inside(part)


def _changes(node: ast.expr | ast.stmt) -> Iterator[ast.AST]:
    if isinstance(node, ast.stmt):
        yield from _changes_of_statement(node)
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        for other in ORDER.get(type(node.ops[0]), ()) or (OPPOSITE[type(node.ops[0])],):
            yield ast.Compare(node.left, [other()], node.comparators)
    elif isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            for other in ORDER.get(type(operator), ())[:1]:
                yield ast.Compare(node.left, [*node.ops[:index], other(), *node.ops[index + 1 :]], node.comparators)
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        if not any(isinstance(part, ast.JoinedStr) or _is_string(part) for part in (node.left, node.right)):
            yield ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right)
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), node.values)
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.Constant):
        yield from _changes_of_constant(node)
    elif isinstance(node, ast.Call):
        yield from _changes_of_call(node)
    elif isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) and node.generators[0].ifs:
        whole = ast.comprehension(node.generators[0].target, node.generators[0].iter, [], 0)
        fields = {name: value for name, value in ast.iter_fields(node) if name != "generators"}
        yield type(node)(**fields, generators=[whole, *node.generators[1:]])


def _changes_of_statement(node: ast.stmt) -> Iterator[ast.AST]:
    removed = isinstance(node, ast.AugAssign | ast.Raise | ast.Delete | ast.Continue | ast.Break)
    if isinstance(node, ast.Expr):
        removed = isinstance(node.value, ast.Call) and _called(node.value) not in LOGGING
    if isinstance(node, ast.Assign):
        removed = any(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets)
    if removed:
        yield ast.Pass()
    if isinstance(node, ast.Return) and node.value is not None and not _is_constant(node.value, None):
        yield ast.Return(ast.Constant(None))


def _changes_of_constant(node: ast.Constant) -> Iterator[ast.AST]:
    if isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node.value, int):
        yield ast.Constant(node.value + 1)
        yield ast.Constant(node.value - 1)
    elif isinstance(node.value, float):
        yield ast.Constant(node.value + 1)
        yield ast.Constant(node.value / 2)
    elif isinstance(node.value, str) and not any(blank in node.value for blank in " \n"):
        yield ast.Constant(f"X{node.value}X")


def _changes_of_call(node: ast.Call) -> Iterator[ast.AST]:
    name = _called(node)
    if name in LOGGING or name in ("super", "isinstance"):
        return
    if name in LIKE_THEIR_ARGUMENT and node.args and not isinstance(node.args[0], ast.Starred):
        yield node.args[0]
    # A method of a value that is not a module's name: the value itself.
    elif isinstance(node.func, ast.Attribute) and not isinstance(node.func.value, ast.Name) and not node.keywords:
        if not (isinstance(node.func.value, ast.Attribute) and isinstance(node.func.value.value, ast.Name)):
            yield node.func.value
    if len(node.args) > 1 and name not in LIKE_THEIR_ARGUMENT and not name.startswith(WORDING):
        yield ast.Call(node.func, node.args[:-1], node.keywords)
    for index, keyword in enumerate(node.keywords):
        if keyword.arg is not None and keyword.arg not in SILENT_ARGUMENTS:
            yield ast.Call(node.func, node.args, [*node.keywords[:index], *node.keywords[index + 1 :]])


def _is_silent(node: ast.stmt) -> bool:
    if isinstance(node, ast.Import | ast.ImportFrom | ast.Assert | ast.Pass | ast.Global | ast.Nonlocal):
        return True
    if isinstance(node, ast.FunctionDef) and node.name == "__repr__":
        return True
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return True
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        if node.targets[0].id == "__all__" or _is_alias(node.value):
            return True
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and _called(node.value) in LOGGING


def _is_alias(node: ast.expr) -> bool:
    """Whether a value is a type: Callable[...], tuple[...]."""
    return (
        isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and node.value.id
        in (
            "Callable",
            "dict",
            "list",
            "tuple",
        )
    )


def _is_word(call: ast.expr, part: ast.expr) -> bool:
    """Whether an argument is a name by which an error would call another argument, or a type."""
    if not isinstance(call, ast.Call) or part is call.func:
        return False
    if _called(call) == "isinstance":
        return part is call.args[1]
    return _called(call).startswith(WORDING) and (_is_string(part) or _called(call) == "cast")


def _called(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and _is_string(node.value)


def _is_string(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _is_constant(node: ast.expr, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _end_line(node: ast.expr | ast.stmt) -> int:
    return node.end_lineno or node.lineno


def _end_column(node: ast.expr | ast.stmt) -> int:
    return node.end_col_offset or node.col_offset
