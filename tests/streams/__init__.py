"""Codestreams of every kind, built when asked for: what real files show too seldom.

`kinds.NAMES` lists what the encoders at hand make, `kinds.stream(name)` builds one; `rewriting` moves the packets of a
stream to where no encoder puts them; `invented` makes streams whose packets are sound and whose samples mean nothing.
"""
