"""Talking to a DICOMweb server from the other side: finding files, uploading them by STOW-RS."""
