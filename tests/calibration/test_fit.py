"""Laws fitted to simulated measurements whose truth is known."""

import numpy as np
import pandas as pd
import pytest

from planner.calibration.cells import fit_cells, measure
from planner.calibration.draws import tabulate
from planner.calibration.fit import fit_laws
from planner.calibration.store import Store
from planner.models.artifact import Laws
from planner.models.coverage import pass_at_k
from planner.models.diagnostics import by_quantity, coverage_abs_error, interval_coverage
from planner.models.errors import InputError, NotMeasuredError
from planner.models.flops import decode_step, prefill_step
from planner.models.forecast import PopulationLaw
from planner.models.records import Machine, Problem, Sample, Timing
from planner.models.specs import Architecture, ModelTarget, Prices

MODELS = ("small", "large")
TEMPERATURES = (0.6, 1.0)
WHEN = "2026-01-01T00:00:00+00:00"
ARCHITECTURE = Architecture(
    layers=2, hidden=64, heads=2, kv_heads=2, head_dim=32, intermediate=128, vocabulary=32,
    tied_embeddings=True,
)  # fmt: skip
MACHINE = Machine(
    machine="box", device="cpu", cores=2, memory_bytes=1e9, os="linux", python="3.12",
    numpy="2.0", blas="openblas", flop_per_s=1e11, bytes_per_s=2e10, source="measured",
    measured_at=WHEN,
)  # fmt: skip
TARGETS = (
    ModelTarget(name="small", engine="embedded", location="", architecture=ARCHITECTURE),
    ModelTarget(
        name="large", engine="openai", location="",
        prices=Prices(usd_per_input_token=1e-6, usd_per_output_token=2e-6, source="list"),
    ),
)  # fmt: skip


def make_problems(rng, count):
    """Half with one right answer, half exactly verified; longer prompts are harder."""
    problems, hardness = [], []
    for task, verifier, letter in (
        ("chain", "chain", "A"),
        ("countdown", "countdown", "C"),
    ):
        for i in range(count):
            steps = int(rng.integers(1, 9))
            prompt = letter + "".join(f"{rng.integers(1, 99)}," for _ in range(steps)) + ":"
            problems.append(Problem(
                problem_id=f"{task}{i}", task=task, prompt=prompt, verifier=verifier,
                reference="7" if task == "chain" else "",
            ))  # fmt: skip
            hardness.append(steps)
    return problems, np.array(hardness)


def success_rate(rng, model, hardness, temperature):
    skill = {"small": 0.5, "large": 2.0}[model]
    logit = (skill - 0.5 * (hardness - 4.5)) / (0.6 + 0.6 * temperature)
    return 1 / (1 + np.exp(-logit - rng.normal(0, 0.7, len(hardness))))


def samples_of(rng, problem, model, temperature, rate, n):
    correct = rng.random(n) < rate
    tokens = rng.poisson(8 + 2 * len(problem.prompt), n) + 1
    wrong = rng.integers(10, 14, n)
    scored = problem.task == "countdown"
    return [
        Sample(
            model=model, task=problem.task, problem_id=problem.problem_id,
            prompt=problem.prompt, temperature=temperature, top_p=1.0, max_tokens=256,
            draw=d, seed=d, text="", answer="7" if correct[d] else str(wrong[d]),
            correct=bool(correct[d]),
            score=float(rng.normal(correct[d])) if scored else None,
            finish_reason="stop", prompt_tokens=len(problem.prompt),
            output_tokens=int(tokens[d]), ttft_s=0.01, latency_s=0.1, logprob=None,
            engine="embedded 0.1.0", machine="box", source="measured", measured_at=WHEN,
        )
        for d in range(n)
    ]  # fmt: skip


def make_samples(rng, problems, hardness, n, temperatures=TEMPERATURES):
    rows = []
    for model in MODELS:
        for temperature in temperatures:
            rates = success_rate(rng, model, hardness, temperature)
            for problem, rate in zip(problems, rates, strict=True):
                rows += samples_of(rng, problem, model, temperature, rate, n)
    return rows


def make_timings(rng):
    rows = []
    for phase, step in (("prefill", prefill_step), ("decode", decode_step)):
        for batch in (1, 4, 16, 64):
            for context in (16, 64, 128):
                name = "prompt_tokens" if phase == "prefill" else "context_tokens"
                cost = step(ARCHITECTURE, batch=batch, **{name: context})
                mean = 2e-4 + cost.flop / 5e10 + cost.kv_bytes / 1e10
                rows += [
                    Timing(
                        model="small", phase=phase, batch=batch, context_tokens=context,
                        repeat=r, seconds=float(mean * np.exp(rng.normal(0, 0.05))),
                        flop=cost.flop, moved_bytes=1.0, kv_bytes=cost.kv_bytes,
                        engine="embedded 0.1.0", machine="box", source="measured",
                        measured_at=WHEN,
                    )
                    for r in range(3)
                ]  # fmt: skip
    return rows


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    rng = np.random.default_rng(7)
    problems, hardness = make_problems(rng, 40)
    store = Store(tmp_path_factory.mktemp("measurements"))
    store.append_samples(make_samples(rng, problems, hardness, 16))
    store.append_timings(make_timings(rng))
    store.append_machine(MACHINE)
    return store, problems


@pytest.fixture(scope="module")
def laws(measured):
    store, problems = measured
    return fit_laws(store, targets=TARGETS, problems=problems, seed=3)


def test_laws_go_to_file_and_back(laws, tmp_path):
    laws.save(tmp_path / "laws.json")
    assert Laws.load(tmp_path / "laws.json") == laws


def test_the_same_seed_gives_the_same_laws(laws, measured):
    store, problems = measured
    again = fit_laws(store, targets=TARGETS, problems=problems, seed=3)
    fields = {"created_at": ""}
    assert again.model_copy(update=fields) == laws.model_copy(update=fields)


def test_every_cell_is_there_with_the_strategies_that_make_sense(laws):
    caps = {(c.model, c.task): set() for c in laws.cells}
    for cell in laws.cells:
        caps[cell.model, cell.task].add(cell.max_tokens)
        named = {curve.strategy for curve in cell.curves}
        expected = {"single", "self_consistency"}
        if cell.task == "countdown":  # checked without a reference, and scored
            expected |= {"best_of_n", "best_of_n_scored"}
        assert named == expected
        assert cell.n_samples == 16
    classes = {task.task: len(task.class_shares) for task in laws.tasks}
    wanted = sum(
        classes[task] * len(TEMPERATURES) * len(found) for (_, task), found in caps.items()
    )
    assert len(laws.cells) == wanted
    assert all(256 in found and len(found) > 1 for found in caps.values())
    assert {t.task: t.runtime_verifier for t in laws.tasks} == {
        "chain": False,
        "countdown": True,
    }
    assert all(len(t.class_shares) > 1 for t in laws.tasks)  # length tells difficulty here


def test_curves_are_in_range_and_never_certain(laws):
    for cell in laws.cells:
        for curve in cell.curves:
            assert curve.n[0] == 1
            assert min(curve.accuracy) >= 0
            assert max(curve.accuracy) <= 1
            assert min(curve.accuracy_sd) > 0.2 / cell.n_problems
            assert all(
                a <= b + 1e-9 for a, b in zip(curve.draws, curve.draws[1:], strict=False)
            )
            assert all(d <= n + 1e-6 for d, n in zip(curve.draws, curve.n, strict=True))
            beyond = [n for n in curve.n if n > curve.n_max]
            assert beyond == ([32, 64, 128] if curve.strategy == "best_of_n" else [])


def test_strategies_agree_on_one_draw(laws):
    for cell in laws.cells:
        assert np.ptp([curve.accuracy[0] for curve in cell.curves]) < 0.02


def test_a_smaller_cap_costs_less_and_solves_less(laws):
    for cell in laws.cells:
        whole = next(
            c for c in laws.cells
            if (c.model, c.task, c.difficulty, c.temperature, c.max_tokens)
            == (cell.model, cell.task, cell.difficulty, cell.temperature, 256)
        )  # fmt: skip
        assert cell.curves[0].output_tokens[0] <= whole.curves[0].output_tokens[0] + 1e-9
        spread = cell.curves[0].accuracy_sd[0] + whole.curves[0].accuracy_sd[0]
        assert cell.curves[0].accuracy[0] <= whole.curves[0].accuracy[0] + spread


def test_what_is_asked_of_a_model_is_known_of_it(laws):
    small, large = laws.models
    assert small.latency is not None
    assert small.latency.machine == "box"
    assert small.architecture["layers"] == 2
    assert (large.latency, large.architecture) == (None, None)
    assert large.usd_per_output_token == 2e-6
    assert laws.intensity_flop_per_byte == 5
    assert laws.provenance.source == "measured"


def test_held_out_rows_judge_every_law(laws):
    rows = by_quantity(laws.holdout)
    assert set(rows) == {
        "coverage", "coverage_further_draws", "self_consistency", "best_of_n_scored",
        "latency",
    }  # fmt: skip
    assert coverage_abs_error(laws.holdout) < 0.2
    assert 0.5 < interval_coverage(laws.holdout) <= 1
    errors = [abs(np.log(r.predicted / r.observed)) for r in rows["latency"]]
    assert np.median(errors) < 0.3


def test_cells_hold_the_accuracy_of_fresh_problems(rng):
    """Promised accuracy and sd against the truth of the class, over many simulated fits."""
    z = {"single": [], "self_consistency": [], "best_of_n": []}
    for _ in range(8):
        problems, hardness = make_problems(rng, 24)

        frame = pd.DataFrame(make_samples(rng, problems, hardness, 16, (1.0,)))
        tables = tabulate(frame, MODELS, problems)
        fits = [
            measure(t, [256], runtime_verifier=t.task == "countdown", stop_confidence=0.95,
                    rng=rng)[0]
            for t in tables
        ]  # fmt: skip
        classes = (hardness > 4).astype(np.int64)
        for cell in fit_cells(fits, classes, rng):
            many = rng.integers(1, 9, 4000)
            many = many[(many > 4) == cell.difficulty]
            rate = success_rate(rng, cell.model, many, 1.0)
            for curve in cell.curves:
                if curve.strategy == "single":
                    truth = rate.mean()
                elif curve.strategy == "best_of_n":
                    truth = (1 - (1 - rate) ** 16).mean()
                elif curve.strategy == "self_consistency":
                    votes = rng.multinomial(
                        16, np.column_stack([rate, *[(1 - rate) / 4] * 4])
                    ) + rng.random((len(rate), 5)) * 0.5  # fmt: skip
                    truth = (votes.argmax(axis=1) == 0).mean()
                else:
                    continue
                at = curve.n.index(curve.n_max)
                z[curve.strategy].append(
                    (curve.accuracy[at] - truth) / curve.accuracy_sd[at]
                )
    for strategy, scores in z.items():
        held, size = np.mean(np.abs(scores) < 1.645), np.sqrt(np.mean(np.square(scores)))
        # the cells of one simulation share their problems: as if half as many
        error = np.sqrt(0.09 / (len(scores) / 2))
        assert held > 0.9 - 3 * error, (strategy, held)
        assert size < 1.5, (strategy, size)  # an sd that is half too small has 2


def test_tables_keep_every_draw_once_in_order(rng):

    problems, hardness = make_problems(rng, 6)
    rows = make_samples(rng, problems, hardness, 5)
    frame = pd.DataFrame(rows)
    shuffled = pd.concat([frame, frame.iloc[:40]]).sample(frac=1.0, random_state=1)
    tables = tabulate(shuffled.reset_index(drop=True), MODELS, problems)
    assert len(tables) == 8
    for table in tables:
        own = frame[
            (frame["model"] == table.model) & (frame["task"] == table.task)
            & (frame["temperature"] == table.temperature)
        ]  # fmt: skip
        for i, problem in enumerate(table.problem):
            draws = own[own["problem_id"] == problems[problem].problem_id]
            assert table.recorded.n_samples[i] == 5
            assert table.recorded.correct[i].tolist() == draws["correct"].tolist()
            assert (
                table.recorded.output_tokens[i].tolist() == draws["output_tokens"].tolist()
            )
            codes, answers = table.recorded.answer[i], draws["answer"].to_numpy()
            same = answers[:, None] == answers[None, :]
            np.testing.assert_array_equal(codes[:, None] == codes[None, :], same)


def test_cancelled_and_foreign_draws_do_not_count(rng):

    problems, hardness = make_problems(rng, 3)
    frame = pd.DataFrame(make_samples(rng, problems, hardness, 4))
    frame.loc[frame["draw"] == 3, "finish_reason"] = "cancelled"
    frame.loc[frame["draw"] == 2, "answer"] = ""
    extra = frame.assign(problem_id="elsewhere")
    tables = tabulate(pd.concat([frame, extra], ignore_index=True), MODELS, problems)
    for table in tables:
        assert table.recorded.n_samples.tolist() == [3, 3, 3]
        assert (table.recorded.answer[:, 2] == -1).all()


def test_greedy_draws_count_once_and_only_a_single_draw_makes_sense(rng):

    problems, hardness = make_problems(rng, 20)
    frame = pd.DataFrame(make_samples(rng, problems, hardness, 4, (0.0,)))
    tables = tabulate(frame, MODELS, problems)
    fits = [
        measure(t, [256], runtime_verifier=True, stop_confidence=0.95, rng=rng)[0]
        for t in tables
    ]
    for cell in fit_cells(fits, np.zeros(len(problems), np.int64), rng):
        assert [curve.strategy for curve in cell.curves] == ["single"]
        assert cell.n_samples == 1


def test_no_samples_say_what_to_run(measured, tmp_path):
    _, problems = measured
    with pytest.raises(NotMeasuredError, match="planner calibrate"):
        fit_laws(Store(tmp_path), targets=TARGETS, problems=problems, seed=0)


def test_a_model_or_task_without_samples_is_named(measured):
    store, problems = measured
    other = ModelTarget(name="other", engine="openai", location="")
    with pytest.raises(NotMeasuredError, match="'other'"):
        fit_laws(store, targets=(*TARGETS, other), problems=problems, seed=0)
    new = Problem(problem_id="n", task="new", prompt="?", verifier="exact", reference="1")
    with pytest.raises(NotMeasuredError, match="'new'"):
        fit_laws(store, targets=TARGETS, problems=[*problems, new], seed=0)
    mixed = Problem(
        problem_id="n", task="chain", prompt="?", verifier="exact", reference="1"
    )
    with pytest.raises(InputError, match="mixes the verifiers"):
        fit_laws(store, targets=TARGETS, problems=[*problems, mixed], seed=0)


def test_one_problem_drawn_once_gives_wide_laws(rng, tmp_path):
    problems, hardness = make_problems(rng, 1)
    store = Store(tmp_path)
    store.append_samples(make_samples(rng, problems, hardness, 1))
    store.append_machine(MACHINE)
    told = []
    laws = fit_laws(store, targets=TARGETS, problems=problems, seed=0, progress=told.append)
    assert told
    assert laws.holdout == ()
    for cell in laws.cells:
        assert cell.coverage.k_max == 1
        assert min(curve.accuracy_sd[0] for curve in cell.curves) > 0.1


def test_all_right_is_not_certain(rng):
    """Sixteen of sixteen problems always right: an sd as of a Beta posterior, not zero."""

    problems, _ = make_problems(rng, 16)
    rows = [
        row for problem in problems for model in MODELS
        for row in samples_of(rng, problem, model, 1.0, 1.0, 16)
    ]  # fmt: skip
    tables = tabulate(pd.DataFrame(rows), MODELS, problems)
    fits = [
        measure(t, [256], runtime_verifier=True, stop_confidence=0.95, rng=rng)[0]
        for t in tables
    ]
    for cell in fit_cells(fits, np.zeros(len(problems), np.int64), rng):
        for curve in cell.curves:
            assert curve.accuracy[0] > 0.9
            assert 0.001 < curve.accuracy_sd[0] < 0.1


def test_coverage_of_a_cell_follows_the_unbiased_count(laws, measured):
    """Within the draws made, law and count tell the same story."""
    store, problems = measured
    tables = tabulate(store.samples(), MODELS, problems)
    for table in tables:
        unbiased = pass_at_k(table.recorded.n_correct, table.recorded.n_samples, [1, 4, 16])
        share = {t.task: t.class_shares for t in laws.tasks}[table.task]
        own = [
            c for c in laws.cells
            if (c.model, c.task, c.temperature, c.max_tokens)
            == (table.model, table.task, table.temperature, 256)
        ]  # fmt: skip
        draws = np.random.default_rng(0)
        each = [
            PopulationLaw.from_fit(c.coverage).predict([1, 4, 16], draws).draws for c in own
        ]
        law = sum(part * values for part, values in zip(share, each, strict=True))
        pooled, sd = law.mean(axis=0), law.std(axis=0)
        # where all problems are solved the counts show no error of their own
        error = np.hypot(unbiased.std(axis=0) / np.sqrt(len(unbiased)), sd)
        assert (np.abs(pooled - unbiased.mean(axis=0)) < 2 * error).all()
