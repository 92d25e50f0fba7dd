"""Migration of a collection to another model: side by side, resumable, switched at once, and back.

    generation 1, current      searched and written to throughout
    generation 2               filled from 1 until nothing is missing, by `reindex`, however often it is interrupted
    the switch                 writers wait for the last of it; 2 becomes current, and remembers that 1 came before
    rollback                   the same in the other direction; 1 has most of it still
    prune                      deletes all generations but the current one

Nothing is recorded of how far a migration got: a generation whose passport admits the model is filled up, and what it
holds unchanged is skipped before encoding. So a kill at any instant costs a batch at the most.

Writers in other processes cannot be made to wait. Each asks after its write whether its generation is still the current
one, and fails if it is not; and after the switch the old generation is read once more, for what came just before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from mlr_rag.admission import COLLECTION, Pair, collection_id
from mlr_rag.comparison import Comparison
from mlr_rag.documents import Document
from mlr_rag.encoders import Encoder, name_of, open_encoder, vectors_per_document
from mlr_rag.errors import StoreError, StoreLockedError, StoreNotFoundError
from mlr_rag.gate import gate_of
from mlr_rag.ingest import Ingestion
from mlr_rag.passport import Passport, read_passport
from mlr_rag.stores import VectorStore, check_current

Adopt: TypeAlias = Callable[[Pair], None]
Contents: TypeAlias = Mapping[int, int]  # hash of each id → hash of its content hash

_FEW = 256  # changes in a pass: when there are no more, the next pass may make the writers wait
_PASSES = 10  # after so many it makes them wait, however much they write
_PREVIOUS = "previous"  # in a generation's description: which one was current before it
_HIGHEST = "highest"  # the same: the highest generation that was pruned; its number is not used again for another model
_SETTLING = "settling"  # the same, from the switch until the last look at the old generation


@dataclass(frozen=True)
class Migration:
    """What `reindex` or `rollback` did.

    Attributes:
        model: The name of the model of the generation that was filled.
        generation: That generation.
        switched: Whether it was made the current one.
        documents: How many it holds.
        encoded: How many were encoded for it in this call; the others were there.
        deleted: How many were deleted from it, as they had vanished from the collection.
        comparison: How both models answer the queries that were given to compare them; None without, or where there
            was nothing to move.
        seconds: Wall-clock time.
    """

    model: str
    generation: int
    switched: bool
    documents: int
    encoded: int
    deleted: int
    comparison: Comparison | None
    seconds: float


def reindex(
    store: VectorStore,
    encoder: Encoder,
    *,
    compare: Callable[[Pair], Comparison] | None = None,
    switch: bool = True,
    adopt: Adopt | None = None,
    show_progress: bool | None = None,
) -> Migration:
    """Move a collection to another model; the old one is not needed. See `Retriever.reindex`.

    Args:
        store: The current generation.
        encoder: The new model.
        compare: Called with the new pair when it is filled.
        switch: False leaves it at that; a later call then has little left to do.
        adopt: Given the new pair at the moment of the switch, to use and to close; without it, it is closed.
        show_progress: As for `Retriever.add`.
    """
    with _alone(store):
        passport = read_passport(store.info or {}, store.url)
        verdict = passport.compare(encoder)
        if verdict.queries_only and verdict.accepted:
            return _change_queries(store, encoder, compare, switch, adopt, show_progress)
        if verdict.accepted:
            if verdict.same and passport.model != name_of(encoder):  # the same model has moved
                renamed = passport.model_copy(update={"model": name_of(encoder)})
                store.write_info({**(store.info or {}), "passport": renamed.model_dump()})
            return _finish(Pair(encoder, store, passport.tolerance), show_progress)
        side = _side(store, encoder)
        move: _Move | None = None
        try:
            target = Pair(encoder, side, passport.tolerance, _with_queries_of(encoder, side))
            move = _Move(store, target, show_progress)
            move.fill()
            comparison = compare(target) if compare else None
            if switch:
                same = {COLLECTION: collection_id(store), _PREVIOUS: store.generation}
                side.write_info({**(side.info or {}), **same, "passport": target.passport.model_dump()})
                move.switch(adopt)
            return move.report(switched=switch, comparison=comparison)
        finally:
            if move is None or not move.adopted:
                side.close()


def rollback(
    store: VectorStore, model: Any = None, *, adopt: Adopt | None = None, show_progress: bool | None = None
) -> Migration:
    """Make the generation current that was so before the last `reindex`. See `Retriever.rollback`.

    Args:
        store: The current generation.
        model: The model of the previous one; by default the one in its passport.
        adopt: As for `reindex`.
        show_progress: As for `Retriever.add`.
    """
    with _alone(store):
        _check_settled(store)
        previous = (store.info or {}).get(_PREVIOUS)
        if previous not in store.generations():
            raise StoreNotFoundError(
                f"{store.url} has nothing to roll back to",
                found="no reindex() has encoded its documents yet"
                if previous is None
                else f"generation {previous} was pruned",
                expected="the generation before the last reindex()",
                remedy="reindex() to the model that you want; where only the query side differs, that encodes nothing.",
            )
        side = store.beside(previous)
        move: _Move | None = None
        try:
            passport = read_passport(side.info or {}, side.url)
            encoder = None if model is None else open_encoder(model)
            move = _Move(store, Pair(encoder, side, passport.tolerance), show_progress)
            move.fill()
            move.switch(adopt)
            return move.report(switched=True)
        finally:
            if move is None or not move.adopted:
                side.close()


def prune(store: VectorStore) -> int:
    """Delete every generation but the current one; returns how many there were. See `Retriever.prune`."""
    with _alone(store):
        _check_settled(store)
        generations, info = store.generations(), store.info or {}
        store.write_info({**info, _HIGHEST: max(*generations, info.get(_HIGHEST, 1))})
        others = [generation for generation in generations if generation != store.generation]
        for generation in others:
            store.beside(generation).drop()
        return len(others)


class _Move:
    """The documents of one generation, brought to another."""

    def __init__(self, source: VectorStore, target: Pair, show_progress: bool | None) -> None:
        self.adopted = False
        self._source, self._target, self._show = source, target, show_progress
        self._encoded = self._deleted = 0
        self._started = time.perf_counter()

    def fill(self) -> None:
        """Bring the target in line with the source, in passes, while that may be written to."""
        for _ in range(_PASSES):
            before = self._encoded + self._deleted
            self._copy()
            if self._encoded + self._deleted - before <= _FEW:
                return

    def switch(self, adopt: Adopt | None) -> None:
        """Make the writers wait, copy what is missing, and make the target the current generation."""
        store = self._target.store
        with gate_of(store).exclusive():
            copied = self._copy()
            check_current(self._source)
            store.write_info({**(store.info or {}), _SETTLING: self._source.generation})
            store.switch(store.generation)
            if adopt is not None:
                self.adopted = True
                adopt(self._target)
        self.settle(copied)

    def settle(self, copied: Contents | None) -> None:
        """Look once more for what other processes wrote to the source just before the switch.

        Args:
            copied: What the source held in the last pass; None if that is not known any more: then documents that the
                target lacks are brought over, and none is deleted.
        """
        store = self._target.store

        def late() -> Iterator[Document]:
            for batch in self._source.scan():
                documents = [record.document for record in batch]
                known = store.hashes([document.id for document in documents]) if copied is None else {}
                for document in documents:
                    content = hash(document.content_hash)
                    if document.id not in known if copied is None else copied.get(hash(document.id)) != content:
                        yield document

        self._encode(late())
        if copied is not None:
            self._delete_vanished(lambda suspect: hash(suspect) in copied)
        store.write_info({name: value for name, value in (store.info or {}).items() if name != _SETTLING})

    def report(self, switched: bool, comparison: Comparison | None = None) -> Migration:
        """What was done."""
        store = self._target.store
        return Migration(
            model=self._target.passport.model,
            generation=store.generation,
            switched=switched,
            documents=store.count(),
            encoded=self._encoded,
            deleted=self._deleted,
            comparison=comparison,
            seconds=time.perf_counter() - self._started,
        )

    def _copy(self) -> Contents:
        """One pass over the source; returns what it held."""
        copied: dict[int, int] = {}

        def noted() -> Iterator[Document]:
            for document in _documents(self._source):
                copied[hash(document.id)] = hash(document.content_hash)
                yield document

        self._encode(noted())
        check_current(self._source)  # else another process has switched, and writes where this would delete
        self._delete_vanished(lambda suspect: hash(suspect) not in copied)
        return copied

    def _encode(self, documents: Iterable[Document]) -> None:
        task = f"Encoding with {name_of(self._target.encoder)}"
        run = Ingestion(lambda: self._target, None, self._show, task)
        run.run(documents)
        self._encoded += run.added + run.updated

    def _delete_vanished(self, suspected: Callable[[str], bool]) -> None:
        """Delete from the target those of the suspected ids that the source does not hold."""
        store = self._target.store
        suspects = [document.id for document in _documents(store) if suspected(document.id)]
        here = self._source.hashes(suspects)
        self._deleted += store.delete(ids=[id for id in suspects if id not in here])


@contextmanager
def _alone(store: VectorStore) -> Iterator[None]:
    """Held while a migration of the collection runs: one at a time in this process, and from the current generation."""
    gate = gate_of(store)
    if not gate.migrating.acquire(blocking=False):
        raise StoreLockedError(
            f"{store.url} is being migrated by another call",
            expected="one migration at a time",
            remedy="Wait until it is done.",
        )
    try:
        check_current(store)
        yield
    finally:
        gate.migrating.release()


def _check_settled(store: VectorStore) -> None:
    """Refuse what would lose documents that came just before a switch that was cut off."""
    if (store.info or {}).get(_SETTLING) in store.generations():
        raise StoreError(
            f"the last reindex of {store.url} was cut off just after its switch",
            found="documents that may have come to the old vectors only",
            expected="a finished reindex",
            remedy="Run the same reindex again first; it takes a moment.",
        )


def _side(store: VectorStore, encoder: Encoder) -> VectorStore:
    """A generation to fill: one whose passport admits the model, or a new one."""
    generations = store.generations()
    for generation in generations:
        if generation == store.generation:
            continue
        side, wanted = store.beside(generation), False
        try:
            wanted = side.info is not None and read_passport(side.info, side.url).compare(encoder).accepted
        finally:
            if not wanted:
                side.close()
        if wanted:
            return side
    number = max(*generations, (store.info or {}).get(_HIGHEST, 1)) + 1
    return store.beside(number, encoder.dimension, vectors_per_document(encoder))


def _change_queries(
    store: VectorStore,
    encoder: Encoder,
    compare: Callable[[Pair], Comparison] | None,
    switch: bool,
    adopt: Adopt | None,
    show_progress: bool | None,
) -> Migration:
    """Where documents' vectors are the new model's already: only the passport changes, and the way queries go."""
    passport = read_passport(store.info or {}, store.url).with_queries_of(encoder)
    pair = Pair(encoder, store, passport.tolerance, passport)
    comparison = compare(pair) if compare else None
    if switch:
        with gate_of(store).exclusive():
            store.write_info({**(store.info or {}), "passport": passport.model_dump()})
            if adopt is not None:
                adopt(pair)
    return replace(_finish(pair, show_progress), switched=switch, comparison=comparison)


def _with_queries_of(encoder: Encoder, side: VectorStore) -> Passport | None:
    """The passport that an older generation gets from a model which differs from its own in the query side alone."""
    if side.info is None:
        return None
    passport = read_passport(side.info, side.url)
    return passport.with_queries_of(encoder) if passport.compare(encoder).queries_only else None


def _finish(pair: Pair, show_progress: bool | None) -> Migration:
    """What is left of a migration to the current model: the last look at the old generation, if that was cut off."""
    left = (pair.store.info or {}).get(_SETTLING)
    if left not in pair.store.generations():
        return _Move(pair.store, pair, show_progress).report(switched=False)
    with closing(pair.store.beside(left)) as source:
        move = _Move(source, pair, show_progress)
        move.settle(None)
        return move.report(switched=True)


def _documents(store: VectorStore) -> Iterator[Document]:
    for batch in store.scan():
        for record in batch:
            yield record.document
