"""Who does not use LangChain does not load it, and who has not installed it is told how."""

from __future__ import annotations

import subprocess
import sys

BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "langchain_core":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
"""


def run(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_who_loads_what() -> None:
    """The core loads no framework, and the adapter langchain-core only; none of them torch."""
    loaded = run("""
import sys
import mlr_rag
from mlr_rag.testing import HashEncoder
def loaded():
    return {name.partition(".")[0] for name in sys.modules if name.startswith(("langchain", "llama_index", "mlr_rag_"))}
with mlr_rag.Retriever.open("memory:", HashEncoder()) as kb:
    kb.add("text")
    assert kb.search("text")
    print(sorted(loaded()))
    kb.as_langchain()
    print(sorted(loaded() - {"langchain_protocol"}))
    print("torch" in sys.modules)
""")
    assert loaded.splitlines() == ["[]", "['langchain_core', 'mlr_rag_langchain']", "False"]


def test_without_langchain() -> None:
    said = run(
        BLOCK
        + """
from mlr_rag import Retriever
from mlr_rag.errors import MissingExtraError
from mlr_rag.testing import HashEncoder
kb = Retriever.open("memory:", HashEncoder())
kb.add("text")
for call in (kb.as_langchain, lambda: Retriever.from_langchain_documents([], model=HashEncoder())):
    try:
        call()
    except MissingExtraError as error:
        assert isinstance(error, ImportError)
        print(error)
assert kb.search("text")
"""
    )
    first, second = said.splitlines()
    assert first == second
    assert "no langchain_core" in first
    assert "pip install 'mlr-rag[langchain]'" in first
