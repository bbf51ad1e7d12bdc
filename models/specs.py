"""What is served and where: an architecture, its prices, and the target that runs it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from planner.models.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Dimensions of a dense Llama-style decoder; enough for FLOP and bytes."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied_embeddings: bool
    weight_bytes: float = 2.0  # a parameter, as the engine holds it
    kv_bytes: float = 2.0  # a cached element, as the engine holds it

    @classmethod
    def from_config(cls, path: Path, *, weight_bytes: float, kv_bytes: float) -> Self:
        """Read a Hugging Face `config.json` (or the folder that holds it).

        Raises:
            InputError: The file is missing, is not JSON, or lacks a dimension.
        """
        file = path / "config.json" if path.is_dir() else path
        try:
            config = json.loads(file.read_text())
            heads = int(config["num_attention_heads"])
            hidden = int(config["hidden_size"])
            return cls(
                layers=int(config["num_hidden_layers"]),
                hidden=hidden,
                heads=heads,
                kv_heads=int(config.get("num_key_value_heads") or heads),
                head_dim=int(config.get("head_dim") or hidden // heads),
                intermediate=int(config["intermediate_size"]),
                vocabulary=int(config["vocab_size"]),
                tied_embeddings=bool(config.get("tie_word_embeddings", False)),
                weight_bytes=weight_bytes,
                kv_bytes=kv_bytes,
            )
        except FileNotFoundError:
            raise InputError(
                f"{file}: no such file; a model folder has a config.json"
            ) from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: not JSON ({error})") from None
        except KeyError as error:
            raise InputError(f"{file}: lacks {error}; is it a decoder's config?") from None


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What a token costs, in USD; `source` says where the figure is from."""

    usd_per_input_token: float
    usd_per_output_token: float
    source: str


@dataclass(frozen=True, kw_only=True)
class ModelTarget:
    """One candidate model and how to reach it."""

    name: str
    engine: str  # embedded | transformers | openai | vllm | recorded
    location: str  # folder of the weights, base URL of a server, or a Parquet file
    served_name: str = ""  # the server's name for the model; `name` when empty
    api_key_env: str = ""  # environment variable that holds the key; never the key itself
    chat: bool = False  # openai: /chat/completions instead of /completions
    architecture: Architecture | None = None  # None: FLOP and bytes are not known
    prices: Prices | None = None  # None: not priced
