"""`python -m pyrnn.examples`: the systems, each with its command and what it shows; with a name it runs that one."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path

import click

FOLDER = Path(__file__).parent


def names() -> list[str]:
    modules = pkgutil.iter_modules([str(FOLDER)])
    return sorted(module.name for module in modules if not module.ispkg and module.name != "__main__")


def about(name: str) -> tuple[str, str]:
    """The command of a system, and what it shows: both from the top of its module, which is not imported."""
    words = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))) or ""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    return next(line for line in lines if line.startswith("python -m ")), lines[0]


class Systems(click.Group):
    """Their command lines by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return names()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in names():
            return None
        command: click.Command = importlib.import_module(f"{__package__}.{cmd_name}").main
        return command


@click.command(cls=Systems, invoke_without_command=True, help=(__doc__ or "").split("\n", 1)[0])
@click.pass_context
def main(context: click.Context) -> None:
    if context.invoked_subcommand is None:
        for name in names():
            command, shows = about(name)
            click.echo(f"{command}\n    {shows}")
        click.echo(f"\nThe guide to them, with their figures: {FOLDER / 'README.md'}")


if __name__ == "__main__":
    main(prog_name="python -m pyrnn.examples")
