#include "acquisition_keyword.hpp"

#include <cmath>
#include <cstring>

#include "stream_file.hpp"

namespace vampires {
namespace {

constexpr char kName[] = "_MAQTIME";
constexpr std::int64_t kMicrosecond_ns = 1'000;

}  // namespace

bool is_acquisition_time(const KeywordEntry& entry) noexcept {
    return std::strncmp(entry.name, kName, sizeof entry.name) == 0;
}

std::int64_t acquisition_ns(const KeywordEntry& entry) noexcept {
    if (!is_acquisition_time(entry)) return 0;
    std::int64_t us = 0;
    if (entry.type == 'L') us = entry.value.as_int;
    if (entry.type == 'D' && std::abs(entry.value.as_double) < 9e15) {
        us = static_cast<std::int64_t>(entry.value.as_double);
    }
    if (us <= 0 || us > INT64_MAX / kMicrosecond_ns) return 0;
    return to_ns(from_ns(us * kMicrosecond_ns));
}

}  // namespace vampires
