"""The archive on disk: records, Zarr arrays of frames, and the LMDB index over them."""
