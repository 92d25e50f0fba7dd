"""What `mlr_rag.training` offers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mlr_rag import training
from mlr_rag.training import objectives
from mlr_rag.training.multilevel import dynamic_filter
from mlr_rag.training.objectives import InfoNCE, Objective


@pytest.mark.parametrize("name", training.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name: str) -> None:
    assert getattr(training, name).__doc__


def test_what_a_loop_of_ones_own_needs_is_public() -> None:
    of_objectives = {each.__name__ for each in (*Objective.__subclasses__(), *InfoNCE.__subclasses__())}
    ours = {name for name in of_objectives if hasattr(objectives, name) or hasattr(dynamic_filter, name)}
    others = {"ListCollator", "ListLoss", "default_objective", "multi_level_objective", "to_dataset"}
    assert ours | others <= set(training.__all__)
    assert "DynamicInfoNCE" in ours


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        training.nothing  # noqa: B018


def test_importing_it_loads_no_torch() -> None:
    code = "import sys, mlr_rag.training; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
