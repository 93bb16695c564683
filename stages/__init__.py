"""Replications of four papers on hiding and recovering images: one folder a paper."""
