// Which frames are saved: the orders to begin and to end, and what they say about a frame.
//
// A controlled logger saves in sessions. A session begins with the first frame published after
// an order, or acquired at or after an instant, and ends likewise; in between every frame is
// saved or counted as lost. Outside of sessions nothing is.
//
// Who owns what: the gate has no thread, no clock and no memory of frames. The capture thread
// owns it, alone. Orders reach that thread through a mailbox; each carries the stream's count
// at the moment of the call and is obeyed between the last frame published before the call and
// the first one after it, whenever the thread finds it; those behind it wait for that. Only an
// end at an instant is obeyed at once, since frames that wait may be past the instant.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>

namespace vampires {

// A moment in the life of a stream. inode 0: there was no stream.
struct StreamPosition {
    std::uint64_t inode = 0;
    std::uint64_t cnt0 = 0;
};

// After so many of them a session is over.
struct SavingLimits {
    std::uint64_t frames = std::numeric_limits<std::uint64_t>::max();
    std::uint64_t cubes = std::numeric_limits<std::uint64_t>::max();
};

struct SavingOrder {
    enum class Kind { begin, end };
    Kind kind = Kind::begin;
    std::int64_t instant_ns = 0;  // UTC; 0: at the call
    bool whole_cube = false;      // end: the cube under way then is filled first
    SavingLimits limits;          // begin
    StreamPosition called_at;
};

enum class SavingState : std::uint8_t { off, armed, on, ending };

struct FrameTime {
    std::int64_t ns = 0;  // acquired, or else the best known; 0: unknown, before any instant
    // The frame was published later than this, by the logger's clock; 0: that is not known.
    std::int64_t published_after_ns = 0;
};

class SavingGate {
  public:
    // Not controlled: one session, from the start to the end.
    explicit SavingGate(bool controlled, const SavingLimits& limits = {});

    SavingState state() const noexcept;
    std::uint64_t sessions() const noexcept { return sessions_; }  // begun, armed ones included
    bool off() const noexcept { return phase_ == Phase::off; }
    // No frame of the session was kept yet.
    bool waiting() const noexcept { return phase_ == Phase::waiting; }
    bool armed() const noexcept { return waiting() && start_ns_ != 0; }
    // Frames are wanted, with their pixels.
    bool saving() const noexcept { return !off() && !armed(); }
    // The session is over as soon as its cube is.
    bool filling() const noexcept { return filling_; }
    const SavingLimits& limits() const noexcept { return limits_; }

    // -- orders ------------------------------------------------------------------------------
    // True when the order holds from now on; the caller then sets the count. False when there
    // is nothing to begin, or when it is kept for the moment the session that ends is over.
    bool begin(const SavingOrder& order) noexcept;
    // True when the session is over now.
    bool end(const SavingOrder& order, bool cube_under_way) noexcept;
    // The session is over. Gives the order back that was kept for this moment.
    std::optional<SavingOrder> close() noexcept;

    // -- while no frame was kept -------------------------------------------------------------
    // Frames up to this one are none of the session's.
    void count_from(std::uint64_t cnt0) noexcept;
    std::uint64_t counted_from() const noexcept { return counted_from_; }
    // Frames missing before the first one kept.
    std::uint64_t lost_before(std::uint64_t cnt0) const noexcept;

    // -- frames, in their order --------------------------------------------------------------
    enum class Sight {
        pass,  // not wanted
        look,  // its time decides
        save,
    };
    // What its counter says about a frame. `newest`: of the stream, to see a count that began
    // anew.
    Sight first_sight(std::uint64_t cnt0, std::uint64_t newest) noexcept;
    // After `look`: true when the session begins with this frame.
    bool starts_with(std::uint64_t cnt0, const FrameTime& time, bool counter_reset) noexcept;
    // After `save`: true when the frame is the session's, false when it is the first after it.
    bool admits(const FrameTime& time, bool cube_under_way) noexcept;

    // -- the instant of the end --------------------------------------------------------------
    std::optional<std::int64_t> stop_ns() const noexcept { return stop_ns_; }
    // It has come. False: the session goes on to the end of the cube under way.
    bool over_at_instant(bool cube_under_way) noexcept;

    // By how much the camera's clock is off, when that decided: behind the logger's if
    // positive.
    std::optional<std::int64_t> take_clock_offset_ns() noexcept;

  private:
    enum class Phase { off, waiting, saving };

    bool ending() const noexcept { return filling_ || stop_ns_.has_value(); }
    bool reached(std::int64_t instant_ns, const FrameTime& time) noexcept;

    Phase phase_;
    std::uint64_t sessions_ = 0;
    SavingLimits limits_;

    std::int64_t start_ns_ = 0;     // 0: known by counter, or over
    std::uint64_t first_cnt0_ = 0;  // by counter: the smallest wanted
    std::uint64_t counted_from_ = 0;
    std::optional<std::int64_t> stop_ns_;
    bool whole_cube_ = false;  // the cube under way then is filled first
    bool filling_ = false;
    std::optional<SavingOrder> next_begin_;  // for when the session is over
    std::optional<std::int64_t> clock_offset_ns_;
};

}  // namespace vampires
