"""Counters and gauges on Ray's metrics endpoint, beside Ray's own; the driver alone writes them.

Ray exports `cifar_x` as `ray_cifar_x`, counters with `_total` behind.
"""
