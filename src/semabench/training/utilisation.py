"""How much of a device's arithmetic a model uses: MFU, after PaLM's appendix B (2204.02311).

Lightning's own table (``lightning.fabric.utilities.throughput``, 2.6) is not used: it has twice the
dense figures for H200 and H100 NVL, those of the vector units for A40, no B200, takes an L40S for
an L4, and does not know the device that torch calls "NVIDIA H200".
"""

from __future__ import annotations

import re

#: Dense TFLOP/s of 16-bit matrix products with 32-bit sums, by words of torch's device name; the
#: first entry counts whose words are all there. NVIDIA's data sheets mostly have the figures "with
#: sparsity", twice these: H200 1,979 (NVL 1,671), H100 1,979 (PCIe 1,513, NVL 1,671 a GPU),
#: HGX B200 4,500, GB200 5,000 a GPU, A100 624, A40 299.4, A10 250, L40S 733, L40 362.1, L4 242.
#: torchtitan's ``get_peak_flops`` has the same for A100, H100, H200, B200 and L40S, rounded. A10G
#: is left out: sources say 62.5, 70 and 125.
PEAK_TFLOPS: tuple[tuple[str, float], ...] = (
    ("GB200", 2500.0),
    ("B200", 2250.0),
    ("GH200", 989.5),
    ("H200 NVL", 835.5),
    ("H200", 989.5),
    ("H100 PCIe", 756.5),
    ("H100 NVL", 835.5),
    ("H100", 989.5),
    ("A100", 312.0),
    ("A40", 149.7),
    ("A10", 125.0),
    ("L40S", 362.05),
    ("L40", 181.05),
    ("L4", 121.0),
)
_SIXTEEN_BITS = ("bf16-mixed", "16-mixed")


def peak_flops(device_name: str, precision: str) -> float | None:
    """Return FLOP/s of a whole device at a precision of Lightning's; None where it is not known.

    It is for 16 bits alone: in ``32-true`` it depends on whether TF32 is allowed. Of a slice (MIG)
    nothing is known: its name is that of the device it is a part of.
    """
    words = set(re.split(r"[\s-]+", device_name))
    if precision not in _SIXTEEN_BITS or "MIG" in words:
        return None
    for name, tera in PEAK_TFLOPS:
        if words.issuperset(name.split()):
            return tera * 1e12
    return None


def flops_per_image(gmacs: float, passes: float) -> float:
    """Return the FLOPs of one picture in training: two for each multiply-add of each pass.

    Args:
        gmacs: of one forward pass, as ``count_gmacs`` counts it.
        passes: 3 with the backward pass, which costs twice the forward one; a teacher adds 1.
    """
    return 2e9 * gmacs * passes
