// Blocking calls from Python: the GIL is released, and signals are served every slice.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>

#include "utc_clock.hpp"

namespace vampires {

inline constexpr std::chrono::nanoseconds kSignalSlice = std::chrono::milliseconds(100);

// Calls try_for(slice) without the GIL until it returns something that is not `pending`, or the
// timeout (seconds; negative: for ever) is over. Raises what a signal handler raises.
template <typename Result, typename TryFor>
Result wait_for_python(double timeout_s, Result pending, TryFor try_for) {
    using std::chrono::nanoseconds;
    const std::int64_t start_ns = monotonic_now_ns();
    for (;;) {
        nanoseconds slice = kSignalSlice;
        if (timeout_s >= 0) {
            const double waited_s = 1e-9 * static_cast<double>(monotonic_now_ns() - start_ns);
            const double left_s = std::min(timeout_s - waited_s, 1.0);
            slice = std::min(slice, nanoseconds(static_cast<std::int64_t>(left_s * 1e9)));
        }
        Result result = pending;
        {
            const pybind11::gil_scoped_release unlocked;
            result = try_for(std::max(slice, nanoseconds::zero()));
        }
        if (PyErr_CheckSignals() != 0) throw pybind11::error_already_set();
        if (result != pending || slice <= nanoseconds::zero()) return result;
    }
}

}  // namespace vampires
