"""Readers of the data sets, one file each, in their official layouts."""
