// The clocks: UTC for what is recorded, monotonic for what is waited for.
#pragma once

#include <time.h>

#include <cstdint>

namespace vampires {

inline std::int64_t clock_ns(clockid_t clock) noexcept {
    timespec now = {};
    clock_gettime(clock, &now);
    return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

inline std::int64_t utc_now_ns() noexcept {
    return clock_ns(CLOCK_REALTIME);
}
inline std::int64_t monotonic_now_ns() noexcept {
    return clock_ns(CLOCK_MONOTONIC);
}

// TAI - UTC as the kernel knows it: 37 s where it was told, else 0.
inline std::int64_t kernel_tai_offset_ns() noexcept {
    const std::int64_t difference = clock_ns(CLOCK_TAI) - clock_ns(CLOCK_REALTIME);
    return (difference + 500'000'000) / 1'000'000'000 * 1'000'000'000;
}

}  // namespace vampires
