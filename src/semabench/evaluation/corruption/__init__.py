"""How a model's errors grow as its images are corrupted: ImageNet-C."""

from semabench.evaluation.corruption.schema import CorruptionConfig, check_corruption
from semabench.evaluation.measure import Measure

MEASURE = Measure(
    "corruption",
    CorruptionConfig,
    check_corruption,
    runner="semabench.evaluation.corruption.run:measure_corruption",
    views="semabench.evaluation.corruption.views:VIEW",
)
