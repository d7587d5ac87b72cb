"""How rows tell options and execution: one spelling, so that equal measurements have equal keys."""

import torch

from semabench.training.device import device_label, layout_label, options_label


def test_options_are_sorted_and_those_not_given_left_out():
    given = {"window_size": 14, "backend": "reference", "shift": None, "rope": False}
    assert options_label(given) == "backend=reference,rope=False,window_size=14"
    assert options_label({}) == ""


def test_what_changes_the_speed_is_told_and_the_usual_is_not():
    assert layout_label(channels_last=True) == ""
    assert layout_label(channels_last=False) == "nchw"
    assert device_label(torch.device("cpu")) == "cpu"
