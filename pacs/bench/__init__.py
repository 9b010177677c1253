"""What a node carries: its disk, index and codecs measured one by one, then the whole of it over HTTP.

`run.py` measures, `model.py` is what comes out of it, `verdict.py` says in words what it means, `page.py` and
`summary.py` show it. Nothing here prints. `benchmarks/` beside the package is the project's own, against rivals.
"""
