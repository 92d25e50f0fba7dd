"""Which way of computing attention trains fastest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def plain_attention(model: Any, half: bool) -> Iterator[None]:
    """Attention by plain matrix products, where a processor computes in bfloat16: torch's fused one is slower there.

    Its backward pass is what is slow: a step takes 1.1 (253 tokens) to 1.9 times (19 tokens) as long with it. In
    float32, and on a GPU, the model keeps what it has.

    Args:
        model: A SentenceTransformer.
        half: Whether its forward pass is in bfloat16.
    """
    inner = model[0].model
    fused = getattr(getattr(inner, "config", None), "_attn_implementation", "") == "sdpa"
    if not (half and fused and model.device.type == "cpu" and hasattr(inner, "set_attn_implementation")):
        yield
        return
    inner.set_attn_implementation("eager")
    try:
        yield
    finally:
        inner.set_attn_implementation("sdpa")
