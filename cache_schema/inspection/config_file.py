"""Read a detector config without running it: literals, names given before, and `_base_` files.

Our configs are Python files of mmengine's old kind, and mmengine would run them. Here they are parsed, so
that a dump can be planned on a machine that has neither mmengine nor a reason to trust the file.
"""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cache_schema.errors import CacheError

BASE = "_base_"
DELETE = "_delete_"


def read_config(path: Path) -> dict[str, Any]:
    """The values that a config file assigns, laid over those of its base files, as mmengine does it.

    A dict is merged into the dict of the same name, unless it says `_delete_=True`; anything else replaces.
    Raises CacheError when a file is missing or says something that is no literal.
    """
    return _read(path, ())


def _read(path: Path, readers: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in readers:
        raise CacheError(f"{path} is a base of itself")
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    except (FileNotFoundError, IsADirectoryError):
        raise CacheError(f"no config file {path}") from None
    except SyntaxError as error:
        raise CacheError(f"{path}, line {error.lineno}: {error.msg}") from None
    own: dict[str, Any] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and all(isinstance(t, ast.Name) for t in statement.targets):
            value = _Literal(path, own).value(statement.value)
            own |= {target.id: value for target in statement.targets}
        elif not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
            raise CacheError(
                f"{path}, line {statement.lineno}: only assignments of literals can be read, no code"
            )
    bases = own.pop(BASE, [])
    merged: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        merged |= _read(path.parent / base, (*readers, path.resolve()))
    return _merge(merged, own)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        if not isinstance(value, dict):
            merged[name] = value
        else:
            under = merged.get(name)
            replaces = value.get(DELETE, False) or not isinstance(under, dict)
            merged[name] = _merge({} if replaces else under, {k: v for k, v in value.items() if k != DELETE})
    return merged


class _Literal:
    """Values of expressions that need no running: `dict(...)` is the only call."""

    def __init__(self, path: Path, known: Mapping[str, Any]) -> None:
        self._path = path
        self._known = known

    def value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name) if name in self._known:
                return self._known[name]
            case ast.List(elts=items):
                return [self.value(item) for item in items]
            case ast.Tuple(elts=items):
                return tuple(self.value(item) for item in items)
            case ast.Dict(keys=keys, values=values) if None not in keys:
                return {self.value(key): self.value(item) for key, item in zip(keys, values, strict=True)}
            case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords) if all(
                word.arg for word in keywords
            ):
                return {word.arg: self.value(word.value) for word in keywords}
            case ast.UnaryOp(op=ast.USub(), operand=operand) if isinstance(
                number := self.value(operand), int | float
            ):
                return -number
        raise CacheError(
            f"{self._path}, line {node.lineno}: {ast.unparse(node)} is no literal, and a plan runs no code"
        )
