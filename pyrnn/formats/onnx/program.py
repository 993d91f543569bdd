"""A graph made ready to run: a function of Python with a line for each node, on local names.

Of the model the text of that function holds numbers alone; names and values of a file never become a part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...core.checks import cut
from .graph import Graph, Node, Values

Function = Callable[..., Any]
# Of a node: what is called with its inputs (None for absent ones) and gives its output, or a tuple of all of them; or
# that and the places of the inputs that it is called with.
Made = Function | tuple[Function, tuple[int, ...]]


class RunError(ValueError):
    """What went wrong in a node, with its name."""


class Program:
    """Runs a graph: results = program(inputs and captured values), a tuple, or with `names` a dict. Any number of
    threads at once."""

    def __init__(
        self, graph: Graph, values: Values, make: Callable[[Node], Made], names: Sequence[str] | None = None
    ) -> None:
        self._titles = [node.title for node in graph.nodes]
        self._names = {value: f"v{value}" for value in (*graph.inputs, *graph.captured)}
        self._kept: dict[str, Any] = {}  # functions and constants
        lines = [self._line(node, k, make(node), values) for k, node in enumerate(graph.nodes)]
        self.quiet = all(node.quiet for node in graph.nodes)
        for node in graph.nodes:
            node.forget()
        given = "".join(f"{name}, " for name in self._names_of([*graph.inputs, *graph.captured], values))
        results = self._results(graph, values, names)
        needed = set(graph.outputs)
        for k in range(len(lines) - 1, -1, -1):  # what nobody reads any more is given up
            node = graph.nodes[k]
            last = dict.fromkeys(value for value in node.reads() if value not in needed | values.constants.keys())
            lines[k] += "".join(f"; {self._names[value]} = None" for value in last if value in self._names)
            needed.update(last)
        start = f"({given}) = given" if given else "pass"
        text = "\n ".join([f"def run(given):\n {start}", *lines, f"return {results}"])
        exec(compile(text, f"<{len(lines)} nodes>", "exec"), self._kept)
        self._run: Function = self._kept["run"]

    def _results(self, graph: Graph, values: Values, names: Sequence[str] | None) -> str:
        outputs = self._names_of(graph.outputs, values)
        if names is None:
            return f"({''.join(f'{output}, ' for output in outputs)})"
        self._kept |= {f"n{k}": name for k, name in enumerate(names)}
        return f"{{{', '.join(f'n{k}: {output}' for k, output in enumerate(outputs))}}}"

    def _names_of(self, reads: Sequence[int | None], values: Values) -> list[str]:
        """Of values in the text; those of constants are kept."""
        names = []
        for value in reads:
            if value is None:
                names.append("None")
            elif value in values.constants:
                names.append(f"c{value}")
                self._kept[names[-1]] = values.constants[value]
            else:
                names.append(self._names.setdefault(value, f"v{value}"))
        return names

    def _line(self, node: Node, k: int, made: Made, values: Values) -> str:
        function, taken = made if isinstance(made, tuple) else (made, range(len(node.inputs)))
        self._kept[f"f{k}"] = function
        reads = [node.inputs[place] if place < len(node.inputs) else None for place in taken]
        reads += [value for graph in node.graphs.values() for value in graph.captured]
        call = f"f{k}({', '.join(self._names_of(reads, values))})"
        outputs = ["_" if value is None else name for value, name in
                   zip(node.outputs, self._names_of(node.outputs, values), strict=True)]  # fmt: skip
        return f"{', '.join(outputs)} = {call}"

    def __call__(self, given: Sequence[Any]) -> Any:
        try:
            return self._run(given)
        except (RunError, MemoryError):
            raise
        except Exception as error:
            raise RunError(f"{self._title(error)}: {cut(error) or type(error).__name__}") from error

    def _title(self, error: BaseException) -> str:
        """The node whose line an error comes from."""
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code is not self._run.__code__:
            trace = trace.tb_next
        assert trace is not None
        return self._titles[max(trace.tb_lineno - 3, 0)]
