"""Stacks as a prefix tree: beginnings that stacks share are there once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from heatmaps.encode import ColumnBlock


@dataclass(frozen=True)
class Trie:
    """Nodes by number; node 0 is the root, and a parent's number is below its children's.

    Attributes:
        parent: Of each node; the root's is itself.
        frame: Of each node; 0 for the root.
        node_of_stack: Where each stack ends.
    """

    parent: list[int]
    frame: list[int]
    node_of_stack: list[int]

    @classmethod
    def of(cls, stacks: Iterable[Iterable[int]]) -> Trie:
        """Of stacks of frame numbers, root first."""
        parent, frame, ends = [0], [0], []
        children: dict[tuple[int, int], int] = {}
        for stack in stacks:
            at = 0
            for number in stack:
                found = children.setdefault((at, number), len(parent))
                if found == len(parent):
                    parent.append(at)
                    frame.append(number)
                at = found
            ends.append(at)
        return cls(parent, frame, ends)

    def pack(self, block: ColumnBlock) -> None:
        """Adds its columns, as `trie.*`."""
        # A node is mostly the child of the one before it.
        block.add("trie.back", np.arange(len(self.parent)) - self.parent)
        block.add("trie.frame", self.frame)
        block.add("trie.stacks", self.node_of_stack)
