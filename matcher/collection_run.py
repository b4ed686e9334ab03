"""Matching the pairs of a collection into a store, to be interrupted and gone on with at will."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matcher.encoding_cache import EncodingCache, MemoryLimits
from matcher.errors import InputError
from matcher.many_pairs import FailedPair
from matcher.match_store import MatchStore, distinct_pairs
from matcher.pipeline import Matcher

__all__ = ["RunSummary", "run_pairs"]


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a run did.

    Attributes:
        num_pairs: that were asked for, each once.
        num_resumed: of them, that the store held already.
        num_matched: that have matches, of all that were asked for.
        failed: those that could not be matched, with the reason.
        num_encodings: photographs that were encoded.
        seconds: wall-clock time.
    """

    num_pairs: int
    num_resumed: int
    num_matched: int
    failed: tuple[FailedPair, ...]
    num_encodings: int
    seconds: float

    @property
    def num_without_matches(self) -> int:
        """Pairs that were matched, and have nothing in common."""
        return self.num_pairs - self.num_matched - len(self.failed)


def run_pairs(
    matcher: Matcher,
    store: MatchStore,
    pairs: Sequence[tuple[str, str]],
    *,
    batch_size: int = 4,
    memory: MemoryLimits | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> RunSummary:
    """Match the pairs that a store lacks, and put each into it as soon as it is there.

    Pairs that failed in an earlier run are tried again. Whatever ends this, what it did stays.

    Args:
        matcher: whose weights and options the store was written with.
        store: open for writing.
        pairs: names of photographs that the store knows.
        batch_size: most pairs that go through the decoder together.
        memory: how much encodings may take.
        progress: called with how many pairs are done and how many there are.

    Raises:
        InputError: another matcher than the store's, a photograph that it does not know or that is
            paired with itself, no room on the disk.
    """
    if matcher.info.sha256 != store.info.sha256 or matcher.info.name != store.info.name:
        raise InputError("matcher", f"the model of the store, {store.model}", matcher.info.name)
    started = time.perf_counter()
    asked = distinct_pairs(pairs)
    _check_names(store, asked)
    missing = store.missing(asked)
    done = len(asked) - len(missing)
    if progress is not None:
        progress(done, len(asked))
    failed = []
    with EncodingCache(memory, matcher.device) as cache:
        for found in matcher.match_records(
            store.photographs,
            missing,
            options=store.options,
            batch_size=batch_size,
            memory=cache,
            keep_pointmaps=store.pointmaps != "none",
        ):
            if isinstance(found, FailedPair):
                store.add_failure(found)
                failed.append(found)
            else:
                store.add(found)
            done += 1
            if progress is not None:
                progress(done, len(asked))
        num_encodings = cache.num_encoded
    return RunSummary(
        num_pairs=len(asked),
        num_resumed=len(asked) - len(missing),
        num_matched=sum(store.num_matches(*names) > 0 for names in asked if names in store),
        failed=tuple(failed),
        num_encodings=num_encodings,
        seconds=time.perf_counter() - started,
    )


def _check_names(store: MatchStore, pairs: Sequence[tuple[str, str]]) -> None:
    """Complain before an hour of work, not after."""
    known = set(store.photographs.names)
    for names in pairs:
        if names[0] == names[1]:
            raise InputError("pairs", "two photographs each", f"{names[0]} twice")
        for name in names:
            if name not in known:
                raise InputError("pairs", f"photographs that {store.path} knows", name)
