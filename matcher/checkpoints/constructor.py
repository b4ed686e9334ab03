"""The released description of a network as text: a constructor call, parsed and never executed."""

from __future__ import annotations

import ast
import math
from typing import Any

from matcher.checkpoints.released_config import (
    class_of_config,
    config_from_keywords,
    keywords_from_config,
)
from matcher.checkpoints.state import one_line
from matcher.errors import CheckpointError
from matcher.model.config import CroCoConfig, ModelConfig

__all__ = ["config_from_constructor", "constructor_from_config"]

_LONGEST_CONSTRUCTOR = 10_000


def config_from_constructor(text: str) -> ModelConfig | CroCoConfig:
    """Parse a stored constructor call, for instance ``AsymmetricMASt3R(enc_depth=24, ...)``.

    Raises:
        CheckpointError: not a call of a known class with known keywords and literal values.
    """
    if len(text) > _LONGEST_CONSTRUCTOR:
        raise CheckpointError("the stored constructor is too long to be one")
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise CheckpointError(
            f"the stored constructor cannot be parsed: {one_line(error)}"
        ) from None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise CheckpointError(f"the stored constructor is not a call: {one_line(text)}")
    if call.args or any(keyword.arg is None for keyword in call.keywords):
        raise CheckpointError("the stored constructor has arguments without a keyword")
    keywords = {str(keyword.arg): _literal(keyword.value) for keyword in call.keywords}
    return config_from_keywords(call.func.id, keywords)


def constructor_from_config(
    config: ModelConfig | CroCoConfig, image_size: tuple[int, int] = (512, 512)
) -> str:
    """The inverse of ``config_from_constructor``, up to keywords that mean nothing here."""
    keywords = keywords_from_config(config, image_size)
    # repr() of an infinity is ``inf``, which is also how released constructors spell it.
    arguments = ", ".join(f"{name}={value!r}" for name, value in keywords.items())
    return f"{class_of_config(config)}({arguments})"


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | None):
        return node.value
    if isinstance(node, ast.Name) and node.id == "inf":
        return math.inf
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _literal(node.operand)
        if isinstance(number, int | float):
            return -number
    if isinstance(node, ast.Tuple | ast.List):
        return tuple(_literal(element) for element in node.elts)
    raise CheckpointError(
        f"the stored constructor has a value that is not a literal ({type(node).__name__})"
    )
