"""The archive on disk: records, Zarr arrays of frames, and the LMDB index over them.

From the ground: types, paths, the disk and its locks, in modules of this folder; `files`; `index`; `search` and
`recovery`; `commit`, `backup` and `check`.
"""
