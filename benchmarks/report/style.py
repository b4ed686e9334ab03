"""One look for all figures: colours that stay with a method, quiet axes, small PNG files."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.core.predictions import MethodInfo
from matcher.errors import InputError, MissingDependencyError
from matcher.files import replaced

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MethodStyle", "drawing", "legend_outside", "method_styles", "write_bytes"]

# Okabe and Ito's colours (without yellow, too pale for a line), then three of Tol's: telling apart
# does not rest on red against green, and the markers differ as well.
_OURS = ("#D55E00", "#882255", "#EE9966")
_OTHERS = ("#0072B2", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#777777", "#332288", "#999933")
_OUR_MARKERS, _OTHER_MARKERS = ("o", "p", "*"), ("s", "^", "D", "v", "X", "P", "<", ">")
# The same method has the same colour in every figure, whoever else was measured.
_KNOWN = (
    "sift",
    "xfeat",
    "aliked-lightglue",
    "xfeat-lighterglue",
    "orb",
    "akaze",
    "disk-lightglue",
)
_DPI = 120
_SETTINGS: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.labelcolor": "#333333",
    "axes.edgecolor": "#999999",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.8,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "legend.frameon": False,
    "text.parse_math": False,  # a dollar in a method's name is a dollar
}


@dataclass(frozen=True, slots=True)
class MethodStyle:
    """How a method looks in every figure; ``order`` is higher for what lies on top."""

    colour: str
    marker: str
    width: float
    order: int


def method_styles(methods: Iterable[MethodInfo]) -> dict[str, MethodStyle]:
    """The look of each method by name: ours warm and heavy, the others by a fixed order."""
    infos = {method.name: method for method in methods}
    ours = sorted(name for name, method in infos.items() if method.is_ours)
    others = sorted(name for name, method in infos.items() if not method.is_ours)
    styles = {
        name: MethodStyle(
            _OURS[index % len(_OURS)], _OUR_MARKERS[index % len(_OUR_MARKERS)], 2.6, 20 - index
        )
        for index, name in enumerate(ours)
    }
    known = [name for name in others if name in _KNOWN]
    slots = {name: _KNOWN.index(name) for name in known}
    free = [slot for slot in range(len(_OTHERS)) if slot not in slots.values()] or [0]
    unknown = [name for name in others if name not in _KNOWN]
    slots.update({name: free[::-1][index % len(free)] for index, name in enumerate(unknown)})
    for name, slot in slots.items():
        styles[name] = MethodStyle(_OTHERS[slot], _OTHER_MARKERS[slot], 1.8, 10 - slot)
    return styles


@contextmanager
def drawing(path: Path, purpose: str, inches: tuple[float, float]) -> Iterator[Axes]:
    """Axes to draw on, written to ``path`` (PNG) in one step if nothing is raised.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        InputError: the file cannot be written.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError("matplotlib", "plot", purpose) from None
    with rc_context(_SETTINGS):
        figure = Figure(figsize=inches, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        yield figure.subplots()
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=_DPI, pil_kwargs={"optimize": True})
    write_bytes(path, content.getvalue())


def legend_outside(axes: Axes, names: Sequence[str]) -> None:
    """A legend to the right of the axes, in the order of ``names``; none without entries."""
    handles, labels = axes.get_legend_handles_labels()
    by_label = dict(zip(labels, handles, strict=True))
    chosen = [name for name in names if name in by_label]
    if chosen:
        axes.legend(
            [by_label[name] for name in chosen],
            chosen,
            loc="upper left",
            bbox_to_anchor=(1.01, 1.0),
            borderaxespad=0.0,
            labelspacing=0.7,
        )


def write_bytes(path: Path, content: bytes) -> None:
    """Write a picture in one step, with its folder.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise InputError("path", "a file that can be written", f"{path}: {error}") from None
