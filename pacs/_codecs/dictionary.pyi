from collections.abc import Callable, Iterable, Mapping

class Dictionary:
    def __init__(
        self,
        entries: Iterable[tuple[int, str]],
        repeaters: Iterable[tuple[int, int, str]],
        private: Callable[[bytes], Mapping[int, str] | None],
    ) -> None: ...
