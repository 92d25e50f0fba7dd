"""A tiny random cross-encoder, saved as a folder."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers as hf

from tests.tiny import CONFIGS, tokenizer


def build_cross_encoder(folder: Path, seed: int = 0, num_labels: int = 1) -> Path:
    """A plain transformers folder, with weights scaled up so that logits differ visibly."""
    torch.manual_seed(seed)
    config = CONFIGS["bert"]()
    config.num_labels = num_labels
    model = hf.AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0)
        model.classifier.weight.mul_(25.0)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
