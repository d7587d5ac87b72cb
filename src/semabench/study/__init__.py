"""Train every mixer on every procedural task, and test it as images grow."""

from semabench.evaluation.measure import Measure
from semabench.study.schema import StudyConfig, check_study

MEASURE = Measure(
    "study",
    StudyConfig,
    check_study,
    runner="semabench.study.run:measure_study",
    views="semabench.study.views:VIEW",
)
