"""An event loop in a thread of its own, so that callers stay synchronous."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

# A task that is cancelled just as it begins to connect leaves a coroutine that was never
# awaited, and Python warns: so it is given this long to be past that.
SETTLE_S = 0.05


class LoopThread:
    """Runs callbacks and coroutines on its loop until it is closed."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        # a daemon, so that a caller who forgets to close can still exit
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()

    def post(self, call: Callable[..., None], *arguments: object) -> None:
        """Have `call` run on the loop, in the order posted; nothing once closed."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(call, *arguments)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the loop and wait for what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self, last: Coroutine[Any, Any, None]) -> None:
        """Cancel what runs, run `last`, end the loop and join the thread."""
        self.run(self._cancel_all())
        self.run(last)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        if tasks:
            await asyncio.sleep(SETTLE_S)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
