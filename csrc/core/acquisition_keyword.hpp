// The keyword _MAQTIME: the acquisition time of a frame, in microseconds of Unix time.
#pragma once

#include <cstdint>

#include "isio_layout.hpp"

namespace vampires {

bool is_acquisition_time(const KeywordEntry& entry) noexcept;
// UTC nanoseconds; 0 when this is another keyword, or holds no time since the year 2000.
std::int64_t acquisition_ns(const KeywordEntry& entry) noexcept;

}  // namespace vampires
