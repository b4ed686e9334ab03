"""A report as Markdown: what was measured, exactly how, and who lost where."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.report.markdown import (
    cell,
    code_cell,
    count_suffix,
    in_order,
    markdown_table,
    method_cell,
    metric_named,
    value_cell,
)
from benchmarks.report.numbers import best_rows, is_share
from benchmarks.report.prose import standing_lines
from benchmarks.report.results import BenchmarkReport, MethodResult

__all__ = [
    "further_table",
    "group_table",
    "main_table",
    "methods_table",
    "published_table",
    "ranked",
    "viewpoint_table",
]

_MAIN_METRICS = 5  # more columns are not read


def ranked(results: Sequence[MethodResult]) -> list[MethodResult]:
    """Best first by the first metric; methods without a number last, otherwise as given."""

    def key(result: MethodResult) -> tuple[bool, float]:
        if not result.summary.metrics or np.isnan(result.summary.metrics[0].value):
            return True, 0.0
        first = result.summary.metrics[0]
        return False, -first.value if first.higher_is_better else first.value

    return sorted(results, key=key)


def main_table(report: BenchmarkReport) -> str:
    """Methods by their first metrics, each with its 95 % interval; best in bold and first."""
    results = ranked(report.results)
    names = _metric_names(results)[:_MAIN_METRICS]
    columns = [[metric_named(result.summary.metrics, name) for result in results] for name in names]
    bold = [best_rows(column) for column in columns]
    header = ["method", *names, "matches", "seconds", "failures", "licence"]
    rows = []
    for index, result in enumerate(results):
        cells = [
            value_cell(column[index], index in best, interval=True)
            for column, best in zip(columns, bold, strict=True)
        ]
        summary = result.summary
        failures = f"{summary.num_failures} of {summary.num_units}"
        rows.append(
            [
                method_cell(result.method),
                *cells,
                _median_matches(result),
                _median_seconds(result),
                failures,
                cell(result.method.licence),
            ]
        )
    percent = "Percent; " if any(is_share(name) for name in names) else ""
    return (
        markdown_table(header, rows)
        + f"\n{percent}in parentheses the 95 % bootstrap interval; best in bold. Matches and "
        "seconds are medians; a failure counts as an infinite error.\n"
    )


def further_table(report: BenchmarkReport) -> str:
    """The metrics that the main table has no room for; empty where there are none."""
    results = ranked(report.results)
    names = _metric_names(results)[_MAIN_METRICS:]
    if not names:
        return ""
    columns = [[metric_named(one.summary.metrics, name) for one in results] for name in names]
    bold = [best_rows(column) for column in columns]
    rows = [
        [
            method_cell(result.method),
            *(
                value_cell(column[index], index in best)
                for column, best in zip(columns, bold, strict=True)
            ),
        ]
        for index, result in enumerate(results)
    ]
    return markdown_table(["method", *names], rows)


def viewpoint_table(report: BenchmarkReport) -> str:
    """Methods by bins of viewpoint change, and in words where ours win and lose; may be empty."""
    results = ranked(report.results)
    labels = in_order(label for result in results for label in result.summary.by_viewpoint)
    if not labels:
        return ""
    columns = [[result.summary.by_viewpoint.get(label) for result in results] for label in labels]
    bold = [best_rows(column) for column in columns]
    rows = []
    for index, result in enumerate(results):
        cells = [
            value_cell(column[index], index in best)
            for column, best in zip(columns, bold, strict=True)
        ]
        rows.append([method_cell(result.method), *cells])
    header = [
        f"{label}{count_suffix(column)}" for label, column in zip(labels, columns, strict=True)
    ]
    return markdown_table(["method", *map(cell, header)], rows) + standing_lines(
        results, labels, columns
    )


def group_table(report: BenchmarkReport) -> str:
    """Groups (scenes, sources, categories) by methods; empty without groups."""
    results = ranked(report.results)
    groups = in_order(group for result in results for group in result.summary.by_group)
    if not groups:
        return ""
    rows, firsts = [], []
    for group in groups:
        entries = [result.summary.by_group.get(group, ()) for result in results]
        width = max(len(metrics) for metrics in entries)
        best = [
            best_rows([metrics[k] if k < len(metrics) else None for metrics in entries])
            for k in range(width)
        ]
        cells = [
            " / ".join(value_cell(metric, row in best[k]) for k, metric in enumerate(metrics))
            or "–"
            for row, metrics in enumerate(entries)
        ]
        first = [metrics[0] if metrics else None for metrics in entries]
        firsts.append(first)
        rows.append([cell(f"{group}{count_suffix(first)}"), *cells])
    header = ["group", *(method_cell(result.method) for result in results)]
    return markdown_table(header, rows) + standing_lines(results, groups, firsts)


def published_table(report: BenchmarkReport) -> str:
    """What others have published, below what this run measured; empty without such values."""
    if not report.published:
        return ""
    names = in_order(value.metric for value in report.published)
    rows = []
    for result in ranked(report.results):
        metrics = [metric_named(result.summary.metrics, name) for name in names]
        if any(metric is not None for metric in metrics):
            cells = [value_cell(metric, False) for metric in metrics]
            rows.append([method_cell(result.method), *cells, "this run"])
    values = {(one.method, one.source, one.metric): one.value for one in report.published}
    for method, source in in_order((one.method, one.source) for one in report.published):
        cells = [
            f"{values[method, source, name]:g}" if (method, source, name) in values else "–"
            for name in names
        ]
        rows.append([cell(method), *cells, cell(source)])
    return (
        markdown_table(["method", *names, "source"], rows)
        + "\nPublished values were measured by their authors. Estimator, threshold, resizing and "
        "pair list may differ from this run's protocol, so that small differences mean nothing.\n"
    )


def methods_table(report: BenchmarkReport) -> str:
    """Who answered: version, licence, settings; and who did not, with the reason."""
    lines = []
    if report.results:
        rows = [
            [method_cell(one.method), *map(cell, (one.method.version, one.method.settings))]
            for one in report.results
        ]
        lines.append(markdown_table(["method", "version", "settings"], rows, num_left=3))
    lines.extend(f"Skipped: {code_cell(name)}: {cell(why)}.\n" for name, why in report.skipped)
    return "\n".join(lines)


def _metric_names(results: Sequence[MethodResult]) -> list[str]:
    return in_order(metric.name for result in results for metric in result.summary.metrics)


def _median_matches(result: MethodResult) -> str:
    counts = [score.num_matches for score in result.scores]
    return f"{np.median(counts):,.0f}" if counts else "–"


def _median_seconds(result: MethodResult) -> str:
    seconds = [score.seconds for score in result.scores if score.seconds > 0]
    return f"{np.median(seconds):.2f}" if seconds else "–"
