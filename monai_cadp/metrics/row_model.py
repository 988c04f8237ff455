# SPDX-License-Identifier: Apache-2.0
"""A simple model of a table: what a researcher can still learn from released rows."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from monai_cadp.extras import extra

__all__ = ["ROW_MODELS", "row_model_score"]

#: Models that ``row_model_score`` trains.
ROW_MODELS = ("linear", "forest")


def row_model_score(
    train_features: Tensor,
    train_target: Tensor,
    test_features: Tensor,
    test_target: Tensor,
    model: str = "linear",
) -> float:
    """Train a model of scikit-learn on some rows, after standardisation, and return how well it does on others.

    Args:
        train_features: (n, k).
        train_target: classes (n,), of an integer dtype, or numbers (n,), float.
        test_features: (m, k).
        test_target: (m,).
        model: "linear" for logistic or ridge regression, "forest" for a random forest.

    Returns:
        Accuracy for classes; R2, the explained share of the variance, for numbers.

    Raises:
        ValueError: if the model is unknown.

    Example:
        >>> import torch
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> row_model_score(x[:100], x[:100].sum(1), x[100:], x[100:].sum(1)) > 0.99
        True
    """
    if model not in ROW_MODELS:
        raise ValueError(f"The model is {model!r}; expected one of {', '.join(ROW_MODELS)}.")
    with extra("studies", "A model of rows"):
        from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
        from sklearn.linear_model import LogisticRegression, Ridge
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    estimators: dict[tuple[str, bool], Any] = {
        ("linear", True): Ridge(),
        ("linear", False): LogisticRegression(max_iter=1000),
        ("forest", True): RandomForestRegressor(random_state=0),
        ("forest", False): RandomForestClassifier(random_state=0),
    }
    fitted = make_pipeline(StandardScaler(), estimators[model, train_target.is_floating_point()])
    fitted.fit(train_features.cpu().numpy(), train_target.cpu().numpy())
    return float(fitted.score(test_features.cpu().numpy(), test_target.cpu().numpy()))
