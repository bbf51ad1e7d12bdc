"""The Llama forward pass in numpy: read a Hugging Face folder, prefill, decode.

Made for models of a few million parameters on a CPU, where the time goes into many small
operations. What does not depend on the input is folded into the weights when they are read:

- the gain of an RMSNorm and its sqrt(width), into the matrix that follows;
- 1 / sqrt(head_dim), into the query matrix;
- rotary embedding (arXiv:2104.09864): query and key rows are reordered so that the two
  halves of a pair are neighbours; the rotation is then one complex multiplication;
- SiLU (arXiv:2002.05202) is x (1 + tanh x) at half the gate, so the gate is halved.

Sizes: R rows (sequences), L layers, K key-value heads, G query heads each, D head_dim.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from planner.engines.kv_cache import Block
from planner.models.errors import InputError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_SCORES_MAX = 4_000_000  # attention scores held at once by a prefill: 16 MB
_TOKENS_MAX = 4096  # of one prefill call: bounds its activations


@dataclass(frozen=True, kw_only=True)
class LlamaConfig:
    """What `config.json` says, as far as the forward pass needs it."""

    vocabulary: int
    width: int
    layers: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    max_positions: int
    rope_theta: float
    epsilon: float
    tied: bool
    eos: tuple[int, ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a `config.json`.

        Raises:
            InputError: No such file, not JSON, or a model this forward pass cannot run.
        """
        try:
            raw = json.loads(path.read_bytes())
            if not isinstance(raw, dict):
                raise ValueError("not an object")
        except FileNotFoundError:
            raise InputError(
                f"{path}: no such file; name a folder in Hugging Face format"
            ) from None
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        except ValueError as error:
            raise InputError(f"{path}: not JSON ({error}); copy the file again") from None
        refusal = _refusal(raw)
        if refusal:
            raise InputError(
                f"{path}: {refusal}, which the embedded engine cannot run;"
                " set `engine: transformers` for this model"
            )
        try:
            heads, eos = int(raw["num_attention_heads"]), raw.get("eos_token_id")
            rope = raw.get("rope_parameters") or {}
            config = cls(
                vocabulary=int(raw["vocab_size"]),
                width=int(raw["hidden_size"]),
                layers=int(raw["num_hidden_layers"]),
                inner=int(raw["intermediate_size"]),
                heads=heads,
                kv_heads=int(raw.get("num_key_value_heads") or heads),
                head_dim=int(raw.get("head_dim") or raw["hidden_size"] // heads),
                max_positions=int(raw["max_position_embeddings"]),
                rope_theta=float(raw.get("rope_theta") or rope.get("rope_theta") or 1e4),
                epsilon=float(raw.get("rms_norm_eps", 1e-6)),
                tied=bool(raw.get("tie_word_embeddings", False)),
                eos=() if eos is None else tuple(eos) if isinstance(eos, list) else (eos,),
            )
        except KeyError as error:
            raise InputError(f"{path}: {error.args[0]} is missing") from None
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise InputError(
                f"{path}: a value is not of the right kind ({error})"
            ) from None
        sizes = (config.vocabulary, config.width, config.layers, config.inner, config.heads)
        if min(*sizes, config.kv_heads, config.max_positions) < 1:
            raise InputError(f"{path}: every size must be at least 1")
        if config.heads % config.kv_heads or config.head_dim % 2 or config.head_dim < 2:
            raise InputError(
                f"{path}: need num_key_value_heads to divide num_attention_heads and an"
                f" even head_dim, got {config.kv_heads}, {heads} and {config.head_dim}"
            )
        return config


def _refusal(raw: dict[str, Any]) -> str:
    """What the forward pass here cannot do and the config asks for; empty when nothing."""
    if raw.get("model_type") != "llama":
        return f"its model_type is {raw.get('model_type')!r}, not 'llama'"
    for key in ("rope_scaling", "rope_parameters"):
        scaling = raw.get(key)
        if scaling:
            kind = scaling.get("rope_type", scaling.get("type", "default"))
            if kind != "default":
                return f"it scales rotary positions ({key}: {kind!r})"
    for key in ("attention_bias", "mlp_bias"):
        if raw.get(key):
            return f"it has {key}"
    if raw.get("hidden_act", "silu") not in ("silu", "swish"):
        return f"its hidden_act is {raw['hidden_act']!r}"
    return ""


@dataclass(frozen=True, eq=False)
class _Layer:
    """Folded weights; a vector times a matrix, so (inputs, outputs)."""

    qkv: Floats  # (width, (heads + 2 kv_heads) x head_dim)
    out: Floats  # (heads x head_dim, width)
    gate_up: Floats  # (2, width, inner): half the gate, then up
    down: Floats  # (inner, width)


@dataclass(frozen=True, eq=False)
class Llama:
    """A model in memory; immutable, so that threads can share it."""

    config: LlamaConfig
    embedding: Floats  # (vocabulary, width)
    layers: tuple[_Layer, ...]
    head: Floats  # (width, outputs)
    rotation: NDArray[np.complex64]  # (max_positions, head_dim / 2)

    @classmethod
    def load(cls, folder: Path, *, head: str = "lm_head") -> Self:
        """Read `config.json` and `model.safetensors`.

        Args:
            folder: In Hugging Face format.
            head: "lm_head", or "score" for a verifier.

        Raises:
            InputError: A file is missing or damaged, or the model is of another kind.
        """
        config = LlamaConfig.read(folder / "config.json")
        path = folder / "model.safetensors"
        try:
            tensors = load_file(path)
        except FileNotFoundError:
            raise InputError(
                f"{path}: no such file; the embedded engine reads one safetensors file"
            ) from None
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: damaged or not safetensors ({error}); copy the file again"
            ) from None

        def take(name: str, *shape: int) -> Floats:
            if name not in tensors:
                raise InputError(f"{path}: tensor {name} is missing")
            if tensors[name].shape != shape:
                raise InputError(
                    f"{path}: tensor {name} is {tensors[name].shape},"
                    f" config.json says {shape}"
                )
            weight: Floats = tensors[name].astype(np.float32)
            if not np.isfinite(weight).all():
                raise InputError(f"{path}: tensor {name} holds values that are not finite")
            return weight

        c = config
        embedding = take("model.embed_tokens.weight", c.vocabulary, c.width)
        norm = take("model.norm.weight", c.width)
        if head == "score":
            last = take("score.weight", 1, c.width)
        elif c.tied:
            last = embedding
        else:
            last = take("lm_head.weight", c.vocabulary, c.width)
        frequency = c.rope_theta ** -(np.arange(0, c.head_dim, 2) / c.head_dim)
        angle = np.outer(np.arange(c.max_positions), frequency)
        return cls(
            config=config,
            embedding=embedding,
            layers=tuple(_folded(config, take, i) for i in range(c.layers)),
            head=_transposed(last * (norm * math.sqrt(c.width))),
            rotation=np.exp(1j * angle).astype(np.complex64),
        )

    def prefill(
        self, ids: Ints, lengths: Ints, *, keep_cache: bool = True
    ) -> tuple[Floats, Floats | None]:
        """Run whole sequences; the head's outputs at each one's last token, and the cache.

        Args:
            ids: (R, T), sequences at the left; what follows them is ignored.
            lengths: (R,), from 1 to T.
            keep_cache: Whether the keys and values are wanted.

        Returns:
            (R, outputs), and (L, 2, R, K, T, D) or None.
        """
        c = self.config
        rows, length = ids.shape
        cache = (
            np.empty((c.layers, 2, rows, c.kv_heads, length, c.head_dim), np.float32)
            if keep_cache
            else None
        )
        outputs = np.empty((rows, self.head.shape[1]), np.float32)
        step = max(1, min(_TOKENS_MAX // length, _SCORES_MAX // (c.heads * length**2)))
        for first in range(0, rows, step):
            part = slice(first, first + step)
            hidden = self.hidden(
                ids[part], None if cache is None else cache[:, :, part], lengths[part] - 1
            )
            np.matmul(hidden, self.head, out=outputs[part])
        return outputs, cache

    def hidden(
        self, ids: Ints, cache: Floats | None = None, at: Ints | None = None
    ) -> Floats:
        """Normalised final states of whole sequences, before the head.

        Args:
            ids: (R, T).
            cache: Filled with keys and values; (L, 2, R, K, T, D).
            at: (R,), the position wanted of each row; None: all of them.

        Returns:
            (R, T, width), or (R, width) with `at`.
        """
        c = self.config
        rows, length = ids.shape
        group, split = c.heads // c.kv_heads, c.heads * c.head_dim
        x = self.embedding[ids.ravel()]
        rotation = np.tile(self.rotation[:length], (rows, 1))[:, None]
        future = np.triu(np.full((length, length), -np.inf, np.float32), 1)
        for i, layer in enumerate(self.layers):
            qkv = self._normalised(x) @ layer.qkv
            pairs = qkv[:, : split + c.kv_heads * c.head_dim].view(np.complex64)
            turning = pairs.reshape(rows * length, -1, c.head_dim // 2)
            turning *= rotation
            q = qkv[:, :split].reshape(rows, length, c.kv_heads, group, c.head_dim)
            kv = qkv[:, split:].reshape(rows, length, 2, c.kv_heads, c.head_dim)
            kv = kv.transpose(2, 0, 3, 1, 4)  # (2, R, K, T, D)
            if cache is not None:
                cache[i] = kv
            scores = q.transpose(0, 2, 3, 1, 4) @ kv[0][:, :, None].swapaxes(-1, -2)
            scores += future
            scores -= scores.max(-1, keepdims=True)
            np.exp(scores, out=scores)
            scores /= scores.sum(-1, keepdims=True)
            mixed = (scores @ kv[1][:, :, None]).transpose(0, 3, 1, 2, 4)
            x += mixed.reshape(rows * length, split) @ layer.out
            gate, up = self._normalised(x) @ layer.gate_up
            x += _gated(gate, up) @ layer.down
        if at is not None:
            return self._normalised(x.reshape(rows, length, -1)[np.arange(rows), at])
        return self._normalised(x).reshape(rows, length, -1)

    def decode(self, block: Block, tokens: Ints) -> Floats:
        """Run one token of each row of a block, and put it into the block's cache.

        Args:
            block: Its cache grows by one column.
            tokens: (R,).

        Returns:
            (R, vocabulary).
        """
        c, rows = self.config, len(tokens)
        group, split = c.heads // c.kv_heads, c.heads * c.head_dim
        column, positions = block.open_column()
        rotation = self.rotation[positions][:, None]
        x = self.embedding[tokens]
        h = np.empty_like(x)
        qkv = np.empty((rows, split + 2 * c.kv_heads * c.head_dim), np.float32)
        pairs = qkv[:, : split + c.kv_heads * c.head_dim].view(np.complex64)
        turning = pairs.reshape(rows, -1, c.head_dim // 2)
        q = qkv[:, :split].reshape(rows, c.kv_heads, group, c.head_dim)
        new = qkv[:, split:].reshape(rows, 2, c.kv_heads, c.head_dim).swapaxes(0, 1)
        scores = np.empty((*q.shape[:3], block.length), np.float32)
        mixed = np.empty((rows, split), np.float32)
        by_head = mixed.reshape(q.shape)
        gate_up = np.empty((2, rows, c.inner), np.float32)
        for i, layer in enumerate(self.layers):
            np.matmul(self._normalised(x, h), layer.qkv, out=qkv)
            np.multiply(turning, rotation, out=turning)
            kv = block.kv[i]
            kv[:, :rows, :, column] = new
            block.attend(i, q, scores, by_head)
            np.matmul(mixed, layer.out, out=h)
            np.add(x, h, out=x)
            np.matmul(self._normalised(x, h), layer.gate_up, out=gate_up)
            np.matmul(_gated(gate_up[0], gate_up[1]), layer.down, out=h)
            np.add(x, h, out=x)
        logits: Floats = self._normalised(x, h) @ self.head
        return logits

    def _normalised(self, x: Floats, out: Floats | None = None) -> Floats:
        """RMSNorm but for its gain and sqrt(width), which are in the next matrix."""
        norm: Floats = np.vecdot(x, x)
        norm += np.float32(self.config.width * self.config.epsilon)
        np.sqrt(norm, out=norm)
        scaled: Floats = np.divide(x, norm[..., None], out=out)
        return scaled


def _gated(half_gate: Floats, up: Floats) -> Floats:
    """SiLU(gate) x up, of half the gate: g (1 + tanh(g)) with g = gate / 2."""
    gated = np.tanh(half_gate)
    gated += np.float32(1)
    gated *= half_gate
    gated *= up
    return gated


def _folded(config: LlamaConfig, take: Callable[..., Floats], index: int) -> _Layer:
    """One layer's weights with norms, scales and the order of pairs folded in."""
    c, name = config, f"model.layers.{index}"
    scale = math.sqrt(c.width)
    before = take(f"{name}.input_layernorm.weight", c.width) * scale
    between = take(f"{name}.post_attention_layernorm.weight", c.width) * scale
    wide, narrow = c.heads * c.head_dim, c.kv_heads * c.head_dim

    def paired(weight: Floats) -> Floats:
        """Rows 0, D/2, 1, D/2 + 1, ... of each head: what rotates together, together."""
        halves = weight.reshape(-1, 2, c.head_dim // 2, c.width)
        return halves.swapaxes(1, 2).reshape(weight.shape)

    q = paired(take(f"{name}.self_attn.q_proj.weight", wide, c.width))
    k = paired(take(f"{name}.self_attn.k_proj.weight", narrow, c.width))
    v = take(f"{name}.self_attn.v_proj.weight", narrow, c.width)
    gate = take(f"{name}.mlp.gate_proj.weight", c.inner, c.width)
    up = take(f"{name}.mlp.up_proj.weight", c.inner, c.width)
    return _Layer(
        qkv=_transposed(np.concatenate([q / math.sqrt(c.head_dim), k, v]) * before),
        out=_transposed(take(f"{name}.self_attn.o_proj.weight", c.width, wide)),
        gate_up=np.stack([_transposed(gate * between / 2), _transposed(up * between)]),
        down=_transposed(take(f"{name}.mlp.down_proj.weight", c.width, c.inner)),
    )


def _transposed(weight: NDArray[np.floating]) -> Floats:
    return np.ascontiguousarray(weight.T, dtype=np.float32)
