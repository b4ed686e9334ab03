"""Reports: one JSON file, a Markdown page, and figures."""

from benchmarks.report.curves import (
    MatchQuality,
    PairRanking,
    draw_precision_recall,
    draw_roc,
)
from benchmarks.report.figures import draw_error_curves, draw_match_counts, draw_viewpoint
from benchmarks.report.page import figure_path, render_report, write_page
from benchmarks.report.reliability import reliability_diagram
from benchmarks.report.results import BenchmarkReport, MethodResult, read_report, write_report
from benchmarks.report.sheet import PairPicture, best_and_worst, draw_pair_sheet

__all__ = [
    "BenchmarkReport",
    "MatchQuality",
    "MethodResult",
    "PairPicture",
    "PairRanking",
    "best_and_worst",
    "draw_error_curves",
    "draw_match_counts",
    "draw_pair_sheet",
    "draw_precision_recall",
    "draw_roc",
    "draw_viewpoint",
    "figure_path",
    "read_report",
    "reliability_diagram",
    "render_report",
    "write_page",
    "write_report",
]
