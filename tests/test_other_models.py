"""Other people's models run here from at most three lines, and give their authors' numbers.

PYRNN_MODELS names a folder with the packages unpacked (tests/fetch_models.py), and where one likes with checkouts of
RTNeural and NeuralAmpModelerCore; without it these tests are skipped. models/SOURCES.md says who computed the numbers.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from test_keras import sigmoid

import pyrnn

RECORDED = np.load(Path(__file__).parent / "models" / "recorded.npz")


def found(pattern):
    """A file of a package."""
    if "PYRNN_MODELS" not in os.environ:
        pytest.skip("PYRNN_MODELS names no folder of models")
    files = sorted(Path(os.environ["PYRNN_MODELS"]).glob(f"**/{pattern}"))
    if not files:
        pytest.skip(f"there is no {pattern} in PYRNN_MODELS")
    return files[0]


def same(y, name, atol):
    np.testing.assert_allclose(y, RECORDED[name], rtol=0, atol=atol)


def test_dgaintel():
    """Domains as ids of characters -> how likely a program has made them up."""
    path = found("dgaintel/domain_classifier_model.h5")
    y = pyrnn.from_keras(path)(RECORDED["dgaintel/x"])
    same(y, "dgaintel/y", 1e-6)


def test_reactionrnn():
    """Weights alone: a GRU with the reset before, hard sigmoid gates, and an output of the author's own."""
    path = found("reactionrnn/reactionrnn_weights.hdf5")
    told = {"rnn": {"recurrent_activation": "hard_sigmoid"}, "output": {"activation": "relu"}}
    model = pyrnn.from_keras(path, {"input": {"class_name": "InputLayer"}, "embedding": {}, **told})
    y = model(RECORDED["reactionrnn/x"])
    same(y / y.sum(axis=-1, keepdims=True), "reactionrnn/y", 5e-6)


def test_textgenrnn():
    """Weights alone in cuDNN's layout, layers that meet, and an attention of the author's own."""
    path = found("textgenrnn/textgenrnn_weights.hdf5")
    told = {
        "input": {"class_name": "InputLayer"},
        "embedding": {},
        "rnn_1": {"return_sequences": True},
        "rnn_2": {"return_sequences": True},
        "rnn_concat": {"class_name": "Concatenate", "inbound": ["embedding", "rnn_1", "rnn_2"]},
        # AttentionWeightedAverage: the mean of the steps, each by the exponential of its score
        "attention": lambda weight: (
            lambda x: pyrnn.scaled_dot_product_attention(weight.T[None], x[:, None], x[:, None], scale=1.0)[:, 0, 0]
        ),
        "output": {"activation": "softmax"},
    }
    y = pyrnn.from_keras(path, told)(RECORDED["textgenrnn/x"])
    same(y, "textgenrnn/y", 5e-6)


def test_uzmorph():
    """Words as ids of characters -> tags."""
    path = found("uzmorph_nn/data/morph_bilstm.pth")
    lstm = pyrnn.LSTM(64, 64, 2, batch_first=True, bidirectional=True)
    model = pyrnn.Sequential(char_embeddings=pyrnn.Embedding(49, 64), lstm=lstm, hidden2tag=pyrnn.Linear(128, 746))
    model.load_state_dict(pyrnn.read_weights(path))
    same(model(RECORDED["uzmorph/x"])[..., ::16], "uzmorph/y", 2e-5)


def test_resemblyzer():
    """Spectrograms of voices -> one vector each, from a legacy .pt with an optimiser's state in it."""
    weights = pyrnn.read_weights(found("resemblyzer/pretrained.pt"))
    lstm, linear = pyrnn.LSTM(40, 256, 3, batch_first=True), pyrnn.Linear(256, 256)
    for layer, prefix in ((lstm, "model_state.lstm."), (linear, "model_state.linear.")):
        layer.load_state_dict(weights, prefix)
    y = np.maximum(linear(lstm(RECORDED["resemblyzer/x"])[1][0][-1]), 0)
    same(y / np.linalg.norm(y, axis=1, keepdims=True), "resemblyzer/y", 2e-6)


def test_g2pm():
    """Chinese sentences as ids -> the sounds of characters that have several."""
    path = found("g2pM/np_ckpt.pkl")
    model = pyrnn.Sequential(
        embedding=pyrnn.Embedding(5398, 64),
        lstm=pyrnn.LSTM(64, 32, batch_first=True, bidirectional=True),
        logit_layer=pyrnn.Sequential(pyrnn.Linear(64, 32), pyrnn.ReLU(), pyrnn.Linear(32, 876)),
    )
    model.load_state_dict(pyrnn.read_weights(path))
    for k in range(2):
        same(model(RECORDED[f"g2pm/x{k}"])[0, RECORDED[f"g2pm/at{k}"], ::8], f"g2pm/y{k}", 2e-5)


def test_g2p_en():
    """Words -> sounds: an encoder's final state is a decoder's first one."""
    weights = pyrnn.read_weights(found("g2p_en/checkpoint20.npz"))
    names = "weight_ih", "weight_hh", "bias_ih", "bias_hh"
    encoder, decoder = (
        pyrnn.from_torch({name: weights[f"{part}_{name[0]}_{name[-2:]}"] for name in names}) for part in ("enc", "dec")
    )
    graphemes, phonemes = list(RECORDED["g2p_en/graphemes"]), RECORDED["g2p_en/phonemes"]

    def step(h, ids):
        y, h = decoder(weights["dec_emb"][ids][None], h)
        return y[0] @ weights["fc_w"].T + weights["fc_b"], h

    for word, sounds in zip(RECORDED["g2p_en/words"], RECORDED["g2p_en/sounds"], strict=True):
        ids = [graphemes.index(letter) for letter in word] + [graphemes.index("</s>")]
        state = encoder(weights["enc_emb"][ids][:, None])[1]
        spoken, lengths = pyrnn.decoding.greedy(step, state, [2], end=3, max_steps=20)
        assert " ".join(phonemes[spoken[: lengths[0], 0]]) == sounds


@pytest.mark.parametrize("name", ["gru", "gru_1d", "lstm", "lstm_1d", "conv", "dense"])
def test_rtneural(name):
    """The author's recorded inputs and outputs."""
    path = found(f"models/{name}.json")
    x, y = (np.loadtxt(path.parents[1] / "test_data" / f"{name}_{side}_python.csv")[:, None] for side in "xy")
    np.testing.assert_allclose(pyrnn.from_json(path)(x), y, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "kind"), [("gru", pyrnn.GRU), ("lstm", pyrnn.LSTM)])
def test_rtneural_of_torch(name, kind):
    """A state dict in JSON."""
    path = found(f"models/{name}_torch.json")
    x, y = (np.loadtxt(path.parents[1] / "test_data" / f"{name}_torch_{side}_python.csv")[:, None] for side in "xy")
    model = pyrnn.Sequential(**{name: kind(1, 8), f"{name}2": kind(8, 8, 3), "dense": pyrnn.Linear(8, 1)})
    model.load_state_dict(pyrnn.read_weights(path))
    np.testing.assert_allclose(model(x), y, rtol=0, atol=1e-6)


def test_nam():
    """Its published formula, from its first state on."""
    path = found("lstm.nam")
    described = json.loads(path.read_text())
    x = np.random.default_rng(0).normal(size=(50, 1))
    assert described["config"] == {"input_size": 1, "hidden_size": 3, "num_layers": 1}
    weight, bias, h, c, head, last = np.split(np.array(described["weights"]), [48, 60, 63, 66, 69])
    expected = []
    for value in x:
        i, f, g, o = np.split(weight.reshape(12, 4) @ np.concatenate([value, h]) + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        expected.append(head @ h + last)
    model = pyrnn.from_json(path)
    np.testing.assert_allclose(model(x), expected, rtol=0, atol=1e-6)


def test_arabic_name_romanizer(monkeypatch):
    """Encoder and decoder of ONNX in the author's own beam search: the names that onnxruntime finds."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    resources = found("arabic_name_romanizer/resources/encoder.onnx").parent
    monkeypatch.syspath_prepend(resources.parent.parent)
    from arabic_name_romanizer import inference

    class Backend:
        def __init__(self):
            self.encoder, self.decoder = (pyrnn.from_onnx(resources / f"{n}.onnx") for n in ("encoder", "decoder"))

        def encode(self, src, src_mask):
            return {name.removesuffix("_out"): a for name, a in self.encoder(src=src, src_mask=src_mask).items()}

        def step(self, prefix, state):
            out = self.decoder(prefix=prefix, **state)
            return out["logprobs"], {**state, "hidden": out["hidden_out"]}

    names = ["محمد", "فاطمة", "عبد الرحمن", "نور الدين", "يوسف"]
    author = inference.OnnxModel(resources)
    expected = author.transliterate_units(names, None, 5)
    author.backend = Backend()
    for ours, theirs in zip(author.transliterate_units(names, None, 5), expected, strict=True):
        assert [text for text, _ in ours] == [text for text, _ in theirs]
        np.testing.assert_allclose([p for _, p in ours], [p for _, p in theirs], atol=1e-5)
