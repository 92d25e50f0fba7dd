from __future__ import annotations

import pytest
import torch

from mlr_rag import InvalidInputError, MLRModel
from mlr_rag.specializing.interpolation import interpolate


@pytest.fixture
def tuned(tiny_model):
    other = interpolate(tiny_model, tiny_model, 1.0)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) * 0.1
    return other


def test_the_ends_are_the_two_models(tiny_model, tuned):
    assert interpolate(tiny_model, tuned, 0).fingerprint == tiny_model.fingerprint
    assert interpolate(tiny_model, tuned, 1).fingerprint == tuned.fingerprint
    assert tiny_model.fingerprint != tuned.fingerprint


def test_every_weight_is_as_far_between_as_asked_for_and_neither_model_changes(tiny_model, tuned):
    before = tiny_model.fingerprint, tuned.fingerprint
    made = interpolate(tiny_model, tuned, 0.25).state_dict()
    for name, value in tuned.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(made[name], 0.75 * tiny_model.state_dict()[name] + 0.25 * value)
    assert (tiny_model.fingerprint, tuned.fingerprint) == before


def test_it_keeps_the_recipe(tiny_model, tuned):
    assert interpolate(tiny_model, tuned, 0.5).recipe == tuned.recipe


def test_models_of_different_shapes_and_shares_beyond_the_ends_are_refused(tiny_model, tuned, tiny_model_dir):
    other = MLRModel.from_pretrained(tiny_model_dir, layers=(1, 2, 3))
    with pytest.raises(InvalidInputError, match="different shapes"):
        interpolate(tiny_model, other, 0.5)
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(InvalidInputError, match="share"):
            interpolate(tiny_model, tuned, share)
