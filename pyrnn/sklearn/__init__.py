"""Recurrent networks as scikit-learn's estimators; needs the extra `sklearn`."""

try:
    import sklearn as _sklearn  # noqa: F401
except ImportError:
    raise ImportError("pyrnn.sklearn needs scikit-learn, the extra [sklearn]: pip install scikit-learn") from None

from .forecaster import RNNForecaster
from .sequences import RNNClassifier, RNNRegressor

__all__ = ["RNNClassifier", "RNNForecaster", "RNNRegressor"]
