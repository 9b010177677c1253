"""DICOMweb (PS3.18) over aiohttp: QIDO-RS, WADO-RS, STOW-RS."""
