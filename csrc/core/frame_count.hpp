// What is missing, going by the counter that came with the frames, over several connections.
//
// A sender that connects again may send frames once more; they are known by their counters. A
// source that was made anew, or set its counter back, begins a new count, and nothing of that
// is a loss.
#pragma once

#include <cstdint>

namespace vampires {

class FrameCount {
  public:
    // A connection begins. source: what tells one stream from another that replaced it.
    // offered: the count there at this moment. kept: of the copy here, from before this
    // process; 0: none.
    void begin(std::uint64_t source, std::uint64_t offered, std::uint64_t kept) noexcept {
        const bool known = begun_ && source == source_;
        if (!begun_ && kept > 0) last_ = kept;
        const bool goes_on = (known || (!begun_ && kept > 0)) && offered >= last_;
        if (!goes_on) last_ = offered;
        fresh_ = !goes_on;
        nothing_came_ = true;
        again_ = goes_on;
        begun_ = true;
        source_ = source;
        on_wire_ = 0;
    }

    struct Verdict {
        bool duplicate = false;
        std::uint64_t lost = 0;  // frames missing just before this one
    };
    Verdict next(std::uint64_t cnt0) noexcept {
        const std::uint64_t before = on_wire_;
        on_wire_ = cnt0;
        nothing_came_ = false;
        if (fresh_) {  // the frame that was there already comes first, or the one after it
            fresh_ = false;
            return take(cnt0, cnt0 > last_ ? cnt0 - last_ - 1 : 0);
        }
        if (cnt0 == before || (again_ && cnt0 <= last_)) return {true, 0};
        again_ = false;
        const bool reset = cnt0 <= last_ || cnt0 - last_ > kImplausibleGap;
        return take(cnt0, reset ? 0 : cnt0 - last_ - 1);
    }

    // A frame came that was sent in part and will not come again. As the first of a count it is
    // the one that was there already, and missing like any other.
    void next_void() noexcept {
        if (fresh_ && nothing_came_ && last_ > 0) --last_;
        nothing_came_ = false;
    }

    std::uint64_t last() const noexcept { return last_; }
    // The next frame may well be one that was taken before.
    bool repeats() const noexcept { return again_; }

  private:
    // Beyond this a counter was set, not counted: days at any rate a camera has.
    static constexpr std::uint64_t kImplausibleGap = 1'000'000'000;

    Verdict take(std::uint64_t cnt0, std::uint64_t lost) noexcept {
        last_ = cnt0;
        return {false, lost};
    }

    bool begun_ = false;
    bool fresh_ = true;         // the first frame sets the count
    bool nothing_came_ = true;  // on this connection
    bool again_ = false;        // frames that are known already may come again
    std::uint64_t source_ = 0;
    std::uint64_t last_ = 0;     // taken
    std::uint64_t on_wire_ = 0;  // came last on this connection
};

}  // namespace vampires
