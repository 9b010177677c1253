"""Read-only verification of an archive: every record and frame, the index in both directions, what should not be there.

`archive_check` walks everything, `series_check` one series, `index_check` the index; `expected` is what it has to say,
`findings` what is told, `strays` which files are nobody's.
"""

from pacs.storage.check.archive_check import check
from pacs.storage.check.findings import Finding, Severity

__all__ = ["Finding", "Severity", "check"]
