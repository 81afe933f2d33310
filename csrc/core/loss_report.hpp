// Tells of lost frames, at most once a second, so that a flood of losses stays readable.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "link_events.hpp"
#include "utc_clock.hpp"

namespace vampires {

class LossReport {
  public:
    explicit LossReport(std::string what) : what_(std::move(what)) {}

    void add(std::uint64_t frames) noexcept { pending_ += frames; }
    // What has gathered, if the last report is old enough.
    void report(LinkEvents& events) {
        if (pending_ == 0) return;
        const std::int64_t now_ns = monotonic_now_ns();
        if (now_ns - reported_ns_ < kInterval_ns) return;
        reported_ns_ = now_ns;
        flush(events);
    }
    void flush(LinkEvents& events) {
        if (pending_ == 0) return;
        events.push(LinkEventKind::lost, std::to_string(pending_) +
                                             (pending_ == 1 ? " frame " : " frames ") + what_);
        pending_ = 0;
    }

  private:
    static constexpr std::int64_t kInterval_ns = 1'000'000'000;
    std::string what_;
    std::uint64_t pending_ = 0;
    std::int64_t reported_ns_ = -kInterval_ns;
};

}  // namespace vampires
