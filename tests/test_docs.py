"""The pages and the docstrings: every public name is in the reference, says shapes and errors, and its example runs."""

import importlib
import importlib.util
import inspect
import json
import re
import shutil
import sys
import textwrap
from pathlib import Path
from types import FunctionType, SimpleNamespace

import pytest
from test_readme import AMP, GOLDEN, GUIDE

import pyrnn

DOCS = Path(__file__).parents[1] / "docs"
sys.path.append(str(DOCS / "_ext"))
docstrings = pytest.importorskip("docstrings", reason="not among the sources")
NAMES = [
    name.removesuffix("+")
    for page in sorted(DOCS.glob("api/*.md"))
    for block in re.findall(r"```\{api\}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    for name in block.split()
]
MODULES = ("app.show", "baselines", "data", "decoding", "init", "metrics", "ngrams", "plots", "schedules", "sound",
           "text")  # fmt: skip


def thing(name):
    """pyrnn.text.Words -> the class."""
    found = pyrnn
    parts = name.split(".")
    for k, part in enumerate(parts[1:], 2):
        if not hasattr(found, part):
            importlib.import_module(".".join(parts[:k]))
        found = getattr(found, part)
    return found


def example(name):
    """The last block of Python in a docstring; others may be formulas. As the pages read it."""
    code = [block for block in docstrings.blocks(inspect.getdoc(thing(name)) or "") if docstrings.is_code(block)]
    return textwrap.dedent(code[-1]) if code else ""


def documented(name):
    """Whether its docstring is looked at: those of what needs another package are where that is."""
    needs = {"pyrnn.torch": "torch", "pyrnn.sklearn": "sklearn"}
    module = next((package for start, package in needs.items() if name.startswith(start)), None)
    return module is None or importlib.util.find_spec(module) is not None


OBJECTS = [name for name in NAMES if documented(name) and not inspect.ismodule(thing(name))]

# ---- the pages


def test_every_public_name_is_in_the_reference():
    public = {f"pyrnn.{name}" for name in pyrnn.__all__ if name != "__version__"}
    for module in MODULES:
        named = thing(f"pyrnn.{module}")
        listed = getattr(named, "__all__", None)
        own = listed or [n for n, v in vars(named).items() if getattr(v, "__module__", "") == named.__name__]
        things = {name: getattr(named, name) for name in own if not name.startswith("_")}
        public |= {f"pyrnn.{module}.{n}" for n, v in things.items() if inspect.isroutine(v) or inspect.isclass(v)}
        public.discard(f"pyrnn.{module}")
    types = {"pyrnn.decoding.Stream", "pyrnn.schedules.Decay"}  # of annotations, and what two of them share
    assert public - set(NAMES) - types == set()
    assert len(NAMES) == len(set(NAMES))


def test_what_the_pages_name_is_in_the_reference():
    """Below pyrnn: functions and classes, and methods of these. kernels and reference are there as a whole."""
    named = set()
    for page in [DOCS.parent / "README.md", GUIDE, *DOCS.glob("*.md")]:
        text = page.read_text(encoding="utf-8")
        named |= set(re.findall(r"\bpyrnn(?:\.\w+)+", text))
        for module, names in re.findall(r"from (pyrnn[\w.]*) import ([\w, ]+)", text):
            named |= {f"{module}.{name.strip()}" for name in names.split(",")}
    elsewhere = re.compile(r"pyrnn\.(kernels|reference|sklearn\.sktime|cells\.CELLS|examples|cython_stream)\b")
    lacking = {name for name in named if not elsewhere.match(name) and not {name, name.rpartition(".")[0]} & set(NAMES)}
    assert [name for name in sorted(lacking) if documented(name) and not inspect.ismodule(thing(name))] == []


def test_every_page_is_in_a_table_of_contents():
    pages = {page.relative_to(DOCS).with_suffix("").as_posix() for page in (*DOCS.glob("*.md"), *DOCS.glob("api/*.md"))}
    listed = set()
    for page in DOCS.glob("*.md"):
        for block in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            listed |= {line for line in block.split("\n") if line and not line.startswith(":")}
    assert listed == pages - {"index"}


def test_the_first_page_has_the_figures_of_the_readme():
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"\| ([\d.]+) (µs|ms) \| ([\d.]+) \2, (\w+) \|", (DOCS / "index.md").read_text(encoding="utf-8"))
    *shapes, (ours, unit, theirs, peer) = rows
    assert [row for row in shapes if "{0} / {2} {1} {3} (".format(*row) not in readme] == []
    assert f"takes {ours} {unit} a step from Python, {peer} {theirs} {unit}" in readme


def test_the_first_page_names_every_extra():
    project = (DOCS.parent / "pyproject.toml").read_text(encoding="utf-8")
    extras = re.findall(
        r"^(\w+) = \[", project.split("[project.optional-dependencies]")[1].split("\n[")[0], re.MULTILINE
    )
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", (DOCS / "index.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(re.findall(r"\w+", " ".join(rows))) == sorted(extras)


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    """Those between pages; pictures of `_pictures` are drawn by the code of the page."""
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", re.sub(r"```python\n.*?```", "", text, flags=re.DOTALL)):
        if link.startswith("_pictures/"):
            assert f'"{link.removeprefix("_pictures/")}"' in text, link
        elif "://" not in link:
            assert (DOCS / link).is_file(), link
    for start, path in re.findall(r"```\{include\} (\S+)\n:start-after: \"(.*)\"", text):
        assert path in (DOCS / start).read_text(encoding="utf-8"), path


# ---- docstrings

RECORDS = {  # which are made of anything, and what draws them tells what is wrong
    "pyrnn.plots.Alignment", "pyrnn.plots.Film", "pyrnn.plots.Forecast", "pyrnn.plots.Learning", "pyrnn.plots.Track",
    "pyrnn.training.fit.History",
}  # fmt: skip
WITHOUT_ERRORS = {"pyrnn.cells.Cell", "pyrnn.associative.net.Recall", "pyrnn.GradientFlow", "pyrnn.CapacityWarning",
                  "pyrnn.get_num_threads", "pyrnn.text.language_reference"}  # fmt: skip
WITHOUT_ARRAYS = {  # or with such as any other: a loss's are those of cross_entropy, an optimiser's are its model's
    "pyrnn.CapacityWarning", "pyrnn.Model", "pyrnn.SGD", "pyrnn.RMSprop", "pyrnn.Adam", "pyrnn.AdamW",
    "pyrnn.app.show.characters", "pyrnn.baselines.ahead", "pyrnn.baselines.persistence", "pyrnn.baselines.seasonal",
    "pyrnn.clip_grad_value", "pyrnn.data.families", "pyrnn.data.fetch", "pyrnn.data.held_out", "pyrnn.data.minibatches",
    "pyrnn.fold_batch_norms", "pyrnn.formats.onnx.model.OnnxModel", "pyrnn.from_keras", "pyrnn.from_onnx",
    "pyrnn.get_num_threads", "pyrnn.hinge", "pyrnn.init.chrono", "pyrnn.init.forget_gate_bias", "pyrnn.init.identity",
    "pyrnn.init.orthogonal", "pyrnn.metrics.f1", "pyrnn.negative_log_likelihood", "pyrnn.plots.check",
    "pyrnn.parallel.DataParallel",
    "pyrnn.plots.forecasts", "pyrnn.plots.loss_curve", "pyrnn.read_weights", "pyrnn.save", "pyrnn.schedules.Cosine",
    "pyrnn.schedules.Exponential", "pyrnn.schedules.Linear", "pyrnn.schedules.Plateau", "pyrnn.schedules.Schedule",
    "pyrnn.schedules.Step", "pyrnn.set_num_threads", "pyrnn.text.Words", "pyrnn.text.decode",
    "pyrnn.text.language_reference", "pyrnn.text.lines", "pyrnn.text.read", "pyrnn.text.read_all",
    "pyrnn.formats.onnx.model.OnnxStream", "pyrnn.text.read_fasta", "pyrnn.threads", "pyrnn.torch.accelerate",
}  # fmt: skip
SHAPE = re.compile(r"\((\.\.\.|[A-Z]\w*( [-+*/] \w+)*)(, ?[^()]*)?\)|\(\d+, [\d, ]+\)")


@pytest.mark.parametrize("name", OBJECTS)
def test_docstring_says_shapes_and_errors(name):
    text = inspect.getdoc(thing(name))
    assert example(name), "it has no example"
    if name not in RECORDS:
        assert name in WITHOUT_ERRORS or re.search("Error|[Ee]rrors|[Ee]verything else", text), "it says no errors"
    assert name in WITHOUT_ARRAYS or SHAPE.search(text), "it says no shapes"


def test_methods_have_examples():
    """All of the classes in the reference; they speak of what is at hand there, and are read as Python, not run."""
    methods = [
        f"{name}.{attribute}"
        for name in OBJECTS
        if inspect.isclass(thing(name))
        for attribute, value in vars(thing(name)).items()
        if attribute == "__call__" or (attribute[0] != "_" and isinstance(value, (FunctionType, classmethod)))
    ]
    assert len(methods) > 100
    assert not [method for method in methods if not example(method)]


def test_exceptions_are_needed():
    assert set(NAMES) >= RECORDS | WITHOUT_ERRORS | WITHOUT_ARRAYS
    assert not [name for name in WITHOUT_ARRAYS & set(OBJECTS) if SHAPE.search(inspect.getdoc(thing(name)))]


def given():
    """What the examples speak of, as the reference says."""
    names = {}
    for block in re.findall(r"```python\n(.*?)```", (DOCS / "api.md").read_text(encoding="utf-8"), re.DOTALL):
        exec(block, names)
    return names


DECODE = "model, state, ids = decoder, decoder.start(vector), np.ones((9, 3), int)"
ONNX = "pytest.importorskip('onnx'); pyrnn.to_onnx(pyrnn.Linear(8, 4), 'model.onnx')"
ALIGNED = "logits, pullback = np.log(1 + rng.random((50, 2, 6))), np.asarray"
FIT = (
    "sequences, classes = [np.ones((3, 8))] * 20, np.ones(20, int); "
    "model = pyrnn.Sequential(pyrnn.GRU(8, 4), pyrnn.LastStep())"
)
SPOKEN = "sound, chances, path = np.ones((30, 4)), np.full((20, 11), 1 / 11), np.ones(20, int)"
FILMED = "frames, chances = np.ones((6, 4, 4)), np.full((6, 2), 0.5)"
FORECAST = "values, errors = np.arange(100.0), np.ones(6); y = {80: values[81:87], 92: values[93:99]}"
TRACKED = "seen, true, y = np.zeros((4, 2)), np.ones((3, 2)), np.ones((3, 2))"
TORCH = "import torch; import pyrnn.torch; model = torch.nn.LSTM(2, 3); q = k = v = torch.ones(2, 5, 8)"
SKLEARN = "from pyrnn.sklearn import RNNClassifier, RNNRegressor, RNNForecaster; import pyrnn.sklearn"
OWN = {  # beside that, or in its place
    "AdditiveAttention": "decoder_state, encoder_outputs = np.ones((3, 1, 32)), np.ones((3, 5, 64))",
    "CRF": "scores, tags = np.ones((7, 2, 5)), np.ones((7, 2), int)",
    "Decoder": "ids, vector = np.ones((6, 8), int), np.ones((8, 5))",
    "EncoderDecoder": "source, target, k, t = np.ones((6, 8), int), np.ones((5, 8), int), [6] * 8, np.full(8, 5)",
    "Graph": "x = np.ones((5, 2, 1))",
    "Jordan": "x, targets = np.ones((5, 2, 3)), np.ones((5, 2, 2))",
    "Merge": "a, b = np.ones((2, 3)), np.ones((2, 4))",
    "Model": "x = np.ones((5, 2, 3))",
    "PReLU": "x = np.ones((2, 16))",
    "PositionalEncoding": "x = np.ones((5, 2, 64))",
    "attention_weights": "q, k, tokens = q[0], k[0], list('0123456789')",
    "app.show.characters": "from pyrnn.app.charmodel import CharModel; pyrnn.save('model.safetensors', "
    "CharModel(pyrnn.text.Vocabulary.of(text), 'gru', 4, 8))",
    "binary_cross_entropy": "logits = np.ones((2, 2))",
    "cross_entropy": "pullback = np.asarray",
    "ctc": ALIGNED,
    "data.fetch": "pyrnn = SimpleNamespace(data=SimpleNamespace(fetch=lambda name: 'book.txt'), text=pyrnn.text)",
    "data.minibatches": "targets = np.ones(5)",
    "data.pad": "embedding = pyrnn.Embedding(9, 8)",
    "decoding.beam_search": DECODE,
    "decoding.greedy": DECODE,
    "decoding.sample": DECODE,
    "decoding.scheduled_inputs": DECODE,
    "formats.onnx.model.OnnxStream": "pytest.importorskip('onnx'); pyrnn.to_onnx(rnn, 'rnn.onnx'); "
    "read, x_t = pyrnn.from_onnx('rnn.onnx'), np.ones((1, 2, 8), 'float32'); "
    "model = SimpleNamespace(stream=lambda state: read.stream(state=state, h=h, lengths=np.ones(2, int)))",
    "fit": FIT,
    "fold_batch_norms": "pytest.importorskip('torch'); import torch; "
    "module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))",
    "formats.onnx.model.OnnxModel": ONNX,
    "from_json": "x_t = np.ones(1)",
    "from_onnx": ONNX,
    "from_torch": "pytest.importorskip('torch'); import torch; torch.save(torch.nn.LSTM(8, 4).state_dict(), 'lstm.pt')",
    "gradient_flow": "x = np.ones((5, 2, 3))",
    "init.chrono": "layer = lstm",
    "init.forget_gate_bias": "layer = lstm",
    "load": "Tagger = pyrnn.Linear; pyrnn.save('mine.safetensors', Tagger(100, 7)); "
    "pyrnn.save('tagger.safetensors', layer)",
    "mean_squared_error": "y, targets = np.ones((2, 5, 3, 2))",
    "ngrams.NGram": "vocabulary, other = pyrnn.text.Vocabulary.of(text), 'be to'",
    "parallel.DataParallel": "target, adam = np.ones((5, 2, 4)), optimizer\n"
    "def loss_of(model, part):\n"
    "    y, pullback = model.vjp(part[0])\n"
    "    loss, dy = pyrnn.mean_squared_error(y, part[1])\n"
    "    pullback(dy)\n"
    "    return loss, len(y)",
    "pinball": "targets = y",
    "plots.Alignment": SPOKEN,
    "plots.Film": FILMED,
    "plots.Forecast": FORECAST,
    "plots.Learning": "errors = np.ones(3)",
    "plots.Track": TRACKED,
    "plots.alignments": SPOKEN,
    "plots.attention_map": "layer, x = pyrnn.MultiheadAttention(8, 2), np.ones((5, 1, 8))",
    "plots.films": FILMED,
    "plots.forecasts": FORECAST,
    "plots.learning_curves": "errors = np.geomspace(0.2, 0.01, 100)",
    "plots.pictures": "images = np.ones((2, 4, 4, 3))",
    "plots.swings": "best, mean, angles = np.full(9, -300.0), np.full(9, -400.0), np.zeros((9, 3))",
    "plots.tracks": TRACKED,
    "sklearn.RNNClassifier": SKLEARN + "; utterances, speakers = np.ones((30, 4, 2)), np.arange(30) % 2; "
    "others, their_speakers = utterances, speakers",
    "sklearn.RNNForecaster": SKLEARN + "; passengers = np.sin(np.arange(90.0))",
    "sklearn.RNNRegressor": SKLEARN + "; X, y = np.ones((30, 4, 2)), np.arange(30.0)",
    "sound.log_mel": "recordings = [rng.normal(size=4000)] * 2",
    "sound.mel_bands": "frames = np.ones((9, 256))",
    "text.ctc.ctc_align": ALIGNED,
    "text.ctc.ctc_beam_search": ALIGNED + "; ngram = pyrnn.ngrams.NGram(np.arange(6), order=2, size=6)",
    "text.ctc.ctc_greedy": ALIGNED,
    "to_torch": "pytest.importorskip('torch')",
    "torch.GRU": TORCH,
    "torch.LSTM": TORCH,
    "torch.RNN": TORCH,
    "torch.accelerate": TORCH,
    "torch.scaled_dot_product_attention": TORCH,
    "training.optim.Optimizer": "model = pyrnn.Model(embed=pyrnn.Embedding(5, 8), head=pyrnn.Linear(8, 4))",
    "training.fit.History": FIT,
    "truncated_bptt": "x, targets, adam = np.ones((50, 2, 8)), np.ones((50, 2, 16)), pyrnn.Adam(layer)",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """With the files that examples read."""
    for name in ("book.txt", "letters.txt", "pairs.tsv"):
        (tmp_path / name).write_text("to be", encoding="utf-8")
    (tmp_path / "genes.fsa").write_text(">YAL001C\nATGGTA\n", encoding="utf-8")
    (tmp_path / "amp.nam").write_text(json.dumps(AMP), encoding="utf-8")
    for ours, theirs in {"model.keras": "keras", "weights.h5": "weights.h5", "model.json": "json"}.items():
        shutil.copy(GOLDEN / f"keras3_chain.{theirs}", tmp_path / ours)
    pyrnn.save(tmp_path / "model.pt", pyrnn.GRU(8, 16))  # by its content, not by its name
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pyrnn.plots.style._png", lambda *_: b"")  # what is drawn is for test_plots.py, and takes long


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", OBJECTS)
def test_example_runs(name):
    names = {**given(), "pytest": pytest, "SimpleNamespace": SimpleNamespace}
    exec(OWN.get(name.removeprefix("pyrnn."), ""), names)
    exec(compile(example(name), name, "exec"), names)
