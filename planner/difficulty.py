"""Which group a prompt belongs to: its task and its difficulty class."""

from collections.abc import Iterable, Sequence

from planner.models.artifact import TaskLaw
from planner.models.difficulty import DifficultyLaw, TaskRecogniser
from planner.models.errors import InputError
from planner.options import GroupKey


class PromptGroups:
    """Sorts prompts into the groups that were measured; a few microseconds each."""

    def __init__(self, tasks: Sequence[TaskLaw], measured: Iterable[GroupKey]) -> None:
        """Prepare.

        Args:
            tasks: Of the laws.
            measured: Groups with a cell; a prompt of a class without one goes to the next.

        Raises:
            InputError: No task, or a task's law was fitted to other features.
        """
        groups = sorted(measured)
        self._recogniser = TaskRecogniser.of(tasks)
        self._laws = {task.task: DifficultyLaw.from_task(task) for task in tasks}
        self._measured: dict[GroupKey, GroupKey] = {}
        for task in tasks:
            classes = [d for name, d in groups if name == task.task]
            for d in range(len(task.edges) + 1) if classes else ():
                nearest = min(classes, key=lambda c: (abs(c - d), -c))
                self._measured[task.task, d] = task.task, nearest

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task a prompt may belong to."""
        return tuple(self._laws)

    def of(self, prompt: str, task: str | None = None) -> GroupKey:
        """The group of a prompt.

        Args:
            prompt: Its text.
            task: Its task where the caller knows it; None: recognised from the text.

        Raises:
            InputError: The task is not known, or none of its classes was measured.
        """
        name = self._recogniser.recognise(prompt) if task is None else task
        law = self._laws.get(name)
        if law is None:
            known = ", ".join(self._laws)
            raise InputError(f"unknown task {name!r}; the laws know: {known}")
        try:
            return self._measured[name, law.classify(prompt)]
        except KeyError:
            raise InputError(f"task {name!r} was never measured; calibrate it") from None
