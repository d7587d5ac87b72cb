"""What a model's frozen features tell of the classes: nearest neighbours, and a linear layer."""

from semabench.evaluation.measure import Measure
from semabench.evaluation.probe.schema import ProbeConfig, check_probe

MEASURE = Measure(
    "probe",
    ProbeConfig,
    check_probe,
    runner="semabench.evaluation.probe.run:probe",
    views="semabench.evaluation.probe.views:VIEW",
)
