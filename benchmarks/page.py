"""Several reports as one page: ``python -m benchmarks page --out docs/benchmarks.md A/ B/ ...``.

Each folder is what ``--report`` wrote. The figures that need the matches themselves (pairs,
precision and recall, reliability, ROC) are copied from there; the others are drawn anew, so that a
method looks the same on the whole page.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import BenchmarkReport, read_report, write_page
from matcher.errors import DatasetError, MatcherError

__all__ = ["join_reports"]

_COPIED = ("pairs", "precision-recall", "reliability", "roc")


def join_reports(
    folders: Sequence[Path], out: Path, figures: Path, intro: str
) -> tuple[BenchmarkReport, ...]:
    """Write the page ``out`` with figures in ``figures``.

    Args:
        folders: each with a ``report.json`` and its figures.
        out: the Markdown file.
        figures: made if missing.
        intro: Markdown above the first section, heading included.

    Raises:
        DatasetError: a folder without a report. InputError: a file that cannot be written.
    """
    reports = []
    figures.mkdir(parents=True, exist_ok=True)
    for folder in folders:
        if not (folder / "report.json").is_file():
            raise DatasetError(f"{folder}: expected report.json, as --report writes it")
        reports.append(read_report(folder / "report.json"))
        for path in sorted(folder.iterdir()):
            if path.suffix in (".png", ".jpg") and path.stem.endswith(_COPIED):
                shutil.copyfile(path, figures / path.name)
    write_page(reports, out, figures, intro)
    return tuple(reports)


def main() -> int:
    """Join the reports of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks page")
    parser.add_argument("folders", type=Path, nargs="+", help="written by --report")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--figures", type=Path, help="default: a folder beside the page")
    parser.add_argument("--intro", type=Path, help="Markdown for the top of the page")
    options = parser.parse_args()
    figures = options.figures or options.out.parent / "images" / options.out.stem
    try:
        intro = options.intro.read_text() if options.intro else "# Benchmarks\n"
        reports = join_reports(options.folders, options.out, figures, intro)
    except (MatcherError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {options.out} from {len(reports)} reports")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
