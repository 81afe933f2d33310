#include "stream_reader.hpp"

#include <time.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "errors.hpp"
#include "utc_clock.hpp"

namespace vampires {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;

// A jump of the counter beyond this is a new count, not a loss: a year at 1 kHz is 3e10, a
// night 4e7.
constexpr std::uint64_t kImplausibleGap = 1'000'000'000;
// Longest sleep on the semaphore: a post that never comes costs no more than this.
constexpr nanoseconds kSlice = milliseconds(20);
constexpr nanoseconds kDoubtfulSlice = milliseconds(1);  // once frames came without a post
constexpr nanoseconds kPollInterval = microseconds(200);
constexpr std::int64_t kFateInterval_ns = 100'000'000;
// A writer that posts before it counts gets this long to count.
constexpr std::int64_t kCountAfterPost_ns = 5'000'000;
constexpr std::int64_t kSpin_ns = 50'000;
// A ring whose slice counters do not show a published frame for this long keeps none; if they
// show the frames before, its writer was held up between counting the stream and the slice.
constexpr std::int64_t kUncounted_ns = 5'000'000;
constexpr std::int64_t kHeldUp_ns = 1'000'000'000;

void relax() noexcept {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

}  // namespace

StreamReader::StreamReader(std::shared_ptr<StreamFile> file, const ReaderOptions& options)
    : file_(std::move(file)),
      semaphore_(ClaimedSemaphore::claim(file_)),
      clock_(*file_,
             options.tai_offset_ns < 0 ? kernel_tai_offset_ns() : options.tai_offset_ns),
      slices_(file_->shape().temporal_ring() || options.rolling),
      frame_bytes_(0) {
    if (options.rolling && file_->shape().naxis != 3) {
        throw StreamUnsupported("stream '" + file_->name() + "' has " +
                                std::to_string(file_->shape().naxis) +
                                " axes: only a 3D stream can be read as rolling slices");
    }
    frame_bytes_ = file_->frame_bytes(slices_);
    choose_slots();
    const std::uint64_t newest = newest_cnt0();
    last_ = newest;
    if (options.from_oldest && published()) {
        const bool ring = ring_ > 1 && slots_ != Slots::update_ring;
        last_ = newest - (ring ? std::min<std::uint64_t>(newest, ring_ - 1) : 1);
        clock_.forget();  // the times that stand there are those of a frame to come
    }
    next_ = last_ + 1;
}

// Whether a frame is there. The copy of a stream elsewhere does not count from 0, and says in
// cnt2 where it began; some writers leave writetime at 0, ours do not.
bool StreamReader::published() const noexcept {
    const StreamMetadata& md = file_->metadata();
    const std::uint64_t newest = newest_cnt0();
    return newest > 0 && (newest != load(md.cnt2) || to_ns(md.writetime) != 0);
}

void StreamReader::continue_count(std::uint64_t gone_at, double interval_ns) noexcept {
    constexpr double kMillisecond_ns = 1e6;
    const std::uint64_t newest = newest_cnt0();
    const std::int64_t created_ns = to_ns(file_->metadata().creationtime);
    const auto age_ns =
        static_cast<double>(std::max<std::int64_t>(utc_now_ns() - created_ns, 0));
    const double plausible =
        64.0 + 5.0 * age_ns / (interval_ns > 0 ? interval_ns : kMillisecond_ns);
    if (static_cast<double>(newest) <= plausible) {
        last_ = 0;
    } else if (newest > gone_at) {
        last_ = gone_at;
    }
}

std::uint32_t StreamReader::height() const noexcept {
    return file_->shape().naxis > 1 ? file_->shape().size[1] : 1;
}

std::uint32_t StreamReader::depth() const noexcept {
    return file_->shape().naxis > 2 && !slices_ ? file_->shape().size[2] : 1;
}

void StreamReader::choose_slots() {
    const StreamShape& shape = file_->shape();
    if (slices_ && shape.size[2] > 1) {
        ring_ = shape.size[2];
        slots_ = shape.temporal_ring() ? Slots::counted : Slots::rolling;
    } else if (!slices_ && shape.cb_size > 2) {
        ring_ = shape.cb_size;
        slots_ = Slots::update_ring;
    }
    previous_ = sample();
    if (slots_ == Slots::update_ring) number_updates(previous_, updates(previous_));
}

bool StreamReader::flagged() const noexcept {
    return load(file_->metadata().write) != 0;
}

bool StreamReader::writing() const noexcept {
    return write_flag_useful_ && flagged();
}

StreamReader::Sample StreamReader::sample() const noexcept {
    StreamMetadata& md = file_->metadata();
    Sample now;
    now.cnt0 = load(md.cnt0);
    now.flagged = flagged();
    now.steady = !(now.flagged && write_flag_useful_);
    now.cnt1 = load(md.cnt1);
    now.steady = now.steady && load(md.cnt0) == now.cnt0;
    return now;
}

// Whether begin() may find something. A ring can be read while its writer is at work.
bool StreamReader::fresh() noexcept {
    const Sample now = sample();
    if (!now.flagged) {
        flagged_samples_ = 0;
        write_flag_useful_ = true;
    }
    const bool news = (now.cnt0 > last_ && now.cnt0 >= next_) || now.cnt0 < last_;
    if (!news) return false;
    if (now.steady || slots_ == Slots::counted || slots_ == Slots::update_ring) return true;
    watch_write_flag(now);
    return false;
}

// Some writers set the write flag and never clear it; waiting for them would be for ever. A
// busy writer clears it for a moment with each frame, and is seen to do so.
void StreamReader::watch_write_flag(const Sample& now) noexcept {
    const std::int64_t now_ns = monotonic_now_ns();
    if (flagged_samples_ == 0) {
        flagged_since_ns_ = now_ns;
        flagged_cnt0_ = now.cnt0;
    }
    ++flagged_samples_;
    const bool counts_on = now.cnt0 > flagged_cnt0_ + 2;
    if (counts_on && flagged_samples_ > 1000 && now_ns - flagged_since_ns_ > 2'000'000'000) {
        write_flag_useful_ = false;
    }
}

bool StreamReader::poll(nanoseconds interval) const noexcept {
    const timespec pause = {0, static_cast<long>(interval.count())};
    return nanosleep(&pause, nullptr) == 0 || errno != EINTR;
}

Wake StreamReader::wait_for_post(nanoseconds slice) noexcept {
    if (!semaphore_ || !writer_posts_) {
        return poll(std::min(slice, kPollInterval)) ? Wake::timeout : Wake::interrupted;
    }
    writer_posts_ = semaphore_->drain();
    if (fresh()) return Wake::frame;  // posted before the drain, counted after the last look
    switch (semaphore_->wait(slice)) {
        case ClaimedSemaphore::Wake::interrupted:
            return Wake::interrupted;
        case ClaimedSemaphore::Wake::timeout:
            // Frames that come without a post, again and again: this writer does not post.
            if (fresh() && ++silent_frames_ >= 3) writer_posts_ = false;
            return Wake::timeout;
        case ClaimedSemaphore::Wake::posted:
            break;
    }
    silent_frames_ = 0;
    const std::int64_t posted_ns = monotonic_now_ns();
    for (;;) {
        if (fresh()) return Wake::frame;
        const std::int64_t waited_ns = monotonic_now_ns() - posted_ns;
        if (waited_ns > kCountAfterPost_ns) return Wake::timeout;
        if (waited_ns < kSpin_ns) {
            relax();
        } else if (!poll(microseconds(50))) {
            return Wake::interrupted;
        }
    }
}

Wake StreamReader::wait(nanoseconds timeout) {
    const std::int64_t start_ns = monotonic_now_ns();
    for (;;) {
        const bool news = fresh();
        if (file_->broken()) return Wake::gone;  // the news may be zeros
        if (news) return Wake::frame;
        const std::int64_t now_ns = monotonic_now_ns();
        if (now_ns - fate_checked_ns_ >= kFateInterval_ns) {
            if (file_->fate() != FileFate::same) {
                return fresh() && !file_->broken() ? Wake::frame : Wake::gone;
            }
            fate_checked_ns_ = now_ns;
        }
        const nanoseconds remaining = timeout - nanoseconds(now_ns - start_ns);
        if (remaining <= nanoseconds::zero()) return Wake::timeout;
        const nanoseconds slice = silent_frames_ > 0 ? kDoubtfulSlice : kSlice;
        if (wait_for_post(std::min(remaining, slice)) == Wake::interrupted) {
            return Wake::interrupted;
        }
    }
}

// The oldest counter that is wanted and, going by the ring's size, not being overwritten: while
// frame cnt0+1 is written, the slot of frame cnt0+1-ring is in work.
std::uint64_t StreamReader::first_wanted(std::uint64_t newest) noexcept {
    if (newest < last_ || newest - last_ > kImplausibleGap) {
        pending_flags_ |= kCounterReset;
        torn_ = 0;
        read_ = taken_back_ = rewound_ = FrameInfo{};
        last_ = newest > 0 ? newest - 1 : 0;
        next_ = last_ + 1;
        slot_cnt0_ = 0;
        updates_minus_cnt0_.reset();
    }
    if (ring_ == 1) return std::max(next_, newest);
    const std::uint64_t oldest = newest + 2 > ring_ ? newest + 2 - ring_ : 1;
    if (next_ >= oldest) return next_;
    // Lapped: what is about to be overwritten is not worth a torn copy.
    return std::min(newest, oldest + ring_ / 8);
}

bool StreamReader::begin(FrameTicket& ticket) {
    const Sample now = sample();
    std::uint64_t cnt0 = first_wanted(now.cnt0);
    if (cnt0 > now.cnt0 || now.cnt0 == 0) return false;
    ticket.peek = false;
    if (!locate(cnt0, now, ticket)) return false;
    return begin_frame(cnt0, now, ticket);
}

bool StreamReader::begin_newest(FrameTicket& ticket) {
    const Sample now = sample();
    std::uint64_t cnt0 = now.cnt0;
    ticket.peek = true;
    if (cnt0 == 0) {  // never written: what the array holds, as frame 0
        if (!now.steady) return false;
        ticket.access_time = file_->metadata().lastaccesstime;
        return locate_array(cnt0, now, ticket) && begin_frame(0, now, ticket);
    }
    return published() && locate(cnt0, now, ticket) && begin_frame(cnt0, now, ticket);
}

bool StreamReader::begin_frame(std::uint64_t cnt0, const Sample& now, FrameTicket& ticket) {
    ticket.info = FrameInfo{};
    ticket.info.cnt0 = cnt0;
    ticket.newest = cnt0 == now.cnt0;
    ticket.info.cnt1 = slices_ ? ticket.slot : now.cnt1;
    ticket.keyword_ns = ticket.newest ? clock_.keyword_ns() : 0;
    return true;
}

bool StreamReader::locate(std::uint64_t& cnt0, const Sample& now, FrameTicket& ticket) {
    ticket.access_time = file_->metadata().lastaccesstime;
    if (slots_ == Slots::counted) return locate_counted(cnt0, now, ticket);
    if (slots_ == Slots::update_ring) return locate_update(cnt0, now, ticket);
    if (slots_ == Slots::rolling) return locate_rolling(cnt0, now, ticket);
    return locate_array(cnt0, now, ticket);
}

// The newest frame in the array that every frame is written to (slice 0 before any was).
bool StreamReader::locate_array(std::uint64_t& cnt0, const Sample& now,
                                FrameTicket& ticket) noexcept {
    if (!now.steady) return false;
    cnt0 = now.cnt0;
    ticket.in_ring = false;
    ticket.slot = 0;
    ticket.pixels = file_->pixels();
    return true;
}

bool StreamReader::locate_counted(std::uint64_t& cnt0, const Sample& now, FrameTicket& ticket) {
    std::uint64_t* counters = file_->cnt_array();
    std::uint64_t slot = (slot_ + (cnt0 - slot_cnt0_)) % ring_;
    if (load(counters[slot]) != cnt0) {
        std::uint64_t best = UINT64_MAX;
        bool counts_others = false;
        for (std::uint64_t s = 0; s < ring_; ++s) {
            const std::uint64_t found = load(counters[s]);
            counts_others =
                counts_others || (found > 0 && found < now.cnt0 && now.cnt0 - found <= ring_);
            if (found < cnt0 || found > now.cnt0 || found >= best) continue;
            best = found;
            slot = s;
        }
        if (best == UINT64_MAX) {
            mistrust_counters(counts_others);
            return false;
        }
        cnt0 = best;
    }
    uncounted_since_ns_ = 0;
    slot_ = slot;
    slot_cnt0_ = cnt0;
    ticket.in_ring = true;
    ticket.slot = slot;
    ticket.pixels = file_->pixels() + slot * frame_bytes_;
    return true;
}

// Some writers count their slices a little later than the stream, some never.
void StreamReader::mistrust_counters(bool counts_others) noexcept {
    const std::int64_t now_ns = monotonic_now_ns();
    if (uncounted_since_ns_ == 0) uncounted_since_ns_ = now_ns;
    const std::int64_t patience_ns = counts_others ? kHeldUp_ns : kUncounted_ns;
    if (now_ns - uncounted_since_ns_ > patience_ns) slots_ = Slots::rolling;
}

bool StreamReader::locate_rolling(std::uint64_t& cnt0, const Sample& now, FrameTicket& ticket) {
    if (!now.steady) return false;
    if (now.cnt1 >= ring_) {
        throw StreamUnsupported(
            "stream '" + file_->name() + "': cnt1 is " + std::to_string(now.cnt1) +
            ", expected the newest slice, 0 to " + std::to_string(ring_ - 1));
    }
    if (now.cnt0 > previous_.cnt0) {
        const std::uint64_t counted = (now.cnt0 - previous_.cnt0) % ring_;
        const std::uint64_t stepped = (now.cnt1 + ring_ - previous_.cnt1 % ring_) % ring_;
        if (counted != stepped && previous_.cnt0 != 0) sequential_ = false;
    }
    previous_ = now;
    if (!sequential_) cnt0 = now.cnt0;
    ticket.in_ring = sequential_;
    ticket.slot = (now.cnt1 + ring_ - (now.cnt0 - cnt0) % ring_) % ring_;
    ticket.pixels = file_->pixels() + ticket.slot * frame_bytes_;
    return true;
}

StreamReader::Updates StreamReader::updates(const Sample& now) const noexcept {
    StreamMetadata& md = file_->metadata();
    Updates counted;
    counted.index = load(md.cb_index);
    counted.minus_cnt0 = load(md.cb_cycle) * ring_ + counted.index - now.cnt0;
    // An update that began meanwhile changes the numbers one after the other.
    counted.settled =
        !writing() && load(md.cnt0) == now.cnt0 && load(md.cb_index) == counted.index;
    return counted;
}

// Whether the newest frame itself went through the ring, nobody knows; those after it show.
void StreamReader::number_updates(const Sample& now, const Updates& counted) noexcept {
    if (!counted.settled) return;
    updates_minus_cnt0_ = counted.minus_cnt0;
    updates_known_from_ = now.cnt0 + 1;
}

// Update k of the stream is in slot k % ring. Updates are numbered by CBcycle and CBindex, from
// another start than cnt0 where some frames did not pass through the ring.
bool StreamReader::locate_update(std::uint64_t& cnt0, const Sample& now, FrameTicket& ticket) {
    const Updates counted = updates(now);
    if (!updates_minus_cnt0_) number_updates(now, counted);
    const std::uint64_t ahead = counted.minus_cnt0 - updates_minus_cnt0_.value_or(0);
    const bool known = updates_minus_cnt0_ && ahead <= 1;  // 1: the next update is under way
    if (counted.index >= ring_ || (!known && counted.settled)) {
        slots_ = Slots::single;  // this writer does not keep the ring
        ring_ = 1;
        return false;
    }
    if (!known) {
        if (flagged()) watch_write_flag(now);
        return false;
    }
    if (now.cnt0 < updates_known_from_) return locate_array(cnt0, now, ticket);
    cnt0 = std::max(cnt0, updates_known_from_);
    ticket.in_ring = true;
    ticket.slot = (cnt0 + *updates_minus_cnt0_) % ring_;
    ticket.pixels = file_->cb_pixels() + ticket.slot * frame_bytes_;
    return true;
}

bool StreamReader::still_whole(const FrameTicket& ticket) const noexcept {
    std::atomic_thread_fence(std::memory_order_acquire);
    if (file_->broken()) return false;
    const std::uint64_t cnt0 = ticket.info.cnt0;
    if (ticket.in_ring) {
        const std::uint64_t newest = newest_cnt0();
        if (newest < cnt0 || newest - cnt0 + 2 > ring_) return false;
        return slots_ != Slots::counted || load(file_->cnt_array()[ticket.slot]) == cnt0;
    }
    // pyMilk's writer clears the flag before it counts; its access time gives it away.
    if (writing()) return false;
    const IsioTime access = file_->metadata().lastaccesstime;
    std::atomic_thread_fence(std::memory_order_acquire);
    return newest_cnt0() == cnt0 && access.sec == ticket.access_time.sec &&
           access.nsec == ticket.access_time.nsec;
}

// The times of the frame, if still_whole() holds afterwards.
FrameClock::Sources StreamReader::times_of(const FrameTicket& ticket) noexcept {
    StreamMetadata& md = file_->metadata();
    FrameClock::Sources sources;
    if (ticket.in_ring && slots_ == Slots::counted) {
        sources.atime = file_->atime_array()[ticket.slot];
        sources.writetime = file_->writetime_array()[ticket.slot];
    } else if (ticket.in_ring && slots_ == Slots::update_ring) {
        const RingEntry entry = file_->cb_metadata()[ticket.slot];
        if (entry.cnt0 == ticket.info.cnt0) {
            sources.atime = entry.atime;
            sources.writetime = entry.writetime;
        }
    }
    if (!ticket.newest) return sources;
    const bool own = sources.writetime.sec != 0;
    const IsioTime atime = md.atime;
    const IsioTime writetime = md.writetime;
    const std::int64_t keyword_ns = clock_.keyword_ns();
    // What stands in the metadata is this frame's only while it is the newest.
    std::atomic_thread_fence(std::memory_order_acquire);
    if (newest_cnt0() != ticket.info.cnt0 || writing()) return sources;
    sources.fresh = true;
    if (keyword_ns == ticket.keyword_ns) sources.keyword_ns = keyword_ns;
    if (!own) sources.atime = atime;
    if (!own) sources.writetime = writetime;
    return sources;
}

void StreamReader::fill_times(const FrameClock::Sources& sources,
                              FrameTicket& ticket) noexcept {
    FrameInfo& info = ticket.info;
    if (!ticket.peek) {
        clock_.fill(sources, info);
        // Of a frame read for the second time, the metadata may tell less than they did.
        for (const FrameInfo& known : {taken_back_, rewound_}) {
            if (known.cnt0 == 0 || known.cnt0 != info.cnt0) continue;
            info.acquired_ns = known.acquired_ns;
            info.written_ns = known.written_ns;
            info.flags = known.flags & (kAcquiredFromAtime | kClockStep);
        }
        return;
    }
    FrameClock fresh_eyes = clock_;
    fresh_eyes.forget();
    fresh_eyes.fill(sources, info);
}

void StreamReader::let_go(const FrameTicket& ticket) const noexcept {
    // Below this the page faults of the next round cost more than the memory is worth.
    constexpr std::uint64_t kSmallRing = std::uint64_t{64} << 20;
    if (ring_ * frame_bytes_ > kSmallRing) file_->let_go(ticket.pixels, frame_bytes_);
}

bool StreamReader::confirm(FrameTicket& ticket) {
    const FrameClock::Sources sources = times_of(ticket);
    if (!still_whole(ticket)) {
        if (!ticket.peek) {
            ++torn_;
            next_ = ticket.info.cnt0 + 1;
        }
        return false;
    }
    fill_times(sources, ticket);
    if (ticket.peek) return true;
    flagged_samples_ = 0;
    FrameInfo& info = ticket.info;
    before_read_ = {last_, torn_, pending_flags_};
    info.lost = info.cnt0 - last_ - 1;
    info.torn = torn_;
    info.flags |= pending_flags_;
    if (torn_ > 0) info.flags |= kTornBefore;
    if (!ticket.newest) info.flags |= kCaughtUp;
    last_ = info.cnt0;
    next_ = last_ + 1;
    torn_ = 0;
    pending_flags_ = 0;
    read_ = info;
    return true;
}

void StreamReader::unconfirm() noexcept {
    last_ = before_read_.last;
    torn_ = before_read_.torn;
    pending_flags_ = before_read_.flags;
    next_ = read_.cnt0;
    taken_back_ = read_;
}

void StreamReader::rewind(std::uint64_t after) noexcept {
    const std::uint64_t newest = newest_cnt0();
    if (ring_ == 1 || newest < last_) return;
    const std::uint64_t oldest = newest + 2 > ring_ ? newest + 2 - ring_ : 1;
    const std::uint64_t first = std::max(oldest, after + 1);
    if (first >= next_) return;
    if (read_.cnt0 == 0) clock_.forget();  // what stands there is the time of a frame to come
    if (read_.cnt0 > rewound_.cnt0) rewound_ = read_;
    clock_.go_back();
    last_ = first - 1;
    next_ = first;
    torn_ = 0;
    pending_flags_ = 0;
}

std::uint64_t StreamReader::unread() const noexcept {
    const std::uint64_t newest = newest_cnt0();
    return newest > last_ && newest - last_ <= kImplausibleGap ? newest - last_ : 0;
}

}  // namespace vampires
