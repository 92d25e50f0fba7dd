"""The output folder: what a run made takes the place of what an earlier one left there."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

logger = logging.getLogger(__name__)

REPORT = "report"  # the folder of the report, within the output
_CONTENTS = "contents.json"  # within the report: the names in the output that are a run's
_MODULES = "modules.json"  # what makes a folder a model: the first file to go, and the last to come


def is_ours(output: Path) -> bool:
    """Whether a run may write there: nothing is, or no more than a run that was killed, or an earlier run's model."""
    if not output.exists():
        return True
    if not output.is_dir():
        return False
    return (output / REPORT / "report.json").exists() or {item.name for item in output.iterdir()} <= {REPORT}


def replace_output(output: Path, made: Path, old: Path) -> None:
    """Put what was made in the place of what an earlier run left there, and leave the rest alone.

    Whenever the process is killed, there is no half of a model that loads, and the folder can be seen to be ours.

    Args:
        output: The folder, made where it is missing.
        made: The report, in `report`, and the model's files if there is one; gone afterwards.
        old: Where to put what is replaced, which is then deleted.
    """
    shutil.rmtree(old, ignore_errors=True)
    old.mkdir()
    report = output / REPORT
    names = {item.name for item in made.iterdir()} - {REPORT}
    listed = report / _CONTENTS
    earlier = set(json.loads(listed.read_text("utf-8"))) if listed.exists() else set[str]()
    for name in sorted(earlier, key=_MODULES.__ne__):
        if (output / name).exists():
            shutil.move(output / name, old / name)
    for name in sorted(name for name in names if (output / name).exists()):
        logger.warning("%s is kept as %s.yours: the model has a file of that name", output / name, name)
        shutil.move(output / name, output / f"{name}.yours")
    report.mkdir(parents=True, exist_ok=True)
    (made / REPORT / _CONTENTS).write_text(json.dumps(sorted(names)), "utf-8")
    for item in sorted((made / REPORT).iterdir()):
        shutil.move(item, report / item.name)
    for name in sorted(names, key=_MODULES.__eq__):
        shutil.move(made / name, output / name)
    shutil.rmtree(old)
    shutil.rmtree(made)
