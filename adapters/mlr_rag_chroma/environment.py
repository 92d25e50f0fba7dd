"""Settings of chromadb's that come from the environment, and how they are refused.

It imports nothing of chromadb's, which reads them while it is imported.
"""

from __future__ import annotations

import re

from mlr_rag.errors import InvalidInputError


def unusable(problem: ValueError) -> ValueError:
    """What to raise for what pydantic raised: names the fields, never the values, which may be credentials.

    Anything else is returned as it is.
    """
    if not type(problem).__module__.startswith("pydantic"):
        return problem
    if hasattr(problem, "errors"):
        fields = [".".join(map(str, error["loc"])) for error in problem.errors()]
    else:
        fields = re.findall(r'field "(\w+)"', str(problem))  # where it is not the JSON that it should be
    return InvalidInputError(
        "the environment has settings that chromadb cannot use",
        found=", ".join(fields)[:200],
        expected="values of the kind that chromadb has there",
        remedy="Correct or unset these variables, in the environment and in ./.env.",
    )
