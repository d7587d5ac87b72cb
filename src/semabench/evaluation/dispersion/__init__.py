"""How attention weights disperse as n grows: on random inputs, or in a trained model."""

from semabench.evaluation.dispersion.schema import DispersionConfig, check_dispersion
from semabench.evaluation.measure import Measure

MEASURE = Measure(
    "dispersion",
    DispersionConfig,
    check_dispersion,
    runner="semabench.evaluation.dispersion.run:measure_dispersion",
    views="semabench.evaluation.dispersion.views:VIEW",
)
