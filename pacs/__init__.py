"""A DICOMweb archive whose pixel data on disk is a Zarr hierarchy of HTJ2K codestreams."""

__version__ = "0.1.0"
