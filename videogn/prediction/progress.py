"""What a user watches while videos are classified: a bar on stderr, where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class PredictionProgress:
    """Files done of `total`, and the time left. A file whose timeline is half done counts as half a file."""

    def __init__(self, total: int) -> None:
        console = Console(stderr=True, highlight=False)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("left"),
        )
        # stdout is the answers' own: it is not redirected to where the bar is.
        self._bar = Progress(
            *columns,
            console=console,
            transient=True,
            disable=not console.is_terminal,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task: TaskID = self._bar.add_task("files", total=total)
        self._done = 0

    def __enter__(self) -> PredictionProgress:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def share(self, share: float) -> None:
        """Of the file that is being scored."""
        self._bar.update(self._task, completed=self._done + min(share, 0.99))

    def advance(self) -> None:
        self._done += 1
        self._bar.update(self._task, completed=self._done)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """While something else is written to the terminal."""
        is_in_the_way = self._bar.live.is_started and sys.stdout.isatty()
        if is_in_the_way:
            self._bar.stop()
        try:
            yield
            sys.stdout.flush()
        finally:
            if is_in_the_way:
                self._bar.start()
