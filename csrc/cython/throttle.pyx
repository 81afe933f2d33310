# cython: cdivision=True
"""When a link may send its next frame: a rate in frames/s, and a cap in bits/s.

A Throttle has no thread and no clock: times go in, decisions come out. Times are ns of any
monotonic clock, always the same one.
"""

from libc.math cimport ceil, floor, isfinite
from libc.stdint cimport int64_t

# Times and spans are cut to this, so that no sum of two overflows.
cdef int64_t MOST_NS = 1 << 61


cdef inline int64_t _bounded(int64_t time_ns):
    return min(max(time_ns, -MOST_NS), MOST_NS)


cdef class Throttle:
    """Says when a frame may be sent, so that a fast source is thinned out to ``fps``.

    Due times follow each other by exactly 1/fps, whatever the delays of the frames sent: there
    is no drift. A frame that comes after its due time may go at once, and the due times lag
    behind by at most one interval; so a source that is slower than fps passes every frame,
    jitter of its arrivals included, and after a pause at most two frames follow closely.

    Parameters
    ----------
    fps : frames/s at most, above 0.
    max_bits_per_s : cap on the bits, 0 for none. After a message of n bytes nothing is sent for
        8 n / max_bits_per_s seconds, so that no window that begins with a message holds more
        than the cap. The rate falls; nothing waits in a queue.
    skip : frames to leave out after each one that is sent (see admits).

    Raises ValueError for parameters out of range.
    """

    cdef readonly double fps
    cdef readonly double max_bits_per_s
    cdef readonly int64_t skip
    cdef int64_t _interval_ns       # whole ns of 1/fps,
    cdef double _interval_fraction  # and what is left, below 1
    cdef bint _has_sent
    cdef int64_t _sent_ns           # when the last frame was sent
    cdef int64_t _due_ns            # when the grid has the next,
    cdef double _due_fraction
    cdef int64_t _cap_ns            # and when the cap lets it pass
    cdef object _admitted           # cnt0 of the frame that was admitted last
    cdef object _passed             # cnt0 of the one that was sent last

    def __init__(self, double fps=20.0, *, double max_bits_per_s=0.0, int64_t skip=0):
        if not (isfinite(fps) and fps > 0.0):
            raise ValueError(f"fps {fps}: expected frames/s above 0")
        if not (isfinite(max_bits_per_s) and max_bits_per_s >= 0.0):
            raise ValueError(f"max_bits_per_s {max_bits_per_s}: expected 0 (no cap) or more")
        if skip < 0:
            raise ValueError(f"skip {skip}: expected 0 or more")
        self.fps = fps
        self.max_bits_per_s = max_bits_per_s
        self.skip = skip
        cdef double interval_ns = min(1e9 / fps, <double>MOST_NS)
        self._interval_ns = <int64_t>floor(interval_ns)
        self._interval_fraction = interval_ns - floor(interval_ns)

    def __repr__(self) -> str:
        return (
            f"Throttle({self.fps:g}, max_bits_per_s={self.max_bits_per_s:g}, skip={self.skip})"
        )

    def wait_ns(self, int64_t now_ns) -> int:
        """Nanoseconds until a frame may be sent; 0: now.

        Never more than the interval, or what the cap asks after the last message.
        """
        if not self._has_sent:
            return 0
        now_ns = _bounded(now_ns)
        self._follow_step_back(now_ns)
        return max(max(self._next_due_ns(), self._cap_ns) - now_ns, <int64_t>0)

    def sent(self, int64_t now_ns, int64_t size_bytes) -> None:
        """To be told of each frame that is sent, now, in a message of that size.

        Raises ValueError for a negative size.
        """
        if size_bytes < 0:
            raise ValueError(f"size_bytes {size_bytes}: expected 0 or more")
        now_ns = _bounded(now_ns)
        if self._has_sent:
            self._follow_step_back(now_ns)
        if not self._has_sent or self._next_due_ns() > now_ns:
            self._set_due(now_ns)
        elif self._due_ns < now_ns - self._interval_ns:
            self._set_due(now_ns - self._interval_ns)
        self._due_ns += self._interval_ns
        self._due_fraction += self._interval_fraction
        if self._due_fraction >= 1.0:
            self._due_fraction -= 1.0
            self._due_ns += 1
        self._cap_ns = now_ns + self._span_ns(size_bytes)
        self._sent_ns = now_ns
        self._has_sent = True
        self._passed = self._admitted

    def admits(self, cnt0: int) -> bool:
        """Whether ``skip`` lets the frame of this counter pass.

        True when at least ``skip`` frames came after the one that was sent last; sent() takes
        the last frame admitted for the one sent. A counter that went back begins anew.
        """
        if self.skip and self._passed is not None:
            if 0 <= cnt0 - self._passed <= self.skip:
                return False
        self._admitted = cnt0
        return True

    cdef int64_t _next_due_ns(self):
        """The first whole ns at which the next frame is due."""
        return self._due_ns + (self._due_fraction > 0.0)

    cdef void _set_due(self, int64_t due_ns):
        self._due_ns = due_ns
        self._due_fraction = 0.0

    cdef void _follow_step_back(self, int64_t now_ns):
        """Moves all times by the step of a clock that shows less than when a frame was sent."""
        cdef int64_t step_ns = self._sent_ns - now_ns
        if step_ns > 0:
            self._sent_ns -= step_ns
            self._due_ns -= step_ns
            self._cap_ns -= step_ns

    cdef int64_t _span_ns(self, int64_t size_bytes):
        """How long the cap takes for a message; 0 without a cap."""
        if self.max_bits_per_s <= 0.0:
            return 0
        cdef double span_ns = ceil(8e9 * size_bytes / self.max_bits_per_s)
        return <int64_t>min(span_ns, <double>MOST_NS)
