"""The Llama architecture of the reference models in torch, for training only.

Parameter names, RoPE layout and config are Hugging Face's, so that the files load in
transformers, vLLM and the embedded engine alike.
"""

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from planner.calibration.reference.tasks import BOS, EOS, PAD, SPECIAL, VOCABULARY

VOCABULARY_SIZE = 32
MAX_POSITIONS = 256
ROPE_THETA = 10000.0
RMS_EPSILON = 1e-6

SIZES: dict[str, dict[str, int]] = {
    "tiny-0.2m": {
        "hidden_size": 64, "num_hidden_layers": 4, "intermediate_size": 176,
        "num_attention_heads": 2, "num_key_value_heads": 2,
    },
    "tiny-0.8m": {
        "hidden_size": 128, "num_hidden_layers": 4, "intermediate_size": 352,
        "num_attention_heads": 4, "num_key_value_heads": 4,
    },
    "tiny-3m": {
        "hidden_size": 256, "num_hidden_layers": 4, "intermediate_size": 704,
        "num_attention_heads": 8, "num_key_value_heads": 4,
    },
    "tiny-7m": {
        "hidden_size": 384, "num_hidden_layers": 5, "intermediate_size": 896,
        "num_attention_heads": 12, "num_key_value_heads": 4,
    },
}  # fmt: skip


class _RmsNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, RMS_EPSILON)


class _Attention(nn.Module):
    def __init__(self, size: dict[str, int]) -> None:
        super().__init__()
        width, self.heads = size["hidden_size"], size["num_attention_heads"]
        self.kv_heads = size["num_key_value_heads"]
        kv_width = width // self.heads * self.kv_heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, kv_width, bias=False)
        self.v_proj = nn.Linear(width, kv_width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        rows, length, _ = x.shape
        q, k, v = (
            p(x).view(rows, length, h, -1).transpose(1, 2)
            for p, h in (
                (self.q_proj, self.heads), (self.k_proj, self.kv_heads),
                (self.v_proj, self.kv_heads),
            )
        )  # fmt: skip
        q, k = q * cos + _rotated(q) * sin, k * cos + _rotated(k) * sin
        k = k.repeat_interleave(self.heads // self.kv_heads, 1)
        v = v.repeat_interleave(self.heads // self.kv_heads, 1)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(out.transpose(1, 2).reshape(rows, length, -1))


class _Mlp(nn.Module):
    def __init__(self, size: dict[str, int]) -> None:
        super().__init__()
        width, inner = size["hidden_size"], size["intermediate_size"]
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class _Layer(nn.Module):
    def __init__(self, size: dict[str, int]) -> None:
        super().__init__()
        self.self_attn, self.mlp = _Attention(size), _Mlp(size)
        self.input_layernorm = _RmsNorm(size["hidden_size"])
        self.post_attention_layernorm = _RmsNorm(size["hidden_size"])

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class _Trunk(nn.Module):
    def __init__(self, size: dict[str, int]) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCABULARY_SIZE, size["hidden_size"])
        self.layers = nn.ModuleList(_Layer(size) for _ in range(size["num_hidden_layers"]))
        self.norm = _RmsNorm(size["hidden_size"])


def _rotated(x: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat([-second, first], -1)


class Llama(nn.Module):
    """A decoder whose head gives token logits, or one score a position for a verifier.

    Args:
        size: One of `SIZES`.
        outputs: `VOCABULARY_SIZE`, or 1 for a verifier.
    """

    def __init__(self, size: dict[str, int], outputs: int = VOCABULARY_SIZE) -> None:
        super().__init__()
        self.size, self.head_name = size, "lm_head" if outputs > 1 else "score"
        self.model = _Trunk(size)
        self.add_module(self.head_name, nn.Linear(size["hidden_size"], outputs, bias=False))
        head_dim = size["hidden_size"] // size["num_attention_heads"]
        frequency = ROPE_THETA ** -(torch.arange(0, head_dim, 2).float() / head_dim)
        angle = torch.outer(torch.arange(MAX_POSITIONS).float(), frequency).repeat(1, 2)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                nn.init.normal_(weight, 0, _initial_std(name, weight))

    def hidden(self, ids: Tensor) -> Tensor:
        """Final hidden states, (rows, length, width), of token ids (rows, length)."""
        x = self.model.embed_tokens(ids)
        cos, sin = (
            self.cos[: ids.shape[1]].to(x.dtype),
            self.sin[: ids.shape[1]].to(x.dtype),
        )
        for layer in self.model.layers:
            x = layer(x, cos, sin)
        return self.model.norm(x)

    def head(self, hidden: Tensor) -> Tensor:
        """Logits or scores of hidden states."""
        return self.get_submodule(self.head_name)(hidden)


def _initial_std(name: str, weight: Tensor) -> float:
    if "lm_head" in name or "score" in name:
        return 0.01
    if "embed" in name:
        return 0.02
    residual = "o_proj" in name or "down_proj" in name
    return weight.shape[1] ** -0.5 * (0.5 if residual else 1.0)


def hugging_face_config(size: dict[str, int], *, verifier: bool) -> dict[str, Any]:
    """The `config.json` of a reference model."""
    config: dict[str, Any] = {
        "architectures": [
            "LlamaForSequenceClassification" if verifier else "LlamaForCausalLM"
        ],
        "model_type": "llama",
        "vocab_size": VOCABULARY_SIZE,
        "hidden_act": "silu",
        "max_position_embeddings": MAX_POSITIONS,
        "head_dim": size["hidden_size"] // size["num_attention_heads"],
        "rms_norm_eps": RMS_EPSILON,
        "rope_theta": ROPE_THETA,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
        "dtype": "float16",
        **size,
    }
    if verifier:
        config |= {
            "num_labels": 1,
            "id2label": {"0": "correct"},
            "label2id": {"correct": 0},
        }
    return config


def save(model: Llama, folder: Path) -> None:
    """Write the model in Hugging Face format: fp16 safetensors, config, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {k: v.detach().half().contiguous() for k, v in model.state_dict().items()}
    staged = folder / "model.safetensors.tmp"
    save_file(weights, staged, metadata={"format": "pt"})
    staged.rename(folder / "model.safetensors")
    verifier = model.head_name == "score"
    files: dict[str, Any] = {
        "config.json": hugging_face_config(model.size, verifier=verifier),
        "tokenizer.json": _tokenizer(),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "pad_token": "<pad>",
            "model_max_length": MAX_POSITIONS,
            "clean_up_tokenization_spaces": False,
        },
    }
    if not verifier:
        files["generation_config.json"] = {
            "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD,
        }  # fmt: skip
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1) + "\n")


def _tokenizer() -> dict[str, Any]:
    """`tokenizer.json` of the `tokenizers` library: one token a character, BOS first."""
    special = [
        {
            "id": VOCABULARY[token], "content": token, "special": True,
            "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
        }
        for token in SPECIAL
    ]  # fmt: skip
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated",
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
    }  # fmt: skip
