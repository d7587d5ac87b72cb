"""Augmentation of whole batches on their device, with timm's operations and distributions.

A sample's draws are made on the CPU from (seed, epoch, sample) alone (`plan`), so that which
sample gets which operation is known without asking the device. The `operations` then run on groups
of samples, put together in `batch`. The folder loader's workers can run timm's own operations with
the same draws instead.
"""
