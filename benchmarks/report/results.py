"""The result of a run: one JSON file that holds everything a table or a figure needs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.core.predictions import MethodInfo
from benchmarks.core.protocols import EstimatorOptions, Protocol, ResizeRule
from benchmarks.core.provenance import Provenance
from benchmarks.core.published import PublishedValue
from benchmarks.core.tasks import Metric, Summary, UnitScore
from benchmarks.tasks.localization_options import LocalizationOptions
from matcher.errors import DatasetError, InputError
from matcher.files import replaced

__all__ = ["BenchmarkReport", "MethodResult", "read_report", "write_report"]

_FORMAT = "widebase benchmark report 1"
_INFINITE = "infinite"


@dataclass(frozen=True, slots=True)
class MethodResult:
    """One method on one data set.

    Attributes:
        method: who answered.
        summary: the numbers of the tables.
        scores: of every unit, in the order of the data set; failures included.
    """

    method: MethodInfo
    summary: Summary
    scores: tuple[UnitScore, ...] = ()


@dataclass(frozen=True, slots=True)
class BenchmarkReport:
    """Every method of a run on one data set under one protocol.

    Attributes:
        dataset_name: as on the command line.
        title: as printed.
        protocol: how it was scored.
        results: the methods, in the order they were asked for.
        provenance: where and with what it ran.
        skipped: methods that were asked for and did not run, (name, why).
        notes: what a reader of the numbers must know.
        is_synthetic: rendered; said in every heading.
        published: values of others on the same set, to be read with their source.
    """

    dataset_name: str
    title: str
    protocol: Protocol
    results: tuple[MethodResult, ...]
    provenance: Provenance
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    is_synthetic: bool = False
    published: tuple[PublishedValue, ...] = ()

    def __post_init__(self) -> None:
        names = [result.method.name for result in self.results]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError("results", "each method once", f"{', '.join(twice)} twice")

    @property
    def display_title(self) -> str:
        """The title; a rendered set says so in it."""
        if self.is_synthetic and "synthetic" not in self.title.lower():
            return f"{self.title} (synthetic)"
        return self.title

    def to_json(self) -> str:
        """One JSON object; numbers that do not exist, and infinite ones, are ``null``.

        Which of the nulls of a metric or a unit are infinite is said beside them; in ``errors``
        every null is.
        """
        record = {
            "format": _FORMAT,
            "dataset_name": self.dataset_name,
            "title": self.title,
            "is_synthetic": self.is_synthetic,
            "protocol": self.protocol.to_dict(),
            "provenance": self.provenance.to_dict(),
            "notes": list(self.notes),
            "skipped": [list(entry) for entry in self.skipped],
            "published": [asdict(value) for value in self.published],
            "results": [_result_to_record(result) for result in self.results],
        }
        return json.dumps(_without_nan(record), indent=1, allow_nan=False, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> BenchmarkReport:
        """The inverse of ``to_json``.

        Raises:
            InputError: not a report of this version.
        """
        try:
            record = json.loads(text)
            if record["format"] != _FORMAT:
                raise InputError("report", f"format {_FORMAT!r}", f"{record['format']!r}")
            return cls(
                dataset_name=str(record["dataset_name"]),
                title=str(record["title"]),
                protocol=_protocol(record["protocol"]),
                results=tuple(_result(entry) for entry in record["results"]),
                provenance=Provenance.from_dict(record["provenance"]),
                skipped=tuple((str(name), str(why)) for name, why in record["skipped"]),
                notes=tuple(record["notes"]),
                is_synthetic=bool(record["is_synthetic"]),
                published=tuple(PublishedValue(**entry) for entry in record["published"]),
            )
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise InputError("report", "a benchmark report in JSON", reason) from None


def write_report(report: BenchmarkReport, path: Path) -> None:
    """Write the JSON file in one step.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as temporary:
            temporary.write_text(report.to_json() + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError("path", "a file that can be written", f"{path}: {error}") from None


def read_report(path: Path) -> BenchmarkReport:
    """Read a file of :func:`write_report`.

    Raises:
        DatasetError: the file cannot be read, or is no report.
    """
    try:
        return BenchmarkReport.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from None
    except (InputError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: {error}") from None


def _result_to_record(result: MethodResult) -> dict[str, Any]:
    summary = result.summary
    return {
        "method": asdict(result.method),
        "summary": {
            "metrics": [_metric_to_record(metric) for metric in summary.metrics],
            "by_group": {
                name: [_metric_to_record(metric) for metric in metrics]
                for name, metrics in summary.by_group.items()
            },
            "by_viewpoint": {
                label: _metric_to_record(metric) for label, metric in summary.by_viewpoint.items()
            },
            "num_units": summary.num_units,
            "num_failures": summary.num_failures,
        },
        "scores": [_score_to_record(score) for score in result.scores],
    }


def _metric_to_record(metric: Metric) -> dict[str, Any]:
    values = asdict(metric)
    return {**values, **_infinite_names(values)}


def _score_to_record(score: UnitScore) -> dict[str, Any]:
    return {
        "unit": score.unit,
        "group": score.group,
        "errors": list(score.errors),
        "values": {**score.values, **_infinite_names(score.values)},
        "num_matches": score.num_matches,
        "seconds": score.seconds,
        "failure": score.failure,
    }


def _infinite_names(values: Mapping[str, Any]) -> dict[str, list[str]]:
    names = [name for name, value in values.items() if value == math.inf]
    return {_INFINITE: names} if names else {}


def _without_nan(value: Any) -> Any:
    """The same plain values with null in place of numbers that JSON cannot write."""
    if isinstance(value, Mapping):
        return {str(key): _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return [_without_nan(entry) for entry in value]
    plain = value.item() if hasattr(value, "item") else value  # a NumPy scalar
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain


def _protocol(record: dict[str, Any]) -> Protocol:
    return Protocol(
        **{
            **record,
            "resize": ResizeRule(**record["resize"]),
            "estimator": _estimator(record["estimator"]),
            "auc_thresholds": tuple(record["auc_thresholds"]),
        }
    )


def _estimator(record: dict[str, Any]) -> EstimatorOptions:
    values = {**record, "thresholds": tuple(record["thresholds"])}
    # A localization protocol's options have fields of their own.
    kind = LocalizationOptions if "threshold_unit" in values else EstimatorOptions
    return kind(**values)


def _result(record: dict[str, Any]) -> MethodResult:
    summary = record["summary"]
    return MethodResult(
        MethodInfo(**record["method"]),
        Summary(
            tuple(_metric(entry) for entry in summary["metrics"]),
            {
                name: tuple(_metric(entry) for entry in entries)
                for name, entries in summary["by_group"].items()
            },
            {label: _metric(entry) for label, entry in summary["by_viewpoint"].items()},
            int(summary["num_units"]),
            int(summary["num_failures"]),
        ),
        tuple(_score(entry) for entry in record["scores"]),
    )


def _metric(record: dict[str, Any]) -> Metric:
    return Metric(**_with_numbers(record))


def _score(record: dict[str, Any]) -> UnitScore:
    errors = tuple(math.inf if error is None else float(error) for error in record["errors"])
    return UnitScore(**{**record, "errors": errors, "values": _with_numbers(record["values"])})


def _with_numbers(record: Mapping[str, Any]) -> dict[str, Any]:
    """Nulls become NaN, or infinite where that is said."""
    infinite = record.get(_INFINITE, ())
    return {
        name: (math.inf if name in infinite else math.nan) if value is None else value
        for name, value in record.items()
        if name != _INFINITE
    }
