"""Every `frs` command in the pages exists, with the options that it is shown with."""

import re
from pathlib import Path

import pytest
import typer

from cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "skills/frs/SKILL.md", "examples/github-actions.yml")),
    *sorted((ROOT / "docs").glob("*.md")),
]


def commands_of(text: str) -> list[str]:
    """Return the lines of code and the inline code that start with `frs `, without comments and prompts."""
    lines = [
        re.sub(r"^[ $]*(- run: )?", "", line)
        for line in re.findall(r"^(?: *|\$ |      - run: )frs [a-z].*$", text, re.MULTILINE)
    ]
    return [re.split(r"\s+[#&|>]", code)[0].strip() for code in [*lines, *re.findall(r"`(frs [a-z][^`\n]+)`", text)]]


def fault_of(command: str) -> str | None:
    """Return what is wrong with a command; None if it exists with all its options."""
    group, words = typer.main.get_command(app), command.split()[1:]
    while hasattr(group, "commands"):
        if not words or words[0].startswith("-") or words[0] == "COMMAND":
            return None
        name = words.pop(0).rstrip(",.;:")
        if name not in group.commands:
            return f"{command}: there is no command {name}"
        group = group.commands[name]
    options = {
        "--help",
        *(option for parameter in group.params for option in (*parameter.opts, *parameter.secondary_opts)),
    }
    used = [word.split("=")[0].strip("[],.") for word in words if re.match(r"\[?--[a-z]", word)]
    return next((f"{command}: there is no option {option}" for option in used if option not in options), None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_exist(page: Path) -> None:
    assert list(filter(None, map(fault_of, commands_of(page.read_text())))) == []


def test_commands_are_found_and_faults_are_noticed() -> None:
    assert len(commands_of((ROOT / "skills/frs/SKILL.md").read_text())) > 15
    assert fault_of("frs sumbit x.yaml") == "frs sumbit x.yaml: there is no command sumbit"
    assert fault_of("frs submit x.yaml --sett a=b") == "frs submit x.yaml --sett a=b: there is no option --sett"
    assert fault_of("frs submit x.yaml --set a=b") is None
