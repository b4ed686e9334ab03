"""Reports of several data sets as one Markdown page with its figures."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from benchmarks.report.figures import draw_error_curves, draw_match_counts, draw_viewpoint
from benchmarks.report.markdown import cell, in_order, markdown_table, method_cell, value_cell
from benchmarks.report.numbers import best_rows
from benchmarks.report.prose import failure_lines, protocol_line, provenance_lines
from benchmarks.report.results import BenchmarkReport
from benchmarks.report.sources import sources_table
from benchmarks.report.style import MethodStyle, method_styles
from benchmarks.report.table import (
    further_table,
    group_table,
    main_table,
    methods_table,
    published_table,
    viewpoint_table,
)
from matcher.errors import InputError
from matcher.files import replaced

__all__ = ["FigureKind", "figure_path", "render_report", "write_page"]

FigureKind = Literal[
    "viewpoint", "errors", "matches", "precision-recall", "pairs", "reliability", "roc"
]
_CAPTIONS: dict[FigureKind, str] = {
    "viewpoint": "By viewpoint change",
    "errors": "Recall against error",
    "matches": "Match counts",
    "precision-recall": "Precision and recall of matches",
    "pairs": "Best and worst pairs",
    "reliability": "Reliability of the confidence",
    "roc": "Telling pairs with common content from others",
}
_Draw = Callable[[BenchmarkReport, Path, Mapping[str, MethodStyle]], bool]
_DRAWN: tuple[tuple[FigureKind, _Draw], ...] = (
    ("viewpoint", draw_viewpoint),
    ("errors", draw_error_curves),
    ("matches", draw_match_counts),
)


def figure_path(figures_dir: Path, report: BenchmarkReport, kind: FigureKind) -> Path:
    """Where a figure of a report lies; :func:`write_page` shows those it finds there."""
    stem = f"{report.dataset_name}-{report.protocol.name}-{kind}"
    suffix = ".jpg" if kind == "pairs" else ".png"
    return figures_dir / (re.sub(r"[^A-Za-z0-9._-]+", "_", stem) + suffix)


def write_page(
    reports: Sequence[BenchmarkReport],
    path: Path,
    figures_dir: Path | None = None,
    intro: str = "# Benchmarks\n",
) -> tuple[Path, ...]:
    """Write the page and, into ``figures_dir``, the figures that reports alone can give.

    Figures that need more than a report (precision and recall, pairs, reliability, ROC) are shown
    where they lie at their :func:`figure_path` already.

    Args:
        reports: in the order of the page.
        path: the Markdown file.
        figures_dir: where figures go, shown by relative links; ``None``: no figures.
        intro: the top of the page, heading included.

    Returns:
        The figures shown.

    Raises:
        MissingDependencyError: figures are wanted and matplotlib is not installed.
        InputError: a file cannot be written.
    """
    # One look a method over the whole page.
    styles = method_styles(one.method for report in reports for one in report.results)
    shown: list[Path] = []
    sections = [intro.rstrip() + "\n"]
    if len(reports) > 1:
        sections.append(_overview(reports))
    for report in reports:
        figures = () if figures_dir is None else _figures(report, figures_dir, styles)
        shown.extend(figures)
        links = [Path(os.path.relpath(one, path.parent)).as_posix() for one in figures]
        sections.append(render_report(report, links))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as temporary:
            temporary.write_text("\n".join(sections).rstrip() + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError("path", "a file that can be written", f"{path}: {error}") from None
    return tuple(shown)


def render_report(report: BenchmarkReport, figure_links: Sequence[str] = ()) -> str:
    """One data set's section.

    Args:
        report: what was measured.
        figure_links: of its figures, relative to the page.
    """
    parts = [f"## {report.display_title}\n"]
    if report.is_synthetic:
        parts.append(
            "**Synthetic**: rendered scenes, not photographs. These numbers say nothing about a "
            "benchmark of photographs.\n"
        )
    parts.append(protocol_line(report))
    if report.notes:
        parts.append("\n".join(f"- {cell(note)}" for note in report.notes) + "\n")
    parts.append(main_table(report) if report.results else "No method has run.\n")
    further = further_table(report)
    if further:
        parts.append(f"Further metrics:\n\n{further}")
    viewpoint = viewpoint_table(report)
    if viewpoint:
        first = next(one for one in report.results if one.summary.by_viewpoint)
        name = next(iter(first.summary.by_viewpoint.values())).name
        parts.append(f"### {name} by viewpoint change\n\n{viewpoint}")
    group = group_table(report)
    if group:
        first = next(one for one in report.results if one.summary.by_group)
        names = (metric.name for metric in next(iter(first.summary.by_group.values())))
        parts.append(f"### {' / '.join(names)} by group\n\n{group}")
    sources = sources_table(report)
    if sources:
        largest = max(report.protocol.auc_thresholds)
        parts.append(f"### AUC@{largest:g} by group and viewpoint change\n\n{sources}")
    parts.extend(f"![{_alt(report, link)}]({link})\n" for link in figure_links)
    published = published_table(report)
    if published:
        parts.append(f"### Published values\n\n{published}")
    parts.extend(filter(None, (failure_lines(report), methods_table(report))))
    parts.append(provenance_lines(report))
    return "\n".join(parts)


def _figures(
    report: BenchmarkReport, folder: Path, styles: dict[str, MethodStyle]
) -> tuple[Path, ...]:
    """Draw what the report gives; all figures of the report that there are now."""
    for kind, draw in _DRAWN:
        path = figure_path(folder, report, kind)
        if not draw(report, path, styles):
            path.unlink(missing_ok=True)  # of an earlier run
    paths = (figure_path(folder, report, kind) for kind in _CAPTIONS)
    return tuple(path for path in paths if path.is_file())


def _alt(report: BenchmarkReport, link: str) -> str:
    ending = next(
        (text for kind, text in _CAPTIONS.items() if Path(link).stem.endswith(f"-{kind}")), "Figure"
    )
    return f"{cell(report.display_title)}: {ending[0].lower()}{ending[1:]}"


def _overview(reports: Sequence[BenchmarkReport]) -> str:
    """The first metric of every method on every data set."""
    methods = {one.method.name: one.method for report in reports for one in report.results}
    names = in_order(methods)
    rows = []
    for report in reports:
        found = {one.method.name: one.summary.metrics for one in report.results}
        firsts = [found[name][0] if found.get(name) else None for name in names]
        best = best_rows(firsts)
        metric = next((one.name for one in firsts if one is not None), "–")
        cells = [value_cell(one, index in best) for index, one in enumerate(firsts)]
        title = f"{cell(report.display_title)}, `{report.protocol.name}`, {metric}"
        rows.append([title, *cells])
    header = ["data set, protocol, metric", *(method_cell(methods[name]) for name in names)]
    return markdown_table(header, rows)
