"""Draws from the sample logs of EleutherAI's lm-evaluation-harness (`--log_samples`).

A run writes `<model>/samples_<task>_<date>.jsonl`, a line a document and filter, and beside
it `results_<date>.json` with the model's name and the settings; releases before 0.4.3 name
the latter `results.json`. A filter turns the responses into what is graded: most take the
first response, so that of repeated responses only the first has a grade; votes grade no
draw at all; the code tasks grade all responses together as pass@1, a share.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from planner.calibration.import_rows import (
    BadValueError,
    Found,
    Graded,
    ImportOptions,
    LeftOut,
    Log,
    Wrong,
    checked,
    content_identity,
    name,
    number,
    shown,
    text,
    truth,
    whole,
)
from planner.calibration.import_text import json_file, json_lines
from planner.models.errors import InputError

_FILE = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[\d.\-]+)\.jsonl(\.gz)?")
_MODEL_ARGS = ("peft", "delta", "pretrained", "model", "path", "engine")  # as they rank
_METRICS = ("exact_match", "acc", "pass@1", "pass_at_1")  # one that grades a response
_SHARES = ("pass@1", "pass_at_1")  # of the responses of a document
_CAPS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_NO_ANSWER = "[invalid]"  # what the regex filter gives where it finds nothing
_KEYS = {
    "doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics",
    "doc_hash", "prompt_hash", "target_hash",
}  # fmt: skip


def is_lm_eval(row: Mapping[str, Any]) -> bool:
    """Whether an object is a line of a sample log."""
    return {"doc_id", "resps", "arguments"} <= set(row)


def lm_eval_log(path: Path, options: ImportOptions) -> Log:
    """One sample log.

    Raises:
        InputError: It cannot be read, is no sample log, or nothing tells the model, the
            metric or the filter.
    """
    first = _first(path)
    match = _FILE.fullmatch(path.name)
    results = _results(path, match["date"] if match else None)
    task = match["task"] if match else path.name.split(".")[0].removeprefix("samples_")
    model = options.model or _model(results)
    if model is None:
        raise InputError(
            f"{path}: no results_*.json beside it that names the model; say --model NAME"
        )
    configs = results.get("configs")
    config = configs.get(task) if isinstance(configs, dict) else None
    grade = _filter(path, first, config, options)
    metric = _metric(path, first, options)
    reader = _Reader(
        path=path, model=name("model", model), task=name("task", task), filter=grade,
        metric=metric, measured_at=_date(results),
    )  # fmt: skip
    version = str(results.get("lm_eval_version", "")).strip()
    graded_by = metric if grade is None else f"{metric} of filter {grade}"
    return Log(
        path=path, identity=content_identity(path), tool=f"lm-eval {version}".strip(),
        rows=reader.rows, notes=(f"{path.name}: graded by {graded_by}",),
    )  # fmt: skip


def _first(path: Path) -> dict[str, Any]:
    for where, row in json_lines(path):
        if isinstance(row, Wrong):
            raise InputError(
                f"{path}, {where}: {row.field} is {row.value}, not {row.wanted}"
            )
        if not is_lm_eval(row):
            raise InputError(
                f"{path}, {where}: not a sample log of lm-eval: needs the fields doc_id, "
                "arguments and resps"
            )
        return row
    raise InputError(f"{path}: empty; nothing to import")


def _results(path: Path, date: str | None) -> dict[str, Any]:
    """The results beside a sample log: of the same date, or the only ones there are."""
    own = path.with_name(f"results_{date}.json")
    if date is not None and own.exists():
        return json_file(own)
    beside = sorted(path.parent.glob("results*.json"))
    return json_file(beside[0]) if len(beside) == 1 else {}


def _model(results: Mapping[str, Any]) -> str | None:
    config = results.get("config")
    named = results.get("model_name")
    if isinstance(named, str) and named:
        return named
    if not isinstance(config, dict):
        return None
    arguments = config.get("model_args")
    if isinstance(arguments, str):
        pairs = (part.split("=", 1) for part in arguments.split(",") if "=" in part)
        arguments = {key.strip(): value for key, value in pairs}
    if isinstance(arguments, dict):
        for key in _MODEL_ARGS:
            if arguments.get(key):
                return str(arguments[key])
    return None


def _date(results: Mapping[str, Any]) -> str | None:
    """When the run began; the date in file names is a local time of unknown zone."""
    started = results.get("date")
    if isinstance(started, int | float) and 0 < started < 1e11:
        return datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds")
    return None


def _filter(
    path: Path, first: dict[str, Any], config: object, options: ImportOptions
) -> str | None:
    """The filter whose grades count: the first that grades single responses.

    Raises:
        InputError: It grades votes.
    """
    listed = config.get("filter_list") if isinstance(config, dict) else None
    filters = [f for f in listed if isinstance(f, dict)] if isinstance(listed, list) else []
    votes = {str(f.get("name")) for f in filters if _is_vote(f)}
    single = [str(f.get("name")) for f in filters if not _is_vote(f)]
    # releases before filters had names log one of them only
    chosen = options.filter or (single[0] if single else first.get("filter"))
    if chosen is None:
        return None
    if str(chosen) in votes or str(chosen).startswith("maj"):
        raise InputError(
            f"{path}: its filter {chosen!r} grades a vote, not a draw; say --filter NAME"
        )
    return str(chosen)


def _is_vote(config: Mapping[str, Any]) -> bool:
    steps = config.get("filter")
    functions = [s.get("function") for s in steps or () if isinstance(s, dict)]
    return "majority_vote" in functions or "take_first_k" in functions


def _metric(path: Path, first: dict[str, Any], options: ImportOptions) -> str:
    listed = first.get("metrics")
    known = (
        [str(m) for m in listed]
        if isinstance(listed, list)
        else [key for key in first if key not in _KEYS]
    )
    if options.metric is not None:
        if options.metric not in first:
            raise InputError(
                f"{path}: no metric {options.metric!r}; it has {', '.join(known)}"
            )
        return options.metric
    for metric in (*_METRICS, *(m for m in known if m.startswith("exact_match"))):
        if metric in first:
            return metric
    if len(known) == 1:
        return known[0]
    raise InputError(
        f"{path}: its metrics are {', '.join(known) or 'none'}; say which one grades an "
        "answer right or wrong with --metric NAME"
    )


@dataclass(frozen=True, kw_only=True)
class _Reader:
    path: Path
    model: str
    task: str
    filter: str | None
    metric: str
    measured_at: str | None

    def rows(self) -> Iterator[Found]:
        """Every draw of the filter; a document stands once in it."""
        seen: set[str] = set()
        others: set[str] = set()
        for where, row in json_lines(self.path):
            if isinstance(row, Wrong):
                yield row
                continue
            grade = row.get("filter")
            if self.filter is not None and grade is not None and grade != self.filter:
                others.add(shown(grade))
                continue
            yield from checked(self.path, where, partial(self._graded, row, seen))
        if not seen and others:
            raise InputError(
                f"{self.path}: no filter {self.filter!r}; it has "
                f"{', '.join(sorted(others))}"
            )

    def _graded(self, row: dict[str, Any], seen: set[str]) -> Iterator[Graded | LeftOut]:
        doc = name("doc_id", row.get("doc_id"))
        if doc in seen:
            raise BadValueError("doc_id", doc, "new: each document stands once")
        seen.add(doc)
        if self.metric not in row:
            raise BadValueError(self.metric, None, "0 or 1")
        responses = row.get("resps")
        if not isinstance(responses, list) or not all(
            isinstance(r, list) and r for r in responses
        ):
            raise BadValueError("resps", responses, "a list of responses for each request")
        if not responses:
            raise BadValueError("resps", responses, "at least one response")
        contexts, settings = _arguments(row.get("arguments"))
        prompt = text("arguments", contexts[0] if contexts else None)
        if isinstance(responses[0][0], list):  # likelihoods of given continuations
            yield self._chosen(row, doc, prompt, responses, settings)
        else:
            yield from self._generated(row, doc, prompt, responses[0], settings[:1])

    def _chosen(
        self,
        row: dict[str, Any],
        doc: str,
        prompt: str,
        responses: list[Any],
        continuations: list[Any],
    ) -> Graded:
        """A choice by likelihood: no sampling in it, so that it is one greedy draw."""
        chosen = ""
        if self.metric == "acc" and len(continuations) == len(responses) > 1:
            likelihoods = [_likelihood(r[0]) for r in responses]
            best = continuations[likelihoods.index(max(likelihoods))]
            chosen = text("arguments", best).strip()
        return Graded(
            model=self.model, task=self.task, problem_id=f"{self.task}/{doc}",
            correct=truth(self.metric, row[self.metric]), prompt=prompt, text=chosen,
            answer=chosen, temperature=0.0, measured_at=self.measured_at,
        )  # fmt: skip

    def _generated(
        self,
        row: dict[str, Any],
        doc: str,
        prompt: str,
        responses: list[Any],
        settings: list[Any],
    ) -> Iterator[Graded | LeftOut]:
        given = settings[0] if settings and isinstance(settings[0], dict) else None
        filtered = row.get("filtered_resps")
        kept = filtered[0] if isinstance(filtered, list) and filtered else None
        draw = partial(
            Graded, model=self.model, task=self.task, problem_id=f"{self.task}/{doc}",
            prompt=prompt, temperature=_temperature(given, len(responses)),
            top_p=number("top_p", given.get("top_p"), least=0) if given else None,
            max_tokens=_cap(given), measured_at=self.measured_at,
        )  # fmt: skip
        n, value = len(responses), row[self.metric]
        if isinstance(value, list) and len(value) == n:  # a grade a response
            own = kept if isinstance(kept, list) and len(kept) == n else [None] * n
            for response, answer, grade in zip(responses, own, value, strict=True):
                yield draw(
                    correct=truth(self.metric, grade), text=text("resps", response),
                    answer=_answer(answer),
                )  # fmt: skip
        elif n > 1 and isinstance(kept, list) and len(kept) == n:  # all graded together
            for correct in _shared(self.metric, value, n):
                yield draw(correct=correct)  # which response it was is not told
        else:
            one = kept[0] if isinstance(kept, list) and len(kept) == 1 else kept
            yield draw(
                correct=truth(self.metric, value), text=text("resps", responses[0]),
                answer=_answer(one),
            )  # fmt: skip
            if n > 1:
                yield LeftOut(
                    "responses beyond the first, which the filter gives no grade",
                    f"doc_id {doc}: {n - 1}",
                )


def _arguments(given: object) -> tuple[list[Any], list[Any]]:
    """Contexts and second arguments of the requests: settings, or continuations."""
    if isinstance(given, dict):  # {"gen_args_0": {"arg_0": ..., "arg_1": ...}}
        requests = [r for r in given.values() if isinstance(r, dict)]
        pairs = [(r.get("arg_0"), r.get("arg_1")) for r in requests]
    else:  # [[..., ...]], as written before 0.4.3
        listed = given if isinstance(given, list) else []
        pairs = [
            (r[0], r[1] if len(r) > 1 else None)
            for r in listed
            if r and isinstance(r, list)
        ]
    return [_context(context) for context, _ in pairs], [second for _, second in pairs]


def _context(given: object) -> object:
    """A prompt as text; chats come as one text of JSON in a list."""
    if isinstance(given, list) and len(given) == 1 and isinstance(given[0], str):
        return given[0]
    return given if isinstance(given, str) else json.dumps(given) if given else None


def _likelihood(response: object) -> float:
    """Of a continuation, from [log likelihood, whether it is the greedy one]."""
    try:
        return float(response[0])  # type: ignore[index]
    except (TypeError, ValueError, IndexError, KeyError):
        raise BadValueError("resps", response, "[log likelihood, is greedy]") from None


def _answer(filtered: object) -> str:
    found = text("filtered_resps", filtered if isinstance(filtered, str) else None)
    return "" if found == _NO_ANSWER else found


def _temperature(settings: Mapping[str, Any] | None, n: int) -> float | None:
    """By the request's settings; the harness is greedy unless told to sample."""
    if settings is None:
        return None
    stated = number("temperature", settings.get("temperature"), least=0)
    samples = settings.get("do_sample")
    if samples is False:
        return 0.0
    if stated is None and samples is None and n == 1:
        return 0.0
    return stated


def _cap(settings: Mapping[str, Any] | None) -> int | None:
    for key in _CAPS:
        if settings and settings.get(key) is not None:
            return whole(key, settings[key], least=1)
    return None


def _shared(metric: str, value: object, n: int) -> Iterator[bool]:
    """Grades of n responses of which only the share of right ones is known."""
    share = number(metric, value, least=0)
    right = round(n * share) if share is not None and share <= 1 else -1
    if metric not in _SHARES or share is None or abs(right - n * share) > 1e-6 or right < 0:
        wanted = f"pass@1, a whole number of {n}ths"
        raise BadValueError(metric, value, wanted)
    return (i < right for i in range(n))
