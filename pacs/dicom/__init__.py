"""What a DICOM file says: its structure, its attributes and text, the fragments of its frames. Knows no archive.

`part10` scans a file into spans and DICOM JSON, with `charset` and `dictionary`; `attributes` reads that JSON back.
`fragments` tells which fragments make which frame, by `marks`, how codestreams begin and end.
"""
