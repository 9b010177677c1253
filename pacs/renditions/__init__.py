"""Frames and files in another form than the stored one: which there are (`available`), each made once and kept."""

from pacs.renditions.made import Made
from pacs.renditions.renditions import Renditions, key_of, layers_key, made_by

__all__ = ["Made", "Renditions", "key_of", "layers_key", "made_by"]
