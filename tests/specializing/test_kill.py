"""`specialize`, killed again and again, ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.specializing.killed import TIMES
from tests.specializing.small import BATCH, build_model, build_probe

KILLS = 5
TIMEOUT = 600  # seconds, on a machine that does much else


@pytest.mark.timeout(TIMEOUT + 20)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_that_is_killed_again_and_again_ends_as_one_that_nothing_stopped(tmp_path: Path) -> None:
    build_model(tmp_path / "model")
    build_probe(tmp_path / "probe")
    command = [sys.executable, "-m", "tests.specializing.killed", str(tmp_path), str(KILLS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stdout + done.stderr  # also where a finished stage was done again
    assert done.stdout.count(": -9,") == KILLS, done.stdout
    assert all(f"{moment}: -9," in done.stdout for moment in TIMES), done.stdout
    whole, killed = (json.loads((tmp_path / name / "outcome.json").read_text()) for name in ("whole", "killed"))
    assert whole["accepted"]
    assert killed == whole
    asked = Counter((tmp_path / "killed" / "asked.txt").read_text().splitlines())
    assert asked.keys() == set((tmp_path / "whole" / "asked.txt").read_text().splitlines())
    assert asked.total() - len(asked) <= BATCH * KILLS
