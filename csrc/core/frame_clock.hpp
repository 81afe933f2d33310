// The times of a frame, in UTC, from whatever its writer set.
//
// Writers differ: some keep the acquisition time in the keyword _MAQTIME (microseconds of Unix
// time), some in atime, some in both or in none; atime and writetime may be on the TAI clock;
// a writer that sets no times leaves old values standing. A value that did not change since the
// frame before is therefore no time of this frame.
#pragma once

#include <cstdint>
#include <optional>

#include "stream_file.hpp"

namespace vampires {

struct FrameInfo;

class FrameClock {
  public:
    // tai_offset_ns: TAI - UTC on this host.
    FrameClock(const StreamFile& file, std::int64_t tai_offset_ns);

    // The keyword _MAQTIME as it stands now; 0 when there is none.
    std::int64_t keyword_ns() noexcept;

    struct Sources {
        std::int64_t keyword_ns = 0;  // of this frame, or 0
        IsioTime atime{};             // of this frame, or zeros
        IsioTime writetime{};
        bool fresh = false;  // just published: its times may be compared with the clock
    };
    // Forgets what was seen, so that a frame may be looked at a second time.
    void forget() noexcept;
    // Older frames come again: that is no step of the clock.
    void go_back() noexcept { last_acquired_ns_ = 0; }
    // Sets acquired_ns, written_ns and the flags that go with them.
    void fill(const Sources& sources, FrameInfo& info) noexcept;

  private:
    struct Corrected {
        std::int64_t last_raw_ns = 0;
        std::int64_t correction_ns = 0;
    };
    std::int64_t correct(const IsioTime& time, bool fresh, Corrected& clock) const noexcept;

    const StreamFile& file_;
    std::int64_t tai_offset_ns_;
    std::uint16_t keyword_ = 0;  // where _MAQTIME was seen last
    std::int64_t last_keyword_ns_ = 0;
    std::int64_t last_acquired_ns_ = 0;
    Corrected atime_;
    Corrected writetime_;
    std::optional<std::int64_t> atime_minus_keyword_ns_;
};

}  // namespace vampires
