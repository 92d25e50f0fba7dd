import math

import pytest
import torch

from mlr_rag.errors import InvalidInputError
from mlr_rag.training import losses
from mlr_rag.training.lists import ListBatch
from mlr_rag.training.multilevel.dynamic_filter import DynamicInfoNCE
from mlr_rag.training.objectives import (
    InfoNCE,
    LastReg,
    ListwiseKL,
    MannWhitney,
    MarginMSE,
    MultiVector,
    SelfContrastive,
    Wasserstein,
    WeightedSum,
    default_objective,
)

INF = math.inf
INDEX = [[0, 1, 2], [3, 1, -1]]  # passage 1 is in both lists
TEACHER = [[9.0, 7.0, 1.0], [2.0, 6.0, -INF]]
LABELS = [[1.0, 2.0, 0.0], [1.0, 0.0, 0.0]]  # positives: columns 1 and 3
CONTRASTIVE = [InfoNCE(), MultiVector(), SelfContrastive(), LastReg(), Wasserstein(), MannWhitney(), MarginMSE()]
DISTILLING = [ListwiseKL(), MarginMSE(), default_objective()]


def make(labels=LABELS, teacher=TEACHER, **options):
    return ListBatch(torch.tensor(INDEX), torch.tensor(teacher), torch.tensor(labels), ("what boils", "who"), **options)


@pytest.fixture
def scores():
    return torch.rand(2, 4, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()


def rows(scores, layer=0):
    return scores[..., layer].tolist()


def nce(scores, positive, candidates, temperature):
    return -math.log(
        math.exp(scores[positive] / temperature) / sum(math.exp(scores[c] / temperature) for c in candidates)
    )


def test_infonce_sees_the_whole_batch_but_not_the_other_known_positive(scores):
    first, second = rows(scores)
    expected = (nce(first, 1, [1, 2, 3], 0.1) + nce(second, 3, [0, 1, 2, 3], 0.1)) / 2
    assert InfoNCE(0.1)(scores, make()).item() == pytest.approx(expected, rel=1e-5)


def test_another_lists_positive_is_a_negative_like_any_other(scores):
    moved = scores.detach().clone()
    moved[1, 1] += 0.5  # the first query's positive, in the second query's list with label 0
    assert InfoNCE(0.1)(moved, make()) > InfoNCE(0.1)(scores, make())


def test_scope_own_leaves_out_other_lists(scores):
    first, second = rows(scores)
    expected = (nce(first, 1, [1, 2], 0.1) + nce(second, 3, [1, 3], 0.1)) / 2
    assert InfoNCE(0.1, scope="own")(scores, make()).item() == pytest.approx(expected, rel=1e-5)


TWICE = ListBatch(  # one query with two lists, each with a positive and a negative of its own
    torch.tensor([[0, 1], [2, 3]]), torch.tensor([[2.0, 1.0]] * 2), torch.tensor([[1.0, 0.0]] * 2), ("who", "who")
)


@pytest.mark.parametrize(
    "objective",
    [InfoNCE(), MultiVector(), SelfContrastive(), LastReg(), DynamicInfoNCE(), MannWhitney()],
    ids=lambda objective: type(objective).__name__,
)
def test_two_lists_of_one_query_are_no_negatives_of_each_other(scores, objective):
    moved = scores.detach().clone()
    moved[0, 2] += 0.5  # the first list's query with the second list's positive
    assert torch.equal(objective(moved, TWICE), objective(scores.detach(), TWICE))
    moved[0, 3] += 0.5  # and with its negative
    assert objective(moved, TWICE) > objective(scores.detach(), TWICE)


def test_wasserstein_wants_the_positives_of_all_lists_of_a_query(scores):
    labels = torch.tensor([[1.0, 0.0, 1.0, 0.0]] * 2)
    assert torch.allclose(Wasserstein(0.1)(scores, TWICE), losses.wasserstein(scores[..., 0], labels, 0.1))


def test_what_the_teacher_likes_nearly_as_much_is_no_negative(scores):
    labels = [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    first, second = rows(scores)
    # min-max: 1, 0.75, 0 in the first list; the second list's positive is 0, so that 1 is above its share
    expected = (nce(first, 0, [0, 2, 3], 0.1) + nce(second, 3, [0, 2, 3], 0.1)) / 2
    found = InfoNCE(0.1, false_negative_ratio=0.6)(scores, make(labels))
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_without_teacher_scores_no_negative_is_left_out(scores):
    nothing = make(teacher=[[-INF] * 3] * 2)
    assert torch.equal(InfoNCE(false_negative_ratio=0.6)(scores, nothing), InfoNCE()(scores, nothing))


def test_documents_count_by_their_last_layer_or_by_their_best(scores):
    last, best = make(), make(best_layer=True)
    assert torch.equal(ListwiseKL()(scores, last), ListwiseKL()(scores[..., :1], last))
    assert torch.equal(ListwiseKL()(scores, best), ListwiseKL()(scores.amax(-1, keepdim=True), last))


def test_listwise_kl_reads_each_querys_own_passages(scores):
    batch = make()
    student = torch.stack([scores[0, [0, 1, 2], 0], scores[1, [3, 1, 0], 0]])
    teacher = torch.tensor([[1.0, 0.75, 0.0], [0.0, 1.0, -INF]])
    assert torch.allclose(ListwiseKL()(scores, batch), losses.listwise_kl(student, teacher))


def test_margins_are_taken_from_the_positive_on_the_students_scale(scores):
    (first, second), labels = rows(scores), [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    errors = [3 * (first[0] - first[1]) - 0.25, 3 * (first[0] - first[2]) - 1, 3 * (second[3] - second[1]) + 1]
    expected = sum(error**2 for error in errors) / 3
    assert MarginMSE(scale=3)(scores, make(labels)).item() == pytest.approx(expected, rel=1e-5)


def test_mann_whitney_pairs_positives_with_negatives_of_all_queries_or_of_their_lists(scores):
    (first, second), softplus = rows(scores), lambda x: math.log1p(math.exp(x))
    positives = [first[0], first[1], second[3]]
    for scope, negatives in (("batch", [*first[2:], *second[:3]]), ("own", [first[2], second[1]])):
        expected = sum(softplus((n - p) / 0.5) for p in positives for n in negatives) / (3 * len(negatives))
        assert MannWhitney(0.5, scope)(scores, make()).item() == pytest.approx(expected, rel=1e-5)


def test_layered_objectives_leave_other_known_positives_out(scores):
    mask = torch.tensor([[True, False, False, False], [False] * 4])
    positives = torch.tensor([1, 3])
    assert torch.equal(MultiVector(0.1)(scores, make()), losses.multi_vector(scores, positives, 0.1, mask))
    expected = losses.self_contrastive(scores, positives, 0.5, 0.1, 0.2, "max", mask)
    assert torch.equal(SelfContrastive(0.5, 0.1, 0.2)(scores, make()), expected)
    assert torch.equal(LastReg(0.5, 0.1, 0.2)(scores, make()), losses.last_reg(scores, positives, 0.5, 0.1, 0.2, mask))


def test_wasserstein_spreads_grades_over_the_batch(scores):
    labels = torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    assert torch.allclose(Wasserstein(0.1)(scores, make()), losses.wasserstein(scores[..., 0], labels, 0.1))


def test_the_layers_that_win_are_counted_where_a_maximum_is_taken(scores):
    with torch.no_grad():
        scores[:] = torch.tensor([0.2, 0.1])  # the last layer is better everywhere
        scores[0, 3] = torch.tensor([0.1, 0.2])
    multi, single = MultiVector(), SelfContrastive()
    for objective in (multi, single, single):
        objective(scores, make())
    assert multi.wins.tolist() == [6, 1]  # 8 pairs, less the masked one
    assert single.wins.tolist() == [8, 2]  # twice 4 + 1, as the positives' layers do not compete


def test_evaluation_counts_no_wins(scores):
    objective = MultiVector()
    objective(scores.detach(), make())
    assert objective.wins is None


def test_scales_of_layers_learn(scores):
    objective = SelfContrastive(layer_scales=[2.0])
    objective(scores, make()).backward()
    assert objective.layer_scales.grad.item() != 0
    scaled = scores.detach() * torch.tensor([1.0, 2.0])
    assert torch.equal(objective(scores, make()), SelfContrastive()(scaled, make()))


def test_scales_may_be_whole_numbers(scores):
    assert torch.equal(
        SelfContrastive(layer_scales=[2])(scores, make()), SelfContrastive(layer_scales=[2.0])(scores, make())
    )


@pytest.mark.parametrize("wrong", [[], [1.0, 1.0], ["x"], 1.0])
def test_scales_that_do_not_fit_the_layers_are_refused(scores, wrong):
    with pytest.raises(InvalidInputError, match="layer_scales"):
        SelfContrastive(layer_scales=wrong)(scores, make())


def test_one_scale_is_not_spread_over_several_layers():
    scores = torch.rand(2, 4, 3)
    with pytest.raises(InvalidInputError, match="1 for 3 layers"):
        SelfContrastive(layer_scales=[1.0])(scores, make())


def test_logsumexp_gives_every_layer_of_a_negative_a_gradient(scores):
    for reduce, expected in (("max", {1}), ("logsumexp", {2})):
        scores.grad = None
        SelfContrastive(reduce=reduce)(scores, make()).backward()
        assert set((scores.grad[1, :3] != 0).sum(-1).tolist()) == expected


def test_a_sum_is_its_weighted_parts(scores):
    objective = WeightedSum((1.0, ListwiseKL()), (0.1, InfoNCE(0.01)), (2.0, InfoNCE(0.5)))
    parts = objective.parts(scores, make())
    assert list(parts) == ["listwise_kl", "infonce", "infonce_2"]
    assert parts["infonce"].item() == pytest.approx(0.1 * InfoNCE(0.01)(scores, make()).item())
    assert parts["infonce_2"].item() == pytest.approx(2 * InfoNCE(0.5)(scores, make()).item())
    assert objective(scores, make()).item() == pytest.approx(sum(part.item() for part in parts.values()))


def test_a_sum_shows_the_wins_of_its_terms(scores):
    objective = WeightedSum((1.0, ListwiseKL()), (1.0, MultiVector()))
    objective(scores, make())
    assert objective.wins.sum() == 7


def test_the_default_is_listwise_distillation_and_a_tenth_of_infonce(scores):
    batch = make()
    expected = ListwiseKL(0.05, 0.3)(scores, batch) + 0.1 * InfoNCE(0.01, false_negative_ratio=0.6)(scores, batch)
    assert torch.allclose(default_objective()(scores, batch), expected)


@pytest.mark.parametrize("objective", CONTRASTIVE, ids=repr)
def test_a_contrastive_objective_names_the_list_without_a_positive(objective, scores):
    with pytest.raises(InvalidInputError, match="the list of 'who': no passage is relevant"):
        objective(scores, make([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))


@pytest.mark.parametrize("objective", DISTILLING, ids=repr)
def test_a_distilling_objective_names_the_list_without_a_teacher(objective, scores):
    with pytest.raises(InvalidInputError, match="the list of 'what boils': the teacher gave no scores"):
        objective(scores, make(teacher=[[-INF] * 3, [2.0, 6.0, -INF]]))


def refuses(objective, batch):
    try:
        objective(torch.rand(2, 4, 2), batch)
    except InvalidInputError:
        return True
    return False


@pytest.mark.parametrize(
    "objective",
    [
        *CONTRASTIVE,
        *DISTILLING,
        DynamicInfoNCE(),
        WeightedSum((1.0, Wasserstein())),
        WeightedSum((1.0, InfoNCE()), (1.0, ListwiseKL())),
    ],
    ids=lambda objective: type(objective).__name__,
)
def test_an_objective_says_beforehand_which_lists_it_refuses(objective):
    unscored, unlabeled = make(teacher=[[-INF] * 3] * 2), make(labels=[[0.0] * 3] * 2)
    assert (objective.needs_teacher, objective.needs_positives) == (
        refuses(objective, unscored),
        refuses(objective, unlabeled),
    )


def test_terms_that_need_different_poolings_are_refused():
    assert WeightedSum((1.0, InfoNCE()), (1.0, LastReg()), (1.0, SelfContrastive())).poolings == ("self_contrastive",)
    assert WeightedSum((1.0, InfoNCE())).poolings is None
    with pytest.raises(InvalidInputError, match="different poolings"):
        WeightedSum((1.0, MultiVector()), (1.0, SelfContrastive()))


@pytest.mark.parametrize("terms", [(), ((0.0, InfoNCE()),), ((-1.0, InfoNCE()),), ((INF, InfoNCE()),)])
def test_weights_must_count(terms):
    with pytest.raises(InvalidInputError, match="weights"):
        WeightedSum(*terms)


@pytest.mark.parametrize("kind", [InfoNCE, MannWhitney])
def test_an_unknown_scope_is_refused(kind):
    with pytest.raises(InvalidInputError, match="scope"):
        kind(scope="all")


def test_settings_show_in_the_repr():
    assert repr(InfoNCE(0.01)) != repr(InfoNCE(0.02))
    assert repr(WeightedSum((1.0, InfoNCE()))) != repr(WeightedSum((2.0, InfoNCE())))
