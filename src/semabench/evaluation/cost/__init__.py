"""Speed, memory, multiply-adds and energy of models on random images."""

from semabench.evaluation.cost.schema import CostConfig, check_cost
from semabench.evaluation.measure import Measure

MEASURE = Measure(
    "cost",
    CostConfig,
    check_cost,
    runner="semabench.evaluation.cost.run:measure_cost",
    views="semabench.evaluation.cost.views:VIEW",
)
