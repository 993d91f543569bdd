"""Pages that move: what they carry, what `pyrnn show` says, and, in a browser, their numbers, keys and clicks."""

import base64
import html.parser
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import browser
import cells
import numpy as np
import pytest

import pyrnn
from pyrnn.app import charmodel, cli, gallery, show
from pyrnn.cells import CELLS
from pyrnn.layers.stack import LAYERS

TEXT = "to be, or not\n</script><!-- é漢"
ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
READ = "to be or not to be\n"
LETTERS, SEQUENCE = "abcdefgh", "abcah"
ATTENTION = [(4, True), (2, False)]  # key heads, and whether it is causal


def character_model(cell="lstm", layers=2):
    model = charmodel.CharModel(pyrnn.text.Vocabulary.of(TEXT), cell, 5, 7, layers, rng=0)
    for array in model.params.values():
        array *= 2  # so that gates open and shut
    return model


def net(states="bipolar"):
    """Eight random patterns of 7 by 5, and a net that holds them."""
    rng = np.random.default_rng(0)
    made = pyrnn.Hopfield(35, states=states, threshold=rng.normal(size=35))
    made.store(np.where(rng.random((8, 35)) < 0.5, 1, -1 if states == "bipolar" else 0), rule="pseudo_inverse")
    return made


def attention_layer(kv_heads):
    """A layer, and the vectors of characters and of places."""
    rng = np.random.default_rng(0)
    layer = pyrnn.MultiheadAttention(12, 4, num_kv_heads=kv_heads, rng=0)
    return layer, rng.normal(size=(len(LETTERS), 12)).astype("float32"), rng.normal(size=(6, 12)).astype("float32")


def attended(kv_heads):
    """The layer, and the vectors of SEQUENCE."""
    layer, embedding, positions = attention_layer(kv_heads)
    return layer, embedding[[LETTERS.index(c) for c in SEQUENCE]] + positions[: len(SEQUENCE)]


PAGES = {
    "characters": lambda: show.characters(character_model(), "to be"),
    "recall": lambda: show.recall(net(), (7, 5)),
    "attention": lambda: show.attention(*attention_layer(4)[:1], LETTERS, *attention_layer(4)[1:], "abcab"),
}


class Parts(html.parser.HTMLParser):
    """Tags with their attributes, and the data."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.open, self.named, self.inside = [], [], set(), None
        self.data = ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append((tag, given, "label" in self.open))
        if tag in {"label", "script", "style"}:
            self.open.append(tag)
        self.inside = given.get("id") if tag == "script" else None

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data):
        if self.inside == "data":
            self.data += data


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_and_alone(name):
    """It asks for nothing, and whatever one can set has a name that is read aloud."""
    page = PAGES[name]()
    parts = Parts(page)
    assert "{{" not in page.replace("({{", "")
    assert "http:" not in page
    assert "https:" not in page
    assert not [tag for tag, given, _ in parts.tags if tag in {"link", "img", "iframe"} or {"src", "href"} & set(given)]
    assert "default-src 'none'" in page
    ids = [given["id"] for _, given, _ in parts.tags if "id" in given]
    assert len(ids) == len(set(ids))
    labels = {given["for"] for tag, given, _ in parts.tags if tag == "label" and "for" in given}
    for tag, given, labelled in parts.tags:
        if tag in {"input", "select", "textarea"}:
            assert labelled or given["id"] in labels, given
        if tag == "canvas" and "tabindex" in given:
            assert given["aria-label"]
    assert json.loads(parts.data)["arrays"]
    assert len(page) - len(parts.data) < 21_000


def test_what_ships_is_small():
    sizes = {file.name: file.stat().st_size for file in show.PAGES.iterdir()}
    assert sizes.pop("kernels.wasm") < 100_000
    assert sum(sizes.values()) < 40_000
    assert len(show.library()) < 45_000  # of each page


@pytest.mark.parametrize("form", [None, "bfloat16", "int8"])
def test_weights_are_those_of_the_model(form):
    model = character_model()
    model = model.quantize(form) if form else model
    carried = json.loads(Parts(show.characters(model)).data)
    assert carried["characters"] == sorted(set(TEXT))
    assert (carried["cell"], carried["layers"]) == ("lstm", 2)

    def array(given):
        kept = np.dtype(given["dtype"]).newbyteorder("<")
        return np.frombuffer(base64.b64decode(given["base64"]), kept).reshape(given["shape"])

    weights = model.state_dict()
    for name, given in carried["arrays"].items():
        np.testing.assert_array_equal(array(given), weights.pop(name))
        if "scale" in given:
            np.testing.assert_array_equal(array(given["scale"]), weights.pop(f"{name}.scale"))
    assert not weights


def test_a_text_of_tags_stays_a_text():
    page = show.characters(character_model(), "</script><!--")
    parts = Parts(page)
    assert json.loads(parts.data)["text"] == "</script><!--"
    assert "<" not in parts.data
    page.encode()


def test_refusals_of_pages():
    model = character_model()
    model.params["head.bias"][0] = np.inf
    with pytest.raises(ValueError, match=r"head\.bias is not finite"):
        show.characters(model)
    with pytest.raises(ValueError, match="knows no patterns"):
        show.recall(pyrnn.Hopfield(35), (7, 5))
    with pytest.raises(ValueError, match=r"shape is \(5, 8\), expected one of the net's 35 units"):
        show.recall(net(), (5, 8))
    with pytest.raises(ValueError, match="2 names, expected 8"):
        show.recall(net(), (7, 5), ["a", "b"])
    layer, embedding, positions = attention_layer(4)
    with pytest.raises(ValueError, match=r"embedding has shape \(7, 12\), expected \(8, 12\)"):
        show.attention(layer, LETTERS, embedding[1:], positions, "")
    with pytest.raises(ValueError, match=r"positions has shape \(6, 11\), expected \(P, 12\)"):
        show.attention(layer, LETTERS, embedding, positions[:, 1:], "")
    with pytest.raises(ValueError, match="kdim and vdim"):
        show.attention(pyrnn.MultiheadAttention(12, 4, kdim=3), LETTERS, embedding, positions, "")


# ---- the command


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the file of a model."""
    monkeypatch.chdir(tmp_path)
    charmodel.save_model("m", character_model(), {})
    return tmp_path


def test_show(here, capsys):
    assert cli.main(["show", "m"]) == 0
    assert capsys.readouterr().err == "Page of 0.1 MB: page.html\n"
    page = (here / "page.html").read_text(encoding="utf-8")
    text = json.loads(Parts(page).data)["text"]
    assert text == "".join(charmodel.sample(charmodel.load_model("m"), "", cli.SHOWN, cli.TEMPERATURE, 0))
    assert cli.main(["show", "m", "--out", "small.html", "--prompt", "to be", "--weights", "int8"]) == 0
    page = (here / "small.html").read_text(encoding="utf-8")
    assert page == show.characters(charmodel.load_model("m", "int8"), "to be")
    assert cli.main(["show", "m", "--out", "small.html", "--prompt", ""]) == 0
    assert json.loads(Parts((here / "small.html").read_text(encoding="utf-8")).data)["text"] == ""
    assert sorted(os.listdir(here)) == ["m", "page.html", "small.html"]


def test_show_refuses(here, capsys):
    model = character_model()
    model.params["head.bias"][0] = np.nan
    charmodel.save_model("no_use", model, {})
    pyrnn.save("layer", pyrnn.GRU(2, 3))
    (here / "text").write_text(TEXT, encoding="utf-8")
    (here / "page.html").write_text("before")
    (here / "link").symlink_to("m")
    before = sorted(os.listdir(here))
    for arguments, code, message in [
        ([], 2, "MODEL"),
        (["none"], 1, "none: no such file"),
        (["text"], 1, "text is no safetensors file"),
        (["."], 1, ". is a directory"),
        (["layer"], 1, "layer holds no character model of pyrnn"),
        (["no_use"], 1, "its weights are of no use"),
        (["no_use", "--prompt", "to"], 1, "a page of these weights is of no use: head.bias is not finite"),
        (["m", "--prompt", "Q"], 1, "prompt: characters the model does not know: 'Q' (U+0051) at position 0"),
        (["m", "--weights", "int4"], 2, "--weights"),
        (["m", "--out", ""], 2, "'' is no file name"),
        (["m", "--out", "m"], 2, "the page m would overwrite the model m"),
        (["m", "--out", "link"], 2, "the page link would overwrite the model m"),
        (["m", "--out", "nowhere/page.html"], 1, "nowhere/page.html: there is no directory"),
        (["m", "--out", "."], 1, "."),
        (["m", "m"], 2, "unexpected"),
    ]:
        assert cli.main(["show", *arguments]) == code, arguments
        out, err = capsys.readouterr()
        assert (out, err.count("\n"), err[:7]) == ("", 1, "Error: "), err
        assert message in err
    assert sorted(os.listdir(here)) == before
    assert (here / "page.html").read_text() == "before"


def test_wrong_objects_are_told():
    layer, embedding, positions = attention_layer(4)
    good = {
        show.characters: (character_model(), "to"),
        show.recall: (net(), (7, 5), list("abcdefgh")),
        show.attention: (layer, LETTERS, embedding, positions, "abc", False),
        gallery.way: (net(), np.ones(35), np.ones(35), 0),
    }
    for call, arguments in good.items():
        for k in range(len(arguments)):
            for wrong in (3.5, (1, 2.5), pyrnn.GRU(2, 3), [object()]):
                with pytest.raises((TypeError, ValueError), match=f"^{call.__name__}: "):
                    call(*arguments[:k], wrong, *arguments[k + 1 :])
    with pytest.raises(TypeError, match=r"^recall: net is DenseHopfield object, expected a pyrnn.Hopfield"):
        show.recall(pyrnn.DenseHopfield(np.ones((1, 4))), (2, 2))
    with pytest.raises(TypeError, match=r"^recall: names\[0\] is 0, expected a string"):
        show.recall(net(), (7, 5), range(8))


# ---- in a browser


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    """A browser, for all tests here."""
    if browser.found() is None:
        pytest.skip("no Chromium here")
    opened = browser.Browser(tmp_path_factory.mktemp("browser"))
    yield opened
    opened.close()


@pytest.fixture
def visit(tab, tmp_path):
    """A function that shows a page; at the end it has made no error and asked for nothing."""

    def visit(page, **size):
        (tmp_path / "page.html").write_text(page, encoding="utf-8")
        tab.open(tmp_path / "page.html", **size)
        tab.value("ready")
        return tab

    yield visit
    assert tab.problems() == []


def pixels(png):
    """A picture as (rows, columns, colours)."""
    return pytest.importorskip("matplotlib.image").imread(io.BytesIO(png))[..., :3]


def numbers(tab, expression):
    """A typed array of the page, or lists of such."""
    as_lists = "(_, value) => ArrayBuffer.isView(value) ? Array.from(value) : value"
    return np.array(json.loads(tab.value(f"JSON.stringify({expression}, {as_lists})")))


@pytest.fixture(scope="module")
def on_128_bits(tmp_path_factory):
    """What the library makes of the same models with the kernels that pages have: {name: array}."""
    if "x86-64-v2" not in pyrnn.kernels.isas():
        pytest.skip("this build has no kernels of 128 bits that round products and sums each")
    to = tmp_path_factory.mktemp("bits") / "made.npz"
    cells.python(f"import test_show; test_show.save({str(to)!r})", PYRNN_ISA="x86-64-v2")
    return np.load(to)


def save(to):
    made = {}
    for cell in CELLS:
        model = character_model(cell)
        logits, states = model(model.vocabulary.encode(READ)[:, None])
        states = states if isinstance(states, tuple) else (states,)
        made |= {f"{cell} {name}": state[:, 0] for name, state in zip(CELLS[cell].states, states, strict=True)}
        made[f"{cell} logits"] = logits[:, 0]
    for kv_heads, causal in ATTENTION:
        layer, x = attended(kv_heads)
        made[f"attention {kv_heads}"] = layer(x, is_causal=causal)
        made[f"weights {kv_heads}"] = layer.attention_weights(x, is_causal=causal)
    state = net().patterns[0].astype(np.int8)
    made["fields"] = pyrnn.kernels.hopfield.fields(net().weights, state[None])[0]
    np.savez(to, **made)


@pytest.mark.parametrize("cell", CELLS)
def test_a_character_model_has_the_bits_of_the_library(visit, on_128_bits, cell):
    tab = visit(show.characters(character_model(cell), READ))
    np.testing.assert_array_equal(numbers(tab, "steps.map(s => s.logits)"), on_128_bits[f"{cell} logits"])
    for name in CELLS[cell].states:
        there = numbers(tab, f"steps.at(-1).layers.map(values => values.{name})")
        np.testing.assert_array_equal(there, on_128_bits[f"{cell} {name}"])


@pytest.mark.parametrize("cell", CELLS)
def test_a_character_model_computes_what_the_library_computes(visit, cell):
    """In float32, which departs from doubles by its rounding, that some steps enlarge."""
    model = character_model(cell)
    tab = visit(show.characters(model, READ))
    ids = model.vocabulary.encode(READ)
    rnn = LAYERS[cell](5, 7, 2, dtype="float64")
    rnn.load_state_dict(model.rnn.state_dict())
    y, _ = rnn(model.embed.params["weight"].astype(float)[ids][:, None])
    expected = y[:, 0] @ model.head.params["weight"].T.astype(float) + model.head.params["bias"]
    logits = numbers(tab, "steps.map(s => s.logits)")
    np.testing.assert_allclose(logits[:4], expected[:4], rtol=1e-4, atol=1e-5)


def test_gates_by_hand(visit):
    """The first two steps of an LSTM, written out."""
    model = character_model(layers=1)
    tab = visit(show.characters(model, "to"))
    p = {name: array.astype(float) for name, array in model.params.items()}
    h, c = np.zeros(7), np.zeros(7)
    for t, k in enumerate(model.vocabulary.encode("to")):
        a = p["rnn.weight_ih_l0"] @ p["embed.weight"][k] + p["rnn.bias_ih_l0"]
        a = (a + p["rnn.weight_hh_l0"] @ h + p["rnn.bias_hh_l0"]).reshape(4, 7)
        i, f, o = 1 / (1 + np.exp(-a[[0, 1, 3]]))
        g = np.tanh(a[2])
        c = f * c + i * g
        h = o * np.tanh(c)
        for name, value in {"i": i, "f": f, "g": g, "o": o, "c": c, "h": h}.items():
            np.testing.assert_allclose(numbers(tab, f"steps[{t}].layers[0].{name}"), value, atol=1e-6)


@pytest.mark.parametrize("form", ["bfloat16", "int8"])
def test_weights_in_fewer_bits_are_read(visit, form):
    model = character_model("gru", 1).quantize(form)
    tab = visit(show.characters(model, "to be"))
    weights = pyrnn.core.encoded.matrices(model.state_dict())
    for name in ("embed.weight", "rnn.weight_hh_l0"):
        wide = pyrnn.core.encoded.decode(weights[name])
        np.testing.assert_array_equal(numbers(tab, f"arrays['{name}'].numbers"), wide.ravel())
    logits, _ = model(model.vocabulary.encode("to be")[:, None])
    tolerance = {"bfloat16": 1e-5, "int8": 0.1}[form]  # int8 products round their inputs, too, to 1/127
    np.testing.assert_allclose(numbers(tab, "steps.map(s => s.logits)"), logits[:, 0], atol=tolerance)


def test_typing_moves_the_character_page(visit):
    model = character_model()
    tab = visit(show.characters(model, "to"), width=700, height=900)
    seen = pixels(tab.picture())
    assert len(np.unique(seen.sum(axis=2))) > 50  # not empty
    tab.click("#text")
    tab("Input.insertText", text=" b§e")
    assert tab.value("steps.map(s => characters[s.id]).join('')") == "to be"
    assert tab.value("at('unknown').textContent").endswith(": §")
    assert np.any(pixels(tab.picture()) != seen)
    assert tab.value("at('column').style.left") == "64px"  # the last character is chosen
    tab.value("at('position').focus()")
    tab.key("ArrowLeft")
    assert tab.value("at('one').textContent") == "Unit 0 at “b”"
    tab.click("#heat")
    assert tab.value("at('one').textContent") == "Unit 3 at “␣”"
    seen = pixels(tab.picture())
    tab.click("input[value=f]")
    assert "forget gate" in tab.value("at('caption').textContent")
    assert np.any(pixels(tab.picture()) != seen)
    tab.value("at('temperature').value = 0")
    written = "".join(charmodel.sample(model, "to be", 3, 0))
    for k in range(1, 4):
        tab.click("#write")
        assert tab.value("steps.map(s => characters[s.id]).join('')") == "to be" + written[:k]
    tab.click("#next button")
    assert tab.value("steps.length") == 9


def test_a_page_that_has_read_nothing(visit):
    model = character_model()
    tab = visit(show.characters(model, ""))
    tab.value("at('temperature').value = 0")
    tab.click("#write")
    assert tab.value("at('text').value") == "".join(charmodel.sample(model, "", 1, 0))


@pytest.mark.parametrize("states", ["bipolar", "binary"])
def test_a_recall_is_the_librarys(visit, states):
    """States alike, and energies that the library has at the end of each sweep."""
    made, rng = net(states), np.random.default_rng(1)
    tab = visit(show.recall(made, (7, 5), [f"no {k}" for k in range(8)]))
    for k in range(3):
        probe, order = made.patterns[k].copy(), rng.permutation(35)
        probe[:5] = made.patterns[k + 1][:5]
        result = made.recall(probe, order=order, record=True)
        tab.value(f"var probe = Float64Array.from({probe.tolist()}), found = recalled(probe, {order.tolist()})")
        np.testing.assert_array_equal(numbers(tab, "probe"), result.state)
        energies = numbers(tab, "found")
        np.testing.assert_allclose(
            energies[::35], result.energies[: len(energies[::35])], rtol=1e-6, atol=1e-5
        )  # of float32 weights
        assert np.all(np.diff(energies) <= 1e-6)
        assert energies[0] > energies[-1]


def test_a_spoilt_pattern_comes_back(visit):
    rng = np.random.default_rng(0)
    made = pyrnn.Hopfield(100)
    made.store(np.where(rng.random((2, 100)) < 0.5, 1, -1))  # so few are recalled from any such probe
    tab = visit(show.recall(made, (10, 10)), dark=True)
    seen = pixels(tab.picture())
    assert seen[:5, :5].max() < 0.2
    tab.click("#stored button:nth-child(2)")
    np.testing.assert_array_equal(numbers(tab, "state"), made.patterns[1])
    tab.click("#spoil")
    assert np.count_nonzero(numbers(tab, "state") != made.patterns[1]) == 20
    assert np.any(pixels(tab.picture()) != seen)
    tab.click("#one")
    assert tab.value("energies.length") == 2
    before = tab.value("energies[0]")
    tab.click("#recall")
    end = time.monotonic() + 20
    while tab.value("timer") is not None and time.monotonic() < end:
        time.sleep(0.05)
    assert tab.value("at('told').textContent") == "At rest: “1”, without an error."
    np.testing.assert_array_equal(numbers(tab, "state"), made.patterns[1])
    assert tab.value("energies.at(-1)") == made.energy(made.patterns[1]) < before
    # Drawn by pointer and by keys.
    tab.click("#clear")
    tab.click("#board")
    assert numbers(tab, "state").tolist() == [1 if k == 55 else -1 for k in range(100)]
    for key in ("ArrowLeft", "ArrowUp", " "):
        tab.key(key)
    assert np.flatnonzero(numbers(tab, "state") == 1).tolist() == [44, 55]


@pytest.mark.parametrize(("kv_heads", "causal"), ATTENTION)
def test_attention_is_the_librarys(visit, kv_heads, causal):
    layer, x = attended(kv_heads)
    tab = visit(show.attention(layer, LETTERS, *attention_layer(kv_heads)[1:], SEQUENCE, causal))
    tab.value(f"var made = attend({[LETTERS.index(c) for c in SEQUENCE]}, {json.dumps(causal)})")
    weights = layer.attention_weights(x, is_causal=causal)
    np.testing.assert_allclose(numbers(tab, "made.weights"), weights, atol=1e-6)
    np.testing.assert_allclose(numbers(tab, "made.out"), layer(x, is_causal=causal), atol=1e-5)


@pytest.mark.parametrize(("kv_heads", "causal"), ATTENTION)
def test_attention_has_the_bits_of_the_library(visit, on_128_bits, kv_heads, causal):
    layer, embedding, positions = attention_layer(kv_heads)
    tab = visit(show.attention(layer, LETTERS, embedding, positions, SEQUENCE, causal))
    tab.value(f"var made = attend({[LETTERS.index(c) for c in SEQUENCE]}, {json.dumps(causal)})")
    np.testing.assert_array_equal(numbers(tab, "made.weights"), on_128_bits[f"weights {kv_heads}"])
    np.testing.assert_array_equal(numbers(tab, "made.out"), on_128_bits[f"attention {kv_heads}"])


def test_fields_have_the_bits_of_the_library(visit, on_128_bits):
    tab = visit(show.recall(net(), (7, 5)))
    np.testing.assert_array_equal(numbers(tab, "fieldsOf(state)"), on_128_bits["fields"])


@pytest.mark.skipif(not (ROOT / ".ci" / "web").is_file(), reason="not among the sources")
def test_the_kernels_are_made_of_the_sources(tmp_path):
    pytest.importorskip("ziglang")
    made = tmp_path / "kernels.wasm"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = ["bash", ROOT / ".ci" / "web", made]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PATH": path})
    assert made.read_bytes() == (show.PAGES / "kernels.wasm").read_bytes()


def test_attention_moves(visit):
    layer, embedding, positions = attention_layer(4)
    tab = visit(show.attention(layer, LETTERS, embedding, positions, "abc", True), width=380)
    assert tab.value("document.documentElement.scrollWidth <= 380")  # nothing sticks out of a small screen
    seen = pixels(tab.picture())
    assert tab.value("at('weights').children.length") == 3 * 3
    tab.value("at('query').focus()")
    tab.key("ArrowLeft")
    assert tab.value("at('one').textContent") == "Place 1, “b”: products, weights"
    assert tab.value("at('weights').children.length") == 3 * 2
    tab.click("#causal")
    assert tab.value("at('weights').children.length") == 3 * 3
    tab.click("#text")
    tab("Input.insertText", text="defgh!")
    assert tab.value("at('heat').width") == 6  # no more places than there are vectors for
    assert "!" in tab.value("at('unknown').textContent")
    assert np.any(pixels(tab.picture()) != seen)


@pytest.mark.parametrize("name", PAGES)
def test_a_frame_is_as_high_as_its_page(visit, tmp_path, name):
    """As the documentation has them, in columns of two widths."""
    script = DOCS / "_static" / "moving.js"
    if not script.is_file():
        pytest.skip("not among the sources")
    (tmp_path / "inner.html").write_text(PAGES[name](), encoding="utf-8")
    frame = '<iframe src="inner.html" style="width: 100%; height: 20px; border: 1px solid; box-sizing: border-box">'
    outer = f"<!doctype html><body>{frame}</iframe><script>{script.read_text()}</script><script>ready = 1</script>"
    heights = []
    for width in (1200, 500):
        tab, seen = visit(outer, width=width), [20]
        end = time.monotonic() + 20
        while (seen[-1] < 400 or len(set(seen[-4:])) > 1) and time.monotonic() < end:
            time.sleep(0.05)
            seen.append(tab.value("document.querySelector('iframe').offsetHeight"))
        heights.append(seen[-1])
    assert 400 < heights[0] < heights[1] < 3000


def test_templates_ship(tmp_path):
    assert {file.name for file in Path(show.__file__).with_name("pages").iterdir()} == {
        "attention.html", "characters.html", "head.html", "kernels.wasm", "recall.html", "shared.css", "shared.js",
    }  # fmt: skip
