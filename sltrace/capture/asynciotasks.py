"""What the asyncio task of a wait or sample is called: column `task`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sltrace.capture.columns import Nulls, named

if TYPE_CHECKING:
    import pyarrow as pa


class AsyncioTasks:
    """Tasks by the runtime stack they are of, and the names that were given to some.

    Attributes:
        of_stack: Coroutine by id of a runtime stack.
        names: Name by the number that tags have of it.
    """

    def __init__(self) -> None:
        self.of_stack: dict[int, str] = {}
        self.names: dict[int, str] = {}
        self._learn: Callable[[], None] = lambda: None

    def learn_from(self, learn: Callable[[], None]) -> None:
        """Takes what puts in all that has come since.

        It is called before every column, as rows of waits may be due before those of the source
        that tells of their stacks.
        """
        self._learn = learn

    def name(self, records: NDArray[Any]) -> None:
        """Takes `struct python_name`s."""
        for number, text in zip(records["id"].tolist(), records["text"].tolist(), strict=True):
            self.names[number] = text.decode("ascii", "replace")

    def column(self, tags: NDArray[Any]) -> pa.Array:
        """The column for an array of `struct task_tag`."""
        self._learn()
        if not self.of_stack:
            nobody = np.ones(len(tags), np.bool_)
            return named(np.zeros(len(tags), np.int32), [""], Nulls(nobody))
        stacks, of_row = np.unique(tags["stack_runtime"], return_inverse=True)
        both = of_row.reshape(-1).astype(np.int64) << 16 | tags["task_name"]
        distinct, which = np.unique(both, return_inverse=True)
        found = zip(stacks[distinct >> 16].tolist(), (distinct & 0xFFFF).tolist(), strict=True)
        texts = [self._text(stack, number) or "" for stack, number in found]
        names = sorted(set(texts))
        number_of = {name: number for number, name in enumerate(names)}
        of_text = np.array([number_of[text] for text in texts], np.int32)
        unnamed = np.array([not text for text in texts])
        which = which.reshape(-1)
        return named(of_text[which], names, Nulls(unnamed[which]))

    def _text(self, stack: int, number: int) -> str | None:
        coroutine, name = self.of_stack.get(stack), self.names.get(number)
        return f"{name} ({coroutine})" if name and coroutine else name or coroutine
