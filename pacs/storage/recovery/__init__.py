"""Index and files in step again: after a crash, a power loss, a backup that was cut short, or without any index.

`recovery` is what opening an archive and a batch after another process's death do, `reindex` the command. What a crash
left goes by `cut_short`, `set_aside` and `copying`; `settling` writes what Zarr is told of arrays.
"""
