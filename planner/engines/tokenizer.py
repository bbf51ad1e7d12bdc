"""Character tokenizers, read from `tokenizer.json` of Hugging Face's `tokenizers`.

Only the kind whose every token is one character is read here: a WordLevel model behind a
split into single characters. It needs no library and cannot disagree with the original.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from planner.models.errors import InputError

_EVERY_CHARACTER = frozenset({r"[\s\S]", r"[\S\s]", "(?s).", r"[\s\S]{1}"})


@dataclass(frozen=True)
class CharacterTokenizer:
    """One token a character, with special tokens around the text."""

    ids: dict[str, int]  # of the characters
    before: tuple[int, ...]  # special tokens that every text starts with
    after: tuple[int, ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a `tokenizer.json`.

        Raises:
            InputError: No such file, not JSON, or a tokenizer of another kind.
        """
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise InputError(
                f"{path}: no such file; a model folder needs its tokenizer.json"
            ) from None
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        except ValueError as error:
            raise InputError(f"{path}: not JSON ({error}); copy the file again") from None
        try:
            return cls._parse(content)
        except (KeyError, TypeError, AttributeError, IndexError):
            problem = "not laid out as the tokenizers library writes it"
        except _UnsupportedError as error:
            problem = str(error)
        raise InputError(
            f"{path}: {problem}; the embedded engine reads character-level WordLevel"
            " tokenizers only: set `engine: transformers` for this model"
        )

    @classmethod
    def _parse(cls, content: dict[str, Any]) -> Self:
        model, split = content["model"], content.get("pre_tokenizer") or {}
        if model.get("type") != "WordLevel":
            raise _UnsupportedError(f"its model is {model.get('type')!r}")
        if content.get("normalizer") is not None:
            raise _UnsupportedError("it normalises text")
        pattern = split.get("pattern", {}).get("Regex")
        if (
            split.get("type") != "Split"
            or pattern not in _EVERY_CHARACTER
            or split.get("behavior") != "Isolated"
            or split.get("invert")
        ):
            raise _UnsupportedError("it does not split text into single characters")
        special = {token["content"]: int(token["id"]) for token in content["added_tokens"]}
        ids = {token: int(i) for token, i in model["vocab"].items() if token not in special}
        longer = next((token for token in ids if len(token) != 1), None)
        if longer is not None:
            raise _UnsupportedError(f"its token {longer!r} is not one character")
        before, after = _template(content.get("post_processor"), special)
        return cls(ids, before, after)

    def count(self, text: str) -> int:
        """Tokens of a text, special ones included."""
        return len(self.before) + len(text) + len(self.after)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, special ones included.

        Raises:
            InputError: A character the model does not know.
        """
        try:
            return [*self.before, *map(self.ids.__getitem__, text), *self.after]
        except KeyError as error:
            (character,) = error.args
            raise InputError(
                f"the prompt's character {character!r} at {text.index(character)} is not in"
                f" the model's vocabulary ({''.join(sorted(self.ids))})"
            ) from None

    def pieces(self, size: int) -> list[str]:
        """The text of each token id below `size`; empty for special and unused ids."""
        pieces = [""] * size
        for character, i in self.ids.items():
            if i < size:
                pieces[i] = character
        return pieces


class _UnsupportedError(Exception):
    """Why a tokenizer cannot be read; becomes the middle of an InputError."""


def _template(
    processor: dict[str, Any] | None, special: dict[str, int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Special token ids before and after a text."""
    if processor is None:
        return (), ()
    if processor["type"] != "TemplateProcessing":
        raise _UnsupportedError(f"its post-processor is {processor['type']!r}")
    parts: Sequence[dict[str, Any]] = processor["single"]
    places = [i for i, part in enumerate(parts) if "Sequence" in part]
    if len(places) != 1:
        raise _UnsupportedError("its template does not hold the text once")

    def ids(some: Sequence[dict[str, Any]]) -> tuple[int, ...]:
        return tuple(special[part["SpecialToken"]["id"]] for part in some)

    return ids(parts[: places[0]]), ids(parts[places[0] + 1 :])
