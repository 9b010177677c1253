# Letting other threads run while one walks a Data Set with the interpreter lock held. Inline only.

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef enum:
    # Elements and items between two chances for other threads: about a millisecond, some where each gives much JSON.
    BREATH = 1 << 14


cdef inline void breathe(size_t* steps) noexcept:
    """Now and then lets other threads run: a file of nothing but short elements takes seconds."""
    steps[0] += 1
    if steps[0] % BREATH == 0:
        with nogil:
            sched_yield()
