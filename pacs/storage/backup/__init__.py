"""A copy of an archive that is an archive itself, brought up to date while the archive is written to.

`new_records` finds what is new, `archive_copy` enters it; `copied_files` copies and verifies, also what a disk cannot
read all of (`unread`); `late_entries` puts right what follows from the order of commits.
"""

from pacs.storage.backup.archive_copy import BackedUp, backup

__all__ = ["BackedUp", "backup"]
