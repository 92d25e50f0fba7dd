"""Tiny random models of every architecture that is covered, built in milliseconds and saved as folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers as hf
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = (
    "the a of to in is it was paris france capital water boils river old roads meet stone bridge what how read file "
    "line by without loading all kettle on stove sing before anyone kitchen awake one two three part number error page"
).split()
LETTERS = [chr(c) for c in range(97, 123)] + list("0123456789.,:;?!'-()=")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = [*SPECIAL, *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
_SIZES = {"vocab_size": len(VOCABULARY), "hidden_size": 32, "intermediate_size": 48, "pad_token_id": 0}
_HEADS = {"num_hidden_layers": 3, "num_attention_heads": 2, "max_position_embeddings": 80}

CONFIGS: dict[str, Any] = {
    "bert": lambda: hf.BertConfig(**_SIZES, **_HEADS),
    "roberta": lambda: hf.RobertaConfig(**_SIZES, **_HEADS),
    "mpnet": lambda: hf.MPNetConfig(**_SIZES, **_HEADS),
    "distilbert": lambda: hf.DistilBertConfig(
        vocab_size=len(VOCABULARY),
        dim=32,
        hidden_dim=48,
        n_layers=3,
        n_heads=2,
        max_position_embeddings=80,
        pad_token_id=0,
    ),
    "modernbert": lambda: hf.ModernBertConfig(
        **_SIZES, **_HEADS, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3, local_attention=16
    ),
    "t5": lambda: hf.T5Config(
        vocab_size=len(VOCABULARY), d_model=32, d_ff=48, d_kv=16, num_layers=3, num_heads=2, pad_token_id=0
    ),
    "qwen": lambda: hf.Qwen3Config(
        **_SIZES, **_HEADS, num_key_value_heads=1, head_dim=16, bos_token_id=2, eos_token_id=3
    ),
}
_CLASSES = {"t5": hf.T5EncoderModel}
TOKEN_POOLING = {"qwen": "lasttoken", "roberta": "cls", "modernbert": "cls"}


def tokenizer() -> hf.PreTrainedTokenizerFast:
    """WordPiece over a small vocabulary that can spell anything in ASCII."""
    pieces = Tokenizer(models.WordPiece({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    pieces.normalizer = normalizers.BertNormalizer()
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", [("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=pieces, model_max_length=64, **dict(zip(names, SPECIAL, strict=True))
    )


def build(kind: str, folder: Path, seed: int = 0, normalize: bool = True, num_layers: int = 3) -> Path:
    """A sentence-transformers folder with random weights; layers are scaled up so that they differ visibly."""
    torch.manual_seed(seed)
    config = CONFIGS[kind]()
    config.num_hidden_layers = num_layers
    backbone = _CLASSES[kind](config) if kind in _CLASSES else hf.AutoModel.from_config(config)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.ndim > 1:
                parameter.mul_(12.0 if kind == "modernbert" else 4.0)
    plain = folder / "plain"
    backbone.save_pretrained(plain)
    tokenizer().save_pretrained(plain)
    transformer = Transformer(str(plain))
    transformer.max_seq_length = 64
    pooling = Pooling(transformer.get_embedding_dimension(), TOKEN_POOLING.get(kind, "mean"))
    modules = [transformer, pooling, *([Normalize()] if normalize else [])]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "st"), create_model_card=False)
    return folder / "st"
