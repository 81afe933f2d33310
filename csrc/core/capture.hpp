// The thread that takes frames out of the stream and into chunks, one pass each.
//
// After attaching it does not allocate, lock, log or wait for the disk. Every frame the stream
// counts ends in a row of a cube, or in the `lost` of the row after it.
//
// A controlled logger does so within sessions (saving_gate.hpp). Outside of them the thread
// looks at each frame, without its pixels, and forgets it; it needs neither chunks nor cubes
// then.
//
// Who owns what: any thread may order a session to begin or to end; the orders wait in a
// mailbox that the capture thread empties, and all that follows from them is that thread's own.
// What the session came to is published as one Snapshot, so that its numbers always belong
// together.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "chunk_pool.hpp"
#include "cube.hpp"
#include "disk_writer.hpp"
#include "engine_events.hpp"
#include "frame_placer.hpp"
#include "keyword_watch.hpp"
#include "pixel_kernels.hpp"
#include "saving_gate.hpp"
#include "snapshot.hpp"
#include "spsc_queue.hpp"
#include "stream_reader.hpp"

namespace vampires {

struct CaptureConfig {
    std::string directory;
    std::string stream;
    bool rolling = false;
    bool controlled = false;  // saves in sessions, as ordered; else from the start to the end
    std::uint32_t cube_size = 1000;
    std::size_t header_bytes = kFitsBlock;       // room for the header of a stream
    std::uint16_t header_keywords = 0;           // that has this many keywords
    std::vector<std::string> new_cube_keywords;  // a cube ends with a change of one of them
    std::int64_t tai_offset_ns = -1;             // -1: ask the kernel
    std::chrono::nanoseconds timeout{
        0};  // a cube ends when no frame came for so long; 0: never
    // The logger ends after so many. The sessions of a controlled one have limits of their own.
    std::uint64_t max_frames = std::numeric_limits<std::uint64_t>::max();
    std::uint64_t max_cubes = std::numeric_limits<std::uint64_t>::max();
};

// Each counter is written by the capture thread alone.
struct CaptureCounters {
    std::atomic<std::uint64_t> frames{0};       // copied into chunks
    std::atomic<std::uint64_t> lost{0};         // published, not copied; torn ones included
    std::atomic<std::uint64_t> torn{0};         // of those, caught half overwritten
    std::atomic<std::uint64_t> bytes{0};        // of the stream's pixels, copied
    std::atomic<std::uint64_t> cubes{0};        // begun
    std::atomic<std::uint32_t> cube_frames{0};  // in the current cube
    std::atomic<std::uint32_t> cube_planned{0};
    std::atomic<std::uint64_t> last_cnt0{0};
    std::atomic<std::int64_t> last_frame_ns{0};  // logger clock
    std::atomic<bool> attached{false};
    std::atomic<bool> memory_full{false};
    std::atomic<std::uint64_t> keywords_unsettled{0};  // looks that found no table to rely on
};

// The session under way, or else the last one; and the newest frame looked at.
struct SavingStatus {
    std::uint64_t state = 0;    // SavingState
    std::uint64_t session = 0;  // sessions begun, armed ones included
    std::uint64_t frames = 0;   // of the session, as all below
    std::uint64_t cubes = 0;    // begun
    std::uint64_t lost = 0;
    std::uint64_t torn = 0;
    std::uint64_t first_cnt0 = 0;
    std::int64_t first_ns = 0;  // acquired, or else the logger's clock; 0: no frame yet
    std::uint64_t end_cnt0 = 0;
    std::uint64_t newest_cnt0 = 0;  // in or out of a session
    std::int64_t newest_ns = 0;     // of the same frame
};

class Capture {
  public:
    Capture(const CaptureConfig& config, ChunkPool& pool, CubeTable& cubes, EventQueue& events,
            const DiskWriter& disk);
    ~Capture();

    void start(int priority, const std::vector<int>& cpus);
    void join();

    // Asks; the thread acts within milliseconds. Frames published before the call are still
    // logged by stop().
    void stop() noexcept { stop_.store(true); }
    // As stop(), but frames that are not in memory yet are given up, and counted as lost.
    void abort() noexcept {
        abort_.store(true);
        stop_.store(true);
    }
    // Of a controlled logger, by any thread: false when too many orders wait to be read.
    // Instants are ns UTC; 0 stands for the call: what was published before it ends a session,
    // what is published after it begins one.
    //
    // The later order holds. Begin while saving changes nothing; while a session is ending it
    // waits for the end. End while armed disarms, unless its instant is after that of the
    // start.
    bool begin_saving(std::int64_t start_ns, const SavingLimits& limits);
    bool end_saving(std::int64_t stop_ns, bool whole_cube);
    SavingStatus saving_status() const noexcept { return saving_status_.load(); }

    void next_cube() noexcept { next_cube_.store(true); }
    // By one thread: ends the cube of this number, if it is under way still, since this keyword
    // changed. False when too many of these orders wait.
    bool end_cube(std::uint64_t number, const std::string& keyword) noexcept;
    void set_timeout(std::chrono::nanoseconds timeout) noexcept {
        timeout_ns_.store(timeout.count());
    }
    void set_cube_size(std::uint32_t frames) noexcept { cube_size_.store(frames); }
    // Room for the header of the next cube, enough for this many keywords.
    void set_header(std::size_t bytes, std::uint16_t keywords) noexcept {
        header_bytes_.store(bytes);
        header_keywords_.store(keywords);
    }

    const CaptureCounters& counters() const noexcept { return counters_; }

  private:
    struct CubeOrder {
        std::uint64_t number = 0;
        decltype(CubeEnd::keyword) keyword{};
    };
    // The shape of what is logged; a cube holds frames of one shape.
    struct Geometry {
        PixelType type{};
        std::uint32_t width = 0;
        std::uint32_t height = 0;
        bool operator==(const Geometry&) const = default;
    };

    StreamPosition stream_now() const noexcept;
    bool send(SavingOrder order);
    bool take_orders(const FrameTicket* next);
    bool is_due(const SavingOrder& order, const FrameTicket* next);
    void obey_begin(const SavingOrder& order);
    void obey_end(const SavingOrder& order);
    void count_from_attached() noexcept;
    void mind_session();
    bool past_stop();
    bool reads(const StreamPosition& position) const noexcept;
    bool nothing_comes(std::int64_t& deadline_ns);
    void end_session();
    std::optional<SavingOrder> close_session();
    void begin_next(const std::optional<SavingOrder>& order);
    void publish_saving() noexcept;

    void run();
    bool done();
    bool on_current_stream();
    bool try_attach();
    void attach(std::shared_ptr<StreamFile> file);
    void check_loggable(const StreamFile& file) const;
    void refuse(const std::string& why);
    void look_after_stream();
    void detach(FileFate fate);
    std::uint64_t unread_of_session(std::uint64_t newest) const noexcept;
    void count_unread(std::uint64_t frames) noexcept;
    void count_lost(std::uint64_t frames, std::uint64_t torn) noexcept;
    bool capture_some();
    bool capture_one(bool saving);
    bool wants_pixels(FrameTicket& ticket);
    void pass(FrameTicket& ticket);
    void look(FrameTicket& ticket);
    void note_reset(const FrameInfo& info) noexcept;
    FrameTime time_of(const FrameInfo& info) const noexcept;
    void note_newest(const FrameInfo& info, std::int64_t time_ns) noexcept;
    void say_clock_offset(const FrameTime& time);
    bool admit(FrameInfo& info);
    bool room_for_frame();
    bool take_cube_index();
    bool look_at_keywords(const FrameTicket& ticket) noexcept;
    std::uint32_t convert(const FrameTicket& ticket) const noexcept;
    void keep(const FrameTicket& ticket, bool keywords_known, std::uint32_t sum);
    bool pass_boundary(CubeEndReason reason, const FrameRow& row);
    void note_interval(bool newest_and_next) noexcept;
    void note_kept(const FrameRow& row) noexcept;
    FrameRow row_of(const FrameInfo& info) noexcept;
    std::int64_t cube_time_ns(const FrameRow& row) const noexcept;
    std::optional<CubeEndReason> boundary(const FrameRow& row, bool keywords_known) noexcept;
    std::optional<CubeEndReason> time_boundary(const FrameRow& row) const noexcept;
    bool split(CubeEndReason reason);
    bool wait_for_memory();
    void begin_cube(const FrameRow& row);
    void note_keywords(Cube& cube) noexcept;
    void end_cube(CubeEndReason reason);
    void finish_cube(CubeEndReason reason);
    void end_ordered_cube();
    void end_when_full();
    void idle_work();
    void flush_when_due(std::int64_t now_ns);
    void memory_is(bool full);
    void finish();
    std::size_t next_header_bytes() const noexcept;

    const CaptureConfig config_;
    ChunkPool& pool_;
    CubeTable& cubes_;
    EventQueue& events_;
    const DiskWriter& disk_;
    std::thread thread_;
    CaptureCounters counters_;

    // Orders of other threads, read by the thread.
    std::mutex orders_mutex_;  // several may send: one at a time
    SpscQueue<SavingOrder> orders_;
    std::atomic<std::int64_t> timeout_ns_;
    std::atomic<bool> stop_{false};
    std::atomic<bool> abort_{false};
    std::atomic<bool> next_cube_{false};
    SpscQueue<CubeOrder> cube_orders_;
    std::atomic<std::uint32_t> cube_size_;
    std::atomic<std::size_t> header_bytes_;
    std::atomic<std::uint16_t> header_keywords_;
    Snapshot<SavingStatus> saving_status_;  // written by the thread

    // All below is the thread's own.
    std::unique_ptr<StreamReader> reader_;
    FramePlacer placer_;
    KeywordWatch keywords_;
    Geometry geometry_;
    std::size_t frame_bytes_ = 0;  // in the file

    std::optional<std::uint32_t> spare_cube_;  // an index taken and not yet used
    std::optional<std::uint32_t> cube_;        // being filled
    std::size_t cube_header_bytes_ = 0;
    std::int64_t cube_day_ = 0;
    std::uint64_t cubes_ended_ = 0;  // of the session

    SavingGate gate_;
    SavingStatus session_;                // as published
    std::optional<SavingOrder> order_;    // read, but not due yet
    std::int64_t order_deadline_ns_ = 0;  // monotonic; for frames that cannot be read yet
    StreamPosition begun_at_;             // the stream when the session was ordered
    StreamPosition accounted_;            // saved or counted as lost in a session
    std::uint64_t found_ = 0;             // cnt0 of this stream when it was attached to
    std::uint64_t looked_at_ = 0;         // newest cnt0 of this stream that was read
    std::int64_t session_last_ns_ = 0;    // time of the last frame kept
    std::int64_t quiet_ns_ = 0;           // UTC; the last time that no unread frame was there
    bool keywords_are_old_ = false;

    bool was_full_ = false;        // memory was full since the last frame kept
    bool recreated_ = false;       // the next frame is the first after a re-creation
    bool first_of_stream_ = true;  // no frame of this stream was kept yet
    // Counted, but in no file yet: due in the next row, or at the end of the cube.
    std::uint64_t lost_due_ = 0;
    std::uint64_t torn_due_ = 0;         // of those
    std::string refused_;                // why, as said last
    std::int64_t refused_until_ns_ = 0;  // monotonic
    bool stopping_ = false;
    bool limit_reached_ = false;
    std::uint64_t stop_at_cnt0_ = 0;
    std::int64_t stop_deadline_ns_ = 0;  // for frames that cannot be read yet
    std::int64_t last_frame_ns_ = 0;     // monotonic, as all below
    std::int64_t last_hand_over_ns_ = 0;
    std::uint64_t last_handed_over_ = 0;
    std::int64_t fate_checked_ns_ = 0;
    std::int64_t gone_since_ns_ = 0;
    std::uint64_t gone_at_cnt0_ = 0;
    double frame_interval_ns_ = 0;  // of the stream, smoothed
};

}  // namespace vampires
