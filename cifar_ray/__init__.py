"""Label a store of images, once and whole, into Parquet: on a laptop or on a Ray cluster."""

__version__ = "0.1.0"
