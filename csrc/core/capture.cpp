#include "capture.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <thread>
#include <utility>

#include "errors.hpp"
#include "fits_sum.hpp"
#include "thread_setup.hpp"
#include "utc_clock.hpp"

namespace vampires {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr auto kWait = milliseconds(10);
constexpr auto kMemoryPause = microseconds(200);
constexpr auto kAttachPause = milliseconds(10);
constexpr int kFramesBetweenChores = 32;

constexpr std::int64_t kMillisecond_ns = 1'000'000;
constexpr std::int64_t kDay_ns = std::int64_t{86'400} * 1'000'000'000;
// What a kill leaves on disk is at most this old, plus the time of one write.
constexpr std::int64_t kFlushAge_ns = 200 * kMillisecond_ns;
constexpr std::int64_t kFateInterval_ns = 100 * kMillisecond_ns;
// A stream that went and did not come back for so long ends its cube.
constexpr std::int64_t kGone_ns = 2'000 * kMillisecond_ns;
// A stream that cannot be logged is looked at again after so long.
constexpr std::int64_t kRefused_ns = 500 * kMillisecond_ns;
// Smaller steps back than this are jitter of the camera's clock.
constexpr std::int64_t kClockStep_ns = 500 * kMillisecond_ns;
// After a stop the frame that is just being written gets this long.
constexpr std::int64_t kStopGrace_ns = 50 * kMillisecond_ns;
// When no frame comes at all, a session ends so long after its instant, and two frames.
constexpr std::int64_t kSilence_ns = 100 * kMillisecond_ns;
// A camera's clock that is wrong by more is worth a word.
constexpr std::int64_t kClockAhead_ns = 1'000 * kMillisecond_ns;

constexpr std::size_t kOrders = 16;  // that may wait to be read

constexpr std::size_t kCardBytes = 80;

void add(std::atomic<std::uint64_t>& counter, std::uint64_t value) noexcept {
    counter.store(counter.load(std::memory_order_relaxed) + value, std::memory_order_relaxed);
}

std::int64_t day_of(std::int64_t time_ns) noexcept {
    return time_ns / kDay_ns;
}

}  // namespace

Capture::Capture(const CaptureConfig& config, ChunkPool& pool, CubeTable& cubes,
                 EventQueue& events, const DiskWriter& disk)
    : config_(config),
      pool_(pool),
      cubes_(cubes),
      events_(events),
      disk_(disk),
      orders_(kOrders),
      timeout_ns_(config.timeout.count()),
      cube_orders_(CubeTable::kCubes),
      cube_size_(config.cube_size),
      header_bytes_(config.header_bytes),
      header_keywords_(config.header_keywords),
      placer_(pool),
      keywords_(config.new_cube_keywords),
      gate_(config.controlled, {config.max_frames, config.max_cubes}) {
    publish_saving();
}

Capture::~Capture() {
    abort();
    join();
}

void Capture::start(int priority, const std::vector<int>& cpus) {
    thread_ = std::thread([this, priority, cpus] {
        const std::string note = set_up_thread("vmp-capture", priority, cpus);
        if (!note.empty()) events_.push(EventKind::note, 0, 0, note);
        run();
    });
}

void Capture::join() {
    if (thread_.joinable()) thread_.join();
}

void Capture::run() {
    last_frame_ns_ = monotonic_now_ns();
    while (!done()) {
        if (!reader_) {
            mind_session();  // before: what is begun now goes back to the call
            if (!try_attach()) std::this_thread::sleep_for(kAttachPause);
            idle_work();
            continue;
        }
        const std::int64_t before_ns = utc_now_ns();
        const Wake wake = reader_->wait(stopping_ ? milliseconds(0) : kWait);
        if (wake == Wake::timeout) quiet_ns_ = before_ns;
        if (wake == Wake::frame && !capture_some()) std::this_thread::sleep_for(kMemoryPause);
        const bool was_full = counters_.memory_full.load(std::memory_order_relaxed);
        if (wake == Wake::timeout && was_full && room_for_frame()) memory_is(false);
        if (wake == Wake::gone) fate_checked_ns_ = 0;
        look_after_stream();
        mind_session();
        idle_work();
    }
    finish();
}

bool Capture::done() {
    if (limit_reached_) return true;
    if (!stopping_ && stop_.load() && (abort_.load() || on_current_stream())) {
        stopping_ = true;
        take_orders(nullptr);  // those sent before the stop
        stop_at_cnt0_ = reader_ ? reader_->newest_cnt0() : 0;
        stop_deadline_ns_ = monotonic_now_ns() + kStopGrace_ns;
    }
    if (!stopping_) return false;
    if (abort_.load() || gate_.off()) return true;
    if (!reader_ || reader_->last_cnt0() >= stop_at_cnt0_) return true;
    return nothing_comes(stop_deadline_ns_);
}

// After a stop: no frame waits, and the one that was being written had its time.
bool Capture::nothing_comes(std::int64_t& deadline_ns) {
    const std::int64_t now_ns = monotonic_now_ns();
    const bool waiting = reader_->wait(milliseconds(0)) == Wake::frame;
    // With memory full the frames wait in the stream; else all that can be read is read.
    if (waiting && counters_.memory_full.load()) deadline_ns = now_ns + kStopGrace_ns;
    return !waiting && now_ns > deadline_ns;
}

// Frames published before a stop are logged, also those of a stream re-created a moment ago.
bool Capture::on_current_stream() {
    if (!reader_) {
        if (gone_since_ns_ != 0) try_attach();
        return true;
    }
    if (reader_->file().fate() != FileFate::replaced) return true;
    fate_checked_ns_ = 0;
    return false;
}

// -- sessions --------------------------------------------------------------------------------

bool Capture::begin_saving(std::int64_t start_ns, const SavingLimits& limits) {
    SavingOrder order;
    order.kind = SavingOrder::Kind::begin;
    order.instant_ns = start_ns;
    order.limits = limits;
    return send(order);
}

bool Capture::end_saving(std::int64_t stop_ns, bool whole_cube) {
    SavingOrder order;
    order.kind = SavingOrder::Kind::end;
    order.instant_ns = stop_ns;
    order.whole_cube = whole_cube;
    return send(order);
}

// In the calling thread, as is stream_now(): it opens the stream for itself.
bool Capture::send(SavingOrder order) {
    order.called_at = stream_now();
    const std::lock_guard lock(orders_mutex_);
    return orders_.try_push(order);
}

StreamPosition Capture::stream_now() const noexcept {
    try {
        const auto file = StreamFile::open(config_.directory, config_.stream);
        return {file->inode(), load(file->metadata().cnt0)};
    } catch (const std::exception&) {
        return {};
    }
}

// Obeys the orders that are due. `next`: the frame to be judged now, if one can be read. True
// when something changed.
bool Capture::take_orders(const FrameTicket* next) {
    bool changed = false;
    for (;;) {
        if (!order_) {
            SavingOrder order;
            if (!orders_.try_pop(order)) return changed;
            order_ = order;
            order_deadline_ns_ = monotonic_now_ns() + kStopGrace_ns;
            publish_saving();
        }
        if (!is_due(*order_, next)) return changed;
        const SavingOrder order = *order_;
        order.kind == SavingOrder::Kind::begin ? obey_begin(order) : obey_end(order);
        order_.reset();
        publish_saving();
        changed = true;
        if (next != nullptr) return true;  // another frame may be the next now
    }
}

// Whether the frames are dealt with that were published before the order was sent; also those
// of a stream that was replaced before.
bool Capture::is_due(const SavingOrder& order, const FrameTicket* next) {
    const StreamPosition& sent_at = order.called_at;
    if (sent_at.inode != 0 && !reads(sent_at) && !on_current_stream()) return false;
    const bool begins = order.kind == SavingOrder::Kind::begin;
    if (!begins && order.instant_ns != 0) return true;
    if (!reader_) {
        return begins || sent_at.inode == 0 || monotonic_now_ns() > order_deadline_ns_;
    }
    const bool same = reads(sent_at);
    if (sent_at.inode != 0 && !same) return true;  // what was left of that stream is read
    if (same && reader_->newest_cnt0() < sent_at.cnt0) return true;  // it counts from anew
    if (next != nullptr) return same && next->info.cnt0 > sent_at.cnt0;
    return (same && reader_->last_cnt0() >= sent_at.cnt0) || nothing_comes(order_deadline_ns_);
}

bool Capture::reads(const StreamPosition& position) const noexcept {
    return reader_ && reader_->file().inode() == position.inode;
}

void Capture::obey_begin(const SavingOrder& order) {
    if (!gate_.begin(order)) return;
    begun_at_ = order.called_at;
    session_ = {.newest_cnt0 = session_.newest_cnt0, .newest_ns = session_.newest_ns};
    session_last_ns_ = 0;
    cubes_ended_ = 0;
    was_full_ = counters_.memory_full.load();
    count_from_attached();
    const bool may_be_there = looked_at_ == 0 || order.instant_ns <= session_.newest_ns;
    if (reader_ && order.instant_ns != 0 && may_be_there) reader_->rewind(accounted_.cnt0);
    publish_saving();
}

// What passed before the order, or before this stream was there, is nobody's loss.
void Capture::count_from_attached() noexcept {
    if (!reader_ || !gate_.waiting()) return;
    std::uint64_t cnt0 = std::max(reader_->last_cnt0(), accounted_.cnt0);
    if (reads(begun_at_)) cnt0 = std::max(cnt0, begun_at_.cnt0);
    gate_.count_from(cnt0);
}

void Capture::obey_end(const SavingOrder& order) {
    bool over = gate_.end(order, cube_.has_value());
    if (!over && gate_.stop_ns() && session_.frames > 0) {  // perhaps it comes too late
        const bool late = session_last_ns_ >= *gate_.stop_ns();
        over = late && gate_.over_at_instant(cube_.has_value());
    }
    if (!over) return;
    const StreamPosition& sent_at = order.called_at;
    if (reads(sent_at) && gate_.saving() && reader_->newest_cnt0() >= sent_at.cnt0) {
        const std::uint64_t missing = unread_of_session(sent_at.cnt0);
        count_unread(missing);
        if (missing > 0) accounted_.cnt0 = sent_at.cnt0;
    }
    end_session();
}

void Capture::mind_session() {
    if (!config_.controlled) return;
    take_orders(nullptr);
    if (gate_.off()) {
        if (counters_.memory_full.load() && room_for_frame()) memory_is(false);
    } else if (past_stop()) {
        if (gate_.over_at_instant(cube_.has_value())) end_session();
        publish_saving();
    }
}

// Whether the instant of the end has passed, without another frame that would show it.
bool Capture::past_stop() {
    if (!gate_.stop_ns()) return false;
    const std::int64_t stop_ns = *gate_.stop_ns();
    const auto patience_ns = kSilence_ns + static_cast<std::int64_t>(2 * frame_interval_ns_);
    if (utc_now_ns() - stop_ns < patience_ns) return false;
    if (monotonic_now_ns() - last_frame_ns_ < patience_ns) return false;
    return !reader_ || reader_->wait(milliseconds(0)) != Wake::frame;
}

void Capture::end_session() {
    if (cube_) finish_cube(CubeEndReason::saving_paused);
    begin_next(close_session());
}

// Gives back an order to begin that waited for this.
std::optional<SavingOrder> Capture::close_session() {
    char text[sizeof(Event::text)];
    std::snprintf(text, sizeof text, "%llu frames in %llu cubes, %llu lost",
                  static_cast<unsigned long long>(session_.frames),
                  static_cast<unsigned long long>(session_.cubes),
                  static_cast<unsigned long long>(session_.lost));
    // Frames that were lost when no cube was there to say so.
    const auto untold = static_cast<std::int64_t>(std::exchange(lost_due_, 0));
    torn_due_ = 0;
    const std::optional<SavingOrder> next = gate_.close();
    publish_saving();
    events_.push(EventKind::saving_ended, 0, untold, text);
    return next;
}

void Capture::begin_next(const std::optional<SavingOrder>& order) {
    if (order) obey_begin(*order);
}

void Capture::publish_saving() noexcept {
    SavingState state = gate_.state();
    const bool to_end = order_ && order_->kind == SavingOrder::Kind::end;
    if (to_end && state == SavingState::on) state = SavingState::ending;
    session_.state = static_cast<std::uint64_t>(state);
    session_.session = gate_.sessions();
    saving_status_.store(session_);
}

// -- the stream ------------------------------------------------------------------------------

bool Capture::try_attach() {
    const std::int64_t now_ns = monotonic_now_ns();
    if (cube_ && gone_since_ns_ != 0 && now_ns - gone_since_ns_ > kGone_ns) {
        end_cube(CubeEndReason::stream_gone);
    }
    if (now_ns < refused_until_ns_) return false;
    try {
        const auto file = StreamFile::open(config_.directory, config_.stream);
        check_loggable(*file);
        attach(file);
        return true;
    } catch (const StreamNotFound&) {
    } catch (const StreamIncomplete&) {
    } catch (const std::exception& error) {
        refuse(error.what());
    }
    return false;
}

// Says why once, and looks at the stream again in a while: it may have been made anew
// meanwhile.
void Capture::refuse(const std::string& why) {
    refused_until_ns_ = monotonic_now_ns() + kRefused_ns;
    if (why == refused_) return;
    refused_ = why;
    events_.push(EventKind::refused, 0, 0, why);
}

void Capture::check_loggable(const StreamFile& file) const {
    const StreamShape& shape = file.shape();
    const std::string stream = "stream '" + file.name() + "'";
    const auto form = fits_form(shape.type);
    if (!form) {
        throw StreamUnsupported(stream +
                                " is complex: FITS images have no complex pixels; log "
                                "its real and imaginary parts as streams of their own");
    }
    const bool slices = shape.temporal_ring() || config_.rolling;
    if (shape.naxis == 3 && !slices) {
        throw StreamUnsupported(
            stream + " is 3D, " + std::to_string(shape.size[2]) + " x " +
            std::to_string(shape.size[1]) + " x " + std::to_string(shape.size[0]) +
            " (z, y, x), and no temporal ring: a cube holds 2D frames; if cnt1 is its newest "
            "slice, log it with --rolling");
    }
    const std::size_t bytes =
        file.frame_bytes(slices) / pixel_bytes(shape.type) * form->bytes_per_pixel;
    const std::size_t needed = placer_.chunks_for(next_header_bytes(), bytes);
    if (needed > pool_.count()) {
        throw StreamUnsupported(stream + " has frames of " + std::to_string(bytes) +
                                " bytes in the file: the ring "
                                "memory of " +
                                std::to_string(pool_.total_bytes()) +
                                " bytes is too small, expected "
                                "at least " +
                                std::to_string(needed * pool_.total_bytes() / pool_.count()));
    }
}

void Capture::attach(std::shared_ptr<StreamFile> file) {
    const bool again = gone_since_ns_ != 0;
    ReaderOptions options;
    options.rolling = config_.rolling;
    options.tai_offset_ns = config_.tai_offset_ns;
    options.from_oldest = again || gate_.waiting();
    reader_ = std::make_unique<StreamReader>(file, options);
    const Geometry geometry{file->shape().type, reader_->width(), reader_->height()};
    if (cube_ && geometry != geometry_) end_cube(CubeEndReason::stream_recreated);
    geometry_ = geometry;
    frame_bytes_ = std::size_t{geometry.width} * geometry.height *
                   fits_form(geometry.type)->bytes_per_pixel;
    keywords_.attach(file->keyword_table());
    first_of_stream_ = true;
    looked_at_ = 0;
    found_ = reader_->newest_cnt0();
    if (accounted_.inode != file->inode()) accounted_ = {file->inode(), 0};
    if (again) {
        reader_->continue_count(gone_at_cnt0_, frame_interval_ns_);
        recreated_ = true;
        gone_since_ns_ = 0;
    }
    count_from_attached();
    counters_.attached.store(true);
    events_.push(EventKind::attached, 0, static_cast<std::int64_t>(file->inode()),
                 file->name());
}

void Capture::look_after_stream() {
    const std::int64_t now_ns = monotonic_now_ns();
    if (!reader_ || now_ns - fate_checked_ns_ < kFateInterval_ns) return;
    fate_checked_ns_ = now_ns;
    const FileFate fate = reader_->file().fate();
    if (fate == FileFate::same) return;
    // What the old file still holds is read first.
    if (!reader_->file().broken() && reader_->wait(milliseconds(0)) == Wake::frame) {
        fate_checked_ns_ = 0;
        return;
    }
    detach(fate);
    if (fate == FileFate::replaced) try_attach();
}

void Capture::detach(FileFate fate) {
    constexpr const char* kFates[] = {"", "was re-created", "was removed", "was truncated"};
    gone_since_ns_ = monotonic_now_ns();
    gone_at_cnt0_ = reader_->last_cnt0() + reader_->unread();
    count_unread(unread_of_session(gone_at_cnt0_));
    reader_.reset();
    counters_.attached.store(false);
    events_.push(EventKind::stream_gone, 0, static_cast<std::int64_t>(fate),
                 kFates[static_cast<int>(fate)]);
}

// Frames up to `newest` that are the session's and not read yet.
std::uint64_t Capture::unread_of_session(std::uint64_t newest) const noexcept {
    if (gate_.off() || gate_.armed()) return 0;
    std::uint64_t from = reader_->last_cnt0();
    if (gate_.waiting()) from = std::max(from, gate_.counted_from());
    const bool stops =
        order_ && order_->kind == SavingOrder::Kind::end && reads(order_->called_at);
    if (stops && order_->instant_ns == 0) newest = std::min(newest, order_->called_at.cnt0);
    return newest > from ? newest - from : 0;
}

// Frames that nobody will read.
void Capture::count_unread(std::uint64_t frames) noexcept {
    const std::uint64_t torn = std::min(frames, reader_->torn_since_last());
    lost_due_ += frames;
    torn_due_ += torn;
    count_lost(frames, torn);
}

void Capture::count_lost(std::uint64_t frames, std::uint64_t torn) noexcept {
    add(counters_.lost, frames);
    add(counters_.torn, torn);
    session_.lost += frames;
    session_.torn += torn;
}

// -- frames ----------------------------------------------------------------------------------

// False when frames wait and there is no memory for them.
bool Capture::capture_some() {
    for (int count = 0; count < kFramesBetweenChores && !limit_reached_; ++count) {
        const bool saving = gate_.saving();  // else frames are looked at, and need no room
        if (saving && !room_for_frame()) {
            const bool frames_wait = reader_->wait(milliseconds(0)) == Wake::frame;
            if (frames_wait) memory_is(true);
            return !frames_wait;
        }
        if (saving) memory_is(false);
        if (!capture_one(saving)) break;
    }
    return true;
}

// False when no frame waits. `saving`: there is room for it.
bool Capture::capture_one(bool saving) {
    FrameTicket ticket;
    const std::int64_t before_ns = config_.controlled ? utc_now_ns() : 0;
    try {
        if (!reader_->begin(ticket)) {
            quiet_ns_ = before_ns;
            return false;
        }
    } catch (const StreamUnsupported& error) {
        refuse(error.what());
        detach(FileFate::same);
        return false;
    }
    if (config_.controlled) {
        // Read now, an order sent before this frame was published is known before it is judged.
        if (take_orders(&ticket) || gate_.saving() != saving) return true;
        if (!wants_pixels(ticket)) return true;
    }
    const bool keywords_known = look_at_keywords(ticket);  // soon: the next frame has others
    const std::uint32_t sum = convert(ticket);
    const bool whole = reader_->confirm(ticket);
    reader_->let_go(ticket);
    if (whole) keep(ticket, keywords_known, sum);
    return true;
}

// Whether they are those of the frame. Shared memory has the keywords of the newest one.
bool Capture::look_at_keywords(const FrameTicket& ticket) noexcept {
    const bool any = std::exchange(keywords_are_old_, false);
    const bool known = keywords_.look(ticket.info.cnt0, ticket.newest, any);
    counters_.keywords_unsettled.store(keywords_.unsettled(), std::memory_order_relaxed);
    return known;
}

// False when the frame was dealt with, or another is to be begun.
bool Capture::wants_pixels(FrameTicket& ticket) {
    using Sight = SavingGate::Sight;
    switch (gate_.first_sight(ticket.info.cnt0, reader_->newest_cnt0())) {
        case Sight::pass:
            pass(ticket);
            return false;
        case Sight::look:
            look(ticket);
            return false;
        case Sight::save:
            break;
    }
    return true;
}

// A frame of no session.
void Capture::pass(FrameTicket& ticket) {
    keywords_are_old_ = true;
    if (!reader_->confirm(ticket)) return;
    const FrameInfo& info = ticket.info;
    note_reset(info);
    note_newest(info, time_of(info).ns);
    note_interval(ticket.newest && info.lost == 0);
    publish_saving();
}

// A frame that may be the first: its time decides, and only then its pixels are wanted. They
// are as safe as before, since a look takes no time beside a copy.
void Capture::look(FrameTicket& ticket) {
    keywords_are_old_ = true;
    if (!reader_->confirm(ticket)) return;
    const FrameInfo& info = ticket.info;
    note_reset(info);
    const FrameTime time = time_of(info);
    note_newest(info, time.ns);
    if (gate_.starts_with(info.cnt0, time, (info.flags & kCounterReset) != 0)) {
        say_clock_offset(time);
        reader_->unconfirm();
    } else {
        note_interval(ticket.newest && info.lost == 0);
    }
    publish_saving();
}

// What is known of the count before says nothing about this one.
void Capture::note_reset(const FrameInfo& info) noexcept {
    if ((info.flags & kCounterReset) != 0) accounted_.cnt0 = looked_at_ = found_ = 0;
}

FrameTime Capture::time_of(const FrameInfo& info) const noexcept {
    FrameTime time{info.acquired_ns, 0};
    if (info.cnt0 > std::max(looked_at_, found_)) {  // was published just now
        time.published_after_ns = quiet_ns_;
        if (time.ns == 0) time.ns = utc_now_ns();
    } else if (time.ns == 0) {
        time.ns = info.cnt0 == looked_at_ ? session_.newest_ns : info.written_ns;
    }
    return time;
}

void Capture::note_newest(const FrameInfo& info, std::int64_t time_ns) noexcept {
    if (info.cnt0 <= looked_at_) return;
    looked_at_ = info.cnt0;
    session_.newest_cnt0 = info.cnt0;
    session_.newest_ns = time_ns;
}

void Capture::say_clock_offset(const FrameTime& time) {
    const auto behind_ns = gate_.take_clock_offset_ns();
    const std::int64_t ahead_ns = time.ns - utc_now_ns();
    if (!behind_ns && ahead_ns < kClockAhead_ns) return;
    char text[sizeof(Event::text)];
    std::snprintf(
        text, sizeof text, "the clock of the camera is %.3f s %s that of this machine: %s",
        static_cast<double>(behind_ns ? *behind_ns : ahead_ns) / 1e9,
        behind_ns ? "behind" : "ahead of",
        behind_ns ? "saving began or ended by this machine's" : "saving began or ended early");
    events_.push(EventKind::note, 0, 0, text);
}

// Whether a frame just copied is the session's. Its losses are, in any case.
bool Capture::admit(FrameInfo& info) {
    note_reset(info);
    const FrameTime time = time_of(info);
    note_newest(info, time.ns);
    if (gate_.waiting()) {  // what was before the session does not concern it
        info.lost = gate_.lost_before(info.cnt0);
        info.torn = std::min(info.torn, info.lost);
        info.flags &= kAcquiredFromAtime | kCaughtUp;
        if (info.torn > 0) info.flags |= kTornBefore;
        recreated_ = false;
        first_of_stream_ = true;
    }
    const std::uint64_t inode = reader_->file().inode();
    if (gate_.admits(time, cube_.has_value())) {
        session_last_ns_ = time.ns;
        accounted_ = {inode, info.cnt0};
        return true;
    }
    say_clock_offset(time);
    reader_->unconfirm();  // perhaps the next session's
    accounted_ = {inode, info.cnt0 - 1};
    lost_due_ += info.lost;
    torn_due_ += info.torn;
    count_lost(info.lost, info.torn);
    end_session();
    return false;
}

bool Capture::room_for_frame() {
    if (!take_cube_index()) return false;
    if (!cube_) {  // also when it was started before: the header may have grown
        cube_header_bytes_ = next_header_bytes();
        placer_.start(cube_header_bytes_);
    }
    return placer_.reserve(frame_bytes_);
}

bool Capture::take_cube_index() {
    if (cube_ || spare_cube_) return true;
    std::uint32_t index = 0;
    if (!cubes_.free.try_pop(index)) return false;
    spare_cube_ = index;
    return true;
}

std::uint32_t Capture::convert(const FrameTicket& ticket) const noexcept {
    const std::size_t in_bytes = pixel_bytes(geometry_.type);
    const std::size_t out_bytes = fits_form(geometry_.type)->bytes_per_pixel;
    std::uint32_t sum = 0;
    std::size_t done = 0;  // pixels
    for (const FramePlacer::Piece& piece : placer_.pieces()) {
        const std::size_t pixels = piece.bytes / out_bytes;
        const std::uint32_t piece_sum =
            convert_to_fits(geometry_.type, ticket.pixels + done * in_bytes, piece.at, pixels);
        sum = sum_add(sum, sum_shift(piece_sum, done * out_bytes));
        done += pixels;
    }
    return sum;
}

FrameRow Capture::row_of(const FrameInfo& info) noexcept {
    FrameRow row;
    row.cnt0 = static_cast<std::int64_t>(info.cnt0);
    row.cnt1 = static_cast<std::int64_t>(info.cnt1);
    row.acquired_ns = info.acquired_ns;
    row.written_ns = info.written_ns;
    row.logged_ns = utc_now_ns();
    row.lost = static_cast<std::int64_t>(info.lost + lost_due_);
    row.flags = info.flags;
    if (was_full_ && row.lost > 0) row.flags |= kRingFull;
    if (recreated_) row.flags |= kStreamRecreated;
    if (torn_due_ > 0) row.flags |= kTornBefore;
    was_full_ = recreated_ = false;
    lost_due_ = 0;
    return row;
}

void Capture::keep(const FrameTicket& ticket, bool keywords_known, std::uint32_t sum) {
    FrameInfo info = ticket.info;
    if (config_.controlled && !admit(info)) return;
    FrameRow row = row_of(info);
    count_lost(info.lost, info.torn);
    torn_due_ += info.torn;
    const auto reason = cube_ ? boundary(row, keywords_known) : std::nullopt;
    if (reason && !pass_boundary(*reason, row)) return;
    if (!cube_) begin_cube(row);
    Cube& cube = cubes_[*cube_];
    if (keywords_known && cube.end.frames > 0) note_keywords(cube);
    row.frame = static_cast<std::int32_t>(cube.end.frames);
    placer_.commit(row, sum);

    const std::int64_t time_ns = cube_time_ns(row);
    if (time_ns != 0) cube.end.last_time_ns = time_ns;
    cube.end.last_cnt0 = info.cnt0;
    cube.end.lost += static_cast<std::uint64_t>(row.lost);
    cube.end.torn += std::exchange(torn_due_, 0);
    ++cube.end.frames;

    note_interval(ticket.newest && info.lost == 0);
    add(counters_.frames, 1);
    add(counters_.bytes, reader_->frame_bytes());
    counters_.cube_frames.store(cube.end.frames);
    counters_.last_cnt0.store(info.cnt0);
    counters_.last_frame_ns.store(row.logged_ns);
    note_kept(row);
    end_when_full();
}

void Capture::note_kept(const FrameRow& row) noexcept {
    const std::int64_t time_ns = row.acquired_ns != 0 ? row.acquired_ns : row.logged_ns;
    const auto cnt0 = static_cast<std::uint64_t>(row.cnt0);
    if (!config_.controlled) {
        session_.newest_cnt0 = cnt0;
        session_.newest_ns = time_ns;
    }
    if (session_.frames++ == 0) {
        session_.first_cnt0 = cnt0;
        session_.first_ns = time_ns;
    }
    session_.end_cnt0 = cnt0;
    publish_saving();
}

void Capture::note_interval(bool newest_and_next) noexcept {
    const std::int64_t now_ns = monotonic_now_ns();
    const bool first = std::exchange(first_of_stream_, false);
    if (newest_and_next && !first) {
        const auto interval_ns = static_cast<double>(now_ns - last_frame_ns_);
        frame_interval_ns_ = frame_interval_ns_ == 0
                                 ? interval_ns
                                 : 0.9 * frame_interval_ns_ + 0.1 * interval_ns;
    }
    last_frame_ns_ = now_ns;
}

// -- cubes -----------------------------------------------------------------------------------

std::size_t Capture::next_header_bytes() const noexcept {
    std::size_t bytes = header_bytes_.load();
    const std::size_t expected = header_keywords_.load();
    const std::size_t keywords = reader_ ? reader_->file().shape().keywords : expected;
    if (keywords > expected) {  // re-created with more; Python has not said yet
        const std::size_t more = (keywords - expected) * kCardBytes;
        bytes += (more + kFitsBlock - 1) / kFitsBlock * kFitsBlock;
    }
    return bytes;
}

std::int64_t Capture::cube_time_ns(const FrameRow& row) const noexcept {
    return cubes_[*cube_].start.acquisition_times ? row.acquired_ns : row.logged_ns;
}

// Whether the frame cannot be in the current cube.
std::optional<CubeEndReason> Capture::boundary(const FrameRow& row,
                                               bool keywords_known) noexcept {
    if (const auto reason = time_boundary(row)) return reason;
    // Of a frame read late they are not known where one changed since it was published: the
    // cube then ends at the first frame after it of which they are.
    const char* changed = keywords_known ? keywords_.ends_cube() : nullptr;
    if (changed == nullptr) return std::nullopt;
    auto& name = cubes_[*cube_].end.keyword;
    std::strncpy(name.data(), changed, name.size() - 1);
    return CubeEndReason::keyword_changed;
}

// Times in a cube go forward, in one UTC day.
std::optional<CubeEndReason> Capture::time_boundary(const FrameRow& row) const noexcept {
    const Cube& cube = cubes_[*cube_];
    const std::int64_t time_ns = cube_time_ns(row);
    if (time_ns == 0) return std::nullopt;
    if (day_of(time_ns) != cube_day_) return CubeEndReason::utc_midnight;
    const FrameRow& first = cube.start.first;
    const std::int64_t begin_ns =
        cube.start.acquisition_times ? first.acquired_ns : first.logged_ns;
    if (time_ns < begin_ns || time_ns + kClockStep_ns < cube.end.last_time_ns) {
        return CubeEndReason::clock_step;
    }
    return std::nullopt;
}

// Ends the cube before the frame just copied, and makes that frame the first of the next.
// False when there is no next cube, or no memory for it before an abort: the frame is not kept.
bool Capture::pass_boundary(CubeEndReason reason, const FrameRow& row) {
    const bool last_cube = gate_.filling() || cubes_ended_ + 1 >= gate_.limits().cubes;
    if (!last_cube && split(reason)) return true;
    lost_due_ += static_cast<std::uint64_t>(row.lost);
    if (last_cube) {
        if (config_.controlled) {
            reader_->unconfirm();  // perhaps the next session's
            accounted_.cnt0 = static_cast<std::uint64_t>(row.cnt0) - 1;
        }
        end_cube(reason);
    } else {
        lost_due_ += 1;
        count_lost(1, 0);
    }
    return false;
}

bool Capture::split(CubeEndReason reason) {
    Cube& cube = cubes_[*cube_];
    cube.end.reason = reason;
    const std::size_t header_bytes = next_header_bytes();
    while (!placer_.split(header_bytes)) {
        if (!wait_for_memory()) return false;
    }
    cube.ended_with.store(cube.end.frames);
    ++cubes_ended_;
    cube_.reset();
    cube_header_bytes_ = header_bytes;
    while (!take_cube_index()) {
        if (!wait_for_memory()) return false;
    }
    memory_is(false);
    return true;
}

// False when the logger was aborted.
bool Capture::wait_for_memory() {
    memory_is(true);
    if (abort_.load()) return false;
    std::this_thread::sleep_for(kMemoryPause);
    return true;
}

void Capture::begin_cube(const FrameRow& row) {
    cube_ = std::exchange(spare_cube_, std::nullopt);
    placer_.set_cube(*cube_);
    refused_.clear();
    Cube& cube = cubes_[*cube_];
    add(counters_.cubes, 1);
    ++session_.cubes;
    CubeStart& start = cube.start;
    start.number = counters_.cubes.load();
    start.session = gate_.sessions();
    start.type = geometry_.type;
    start.width = geometry_.width;
    start.height = geometry_.height;
    start.planned_frames = std::max<std::uint32_t>(cube_size_.load(), 1);
    const std::uint64_t left = gate_.limits().frames - session_.frames;
    start.expected_frames =
        static_cast<std::uint32_t>(std::clamp<std::uint64_t>(left, 1, start.planned_frames));
    start.header_bytes = cube_header_bytes_;
    start.frame_bytes = frame_bytes_;
    start.acquisition_times = row.acquired_ns != 0;
    start.first = row;
    start.keywords.assign(keywords_.entries(), keywords_.entries() + keywords_.used());
    keywords_.begin_cube();
    cube.end.keyword = {};
    cube.end.frames = 0;
    cube.end.lost = cube.end.torn = cube.end.lost_at_end = 0;
    cube.end.keyword_changes = 0;
    cube.end.last_time_ns = 0;
    cube.disk = CubeOnDisk{};
    cube.opened.store(Opened::pending);
    cube.frame_limit.store(start.expected_frames);
    cube.ended_with.store(Cube::kGrowing);
    cube.given_up.store(false);
    cube_day_ = day_of(cube_time_ns(row));
    last_hand_over_ns_ = monotonic_now_ns();
    last_handed_over_ = 0;
    counters_.cube_planned.store(start.planned_frames);
    events_.push(EventKind::cube_started, *cube_, 0, "");
}

void Capture::note_keywords(Cube& cube) noexcept {
    keywords_.changes([&cube](const KeywordEntry& entry) {
        CubeEnd& end = cube.end;
        if (end.keyword_changes < kMaxKeywordChanges) {
            end.changes[end.keyword_changes] = {static_cast<std::int32_t>(end.frames), entry};
        }
        ++end.keyword_changes;
    });
}

// Ends the cube, and with it what was to last as long.
void Capture::end_cube(CubeEndReason reason) {
    finish_cube(reason);
    const SavingLimits& most = gate_.limits();
    const bool reached = cubes_ended_ >= most.cubes || session_.frames >= most.frames;
    if (!config_.controlled) {
        limit_reached_ = limit_reached_ || reached;
    } else if (reached || gate_.filling()) {
        begin_next(close_session());
    }
}

void Capture::finish_cube(CubeEndReason reason) {
    Cube& cube = cubes_[*cube_];
    CubeEnd& end = cube.end;
    end.reason = reason;
    end.lost_at_end = std::exchange(lost_due_, 0);
    end.torn += std::exchange(torn_due_, 0);
    cube.ended_with.store(end.frames);
    placer_.end();
    cube_.reset();
    ++cubes_ended_;
    counters_.cube_frames.store(0);
}

bool Capture::end_cube(std::uint64_t number, const std::string& keyword) noexcept {
    CubeOrder order{number, {}};
    std::strncpy(order.keyword.data(), keyword.c_str(), order.keyword.size() - 1);
    return cube_orders_.try_push(order);
}

void Capture::end_ordered_cube() {
    CubeOrder order;
    while (cube_orders_.try_pop(order)) {
        if (!cube_ || cubes_[*cube_].start.number != order.number) continue;
        cubes_[*cube_].end.keyword = order.keyword;
        end_cube(CubeEndReason::keyword_changed);
    }
}

void Capture::end_when_full() {
    const Cube& cube = cubes_[*cube_];
    if (session_.frames >= gate_.limits().frames) {
        end_cube(CubeEndReason::frame_limit);
    } else if (cube.end.frames >= cube.frame_limit.load(std::memory_order_relaxed)) {
        const bool whole = cube.end.frames >= cube.start.planned_frames;
        end_cube(whole ? CubeEndReason::cube_size : CubeEndReason::disk_full);
    }
}

// -- chores ----------------------------------------------------------------------------------

void Capture::idle_work() {
    end_ordered_cube();
    if (next_cube_.exchange(false) && cube_) end_cube(CubeEndReason::next_cube);
    if (cube_) end_when_full();  // its disk may have filled meanwhile
    if (!cube_) return;
    const std::int64_t now_ns = monotonic_now_ns();
    const std::int64_t timeout_ns = timeout_ns_.load();
    const bool waiting = counters_.memory_full.load(std::memory_order_relaxed);
    if (timeout_ns > 0 && now_ns - last_frame_ns_ > timeout_ns && !waiting) {
        end_cube(CubeEndReason::timeout);
        return;
    }
    flush_when_due(now_ns);
}

void Capture::flush_when_due(std::int64_t now_ns) {
    if (placer_.handed_over() != last_handed_over_ || !placer_.has_unflushed()) {
        last_handed_over_ = placer_.handed_over();
        last_hand_over_ns_ = now_ns;
    } else if (now_ns - last_hand_over_ns_ > kFlushAge_ns && disk_.idle()) {
        placer_.flush();
        last_hand_over_ns_ = now_ns;
    }
}

void Capture::memory_is(bool full) {
    if (counters_.memory_full.load(std::memory_order_relaxed) == full) return;
    counters_.memory_full.store(full);
    was_full_ = was_full_ || full;
    events_.push(full ? EventKind::memory_full : EventKind::memory_freed, 0, 0, "");
}

void Capture::finish() {
    // Frames after a limit are not asked for; nobody misses them.
    if (reader_ && stopping_ && !limit_reached_) {
        count_unread(unread_of_session(stop_at_cnt0_));
    }
    const std::uint64_t lost_at_end = lost_due_;
    if (!config_.controlled) {
        if (cube_) end_cube(CubeEndReason::stop);
        gate_.close();
        publish_saving();
    } else if (!gate_.off()) {
        if (cube_) finish_cube(CubeEndReason::stop);
        close_session();
    }
    reader_.reset();
    counters_.attached.store(false);
    events_.push(EventKind::finished, 0, static_cast<std::int64_t>(lost_at_end),
                 limit_reached_ ? "limit reached" : "stopped");
}

}  // namespace vampires
