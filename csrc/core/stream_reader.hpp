// Reads a stream frame by frame, in order, and says exactly what it could not read.
//
// Reading a frame takes three steps, so that the caller can copy and convert in one pass:
//
//     if (reader.wait(timeout) == Wake::frame && reader.begin(ticket)) {
//         copy(ticket.pixels);
//         if (reader.confirm(ticket)) use(ticket.info); else forget_the_copy();
//     }
//
// The writer never waits for a reader: a slot may be overwritten while it is copied. confirm()
// tells; a copy it refuses is torn and must not be kept. What was missed before a frame is in
// its info. One thread a reader.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>

#include "frame_clock.hpp"
#include "stream_file.hpp"
#include "stream_semaphore.hpp"

namespace vampires {

enum FrameFlag : std::uint32_t {
    kTornBefore = 1,          // of the missing frames at least one was caught half overwritten
    kStreamRecreated = 2,     // first frame after the stream file was re-created
    kCounterReset = 4,        // cnt0 went backwards, or leapt beyond belief
    kRingFull = 8,            // frames before it were lost because the logger's memory was full
    kAcquiredFromAtime = 16,  // acquired_ns is the stream's atime, not its _MAQTIME keyword
    kClockStep = 32,          // acquired earlier than the frame before
    kCaughtUp = 64,           // read after newer frames were published
};

struct FrameInfo {
    std::uint64_t cnt0 = 0;
    std::uint64_t cnt1 = 0;
    std::int64_t acquired_ns = 0;  // UTC; 0 when the stream gives none
    std::int64_t written_ns = 0;   // UTC; 0 when the stream gives none
    std::uint64_t lost = 0;        // frames missing just before this one, torn ones included
    std::uint64_t torn = 0;        // of those, caught half overwritten
    std::uint32_t flags = 0;
};

struct FrameTicket {
    const std::byte* pixels = nullptr;
    FrameInfo info;
    // For confirm() alone:
    std::uint64_t slot = 0;
    IsioTime access_time{};
    std::int64_t keyword_ns = 0;
    bool newest = false;
    bool peek = false;
    bool in_ring = false;  // the next frames go to other slots; else to this one
};

struct ReaderOptions {
    bool rolling = false;      // a 3D stream that is no ring: cnt1 is its newest slice
    bool from_oldest = false;  // begin with the oldest frame there, not with the next new one
    std::int64_t tai_offset_ns = -1;  // TAI - UTC; -1: ask the kernel
};

enum class Wake { frame, timeout, interrupted, gone };

class StreamReader {
  public:
    // Throws StreamUnsupported when options.rolling is asked of a stream without a z axis.
    StreamReader(std::shared_ptr<StreamFile> file, const ReaderOptions& options);

    const StreamFile& file() const noexcept { return *file_; }
    // One frame is [z,] y, x of these sizes; depth 1 for a 2D frame.
    std::uint32_t width() const noexcept { return file_->shape().size[0]; }
    std::uint32_t height() const noexcept;
    std::uint32_t depth() const noexcept;
    std::uint64_t frame_bytes() const noexcept { return frame_bytes_; }

    // Waits until a frame newer than the last one is published. `gone` also comes back early.
    Wake wait(std::chrono::nanoseconds timeout);
    // Points the ticket at the oldest unread frame that is still whole; false: none yet.
    // Throws StreamUnsupported when a rolling stream's cnt1 is no slice of it.
    bool begin(FrameTicket& ticket);
    // The same for the newest frame, read before or not; leaves the count of losses alone.
    bool begin_newest(FrameTicket& ticket);
    // After copying ticket.pixels: true and the info complete when the copy is whole; else the
    // frame is torn, and counted with the next one.
    bool confirm(FrameTicket& ticket);
    // Takes the confirm() just made back: its frame is the next one again, and has the same
    // times then if it is still there.
    void unconfirm() noexcept;
    // Goes back to the oldest frame still there that is newer than `after`; what is missing
    // before it is not counted. Does nothing where frames have no slots of their own.
    void rewind(std::uint64_t after) noexcept;
    // The frame will not be looked at again. Keeps the camera's ring, which may be larger than
    // all else, out of this process's resident memory; a small ring stays.
    void let_go(const FrameTicket& ticket) const noexcept;

    std::uint64_t newest_cnt0() const noexcept { return load(file_->metadata().cnt0); }
    // cnt0 of the last whole frame read.
    std::uint64_t last_cnt0() const noexcept { return last_; }
    // Frames published but not read, torn ones included: lost if nobody reads on.
    std::uint64_t unread() const noexcept;
    std::uint64_t torn_since_last() const noexcept { return torn_; }
    // For a stream that replaces another, whose newest frame was `gone_at`: from where on
    // frames are missing until one is read. A new stream counts from 0; unless its count is too
    // high for its age, which `interval_ns` tells (between frames; 0: not known): then it
    // carries on the count of the old one, as a relay's does.
    void continue_count(std::uint64_t gone_at, double interval_ns) noexcept;

  private:
    enum class Slots {
        single,       // one array, overwritten by each frame
        counted,      // a ring of slices, each with its counter
        rolling,      // a ring of slices, known by cnt1 alone
        update_ring,  // CBsize copies, one for each update
    };
    struct Sample {
        std::uint64_t cnt0 = 0;
        std::uint64_t cnt1 = 0;
        bool flagged = false;  // the write flag is set, whether that means anything or not
        bool steady = false;   // no update was under way
    };
    struct Updates {
        std::uint64_t minus_cnt0 = 0;  // the number of the newest update, less cnt0
        std::uint32_t index = 0;       // its slot
        bool settled = false;          // else these may belong to different moments
    };

    // What confirm() changes.
    struct Count {
        std::uint64_t last = 0;
        std::uint64_t torn = 0;
        std::uint32_t flags = 0;
    };

    Sample sample() const noexcept;
    Updates updates(const Sample& now) const noexcept;
    void number_updates(const Sample& now, const Updates& counted) noexcept;
    bool flagged() const noexcept;
    bool writing() const noexcept;
    bool fresh() noexcept;
    bool published() const noexcept;
    void choose_slots();
    bool poll(std::chrono::nanoseconds interval) const noexcept;
    Wake wait_for_post(std::chrono::nanoseconds slice) noexcept;
    void watch_write_flag(const Sample& now) noexcept;
    std::uint64_t first_wanted(std::uint64_t newest) noexcept;
    bool locate(std::uint64_t& cnt0, const Sample& now, FrameTicket& ticket);
    bool locate_counted(std::uint64_t& cnt0, const Sample& now, FrameTicket& ticket);
    bool locate_rolling(std::uint64_t& cnt0, const Sample& now, FrameTicket& ticket);
    bool locate_update(std::uint64_t& cnt0, const Sample& now, FrameTicket& ticket);
    bool locate_array(std::uint64_t& cnt0, const Sample& now, FrameTicket& ticket) noexcept;
    void mistrust_counters(bool counts_others) noexcept;
    bool begin_frame(std::uint64_t cnt0, const Sample& now, FrameTicket& ticket);
    bool still_whole(const FrameTicket& ticket) const noexcept;
    FrameClock::Sources times_of(const FrameTicket& ticket) noexcept;
    void fill_times(const FrameClock::Sources& sources, FrameTicket& ticket) noexcept;

    std::shared_ptr<StreamFile> file_;
    std::optional<ClaimedSemaphore> semaphore_;
    FrameClock clock_;
    bool slices_;  // a frame is one slice of the array
    Slots slots_ = Slots::single;
    std::uint32_t ring_ = 1;
    std::uint64_t frame_bytes_;

    std::uint64_t last_ = 0;  // the last whole frame
    std::uint64_t next_ = 1;  // smallest counter still wanted
    std::uint64_t torn_ = 0;  // since the last whole frame
    std::uint32_t pending_flags_ = 0;

    FrameInfo read_;        // the last whole frame
    Count before_read_;     // the count before it
    FrameInfo taken_back_;  // read before and to be read again: by unconfirm(),
    FrameInfo rewound_;     // by rewind(), the newest of them

    std::uint64_t slot_cnt0_ = 0;  // counted: the frame found last, and where
    std::uint64_t slot_ = 0;
    std::int64_t uncounted_since_ns_ = 0;
    Sample previous_;  // rolling: whether cnt1 steps as cnt0 does
    bool sequential_ = true;
    std::optional<std::uint64_t> updates_minus_cnt0_;  // update ring: modulo 2^64
    std::uint64_t updates_known_from_ = 0;  // frames before may have bypassed the ring

    std::int64_t fate_checked_ns_ = 0;
    bool writer_posts_ = true;  // else poll
    unsigned silent_frames_ = 0;
    bool write_flag_useful_ = true;
    std::uint64_t flagged_cnt0_ = 0;
    unsigned flagged_samples_ = 0;
    std::int64_t flagged_since_ns_ = 0;
};

}  // namespace vampires
