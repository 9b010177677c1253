"""Clients of a DICOMweb server."""
