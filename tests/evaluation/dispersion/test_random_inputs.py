"""Random inputs: bounded, repeatable, and dispersing as the theorem says."""

import math

import pytest
import torch

from semabench.errors import SemabenchError
from semabench.evaluation.dispersion import MEASURE
from semabench.evaluation.dispersion.random_inputs import measure_job, plan_jobs, random_inputs
from semabench.evaluation.dispersion.schema import DispersionConfig
from semabench.evaluation.dispersion.statistics import sample_queries

CPU = torch.device("cpu")


def measured(**changes):
    config = DispersionConfig(**{"tokens": [64, 1024], "seeds": [0], "queries": 64, **changes})
    MEASURE.check(config)
    jobs = plan_jobs(config, CPU)
    assert len({job.row.key for job in jobs}) == len(jobs)
    rows = [measure_job(job, config, CPU) for job in jobs]
    assert [row.key for row in rows] == [job.row.key for job in jobs]
    return {(row.model, row.tokens): row for row in rows}


def test_inputs_are_bounded_repeatable_and_differ_by_seed():
    config = DispersionConfig(tokens=[25], bound=0.5, dim=4)
    q, k, v = random_inputs(config, 25, seed=1)
    assert q.shape == k.shape == v.shape == (1, 5, 5, 1, 4)
    assert max(q.abs().max(), k.abs().max()) <= 0.5
    assert v.min() >= 0
    assert all(map(torch.equal, (q, k, v), random_inputs(config, 25, seed=1)))
    assert not torch.equal(q, random_inputs(config, 25, seed=2)[0])


def test_all_but_the_window_disperse():
    rows = measured()
    for name in ("softmax", "linear", "focused", "mila"):
        few, many = rows[name, 64], rows[name, 1024]
        assert many.n_max_weight < 1.6 * few.n_max_weight
        assert many.effective_keys > 12 * few.effective_keys
        assert (few.keys, many.keys) == (64, 1024)
    few, many = rows["window", 64], rows["window", 1024]
    assert many.n_max_weight > 4 * few.n_max_weight
    assert many.effective_keys < 49
    assert (many.keys, many.options) == (49, "window_size=7")
    assert rows["softmax", 1024].mean_distance == rows["softmax", 1024].softmax_distance
    assert many.softmax_distance == pytest.approx(rows["softmax", 1024].softmax_distance)
    assert rows["linear", 64].softmax_distance is None


def test_weights_lie_within_the_bounds_of_the_box():
    """M/m over all reachable logits: exp(2 b² √d) of softmax, (1+b)² e^2b of ELU + 1."""
    rows = measured(bound=0.7, dim=8, kernels=["softmax", "linear", "mila"])
    box = {"softmax": math.exp(2 * 0.49 * 8**0.5), "linear": 1.7**2 * math.exp(1.4)}
    box["mila"] = box["linear"]  # a rotation lengthens no product beyond |q||k|
    for (name, _), row in rows.items():
        assert row.n_max_weight <= row.n_max_weight_highest <= row.weight_bound <= box[name]
        if name != "mila":
            assert row.n_min_weight >= 1 / row.weight_bound
            assert row.weight_sum == pytest.approx(1)
    assert rows["mila", 64].weight_sum < 0.99


def test_values_that_follow_the_keys_do_not_average_away():
    """Each weight falls as 1/n, yet softmax of v = k stays away from the mean."""
    kept = {
        values: [
            measured(values=values, bound=2.0, kernels=["softmax"])["softmax", n].mean_distance
            for n in (64, 1024)
        ]
        for values in ("independent", "keys")
    }
    assert kept["independent"][1] < 0.4 * kept["independent"][0]
    assert kept["keys"][1] > 0.7 * kept["keys"][0]


def test_a_sample_of_queries_has_no_repetition():
    rows = sample_queries(100, 30, 0)
    assert len(set(rows.tolist())) == 30
    assert sample_queries(5, 30, 0).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": []}, "no tokens"),
        ({"tokens": [50]}, "squares of at least 4, not 50: 49 is near"),
        ({"tokens": [-3]}, "squares"),
        ({"kernels": ["softmx"]}, "Did you mean 'softmax'"),
        ({"kernels": ["mean"]}, "kernels=mean is not known"),
        ({"values": "key"}, "Did you mean 'keys'"),
        ({"bound": 0.0}, "bound must be above 0"),
        ({"bound": math.inf}, "bound must be a finite"),
        ({"dim": 6}, "multiple of 4"),
        ({"queries": 0}, "queries must be at least 1"),
        ({"seeds": []}, "no seeds"),
        ({"seeds": [-1]}, "seeds must be at least 0"),
        ({"precision": "bf16-mixed"}, "leave precision out"),
        ({"resolutions": [64]}, "give checkpoint=RUN"),
        ({"checkpoint": "RUN"}, "no resolutions"),
        ({"checkpoint": "RUN", "resolutions": [16]}, "at least 32 pixels"),
        ({"checkpoint": "RUN", "resolutions": [64], "weights": "emma"}, "Did you mean 'ema'"),
        ({"checkpoint": "RUN", "resolutions": [64], "images": 0}, "images must be"),
    ],
)
def test_wrong_values_are_one_line(changes, message):
    with pytest.raises(SemabenchError, match=message) as error:
        MEASURE.check(DispersionConfig(**{"tokens": [49], **changes}))
    assert "\n" not in str(error.value)
