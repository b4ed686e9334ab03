"""The sentences of a report: the protocol, the failures, the machine, wins and losses."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from benchmarks.core.protocols import EstimatorOptions, ResizeRule
from benchmarks.core.tasks import Metric
from benchmarks.report.markdown import cell, code_cell, in_order, method_cell
from benchmarks.report.numbers import best_rows, shown_value
from benchmarks.report.results import BenchmarkReport, MethodResult
from benchmarks.tasks.localization_options import LocalizationOptions

__all__ = ["failure_lines", "protocol_line", "provenance_lines", "standing_lines"]

_ESTIMATORS = {
    "poselib": "PoseLib LO-RANSAC",
    "poselib-pnp": "PoseLib LO-RANSAC over PnP",
    "opencv-ransac": "OpenCV RANSAC",
    "opencv-magsac": "OpenCV MAGSAC++",
}
_MAX_REASONS = 5


def protocol_line(report: BenchmarkReport) -> str:
    """Everything between matches and numbers, in a paragraph."""
    protocol, options = report.protocol, report.protocol.estimator
    thresholds = ", ".join(f"{value:g}" for value in options.thresholds)
    if len(options.thresholds) > 1:
        thresholds = f"the best of {thresholds}"
    parts = [
        f"{_ESTIMATORS.get(options.estimator, options.estimator)}, threshold {thresholds} "
        f"{_threshold_unit(options)}, confidence {options.confidence:g}, at most "
        f"{options.max_iterations:,} iterations, seed {options.seed}",
        f"photographs {_resize(protocol.resize)}",
    ]
    if options.repeats > 1 or options.max_matches:
        drawn = f"at most {options.max_matches:,}" if options.max_matches else "all"
        parts.append(f"{options.repeats} estimations from {drawn} matches, every error counted")
    parts.extend(_curve_forms(report))
    text = f"Protocol `{protocol.name}` (version {protocol.version}): " + "; ".join(parts) + "."
    if protocol.note:
        text += f" Note: {protocol.note}."
    if len(options.thresholds) > 1:
        text += (
            " **Optimistic**: the best threshold is chosen on the pairs it is scored on. "
            "Not for headline claims."
        )
    elif not protocol.is_headline:
        text += " For comparison with published values, not for headline claims."
    else:
        text += " The threshold is fixed: the protocol for headline claims."
    return text + "\n"


def failure_lines(report: BenchmarkReport) -> str:
    """How many units no method could answer, and each method's reasons, most frequent first."""
    lines = []
    failed = [{s.unit: s.failure for s in one.scores if s.failure} for one in report.results]
    shared = set.intersection(*map(set, failed)) if len(failed) > 1 else set()
    if shared:
        first = min(shared)
        lines.append(
            f"- {len(shared)} without an answer from any method, "
            f"for instance {cell(first)}: {cell(failed[0][first])}"
        )
    for result, reasons in zip(report.results, failed, strict=True):
        own = [why for unit, why in reasons.items() if unit not in shared]
        # "no pose from 12 matches" and "no pose from 13" are one reason.
        counted = Counter(re.sub(r"\d+", "N", why) if len(own) > 1 else why for why in own)
        if counted:
            listed = "; ".join(f"{cell(why)} ({n})" for why, n in counted.most_common(_MAX_REASONS))
            rest = len(counted) - _MAX_REASONS
            more = f"; and {rest} more reasons" if rest > 0 else ""
            lines.append(
                f"- {method_cell(result.method)}: {counted.total()} failed: {listed}{more}"
            )
    return "\n".join(["Failures:\n", *lines, ""]) if lines else ""


def provenance_lines(report: BenchmarkReport) -> str:
    """The command and the circumstances of the run."""
    one = report.provenance
    versions = ", ".join(f"{package} {version}" for package, version in one.versions)
    return (
        f"```bash\n{one.command}\n```\n\n"
        f"{one.started}, commit {one.commit}, {one.num_pairs} pairs "
        f"(list sha256 {one.pair_list_sha256[:12]}), {one.processor}, device {one.device}, "
        f"{one.threads} threads, Python {one.python}, {versions}.\n"
    )


def standing_lines(
    results: Sequence[MethodResult],
    labels: Sequence[str],
    columns: Sequence[Sequence[Metric | None]],
) -> str:
    """For each of our methods: where it is best, and where it is beaten, by whom and how far."""
    lines = []
    for row, result in enumerate(results):
        if not result.method.is_ours or len(results) < 2:
            continue
        wins, losses = [], []
        for label, column in zip(labels, columns, strict=True):
            best, own = best_rows(column), column[row]
            if row in best:
                wins.append(label)
            elif best and own is not None:
                leader = min(best)
                losses.append(
                    f"{label} ({code_cell(results[leader].method.name)} "
                    f"{shown_value(column[leader] or own)} against {shown_value(own)})"
                )
        won = f"best in {', '.join(wins)}" if wins else "best nowhere"
        lost = f"behind in {', '.join(losses)}" if losses else "behind nowhere"
        lines.append(f"- {code_cell(result.method.name)}: {cell(won)}; {cell(lost)}.")
    return "\n" + "\n".join(lines) + "\n" if lines else ""


def _curve_forms(report: BenchmarkReport) -> list[str]:
    names = in_order(m.name for one in report.results for m in one.summary.metrics)
    forms = []
    if any(re.search(r"\bAUC", name) for name in names):
        forms.append("AUC: trapezoids under the recall curve (SuperGlue and LoFTR form)")
    if any(re.search(r"\bmAA", name) for name in names):
        forms.append("mAA: mean of the recall at steps of the threshold (CO3D and IMC form)")
    return forms


def _threshold_unit(options: EstimatorOptions) -> str:
    if isinstance(options, LocalizationOptions):
        if options.threshold_unit == "diagonal":
            return "of the query's diagonal"
        return f"px of the {options.threshold_unit} query"
    return "px of the resized photographs"


def _resize(rule: ResizeRule) -> str:
    if rule.kind == "none":
        return "at their stored size"
    if rule.kind == "exact":
        return f"resized to {rule.side} x {rule.height} px"
    shrink = ", never enlarged" if rule.only_shrink else ""
    return f"resized to a {rule.kind} side of {rule.side} px{shrink}"
