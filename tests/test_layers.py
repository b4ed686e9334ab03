"""The import direction of the packages, checked over the syntax tree.

A module imports only from rows below its own; modules of one row do not import each other.
Imports inside functions and under ``TYPE_CHECKING`` count like any other.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Low to high. A name stands for a module or for a whole package.
ROWS: tuple[frozenset[str], ...] = tuple(
    map(
        frozenset,
        (
            {"heads", "matcher._version"},
            {"matcher.errors"},
            {"matcher.files", "matcher.structures"},
            {"matcher.geometry", "matcher.neighbourhoods"},
            {"matcher.calibration"},
            {"matcher.colmap"},  # the one place that knows pycolmap
            {"matcher.images", "matcher.pairing", "matcher.photographs", "matcher.synthetic"},
            {"matcher.reconstruction"},
            {"matcher.model"},
            {"matcher.checkpoints"},
            {"matcher.matching"},
            {"matcher.drawing", "matcher.pointmaps"},
            {"matcher.results"},
            {"matcher.view_matching", "matcher.turns"},
            {"matcher.crop_matching"},
            {"matcher.pair_records"},
            {"matcher.encoded_images", "matcher.record_files", "matcher.store_folder"},
            {"matcher.encoding_cache"},
            {"matcher.pair_inference"},
            {"matcher.many_pairs"},
            {"matcher.pipeline"},
            {"matcher.store_manifest"},
            {"matcher.match_store"},
            {"matcher.collection_run"},
            {"matcher.module"},  # the drop-in for kornia
            {"matcher.alignment", "matcher.localization", "matcher.training"},
            {"matcher.export"},
            {"matcher.service"},
            {"matcher"},  # the public names
            {"matcher.sample_pairs"},
            {"matcher.cli"},
            {"matcher.__main__"},
            {"benchmarks"},
            {"tests"},
        ),
    )
)
ROW_OF = {part: row for row, parts in enumerate(ROWS) for part in parts}
OURS = {part.split(".")[0] for part in ROW_OF}
HEADS_MAY_IMPORT = {"torch", "heads", *sys.stdlib_module_names}


def part_of(module: str) -> str:
    """The name in ``ROWS`` that a dotted module belongs to."""
    pieces = module.split(".")
    return ".".join(pieces[:2]) if pieces[0] == "matcher" else pieces[0]


def imported_modules(source: str, module: str, *, is_package: bool) -> list[tuple[int, str]]:
    """(line, absolute dotted name) of everything a module imports.

    ``from matcher import pairing`` counts as an import of ``matcher.pairing``; a name that is no
    module there stays an import of the package it comes from.
    """
    package = module.split(".") if is_package else module.split(".")[:-1]
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                child = f"{origin}.{alias.name}"
                found.append((node.lineno, child if child in ROW_OF else origin))
    return found


def violations(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """One line for every import of ``module`` that points the wrong way."""
    own = part_of(module)
    if own not in ROW_OF:
        return [f"{module}: not in a row; give it one in tests/test_layers.py"]
    wrong = []
    for line, name in imported_modules(source, module, is_package=is_package):
        other = part_of(name)
        top = name.split(".")[0]
        if own == "heads" and top not in HEADS_MAY_IMPORT:
            wrong.append(f"{module}:{line}: heads imports torch only, not {name}")
        elif top not in OURS or other == own:
            continue
        elif other not in ROW_OF:
            wrong.append(f"{module}:{line}: {name} is in no row")
        elif ROW_OF[other] >= ROW_OF[own]:
            wrong.append(f"{module}:{line}: {own} must not import {name}")
    return wrong


def modules_of(package: str) -> list[tuple[Path, str, bool]]:
    """(file, dotted name, is a package) of every module in a package of the checkout."""
    modules = []
    for path in sorted((ROOT / package).rglob("*.py")):
        pieces = path.relative_to(ROOT).with_suffix("").parts
        is_package = pieces[-1] == "__init__"
        modules.append((path, ".".join(pieces[:-1] if is_package else pieces), is_package))
    return modules


@pytest.mark.parametrize("package", ["heads", "matcher", "benchmarks"])
def test_imports_point_down(package: str) -> None:
    wrong = [
        line
        for path, module, is_package in modules_of(package)
        for line in violations(path.read_text("utf-8"), module, is_package=is_package)
    ]
    assert wrong == []


def test_every_package_is_seen() -> None:
    assert len(modules_of("heads")) >= 2
    assert {"matcher.errors", "matcher.structures", "matcher.geometry"} <= {
        module for _, module, _ in modules_of("matcher")
    }


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("import matcher.cli", "matcher.geometry.pose"),
        ("from matcher.pairing import complete_pairs", "matcher.images"),  # the same row
        ("from matcher import pipeline", "matcher.model.network"),
        ("from matcher import Matcher", "matcher.training.train"),  # the public names are above
        ("from ..pipeline import Matcher", "matcher.matching.nearest"),
        ("from . import cli", "matcher.structures"),
        ("from .. import training", "matcher.geometry.pose"),
        ("def late():\n    from matcher.matching import x", "matcher.checkpoints.native"),
        ("if TYPE_CHECKING:\n    from matcher.pipeline import Matcher", "matcher.structures"),
        ("import benchmarks.report", "matcher.cli"),
        ("from tests.conftest import x", "benchmarks.report"),
        ("import numpy", "heads.linear"),
        ("from matcher.errors import InputError", "heads.linear"),
        ("from matcher.brand_new import x", "matcher.cli"),
        ("x = 1", "matcher.brand_new"),
    ],
)
def test_a_wrong_import_is_found(source: str, module: str) -> None:
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("source", "module", "is_package"),
    [
        ("import numpy\nfrom heads.outputs import DenseOutput", "matcher.structures", False),
        ("from .pose import x\nfrom ..errors import y", "matcher.geometry.camera", False),
        ("from .network import x\nfrom ..errors import y", "matcher.model", True),
        ("from .errors import x\nfrom . import pipeline", "matcher", True),
        ("import math\nimport torch.nn as nn\nfrom heads.config import x", "heads.dpt", False),
        ("from matcher import Matcher\nfrom matcher import training", "matcher.cli", False),
        ("import matcher.cli\nfrom benchmarks.protocol import x", "benchmarks.report", False),
    ],
)
def test_a_right_import_is_let_through(source: str, module: str, is_package: bool) -> None:
    assert violations(source, module, is_package=is_package) == []
