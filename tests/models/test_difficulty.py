import numpy as np
import pytest

from planner.models.artifact import TaskLaw
from planner.models.difficulty import (
    FEATURES,
    DifficultyLaw,
    TaskRecogniser,
    byte_log_probs,
    features,
    fit_difficulty,
    recognise,
)
from planner.models.errors import FitError, InputError


def chain(rng, steps):
    return "A" + str(rng.integers(100, 999)) + "".join(
        f"+{rng.integers(2, 999)}" for _ in range(steps)
    ) + ":"  # fmt: skip


def task_law(name, prompts, fit=None):
    zeros = np.zeros(len(FEATURES))
    law = fit.law if fit else DifficultyLaw(zeros, zeros + 1, zeros, np.zeros(0), 0.0)
    return TaskLaw(
        task=name, n_problems=len(prompts), runtime_verifier=False, verifier="exact",
        feature_names=FEATURES, feature_mean=tuple(law.mean.tolist()),
        feature_scale=tuple(law.scale.tolist()), weights=tuple(law.weights.tolist()),
        edges=tuple(law.edges.tolist()), class_shares=(1.0,), gain=law.gain,
        byte_log_probs=byte_log_probs(prompts),
    )  # fmt: skip


def test_features_count_what_the_prompt_holds():
    counted = dict(zip(FEATURES, np.expm1(features("A12*3 =\n x")).round(6), strict=True))
    assert counted["log_length"] == 10
    assert counted["log_digits"] == 3
    assert counted["log_letters"] == 2
    assert counted["log_products"] == 1
    assert counted["log_numbers"] == 2
    assert counted["log_longest_number"] == 2
    assert counted["log_largest_number"] == 12
    assert np.isfinite(features("")).all()
    assert np.isfinite(features("9" * 100_000)).all()


def test_longer_chains_are_found_harder(rng):
    steps = rng.integers(1, 11, 160)
    prompts = [chain(rng, s) for s in steps]
    fit = fit_difficulty(prompts, steps + rng.normal(0, 1, 160))
    assert len(fit.law.edges) == 3
    assert fit.law.gain > 0.7
    average = [steps[fit.classes == c].mean() for c in range(4)]
    assert average == sorted(average)  # 0 is the easiest
    again = DifficultyLaw.from_task(task_law("chain", prompts, fit))
    classes = np.array([again.classify(prompt) for prompt in prompts])
    assert (classes == fit.classes).mean() > 0.9
    assert again.classify(chain(rng, 1)) == 0
    assert again.classify(chain(rng, 10)) == 3


def test_noise_makes_no_classes(rng):
    split = 0
    for _ in range(60):
        prompts = [chain(rng, s) for s in rng.integers(1, 11, 64)]
        split += len(fit_difficulty(prompts, rng.normal(0, 1, 64)).law.edges) > 0
    assert split <= 6  # two standard errors: one in forty, and the penalty was chosen


def test_few_problems_make_few_classes(rng):
    for problems, classes in ((12, 1), (31, 1), (33, 2), (50, 3), (200, 4)):
        steps = rng.integers(1, 11, problems)
        fit = fit_difficulty([chain(rng, s) for s in steps], steps.astype(float))
        assert len(fit.law.edges) + 1 <= classes
        if problems > 40:
            assert len(fit.law.edges) + 1 >= 2
        assert np.bincount(fit.classes).min() >= min(problems, 8)


def test_left_out_errors_are_those_of_leaving_out(rng):
    steps = rng.integers(1, 11, 40)
    prompts = [chain(rng, s) for s in steps]
    y = steps + rng.normal(0, 2, 40)
    fit = fit_difficulty(prompts, y)
    # the closed form of the gain against refits with a fixed scaling, one problem at a time
    x = (np.array([features(p) for p in prompts]) - fit.law.mean) / fit.law.scale
    best = np.inf
    for penalty in (1.0, 3.0, 10.0, 30.0, 100.0, 300.0):
        gram = np.diag([0.0] + [penalty] * x.shape[1])
        design = np.column_stack([np.ones(40), x])
        errors = []
        for i in range(40):
            keep = np.arange(40) != i
            d = design[keep]
            errors.append(y[i] - design[i] @ np.linalg.solve(d.T @ d + gram, d.T @ y[keep]))
        best = min(best, float(np.sum(np.square(errors))))
    alone = sum((y[i] - np.delete(y, i).mean()) ** 2 for i in range(40))
    assert fit.law.gain == pytest.approx(1 - best / alone, abs=1e-9)


def test_a_task_is_recognised_by_its_bytes(rng):
    chains = [chain(rng, 3) for _ in range(40)]
    words = [f"How many apples has {name}?" for name in ("Ann", "Bob", "Cleo")]
    laws = [task_law("chain", chains), task_law("words", words)]
    assert recognise(chain(rng, 5), laws) == "chain"
    assert recognise("How many pears has Zoë?", laws) == "words"
    assert TaskRecogniser.of(laws).recognise("") == "chain"
    with pytest.raises(InputError):
        recognise("x", [])


def test_other_features_are_refused():
    law = task_law("t", ["a"]).model_copy(update={"feature_names": ("length",)})
    with pytest.raises(InputError, match="run `planner fit` again"):
        DifficultyLaw.from_task(law)
    with pytest.raises(FitError):
        fit_difficulty([], np.zeros(0))
