"""Who imports whom: the core no framework, this adapter no other one; and what is said where LlamaIndex is missing."""

from __future__ import annotations

import subprocess
import sys

CORE = """
import sys
import numpy as np
from mlr_rag import Retriever, errors

class Encoder:
    dimension, fingerprint, name = 4, "f", "e"
    def encode_query(self, texts):
        return np.eye(4, dtype="float32")[[len(text) % 4 for text in texts]]
    encode_document = encode_query

kb = Retriever.open("memory:", Encoder())
kb.add(["one", "three"])
assert kb.search("one", k=1)[0].document.text == "one"
loaded = [name for name in ("llama_index", "langchain_core", "mlr_rag_llama_index", "mlr_rag_langchain")
          if name in sys.modules]
assert not loaded, loaded
"""

BLOCKED = '''
class Blocked:
    """As if LlamaIndex were not installed."""
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "llama_index":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
for call in (kb.as_llama_index, lambda: Retriever.from_llama_index_nodes([])):
    try:
        call()
    except errors.MissingExtraError as problem:
        assert isinstance(problem, ImportError)
        assert "pip install 'mlr-rag[llama-index]'" in str(problem), problem
        assert "llama_index" in problem.found, problem
    else:
        raise AssertionError("no error")
assert kb.search("one", k=1)
'''

PRESENT = """
retriever = kb.as_llama_index(similarity_top_k=1)
assert type(retriever).__module__ == "mlr_rag_llama_index.retrievers"
assert retriever.retrieve("three")[0].text == "three"
loaded = [name for name in ("torch", "langchain_core", "mlr_rag_langchain") if name in sys.modules]
assert not loaded, loaded
import mlr_rag_llama_index
assert set(mlr_rag_llama_index.__all__) <= set(dir(mlr_rag_llama_index))
"""


def run(code: str) -> None:
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr


def test_a_retriever_is_made_without_importing_the_adapter() -> None:
    run(CORE + PRESENT)


def test_llama_index_is_missing() -> None:
    run(CORE + BLOCKED)
