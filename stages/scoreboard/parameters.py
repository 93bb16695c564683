"""Check the parameters of every stage that is to run, before any of them does.

DVC does not know which keys a stage takes: a misspelled one, or a value out of range, would be
found when its stage begins, perhaps after half an hour. ``make reproduce`` runs
``python -m stages.scoreboard.parameters COMMAND ...`` first, with the stages' commands.
"""

import importlib
import re
import sys
from collections.abc import Iterable

from stages.common import params
from stages.common.errors import InputError

COMMAND = re.compile(
    r"-m stages\.(?P<name>\w+\.\w+) .*--profile (?P<profile>\w+)(?: --variant (?P<variant>\S+))?"
)


def with_parameters(commands: Iterable[str]) -> list[str]:
    """Return the commands of stages whose parameters stand in params.yaml under their paper.

    Raises
    ------
    InputError
        If params.yaml is missing or no YAML map.
    """
    known = params.load_params(params.PARAMS)
    found = ((command, COMMAND.search(command)) for command in commands)
    return [command for command, match in found if match and match["name"].split(".")[0] in known]


def complaints(commands: Iterable[str]) -> list[str]:
    """Return a sentence for each thing that is wrong with the parameters of these stages.

    Raises
    ------
    InputError
        If params.yaml is missing or no YAML map.
    """
    read, known = params.load_params, params.load_params(params.PARAMS)
    params.load_params = lambda path=params.PARAMS: known  # parsed once, not once a stage
    said: dict[str, None] = {}
    try:
        for command in with_parameters(commands):
            match = COMMAND.search(command)
            assert match
            name, profile, variant = match.group("name", "profile", "variant")
            function = getattr(importlib.import_module(f"stages.{name}"), name.split(".")[1])
            try:
                params.stage_params(function, name, profile=profile, variant=variant)
            except InputError as error:
                said[str(error)] = None
    finally:
        params.load_params = read
    return list(said)


if __name__ == "__main__":
    try:
        found = complaints(sys.argv[1:])
    except InputError as error:
        found = [str(error)]
    for sentence in found:
        print(f"error: {sentence}", file=sys.stderr)
    sys.exit(2 if found else 0)
