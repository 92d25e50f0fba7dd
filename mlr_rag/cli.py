"""`mlr-rag`: index a folder, search it, move it to another model or store, evaluate; thin, over the public API.

Whatever needs torch or a store is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from mlr_rag import __version__
from mlr_rag.documents import beginning
from mlr_rag.errors import InvalidFilterError, InvalidInputError, MlrRagError

if TYPE_CHECKING:
    from mlr_rag.comparison import Comparison
    from mlr_rag.documents import Document, Hit
    from mlr_rag.ingest import Report
    from mlr_rag.reading import Notes

_SHOWN = 200  # characters of a hit


class _Group(TyperGroup):
    """Turns our errors, and Ctrl-C, into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with _messages():
                return super().invoke(ctx)
        except MlrRagError as problem:
            typer.echo(f"error: {problem}", err=True)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            typer.echo("stopped; run the same command again to go on", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Group, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False
)

_Place = Annotated[str, typer.Argument(metavar="KB", help="The knowledge base: a folder, or another store's URL.")]
_ModelName = Annotated[
    str | None,
    typer.Option("--model", "-m", help="Folder or hub name; by default the knowledge base's own, or all-MiniLM-L6-v2."),
]
_NOT_BETTER = 3  # the exit code of a specialization that keeps the base
_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """The entry point."""
    with contextlib.suppress(AttributeError):  # not every stream that stands in for stdout can be told
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mlr-rag {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """The retriever component of a RAG application: index a folder, search it, evaluate a model."""


@app.command()
def index(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files and folders.")],
    into: Annotated[str, typer.Option("--into", metavar="KB", help="The knowledge base; made where there is none.")],
    model: _ModelName = None,
) -> None:
    """Index files and folders; run again, it brings the knowledge base up to date with them.

    Reads text, Markdown, JSON Lines and CSV, and with the `ingest` extra HTML, PDF, docx, pptx and xlsx.
    """
    from mlr_rag.reading import Notes, read, root_of
    from mlr_rag.stores import is_in_memory, split_url

    for path in paths:
        if not path.exists():
            raise InvalidInputError(f"nothing to read at {path}", expected="a file or a folder")
    if is_in_memory(into):
        raise InvalidInputError("memory would be gone with this command", found=into, expected="a place that lasts")
    scheme, location = split_url(into)
    own = location if scheme == "edge" else str(Path(location).parent)  # not to be read as documents
    with _open(into, model) as kb:
        for path in paths:
            notes = Notes()
            documents = read(path, kb.model, exclude=own, notes=notes)
            report = kb.sync(documents, within={"root": root_of(path)}, keep=_damaged_in(notes))
            typer.echo(f"{path}: {_told(report, notes)}")
        typer.echo(f"{into}: {_count(kb.count(), 'passage')}, {kb.info().model}")
        if getattr(kb.store, "indexing", False):  # closing would end it
            typer.echo("building the index, for fast search ...")
            kb.store.optimize()


@app.command()
def search(
    kb: _Place,
    question: Annotated[str, typer.Argument(help="A question, or any text.")],
    k: Annotated[int, typer.Option("-k", help="How many hits, at the most.")] = 4,
    filter: Annotated[
        str | None, typer.Option("--filter", metavar="JSON", help="""Such as '{"path": "notes/a.md"}'.""")
    ] = None,
    min_score: Annotated[float | None, typer.Option("--min-score", help="Leave out hits with a lower score.")] = None,
    diversity: Annotated[
        float | None, typer.Option("--diversity", help="From 0 to 1: how much hits should differ from each other.")
    ] = None,
    model: _ModelName = None,
    as_json: _AsJson = False,
) -> None:
    """Print the passages that are nearest to a question, best first, with their scores."""
    from mlr_rag.stores import open_store

    condition = _parsed(filter)
    # First without a model, which would make one where there is none; the second handle shares what the first opened.
    with contextlib.closing(open_store(kb)), _open(kb, model) as opened:
        hits = opened.search(question, k, filter=condition, min_score=min_score, diversity=diversity)
    if as_json:
        typer.echo(json.dumps([_as_dict(rank, hit) for rank, hit in enumerate(hits, 1)], indent=2))
        return
    for rank, hit in enumerate(hits, 1):
        typer.echo(f"{rank}  {hit.score:.3f}  {_origin(hit)}\n   {beginning(hit.document.text, _SHOWN)}")
    if not hits:
        typer.echo("nothing found", err=True)


@app.command()
def info(kb: _Place, as_json: _AsJson = False) -> None:
    """Print what a knowledge base is and which model made it; the model is not loaded."""
    from mlr_rag.passport import read_passport
    from mlr_rag.stores import open_store

    with contextlib.closing(open_store(kb)) as store:
        description, count = store.info, store.count()
        kept = [generation for generation in store.generations() if generation != store.generation]
    if description is None:
        raise InvalidInputError(f"{kb} has no passport", found=f"{count:,} vectors", expected="a knowledge base")
    passport = read_passport(description, store.url)
    facts = {
        "url": store.url,
        "documents": count,
        "model": passport.model,
        "fingerprint": passport.digest,
        "recipe": passport.recipe,
        "dimension": passport.dimension,
        "vectors_per_document": passport.vectors_per_document,
        "generation": store.generation,
        "kept_generations": kept,
    }
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    facts["kept_generations"] = ", ".join(map(str, kept)) or "none"
    facts["recipe"] = ", ".join(f"{name}={value}" for name, value in passport.recipe.items())
    for name, value in facts.items():
        typer.echo(f"{name.replace('_', ' '):21} {value}")


@app.command()
def reindex(
    kb: _Place,
    model: Annotated[str, typer.Option("--model", "-m", help="The new model: a folder or hub name.")],
    queries: Annotated[
        Path | None,
        typer.Option(
            "--compare",
            metavar="FILE",
            help="Ask both models these first: a query a line, or JSON Lines with query and relevant (ids).",
        ),
    ] = None,
    switch: Annotated[
        bool, typer.Option("--switch/--no-switch", help="Whether to use the new vectors when they are complete.")
    ] = True,
) -> None:
    """Move a knowledge base to another model, beside the old vectors; run again, it goes on where it was stopped."""
    from mlr_rag.comparison import read_queries
    from mlr_rag.encoders import open_encoder
    from mlr_rag.migration import reindex as migrate
    from mlr_rag.stores import open_store

    with contextlib.closing(open_store(kb)) as store:
        if queries is None:  # the old model is not needed, and need not be there any more
            _quiet()
            moved = migrate(store, open_encoder(model), switch=switch)
        else:
            with _open(kb, None) as opened:
                moved = opened.reindex(model, compare=read_queries(queries), switch=switch)
    typer.echo(f"{kb}: {_count(moved.documents, 'passage')} with {moved.model}, {moved.encoded:,} encoded now")
    if moved.comparison is not None:
        _tell(moved.comparison)
    if moved.switched:
        typer.echo(f"the old vectors are kept: mlr-rag rollback {kb} goes back, mlr-rag prune {kb} deletes them")
    elif not switch:
        typer.echo(f"not switched: mlr-rag reindex {kb} --model {model} does so")


@app.command()
def rollback(kb: _Place, model: _ModelName = None) -> None:
    """Go back to the model that a knowledge base had before its last reindex."""
    from mlr_rag.migration import rollback as migrate_back
    from mlr_rag.stores import open_store

    _quiet()
    with contextlib.closing(open_store(kb)) as store:
        moved = migrate_back(store, model)
    typer.echo(f"{kb}: {_count(moved.documents, 'passage')} with {moved.model} again, {moved.encoded:,} encoded now")


@app.command()
def prune(kb: _Place) -> None:
    """Delete the vectors that a reindex has left behind."""
    from mlr_rag.migration import prune as delete_old
    from mlr_rag.stores import open_store

    with contextlib.closing(open_store(kb)) as store:
        typer.echo(f"{kb}: {_count(delete_old(store), 'old generation')} deleted")


@app.command()
def copy(
    kb: _Place, target: Annotated[str, typer.Argument(metavar="URL", help="Where to: a new place in any store.")]
) -> None:
    """Copy a knowledge base to another store, vectors and all, and compare every record."""
    from mlr_rag.copying import copy as copy_store
    from mlr_rag.stores import open_store

    with contextlib.closing(open_store(kb)) as store:
        copied = copy_store(store, target)
    typer.echo(f"{target}: {_count(copied.documents, 'passage')}, {copied.written:,} written now, all compared")


@app.command("eval")
def evaluate(
    collection: Annotated[Path, typer.Argument(help="A folder or zip archive in the BEIR layout.")],
    model: _ModelName = None,
    store: Annotated[
        str, typer.Option("--store", help="Where to index it: memory:, or a folder of its own.")
    ] = "memory:",
    split: Annotated[str, typer.Option("--split", help="Which judgments: test, dev, train.")] = "test",
    as_json: _AsJson = False,
) -> None:
    """Print nDCG@10, recall@100 and MRR@10 of a model on a judged collection."""
    from mlr_rag.evaluation.collection import Collection
    from mlr_rag.evaluation.metrics import evaluate as measure

    judged = Collection.load(collection, split)
    with _open(store, model) as kb:
        found, name = measure(kb, judged), kb.info().model
    facts = {
        "collection": judged.name,
        "split": split,
        "model": name,
        "store": store,
        "documents": found.documents,
        "blank_documents": found.blank,
        "queries": found.queries,
        "judgments": found.judgments,
        "seconds": round(found.seconds, 3),
    }
    if as_json:
        typer.echo(json.dumps(facts | found.metrics, indent=2))
        return
    typer.echo(
        f"{judged.name} {split}: {found.documents:,} documents, {found.queries:,} queries, "
        f"{found.judgments:,} judgments; {name}; {found.seconds:.0f} s"
    )
    for measure_name, value in found.metrics.items():
        typer.echo(f"{measure_name:12} {value:.4f}")


@app.command()
def layers(
    collection: Annotated[Path, typer.Argument(help="A folder or zip archive in the BEIR layout.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Folder or hub name; by default all-MiniLM-L6-v2.")
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Which judgments; by default the first there is of dev, train, test.")
    ] = None,
    similarity: Annotated[
        str, typer.Option("--similarity", help="cosine, or dot: before the model normalizes its vectors.")
    ] = "cosine",
    queries: Annotated[int, typer.Option("--queries", help="At most so many, drawn at random.")] = 1000,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw it, too: .png or .svg.")] = None,
    as_json: _AsJson = False,
) -> None:
    """Print what each layer of a model, and each pair of layers, is worth on a judged collection, before training."""
    from mlr_rag.evaluation.layer_plot import check_plot
    from mlr_rag.evaluation.layer_plot import plot as draw
    from mlr_rag.evaluation.layer_table import table
    from mlr_rag.evaluation.layers import load_split, measure_layers
    from mlr_rag.model.names import DEFAULT_MODEL

    if plot is not None:
        check_plot(plot)  # before the work
    _quiet()
    report = measure_layers(model or DEFAULT_MODEL, load_split(collection, split), similarity, queries)  # type: ignore[arg-type]
    typer.echo(json.dumps(report.as_dict(), indent=2) if as_json else table(report))
    if plot is not None:
        draw(report, plot)


@app.command()
def specialize(
    corpus: Annotated[
        Path, typer.Argument(help="A folder of files, a BEIR folder or zip, or JSON Lines with a text in each.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder for the model and its report.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Folder or hub name; by default all-MiniLM-L6-v2.")
    ] = None,
    queries: Annotated[
        str | None,
        typer.Option(
            "--queries",
            metavar="FILE",
            help="Judged queries: a table, a click log or a BEIR collection; 'generate' makes new ones in their place.",
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option("--teacher", help="A cross-encoder or embedding model to learn from: folder or hub name."),
    ] = None,
    llm: Annotated[
        str | None, typer.Option("--llm", help="What writes queries: a local folder, or an endpoint as URL#model.")
    ] = None,
    budget: Annotated[
        str, typer.Option("--budget", help="Wall-clock time, such as 20min or 1h; 'none' for no limit.")
    ] = "20min",
    objective: Annotated[
        str | None,
        typer.Option(
            "--objective",
            help="contrastive, distillation, both or queries, which changes no stored vector; by default the best.",
        ),
    ] = None,
    teacher_temperature: Annotated[
        float | None, typer.Option(help="How soft the teacher's scores are made; by default by their spread.")
    ] = None,
    probe: Annotated[
        Path | None, typer.Option("--probe", help="A BEIR collection on which the model must not fall.")
    ] = None,
    work: Annotated[
        Path | None, typer.Option("--work", help="Where stages are kept; by default .mlr-rag beside the output.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The number that every random choice follows.")] = 0,
    as_json: _AsJson = False,
) -> None:
    """Train a model on your documents, and keep it only if held-out queries prove it better; exit code 3 if not.

    Run again, it goes on where it was stopped.
    """
    from mlr_rag.model.names import DEFAULT_MODEL
    from mlr_rag.specializing.workflow import specialize as run

    _quiet()
    with _telling("mlr_rag.specializing"):
        result = run(
            model or DEFAULT_MODEL, corpus, queries, teacher=teacher, llm=llm, output=output,
            budget=None if budget == "none" else budget, objective=objective, teacher_temperature=teacher_temperature,
            probe=probe, work=work, seed=seed,
        )  # fmt: skip
    typer.echo(result.report.model_dump_json(indent=2) if as_json else str(result))
    if not result.accepted:
        raise typer.Exit(_NOT_BETTER)


@app.command()
def demo(
    into: Annotated[str, typer.Option("--into", help="Where to make the knowledge base.")] = "./mlr-rag-demo",
) -> None:
    """Index the Python standard library's own documentation, ask it questions, and show what cannot go wrong."""
    from mlr_rag.demo import run

    _quiet()
    run(into, typer.echo)


@contextlib.contextmanager
def _telling(logger: str) -> Any:
    """Show what a part of the library does, as it does it, on stderr."""
    handler, part = logging.StreamHandler(), logging.getLogger(logger)
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    handler.addFilter(lambda record: record.levelno < logging.WARNING)
    level = part.level
    part.setLevel(logging.INFO)
    part.addHandler(handler)
    try:
        yield
    finally:
        part.removeHandler(handler)
        part.setLevel(level)


def _damaged_in(notes: Notes) -> Callable[[Document], bool]:
    return lambda document: notes.is_damaged(document.metadata.get("path"))


def _open(place: str, model: str | None) -> Any:
    from mlr_rag.retriever import Retriever

    _quiet()
    return Retriever.open(place, model)


def _quiet() -> None:
    """No progress bars for reading a model's weights."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def _messages() -> Any:
    """Show the library's warnings on stderr, plainly, while a command runs."""
    handler, logger = logging.StreamHandler(), logging.getLogger("mlr_rag")
    handler.setFormatter(logging.Formatter("warning: %(message)s"))
    handler.setLevel(logging.WARNING)
    logger.addHandler(handler)
    logging.getLogger("pdfminer").setLevel(logging.ERROR)  # it warns of every font that it does not know
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _parsed(filter: str | None) -> Any:
    try:
        return None if filter is None else json.loads(filter)
    except ValueError as problem:
        raise InvalidFilterError(
            f"--filter is not JSON ({problem})", found=filter, expected="""such as '{"path": "a.md"}'"""
        ) from None


def _told(report: Report, notes: Notes) -> str:
    lines = [
        f"{_count(notes.files, 'file')} read; added {report.added:,}, updated {report.updated:,}, "
        f"skipped {report.skipped:,}, deleted {report.deleted:,} passages in {report.seconds:.1f} s"
    ]
    if report.cut:
        lines.append(f"{_count(report.cut, 'passage')} longer than the model reads")
    for reason, names in sorted(notes.skipped.items()):
        lines.append(f"{_count(len(names), 'file')} left out, {reason}: {_some(names)}")
    if notes.repaired:
        lines.append(
            f"{_count(len(notes.repaired), 'file')} with bytes that are not UTF-8, replaced: {_some(notes.repaired)}"
        )
    return "\n  ".join(lines)


def _tell(comparison: Comparison) -> None:
    typer.echo(
        f"{comparison.queries:,} queries: {comparison.overlap:.0%} of the top 10 "
        f"in common, the same best passage for {comparison.same_first:.0%}"
    )
    for name, value in comparison.before.items():
        typer.echo(f"{name:12} {value:.4f} before, {comparison.after[name]:.4f} after")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _origin(hit: Hit) -> str:
    metadata = hit.document.metadata
    path, title = metadata.get("path"), metadata.get("title")
    return " - ".join(str(part) for part in (path or hit.document.id, title) if part)


def _as_dict(rank: int, hit: Hit) -> dict[str, Any]:
    document = hit.document
    return {
        "rank": rank,
        "score": hit.score,
        "id": document.id,
        "text": document.text,
        "metadata": document.metadata,
    }
