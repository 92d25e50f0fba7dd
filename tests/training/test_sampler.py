import random

import pytest

from mlr_rag.errors import InvalidInputError
from mlr_rag.training.lists import TrainingList, to_dataset
from mlr_rag.training.sampler import LengthBucketSampler, count_tokens


@pytest.fixture(scope="module")
def dataset():
    rng = random.Random(0)
    passages = [(f"{number} " + "water " * rng.randrange(40), f"{number} paris") for number in range(203)]
    return to_dataset([TrainingList("what", each, labels=(1, 0)) for each in passages])


def sampler(dataset, model, **options):
    return LengthBucketSampler(dataset, **({"batch_size": 4, "drop_last": False, "model": model} | options))


def test_every_list_comes_once_an_epoch(dataset, tiny_model):
    batches = list(sampler(dataset, tiny_model))
    assert sorted(row for batch in batches for row in batch) == list(range(203))
    assert len(batches) == len(sampler(dataset, tiny_model)) == 51


def test_the_last_short_batch_can_be_left_out(dataset, tiny_model):
    batches = list(sampler(dataset, tiny_model, drop_last=True))
    assert len(batches) == len(sampler(dataset, tiny_model, drop_last=True)) == 50
    assert {len(batch) for batch in batches} == {4}


def test_lists_of_like_length_are_together(dataset, tiny_model):
    found = sampler(dataset, tiny_model)
    spread = [max(lengths) - min(lengths) for batch in found if (lengths := [found.lengths[row] for row in batch])]
    assert sum(spread) / len(spread) < 3  # in random batches of 4 it is about 24


def test_batches_do_not_come_in_the_order_of_their_length(dataset, tiny_model):
    found = sampler(dataset, tiny_model)
    lengths = [sum(found.lengths[row] for row in batch) for batch in found]
    assert lengths not in (sorted(lengths), sorted(lengths, reverse=True))


def test_seed_and_epoch_settle_the_order_whatever_came_before(dataset, tiny_model):
    first, second = sampler(dataset, tiny_model, seed=7), sampler(dataset, tiny_model, seed=7)
    before = list(first)
    first.set_epoch(3)
    second.set_epoch(3)
    assert list(first) == list(first) == list(second) != before
    assert list(sampler(dataset, tiny_model, seed=8)) != before


def test_tokens_are_those_that_the_model_reads(tiny_model):
    long, short = "water " * 100, "old roads meet"
    assert count_tokens(tiny_model, [(long, short), (short, "paris")]) == [64 + 5, 5 + 3]
    tiny_model.prompts = {"document": "page : "}
    assert count_tokens(tiny_model, [(short, "paris")]) == [7 + 5]


@pytest.mark.parametrize("size", [0, -1, True, 2.5])
def test_a_batch_of_no_lists_is_refused(dataset, tiny_model, size):
    with pytest.raises(InvalidInputError, match="batch_size"):
        sampler(dataset, tiny_model, batch_size=size)
