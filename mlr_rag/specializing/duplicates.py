"""Near-duplicates: texts that share four fifths of their shingles, found by MinHash and checked one by one.

    short texts (fewer than 40 words)   their words, less stop words, in any order
    long texts (30 words or more)       their runs of three words

Texts of between 30 and 39 words are compared in both ways, so that no pair falls between. Case, width, punctuation and
white space count for nothing. In scripts that put no spaces between words each two neighboring characters are a word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias
from zlib import crc32

import numpy as np
import numpy.typing as npt

from mlr_rag import progress
from mlr_rag.errors import MissingExtraError
from mlr_rag.specializing.groups import Groups
from mlr_rag.specializing.queries.sentences import SPACELESS

JACCARD = 0.8  # shared shingles, of all that two texts have

_SHORT, _LONG = 40, 30  # words
# A pair with a Jaccard of 0.8 escapes all bands once in 20,000, one of 0.9 never; one of 0.3 meets in a band once in
# 17, and costs next to nothing, as its signatures tell.
_BANDS, _ROWS = 25, 5
_LIKELY = 0.65  # of a signature's values: four standard deviations below 0.8
_NEIGHBORS = 200  # with which a text is compared in one bucket: boilerplate makes large ones

_WORD = re.compile(rf"[{SPACELESS}]+|[^\W{SPACELESS}]+")
_SPACELESS = re.compile(f"[{SPACELESS}]")
Shingles: TypeAlias = npt.NDArray[np.uint32]  # hashes, sorted, each once


def near_duplicates(texts: Mapping[str, str]) -> dict[str, str]:
    """The group of each text, by the smallest id in it: near-duplicates, and near-duplicates of these, are in one.

    The same texts give the same groups in whatever order they come. Memory: 154 MB for 15,809 texts of 180 words.

    Raises:
        MissingExtraError: datasketch or bm25s is not installed.
    """
    stop_words = _stop_words()
    groups = Groups(texts)
    short: dict[str, Shingles] = {}
    long: dict[str, Shingles] = {}
    for text, id in sorted((text, id) for id, text in texts.items()):  # like texts side by side
        words = _words(text)
        if len(words) < _SHORT:
            short[id] = _hashes([word for word in words if word not in stop_words] or words)
        if len(words) >= _LONG:
            long[id] = _hashes([" ".join(words[place : place + 3]) for place in range(len(words) - 2)])
    _join(short, groups)
    _join(long, groups)
    return groups.names()


def _join(shingles: Mapping[str, Shingles], groups: Groups) -> None:
    """Join those whose shingles are nearly the same."""
    first: dict[bytes, str] = {}
    distinct: dict[str, Shingles] = {}
    for id, found in shingles.items():
        same = first.setdefault(found.tobytes(), id)
        if same == id:
            distinct[id] = found
        else:
            groups.join(same, id)
    names, sets = list(distinct), list(distinct.values())
    signatures = _signatures(sets)
    refused: set[tuple[int, int]] = set()
    for band in range(0, _BANDS * _ROWS, _ROWS):
        numbers: dict[str, int] = {}
        joined = np.array([numbers.setdefault(groups.of(name), len(numbers)) for name in names], np.int64)
        for low, high in _candidates(signatures, band, joined):
            if (low, high) in refused or groups.of(names[low]) == groups.of(names[high]):
                continue
            if _jaccard(sets[low], sets[high]) >= JACCARD:
                groups.join(names[low], names[high])
            else:
                refused.add((low, high))


def _signatures(sets: Sequence[Shingles]) -> npt.NDArray[np.uint32]:
    """`(n, bands * rows)`: two of them agree in about as many places as the sets' Jaccard says."""
    signatures = np.empty((len(sets), _BANDS * _ROWS), np.uint32)
    made = _datasketch().MinHash.generator((found.tolist() for found in sets), num_perm=_BANDS * _ROWS, hashfunc=int)
    bar = progress.start("Looking for near-duplicates", len(sets), None)
    try:
        for place, signature in enumerate(made):
            signatures[place] = signature.hashvalues
            bar.update(1)
    finally:
        bar.close()
    return signatures


def _candidates(
    signatures: npt.NDArray[np.uint32], band: int, joined: npt.NDArray[np.int64]
) -> Iterator[tuple[int, int]]:
    """The pairs that agree in all of a band and in enough of the rest, but for those that are joined."""
    _, buckets = np.unique(signatures[:, band : band + _ROWS], axis=0, return_inverse=True)
    order = np.argsort(buckets.ravel(), kind="stable")
    filled, joined = buckets.ravel()[order], joined[order]
    for distance in range(1, min(_NEIGHBORS, len(order) - 1) + 1):
        together = filled[:-distance] == filled[distance:]
        if not together.any():
            break
        together &= joined[:-distance] != joined[distance:]
        low, high = order[:-distance][together], order[distance:][together]
        likely = (signatures[low] == signatures[high]).mean(1) >= _LIKELY
        yield from zip(low[likely].tolist(), high[likely].tolist(), strict=True)


def _jaccard(one: Shingles, other: Shingles) -> float:
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)


def _words(text: str) -> list[str]:
    """A text without a letter or digit has its signs for words."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return [word for run in _WORD.findall(folded) for word in _cut(run)] or folded.split()


def _cut(run: str) -> list[str]:
    """Letters and digits that nothing divides."""
    if len(run) < 2 or not _SPACELESS.match(run):
        return [run]
    return [run[place : place + 2] for place in range(len(run) - 1)]


def _hashes(shingles: Sequence[str]) -> Shingles:
    return np.unique(np.array([crc32(shingle.encode()) for shingle in shingles], np.uint32))


def _datasketch() -> Any:
    try:
        import datasketch
    except ImportError as problem:
        raise _missing(problem) from problem
    return datasketch


def _stop_words() -> frozenset[str]:
    try:
        from bm25s.stopwords import STOPWORDS_EN
    except ImportError as problem:
        raise _missing(problem) from problem
    return frozenset(STOPWORDS_EN)


def _missing(problem: ImportError) -> MissingExtraError:
    return MissingExtraError(
        "near-duplicates need a package that is not installed",
        found=f"no {problem.name}",
        remedy="pip install 'mlr-rag[train]'",
    )
