"""What a name that pyrnn does not have may be meant as: names of torch's and Keras', and such as are nearly right."""

from __future__ import annotations

COUNTERPARTS = {
    "BCELoss": "binary_cross_entropy",
    "BCEWithLogitsLoss": "binary_cross_entropy",
    "BatchNormalization": "BatchNorm1d",
    "Bidirectional": "bidirectional=True of a layer",
    "CTCLoss": "ctc",
    "CrossEntropyLoss": "cross_entropy",
    "DataLoader": "data.minibatches",
    "Dense": "Linear",
    "GRUCell": "GRU, and stream() of it",
    "GlobalAveragePooling1D": "MeanOverTime",
    "GlobalMaxPooling1D": "MaxOverTime",
    "LSTMCell": "LSTM, and stream() of it",
    "LayerNormalization": "LayerNorm",
    "MSELoss": "mean_squared_error",
    "MaxPooling1D": "MaxPool1d",
    "Module": "Model",
    "NLLLoss": "negative_log_likelihood",
    "Parameter": "layer.params",
    "RNNCell": "RNN, and stream() of it",
    "SimpleRNN": "RNN",
    "Tensor": "arrays of NumPy",
    "manual_seed": "rng= of layers and models",
    "no_grad": "model(x), which records nothing",
    "pack_padded_sequence": "lengths= of a call",
    "pad_sequence": "data.pad",
    "tensor": "arrays of NumPy",
}


def hint(name: str, names: list[str]) -> str:
    """The end of an error: what is meant, if that can be told."""
    if name in COUNTERPARTS:
        return f"; here it is {COUNTERPARTS[name]}"
    from difflib import get_close_matches

    small = {known.lower(): known for known in names}
    near = get_close_matches(name.lower(), small, n=1, cutoff=0.75)
    return f". Did you mean {small[near[0]]}?" if near else ""
