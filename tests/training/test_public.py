"""What `mlr_rag.training` offers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mlr_rag import training


@pytest.mark.parametrize("name", training.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name: str) -> None:
    assert getattr(training, name).__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        training.nothing  # noqa: B018


def test_importing_it_loads_no_torch() -> None:
    code = "import sys, mlr_rag.training; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
