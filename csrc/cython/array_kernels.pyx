# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""What scripts and screens do with a frame: bin it, measure it, scale it for a display.

Frames are arrays [y, x] of the real types of a stream, in any byte order and memory layout;
those that are C-contiguous are read in place, others are copied first. No kernel holds Python's
lock. All raise TypeError for pixels that are no real numbers, ValueError for what is no frame.
"""

# What is noexcept below runs without Python's lock and calls nothing of Python, so it can raise
# nothing; its callers would else take the lock after each pixel to look for an error.

from typing import NamedTuple

import numpy as np

from libc.math cimport INFINITY, exp, floor, isfinite, log, sqrt, sqrtf
from libc.stdint cimport (
    int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t,
)
from libc.string cimport memcpy, memset

ctypedef fused Pixel:
    uint8_t
    int8_t
    uint16_t
    int16_t
    uint32_t
    int32_t
    uint64_t
    int64_t
    float
    double

# Few values, whose sums and squares add up without rounding.
ctypedef fused SmallPixel:
    uint8_t
    int8_t
    uint16_t
    int16_t

ctypedef fused WordPixel:
    uint32_t
    int32_t
    float

ctypedef fused LargePixel:
    uint32_t
    int32_t
    uint64_t
    int64_t
    float
    double

# What the pixels of a bin are added up in.
ctypedef fused Sum:
    uint32_t
    int32_t
    float
    double

# What display levels are computed in.
ctypedef fused Real:
    float
    double

_SUM_TYPES = {
    np.dtype(pixel): np.dtype(total)
    for pixel, total in [
        ("uint8", "uint32"), ("uint16", "uint32"), ("int8", "int32"), ("int16", "int32"),
        ("float32", "float32"),
    ]
}
_SMALL_TYPES = [np.dtype(kind) for kind in ("uint8", "int8", "uint16", "int16")]
_WORD_TYPES = [np.dtype(kind) for kind in ("uint32", "int32", "float32")]

cdef enum:
    LANES = 64           # sums side by side, so many that the compiler vectorises them
    BLOCK = 16384        # pixels that are summed up at a time: they stay in the cache,
                         # and 2**31 holds the sum of so many 16-bit numbers
    TABLE = 65536        # values of 16 bits
    TABLES = 4           # histograms side by side: equal neighbours do not wait for each other
    LEVELS = 256
    LOG_STEPS = 10241    # values of the first 10 bits of a mantissa, between 1 and 1024

cdef int LINEAR = 0
cdef int SQRT = 1
cdef int LOG = 2
_STRETCHES = {"linear": LINEAR, "sqrt": SQRT, "log": LOG}

# The logarithmic stretch shows log(1 + 1000 t), with t from 0 to 1 between the limits.
cdef double LOG_DEPTH = 1000.0

# Beyond it, what is computed from limits does not fit float32.
_MOST_IN_FLOAT32 = 1e30


class FrameStatistics(NamedTuple):
    """Of the finite pixels of a frame: how many they are, their least and greatest value, mean
    and standard deviation (of the population). All nan but `finite` where there are none."""

    minimum: float
    maximum: float
    mean: float
    std: float
    finite: int


def _checked(frame):
    """The frame as the kernels take it."""
    frame = np.asarray(frame)
    if frame.dtype.kind not in "iuf" or frame.dtype.itemsize > 8:
        raise TypeError(f"pixels of type {frame.dtype}: expected real numbers of up to 64 bits")
    if frame.ndim != 2 or frame.size == 0:
        raise ValueError(f"an array of shape {frame.shape}: expected a frame [y, x]")
    if frame.dtype.kind == "f" and frame.dtype.itemsize == 2:
        return np.ascontiguousarray(frame, np.float32)
    return np.ascontiguousarray(frame, frame.dtype.newbyteorder("="))


cdef inline bint _is_finite(Pixel pixel) noexcept nogil:
    if Pixel is float or Pixel is double:
        return pixel - pixel == 0
    else:
        return True


# -- binning ----------------------------------------------------------------------------------


def bin_frame(frame, factor_y: int, factor_x: int, *, mean: bool = False):
    """Adds up bins of factor_y x factor_x pixels; rows and columns that fill no bin are cut.

    Returns [ny // factor_y, nx // factor_x]: sums as uint32 of unsigned pixels of 8 or 16 bits,
    as int32 of such signed ones, as float32 of float16 and float32, else as float64; mean:
    means instead, as float32 (as float64 where the sums are). Raises ValueError where a factor
    does not fit the frame or a sum might not fit its type.
    """
    frame = _checked(frame)
    ny, nx = frame.shape
    if not (1 <= factor_y <= ny and 1 <= factor_x <= nx):
        raise ValueError(
            f"bins of {factor_y} x {factor_x} pixels: expected 1 x 1 to {ny} x {nx}, "
            "the size of the frame"
        )
    kind = _SUM_TYPES.get(frame.dtype, np.dtype(np.float64))
    if kind.kind != "f":
        most = max(np.iinfo(frame.dtype).max, -int(np.iinfo(frame.dtype).min))
        room = np.iinfo(kind).max // most
        if factor_y * factor_x > room:
            raise ValueError(
                f"bins of {factor_y} x {factor_x} pixels of {frame.dtype}: their sums may not "
                f"fit {kind}; take frame.astype(float), or bins of at most {room} pixels"
            )
    out = np.empty((ny // factor_y, nx // factor_x), kind)
    _bin(frame, out, np.empty(nx, kind), factor_y, factor_x)
    if not mean:
        return out
    means = np.float64 if kind == np.float64 else np.float32
    return np.multiply(out, 1.0 / (factor_y * factor_x), dtype=means, casting="unsafe")


def _bin(const Pixel[:, ::1] frame, out, columns, Py_ssize_t factor_y, Py_ssize_t factor_x):
    if Pixel is uint8_t or Pixel is uint16_t:
        _bin_rows[Pixel, uint32_t](frame, out, columns, factor_y, factor_x)
    elif Pixel is int8_t or Pixel is int16_t:
        _bin_rows[Pixel, int32_t](frame, out, columns, factor_y, factor_x)
    elif Pixel is float:
        _bin_rows[Pixel, float](frame, out, columns, factor_y, factor_x)
    else:
        _bin_rows[Pixel, double](frame, out, columns, factor_y, factor_x)


cdef void _bin_rows(
    const Pixel[:, ::1] frame, Sum[:, ::1] out, Sum[::1] columns,
    Py_ssize_t factor_y, Py_ssize_t factor_x,
):
    cdef Py_ssize_t nx = out.shape[1] * factor_x
    cdef Py_ssize_t y, k
    with nogil:
        for y in range(out.shape[0]):
            _copy_row(&frame[y * factor_y, 0], &columns[0], nx)
            for k in range(1, factor_y):
                _add_row(&frame[y * factor_y + k, 0], &columns[0], nx)
            # A factor that the compiler knows is several times as fast.
            if factor_x == 2:
                _add_columns(&columns[0], &out[y, 0], out.shape[1], 2)
            elif factor_x == 4:
                _add_columns(&columns[0], &out[y, 0], out.shape[1], 4)
            else:
                _add_columns(&columns[0], &out[y, 0], out.shape[1], factor_x)


cdef inline void _copy_row(const Pixel* row, Sum* columns, Py_ssize_t nx) noexcept nogil:
    cdef Py_ssize_t x
    for x in range(nx):
        columns[x] = <Sum>row[x]


cdef inline void _add_row(const Pixel* row, Sum* columns, Py_ssize_t nx) noexcept nogil:
    cdef Py_ssize_t x
    for x in range(nx):
        columns[x] += <Sum>row[x]


cdef inline void _add_columns(
    const Sum* columns, Sum* out, Py_ssize_t count, Py_ssize_t factor
) noexcept nogil:
    cdef Py_ssize_t x, k
    cdef Sum total
    for x in range(count):
        total = columns[x * factor]
        for k in range(1, factor):
            total += columns[x * factor + k]
        out[x] = total


# -- statistics -------------------------------------------------------------------------------


def statistics(frame) -> FrameStatistics:
    """The statistics of the finite pixels, in one pass; exact for pixels of 8 and 16 bits.

    Deviations are squared in float64, which has room for those from 1e-150 to 1e150.
    """
    frame = _checked(frame)
    if frame.dtype in _SMALL_TYPES:
        return _small_statistics(frame.reshape(-1))
    return _large_statistics(frame.reshape(-1))


def _small_statistics(const SmallPixel[::1] pixels):
    cdef Py_ssize_t count = pixels.shape[0]
    cdef Py_ssize_t block, begin
    cdef SmallPixel least = pixels[0]
    cdef SmallPixel greatest = pixels[0]
    cdef int64_t total = 0
    cdef uint64_t squares = 0
    with nogil:
        for block in range((count + BLOCK - 1) // BLOCK):
            begin = block * BLOCK
            _add_small_block(
                &pixels[begin], min(<Py_ssize_t>BLOCK, count - begin),
                &least, &greatest, &total, &squares,
            )
    n, total_exact = int(count), int(total)
    variance = (n * int(squares) - total_exact * total_exact) / (n * n)
    return FrameStatistics(
        float(least), float(greatest), total_exact / n, sqrt(variance), n
    )


cdef inline void _add_small_block(
    const SmallPixel* pixels, Py_ssize_t count,
    SmallPixel* least, SmallPixel* greatest, int64_t* total, uint64_t* squares,
) noexcept nogil:
    cdef SmallPixel low = least[0]
    cdef SmallPixel high = greatest[0]
    cdef SmallPixel pixel
    cdef int32_t block_total = 0
    cdef uint64_t block_squares = 0
    cdef Py_ssize_t k
    for k in range(count):
        pixel = pixels[k]
        low = pixel if pixel < low else low
        high = pixel if pixel > high else high
        block_total += <int32_t>pixel
        if SmallPixel is uint8_t or SmallPixel is uint16_t:
            block_squares += <uint32_t>pixel * <uint32_t>pixel
        else:
            block_squares += <uint32_t>(<int32_t>pixel * <int32_t>pixel)
    least[0] = low
    greatest[0] = high
    total[0] += block_total
    squares[0] += block_squares


cdef struct Moments:
    int64_t count
    double mean
    double squares  # of the differences from the mean


def _large_statistics(const LargePixel[::1] pixels):
    cdef Py_ssize_t count = pixels.shape[0]
    cdef Py_ssize_t first = 0
    cdef Py_ssize_t size
    cdef LargePixel least, greatest, pivot
    cdef Moments all
    all.count = 0
    all.mean = 0.0
    all.squares = 0.0
    with nogil:
        while first < count and not _is_finite(pixels[first]):
            first += 1
        if first < count:
            least = greatest = pivot = pixels[first]
        while first < count:
            size = min(<Py_ssize_t>BLOCK, count - first)
            _join(&all, _block_moments(&pixels[first], size, pivot, &least, &greatest))
            # Near the mean, differences are small and their squares exact enough.
            pivot = min(max(<LargePixel>all.mean, least), greatest)
            first += size
    if all.count == 0:
        nan = float("nan")
        return FrameStatistics(nan, nan, nan, nan, 0)
    return FrameStatistics(
        float(least), float(greatest), all.mean, sqrt(all.squares / all.count), int(all.count)
    )


cdef inline void _join(Moments* all, Moments block) noexcept nogil:
    """Adds a block's moments to those of all before (Chan, Golub & LeVeque 1983)."""
    if block.count == 0:
        return
    cdef double n = <double>all.count + <double>block.count
    cdef double difference = block.mean - all.mean
    all.mean += difference * (block.count / n)
    all.squares += block.squares + difference * difference * (all.count * (block.count / n))
    all.count += block.count


cdef inline Moments _block_moments(
    const LargePixel* pixels, Py_ssize_t count, LargePixel pivot,
    LargePixel* least, LargePixel* greatest,
) noexcept nogil:
    """The moments of a block, from differences to the pivot, which stands in for pixels that
    are not finite: it lies between least and greatest."""
    cdef double totals[LANES]
    cdef double squares[LANES]
    cdef LargePixel lows[LANES]
    cdef LargePixel highs[LANES]
    cdef int64_t counts[LANES]
    cdef Moments found
    cdef LargePixel pixel
    cdef double total = 0.0
    cdef double square = 0.0
    cdef double difference
    cdef bint good
    cdef Py_ssize_t group, lane, k
    cdef Py_ssize_t groups = count // LANES
    for lane in range(LANES):
        totals[lane] = 0.0
        squares[lane] = 0.0
        lows[lane] = least[0]
        highs[lane] = greatest[0]
        counts[lane] = 0
    for group in range(groups):
        for lane in range(LANES):
            pixel = pixels[group * LANES + lane]
            good = _is_finite(pixel)
            pixel = pixel if good else pivot
            difference = <double>pixel - <double>pivot
            totals[lane] += difference
            squares[lane] += difference * difference
            lows[lane] = pixel if pixel < lows[lane] else lows[lane]
            highs[lane] = pixel if pixel > highs[lane] else highs[lane]
            counts[lane] += good
    for k in range(groups * LANES, count):
        if _is_finite(pixels[k]):
            difference = <double>pixels[k] - <double>pivot
            total += difference
            square += difference * difference
            lows[0] = min(pixels[k], lows[0])
            highs[0] = max(pixels[k], highs[0])
            counts[0] += 1
    found.count = 0
    for lane in range(LANES):
        total += totals[lane]
        square += squares[lane]
        least[0] = min(least[0], lows[lane])
        greatest[0] = max(greatest[0], highs[lane])
        found.count += counts[lane]
    found.mean = <double>pivot
    found.squares = square
    if found.count:
        found.mean += total / found.count
        found.squares = max(square - total * (total / found.count), 0.0)
    return found


# -- percentiles ------------------------------------------------------------------------------


def percentile_limits(frame, low: float = 0.5, high: float = 99.5) -> tuple[float, float]:
    """Two percentiles of the finite pixels, as numpy.percentile gives them: display limits.

    low, high : per cent, 0 to 100. Pixels of up to 32 bits are counted, not sorted. Raises
    ValueError for percentiles out of range, and where no pixel is finite.
    """
    if not 0.0 <= low <= high <= 100.0:
        raise ValueError(f"percentiles {low:g} and {high:g}: expected 0 <= low <= high <= 100")
    frame = _checked(frame)
    if frame.dtype in _SMALL_TYPES:
        return _small_percentiles(frame.reshape(-1), low, high)
    if frame.dtype in _WORD_TYPES:
        return _word_percentiles(frame.reshape(-1), low, high)
    finite = frame[np.isfinite(frame)]
    _check_any(finite.size)
    limits = np.percentile(finite, (low, high), overwrite_input=True)
    return float(limits[0]), float(limits[1])


def _check_any(count):
    if count == 0:
        raise ValueError("no pixel of the frame is finite: there are no percentiles")


cdef struct Ranks:
    # Of the pixels in order, those that a percentile lies between.
    int64_t rank[4]
    double weight[2]


cdef Ranks _ranks(int64_t count, double low, double high) noexcept nogil:
    """For two percentiles, ranks 0 and 1 for the first, 2 and 3 for the second."""
    cdef Ranks ranks
    cdef double place
    cdef int side
    for side in range(2):
        place = (low if side == 0 else high) / 100.0 * (count - 1)
        ranks.rank[2 * side] = <int64_t>floor(place)
        ranks.rank[2 * side + 1] = min(ranks.rank[2 * side] + 1, count - 1)
        ranks.weight[side] = place - floor(place)
    return ranks


cdef double _between(double below, double above, double weight) noexcept nogil:
    return below + (above - below) * weight


cdef void _merge_tables(uint32_t[:, ::1] tables) noexcept nogil:
    cdef Py_ssize_t k, table
    for table in range(1, tables.shape[0]):
        for k in range(tables.shape[1]):
            tables[0, k] += tables[table, k]


cdef uint32_t _bin_of_rank(const uint32_t* counts, int64_t* rank) noexcept nogil:
    """The first bin up to which more than `rank` are counted; leaves the rank within it."""
    cdef uint32_t found = 0
    while rank[0] >= counts[found]:
        rank[0] -= counts[found]
        found += 1
    return found


def _small_percentiles(const SmallPixel[::1] pixels, double low, double high):
    cdef Py_ssize_t count = pixels.shape[0]
    cdef Ranks ranks = _ranks(count, low, high)
    cdef uint32_t[:, ::1] tables = np.zeros((TABLES, 1 << (8 * sizeof(SmallPixel))), np.uint32)
    # Signed values come in their order when the least is counted first.
    cdef int64_t first = 0
    if SmallPixel is int8_t or SmallPixel is int16_t:
        first = -(tables.shape[1] // 2)
    cdef double values[4]
    cdef int k
    with nogil:
        _count_values(
            &pixels[0], count, &tables[0, 0] - first, &tables[1, 0] - first,
            &tables[2, 0] - first, &tables[3, 0] - first,
        )
        _merge_tables(tables)
        for k in range(4):
            values[k] = <double>(first + _bin_of_rank(&tables[0, 0], &ranks.rank[k]))
    return (
        _between(values[0], values[1], ranks.weight[0]),
        _between(values[2], values[3], ranks.weight[1]),
    )


cdef void _count_values(
    const SmallPixel* pixels, Py_ssize_t count,
    uint32_t* first, uint32_t* second, uint32_t* third, uint32_t* fourth,
) noexcept nogil:
    cdef Py_ssize_t group, k
    cdef Py_ssize_t groups = count // 4
    for group in range(groups):
        first[pixels[4 * group]] += 1
        second[pixels[4 * group + 1]] += 1
        third[pixels[4 * group + 2]] += 1
        fourth[pixels[4 * group + 3]] += 1
    for k in range(4 * groups, count):
        first[pixels[k]] += 1


def _word_percentiles(const WordPixel[::1] pixels, double low, double high):
    """Counts the upper halves of the pixels, then the lower halves in the bins of interest."""
    cdef Py_ssize_t count = pixels.shape[0]
    cdef Ranks ranks
    cdef uint32_t[:, ::1] tables = np.zeros((TABLES, TABLE), np.uint32)
    cdef uint8_t[::1] places = np.zeros(TABLE, np.uint8)
    # Table 0 is for all that is in none of the bins.
    cdef uint32_t[:, ::1] lower = np.zeros((5, TABLE), np.uint32)
    cdef uint32_t upper[4]
    cdef double values[4]
    cdef int64_t finite
    cdef int k
    with nogil:
        finite = _count_upper(
            &pixels[0], count, &tables[0, 0], &tables[1, 0], &tables[2, 0], &tables[3, 0]
        )
        if finite:
            _merge_tables(tables)
            ranks = _ranks(finite, low, high)
            for k in range(4):
                upper[k] = _bin_of_rank(&tables[0, 0], &ranks.rank[k])
                places[upper[k]] = k + 1
            _count_lower(&pixels[0], count, &places[0], &lower[0, 0])
            for k in range(4):
                values[k] = _value_of_key[WordPixel](
                    upper[k] << 16
                    | _bin_of_rank(&lower[places[upper[k]], 0], &ranks.rank[k]),
                    pixels[0],
                )
    _check_any(finite)
    return (
        _between(values[0], values[1], ranks.weight[0]),
        _between(values[2], values[3], ranks.weight[1]),
    )


cdef inline uint32_t _key(WordPixel pixel) noexcept nogil:
    """An unsigned number in the order of the pixels."""
    cdef uint32_t bits
    if WordPixel is uint32_t:
        return pixel
    elif WordPixel is int32_t:
        return <uint32_t>pixel ^ 0x80000000u
    else:
        memcpy(&bits, &pixel, 4)
        return bits ^ (0xffffffffu if bits >> 31 else 0x80000000u)


cdef inline double _value_of_key(uint32_t key, WordPixel like) noexcept nogil:
    """The pixel of a key."""
    cdef float value
    if WordPixel is uint32_t:
        return <double>key
    elif WordPixel is int32_t:
        return <double><int32_t>(key ^ 0x80000000u)
    else:
        key ^= 0x80000000u if key >> 31 else 0xffffffffu
        memcpy(&value, &key, 4)
        return value


cdef int64_t _count_upper(
    const WordPixel* pixels, Py_ssize_t count,
    uint32_t* first, uint32_t* second, uint32_t* third, uint32_t* fourth,
) noexcept nogil:
    """Counts the upper halves of the keys of finite pixels; returns how many these are."""
    cdef Py_ssize_t group, k
    cdef Py_ssize_t groups = count // 4
    cdef int64_t finite = 0
    for group in range(groups):
        finite += _count_one(pixels[4 * group], first)
        finite += _count_one(pixels[4 * group + 1], second)
        finite += _count_one(pixels[4 * group + 2], third)
        finite += _count_one(pixels[4 * group + 3], fourth)
    for k in range(4 * groups, count):
        finite += _count_one(pixels[k], first)
    return finite


cdef inline int _count_one(WordPixel pixel, uint32_t* counts) noexcept nogil:
    cdef bint good = _is_finite(pixel)
    counts[_key(pixel) >> 16] += good
    return good


cdef void _count_lower(
    const WordPixel* pixels, Py_ssize_t count, const uint8_t* places, uint32_t* tables
) noexcept nogil:
    """Counts the lower halves of the keys whose upper half has a place, in its table."""
    cdef Py_ssize_t k
    cdef uint32_t key
    for k in range(count):
        key = _key(pixels[k])
        tables[(<uint32_t>places[key >> 16] << 16) + (key & 0xffff)] += 1


# -- display ----------------------------------------------------------------------------------


def scale_for_display(frame, low: float, high: float, *, stretch: str = "linear"):
    """Grey levels, uint8 [y, x]: 0 for pixels up to low and those that are no number, 255 from
    high on.

    Between them, with t from 0 to 1, 255 times t ("linear"), its square root ("sqrt"), or
    log(1 + 1000 t) / log(1001) ("log"), to the nearest level. Where low is high, all above it
    is 255. Raises ValueError for limits that are not finite or in the wrong order, and for
    other stretches.
    """
    if stretch not in _STRETCHES:
        raise ValueError(f"stretch {stretch!r}: expected one of {', '.join(_STRETCHES)}")
    if not (isfinite(low) and isfinite(high) and isfinite(high - low) and low <= high):
        raise ValueError(f"limits {low:g} and {high:g}: expected finite numbers, low <= high")
    frame = _checked(frame)
    if max(abs(low), abs(high)) > _MOST_IN_FLOAT32:
        frame = frame.astype(np.float64)
    out = np.empty(frame.shape, np.uint8)
    display = _small_display if frame.dtype in _SMALL_TYPES else _large_display
    display(frame.reshape(-1), out.reshape(-1), low, high, _STRETCHES[stretch])
    return out


def _small_display(
    const SmallPixel[::1] pixels, uint8_t[::1] out, double low, double high, int stretch
):
    """Looks the levels up in a table of all values."""
    cdef int64_t first = 0
    cdef int64_t size = 1 << (8 * sizeof(SmallPixel))
    if SmallPixel is int8_t or SmallPixel is int16_t:
        first = -(size // 2)
    cdef double[::1] values = np.arange(first, first + size, dtype=np.float64)
    cdef uint8_t[::1] levels = np.empty(size, np.uint8)
    with nogil:
        _stretched[double, double](&values[0], &levels[0], size, low, high - low, stretch)
        _look_up(&pixels[0], &out[0], pixels.shape[0], &levels[0] - first)


cdef inline void _look_up(
    const SmallPixel* pixels, uint8_t* out, Py_ssize_t count, const uint8_t* levels
) noexcept nogil:
    cdef Py_ssize_t group, k
    cdef Py_ssize_t groups = count // 4
    cdef uint8_t four[4]
    for group in range(groups):  # one store for four pixels
        four[0] = levels[pixels[4 * group]]
        four[1] = levels[pixels[4 * group + 1]]
        four[2] = levels[pixels[4 * group + 2]]
        four[3] = levels[pixels[4 * group + 3]]
        memcpy(&out[4 * group], four, 4)
    for k in range(4 * groups, count):
        out[k] = levels[pixels[k]]


def _large_display(
    const LargePixel[::1] pixels, uint8_t[::1] out, double low, double high, int stretch
):
    cdef Py_ssize_t count = pixels.shape[0]
    with nogil:
        if LargePixel is float:
            _stretched[LargePixel, float](&pixels[0], &out[0], count, low, high - low, stretch)
        else:
            _stretched[LargePixel, double](
                &pixels[0], &out[0], count, low, high - low, stretch
            )


cdef inline void _stretched(
    const LargePixel* pixels, uint8_t* out, Py_ssize_t count, Real low, double span, int stretch
) noexcept nogil:
    cdef double most = LEVELS - 1
    if stretch == LINEAR:
        _linear(pixels, out, count, low, <Real>(most / span))
    elif stretch == SQRT:
        _square_root(pixels, out, count, low, <Real>(most * most / span))
    else:
        _logarithm(pixels, out, count, low, <Real>(1.0 / span))


cdef inline uint8_t _level(Real value) noexcept nogil:
    """The nearest level; 0 for what is no number."""
    cdef Real most = LEVELS - 1
    value = value if value > 0 else 0
    value = value if value < most else most
    return <uint8_t><int32_t>(value + <Real>0.5)


cdef inline void _linear(
    const LargePixel* pixels, uint8_t* out, Py_ssize_t count, Real low, Real scale
) noexcept nogil:
    cdef Py_ssize_t k
    for k in range(count):
        out[k] = _level[Real]((<Real>pixels[k] - low) * scale)


cdef inline void _square_root(
    const LargePixel* pixels, uint8_t* out, Py_ssize_t count, Real low, Real scale
) noexcept nogil:
    cdef Py_ssize_t k
    for k in range(count):
        if Real is float:
            out[k] = _level[Real](sqrtf((pixels[k] - low) * scale))
        else:
            out[k] = _level[Real](sqrt((pixels[k] - low) * scale))


cdef struct LogTable:
    # The level of the least number of each step of the mantissa,
    uint8_t level[LOG_STEPS]
    # and the least number of each level: a step has one of them at most.
    float edge[LEVELS + 1]


cdef inline void _logarithm(
    const LargePixel* pixels, uint8_t* out, Py_ssize_t count, Real low, Real scale
) noexcept nogil:
    cdef LogTable table
    cdef Py_ssize_t k
    cdef Real part
    cdef float number
    cdef uint32_t bits
    cdef uint8_t level
    _make_log_table(&table)
    for k in range(count):
        part = (<Real>pixels[k] - low) * scale
        part = part if part > 0 else 0
        part = part if part < 1 else 1
        number = <float>(1 + <Real>LOG_DEPTH * part)
        memcpy(&bits, &number, 4)
        level = table.level[(bits - 0x3f800000u) >> 13]
        out[k] = level + (number >= table.edge[level + 1])


cdef void _make_log_table(LogTable* table) noexcept nogil:
    cdef double unit = log(1.0 + LOG_DEPTH) / (LEVELS - 1)
    cdef int step, level
    cdef uint32_t bits
    cdef float number
    table.edge[0] = 0.0
    for level in range(1, LEVELS):
        table.edge[level] = <float>exp((level - 0.5) * unit)
    table.edge[LEVELS] = INFINITY
    level = 0
    for step in range(LOG_STEPS):
        bits = 0x3f800000u + (<uint32_t>step << 13)
        memcpy(&number, &bits, 4)
        while number >= table.edge[level + 1]:
            level += 1
        table.level[step] = <uint8_t>level
