"""Item response: the success rate of every model on every problem of one benchmark.

Model m solves problem i with rate p_mi, which scatters about what the model's ability and
the problem's difficulty say:

    logit q_mi = ability_m - slope_m difficulty_i
    p_mi ~ Beta(w q_mi, w (1 - q_mi)),   w = concentration_m (q_mi (1 - q_mi))**-1/2

Ability and difficulty are those of item response theory, as Sloth (arXiv:2412.06540) uses
it across language models. The Beta scatter is ours: pass@k at large k depends on the
problems that one model finds harder than its siblings do, and a Beta keeps the heavy left
tail of real success rates (arXiv:2502.17578), which a normal scatter of the logit lacks.
The power -1/2 lies between a constant w (0), under which a weak model's rates are all or
nothing, and a constant scatter of log p (-1); on six of nine tables, public and our own, it
fitted better than either. A complementary log-log link fits as well as the logit.

Difficulties are integrated over on a grid; models are fitted by expectation-maximisation
(Bock and Aitkin 1981), so that the difficulty of a problem keeps its uncertainty.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import betaln, expit, logit

from planner.models.counts import IntArray
from planner.models.prediction import Array

PARAMETERS = 3  # of a model: ability, log slope, log concentration
PRIOR_MEAN = np.array([0.0, 0.0, 0.0])
PRIOR_SD = np.array([5.0, 0.3, 1.5])  # of one model alone
_NODES = np.linspace(-9.0, 9.0, 61)  # logits
_BASE_SD = 3.0  # of difficulties, logits, before any is seen
_BASE_PROBLEMS = 3.0  # what that counts for
_SMOOTH_SD = 0.5  # logits; the difficulties' density is not finer
_POOLED_SD = 0.7  # of log concentration between models of a benchmark
_STEPS = 40
_TOLERANCE = (
    0.1  # nats, of the whole log likelihood; what is left drifts in the scale alone
)
_FIT_PROBLEMS = 3000  # enough to fit the models; all get a difficulty
_DIFFERENCE = 1e-3


class Items(NamedTuple):
    """Models and problems of one benchmark, fitted."""

    parameters: Array  # (n_models, 3): ability, log slope, log concentration
    covariance: Array  # (n_models, 3, 3)
    nodes: Array  # (n_nodes,): easiness, minus the difficulty, in logits; mean about 0
    weights: Array  # (n_problems, n_nodes): how easy each problem is, given all counts


@dataclass(frozen=True, eq=False)
class Codes:
    """Counts of several models on problems 0..n_problems - 1, each distinct one once."""

    model: IntArray  # (n_codes,)
    c: Array  # (n_codes,)
    n: Array
    rows: tuple[tuple[IntArray, IntArray], ...]  # a model: problems, and the code of each
    n_problems: int

    @classmethod
    def of(
        cls, c: Array, n: Array, model: IntArray, problem: IntArray, n_problems: int
    ) -> "Codes":
        """Sort a table's rows by model and distinct counts.

        Args:
            c: Correct draws of each row.
            n: Draws of each row.
            model: Of each row, 0..n_models - 1, each with a row at least.
            problem: Of each row, below n_problems.
            n_problems: How many.
        """
        width = int(n.max()) + 1
        key = (model * width + n.astype(np.int64)) * width + c.astype(np.int64)
        distinct, code = np.unique(key, return_inverse=True)
        rest, correct = np.divmod(distinct, width)
        of_model, samples = np.divmod(rest, width)
        rows = []
        for m in range(int(model.max()) + 1):
            mine = np.flatnonzero(model == m)
            mine = mine[np.argsort(code[mine], kind="stable")]
            rows.append((problem[mine], code[mine]))
        return cls(
            of_model, correct.astype(float), samples.astype(float), tuple(rows), n_problems
        )


def shapes(parameters: Array, easiness: Array) -> tuple[Array, Array]:
    """Beta shapes of the success rate.

    Args:
        parameters: Shape (..., 3).
        easiness: In logits; broadcasts against parameters[..., 0].
    """
    ability, log_slope, log_concentration = np.moveaxis(parameters, -1, 0)
    centre = np.clip(ability + np.exp(log_slope) * easiness, -20.0, 20.0)
    q, rest = expit(centre), expit(-centre)
    w = np.exp(log_concentration) / np.sqrt(q * rest)
    return w * q, w * rest


def log_table(
    parameters: Array, nodes: Array, c: Array, n: Array, model: IntArray
) -> Array:
    """Log likelihood of counts at each node, without the binomial coefficient.

    Args:
        parameters: Of each model, (n_models, 3).
        nodes: Shape (n_nodes,).
        c: Correct draws, (n,).
        n: Draws, (n,).
        model: Whose counts they are, (n,).

    Returns:
        Shape (n, n_nodes).
    """
    a, b = shapes(parameters[:, None, :], nodes)
    seen = betaln(a[model] + c[:, None], b[model] + (n - c)[:, None])
    return np.asarray(seen - betaln(a, b)[model])


def fit_items(
    c: Array, n: Array, model: IntArray, problem: IntArray, n_problems: int
) -> Items:
    """Fit every model and problem of one benchmark.

    Counts of all zeros or all ones are no error: the prior bounds the ability, and its
    variance says how little is known.

    Args:
        c: Correct draws of each row.
        n: Draws of each row.
        model: Of each row, 0..n_models - 1, each with a row at least.
        problem: Of each row, below n_problems.
        n_problems: How many.
    """
    everything = Codes.of(c, n, model, problem, n_problems)
    codes = everything
    if n_problems > _FIT_PROBLEMS:
        codes = _thinned(c, n, model, problem, n_problems) or everything
    start = _start(codes)
    parameters, density = _maximise(codes, start)
    each, _ = _easiness(everything, parameters, density)
    covariance = _covariance(everything, parameters, each)
    # the likelihood knows only ability + slope x easiness: put the mean problem at zero
    shift = float(each.mean(axis=0) @ _NODES)
    parameters[:, 0] += np.exp(parameters[:, 1]) * shift
    return Items(parameters, covariance, _NODES - shift, each)


def _thinned(
    c: Array, n: Array, model: IntArray, problem: IntArray, n_problems: int
) -> Codes | None:
    """Every so-manyth problem; None if a model has no draw on those."""
    stride = -(-n_problems // _FIT_PROBLEMS)
    keep = problem % stride == 0
    if len(np.unique(model[keep])) <= model.max():
        return None
    return Codes.of(c[keep], n[keep], model[keep], problem[keep] // stride,
                    -(-n_problems // stride))  # fmt: skip


def _start(codes: Codes) -> Array:
    start = np.tile(PRIOR_MEAN, (len(codes.rows), 1))
    for m, (_, code) in enumerate(codes.rows):
        rate = (codes.c[code].sum() + 0.5) / (codes.n[code].sum() + 1.0)
        start[m, 0] = 1.3 * logit(rate)
    return start


def _easiness(codes: Codes, parameters: Array, density: Array) -> tuple[Array, float]:
    """Posterior over the nodes of each problem, and the log likelihood."""
    table = log_table(parameters, _NODES, codes.c, codes.n, codes.model)
    each = np.tile(np.log(density), (codes.n_problems, 1))
    for problems, code in codes.rows:
        each[problems] += table[code]
    top = each.max(axis=1, keepdims=True)
    each = np.exp(each - top)
    total = each.sum(axis=1, keepdims=True)
    return each / total, float((top + np.log(total)).sum())


def _maximise(codes: Codes, parameters: Array) -> tuple[Array, Array]:
    """Expectation-maximisation; parameters of the models, and the problems' density."""
    base = np.exp(-0.5 * (_NODES / _BASE_SD) ** 2)
    base /= base.sum()
    kernel = np.exp(-0.5 * ((_NODES[:, None] - _NODES) / _SMOOTH_SD) ** 2)
    kernel /= kernel.sum(axis=0)
    density, last = base, -np.inf
    for _ in range(_STEPS):
        each, value = _easiness(codes, parameters, density)
        if abs(value - last) < _TOLERANCE:
            break
        last = value
        density = kernel @ each.sum(axis=0) + _BASE_PROBLEMS * base
        density /= density.sum()
        expected = np.concatenate(
            [
                np.add.reduceat(each[problems], np.flatnonzero(np.diff(code, prepend=-1)))
                for problems, code in codes.rows
            ]
        )
        parameters = _step(codes, parameters, expected)
    return parameters, density


def _step(codes: Codes, at: Array, expected: Array) -> Array:
    """One damped Newton step of every model on its expected log likelihood."""
    m = len(at)
    pooled = at[:, 2].sum() / (m + 1.0)
    centre = np.array([0.0, 0.0, pooled])
    sd = np.array([PRIOR_SD[0], PRIOR_SD[1], _POOLED_SD])

    def value(x: Array) -> Array:
        table = log_table(x, _NODES, codes.c, codes.n, codes.model)
        each = (expected * table).sum(axis=1)
        prior = 0.5 * (((x - centre) / sd) ** 2).sum(axis=1)
        return np.asarray(prior - np.bincount(codes.model, each, m))

    here = value(at)
    offset = np.eye(PARAMETERS) * _DIFFERENCE
    up = np.stack([value(at + e) for e in offset], axis=1)
    down = np.stack([value(at - e) for e in offset], axis=1)
    gradient = (up - down) / (2 * _DIFFERENCE)
    hessian = np.zeros((m, PARAMETERS, PARAMETERS))
    for i in range(PARAMETERS):
        hessian[:, i, i] = up[:, i] + down[:, i] - 2 * here
        for j in range(i):
            both = value(at + offset[i] + offset[j])
            hessian[:, i, j] = hessian[:, j, i] = both - up[:, i] - up[:, j] + here
    values, vectors = np.linalg.eigh(hessian / _DIFFERENCE**2)
    along = np.einsum("mij,mi->mj", vectors, gradient) / np.maximum(np.abs(values), 1e-3)
    step = -np.einsum("mij,mj->mi", vectors, along)
    step /= np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1.0)
    for _ in range(6):
        worse = value(at + step) > here
        if not worse.any():
            break
        step[worse] /= 2
    else:
        step[worse] = 0.0
    return np.asarray(at + step)


def _covariance(codes: Codes, parameters: Array, each: Array) -> Array:
    """Of every model's parameters: the outer product of its scores, and the prior.

    The score of a problem is averaged over its difficulty, so that what the difficulty
    leaves open is not counted as information.
    """
    slopes = []
    for e in np.eye(PARAMETERS) * _DIFFERENCE:
        up = log_table(parameters + e, _NODES, codes.c, codes.n, codes.model)
        down = log_table(parameters - e, _NODES, codes.c, codes.n, codes.model)
        slopes.append((up - down) / (2 * _DIFFERENCE))
    information = np.tile(np.diag(PRIOR_SD**-2.0), (len(parameters), 1, 1))
    for m, (problems, code) in enumerate(codes.rows):
        score = np.stack([(each[problems] * s[code]).sum(axis=1) for s in slopes], axis=1)
        information[m] += score.T @ score
    return np.asarray(np.linalg.inv(information))
