"""Sample logs of lm-evaluation-harness, laid out as its releases lay them out."""

import json

import pytest

from planner.calibration.import_rows import ImportOptions, WrongRowsError
from planner.calibration.importers import import_results
from planner.calibration.store import Store
from planner.models.errors import InputError

DATE = "2025-03-02T10-11-12.131415"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "measurements")


def lm_row(doc=0, responses=("8",), filtered="8", grade=1.0, **more):
    settings = {"until": ["\n"], "do_sample": True, "temperature": 0.7, "max_gen_toks": 32}
    return {
        "doc_id": doc, "doc": {"question": "?"}, "target": "8",
        "arguments": {"gen_args_0": {"arg_0": f"What is {doc}?", "arg_1": settings}},
        "resps": [list(responses)], "filtered_resps": [filtered], "filter": "none",
        "metrics": ["exact_match"], "doc_hash": "0", "prompt_hash": "0", "target_hash": "0",
        "exact_match": grade, **more,
    }  # fmt: skip


def lm_eval(folder, rows, *, task="gsm8k", results=True, filters=None):
    folder.mkdir(exist_ok=True)
    path = folder / f"samples_{task}_{DATE}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if results:
        found = {
            "model_name": "org/toy-1b", "date": 1740910272.5, "lm_eval_version": "0.4.8",
            "config": {"model": "hf", "model_args": "pretrained=org/toy-1b,dtype=float"},
            "configs": {task: {"filter_list": filters} if filters else {}},
        }  # fmt: skip
        (folder / f"results_{DATE}.json").write_text(json.dumps(found))
    return path


def test_an_lm_eval_log(store, tmp_path):
    rows = [lm_row(0), lm_row(1, ["so 7"], "[invalid]", 0.0)]
    lm_eval(tmp_path / "out", rows)
    done = import_results(store, tmp_path / "out")
    frame = store.samples()
    assert done.added == len(frame) == 2
    assert set(frame["model"]) == {"org/toy-1b"}
    assert frame["problem_id"].tolist() == ["gsm8k/0", "gsm8k/1"]
    assert frame["correct"].tolist() == [True, False]
    assert frame["answer"].tolist() == ["8", ""]
    assert frame["text"].tolist() == ["8", "so 7"]
    assert frame["prompt"].tolist() == ["What is 0?", "What is 1?"]
    assert set(frame["temperature"]) == {0.7}
    assert set(frame["max_tokens"]) == {32}
    assert frame["output_tokens"].isna().all()
    assert set(frame["measured_at"]) == {"2025-03-02T10:11:12+00:00"}
    assert import_results(store, tmp_path / "out").added == 0


@pytest.mark.parametrize("arguments", [
    [["What?", {"until": ["\n"]}]],  # releases before 0.4.3
    {"gen_args_0": {"arg_0": ['[{"role": "user"}]'], "arg_1": {"do_sample": False}}},
])  # fmt: skip
def test_the_harness_is_greedy_unless_told_to_sample(store, tmp_path, arguments):
    lm_eval(tmp_path / "out", [lm_row(arguments=arguments)])
    import_results(store, tmp_path / "out")
    assert store.samples()["temperature"].tolist() == [0.0]
    assert store.samples()["prompt"].iloc[0] in ("What?", '[{"role": "user"}]')


def test_the_name_of_the_model_is_found_or_asked_for(store, tmp_path):
    path = lm_eval(tmp_path / "out", [lm_row()], results=False)
    with pytest.raises(InputError, match="--model NAME"):
        import_results(store, path)
    old = {"config": {"model": "hf", "model_args": "dtype=float,pretrained=a/b"}}
    (path.parent / "results.json").write_text(json.dumps(old))  # before 0.4.3
    assert import_results(store, path).models == ("a/b",)


def test_of_two_filters_the_first_that_grades_draws_counts(store, tmp_path):
    votes = {"name": "maj@4", "filter": [{"function": "majority_vote"}]}
    firsts = {"name": "score-first", "filter": [{"function": "take_first"}]}
    responses = ["8", "7", "7", "7"]
    rows = [
        lm_row(0, responses, "7", 0.0, filter="maj@4"),
        lm_row(0, responses, "8", 1.0, filter="score-first"),
    ]
    path = lm_eval(tmp_path / "out", rows, filters=[votes, firsts])
    with pytest.raises(InputError, match="grades a vote"):
        import_results(store, path, options=ImportOptions(filter="maj@4"))
    with pytest.raises(
        InputError, match="no filter 'other'; it has 'maj@4', 'score-first'"
    ):
        import_results(store, path, options=ImportOptions(filter="other"))
    done = import_results(store, path)
    assert store.samples()["correct"].tolist() == [True]  # of four, one has a grade
    assert any("left out: 1 x responses beyond the first" in note for note in done.notes)


def test_code_tasks_tell_how_many_of_the_responses_are_right(store, tmp_path):
    code = ["a", "b", "c", "d"]
    row = {**lm_row(0, code, code), "metrics": ["pass@1"], "pass@1": 0.75}
    del row["exact_match"]
    path = lm_eval(tmp_path / "out", [row], task="humaneval")
    import_results(store, path)
    frame = store.samples()
    assert (len(frame), frame["correct"].sum()) == (4, 3)
    assert set(frame["text"]) == {""}  # which of them is not known
    row["pass@1"] = 0.7
    path = lm_eval(tmp_path / "odd", [row], task="humaneval")
    with pytest.raises(WrongRowsError, match=r"pass@1 is 0\.7, not .*4ths"):
        import_results(store, path)


def test_a_grade_for_each_response(store, tmp_path):
    path = lm_eval(tmp_path / "out", [lm_row(0, ["8", "9"], ["8", "9"], [1, 0])])
    import_results(store, path)
    assert store.samples()["correct"].tolist() == [True, False]
    assert store.samples()["answer"].tolist() == ["8", "9"]


def test_a_choice_by_likelihood_is_one_greedy_draw(store, tmp_path):
    row = lm_row(3)
    row |= {
        "arguments": {
            f"gen_args_{i}": {"arg_0": "Which?", "arg_1": f" {c}"}
            for i, c in enumerate("AB")
        },
        "resps": [[["-3.5", "False"]], [["-0.5", "True"]]],
        "filtered_resps": [["-3.5", "False"], ["-0.5", "True"]],
        "metrics": ["acc", "acc_norm"], "acc": 1.0, "acc_norm": 0.0,
    }  # fmt: skip
    del row["exact_match"]
    import_results(store, lm_eval(tmp_path / "out", [row], task="arc"))
    (draw,) = store.samples().to_dict("records")
    assert (draw["correct"], draw["answer"], draw["temperature"]) == (True, "B", 0.0)


@pytest.mark.parametrize(("change", "message"), [
    ({"exact_match": 0.4}, "exact_match is 0.4"),
    ({"exact_match": float("nan")}, "exact_match"),
    ({"exact_match": ["gold", ["x"]]}, "exact_match"),
    ({"resps": []}, "resps"), ({"resps": "8"}, "resps"), ({"resps": [[]]}, "resps"),
    ({"resps": [[["x"]]]}, "log likelihood|exact_match|resps"),
    ({"doc_id": None}, "doc_id"), ({"doc_id": 0}, "each document stands once"),
])  # fmt: skip
def test_wrong_rows_of_lm_eval_are_named(store, tmp_path, change, message):
    wrong = {**lm_row(1), **change}
    if change.get("resps") == [[["x"]]]:
        wrong["exact_match"] = 0.5
    path = lm_eval(tmp_path / "out", [lm_row(0), wrong])
    with pytest.raises(WrongRowsError, match=message) as caught:
        import_results(store, path)
    assert caught.value.first[0].row == "line 2"


def test_a_metric_that_is_no_grade_must_be_chosen(store, tmp_path):
    row = {**lm_row(), "metrics": ["bleu", "rouge"], "bleu": 1.0, "rouge": 0.0}
    del row["exact_match"]
    path = lm_eval(tmp_path / "out", [row])
    with pytest.raises(InputError, match="bleu, rouge; say which"):
        import_results(store, path)
    assert import_results(store, path, options=ImportOptions(metric="bleu")).added == 1
