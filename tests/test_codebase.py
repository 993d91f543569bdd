"""Conventions of the code base: what every op has, one version, one signature per function, a light import.

Where one of these fails, its message says what is missing; together they are the guide for adding an op or a cell.
"""

import ast
import importlib
import importlib.metadata
import importlib.util
import inspect
import pkgutil
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import cells
import plain
import pytest
import test_parity

import pyrnn
from pyrnn import _core, kernels, reference
from pyrnn.cells import CELLS
from pyrnn.layers.stack import LAYERS

ROOT = Path(__file__).resolve().parent.parent
OPS = [name for name in kernels.__all__ if isinstance(getattr(kernels, name), types.ModuleType)]
RECURRENT = [op for op in OPS if hasattr(getattr(kernels, op), "vjp")]
STUB = ast.parse((Path(pyrnn.__file__).parent / "_core.pyi").read_text())
STUBBED = {node.name: node for node in STUB.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
del STUBBED["__getattr__"]  # which says that each cell is a Cell
STUBBED |= dict.fromkeys(RECURRENT, STUBBED.pop("Cell"))

in_sources = pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="not among the sources")


def functions(module):
    return {n for n in dir(module) if not n.startswith("_") and callable(getattr(module, n)) and n != "Weights"}


def own_functions(module):
    """Public functions a module defines; what it imported is another's."""
    return {
        n
        for n in functions(module)
        if inspect.isfunction(getattr(module, n)) and getattr(module, n).__module__ == module.__name__
    }


def arguments(node):
    """(name, kind, default) of each argument of a parsed function; `self` is left out."""
    a = node.args
    positional = [*a.posonlyargs, *a.args]
    defaults = [None] * (len(positional) - len(a.defaults)) + a.defaults
    found = [(arg.arg, "positional", d) for arg, d in zip(positional, defaults, strict=True)]
    found += [(arg.arg, "keyword", d) for arg, d in zip(a.kwonlyargs, a.kw_defaults, strict=True)]
    return [(name, kind, d and ast.unparse(d)) for name, kind, d in found if name != "self"]


def inspected(function):
    """The same of a Python function."""
    kinds = {inspect.Parameter.POSITIONAL_OR_KEYWORD: "positional", inspect.Parameter.KEYWORD_ONLY: "keyword"}
    return [
        (p.name, kinds[p.kind], None if p.default is p.empty else repr(p.default))
        for p in inspect.signature(function).parameters.values()
        if p.kind is not inspect.Parameter.VAR_KEYWORD  # options of attention, which are compared by their names
    ]


def documented(function):
    """The same of a compiled function, from the signature in its docstring."""
    signature = function.__doc__.splitlines()[0]
    (node,) = ast.parse(f"def {signature}: ...").body
    return arguments(node)


def methods(node):
    return {f.name: f for f in node.body if isinstance(f, ast.FunctionDef)}


# ---- ops


def test_there_are_ops():
    assert {"rnn", "lstm", "gru", "attention", "linear", "embedding", "cross_entropy", "adam", "sgd", "norm"} <= set(
        OPS
    )
    assert set(RECURRENT) >= {"rnn", "lstm", "gru"}


@pytest.mark.parametrize("op", OPS)
def test_op_has_a_reference_with_the_same_functions(op):
    assert op in reference.__all__, f"pyrnn/reference/{op}.py is missing, or not in its __all__"
    kernel, twin = getattr(kernels, op), getattr(reference, op)
    assert functions(kernel) <= own_functions(twin)
    if op in RECURRENT:
        assert kernel.WEIGHTS == twin.WEIGHTS
        assert functions(kernel) == {"forward", "vjp", "stream"}


def test_reference_has_no_other_ops():
    assert set(reference.__all__) == set(OPS)


@pytest.mark.parametrize(("op", "name"), [(op, name) for op in OPS for name in sorted(functions(getattr(kernels, op)))])
def test_kernel_and_reference_have_one_signature(op, name):
    kernel = (
        documented(getattr(getattr(kernels, op), name)) if op in RECURRENT else arguments(methods(STUBBED[op])[name])
    )
    assert kernel == inspected(getattr(getattr(reference, op), name))


def test_kernel_and_reference_have_the_same_options_of_attention():
    assert reference.attention.Options._fields == kernels.attention.OPTIONS


@pytest.mark.parametrize("op", OPS)
def test_op_has_a_parity_test(op):
    if op in RECURRENT:
        assert op in {name for name, _, _ in cells.VARIANTS.values()}, f"{op} is not in the VARIANTS of tests/cells.py"
    else:
        assert hasattr(test_parity, f"test_{op}"), f"tests/test_parity.py has no test_{op}"


def test_every_cell_is_there():
    """In all the places that CONTRIBUTING.md names under "A cell"."""
    for where, names in {"kernels": RECURRENT, "recurrent.LAYERS": LAYERS, "tests/plain.py": plain.STEPS}.items():
        assert set(names) == set(CELLS), where
    missing = {layer.__name__ for layer in LAYERS.values()} - set(pyrnn.__all__)
    assert not missing, f"__all__ of pyrnn/__init__.py has no {missing}"


@pytest.mark.parametrize("op", RECURRENT)
def test_the_record_of_a_cell_is_what_its_kernel_says(op):
    """And the reference; sizes that are all different tell what a letter means."""
    record, kernel = CELLS[op], getattr(kernels, op)
    assert (record.gates, tuple(record.states)) == (kernel.GATES, kernel.STATES)
    assert len(set(record.gates)) == len(record.gates)
    assert record.keeps in {"", *record.gates}
    assert tuple(record.weights) == kernel.WEIGHTS == getattr(reference, op).WEIGHTS
    own = record._replace(weights=kernel.SHAPES)
    assert own.shapes(2, 11, 7) == record.shapes(2, 11, 7)
    assert set(record.optional) <= set(record.weights)
    precision, *own_options = inspected(getattr(reference, op).stream)[2:]
    assert precision[0] == "precision"  # of every op, see tests/test_precision.py
    options = {name: default for name, _, default in own_options}
    assert options == {name: repr(values[0]) for name, values in record.options.items()}
    for order in record.orders.values():
        assert sorted(order) == sorted(record.gates)


@pytest.mark.parametrize("op", RECURRENT)
def test_every_option_and_optional_weight_has_a_variant(op):
    variants = [(option, extra) for name, option, extra in cells.VARIANTS.values() if name == op]
    own = {name for name, _, _ in inspected(getattr(reference, op).stream)} - {"layers", "batch", "precision"}
    for option in own:
        assert len({o[option] for o, _ in variants}) >= 2, f"{option} of {op} is not varied in tests/cells.py"
    for argument in set(CELLS[op].optional.values()) - {"bias"}:
        assert {argument in extra for _, extra in variants} == {True, False}


@in_sources
@pytest.mark.parametrize("op", OPS)
def test_op_has_a_benchmark(op, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    import bench

    assert op in bench.OPS, f"{op} is not in the OPS of bench/__init__.py"


# ---- the stub of the compiled module


def test_stub_names_what_the_module_has():
    assert set(STUBBED) == {n for n in dir(_core) if not n.startswith("_")}
    for name, node in STUBBED.items():
        real = getattr(_core, name)
        assert isinstance(node, ast.FunctionDef) == (not isinstance(real, (types.ModuleType, type))), name
        if isinstance(node, ast.ClassDef):
            assert {n for n in methods(node) if n != "__call__"} == functions(real), name
            assert ("__call__" in methods(node)) == ("__call__" in vars(real)), name
            named = {t.target.id for t in node.body if isinstance(t, ast.AnnAssign)}
            assert named == {n for n in dir(real) if not n.startswith("_") and not callable(getattr(real, n))}, name


def test_stub_has_the_arguments_of_the_module():
    pairs = {}
    for name, node in STUBBED.items():
        if name in RECURRENT:
            continue  # compared with the reference, options and all
        real = getattr(_core, name)
        if isinstance(node, ast.FunctionDef):
            pairs[name] = (node, real)
        else:
            pairs |= {f"{name}.{m}": (f, getattr(real, m)) for m, f in methods(node).items()}
    wrong = {
        name: (arguments(f), documented(real)) for name, (f, real) in pairs.items() if arguments(f) != documented(real)
    }
    assert not wrong


@pytest.mark.parametrize("op", OPS)
def test_compiled_functions_have_docstrings(op):
    module = getattr(kernels, op)
    assert module.__doc__
    for name in functions(module):
        assert len(getattr(module, name).__doc__.strip().splitlines()) > 1, (
            f"{op}.{name} says nothing but its signature"
        )


def test_kernels_names_all_that_a_backend_has():
    assert sorted(kernels.__all__) == sorted({*kernels.__all__, *OPS})
    assert set(OPS) == {n for n in dir(_core) if isinstance(getattr(_core, n), types.ModuleType)}


def test_package_says_that_it_is_typed():
    """Without this marker other projects' type checkers ignore the annotations."""
    assert (Path(pyrnn.__file__).parent / "py.typed").is_file()
    assert (Path(pyrnn.__file__).parent / "_core.pyi").is_file()


# ---- the public surface

RECALL = "(self, probe, *, update='async', order=None, rng=None, external_input=None, max_sweeps=100, record=False)"


@pytest.mark.parametrize(
    ("function", "signature"),
    [
        (
            pyrnn.RNN,
            "(input_size, hidden_size, num_layers=1, nonlinearity='tanh', bias=True, batch_first=False, dropout=0.0,"
            " bidirectional=False, *, precision='float32', dtype='float32', rng=None)",
        ),
        (
            pyrnn.LSTM,
            "(input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0, bidirectional=False,"
            " proj_size=0, *, peephole=False, activation='tanh', gate_activation='sigmoid', precision='float32',"
            " dtype='float32', rng=None)",
        ),
        (
            pyrnn.GRU,
            "(input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0, bidirectional=False, *,"
            " reset_after=True, activation='tanh', gate_activation='sigmoid', precision='float32', dtype='float32',"
            " rng=None)",
        ),
        (pyrnn.LSTM.__call__, "(self, x, state=None, *, lengths=None, reset=None, ids=None, mask=None)"),
        (
            pyrnn.LSTM.vjp,
            "(self, x, state=None, *, lengths=None, reset=None, checkpoint_every=None, ids=None, mask=None,"
            " per_row=False)",
        ),
        (pyrnn.LSTM.stream, "(self, batch=1, state=None)"),
        (pyrnn.LSTM.state_dict, "(self)"),
        (pyrnn.LSTM.zero_grad, "(self)"),
        (pyrnn.Hopfield, "(n_units, *, states='bipolar', threshold=0.0, dtype='float32')"),
        (pyrnn.Hopfield.store, "(self, patterns, rule='hebbian')"),
        (pyrnn.Hopfield.forget, "(self, patterns)"),
        (pyrnn.Hopfield.recall, RECALL),
        (pyrnn.Hopfield.energy, "(self, state, external_input=None)"),
        (pyrnn.Hopfield.is_stable, "(self, state, external_input=None)"),
        (pyrnn.Hopfield.capacity, "(self)"),
        (pyrnn.DenseHopfield, "(patterns, *, energy='polynomial', degree=3, dtype='float32')"),
        (pyrnn.DenseHopfield.recall, RECALL),
        (pyrnn.ModernHopfield, "(patterns, *, beta=None, dtype='float32')"),
        (pyrnn.ModernHopfield.retrieve, "(self, state, *, max_steps=1, tol=0.0001)"),
        (pyrnn.ModernHopfield.vjp, "(self, state, *, max_steps=1, tol=0.0001)"),
        (
            pyrnn.scaled_dot_product_attention,
            "(query, key, value, attn_mask=None, is_causal=False, scale=None, enable_gqa=False, *, q_offset=0,"
            " window=None, softcap=0.0, kv_lengths=None)",
        ),
        (
            pyrnn.scaled_dot_product_attention_vjp,
            "(query, key, value, attn_mask=None, is_causal=False, scale=None, enable_gqa=False, *, q_offset=0,"
            " window=None, softcap=0.0, kv_lengths=None)",
        ),
        (
            pyrnn.MultiheadAttention,
            "(embed_dim, num_heads, bias=True, *, kdim=None, vdim=None, num_kv_heads=None, batch_first=False,"
            " dtype='float32', rng=None)",
        ),
        (pyrnn.MultiheadAttention.__call__, "(self, query, key=None, value=None, **arguments)"),
        (pyrnn.MultiheadAttention.vjp, "(self, query, key=None, value=None, **arguments)"),
        (
            pyrnn.Conv1d,
            "(in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True,"
            " batch_first=False, *, dtype='float32', rng=None)",
        ),
        (pyrnn.Conv1d.__call__, "(self, x, *, lengths=None)"),
        (pyrnn.Conv1d.output_lengths, "(self, lengths)"),
        (pyrnn.Conv1d.stream, "(self, batch=1)"),
        (
            pyrnn.ctc,
            "(logits, targets, *, lengths=None, target_lengths=None, blank=0, batch_first=False, infeasible='error')",
        ),
        (pyrnn.decoding.ctc_greedy, "(logits, *, lengths=None, blank=0)"),
        (
            pyrnn.decoding.ctc_beam_search,
            "(logits, *, beam_width=16, lengths=None, blank=0, lm=None, lm_weight=0.5, token_bonus=0.0)",
        ),
        (pyrnn.decoding.ctc_align, "(logits, targets, *, lengths=None, target_lengths=None, blank=0)"),
        (
            pyrnn.TransformerEncoderLayer,
            "(embed_dim, num_heads, dim_feedforward=2048, dropout=0.1, activation='relu', norm_first=False,"
            " batch_first=False, *, num_kv_heads=None, is_causal=False, dtype='float32', rng=None)",
        ),
        (pyrnn.Population, "(layer_or_config, size, rng=None)"),
        (pyrnn.parallel.DataParallel, "(model, comm=None, shards=8)"),
        (pyrnn.parallel.DataParallel.step, "(self, loss_of, batch)"),
        (pyrnn.TransformerEncoderLayer.__call__, "(self, x, lengths=None, is_causal=False, attn_mask=None)"),
        (pyrnn.TransformerEncoderLayer.vjp, "(self, x, lengths=None, is_causal=False, attn_mask=None)"),
        (pyrnn.TransformerEncoderLayer.stream, "(self, batch=1)"),
        (pyrnn.CRF, "(num_tags, *, batch_first=False, forbidden=None, dtype='float32', rng=None)"),
        (pyrnn.CRF.vjp, "(self, scores, tags, lengths=None)"),
        (pyrnn.CRF.decode, "(self, scores, lengths=None)"),
        (pyrnn.CRF.marginals, "(self, scores, lengths=None)"),
        (pyrnn.BatchNorm1d, "(num_features, eps=1e-05, momentum=0.1, batch_first=False, *, dtype='float32')"),
        (
            pyrnn.MaxPool1d,
            "(kernel_size, stride=None, batch_first=False, *, ceil_mode=False, dtype='float32')",
        ),
        (pyrnn.set_num_threads, "(n)"),
        (pyrnn.get_num_threads, "()"),
        (pyrnn.threads, "(n)"),
    ],
)
def test_signatures_of_the_public_surface(function, signature):
    found = inspect.signature(function)
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in found.parameters.values()]
    assert str(found.replace(parameters=bare, return_annotation=inspect.Signature.empty)) == signature


def test_pullback_and_stream_have_the_promised_arguments():
    layer = pyrnn.RNN(2, 3, rng=0)
    (y, h), pullback = layer.vjp([[0.0, 1.0]])
    pullback(dy=y, dstate=h)
    stream = layer.stream()
    stream.step(x_t=[0.0, 1.0]) if "x_t" in inspect.signature(stream.step).parameters else stream.step([0.0, 1.0])
    stream.reset(rows=None)
    stream.reset(rows=[0])
    assert stream.state.shape == (1, 1, 3)


EXTRAS = ("pyrnn.sklearn",)  # what needs packages that may not be here


def test_everything_public_has_a_docstring():
    """Every module, and in each every public class, function, method and property that is defined there."""
    silent, seen = [], 0
    elsewhere = ("pyrnn.bench", "pyrnn.examples", "pyrnn.__main__")
    if importlib.util.find_spec("torch") is None:
        elsewhere += ("pyrnn.torch",)
    for info in pkgutil.walk_packages(pyrnn.__path__, "pyrnn."):
        if info.name.startswith(elsewhere) or "_core" in info.name:
            continue
        try:
            module = importlib.import_module(info.name)
        except ImportError:
            if info.name.startswith(EXTRAS):
                continue
            raise
        things = {info.name: module}
        for name, thing in vars(module).items():
            if name.startswith("_") or getattr(thing, "__module__", None) != info.name:
                continue
            if inspect.isclass(thing) or inspect.isfunction(thing):
                things[f"{info.name}.{name}"] = thing
            if inspect.isclass(thing):
                for attribute, value in vars(thing).items():
                    if attribute.startswith("_") and attribute != "__call__":
                        continue
                    if inspect.isfunction(value) or isinstance(value, (property, classmethod, staticmethod)):
                        things[f"{info.name}.{name}.{attribute}"] = getattr(thing, attribute)
        seen += len(things)
        silent += [name for name, thing in things.items() if not inspect.getdoc(thing)]
    assert seen > 300
    assert silent == []


def test_dir_shows_what_is_public():
    assert {name for name in dir(pyrnn) if not name.startswith("__")} == set(pyrnn.__all__) - {"__version__"}


# ---- import


def imported(statement):
    """Names of the modules that a statement brings in after NumPy, in a fresh interpreter."""
    code = f"""
        import sys, numpy, numpy.random
        before = set(sys.modules)
        {statement}
        print(*sorted(set(sys.modules) - before))
    """
    return cells.python(code).split()


def test_import_brings_in_nothing_but_numpy():
    new = imported("import pyrnn")
    foreign = [n for n in new if n.split(".")[0] not in {"pyrnn", "numpy", *sys.stdlib_module_names}]
    assert not foreign
    standard = [n for n in new if n.split(".")[0] in sys.stdlib_module_names]
    assert len(standard) <= 5, f"import pyrnn pulls in {standard}: import at the first use what is seldom needed"
    assert len([name for name in new if not name.startswith("pyrnn._core.")]) <= 40


def test_reference_and_version_come_at_first_use():
    assert not [
        n for n in imported("import pyrnn") if n.startswith(("pyrnn.reference", "pyrnn.app", "importlib.metadata"))
    ]
    assert "pyrnn.reference.lstm" in imported("import pyrnn; pyrnn.reference.lstm")
    assert {"pyrnn.text.ngrams", "pyrnn.plots", "pyrnn.text.corpus"} <= set(
        imported("import pyrnn as p; p.ngrams, p.plots, p.text.read")
    )
    assert "__version__" in dir(pyrnn)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        pyrnn.nothing  # noqa: B018


# ---- files


def tracked():
    """The files of the repository, or of the sources where there is no repository."""
    if shutil.which("git") and (ROOT / ".git").exists():
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
        files = [ROOT / name for name in listed.split("\0") if name]
    else:
        folders = ("pyrnn", "csrc", "tests", "bench")
        files = [f for folder in folders for f in (ROOT / folder).rglob("*") if "__pycache__" not in f.parts]
    return [f for f in files if f.is_file() and not f.is_symlink()]


def texts():
    for file in tracked():
        try:
            yield file, file.read_text()
        except UnicodeDecodeError:
            assert file.suffix in {".npz", ".png", ".pt", ".safetensors", ".h5", ".keras", ".wasm"}, f"{file}: no text"


@in_sources
def test_version_is_in_one_place():
    (version,) = re.findall(r'(?m)^version = "(.*)"$', (ROOT / "pyproject.toml").read_text())
    pattern = re.compile(rf"(?<![\d.]){re.escape(version)}(?![\d.])")
    assert [f.name for f, text in texts() if pattern.search(text)] == ["pyproject.toml"]
    try:
        installed = importlib.metadata.version("pyrnn-cpu")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("pyrnn-cpu is not installed here")
    assert installed == version == pyrnn.__version__


@in_sources
def test_hooks_have_the_versions_of_the_lint():
    """What `.ci/lint` checks is what the hooks check before a commit."""
    pinned = dict(re.findall(r'"([\w-]+)==([\d.]+)"', (ROOT / "pyproject.toml").read_text()))
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    found = dict(re.findall(r"/(?:mirrors-)?(ruff|clang-format)(?:-pre-commit)?\n +rev: v([\d.]+)\n", hooks))
    assert set(found) == {"ruff", "clang-format"}
    assert found.items() <= pinned.items()


@in_sources
def test_no_paths_of_a_machine():
    folders = "|".join(("work", "root", "tmp", "home", "farm", "Users"))
    pattern = re.compile(rf"(?<![\w.])/({folders})/[A-Za-z.]")
    assert not [(f.name, m[0]) for f, text in texts() for m in pattern.finditer(text)]


@in_sources
def test_every_source_opens_with_what_it_is_for():
    silent = []
    for file, text in texts():
        lines = [line for line in text.splitlines() if line.strip()] or [""]
        if file.suffix in {".py", ".pyi"}:
            opened = lines[lines[0].startswith("#!")].startswith('"""')
        elif file.suffix in {".cpp", ".hpp"}:
            opened = lines[0].startswith("// ")
        elif file.name == "CMakeLists.txt" or lines[0].startswith("#!"):
            opened = lines[lines[0].startswith("#!")].startswith("# ")
        else:
            continue
        if not opened:
            silent.append(str(file.relative_to(ROOT)))
    assert not silent


@in_sources
def test_headers_are_included_once():
    headers = [(f, text) for f, text in texts() if f.suffix == ".hpp"]
    assert headers
    assert not [f.name for f, text in headers if "#pragma once" not in text]


@in_sources
def test_package_files_are_named_like_the_ops():
    """To find what exists for an op one lists files of its name."""
    for op in OPS:
        assert (ROOT / "pyrnn" / "reference" / f"{op}.py").is_file()
    for op in RECURRENT:
        assert (ROOT / "csrc" / "recurrent" / "cells" / f"{op}.hpp").is_file()


def test_old_names_have_what_they_had():
    """Where a module was cut in parts, its old name has them all; pickles name classes so."""
    for old, names in {
        "attention": "AdditiveAttention AttentionStream MultiheadAttention PositionalEncoding",
        "bptt": "truncated_bptt",
        "charmodel": "CharModel Curve Length Resumed Settings Trainer resume_path",
        "cli": "LINE_EVERY cli",
        "decoding": "beam_search choose greedy sample scheduled_inputs",
        "diagnostics": "GradientFlow gradient_flow",
        "files": "load save",
        "gallery": "digits",
        "hopfield": "CHUNK DenseHopfield Hopfield ModernHopfield Recall _Memory",
        "init": "chrono forget_gate_bias identity orthogonal",
        "jordan": "Jordan",
        "layers": "Dropout Linear dropout_mask",
        "losses": "binary_cross_entropy cross_entropy hinge mean_squared_error negative_log_likelihood",
        "ngrams": "LogOdds NGram",
        "ode": "ODERNN",
        "optim": "SGD Adagrad Adam AdamW Optimizer RMSprop clip_grad_norm clip_grad_value",
        "parameters": "Layer Model ParameterDict load write",
        "plots": "MARKERS RULE_COLOURS loss_curve tracks",
        "recurrent": "CELLS LSTM Pullback Recurrent combine",
        "schedules": "Cosine Exponential Linear Plateau Step",
        "seq2seq": "Decoder EncoderDecoder",
        "sequential": "Sequential",
        "stream": "Stream",
    }.items():
        module = importlib.import_module(f"pyrnn.{old}")
        assert not [name for name in names.split() if not hasattr(module, name)]
