"""The summary at the end of a run: its interpreter compared with the baselines."""

from __future__ import annotations

import pytest

from encyclo.cli.views.summary import _accuracy
from encyclo.statistics.figures import Accuracy


def rung(**top1: float) -> dict[str, Accuracy]:
    return {name: Accuracy(top1=value, n=4000, candidates=1000) for name, value in top1.items()}


def test_an_interpreter_ahead_of_its_baselines_stands_beside_them():
    text = _accuracy(rung(transformer=0.99, centroid=0.95, logistic=0.90), "transformer")
    assert text == "99.0% (transformer), 95.0% (centroid), 90.0% (logistic); n=4,000, 1,000 candidates"


@pytest.mark.parametrize(
    ("others", "named"),
    [
        ({"centroid": 0.99, "logistic": 0.5}, "centroid"),
        ({"centroid": 0.9, "logistic": 0.995}, "logistic"),
        ({"centroid": 0.99, "logistic": 0.995}, "centroid and logistic"),
    ],
)
def test_a_baseline_that_is_not_beaten_is_named(others: dict[str, float], named: str):
    text = _accuracy(rung(transformer=0.99, **others), "transformer")
    assert text.endswith(f"; transformer does not beat {named}")


def test_a_baseline_alone_is_compared_with_nothing():
    assert "beat" not in _accuracy(rung(centroid=0.95), "centroid")
