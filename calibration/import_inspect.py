"""Draws from the logs of inspect-ai, `.json` and `.eval`.

An `.eval` log is a zip: `header.json` (until a run ends, `_journal/start.json`) and one
`samples/<id>_epoch_<n>.json` a sample.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
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
    checked,
    name,
    number,
    shown,
    text,
    truth,
    unreadable,
    whole,
)
from planner.calibration.import_text import json_file, json_object
from planner.calibration.import_zip import ZipMembers
from planner.models.errors import InputError
from planner.models.records import FinishReason

_GRADES = {"C": True, "I": False, "N": False}  # correct, incorrect, no answer
_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "max_tokens": "length",
    "model_length": "length",
}


def is_inspect(head: Mapping[str, Any]) -> bool:
    """Whether a JSON object is a log, or its header."""
    run = head.get("eval")
    return isinstance(run, dict) and "task" in run and "model" in run


def inspect_log(path: Path, options: ImportOptions) -> Log:
    """One log.

    Raises:
        InputError: It cannot be read, or is no log of inspect.
    """
    head = _zip_header(path) if path.suffix == ".eval" else json_file(path)
    if not is_inspect(head):
        raise InputError(
            f"{path}: not a log of inspect: needs `eval` with a model and a task"
        )
    run = head["eval"]
    versions = run.get("packages")
    version = versions.get("inspect_ai", "") if isinstance(versions, dict) else ""
    notes = []
    if (status := head.get("status", "started")) != "success":
        notes.append(
            f"{path.name}: a run that ended as {shown(status)}; what it graded counts"
        )
    scorers = run.get("scorers")
    names = [str(s.get("name")) for s in scorers or () if isinstance(s, dict)]
    if len(names) > 1 and options.metric is None:
        notes.append(f"{path.name}: graded by {names[0]}, not {', '.join(names[1:])}")
    try:
        model = name("model", options.model or run["model"])
        task = name("task", str(run["task"]).split("/")[-1])
        reader = _Reader(
            path=path, head={k: head.get(k) for k in ("eval", "plan", "stats")},
            model=model, task=task, scorer=options.metric, settings=_settings(head),
        )  # fmt: skip
    except BadValueError as error:
        raise InputError(f"{path}: {error.at(path, 'header')}") from None
    ids = [str(run.get(key, "")) for key in ("task_id", "run_id")]
    if not all(ids):
        raise InputError(f"{path}: its header has no task_id and run_id")
    return Log(
        path=path, identity=f"import inspect {' '.join(ids)}"[:200],
        tool=f"inspect_ai {version}".strip(), rows=reader.rows, notes=tuple(notes),
    )  # fmt: skip


def created(log: Log) -> str:
    """When a log's run began, to tell which of two attempts is the later."""
    head = _zip_header(log.path) if log.path.suffix == ".eval" else json_file(log.path)
    return str(head["eval"].get("created", ""))


def _settings(head: Mapping[str, Any]) -> dict[str, Any]:
    """Generation settings: the model's own, then what the task and the run say."""
    run, plan = head["eval"], head.get("plan")
    settings: dict[str, Any] = {}
    for given in (
        run.get("model_generate_config"),
        plan.get("config") if isinstance(plan, dict) else None,
    ):
        if isinstance(given, dict):
            settings |= {k: v for k, v in given.items() if v is not None}
    return settings


@dataclass(frozen=True, kw_only=True)
class _Reader:
    path: Path
    head: Mapping[str, Any]
    model: str
    task: str
    scorer: str | None
    settings: Mapping[str, Any]

    def rows(self) -> Iterator[Found]:
        """Every graded sample; each id and epoch stands once."""
        seen: set[tuple[str, int]] = set()
        for where, sample in self._samples():
            yield from checked(self.path, where, partial(self._graded, sample, where, seen))

    def _samples(self) -> Iterator[tuple[str, dict[str, Any] | BadValueError]]:
        if self.path.suffix == ".eval":
            yield from _zip_samples(self.path)
            return
        samples = json_file(self.path).get("samples")
        for i, sample in enumerate(samples if isinstance(samples, list) else [], 1):
            where = f"sample {i}"
            if isinstance(sample, dict):
                yield where, sample
            else:
                yield where, BadValueError("the sample", sample, "a JSON object")

    def _graded(
        self,
        sample: dict[str, Any] | BadValueError,
        where: str,
        seen: set[tuple[str, int]],
    ) -> Iterator[Graded | LeftOut]:
        if isinstance(sample, BadValueError):
            raise sample
        item = name("id", sample.get("id"))
        epoch = whole("epoch", sample.get("epoch", 1), least=0) or 0
        if (item, epoch) in seen:
            raise BadValueError("id and epoch", f"{item}, {epoch}", "new in this log")
        seen.add((item, epoch))
        score = self._score(sample)
        if score is None:
            why = "samples that ended in an error" if sample.get("error") else "no score"
            yield LeftOut(why, f"{item} epoch {epoch}")
            return
        output = sample.get("output")
        output = output if isinstance(output, dict) else {}
        used = _usage(sample, output, str(self.head["eval"]["model"]))
        prompt_tokens, output_tokens = used
        seconds = sample.get("working_time", sample.get("total_time"))
        done = sample.get("completed_at")
        yield Graded(
            model=self.model, task=self.task, problem_id=f"{self.task}/{item}",
            correct=_correct(score.get("value")), prompt=_prompt(sample.get("input")),
            text=text("output", _completion(output)),
            answer=text("answer", score.get("answer")),
            temperature=number("temperature", self.settings.get("temperature"), least=0),
            top_p=number("top_p", self.settings.get("top_p"), least=0),
            max_tokens=whole("max_tokens", self.settings.get("max_tokens"), least=1),
            seed=whole("seed", self.settings.get("seed")),
            finish_reason="length" if sample.get("limit") else _finish(output),
            prompt_tokens=prompt_tokens, output_tokens=output_tokens,
            latency_s=number("working_time", seconds, least=0),
            measured_at=done if isinstance(done, str) else None,
        )  # fmt: skip

    def _score(self, sample: Mapping[str, Any]) -> dict[str, Any] | None:
        """The score that counts: of the scorer asked for, else of the first."""
        scores = sample.get("scores")
        if scores is None and isinstance(sample.get("score"), dict):
            scores = {"score": sample["score"]}  # as logged before scorers had names
        if not scores:
            return None
        if not isinstance(scores, dict):
            raise BadValueError("scores", scores, "a score for each scorer")
        wanted = self.scorer or next(iter(scores))
        if wanted not in scores:
            raise BadValueError("scores", ", ".join(scores), f"one of scorer {wanted}")
        if not isinstance(score := scores[wanted], dict):
            raise BadValueError(f"score of {wanted}", score, "a JSON object")
        return score


def _correct(value: object) -> bool:
    if isinstance(value, str) and value in _GRADES:
        return _GRADES[value]
    try:
        return truth("score", value)
    except BadValueError:
        wanted = "C, I, true, false, 0 or 1; --metric NAME takes another scorer"
        raise BadValueError("score", value, wanted) from None


def _usage(
    sample: Mapping[str, Any], output: Mapping[str, Any], model: str
) -> tuple[int | None, int | None]:
    """Prompt and output tokens of the model; graders' and tools' own models aside."""
    by_model = sample.get("model_usage")
    used = by_model.get(model) if isinstance(by_model, dict) else None
    used = used if isinstance(used, dict) else output.get("usage")
    if not isinstance(used, dict):
        return None, None
    fresh, out = (whole(k, used.get(k)) for k in ("input_tokens", "output_tokens"))
    cached = sum(
        whole(k, used.get(k)) or 0
        for k in ("input_tokens_cache_read", "input_tokens_cache_write")
    )
    total = whole("total_tokens", used.get("total_tokens"))
    thought = whole("reasoning_tokens", used.get("reasoning_tokens")) or 0
    if fresh is None or out is None:
        return fresh, out
    # some providers leave reasoning out of the output, others cached input out of the
    # input: the total tells
    for extra_in, extra_out in ((0, thought), (cached, 0), (cached, thought)):
        if total == fresh + out + extra_in + extra_out:
            if extra_in + extra_out:
                fresh, out = fresh + extra_in, out + extra_out
            break
    return fresh, out


def _finish(output: Mapping[str, Any]) -> FinishReason | None:
    choices = output.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return _FINISH.get(str(first.get("stop_reason"))) if isinstance(first, dict) else None


def _completion(output: Mapping[str, Any]) -> str | None:
    if isinstance(given := output.get("completion"), str):
        return given
    choices = output.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    return _content(message.get("content")) if isinstance(message, dict) else None


def _prompt(given: object) -> str:
    """The input as text: itself, or what the messages of a chat say."""
    if isinstance(given, list):
        said = [_content(m.get("content")) for m in given if isinstance(m, dict)]
        return text("input", "\n\n".join(filter(None, said)))
    return text("input", given)


def _content(given: object) -> str:
    if isinstance(given, list):
        parts = [p.get("text") for p in given if isinstance(p, dict)]
        return "\n".join(p for p in parts if isinstance(p, str))
    return given if isinstance(given, str) else ""


def _zip_header(path: Path) -> dict[str, Any]:
    with closing(ZipMembers(path)) as log:
        for member in ("header.json", "_journal/start.json"):
            if member in log.members:
                try:
                    return json_object(log.read(log.members[member]))
                except BadValueError as error:
                    raise unreadable(path, f"{member}: {error.wanted} expected") from None
    raise InputError(f"{path}: not a log of inspect: its zip has no header.json")


def _zip_samples(path: Path) -> Iterator[tuple[str, dict[str, Any] | BadValueError]]:
    with closing(ZipMembers(path)) as log:
        for member, info in log.members.items():
            if not (member.startswith("samples/") and member.endswith(".json")):
                continue
            where = shown(member)
            try:
                yield where, json_object(log.read(info))
            except BadValueError as error:
                yield where, error


def log_head(path: Path) -> bool:
    """Whether a `.json` file looks like a log of inspect, from its first bytes."""
    try:
        with path.open("rb") as file:
            head = file.read(4096).decode(errors="replace")
    except OSError:
        return False
    return head.lstrip().startswith("{") and json.dumps("eval") in head
