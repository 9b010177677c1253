"""What lies on the disk, but for the index: logs of records, shards of frames, what makes them a Zarr hierarchy.

`records` and `walking` read and write logs, `shard` and `frames` the arrays of a series, `staging` those that are not
committed yet; `hierarchy` and `zarr_metadata` say what Zarr is told, `last_commit` what the newest batch changes.
"""
