"""`--help` in groups."""

from __future__ import annotations

import re

import click
import pytest
from click.testing import CliRunner

from cvcoteach.cli.grouped import FIRST, Grouped
from cvcoteach.cli.main import main

GROUPED = [name for name, command in main.commands.items() if isinstance(command, Grouped)]


def groups_of(command: str) -> dict[str, str]:
    """The text of each group of options."""
    shown = CliRunner().invoke(main, [command, "--help"], terminal_width=100).output
    titles = re.split(r"^(\S[^\n]*):\n", shown, flags=re.MULTILINE)[1:]
    return dict(zip(titles[::2], titles[1::2], strict=True))


def test_commands_with_many_options_show_them_in_groups() -> None:
    many = {
        name
        for name, command in main.commands.items()
        if sum(isinstance(param, click.Option) for param in command.params) >= 12
    }
    assert many == set(GROUPED)


def test_the_ten_options_that_most_people_need_come_first() -> None:
    groups = groups_of("find-issues")
    assert list(groups) == [FIRST, "Source", "Model", "Method", "Machine", "Output"]
    assert len(re.findall(r"^  -", groups[FIRST], re.MULTILINE)) == 10
    assert groups[FIRST].startswith("  -o, --output PATH")


@pytest.mark.parametrize("name", GROUPED)
def test_each_option_is_in_one_group_and_none_is_left_over(name: str) -> None:
    groups = groups_of(name)
    assert "Other options" not in groups
    command = main.commands[name]
    for option in command.get_params(click.Context(command)):
        if isinstance(option, click.Option):
            row = re.compile(rf"^  (-\w, )?{option.opts[-1]}(?![-\w])", re.MULTILINE)
            assert sum(len(row.findall(text)) for text in groups.values()) == 1, option.name
