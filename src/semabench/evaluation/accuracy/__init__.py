"""Top-1, top-5 and inference speed of a model on a dataset."""

from semabench.evaluation.accuracy.schema import EvalConfig, check_accuracy
from semabench.evaluation.measure import Measure

MEASURE = Measure(
    "accuracy",
    EvalConfig,
    check_accuracy,
    runner="semabench.evaluation.accuracy.run:evaluate",
    views="semabench.evaluation.accuracy.views:VIEW",
)
