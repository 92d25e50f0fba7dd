"""The doors that the frameworks ship encode a query as a document: why there are doors of our own.

Should this fail one day, the pages in docs/ must say so.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from langchain_huggingface import HuggingFaceEmbeddings
from llama_index.embeddings.huggingface import HuggingFaceEmbedding

from mlr_rag import MLRModel

TEXT = "paris was the capital: a river, an old stone bridge"


@pytest.mark.parametrize("stock", ["langchain", "llama_index"])
def test_the_stock_doors_encode_a_query_as_a_document(stock: str, asymmetric_model: MLRModel, tmp_path: Path) -> None:
    asymmetric_model.export_portable(tmp_path / "portable")
    if stock == "langchain":
        query = HuggingFaceEmbeddings(model_name=str(tmp_path / "portable")).embed_query(TEXT)
    else:
        query = HuggingFaceEmbedding(str(tmp_path / "portable")).get_query_embedding(TEXT)
    unit = np.array(query) / np.linalg.norm(query)
    np.testing.assert_allclose(unit, asymmetric_model.encode_document([TEXT])[0], atol=1e-5)
    assert float(unit @ asymmetric_model.encode_query([TEXT])[0]) < 0.99
