"""Augmentation of whole batches on their device, with timm's operations and distributions.

A sample's draws are made on the CPU from (seed, epoch, sample) alone (`plan`), so that which
sample gets which operation is known without asking the device. The operations then run on groups
of samples: table look-ups (`tables`), blends with a degenerate image (`blends`) and resampling
(`geometry`), put together in `layers`; `erase` works on normalised images. `pillow` runs timm's
own operations with the same draws in the folder loader's workers.
"""
