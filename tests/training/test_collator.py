import pickle

import pytest
import torch
from sentence_transformers.base.trainer import BaseTrainer

from mlr_rag.training.collator import ListCollator
from mlr_rag.training.lists import TrainingList, to_dataset

LISTS = [
    TrainingList("old roads", ("the kettle boils on the stove", "old roads meet", "paris"), scores=(0.5, 2.5, -1)),
    TrainingList("what is the capital of france", ("paris", "the old roads of france meet in paris"), labels=(1, 0)),
    TrainingList("stove", ("old roads meet", "a river is water", "one two three", "stone bridge"), scores=(4, 3, 2, 1)),
]


@pytest.fixture
def collated(tiny_model):
    return ListCollator(tiny_model)(LISTS)


def test_every_distinct_passage_is_there_once_and_the_index_finds_it(tiny_model, collated):
    texts = tiny_model.tokenizer.batch_decode(collated["passage_input_ids"], skip_special_tokens=True)
    assert sorted(texts) == sorted({passage for each in LISTS for passage in each.passages})
    by_query = {each.query: each for each in LISTS}
    for query, row in zip(collated["label"]["queries"], collated["label"]["index"].tolist(), strict=True):
        found = [texts[column] for column in row if column >= 0]
        assert tuple(found) == by_query[query].passages


def test_texts_are_sorted_by_their_tokens(collated):
    for name in ("query", "passage"):
        lengths = collated[f"{name}_attention_mask"].sum(1).tolist()
        assert lengths == sorted(lengths, reverse=True)
        assert collated[f"{name}_input_ids"].shape[1] == lengths[0]


def test_scores_and_labels_follow_the_sorted_queries(tiny_model, collated):
    label = collated["label"]
    texts = tiny_model.tokenizer.batch_decode(collated["query_input_ids"], skip_special_tokens=True)
    assert label["queries"] == tuple(texts) == ("what is the capital of france", "old roads", "stove")
    inf = -float("inf")
    assert label["teacher"].tolist() == [[inf] * 4, [0.5, 2.5, -1.0, inf], [4.0, 3.0, 2.0, 1.0]]
    assert label["labels"].tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]]


def test_texts_are_read_as_encode_reads_them(tiny_model):
    tiny_model.prompts = {"query": "what: ", "document": "page: "}
    collated = ListCollator(tiny_model)(LISTS)
    queries, passages = BaseTrainer.collect_features(None, collated)[0]
    assert (queries["task"], passages["task"]) == ("query", "document")
    with torch.no_grad():
        vectors = tiny_model(dict(queries))["sentence_embedding"].numpy()
    assert vectors == pytest.approx(tiny_model.encode_query(list(collated["label"]["queries"])), abs=1e-6)
    texts = tiny_model.tokenizer.batch_decode(passages["input_ids"], skip_special_tokens=True)
    texts = [text.removeprefix("page : ") for text in texts]
    with torch.no_grad():
        vectors = tiny_model(dict(passages))["sentence_embedding"].numpy()
    assert vectors == pytest.approx(tiny_model.encode_document(texts), abs=1e-6)


def test_rows_of_the_dataset_are_collated_as_the_lists_are(tiny_model, collated):
    dataset = to_dataset(LISTS)
    again = ListCollator(tiny_model)([dataset[number] for number in range(3)])
    assert torch.equal(again["passage_input_ids"], collated["passage_input_ids"])
    assert torch.equal(again["label"]["teacher"], collated["label"]["teacher"])


def test_a_pickled_collator_gives_the_same(tiny_model, collated):
    again = pickle.loads(pickle.dumps(ListCollator(tiny_model)))(LISTS)
    assert torch.equal(again["passage_input_ids"], collated["passage_input_ids"])


def test_one_text_has_one_key_in_every_batch(tiny_model, collated):
    keys = dict(zip(collated["passage_input_ids"].sum(1).tolist(), collated["label"]["keys"].tolist(), strict=True))
    alone = ListCollator(tiny_model)(LISTS[1:2])
    for tokens, key in zip(alone["passage_input_ids"].sum(1).tolist(), alone["label"]["keys"].tolist(), strict=True):
        assert keys[tokens] == key
    assert len(set(keys.values())) == len(collated["passage_input_ids"])
