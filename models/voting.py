"""Majority vote (self-consistency, arXiv:2203.11171) that stops when the leader is decided.

Draws are made one at a time. The answer with most votes wins, of equals the one whose
first vote came earliest; "" never votes; the draw returned is the earliest that gave the
winner. The strategy that serves and the law that forecasts share the stopping rule below.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc

from planner.models.curves import ProblemCurves
from planner.models.errors import InputError
from planner.models.lengths import Recorded
from planner.models.prediction import Array

_ROWS = 4096  # replays made, shared out over the problems
_MIN_REPLAYS, _MAX_REPLAYS = 8, 256
_FORECAST_SD = 0.012  # a doubling of n; flat forecasts of public vote curves erred by this


def vote_decided(
    leader: ArrayLike, runner_up: ArrayLike, remaining: ArrayLike, confidence: float
) -> NDArray[np.bool_]:
    """Whether the vote is over, with some draws still to make.

    It is when the rest cannot overturn it, or when the leader is the likelier answer with
    this confidence, by the Beta rule of Adaptive-Consistency (Aggarwal et al. 2023,
    arXiv:2305.11860): P(share of leader > share of runner-up) = 1 - I_1/2(v1 + 1, v2 + 1).

    Args:
        leader: Votes of the leading answer.
        runner_up: Votes of the next.
        remaining: Draws still to make.
        confidence: In (0.5, 1]; 1 stops only when the rest cannot matter.

    Raises:
        InputError: Confidence outside (0.5, 1].
    """
    _check_confidence(confidence)
    first, second = np.asarray(leader), np.asarray(runner_up)
    certain = first - second > np.asarray(remaining)
    if confidence == 1:
        return np.asarray(certain)
    return np.asarray(certain | (1 - betainc(first + 1.0, second + 1.0, 0.5) >= confidence))


@lru_cache(maxsize=65_536)
def is_decided(leader: int, runner_up: int, remaining: int, confidence: float) -> bool:
    """`vote_decided` of one vote, remembered.

    Raises:
        InputError: Confidence outside (0.5, 1].
    """
    return bool(vote_decided(leader, runner_up, remaining, confidence))


def vote_curves(
    recorded: Recorded, n: tuple[int, ...], confidence: float, rng: np.random.Generator
) -> ProblemCurves:
    """Accuracy and use of the vote at each n, from replays of the recorded draws.

    A replay is a random order of a problem's draws, so that n draws are a sample without
    replacement. A problem with fewer than n draws is resampled beyond its own.

    Args:
        recorded: Draws of one model at one temperature.
        n: Rising; most draws of each vote.
        confidence: Of the early stop.
        rng: For the orders.

    Raises:
        InputError: n below 1 or above the draws of every problem; confidence off.
    """
    p, width = recorded.correct.shape
    if not n or n[0] < 1 or n[-1] > width:
        raise InputError(f"votes need n in 1..{width}, got {n}")
    replays = int(np.clip(_ROWS // max(p, 1), _MIN_REPLAYS, _MAX_REPLAYS))
    order = _orders(recorded.n_samples, width, replays, rng)[:, : n[-1]]
    row = np.repeat(np.arange(p), replays)[:, None]
    right, votes_1, votes_2 = _count(
        recorded.answer[row, order], recorded.correct[row, order]
    )
    tokens = np.cumsum(recorded.output_tokens[row, order], axis=1)
    made = np.arange(1, n[-1] + 1)
    # the confident stop does not depend on n, the certain one does: one pass each
    counts = np.arange(n[-1] + 1)
    sure = vote_decided(counts[:, None], counts, 10**9, confidence)[votes_1, votes_2]
    lead = votes_1 - votes_2
    columns = []
    for most in n:
        stop = sure[:, :most] | (lead[:, :most] > most - made[:most])
        stop[:, -1] = True
        at = stop.argmax(axis=1)[:, None]
        columns.append(
            np.stack([
                np.take_along_axis(right, at, 1)[:, 0],
                at[:, 0] + 1.0,
                np.take_along_axis(tokens, at, 1)[:, 0],
            ])
        )  # fmt: skip
    # (n_grid, 3, P, replays)
    table = np.stack(columns).reshape(len(n), 3, p, replays)
    accuracy, draws, used = table.mean(axis=3).transpose(1, 2, 0)
    if n[0] == 1:  # a vote of one is a draw: no need to replay it
        single = recorded.correct & (recorded.answer >= 0) & recorded.present
        accuracy[:, 0] = single.sum(axis=1) / recorded.n_samples
    # orders without replacement vary too little: sum to the same when all draws are made
    _, one_draw = recorded.tokens_by_problem()
    share = np.minimum(draws / recorded.n_samples[:, None], 1.0)
    lost = draws * one_draw[:, None] * share
    return ProblemCurves(n, accuracy, draws, used, table[:, 2].var(axis=2).T + lost)


def flat_beyond(
    n: int, n_max: int, accuracy: float, accuracy_sd: float
) -> tuple[float, float, bool]:
    """Accuracy of a vote of n draws, its sd, and whether that is extrapolated.

    Beyond n_max the last value is kept: on public vote curves (500 problems x 40 draws and
    18 models x 16) no fitted form forecast better, and it erred by 0.004-0.03 over one to
    three doublings, which the sd grows by.
    """
    if n <= n_max:
        return accuracy, accuracy_sd, False
    return accuracy, float(np.hypot(accuracy_sd, _FORECAST_SD * np.log2(n / n_max))), True


def _check_confidence(confidence: float) -> None:
    if not 0.5 < confidence <= 1:
        raise InputError(f"stop confidence must be in (0.5, 1], got {confidence}")


def _orders(
    n_samples: NDArray[np.int64], width: int, replays: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Random orders of each problem's draws, resampled past its own; (rows, width)."""
    own = np.repeat(n_samples, replays)[:, None]
    key = rng.random((len(own), width), dtype=np.float32)
    padding = np.arange(width) >= own
    key[padding] = 2.0  # after every draw
    order = np.argsort(key, axis=1)
    if padding.any():
        again = (rng.random(order.shape) * own).astype(np.int64)
        order = np.where(padding, again, order)
    return order


def _count(
    answer: NDArray[np.int64], correct: NDArray[np.bool_]
) -> tuple[Array, NDArray[np.int32], NDArray[np.int32]]:
    """Replay votes: after each draw, is the winner right, votes of first and second.

    Args:
        answer: Codes in order of drawing, (rows, n); negative never votes.
        correct: Same shape.
    """
    rows, n = answer.shape
    every = np.arange(rows)
    kinds = int(answer.max(initial=0)) + 1
    votes = np.zeros((rows, kinds), np.int32)
    since = np.full((rows, kinds), n, np.int32)  # draw of an answer's first vote
    flag = np.zeros((rows, kinds), bool)  # whether that draw was correct
    first, second = np.zeros((2, rows), np.int32)
    winner = np.full(rows, -1)
    winner_since = np.full(rows, n, np.int32)
    winner_right = np.zeros(rows, bool)
    right, leading = np.zeros((rows, n)), np.zeros((rows, n), np.int32)
    following = np.zeros_like(leading)
    for t in range(n):
        voting = answer[:, t] >= 0
        who, code = every[voting], answer[voting, t]
        before = votes[who, code]
        votes[who, code] = now = before + 1
        new = before == 0
        since[who[new], code[new]] = t
        flag[who[new], code[new]] = correct[who[new], t]
        ahead, top = code == winner[who], first[who]
        born = since[who, code]
        # an answer takes the lead by a vote more, or by an earlier first vote among equals
        takes = ~ahead & ((now > top) | ((now == top) & (born < winner_since[who])))
        second[who] = np.where(
            ahead, second[who], np.maximum(second[who], np.minimum(now, top))
        )
        first[who] = np.maximum(top, now)
        winner[who[takes]] = code[takes]
        winner_since[who[takes]] = born[takes]
        winner_right[who[takes]] = flag[who[takes], code[takes]]
        right[:, t], leading[:, t], following[:, t] = winner_right, first, second
    return right, leading, following
