#include "frame_clock.hpp"

#include <cmath>
#include <cstdlib>
#include <cstring>

#include "acquisition_keyword.hpp"
#include "stream_reader.hpp"
#include "utc_clock.hpp"

namespace vampires {
namespace {

constexpr std::int64_t kSecond_ns = 1'000'000'000;
constexpr std::int64_t kMicrosecond_ns = 1'000;
// A frame just published carries times this close to now, or it says nothing about its clock.
constexpr std::int64_t kFresh_ns = 10 * kSecond_ns;

}  // namespace

FrameClock::FrameClock(const StreamFile& file, std::int64_t tai_offset_ns)
    : file_(file), tai_offset_ns_(tai_offset_ns) {
    // What stands there before the first frame was read is no time of that frame.
    last_keyword_ns_ = keyword_ns();
    atime_.last_raw_ns = to_ns(file.metadata().atime);
    writetime_.last_raw_ns = to_ns(file.metadata().writetime);
}

void FrameClock::forget() noexcept {
    last_keyword_ns_ = last_acquired_ns_ = 0;
    atime_.last_raw_ns = writetime_.last_raw_ns = 0;
}

std::int64_t FrameClock::keyword_ns() noexcept {
    const KeywordTable table = file_.keyword_table();
    if (keyword_ < table.size()) {
        const KeywordEntry there = table.head(keyword_);
        if (is_acquisition_time(there)) return acquisition_ns(there);
    }
    for (std::uint16_t k = 0; k < table.size(); ++k) {
        const KeywordEntry there = table.head(k);
        if (there.name[0] == '\0') break;
        if (!is_acquisition_time(there)) continue;
        keyword_ = k;
        return acquisition_ns(there);
    }
    return 0;
}

std::int64_t FrameClock::correct(const IsioTime& time, bool fresh,
                                 Corrected& clock) const noexcept {
    const std::int64_t raw_ns = to_ns(time);
    if (raw_ns == 0 || raw_ns == clock.last_raw_ns) return 0;
    clock.last_raw_ns = raw_ns;
    if (tai_offset_ns_ != 0) {
        const std::int64_t ahead_ns = raw_ns - utc_now_ns();
        if (fresh && std::abs(ahead_ns) < kFresh_ns) clock.correction_ns = 0;
        // UTC does not lie so far ahead, not even for a frame read late.
        if (std::abs(ahead_ns - tai_offset_ns_) < kFresh_ns)
            clock.correction_ns = tai_offset_ns_;
    }
    return raw_ns - clock.correction_ns;
}

void FrameClock::fill(const Sources& sources, FrameInfo& info) noexcept {
    const std::int64_t atime_ns = correct(sources.atime, sources.fresh, atime_);
    info.written_ns = correct(sources.writetime, sources.fresh, writetime_);
    const bool keyword_set = sources.keyword_ns != 0 && sources.keyword_ns != last_keyword_ns_;
    if (keyword_set) {
        last_keyword_ns_ = sources.keyword_ns;
        info.acquired_ns = sources.keyword_ns;
        if (atime_ns != 0) {
            const std::int64_t difference_ns = atime_ns - sources.keyword_ns;
            atime_minus_keyword_ns_ = difference_ns;
            // The same instant, to the nanosecond.
            if (std::abs(difference_ns) < kMicrosecond_ns) info.acquired_ns = atime_ns;
        }
    } else if (atime_ns != 0) {
        // Read late: the keyword is a newer frame's already. Keep to the keyword's time scale.
        const std::int64_t offset_ns = atime_minus_keyword_ns_.value_or(0);
        info.acquired_ns =
            std::abs(offset_ns) < kMicrosecond_ns ? atime_ns : atime_ns - offset_ns;
        info.flags |= kAcquiredFromAtime;
    }
    if (info.acquired_ns == 0) return;
    if (info.acquired_ns < last_acquired_ns_) info.flags |= kClockStep;
    last_acquired_ns_ = info.acquired_ns;
}

}  // namespace vampires
