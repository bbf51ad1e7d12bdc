"""A Llama of random weights on disk, in Hugging Face format, made with numpy alone.

Its tokenizer is that of the reference models; tests reach it by the `tiny_model` fixture.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from planner.calibration.reference.tasks import BOS, EOS, PAD, SPECIAL, VOCABULARY

VOCABULARY_SIZE = 32


def write_tiny_model(
    folder: Path,
    rng: np.random.Generator,
    *,
    hidden: int = 32,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    verifier: bool = False,
    tied: bool = False,
    max_positions: int = 256,
    sharpness: float = 1.0,
    **config: Any,
) -> Path:
    """Write config.json, tokenizer.json and model.safetensors; the folder.

    Args:
        folder: Where to; made if missing.
        rng: Source of the weights.
        hidden: Width; a multiple of 2 x heads.
        layers: Decoder layers.
        heads: Attention heads.
        kv_heads: Key and value heads; divides heads.
        verifier: One score a position in place of token logits.
        tied: The embedding doubles as the head.
        max_positions: Longest sequence.
        sharpness: Scale of the head; logits have about this standard deviation.
        **config: Overrides of config.json.
    """
    head_dim, inner = hidden // heads, 2 * hidden
    kv_width = kv_heads * head_dim

    def matrix(rows: int, columns: int, scale: float = 1.0) -> np.ndarray:
        weights = rng.normal(0, scale / np.sqrt(columns), (rows, columns))
        return weights.astype(np.float16)

    weights: dict[str, np.ndarray] = {
        "model.embed_tokens.weight": matrix(VOCABULARY_SIZE, hidden, 2 * sharpness)
    }
    for layer in range(layers):
        shapes = {
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (kv_width, hidden),
            "self_attn.v_proj": (kv_width, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
        }
        for name, shape in shapes.items():
            weights[f"model.layers.{layer}.{name}.weight"] = matrix(*shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"model.layers.{layer}.{name}.weight"] = _norm(rng, hidden)
    weights["model.norm.weight"] = _norm(rng, hidden)
    if verifier:
        weights["score.weight"] = matrix(1, hidden, sharpness)
    elif not tied:
        weights["lm_head.weight"] = matrix(VOCABULARY_SIZE, hidden, sharpness)

    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    files = {
        "config.json": {
            "architectures": [
                "LlamaForSequenceClassification" if verifier else "LlamaForCausalLM"
            ],
            "model_type": "llama",
            "vocab_size": VOCABULARY_SIZE,
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "intermediate_size": inner,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": head_dim,
            "hidden_act": "silu",
            "max_position_embeddings": max_positions,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "tie_word_embeddings": tied,
            "attention_bias": False,
            "mlp_bias": False,
            "bos_token_id": BOS,
            "eos_token_id": EOS,
            "pad_token_id": PAD,
            "dtype": "float16",
            **({"num_labels": 1} if verifier else {}),
            **config,
        },
        "tokenizer.json": tokenizer(),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "pad_token": "<pad>",
            "clean_up_tokenization_spaces": False,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1) + "\n")
    return folder


def tokenizer() -> dict[str, Any]:
    """`tokenizer.json` of the reference models: one token a character, BOS first."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": VOCABULARY[token],
                "content": token,
                "special": True,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
            }
            for token in SPECIAL
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": r"[\s\S]"},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<bos>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {
                "<bos>": {"id": "<bos>", "ids": [BOS], "tokens": ["<bos>"]},
            },
        },
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": VOCABULARY, "unk_token": "<pad>"},
    }


def _norm(rng: np.random.Generator, width: int) -> np.ndarray:
    return rng.uniform(0.5, 1.5, width).astype(np.float16)
