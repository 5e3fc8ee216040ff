"""Completion of words with `=` in them, at which bash splits, and after which comes no space."""

from __future__ import annotations

import os
from typing import Any

from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

_SCRIPT = """\
%(complete_func)s() {
    local type value
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain)
                COMPREPLY+=("$value")
                [[ $value == *= ]] && compopt -o nospace
                ;;
        esac
    done < <(COMP_WORDS=$(IFS=$'\\n'; echo "${COMP_WORDS[*]}") COMP_CWORD=$COMP_CWORD \\
        %(complete_var)s=bash_complete "$1")
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


_BREAKS = ("=", ":")
"""At which bash splits words, besides spaces (its COMP_WORDBREAKS)."""


class _WholeWords(ShellComplete):
    """Of `--option=val` Click completes the value; what the shell replaces is the word."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        """What the word to complete can become."""
        found = super().get_completions(args, incomplete)
        option, equals, _ = incomplete.partition("=")
        if equals and option.startswith("-"):
            for item in found:
                item.value = f"{option}={item.value}"
        return found


class Bash(_WholeWords, BashComplete):
    """Puts the words together that bash has split."""

    source_template = _SCRIPT
    _before = ""
    """Of the word, what is before that which bash replaces."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one to complete, and what there is of that."""
        number = int(os.environ["COMP_CWORD"])
        words = split_arg_string(os.environ["COMP_WORDS"])[: number + 1]
        last = words.pop() if len(words) > number else ""
        whole = _joined([*words, last])
        # Behind a break it is an empty word.
        self._before = whole[-1] if last in _BREAKS else whole[-1].removesuffix(last)
        return whole[1:-1], whole[-1]

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """Its type, and what it puts in the place."""
        return f"{item.type},{str(item.value).removeprefix(self._before)}"


_ADD = "compadd -U -V unsorted -a completions"
"""What Click's script for zsh offers words with, each of which a space follows."""


class Zsh(_WholeWords, ZshComplete):
    """Has words as they were typed."""

    source_template = ZshComplete.source_template.replace(
        _ADD,
        "local -a ending\n"
        "        [[ $completions[1] == *= ]] && ending=(-S '')\n"
        '        compadd -U -V unsorted "${ending[@]}" -a completions',
    )


class Fish(_WholeWords, FishComplete):
    """Has words as they were typed."""


def _joined(words: list[str]) -> list[str]:
    """What bash split: a break belongs to the words on both its sides."""
    whole: list[str] = []
    open_ended = False
    for word in words:
        if whole and (word in _BREAKS or open_ended):
            whole[-1] += word
        else:
            whole.append(word)
        open_ended = word in _BREAKS
    return whole


def register() -> None:
    """Makes them what Click completes with."""
    for shell in (Bash, Zsh, Fish):
        add_completion_class(shell)
