"""The layer report against a slow transcription of what it says it measures."""

from __future__ import annotations

import json
import random
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize

from mlr_rag import InvalidInputError, MLRModel, Retriever
from mlr_rag.errors import UnsupportedModelError
from mlr_rag.evaluation import layer_pass
from mlr_rag.evaluation.collection import Collection
from mlr_rag.evaluation.layer_pass import LayerPass
from mlr_rag.evaluation.layer_scores import DEPTH, System
from mlr_rag.evaluation.layers import load_split, measure_layers
from mlr_rag.evaluation.metrics import evaluate, query_metrics
from tests.tiny import WORDS, build

ARCHITECTURES = ("bert", "modernbert", "t5", "qwen")


def make_collection(folder: Path, documents: int = 60, queries: int = 12, split: str = "dev", seed: int = 0) -> Path:
    """Random texts of random lengths; each query is judged against three documents, one of them not relevant."""
    draw = random.Random(seed)
    corpus = {f"d{i}": " ".join(draw.choices(WORDS, k=draw.randint(2, 30))) for i in range(documents)}
    asked = {f"q{i}": " ".join(draw.choices(WORDS, k=4)) for i in range(queries)}
    rows = [
        f"{query}\t{document}\t{grade}"
        for query in asked
        for document, grade in zip(draw.sample(sorted(corpus), 3), (2, 1, 0), strict=True)
    ]
    write(folder, corpus, asked, {split: rows})
    return folder


def write(folder: Path, corpus: dict[str, str], queries: dict[str, str], qrels: dict[str, list[str]]) -> None:
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for name, texts in (("corpus", corpus), ("queries", queries)):
        lines = (json.dumps({"_id": id, "text": text}) for id, text in texts.items())
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    for split, rows in qrels.items():
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]))


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    return Collection.load(make_collection(tmp_path_factory.mktemp("layers") / "random"), "dev")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SentenceTransformer]:
    """A model of each architecture, and one whose vectors go through a layer that is not linear."""
    home = tmp_path_factory.mktemp("bases")
    found = {kind: SentenceTransformer(str(build(kind, home / kind)), device="cpu") for kind in ARCHITECTURES}
    torch.manual_seed(0)
    dense = Dense(32, 16, activation_function=torch.nn.Tanh())
    with torch.no_grad():
        dense.linear.weight.mul_(3)
    plain = SentenceTransformer(str(build("bert", home / "dense")), device="cpu")
    found["dense"] = SentenceTransformer(modules=[plain[0], plain[1], dense, Normalize()], device="cpu")
    return found


def run_pass(base: Any, collection: Collection, similarity: str = "cosine") -> LayerPass:
    model = MLRModel.from_pretrained(base, range(1, 4), "multi_vector")
    measured = LayerPass(model, collection.queries, collection.qrels, similarity)
    measured.run(collection.documents())
    return measured


def by_models(base: SentenceTransformer, collection: Collection) -> dict[System, np.ndarray]:
    """The scores `(Q, N)` that models built for one system each give: public calls only."""
    queries, texts = list(collection.queries.values()), [text for _, text in collection.texts()]
    every = MLRModel.from_pretrained(base, (1, 2, 3), "multi_vector")
    layers, of_queries = every.encode_layers(texts), every.encode(queries, task="query", return_layers=True)
    last = every.encode_query(queries)
    found = {System("one", (layer,)): last @ layers[:, layer - 1].T for layer in (1, 2, 3)}
    for layer in (1, 2):
        found[System("both", (layer,))] = of_queries[:, layer - 1] @ layers[:, layer - 1].T
        mean = MLRModel.from_pretrained(base, (layer,), "mean", start="paper")
        found[System("mean", (layer, 3))] = last @ mean.encode_document(texts).T
    for pair in combinations((1, 2, 3), 2):
        found[System("max", pair)] = np.maximum(*(found[System("one", (layer,))] for layer in pair))
    return found


@pytest.mark.parametrize("kind", [*ARCHITECTURES, "dense"])
def test_every_system_ranks_as_a_model_built_for_it_does(
    bases: dict[str, SentenceTransformer], collection: Collection, kind: str
) -> None:
    measured, ids = run_pass(bases[kind], collection), [id for id, _ in collection.texts()]
    expected = by_models(bases[kind], collection)
    assert measured.best.keys() - expected.keys() == {System("mean", (1, 2))}  # no model pools without the last layer
    for system, scores in expected.items():
        for row, found in zip(scores.tolist(), measured.rankings(system).values(), strict=True):
            every = dict(zip(ids, row, strict=True))
            assert len(found) == DEPTH
            assert found == pytest.approx({id: every[id] for id in found}, abs=2e-5)
            assert min(found.values()) >= sorted(row)[-DEPTH] - 2e-5


def test_dot_products_are_of_the_hidden_states_and_means_of_them(
    bases: dict[str, SentenceTransformer], collection: Collection
) -> None:
    def hidden(texts: list[str]) -> torch.Tensor:  # (L, n, D), mean over tokens, not normalized
        rows = []
        for text in texts:
            tokens = base.tokenizer(text, return_tensors="pt", truncation=True, max_length=64)
            with torch.no_grad():
                states = base[0].model(**tokens, output_hidden_states=True).hidden_states
            rows.append(torch.stack(states[1:])[:, 0].mean(1))
        return torch.stack(rows, 1)

    base, measured = bases["bert"], run_pass(bases["bert"], collection, "dot")
    ids, texts = zip(*collection.texts(), strict=True)
    queries, documents = hidden(list(collection.queries.values())), hidden(list(texts))
    expected = {System("one", (layer,)): queries[2] @ documents[layer - 1].T for layer in (1, 2, 3)}
    expected |= {System("both", (layer,)): queries[layer - 1] @ documents[layer - 1].T for layer in (1, 2)}
    for k, layer in combinations((1, 2, 3), 2):
        one, other = expected[System("one", (k,))], expected[System("one", (layer,))]
        expected |= {System("max", (k, layer)): one.maximum(other), System("mean", (k, layer)): (one + other) / 2}
    assert expected.keys() == measured.best.keys()
    assert expected[System("one", (3,))].max() > 1.5  # they are no cosines
    for system, scores in expected.items():
        for row, found in zip(scores.tolist(), measured.rankings(system).values(), strict=True):
            every = dict(zip(ids, row, strict=True))
            assert found == pytest.approx({id: every[id] for id in found}, rel=1e-3, abs=1e-3)
            assert min(found.values()) >= sorted(row)[-DEPTH] - 1e-3


def test_the_last_layer_has_the_figure_that_eval_gives(tiny_model_dir: Path, collection: Collection) -> None:
    report = measure_layers(tiny_model_dir, collection)
    retriever = Retriever.open("memory:", MLRModel.from_pretrained(tiny_model_dir, pooling="last"))
    assert report.last.ndcg.mean == pytest.approx(evaluate(retriever, collection).metrics["ndcg@10"], abs=1e-6)
    assert report.last.system == System("one", (3,))


def test_a_difference_is_paired_with_the_last_layer_by_query(tiny_model_dir: Path, collection: Collection) -> None:
    report, measured = measure_layers(tiny_model_dir, collection), run_pass(str(tiny_model_dir), collection)
    values = {system: query_metrics(collection.qrels, measured.rankings(system))["ndcg@10"] for system in measured.best}
    last = values[report.last.system]
    assert len(report.systems) == len(values) == 3 + 2 + 2 * 3
    for each in report.systems[1:]:
        differences = [values[each.system][query] - last[query] for query in collection.queries]
        assert each.difference.mean == pytest.approx(np.mean(differences), abs=1e-9)
        assert each.ndcg.mean == pytest.approx(report.last.ndcg.mean + each.difference.mean, abs=1e-9)
        assert each.difference.p <= each.corrected <= 1


def test_shares_and_spreads_are_those_of_the_whole_matrix(
    bases: dict[str, SentenceTransformer], collection: Collection
) -> None:
    measured, ids = run_pass(bases["bert"], collection), [id for id, _ in collection.texts()]
    expected = by_models(bases["bert"], collection)
    matrix = np.stack([expected[System("one", (layer,))] for layer in (1, 2, 3)])  # (L, Q, N)
    chosen = {"all": np.ones(matrix.shape[1:], bool)}
    chosen["retrieved"] = matrix[2] >= np.sort(matrix[2])[:, [-DEPTH]]
    chosen["relevant"] = np.zeros(matrix.shape[1:], bool)
    for row, query in enumerate(collection.queries):
        chosen["relevant"][row, [ids.index(id) for id, grade in collection.qrels[query].items() if grade > 0]] = True
    for name, mask in chosen.items():
        scores, found = matrix[:, mask], measured.scores[name]
        assert found.n == mask.sum() > 0
        assert found.highest.tolist() == np.bincount(scores.argmax(0), minlength=3).tolist()
        assert found.above.tolist() == [[int((k > layer).sum()) for layer in scores] for k in scores]
        assert found.mean().numpy() == pytest.approx(scores.mean(1), abs=1e-5)
        assert found.std().numpy() == pytest.approx(scores.std(1), abs=1e-4)


def test_a_layer_of_short_vectors_never_wins_by_dot_product(tmp_path: Path, collection: Collection) -> None:
    base = SentenceTransformer(str(build("bert", tmp_path)), device="cpu")
    with torch.no_grad():
        for parameter in base[0].model.encoder.layer[0].output.LayerNorm.parameters():
            parameter.mul_(0.01)
    by_dot, by_cosine = (measure_layers(base, collection, similarity) for similarity in ("dot", "cosine"))
    assert (1, 3) in by_dot.dead
    assert by_dot.share(1, 3, "all") == 0 < by_cosine.share(1, 3, "all")
    with_last = {each.system: each for each in by_dot.systems}[System("max", (1, 3))]
    assert (with_last.ndcg, with_last.difference.p) == (by_dot.last.ndcg, 1.0)


def test_the_corpus_is_read_a_window_at_a_time_and_each_document_encoded_once(
    tiny_model_dir: Path, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = MLRModel.from_pretrained(tiny_model_dir, (1, 2, 3), "multi_vector")
    measured = LayerPass(model, collection.queries, collection.qrels)
    encoded: list[str] = []
    stream, waiting = model.stream, []

    def counting(texts: list[str], *args: Any, **kwargs: Any) -> Any:
        encoded.extend(texts)
        return stream(texts, *args, **kwargs)

    def documents() -> Any:
        for number, document in enumerate(collection.documents()):
            waiting.append(number - len(measured.ids))
            yield document

    monkeypatch.setattr(model, "stream", counting)
    monkeypatch.setattr(layer_pass, "WINDOW", 8)
    measured.run(documents())
    monkeypatch.undo()
    assert sorted(encoded) == sorted(text for _, text in collection.texts())
    assert max(waiting) == 8 - 1
    whole = run_pass(str(tiny_model_dir), collection)  # and the parts make what the whole gives
    for system in measured.best:
        for query, scores in measured.rankings(system).items():
            assert scores == pytest.approx(whole.rankings(system)[query], abs=1e-5)
    assert measured.scores["retrieved"].highest.tolist() == whole.scores["retrieved"].highest.tolist()


def test_fewer_documents_than_a_ranking_holds(tmp_path: Path, tiny_model_dir: Path) -> None:
    few = Collection.load(make_collection(tmp_path / "few", documents=5, queries=2), "dev")
    report = measure_layers(tiny_model_dir, few)
    assert report.documents == 5
    assert report.populations["retrieved"].pairs == 10
    assert run_pass(str(tiny_model_dir), few).rankings(System("max", (1, 2)))["q0"].keys() == {
        f"d{i}" for i in range(5)
    }


def test_a_query_does_not_find_itself(tmp_path: Path, tiny_model_dir: Path) -> None:
    texts = {"a": "the old road", "b": "the old stone road", "c": "paris is in france"}
    write(tmp_path, texts, {"a": "the old road"}, {"dev": ["a\tb\t1"]})
    measured = run_pass(str(tiny_model_dir), Collection.load(tmp_path, "dev"))
    for system in measured.best:
        assert measured.rankings(system)["a"].keys() == {"b", "c"}
    assert measured.scores["retrieved"].n == 2


def test_a_query_finds_the_document_that_is_numbered_like_it_and_relevant(tmp_path: Path, tiny_model_dir: Path) -> None:
    texts = {"1": "the old road", "2": "the old stone road", "3": "paris is in france"}
    write(tmp_path, texts, {"1": "old road", "2": "old stone"}, {"dev": ["1\t1\t1", "2\t3\t1"]})
    rankings = run_pass(str(tiny_model_dir), Collection.load(tmp_path, "dev")).rankings(System("one", (3,)))
    assert {query: set(found) for query, found in rankings.items()} == {"1": {"1", "2", "3"}, "2": {"1", "3"}}


def test_relevant_documents_that_the_corpus_lacks_count_as_not_found(tmp_path: Path, tiny_model_dir: Path) -> None:
    write(tmp_path, {"a": "the old road", "b": "water"}, {"q": "road"}, {"dev": ["q\tgone\t1"]})
    report = measure_layers(tiny_model_dir, Collection.load(tmp_path, "dev"))
    assert report.last.ndcg.mean == 0
    assert report.populations["relevant"].pairs == 0
    json.dumps(report.as_dict(), allow_nan=False)


def test_queries_are_drawn_by_the_seed(tiny_model_dir: Path, collection: Collection) -> None:
    first, again, other = (
        measure_layers(tiny_model_dir, collection, queries=4, seed=seed).as_dict() | {"seconds": 0}
        for seed in (1, 1, 2)
    )
    assert (first["queries"], first["of_queries"]) == (4, 12)
    assert first == again
    assert first["systems"] != other["systems"]


def test_the_callers_model_is_left_as_it_was(bases: dict[str, SentenceTransformer], collection: Collection) -> None:
    model = MLRModel.from_pretrained(bases["bert"], (1,), "mean")
    before, hooks = model.encode_document(["water"]), count_hooks(model)
    measure_layers(model, collection, queries=2)
    measure_layers(bases["bert"], collection, queries=2)
    assert count_hooks(model) == hooks
    assert (model.encode_document(["water"]) == before).all()


def count_hooks(model: SentenceTransformer) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules())


def test_a_multi_layer_model_is_measured_by_its_encoder(
    tmp_path: Path, tiny_model_dir: Path, collection: Collection
) -> None:
    MLRModel.from_pretrained(tiny_model_dir, (1,), "mean", start="paper").save(tmp_path / "saved")
    of_base, of_saved = (measure_layers(model, collection, queries=5) for model in (tiny_model_dir, tmp_path / "saved"))
    assert of_saved.systems == of_base.systems
    assert (of_base.model, of_saved.model) == (str(tiny_model_dir), str(tmp_path / "saved"))


@pytest.mark.parametrize("separate", ["adapter", "encoder"])
def test_a_model_with_a_query_side_of_its_own_is_refused(
    tiny_model_dir: Path, collection: Collection, separate: str
) -> None:
    model = (
        MLRModel.from_pretrained(tiny_model_dir).add_query_adapter()
        if separate == "adapter"
        else MLRModel.from_pretrained(tiny_model_dir, separate_query_encoder=True)
    )
    with pytest.raises(InvalidInputError, match="query side of its own"):
        measure_layers(model, collection)


def test_what_cannot_be_measured_is_refused_before_any_work(
    tmp_path: Path, tiny_model_dir: Path, collection: Collection
) -> None:
    with pytest.raises(InvalidInputError, match=r"unknown similarity: found euclid, expected cosine \| dot"):
        measure_layers(tiny_model_dir, collection, "euclid")
    for queries in (0, True, 2.0):
        with pytest.raises(InvalidInputError, match="not a number of queries"):
            measure_layers(tiny_model_dir, collection, queries=queries)
    with pytest.raises(InvalidInputError, match="nothing to compare: found 1 layer"):
        measure_layers(build("bert", tmp_path / "one", num_layers=1), collection)
    twice = SentenceTransformer(str(tiny_model_dir), device="cpu")
    twice[1].pooling_mode = ["cls", "mean"]
    with pytest.raises(UnsupportedModelError, match="concatenates several token poolings"):
        measure_layers(twice, collection)


def test_layers_are_chosen_on_dev_else_train_else_test(tmp_path: Path) -> None:
    for split in ("test", "train", "dev"):
        make_collection(tmp_path, split=split)
        assert load_split(tmp_path).split == split
    assert load_split(tmp_path, "train").split == "train"


def test_a_broken_split_is_no_reason_to_take_another(tmp_path: Path) -> None:
    make_collection(tmp_path, split="test")
    (tmp_path / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nbroken\n")
    with pytest.raises(InvalidInputError, match=r"qrels/dev.tsv line 2 is broken"):
        load_split(tmp_path)
    with pytest.raises(InvalidInputError, match=r"has no qrels/train.tsv"):
        load_split(tmp_path, "train")
    with pytest.raises(InvalidInputError, match="no collection at"):
        load_split(tmp_path / "nowhere")
