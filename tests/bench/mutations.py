"""Small changes to a module's syntax tree, each of which some test should notice.

A mutation is known by its place in a walk over the tree, so that it can be found again in another
process. Sentences for people, annotations, docstrings, decorators and `__all__` are left
alone.
"""

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

_COMPARE: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_BINARY: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
    ast.Pow: ast.Mult,
}
_NAMES: Final = {"any": "all", "all": "any", "min": "max", "max": "min", "sorted": "list"}

_Change = tuple[str, Callable[[], ast.AST]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """One change: where it is, and what it does.

    Attributes:
        number: Place in the walk.
        first: First line of the statement it is in.
        last: Last line of it.
        line: The changed line.
        function: First and last line of the body of the function it is in, if it is in one.
        what: The change, in words.
    """

    number: int
    first: int
    last: int
    line: int
    function: tuple[int, int] | None
    what: str


def mutations_of(source: str) -> list[Mutation]:
    """List every mutation of a module."""
    return [mutation for mutation, _ in _walk(ast.parse(source))]


def mutate(source: str, number: int, filename: str) -> ast.Module:
    """Return the tree of a module with one mutation made.

    Raises:
        LookupError: There is no mutation of this number.
    """
    tree = ast.parse(source, filename)
    for mutation, make in _walk(tree):
        if mutation.number == number:
            make()
            return ast.fix_missing_locations(tree)
    raise LookupError(f"no mutation `{number}`")


@dataclass(frozen=True, slots=True)
class _Place:
    statement: ast.stmt
    function: tuple[int, int] | None


def _walk(tree: ast.Module) -> Iterator[tuple[Mutation, Callable[[], None]]]:
    number = 0
    for parent, field, index, node, place in _nodes(tree, _Place(ast.Pass(lineno=1), None)):
        for what, change in _changes(node):
            mutation = Mutation(
                number=number,
                first=place.statement.lineno,
                last=place.statement.end_lineno or place.statement.lineno,
                line=getattr(node, "lineno", place.statement.lineno),
                function=place.function,
                what=what,
            )
            yield mutation, _putter(parent, field, index, change)
            number += 1


def _putter(
    parent: ast.AST, field: str, index: int | None, change: Callable[[], ast.AST]
) -> Callable[[], None]:
    def put() -> None:
        if index is None:
            setattr(parent, field, change())
        else:
            getattr(parent, field)[index] = change()

    return put


_Node = tuple[ast.AST, str, int | None, ast.AST, _Place]


def _nodes(parent: ast.AST, place: _Place) -> Iterator[_Node]:
    for field, value in ast.iter_fields(parent):
        if field in {"annotation", "returns", "decorator_list", "type_comment", "ctx"}:
            continue
        items = value if isinstance(value, list) else [value]
        for index, node in enumerate(items):
            if not isinstance(node, ast.AST) or _is_left_alone(node):
                continue
            here = _place_of(node, place)
            yield parent, field, index if isinstance(value, list) else None, node, here
            yield from _nodes(node, here)


def _place_of(node: ast.AST, place: _Place) -> _Place:
    if isinstance(node, ast.FunctionDef):
        return _Place(node, (node.body[0].lineno, node.end_lineno or node.lineno))
    if isinstance(node, ast.stmt):
        return _Place(_own_lines(node), place.function)
    return place


def _own_lines(node: ast.stmt) -> ast.stmt:
    """Leave the body of a compound statement out of its lines."""
    body = getattr(node, "body", None) or getattr(node, "cases", None)
    if not body:
        return node
    header = copy.copy(node)
    inner = body[0].body[0] if isinstance(body[0], ast.match_case) else body[0]
    header.end_lineno = max(node.lineno, inner.lineno - 1)
    return header


def _is_left_alone(node: ast.AST) -> bool:
    if isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr | ast.pattern):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if isinstance(node, ast.Assign):
        return isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__"
    if isinstance(node, ast.AnnAssign):
        return isinstance(node.annotation, ast.Name) and node.annotation.id == "TypeAlias"
    return False


def _changes(node: ast.AST) -> Iterator[_Change]:  # noqa: C901, PLR0912 - one case a kind of node
    match node:
        case ast.Compare(ops=[kind, *_]):
            yield _swap(node, "ops", kind, _COMPARE[type(kind)])
        case ast.BinOp(op=kind) if type(kind) in _BINARY:
            yield _swap(node, "op", kind, _BINARY[type(kind)])
        case ast.AugAssign(op=kind) if type(kind) in _BINARY:
            yield _swap(node, "op", kind, _BINARY[type(kind)])
        case ast.BoolOp(op=kind):
            yield _swap(node, "op", kind, ast.Or if isinstance(kind, ast.And) else ast.And)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield "`not` dropped", lambda: operand
        case ast.Constant(value=value):
            yield from _constants(value)
        case ast.Return(value=value) if not _is_nothing(value):
            yield "returns None", lambda: ast.Return(value=ast.Constant(value=None))
        case ast.Raise():
            yield "`raise` dropped", ast.Pass
        case ast.Expr(value=ast.Call() | ast.Yield() | ast.YieldFrom()):
            yield "statement dropped", ast.Pass
        case ast.Continue():
            yield "`continue` becomes `break`", ast.Break
        case ast.Break():
            yield "`break` becomes `continue`", ast.Continue
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
            if not isinstance(test, ast.Compare | ast.BoolOp | ast.UnaryOp):
                yield "condition negated", lambda: _negated(node)
        case ast.comprehension(ifs=[_, *_]):
            yield "filter dropped", lambda: _without(node, "ifs")
        case ast.Call(func=ast.Name(id=name)) if name in _NAMES:
            yield f"`{name}` becomes `{_NAMES[name]}`", lambda: _renamed(node, _NAMES[name])
        case ast.match_case(guard=ast.expr()):
            yield "guard dropped", lambda: _without(node, "guard")


def _swap(
    node: ast.AST, field: str, before: ast.AST, after: type[ast.cmpop | ast.operator | ast.boolop]
) -> _Change:
    def change() -> ast.AST:
        value = getattr(node, field)
        setattr(node, field, [after(), *value[1:]] if isinstance(value, list) else after())
        return node

    return f"`{type(before).__name__}` becomes `{after.__name__}`", change


def _constants(value: object) -> Iterator[_Change]:
    other: object
    if isinstance(value, bool):
        other = not value
    elif isinstance(value, int):
        other = value + 1
    elif isinstance(value, bytes):
        other = value + b"X"
    elif isinstance(value, str) and " " not in value:
        other = value + "X"
    else:
        return
    yield f"`{value!r}` becomes `{other!r}`", lambda: ast.Constant(value=other)


def _is_nothing(value: ast.expr | None) -> bool:
    # No caller tells None from False.
    return value is None or (
        isinstance(value, ast.Constant) and (value.value is None or value.value is False)
    )


def _negated(node: ast.If | ast.IfExp | ast.While) -> ast.AST:
    node.test = ast.UnaryOp(op=ast.Not(), operand=node.test)
    return node


def _without(node: ast.AST, field: str) -> ast.AST:
    setattr(node, field, [] if isinstance(getattr(node, field), list) else None)
    return node


def _renamed(node: ast.Call, name: str) -> ast.AST:
    node.func = ast.Name(id=name, ctx=ast.Load())
    if name == "list":
        node.keywords = []
    return node
