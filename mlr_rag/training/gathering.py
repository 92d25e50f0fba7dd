"""The passages of all processes as candidates of each."""

from __future__ import annotations

import torch
from sentence_transformers.util.distributed import all_gather, all_gather_with_grad
from torch import Tensor, distributed


def gather_passages(passages: Tensor, keys: Tensor) -> Tensor:
    """This process's passages `(P, m, D)`, and after them the distinct passages that only other processes hold.

    Gradients flow back to the process that encoded a passage. A passage that this process holds too is its own, so
    that it appears once, as in one process with the whole batch.

    Args:
        passages: Their vectors.
        keys: `(P,)` long: equal for equal texts.

    Returns:
        `(P', m, D)`, P' >= P; the passages themselves where there is one process.
    """
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return passages
    here, count = distributed.get_rank(), len(passages)
    counts = all_gather(torch.tensor([count], device=passages.device))
    width = int(counts.max())
    vectors = all_gather_with_grad(_longer(passages, width)).view(-1, width, *passages.shape[1:])
    texts = all_gather(_longer(keys, width)).view(-1, width).tolist()
    seen = set(keys.tolist())
    others: list[tuple[int, int]] = []
    for process, held in enumerate(counts.tolist()):
        for row in range(held if process != here else 0):
            if texts[process][row] not in seen:
                seen.add(texts[process][row])
                others.append((process, row))
    if not others:
        return torch.cat([passages, vectors[:0].flatten(0, 1)])
    processes, rows = torch.tensor(others, device=passages.device).unbind(1)
    return torch.cat([passages, vectors[processes, rows]])


def _longer(rows: Tensor, count: int) -> Tensor:
    return torch.cat([rows, rows.new_zeros(count - len(rows), *rows.shape[1:])])
