"""The way into the archive: a batch of instances becomes durable and visible, or leaves nothing.

`engine` is an open archive with the thread that commits, `committer` the order of a batch and what a crash at each step
leaves, `placement` where its chunks and records go, `room` how much more the disk takes.
"""

from pacs.storage.commit.committer import Committer, Outcome, Status
from pacs.storage.commit.engine import Engine

__all__ = ["Committer", "Engine", "Outcome", "Status"]
