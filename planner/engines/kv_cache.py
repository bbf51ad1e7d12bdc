"""Keys and values of rows that are decoded together.

The rows of a block were admitted together, so they share the column that is written next:
a write is one slice and no row waits for a longer one. Draws of one prompt share its keys
and values, which turns their attention over the prompt into one matrix product. Draws of
different prompts hold their own, aligned at the right, and the columns left of a shorter
prompt are masked.

Sizes: R rows, L layers, K key-value heads, G query heads each, D head_dim.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_GROWTH = 32  # columns added when a block is full


class Block:
    """Rows at one column; `slots` says whose they are."""

    def __init__(
        self, slots: Ints, kv: Floats, padding: Ints, prefix: Floats | None
    ) -> None:
        self.slots = slots.copy()  # (R,)
        self.kv = kv  # (L, 2, R or more, K, columns or more, D): keys, values
        self.column = 0  # columns of kv that are filled
        self._padding = padding  # (R,): columns at the left that are not the row's
        self._mask: Floats | None = None  # (R, 1, 1, widest padding): 0 or -inf
        self._prefix = prefix  # (L, 2, K, T, D), or None

    @classmethod
    def of_one_prompt(cls, slots: Ints, prompt: Floats) -> Self:
        """Rows that continue the same prompt; `prompt` is (L, 2, K, T, D) and is shared."""
        layers, _, heads, _, dim = prompt.shape
        kv = np.empty((layers, 2, len(slots), heads, _GROWTH, dim), np.float32)
        return cls(slots, kv, np.zeros(len(slots), np.int64), prompt)

    @classmethod
    def of_prompts(cls, slots: Ints, prompts: Sequence[Floats]) -> Self:
        """Rows that continue prompts of their own; each (L, 2, K, T, D)."""
        layers, _, heads, _, dim = prompts[0].shape
        lengths = np.array([prompt.shape[3] for prompt in prompts])
        width = int(lengths.max())
        kv = np.empty((layers, 2, len(slots), heads, width + _GROWTH, dim), np.float32)
        for row, prompt in enumerate(prompts):
            kv[:, :, row, :, width - lengths[row] : width] = prompt
        block = cls(slots, kv, width - lengths, None)
        block.column = width
        block._blank()
        return block

    @classmethod
    def merged(cls, blocks: Sequence["Block"]) -> Self:
        """All rows of some blocks in one."""
        parts = [block._whole(row) for block in blocks for row in range(block.rows)]
        return cls.of_prompts(np.concatenate([block.slots for block in blocks]), parts)

    @property
    def rows(self) -> int:
        return len(self.slots)

    @property
    def length(self) -> int:
        """Columns that attention runs over, the shared ones included."""
        return self.column + (0 if self._prefix is None else self._prefix.shape[3])

    def open_column(self) -> tuple[int, Ints]:
        """The next column to write, and each row's position there; counts it as filled."""
        positions = self.length - self._padding
        if self.column == self.kv.shape[4]:
            wider = list(self.kv.shape)
            wider[2], wider[4] = self.rows, self.column + _GROWTH
            kv = np.empty(wider, np.float32)
            kv[..., : self.column, :] = self.kv[:, :, : self.rows]
            self.kv = kv
        self.column += 1
        return self.column - 1, positions

    def attend(self, layer: int, query: Floats, scores: Floats, out: Floats) -> None:
        """Attention of one token a row over everything before it and itself.

        Args:
            layer: Which layer's keys and values.
            query: (R, K, G, D), scaled.
            scores: Overwritten; (R, K, G, `length`).
            out: Filled; (R, K, G, D).
        """
        keys, values = self.kv[layer, :, : self.rows, :, : self.column]
        split = self.length - self.column
        own = scores[..., split:]
        np.matmul(query, keys.swapaxes(-1, -2), out=own)
        if self._prefix is not None:
            prefix_keys, prefix_values = self._prefix[layer][:, :, None]  # (K, 1, T, D)
            shared = scores[..., :split].transpose(1, 2, 0, 3)  # (K, G, R, T)
            np.matmul(query.transpose(1, 2, 0, 3), prefix_keys.swapaxes(-1, -2), out=shared)
        if self._mask is not None:
            masked = scores[..., : self._mask.shape[-1]]
            np.add(masked, self._mask, out=masked)
        np.subtract(scores, scores.max(-1, keepdims=True), out=scores)
        np.exp(scores, out=scores)
        np.matmul(own, values, out=out)
        if self._prefix is not None:
            out += (shared @ prefix_values).transpose(2, 0, 1, 3)
        out /= scores.sum(-1, keepdims=True)

    def remove(self, row: int) -> None:
        """Drop a row; the last one takes its place."""
        last = self.rows - 1
        if row != last:
            kept = slice(self._padding[last], self.column)
            self.kv[:, :, row, :, kept] = self.kv[:, :, last, :, kept]
            self.slots[row], self._padding[row] = self.slots[last], self._padding[last]
        self.slots, self._padding = self.slots[:last], self._padding[:last]
        if last and last <= self.kv.shape[2] // 2:
            self.kv = self.kv[:, :, :last].copy()
        self._remask()

    def _blank(self) -> None:
        """Make masked columns zero: what memory held there could be NaN."""
        for row, width in enumerate(self._padding):
            self.kv[:, :, row, :, :width] = 0
        self._remask()

    def _remask(self) -> None:
        width = int(self._padding.max(initial=0))
        if width == 0:
            self._mask = None
            return
        outside = np.arange(width) < self._padding[:, None]
        self._mask = np.where(outside, np.float32("-inf"), np.float32(0))[:, None, None]

    def _whole(self, row: int) -> Floats:
        """Keys and values of a row, shared ones included; (L, 2, K, T, D)."""
        own = self.kv[:, :, row, :, self._padding[row] : self.column]
        return own if self._prefix is None else np.concatenate([self._prefix, own], axis=3)
