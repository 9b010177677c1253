"""What is stored that matches: keys made into rules, rules into streams of studies, streams into pages of answers.

`compiling` makes the `rules`, with `wildcards` and `date_ranges`; `streams` intersects the postings that nominate
studies, `pages` tests what they nominate (`entry_rules`) and answers in order (`answer_order`). PS3.4 C.2.2.2
"""

from pacs.storage.search.answer_order import series_order
from pacs.storage.search.pages import Item, Page, Search, search
from pacs.storage.search.rules import Level, Match, supported, takes_lists

__all__ = ["Item", "Level", "Match", "Page", "Search", "search", "series_order", "supported", "takes_lists"]
