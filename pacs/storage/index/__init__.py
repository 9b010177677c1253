"""The index: an LMDB environment that answers where everything is, and is made anew from the records at any time.

`environment` opens it, `views` are its transactions and `rows` what lies in them; `entries` makes entries of records,
`matching` the postings that a search looks up. `readers` is for commands that only read an archive.
"""

from pacs.storage.index.environment import Index
from pacs.storage.index.views import ReadView, WriteView

__all__ = ["Index", "ReadView", "WriteView"]
