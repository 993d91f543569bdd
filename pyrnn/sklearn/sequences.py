"""A classifier and a regressor of sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import check_array, check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ..core.checks import Array, any_array, opened, real, shown
from ..data import pad
from ..layers.norm import LogSoftmax
from ..training.fit import fit
from ..training.losses import cross_entropy, mean_squared_error
from ..training.optim import Adam
from .network import Scale, Summary, averaged, ensemble, generator, members, recurrent

AT_ONCE, FEW = 256, 16  # sequences of a prediction by one model, by each of many


class Sequences(BaseEstimator):  # type: ignore[misc]
    """What the two share: the forms of X, standardisation, training."""

    def __init__(
        self, cell: str = "gru", hidden_size: int = 32, num_layers: int = 1, *, bidirectional: bool = False,
        dropout: float = 0.0, epochs: int = 50, batch_size: int = 32, learning_rate: float = 1e-2,
        validation_fraction: float = 0.1, patience: int | None = 10, standardize: bool = True,
        n_models: int = 1, random_state: Any = None, verbose: int = 0,
    ) -> None:  # fmt: skip
        self.cell = cell
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.standardize = standardize
        self.n_models = n_models
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _begin(self, sequences: Sequence[Array], outputs: int) -> None:
        """A network with its first weights, and the scale of what it reads."""
        features = sequences[0].shape[1]
        rng = generator(self.random_state)
        rnn = recurrent(type(self).__name__, self.cell, features, self.hidden_size, self.num_layers, self.dropout,
                        bidirectional=self.bidirectional)  # fmt: skip
        self._scale = Scale.of(f"{type(self).__name__}: X", np.concatenate(sequences), self.standardize)
        network = Summary(rnn, outputs, self.dropout, rng)
        self.network_ = ensemble(type(self).__name__, self.n_models, network, rng)
        self._optimizer, self._rng = Adam(self.network_, lr=self.learning_rate), rng

    def fit(self, X: Any, y: Any, lengths: Any = None) -> Any:  # noqa: N803
        """Train from the start. ValueError for what is not finite or does not fit together.

        estimator.fit(X, y)
        """
        sequences, targets = self._start(X, y, lengths)
        return self._learn(sequences, targets, epochs=self.epochs, valid=self._held_out(len(targets)),
                           patience=self.patience)  # fmt: skip

    def _start(self, X: Any, y: Any, lengths: Any) -> tuple[Sequence[Array], Array]:  # noqa: N803
        """A new network for these, and the sequences and targets that `_learn` takes."""
        raise NotImplementedError

    def _learn(self, sequences: Sequence[Array], targets: Array, **how: Any) -> Any:
        raise NotImplementedError

    def _train(self, sequences: Sequence[Array], targets: Array, loss: Any, **how: Any) -> Any:
        x = [self._scale(sequence) for sequence in sequences]
        self.history_ = fit(self.network_, x, targets, loss, batch_size=self.batch_size, optimizer=self._optimizer,
                            progress=self.verbose > 0, rng=self._rng, **how)  # fmt: skip
        return self

    def _held_out(self, count: int) -> float | None:
        """The part of so many sequences that is not trained on; None where they are too few for one."""
        part = real(type(self).__name__, "validation_fraction", self.validation_fraction, 0, 1)
        return part if round(part * count) else None

    def _outputs(self, X: Any, lengths: Any) -> Array:  # noqa: N803
        """What each of the models makes of X, (P, n, outputs)."""
        check_is_fitted(self, "network_")
        sequences = self._read(X, lengths)
        parts = []
        count = len(members(self.network_))
        rows = max(AT_ONCE // count, FEW)
        for start in range(0, len(sequences), rows):
            x, steps = pad([self._scale(sequence) for sequence in sequences[start : start + rows]])
            parts.append(self.network_(x, lengths=steps))
        outputs: Array = np.concatenate(parts, axis=-2).astype(np.float64)
        return outputs.reshape(count, *outputs.shape[-2:])

    def _read(self, X: Any, lengths: Any, *, reset: bool = False) -> Sequence[Array]:  # noqa: N803
        """X in any of its forms -> n arrays (T, features) of finite numbers. `reset`: later ones are to be like it."""
        call = type(self).__name__
        sequences: Sequence[Array]
        sequences, table = self._given(X, lengths, reset)
        if reset:
            self._table: bool = table
        features = sequences[0].shape[1]
        if reset and not table:
            self.n_features_in_ = features
        expected = 1 if self._table else self.n_features_in_
        if features != expected:
            raise ValueError(f"X has {features} features, but {call} is expecting {expected} features as input")
        return sequences

    def _given(self, X: Any, lengths: Any, reset: bool) -> tuple[Any, bool]:  # noqa: N803
        """The sequences, and whether X was a table (n, T)."""
        call = type(self).__name__
        given = opened(call, "X", list(X) if isinstance(X, np.ndarray) and X.dtype.hasobject else X)
        X = X if isinstance(X, np.ndarray) else given  # noqa: N806
        if lengths is not None:
            given = any_array(call, "lengths", lengths)
            if given.ndim != 1 or given.dtype.kind not in "iu" or np.any(given < 0) or given.sum() != len(X):
                raise ValueError(f"{call}: lengths are {shown(lengths)}, expected (n,) integers from 0 up, {len(X)} in "
                                 "all, as X has steps")  # fmt: skip
            steps = check_array(X, dtype=np.float64, estimator=self)
            return np.split(steps, np.cumsum(given)[:-1]), False
        if isinstance(X, (list, tuple)) or (isinstance(X, np.ndarray) and X.dtype.hasobject):
            if len(X) == 0:
                raise ValueError(f"{call}: X is empty, expected at least one sequence")
            arrays = [np.asarray(sequence) for sequence in X]
            if len({array.shape for array in arrays}) > 1 or arrays[0].ndim == 2:
                for n, array in enumerate(arrays):
                    if array.ndim != 2 or array.shape[1] != arrays[0].shape[1]:
                        expected = f"(T, {arrays[0].shape[1]})" if n else "(T, features)"
                        raise ValueError(f"{call}: X[{n}] has shape {array.shape}, expected {expected}")
                if not any(map(len, arrays)):
                    raise ValueError(f"{call}: X has no steps in any of its sequences, expected one at least")
                steps = check_array(np.concatenate(arrays), dtype=np.float64, estimator=self)
                return np.split(steps, np.cumsum([len(array) for array in arrays])[:-1]), False
        if len(X.shape if hasattr(X, "shape") else np.shape(np.asarray(X))) == 3:
            return check_array(X, dtype=np.float64, allow_nd=True, estimator=self), False
        if reset or self._table:  # the number of its columns is to stay
            return validate_data(self, X, dtype=np.float64, reset=reset)[:, :, None], True
        return check_array(X, dtype=np.float64, estimator=self)[:, :, None], False


class RNNClassifier(ClassifierMixin, Sequences):  # type: ignore[misc]
    """A classifier of sequences, each of any length, with a recurrent network.

    A recurrent layer reads the sequence; its final states, and the maximum and the mean of its outputs, go to a linear
    layer, which is trained with the cross-entropy.

    cell                 "gru", "lstm", "rnn" or another of this library's, in small letters
    hidden_size, num_layers, bidirectional   of the recurrent layer
    dropout              of its outputs, between layers too
    epochs, batch_size   at most so many passes over the sequences, in minibatches of so many
    learning_rate        of Adam at the start; it falls to 0 along a cosine
    validation_fraction  of the sequences are not trained on; the weights with the best loss on them are kept
    patience             training ends when that loss has not fallen for so many epochs; None: never
    standardize          bring every feature to mean 0 and standard deviation 1 over all steps
    n_models             so many networks, each with initial values of its own, are trained at once, on the same
                         minibatches; each keeps the weights that were best for it, and training ends when `patience` is
                         over for all. What is predicted is their mean, how far they are apart is its spread
    random_state         an int, a numpy.random.RandomState, or None. The same bits from one int for any threads
    verbose              1 shows a bar on a terminal

    X is (n, T, features); (n, T), one feature; a list of n arrays (T_i, features); or, with `lengths` (n,), all of them
    end to end, (sum T, features). y is (n,), of any labels.

    After `fit`: `classes_`, `n_features_in_`, `network_` (a `pyrnn.Model`; of several models a `pyrnn.Population` of
    such), `history_` (losses by epoch, of several models (P,) arrays). TypeError and ValueError for arguments and
    arrays that do not fit, in `fit`, as scikit-learn wants it.

        classifier = RNNClassifier(random_state=0).fit(utterances, speakers)
        classifier.score(others, their_speakers)
    """

    def partial_fit(self, X: Any, y: Any, classes: Any = None, lengths: Any = None) -> RNNClassifier:  # noqa: N803
        """One pass over these sequences, at the full learning rate. The first call says all `classes` that there will
        be, None for those of y; the scale of the features is that of its X.

            classifier.partial_fit(X, y, classes=np.arange(9))
        """
        if hasattr(self, "network_"):
            sequences, targets = self._read(X, lengths), self._encoded(y)
            if classes is not None and not np.array_equal(np.unique(classes), self.classes_):
                raise ValueError(f"RNNClassifier.partial_fit: classes are {shown(classes)}, expected those of the "
                                 f"first call, {self.classes_}")  # fmt: skip
        else:
            sequences, targets = self._start(X, y, lengths, classes)
        return self._learn(sequences, targets, epochs=1, schedule=None)

    def predict_proba(self, X: Any, lengths: Any = None, return_std: bool = False) -> Any:  # noqa: N803
        """The probability of each of `classes_`, (n, classes), the mean of the models'. With return_std how far these
        are apart, too, their standard deviation, likewise; ValueError where n_models is 1.

            classifier.predict_proba(X)
        """
        return self._probabilities(self._outputs(X, lengths), return_std)

    def _probabilities(self, logits: Array, return_std: Any = False) -> Any:
        """The same from logits (P, n, classes)."""
        probabilities = np.exp(LogSoftmax(dtype="float64")(logits))
        return averaged("RNNClassifier.predict_proba", probabilities, return_std)

    def predict(self, X: Any, lengths: Any = None) -> Array:  # noqa: N803
        """The likeliest class of each sequence, (n,).

        classifier.predict(X)
        """
        logits = self._outputs(X, lengths)
        scores = logits[0] if len(logits) == 1 else self._probabilities(logits)
        labels: Array = self.classes_[scores.argmax(axis=1)]
        return labels

    def score(self, X: Any, y: Any, lengths: Any = None, sample_weight: Any = None) -> float:  # noqa: N803
        """The part of the sequences whose class is right.

        classifier.score(X, y)
        """
        return float(accuracy_score(y, self.predict(X, lengths), sample_weight=sample_weight))

    def _start(self, X: Any, y: Any, lengths: Any, classes: Any = None) -> tuple[Sequence[Array], Array]:  # noqa: N803
        sequences = self._read(X, lengths, reset=True)
        y = opened("RNNClassifier", "y", y)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        check_consistent_length(sequences, y)
        self.classes_ = np.unique(y if classes is None else classes)
        targets = self._encoded(y)
        self._begin(sequences, len(self.classes_))
        return sequences, targets

    def _encoded(self, y: Any) -> Array:
        """The places of labels among `classes_`."""
        y = opened("RNNClassifier", "y", y)
        y = column_or_1d(y)
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(f"RNNClassifier: y has the label {shown(unknown[0])}, expected those of {self.classes_}")
        places: Array = np.searchsorted(self.classes_, y)
        return places

    def _learn(self, sequences: Sequence[Array], targets: Array, **how: Any) -> RNNClassifier:
        check_consistent_length(sequences, targets)
        self._train(sequences, targets, cross_entropy, **how)
        return self


class RNNRegressor(RegressorMixin, Sequences):  # type: ignore[misc]
    """A number, or several, for each sequence, with a recurrent network; trained with the mean squared error.

    y is (n,), or (n, outputs); with `standardize` it is brought to mean 0 and standard deviation 1 too. All else,
    errors too, is as in `RNNClassifier`.

        regressor = RNNRegressor(random_state=0).fit(X, y)
        regressor.predict(X)
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def partial_fit(self, X: Any, y: Any, lengths: Any = None) -> RNNRegressor:  # noqa: N803
        """One pass over these sequences, at the full learning rate. The scales are those of the first call.

        regressor.partial_fit(X, y)
        """
        if not hasattr(self, "network_"):
            return self._learn(*self._start(X, y, lengths), epochs=1, schedule=None)
        sequences, y = self._read(X, lengths), self._numbers(y)
        outputs = 1 if self._flat else len(self._target.mean)
        if (y.ndim == 1) != self._flat or (y.ndim == 2 and y.shape[1] != outputs):
            raise ValueError(f"RNNRegressor.partial_fit: y has shape {y.shape}, expected {outputs} outputs as before")
        return self._learn(sequences, y, epochs=1, schedule=None)

    def predict(self, X: Any, lengths: Any = None, return_std: bool = False) -> Any:  # noqa: N803
        """The numbers of each sequence, (n,), or (n, outputs) where y was, the mean of the models'. With return_std how
        far these are apart, too, their standard deviation, likewise; ValueError where n_models is 1. It says nothing of
        the noise in y, on which all of them agree.

            regressor.predict(X)
            mean, std = regressor.predict(X, return_std=True)  # of RNNRegressor(n_models=10)
        """
        outputs = self._outputs(X, lengths)
        y = self._target.back(outputs)
        return averaged("RNNRegressor.predict", y[..., 0] if self._flat else y, return_std)

    def score(self, X: Any, y: Any, lengths: Any = None, sample_weight: Any = None) -> float:  # noqa: N803
        """R squared: 1 is perfect, 0 as good as the mean of y.

        regressor.score(X, y)
        """
        return float(r2_score(y, self.predict(X, lengths), sample_weight=sample_weight))

    def _start(self, X: Any, y: Any, lengths: Any) -> tuple[Sequence[Array], Array]:  # noqa: N803
        sequences, y = self._read(X, lengths, reset=True), self._numbers(y)
        check_consistent_length(sequences, y)
        self._flat = y.ndim == 1
        columns = y.reshape(len(y), -1)
        self._target = Scale.of("RNNRegressor: y", columns, self.standardize)
        self._begin(sequences, columns.shape[1])
        return sequences, y

    def _numbers(self, y: Any) -> Array:
        if y is None:
            raise ValueError("RNNRegressor requires y to be passed, but the target y is None")
        y = opened("RNNRegressor", "y", y)
        y = check_array(y, dtype=np.float64, ensure_2d=False, allow_nd=True, input_name="y", estimator=self)
        if y.ndim not in (1, 2):
            raise ValueError(f"RNNRegressor: y has shape {y.shape}, expected (n,) or (n, outputs)")
        numbers: Array = y
        return numbers

    def _learn(self, sequences: Sequence[Array], targets: Array, **how: Any) -> RNNRegressor:
        check_consistent_length(sequences, targets)
        self._train(sequences, self._target(targets.reshape(len(targets), -1)), mean_squared_error, **how)
        return self
