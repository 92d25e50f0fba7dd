"""Taking the outputs of chosen layers out of a forward pass, without `output_hidden_states`.

Forward hooks cost no memory beyond the tensors they keep, and unlike the hidden-state flag they survive pickling, so
worker pools, copies and threads see the same layers.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor, nn

from mlr_rag.errors import UnsupportedModelError

_FINAL_NORMS = ("final_norm", "final_layer_norm", "norm", "ln_f")


class LayerCapture:
    """Keeps what chosen layers give in one forward pass of one thread, until it is taken.

    Layers are numbered as in the paper: 1 to L for the blocks, in order.
    """

    def __init__(self, layers: tuple[int, ...]) -> None:
        self.layers = layers
        self._local = threading.local()

    def attach(self, transformer: nn.Module) -> None:
        """Hook the layers of a sentence-transformers Transformer; doing it again does nothing.

        Raises:
            UnsupportedModelError: the model's list of layers cannot be told.
        """
        if any(isinstance(hook, _Begin) and hook.capture is self for hook in transformer._forward_pre_hooks.values()):
            return
        _, blocks = find_layers(transformer.model)
        transformer.register_forward_pre_hook(_Begin(self))  # it calls its backbone's forward past the hooks
        for layer in self.layers:
            blocks[layer - 1].register_forward_hook(_Keep(self, layer))

    def begin(self) -> None:
        """Start a forward pass on this thread."""
        self._local.kept = {}

    def keep(self, layer: int, output: Tensor) -> None:
        """Keep one layer's output `(B, T, D)`; outside a pass (a checkpoint's second run) do nothing."""
        if getattr(self._local, "kept", None) is not None:
            self._local.kept[layer] = output

    def take(self) -> dict[int, Tensor]:
        """What this thread's last pass gave, by layer; a second take finds nothing."""
        kept: dict[int, Tensor] | None = getattr(self._local, "kept", None)
        self._local.kept = None
        return kept or {}

    def __getstate__(self) -> dict[str, Any]:
        return {"layers": self.layers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.layers = state["layers"]
        self._local = threading.local()


class _Begin:
    def __init__(self, capture: LayerCapture) -> None:
        self.capture = capture

    def __call__(self, module: nn.Module, args: Any) -> None:
        self.capture.begin()


class _Keep:
    def __init__(self, capture: LayerCapture, layer: int) -> None:
        self.capture, self.layer = capture, layer

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        self.capture.keep(self.layer, output if isinstance(output, Tensor) else output[0])


def find_layers(backbone: Any) -> tuple[nn.Module, nn.ModuleList]:
    """The module that owns the list of layers, and the list: the outermost ModuleList as long as the model is deep."""
    depth = backbone.config.get_text_config().num_hidden_layers
    found = [
        (owner, child)
        for owner in backbone.modules()
        for child in owner.children()
        if isinstance(child, nn.ModuleList) and len(child) == depth
    ]
    # A layer may itself hold lists of that length (the two parts of a T5 block, experts).
    inner = {id(module) for _, blocks in found for block in blocks for module in block.modules()}
    found = [(owner, blocks) for owner, blocks in found if id(blocks) not in inner]
    if len(found) != 1:
        raise UnsupportedModelError(
            f"cannot tell the layers of {type(backbone).__name__}",
            found=f"{len(found)} module lists of length {depth}",
            expected="exactly one",
            remedy='Use pooling="last" on another base, or report the architecture.',
        )
    return found[0]


def find_final_norm(backbone: nn.Module) -> nn.Module | None:
    """The norm that the model applies after its last layer (pre-norm architectures), or None."""
    owner, _ = find_layers(backbone)
    return next((module for name, module in owner.named_children() if name in _FINAL_NORMS), None)


@torch.no_grad()
def check_capture(transformer: Any, features: dict[str, Any]) -> None:
    """Run once and compare the last hooked layer, normed, with the model's own output.

    Raises:
        UnsupportedModelError: something between the last layer and the output was not found.
    """
    _, blocks = find_layers(transformer.model)
    norm = find_final_norm(transformer.model)
    probe = LayerCapture((len(blocks),))
    hooks = [
        transformer.register_forward_pre_hook(_Begin(probe)),
        blocks[-1].register_forward_hook(_Keep(probe, len(blocks))),
    ]
    training = transformer.training
    try:
        expected: Tensor = transformer.eval()(features)["token_embeddings"]
    finally:
        transformer.train(training)
        for hook in hooks:
            hook.remove()
    captured = probe.take().get(len(blocks))
    last = norm(captured) if norm is not None and captured is not None else captured
    if last is None or last.shape != expected.shape or not torch.allclose(last, expected, atol=1e-3, rtol=1e-3):
        raise UnsupportedModelError(
            f"the last layer of {type(transformer.model).__name__} is not its output",
            found="another vector after the last layer",
            expected=f"the layer's output, or its {' / '.join(_FINAL_NORMS)}",
            remedy="Report the architecture: its layers cannot be captured yet.",
        )
