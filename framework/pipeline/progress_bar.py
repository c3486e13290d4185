"""A progress bar of one run, in a terminal or in a notebook."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from ..config.options import convert
from ..events import Inverted, Rendering, Stepped
from .events import Event, Prepared


class ProgressBar:
    """Counts the steps of a run, and says what happens before the first. Nothing is shown unless it is `shown`."""

    def __init__(self, *, shown: bool) -> None:
        self.shown = convert(shown, bool, "progress")
        self._bar: Any = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, event: Event) -> None:
        """Show what an event says."""
        if not self.shown:
            return
        if isinstance(event, Prepared):
            from tqdm.auto import tqdm

            self._bar = tqdm(total=len(event.steps), unit="step")
        elif isinstance(event, Rendering):
            self._bar.set_description(f"{event.source} renders")
        elif isinstance(event, Inverted):
            self._bar.set_description("inverting")
        elif isinstance(event, Stepped):
            self._bar.set_description("")
            self._bar.update()
