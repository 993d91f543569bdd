"""The directive `command`: what `pyrnn NAME --help` says, as it is now."""

import click
from docutils import nodes
from sphinx.util.docutils import SphinxDirective


class Command(SphinxDirective):
    required_arguments = 1

    def run(self):
        from pyrnn.app.cli import cli

        name = self.arguments[0]
        command = cli.get_command(click.Context(cli), name)
        context = click.Context(command, info_name=f"pyrnn {name}", max_content_width=100)
        text = command.get_help(context)
        return [nodes.literal_block(text, text, language="text")]


def setup(app):
    app.add_directive("command", Command)
    return {"parallel_read_safe": True}
