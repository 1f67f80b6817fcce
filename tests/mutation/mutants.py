"""Small faults, one at a time, in Python, in the SQL and Lua of its texts, and in SQL files.

Not put in: log lines, messages of errors, docstrings, types of arguments; and other numbers for
limits that have a name in capitals, since tests take these from the code.
"""

import ast
import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SWAPPED: dict[type[Any], tuple[type[Any], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.FloorDiv,),
    ast.FloorDiv: (ast.Mult,),
    ast.Div: (ast.Mult,),
}

# Pairs of a pattern and what stands there instead; each place is a fault of its own.
Rules = tuple[tuple[str, str], ...]
LUA: Rules = (
    (r" <= ", " < "),
    (r" >= ", " > "),
    (r" > ", " >= "),
    (r" < ", " <= "),
    (r" == ", " ~= "),
    (r" and ", " or "),
    (r" or ", " and "),
    (r" \+ (?=[a-z(1])", " - "),
    (r" - (?=[a-z(1])", " + "),
    (r"\b0\b", "1"),
    (r"\b1\b(?!\])", "0"),
    (r"math\.max", "math.min"),
    (r"(?m)^ +redis\.call.*$", ""),
)
# A condition may stand in a line of its own; what is assigned by SET is no condition.
SQL: Rules = (
    (r"(?m)^ +AND (?!.*\b(?:LIMIT|RETURNING)\b)[^()\n]*$", ""),
    (r" > (?=\$|\w+\.)", " >= "),
    (r" <= (?=\$|\w+\.)", " < "),
    (r"(?<=change_seq) \+ ", " - "),
    (r" IS NULL", " IS NOT NULL"),
    (r" IS NOT NULL", " IS NULL"),
    (r"(?m)^ +ORDER BY (?!.*\bLIMIT\b)[^()\n]*$", ""),
    (r" ORDER BY user_id(?= *\n)", ""),
    (r"(?<=WHERE )(?:\w\.)?user_id = \$1(?= AND)", "$1::uuid IS NOT NULL"),
    (
        r"DO UPDATE SET change_seq = s\.change_seq \+ EXCLUDED",
        "DO UPDATE SET change_seq = EXCLUDED",
    ),
)
# The first wall: whose rows a statement is about.
OWNERS: Rules = (
    (r"(?:\b\w+\.)?\buser_id = (\$\d+)", r"\1::uuid IS NOT NULL"),
    (r"\b\w+\.user_id = \w+\.user_id", "true"),
)
# The second one: what the database lets a role see and write.
_NESTED = r"\((?!true\))(?:[^()]|\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\))+\)"
POLICIES: Rules = (
    (rf"(?<=USING ){_NESTED}(?=;)", "(true)"),
    (r"(?m)^ALTER TABLE \S+ ENABLE ROW LEVEL SECURITY;$", ""),
)
LOOKS_LIKE_SQL = re.compile(r"\b(SELECT|INSERT INTO|UPDATE|DELETE FROM|WHERE|RETURNING)\b")
LOOKS_LIKE_LUA = re.compile(r"\bredis\.call\b")


@dataclass(frozen=True, slots=True)
class Mutant:
    path: str
    line: int
    # Function and line: the same change elsewhere in the file is another fault.
    source: str
    what: str
    text: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.path, self.source, self.what

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.what} [{self.source}]"


UNCHANGED = "unchanged"


def of_python(path: Path, name: str, only: tuple[str, ...] = (), rules: Rules = ()) -> list[Mutant]:
    """All faults of a module, or of the functions and classes `only`; with `rules`, of its texts
    alone."""
    tree = ast.parse(path.read_text())
    source = _sources(tree, path.read_text())
    found = []
    for node, variant in _changes(tree, only, rules):
        # The copy keeps the nodes' order, and that is how the same one is found in it.
        at = [id(other) for other in ast.walk(tree)].index(id(node))
        changed = copy.deepcopy(tree)
        twin = list(ast.walk(changed))[at]
        new = variant(twin)
        before, after = _first_line(node), _first_line(new)
        if isinstance(node, ast.Constant) and isinstance(new, ast.Constant):
            before, after = _difference(node.value, new.value)
        _replace(changed, twin, new)
        text = ast.unparse(ast.fix_missing_locations(changed))
        at = getattr(node, "lineno", 1)
        found.append(Mutant(name, at, source[at], f"{before} -> {after}", text))
    return found


def _sources(tree: ast.Module, text: str) -> dict[int, str]:
    """Each line, by its number, with the name of the innermost function that it is of."""
    lines = [line.strip() for line in text.splitlines()]
    found = dict(enumerate(lines, 1))
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for at in range(function.lineno + 1, (function.end_lineno or 0) + 1):
                found[at] = f"{function.name}: {lines[at - 1]}"
    return found


def as_it_is(path: Path, name: str) -> Mutant:
    """What nothing may notice: the file itself, in the form that its faults have."""
    text = path.read_text()
    if path.suffix == ".py":
        text = ast.unparse(ast.parse(text))
    return Mutant(name, 1, "", UNCHANGED, text)


def of_text(path: Path, name: str, rules: Rules) -> list[Mutant]:
    text = path.read_text()
    found = []
    for match, new, changed in _edits(text, rules):
        at = text[: match.start()].count("\n")
        # A policy is named in the line before its condition.
        source = " ".join(line.strip() for line in text.splitlines()[max(at - 1, 0) : at + 1])
        found.append(Mutant(name, at + 1, source, f"{match[0].strip()} -> {new}", changed))
    return found


def _edits(text: str, rules: Rules) -> Iterator[tuple[re.Match[str], str, str]]:
    for pattern, new in rules:
        for match in re.finditer(pattern, text):
            put = match.expand(new)
            yield match, put.strip(), text[: match.start()] + put + text[match.end() :]


Change = tuple[ast.AST, Callable[[Any], ast.AST]]


def _changes(tree: ast.Module, only: tuple[str, ...], rules: Rules) -> Iterator[Change]:
    roots: list[ast.AST] = [tree]
    if only:
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        roots = [n for n in ast.walk(tree) if isinstance(n, kinds) and n.name in only]
        roots += [
            n for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) in only
        ]
    for root in roots:
        for node in _worth_it(root):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield from _of_string(node, rules)
            elif not rules:
                yield from _of_code(node)


def _worth_it(node: ast.AST) -> Iterator[ast.AST]:
    """Walk, but not into what no user can notice."""
    if isinstance(node, ast.Raise):
        yield node
        return
    if isinstance(node, ast.arguments):
        for default in (*node.defaults, *(d for d in node.kw_defaults if d)):
            yield from _worth_it(default)
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, ast.Expr) and ast.unparse(node).startswith("log."):
        return
    if isinstance(node, ast.Import | ast.ImportFrom) or _is_limit(node):
        return
    yield node
    skipped = (
        ("returns", "decorator_list", "annotation") if not isinstance(node, ast.AnnAssign) else ()
    )
    for field, value in ast.iter_fields(node):
        if field not in skipped:
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _worth_it(child)


def _is_limit(node: ast.AST) -> bool:
    """A name in capitals at the top of a module, for a number or several."""
    return (
        isinstance(node, ast.Assign)
        and node.col_offset == 0
        and ast.unparse(node.targets[0]).strip("()").isupper()
        and not any(
            isinstance(part, ast.Constant) and isinstance(part.value, str)
            for part in ast.walk(node.value)
        )
    )


def _of_string(node: ast.Constant, rules: Rules) -> Iterator[Change]:
    text = str(node.value)
    fits: Rules = rules
    if not rules and LOOKS_LIKE_LUA.search(text):
        fits = LUA
    elif not rules and LOOKS_LIKE_SQL.search(text):
        fits = SQL
    if fits:
        for _, _, changed in _edits(text, fits):
            yield node, lambda _, changed=changed: ast.Constant(changed)
    elif text and "_layer" not in text:
        yield node, lambda _: ast.Constant(f"XX{text}")


def _of_code(node: ast.AST) -> Iterator[Change]:
    if isinstance(node, ast.Compare):
        for at, op in enumerate(node.ops):
            for other in SWAPPED.get(type(op), ()):
                yield node, lambda twin, at=at, other=other: _compared(twin, at, other)
    elif isinstance(node, ast.BoolOp | ast.BinOp | ast.AugAssign):
        for other in SWAPPED.get(type(node.op), ()):
            yield node, lambda twin, other=other: _with(twin, "op", other())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node, lambda twin: twin.operand
    elif isinstance(node, ast.Constant) and node.value is not None and node.value is not ...:
        yield node, lambda twin: ast.Constant(_other(twin.value))
    elif isinstance(node, ast.If | ast.While | ast.IfExp):
        yield node, lambda twin: _with(twin, "test", ast.UnaryOp(ast.Not(), twin.test))
    elif isinstance(node, ast.Return) and not _is_none(node.value):
        yield node, lambda _: ast.Return(ast.Constant(None))
    elif isinstance(node, ast.Raise) or _is_call(node):
        yield node, lambda _: ast.Pass()
    elif isinstance(node, ast.Assign) and not _is_none(node.value) and node.col_offset:
        yield node, lambda twin: ast.Assign(twin.targets, ast.Constant(None))


def _compared(twin: ast.Compare, at: int, other: type[ast.cmpop]) -> ast.AST:
    twin.ops[at] = other()
    return twin


def _with(twin: ast.AST, field: str, value: ast.AST) -> ast.AST:
    setattr(twin, field, value)
    return twin


def _is_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await)


def _other(value: Any) -> Any:
    """A large number by one more would be the same limit."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, bytes):
        return value + b"X"
    return value * 2 if value >= 100 else value + 1


def _is_none(value: ast.expr | None) -> bool:
    return value is None or (isinstance(value, ast.Constant) and value.value is None)


def _replace(tree: ast.AST, old: ast.AST, new: ast.AST) -> None:
    for parent in ast.walk(tree):
        for field, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, field, new)
            elif isinstance(value, list) and any(item is old for item in value):
                value[[item is old for item in value].index(True)] = new


def _first_line(node: ast.AST) -> str:
    text = ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))) or type(node).__name__
    return text.splitlines()[0][:90]


def _difference(before: object, after: object) -> tuple[str, str]:
    if not (isinstance(before, str) and isinstance(after, str)):
        return repr(before), repr(after)
    pairs = zip(before.splitlines() or [""], after.splitlines() or [""], strict=False)
    first = next(((a, b) for a, b in pairs if a != b), (before, after))
    return first[0].strip()[:90], first[1].strip()[:90]
