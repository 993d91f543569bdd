"""Writes keras2_*.h5, keras3_*.keras and so on: small models of Keras with values at random, and what Keras computes
with them in keras2.npz and keras3.npz.

    python tests/golden/make_keras.py           needs keras 3, or tensorflow 2.15 with its keras 2

keras<version>.npz has for each model the input <name>/x and the output <name>/y. The tests need only the files.
"""

import sys
from pathlib import Path

import keras
import numpy as np
from keras import layers

HERE = Path(__file__).parent
VERSION = keras.__version__.split(".")[0]
ENDINGS = {"2": {"chain": ".h5", "graph": ".keras"}, "3": {"chain": ".keras", "graph": ".h5"}}[VERSION]
RNG = np.random.default_rng(0)


def chain():
    return keras.Sequential(
        [
            layers.Input((12,)),
            layers.Embedding(7, 4),
            layers.SpatialDropout1D(0.5),
            layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
            layers.Conv1D(5, 3, padding="causal", activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling1D(2, padding="same"),
            layers.GRU(4, reset_after=False, recurrent_activation="hard_sigmoid", return_sequences=True),
            layers.TimeDistributed(layers.Dense(3, activation="elu")),
            layers.LayerNormalization(),
            layers.GRU(2),
            layers.Dropout(0.5),
            layers.Dense(2, activation="softmax"),
        ]
    )


def graph():
    x = layers.Input((6, 3))
    one = layers.LSTM(4, return_sequences=True, activation="relu", recurrent_activation="hard_sigmoid")(x)
    two = layers.SimpleRNN(4, return_sequences=True)(one)
    beside = layers.Concatenate()([x, one, two])
    total = layers.Add()([layers.Dense(4, use_bias=False)(beside), two])
    return keras.Model(x, layers.Bidirectional(layers.GRU(2))(total))


def cudnn():
    """Of weights alone in the layout of cuDNN, which Keras 2 converts where it runs without."""
    from tensorflow.compat.v1.keras.layers import CuDNNGRU, CuDNNLSTM

    gpu = keras.Sequential([layers.Input((5, 3)), CuDNNLSTM(4, return_sequences=True, name="a"), CuDNNGRU(2, name="b")])
    drawn(gpu)
    gpu.save_weights(HERE / "keras2_cudnn.h5")
    cpu = keras.Sequential(
        [layers.Input((5, 3)), layers.LSTM(4, return_sequences=True, name="a"), layers.GRU(2, name="b")]
    )
    cpu.load_weights(HERE / "keras2_cudnn.h5")
    return cpu


def drawn(model):
    for weight in model.weights:
        if "seed" not in weight.name:
            values = RNG.normal(size=tuple(weight.shape)) / 2
            weight.assign((np.abs(values) + 0.5 if "variance" in weight.name else values).astype("float32"))


def main():
    recorded = {}
    for make in (chain, graph, cudnn) if VERSION == "2" else (chain, graph):
        name = make.__name__
        model = make()
        if make is not cudnn:
            drawn(model)
            model.save(HERE / f"keras{VERSION}_{name}{ENDINGS[name]}")
            if make is chain and VERSION == "3":
                model.save_weights(HERE / f"keras{VERSION}_{name}.weights.h5")
                (HERE / f"keras{VERSION}_{name}.json").write_text(model.to_json())
        ids = make is chain
        x = RNG.integers(0, 7, (3, 12)) if ids else RNG.normal(size=(3, *model.input_shape[1:])).astype("float32")
        recorded[f"{name}/x"], recorded[f"{name}/y"] = x, np.asarray(model.predict(x, verbose=0))
    np.savez_compressed(HERE / f"keras{VERSION}.npz", **recorded)


if __name__ == "__main__":
    sys.exit(main())
