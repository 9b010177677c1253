"""DICOM objects that the shared data lacks, built with pydicom: every test that needs one takes it from here.

    from tests.objects import catalogue
    for built in catalogue.everything():
        archive.store(built.file)

The shared data has no encapsulated document or model, video, JPIP reference, Encapsulated Uncompressed image, Extended
Offset Table, fragments of length zero or odd length, several fragments for each of several frames without a table,
wrong offset tables, wrong or missing Number of Frames, retired JPEG processes but one, private Transfer Syntax, surface
segmentation, big endian image of 8 or 32 bits, deflated multi-frame, 64-bit float image, or long multi-frame.
Codestreams of every JPEG 2000 kind are in `tests/streams`.
"""
