"""Recurrent networks as scikit-learn's estimators; needs the extra `sklearn`."""

try:
    import sklearn as _sklearn  # noqa: F401
except ImportError:
    raise ImportError("pyrnn.sklearn needs scikit-learn, which is not installed: pip install 'pyrnn[sklearn]' in a "
                      "checkout is pip install '.[sklearn]'", name="sklearn") from None  # fmt: skip

from .forecaster import RNNForecaster
from .sequences import RNNClassifier, RNNRegressor

__all__ = ["RNNClassifier", "RNNForecaster", "RNNRegressor"]
