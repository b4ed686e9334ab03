"""What a speed suite gives: rows of medians beside a named reference, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.speed.timing import Measurement
from matcher.structures import ImageSize

__all__ = ["SpeedRow", "SpeedSettings", "SpeedTable"]

Unit = Literal["s", "MiB"]


@dataclass(frozen=True, slots=True)
class SpeedSettings:
    """What all suites are told.

    Attributes:
        model: name or checkpoint of the network.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        threads: of every library.
        warmup, repeats: runs before, and runs that count.
        size: of the photographs.
        root: a folder of photographs, or ``None``: rendered ones.
        quick: tiny inputs, to see that everything runs; its numbers mean nothing.
    """

    model: str = "small"
    device: str = "cpu"
    threads: int = 2
    warmup: int = 1
    repeats: int = 7
    size: ImageSize = field(default_factory=lambda: ImageSize(384, 512))
    root: Path | None = None
    quick: bool = False


@dataclass(frozen=True, slots=True)
class SpeedRow:
    """One line of a table.

    Attributes:
        name: what was measured.
        value: in the table's unit.
        against_reference: the table's ratio; ``None`` for the reference itself.
        extras: further numbers by column name.
    """

    name: str
    value: Measurement
    against_reference: Measurement | None = None
    extras: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        against = self.against_reference
        return {
            "name": self.name,
            "value": self.value.to_dict(),
            "against_reference": against.to_dict() if against else None,
            "extras": dict(self.extras),
        }


@dataclass(frozen=True, slots=True)
class SpeedTable:
    """The rows of one question.

    Attributes:
        title: the question.
        reference: what the ratio compares with, by name; measured in the same run.
        rows: the reference among them, where it is one thing for all rows.
        ratio: what the ratio says.
        unit: of the values.
        note: what a reader must know.
    """

    title: str
    reference: str
    rows: tuple[SpeedRow, ...]
    ratio: str = "times as fast"
    unit: Unit = "s"
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "title": self.title,
            "reference": self.reference,
            "ratio": self.ratio,
            "unit": self.unit,
            "note": self.note,
            "rows": [row.to_dict() for row in self.rows],
        }

    def to_markdown(self) -> str:
        """A heading, the table, and what must be known."""
        extras = list(dict.fromkeys(name for row in self.rows for name in row.extras))
        unit = "ms" if self.unit == "s" else self.unit
        heads = ["", f"median {unit}", "quartiles", self.ratio, "quartiles", *extras]
        lines = [
            f"### {self.title}",
            "",
            f"Reference: {self.reference}." + (f" {self.note}" if self.note else ""),
            "",
            "| " + " | ".join(heads) + " |",
            "|---|" + "---:|" * (len(heads) - 1),
        ]
        lines += ["| " + " | ".join(self._cells(row, extras)) + " |" for row in self.rows]
        return "\n".join(lines) + "\n"

    def _cells(self, row: SpeedRow, extras: list[str]) -> list[str]:
        scale = 1000 if self.unit == "s" else 1
        cells = [row.name, *_spread(row.value, scale)]
        cells += _spread(row.against_reference) if row.against_reference else ["reference", ""]
        return cells + [_number(row.extras[name]) if name in row.extras else "" for name in extras]


def _spread(values: Measurement, scale: float = 1.0) -> list[str]:
    low, high = _number(values.q25 * scale), _number(values.q75 * scale)
    return [_number(values.median * scale), f"{low} to {high}"]


def _number(value: float) -> str:
    """About three significant digits."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:#.3g}"
