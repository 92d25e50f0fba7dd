"""Splitting texts at their own boundaries into what a model reads."""

from __future__ import annotations

from typing import Any

from semantic_text_splitter import MarkdownSplitter, TextSplitter
from tokenizers import Tokenizer

from mlr_rag.encoders import prompt_of
from mlr_rag.errors import InvalidInputError

_UNBOUNDED = 512  # the length for a model that has none


class Splitter:
    """Cuts texts where they have boundaries (sections, paragraphs, sentences, words), none longer than the model reads.

    Args:
        model: A SentenceTransformer; its tokenizer is copied.

    Raises:
        InvalidInputError: it is none, or its document prompt leaves no room for a text.

    Attributes:
        size: The largest number of tokens in a chunk, special tokens and the document prompt not counted.
    """

    def __init__(self, model: Any) -> None:
        tokenizer = getattr(model, "tokenizer", None)
        if tokenizer is None:
            raise InvalidInputError(
                "a model without a tokenizer",
                found=type(model).__name__,
                expected="an MLRModel or another SentenceTransformer",
                remedy="Split the texts yourself and pass them to Retriever.sync.",
            )
        pieces = _copy(tokenizer)
        length = model.max_seq_length or _UNBOUNDED
        prompt = prompt_of(model, "document")
        taken = tokenizer.num_special_tokens_to_add() + len(pieces.encode(prompt, add_special_tokens=False))
        self.size = length - taken
        if self.size < 1:
            raise InvalidInputError(
                "the model has no room for a text",
                found=f"{taken} tokens for the prompt and the special tokens",
                expected=f"fewer than the {length} that it reads",
            )
        self._text = TextSplitter.from_huggingface_tokenizer(pieces, self.size)
        self._markdown = MarkdownSplitter.from_huggingface_tokenizer(pieces, self.size)

    def split(self, text: str, *, markdown: bool = False) -> list[str]:
        """The chunks of a text, trimmed; blank ones are dropped."""
        chunks = (self._markdown if markdown else self._text).chunks(text)
        return [chunk for chunk in chunks if chunk.strip()]


def _copy(tokenizer: Any) -> Tokenizer:
    """The tokenizer's own engine, without the limits that encoding leaves in it."""
    if not tokenizer.is_fast:
        raise InvalidInputError(
            "a model whose tokenizer is not a fast one",
            found=type(tokenizer).__name__,
            expected="a tokenizer of the tokenizers library",
            remedy="Split the texts yourself and pass them to Retriever.sync.",
        )
    pieces = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    pieces.no_truncation()
    pieces.no_padding()
    return pieces
