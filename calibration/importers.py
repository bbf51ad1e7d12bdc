"""Results measured elsewhere become rows of the store.

Every file is checked whole before a row is stored. A file is known by its content (a log of
inspect by its run), so that importing it again adds nothing. Rows have no id of their own:
draws of a problem in two different files are different draws, and those of the later file
are numbered after those of the earlier one. A file that begins with one imported before, or
a second attempt of a run, would count draws twice and is refused.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from planner.calibration.environment import now
from planner.calibration.import_files import Format, find_logs, task_of
from planner.calibration.import_rows import (
    Graded,
    ImportOptions,
    LeftOut,
    Log,
    Wrong,
    WrongRowsError,
    name,
    number,
    prefix_sha256,
    whole,
)
from planner.calibration.store import Store
from planner.models.errors import InputError
from planner.models.records import Problem, Sample

_NAMED = 10  # wrong rows that the error lists
_PART_ROWS, _PART_CHARS = 50_000, 64_000_000  # of one part of the store
_SAMPLING_TEMPERATURE = 1.0  # what servers take where nothing is said
_IMPORTED_VERIFIER = "exact"  # of problems of which only imported draws are known

_Key = tuple[str, str, float]  # model, problem, temperature


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What an import did."""

    added: int  # draws
    known: int  # draws that were there already
    models: tuple[str, ...]
    n_problems: int
    temperatures: tuple[float, ...]
    no_temperature: int  # draws whose file does not tell
    no_tokens: int
    assumed_tokens: int  # draws that got the caller's figure
    notes: tuple[str, ...]


def import_results(
    store: Store,
    path: Path,
    *,
    format: Format | None = None,
    options: ImportOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Imported:
    """Import a file, or every file of a folder: all of their rows, or none.

    A process that is killed while it stores leaves whole parts; the same import again adds
    what is missing.

    Args:
        store: Where to.
        path: A file or folder.
        format: What it is; None tells by name and content.
        options: What the caller states about the files.
        progress: Told how many draws of how many are stored.

    Raises:
        WrongRowsError: Rows that cannot be imported; it names them.
        InputError: A file cannot be read, is of no known format, or repeats draws that
            were imported before.
        StoreError: The disk is full, or a part of the store is damaged.
    """
    given = options or ImportOptions()
    _check(given)
    logs = find_logs(path, format, given)
    stored = _stored_imports(store)
    for log in logs:
        _refuse_repeats(log, stored)
    survey = _survey(logs)
    numbers = _Numbers(store, {log.identity for log in logs})
    if survey.no_temperature and given.temperature is not None:
        survey.temperatures.add(given.temperature)
    total = sum(survey.rows.values())
    added = done = 0
    imported_at = now()
    for log in logs:
        there = stored.get(log.identity, 0)
        done += there
        for part in _parts(_samples(log, given, numbers, imported_at), skip=there):
            store.append_samples(part)
            added, done = added + len(part), done + len(part)
            if progress is not None:
                progress(done, total)
    return Imported(
        added=added, known=total - added, models=tuple(sorted(survey.models)),
        n_problems=len(survey.problems), temperatures=tuple(sorted(survey.temperatures)),
        no_temperature=0 if given.temperature is not None else survey.no_temperature,
        no_tokens=0 if given.tokens is not None else survey.no_tokens,
        assumed_tokens=survey.no_tokens if given.tokens is not None else 0,
        notes=(*(note for log in logs for note in log.notes), *survey.notes),
    )  # fmt: skip


def _check(options: ImportOptions) -> None:
    try:
        for field in ("model", "task"):
            if (stated := getattr(options, field)) is not None:
                name(f"--{field}", stated)
        number("--temperature", options.temperature, least=0)
        whole("--tokens", options.tokens, least=1)
    except ValueError as error:
        field, value, wanted = error.args
        raise InputError(f"{field} is {value!r}, not {wanted}") from None


def _stored_imports(store: Store) -> dict[str, int]:
    """Draws of each imported file that the store holds."""
    frame = store.query(
        "SELECT machine, count(*) AS n FROM samples WHERE machine LIKE 'import %'"
        " GROUP BY machine"
    )
    return dict(zip(frame["machine"], map(int, frame["n"]), strict=True))


def _refuse_repeats(log: Log, stored: dict[str, int]) -> None:
    if log.identity in stored:
        return
    task = task_of(log.identity)
    size = log.path.stat().st_size
    for identity in stored:
        words = identity.split(" ")
        if task:
            if task == task_of(identity):
                raise InputError(
                    f"{log.path}: another attempt at this task was imported before; its "
                    "samples would count twice. Import the last attempt alone, into a "
                    "fresh workspace"
                )
        elif (
            words[1] != "inspect"
            and 0 < int(words[2]) < size
            and prefix_sha256(log.path, int(words[2]))[:16] == words[1]
        ):
            raise InputError(
                f"{log.path}: begins with a file that was imported before, whose draws "
                "would count twice; put the new rows in a file of their own"
            )


@dataclass
class _Survey:
    """What a first reading of all files found."""

    rows: Counter[str]
    models: set[str]
    problems: set[str]
    temperatures: set[float]
    no_temperature: int = 0
    no_tokens: int = 0
    notes: tuple[str, ...] = ()


def _survey(logs: Iterable[Log]) -> _Survey:
    """Read every row.

    Raises:
        WrongRowsError: Some cannot be imported.
        InputError: There are none, or a file cannot be read.
    """
    survey = _Survey(Counter(), set(), set(), set())
    wrong: list[Wrong] = []
    n_wrong = 0
    left_out: dict[tuple[str, str], list[str]] = {}
    for log in logs:
        for found in log.rows():
            if isinstance(found, Wrong):
                n_wrong += 1
                if len(wrong) < _NAMED:
                    wrong.append(found)
            elif isinstance(found, LeftOut):
                left_out.setdefault((log.path.name, found.why), []).append(found.row)
            else:
                survey.rows[log.identity] += 1
                survey.models.add(found.model)
                survey.problems.add(found.problem_id)
                if found.temperature is None:
                    survey.no_temperature += 1
                else:
                    survey.temperatures.add(found.temperature)
                survey.no_tokens += found.output_tokens is None
        if not survey.rows[log.identity] and not n_wrong:
            raise InputError(f"{log.path}: holds no graded draw; nothing to import")
    if n_wrong:
        raise WrongRowsError(n_wrong, tuple(wrong))
    survey.notes = tuple(
        f"{file}: left out: {len(rows):,} x {why} ({', '.join(rows[:3])}"
        f"{', ...' if len(rows) > 3 else ''})"
        for (file, why), rows in left_out.items()
    )
    return survey


class _Numbers:
    """Numbers the draws of each model, problem and temperature, after those stored."""

    def __init__(self, store: Store, own: set[str]) -> None:
        # draws of the files themselves do not count: what was cut short goes on as it began
        frame = store.query(
            "SELECT model, problem_id, temperature, machine, max(draw) AS last FROM samples"
            " GROUP BY model, problem_id, temperature, machine"
        )
        self._next: dict[_Key, int] = {}
        for model, problem, temperature, machine, last in frame.itertuples(index=False):
            if machine not in own:
                key = (model, problem, float(temperature))
                self._next[key] = max(self._next.get(key, 0), int(last) + 1)

    def take(self, key: _Key) -> int:
        """The number of the next draw."""
        draw = self._next.get(key, 0)
        self._next[key] = draw + 1
        return draw


def _samples(
    log: Log, options: ImportOptions, numbers: _Numbers, imported_at: str
) -> Iterator[Sample]:
    for found in log.rows():
        if not isinstance(found, Graded):
            continue
        temperature, tokens = found.temperature, found.output_tokens
        assumed = False
        if temperature is None:
            temperature = options.temperature
        if temperature is None:
            temperature, assumed = _SAMPLING_TEMPERATURE, True
        if tokens is None and options.tokens is not None:
            tokens, assumed = options.tokens, True
        key = (found.model, found.problem_id, temperature)
        yield Sample(
            model=found.model, task=found.task, problem_id=found.problem_id,
            prompt=found.prompt, temperature=temperature, top_p=found.top_p,
            max_tokens=found.max_tokens, draw=numbers.take(key), seed=found.seed,
            text=found.text, answer=found.answer, correct=found.correct, score=found.score,
            finish_reason=found.finish_reason, prompt_tokens=found.prompt_tokens,
            output_tokens=tokens, ttft_s=None, latency_s=found.latency_s, logprob=None,
            engine=f"imported from {log.path.name} ({log.tool})", machine=log.identity,
            source="assumed" if assumed else "transferred",
            measured_at=found.measured_at or imported_at,
        )  # fmt: skip


def _parts(rows: Iterator[Sample], skip: int) -> Iterator[list[Sample]]:
    part: list[Sample] = []
    chars = 0
    for i, row in enumerate(rows):
        if i < skip:
            continue
        part.append(row)
        chars += len(row.prompt) + len(row.text) + len(row.answer)
        if len(part) >= _PART_ROWS or chars >= _PART_CHARS:
            yield part
            part, chars = [], 0
    if part:
        yield part


def with_imported(problems: Sequence[Problem], store: Store) -> list[Problem]:
    """Problems of a workspace, and those that only imported draws tell of.

    The latter have the prompt their file gave, if any, and are graded as their task is; a
    task that the workspace does not know counts as graded by `exact`, so that nothing can
    check its answers when a plan is carried out. What the workspace says of a problem
    stands. Where something was imported, its tasks without a draw are left out.

    Raises:
        StoreError: A part of the store is damaged.
    """
    imported = store.query(
        "SELECT problem_id, min(task) AS task, min(prompt) AS prompt FROM samples"
        " WHERE machine LIKE 'import %' GROUP BY problem_id ORDER BY problem_id"
    )
    if imported.empty:
        return list(problems)
    drawn = set(store.query("SELECT DISTINCT problem_id FROM samples")["problem_id"])
    tasks = {problem.task for problem in problems if problem.problem_id in drawn}
    known = {problem.problem_id for problem in problems}
    verifier = {problem.task: problem.verifier for problem in problems}
    return [
        *(problem for problem in problems if problem.task in tasks),
        *(
            Problem(
                problem_id=problem_id, task=task, prompt=prompt,
                verifier=verifier.get(task, _IMPORTED_VERIFIER),
            )
            for problem_id, task, prompt in imported.itertuples(index=False)
            if problem_id not in known
        ),
    ]  # fmt: skip
