"""Several reports as one page: ``python -m benchmarks page --out docs/benchmarks.md A/ B/ ...``.

Each folder is what ``--report`` wrote. The figures that need the matches themselves (pairs,
precision and recall, reliability, ROC) are copied from there; the others are drawn anew, so that a
method looks the same on the whole page.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import BenchmarkReport, figure_path, read_report, write_page
from benchmarks.report.page import FigureKind
from matcher.errors import DatasetError, InputError, MatcherError

__all__ = ["join_reports"]

_COPIED: tuple[FigureKind, ...] = ("pairs", "precision-recall", "reliability", "roc")


def join_reports(
    folders: Sequence[Path], out: Path, figures: Path, intro: str, photographs: bool = True
) -> tuple[BenchmarkReport, ...]:
    """Write the page ``out`` with figures in ``figures``.

    Args:
        folders: each with a ``report.json`` and its figures.
        out: the Markdown file.
        figures: made if missing.
        intro: Markdown above the first section, heading included.
        photographs: whether the sheets of pairs go along; not all data may be shown.

    Raises:
        DatasetError: a folder without a report. InputError: a file that cannot be written.
    """
    reports: list[BenchmarkReport] = []
    kinds = tuple(kind for kind in _COPIED if photographs or kind != "pairs")
    try:
        figures.mkdir(parents=True, exist_ok=True)
        for folder in folders:
            if not (folder / "report.json").is_file():
                raise DatasetError(f"{folder}: expected report.json, as --report writes it")
            reports.append(
                _of_the_page(read_report(folder / "report.json"), folder, figures, kinds)
            )
    except MatcherError:  # a DatasetError is an OSError too
        raise
    except OSError as error:
        raise InputError(
            "--figures", "a folder that can be written", f"{figures}: {error}"
        ) from None
    titles = [report.title for report in reports]
    told_apart = [
        dataclasses.replace(report, title=f"{report.title}, {report.provenance.num_pairs} pairs")
        if titles.count(report.title) > 1
        else report
        for report in reports
    ]
    write_page(told_apart, out, figures, intro)
    return tuple(told_apart)


def _of_the_page(
    report: BenchmarkReport, folder: Path, figures: Path, kinds: Sequence[FigureKind]
) -> BenchmarkReport:
    """The report under its folder's name, which tells two of one data set apart."""
    renamed = dataclasses.replace(report, dataset_name=folder.resolve().name)
    for kind in kinds:
        drawn = figure_path(folder, report, kind)
        if drawn.is_file():
            shutil.copyfile(drawn, figure_path(figures, renamed, kind))
    return renamed


def main() -> int:
    """Join the reports of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks page")
    parser.add_argument("folders", type=Path, nargs="+", help="written by --report")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--figures", type=Path, help="default: a folder beside the page")
    parser.add_argument("--no-photographs", action="store_true", help="leave out sheets of pairs")
    parser.add_argument("--intro", type=Path, help="Markdown for the top of the page")
    options = parser.parse_args()
    figures = options.figures or options.out.parent / "images" / options.out.stem
    try:
        intro = options.intro.read_text() if options.intro else "# Benchmarks\n"
        reports = join_reports(
            options.folders, options.out, figures, intro, not options.no_photographs
        )
    except (MatcherError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {options.out} from {len(reports)} reports")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
