#include "tcp_sender.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <optional>
#include <utility>

#include "errors.hpp"
#include "keyword_notes.hpp"
#include "loss_report.hpp"
#include "stream_file.hpp"
#include "stream_reader.hpp"
#include "tcp_wire.hpp"
#include "thread_setup.hpp"
#include "utc_clock.hpp"

namespace vampires {
namespace {

using std::chrono::milliseconds;
using State = TcpSenderStatus::State;

constexpr milliseconds kLookForStream(50);
constexpr milliseconds kConnectPause(100);
constexpr milliseconds kConnectTimeout(400);
constexpr milliseconds kFrameWait(20);
constexpr std::int64_t kHealthInterval_ns = 200'000'000;
constexpr std::int64_t kHandOverPatience_ns = 2'000'000'000;
constexpr std::int64_t kLastFramesPatience_ns = 10'000'000'000;
constexpr std::int64_t kStopPatience_ns = 500'000'000;
// A connection that ends so soon was not wanted: another one at once would not be either.
constexpr std::int64_t kBriefConnection_ns = 1'000'000'000;
constexpr milliseconds kUnwantedPause(500);
// What a receiver's kernel may hold, acknowledged and lost with the receiver.
constexpr std::uint64_t kReceiverMemory_bytes = std::uint64_t{16} << 20;

struct Disconnected {
    std::string why;
};

// Where the frames last handed to a connection end in its bytes.
class SentFrames {
  public:
    void add(std::uint64_t cnt0, std::uint64_t end_byte) {
        if (sent_.size() == kMost) sent_.pop_front();
        sent_.push_back({cnt0, end_byte});
    }
    // The last frame that ends at or before this byte; 0 when none is known.
    std::uint64_t last_before(std::uint64_t byte) const noexcept {
        std::uint64_t cnt0 = 0;
        for (const Sent& frame : sent_) {
            if (frame.end_byte <= byte) cnt0 = frame.cnt0;
        }
        return cnt0;
    }
    bool empty() const noexcept { return sent_.empty(); }
    // The one before the first that is known.
    std::uint64_t before_first() const noexcept {
        return std::max<std::uint64_t>(sent_.front().cnt0, 1) - 1;
    }

  private:
    struct Sent {
        std::uint64_t cnt0;
        std::uint64_t end_byte;
    };
    static constexpr std::size_t kMost = 65536;
    std::deque<Sent> sent_;
};

}  // namespace

// One stream file and the connections its frames go to, one after the other.
class TcpSender::Session {
  public:
    // gone_at: the newest frame of the file that this one replaces, if that was read.
    Session(TcpSender& link, std::shared_ptr<StreamFile> file,
            std::optional<std::uint64_t> gone_at)
        : link_(link),
          file_(std::move(file)),
          slices_(file_->shape().naxis == 3),
          notes_(file_),
          tail_(kCountersBytes + notes_.bytes()),
          lost_("lost before they could be sent: the stream had them no more") {
        if (!gone_at) return;  // frames count from the first connection on
        read_from(true);
        reader_->continue_count(*gone_at, 0);
    }

    // Until the stream is gone or the link is to stop.
    void run() {
        while (!link_.wake_.is_set() && !gone_) {
            const std::int64_t start_ns = monotonic_now_ns();
            connect();
            if (!socket_) return;
            try {
                serve();
            } catch (const Disconnected& end) {
                disconnect(end.why);
            }
            socket_.reset();
            if (!gone_ && monotonic_now_ns() - start_ns < kBriefConnection_ns) {
                wait(kUnwantedPause);
            }
        }
    }

    // The newest frame of the stream; none while its frames do not count.
    std::optional<std::uint64_t> newest_cnt0() const {
        if (!reader_) return std::nullopt;
        return std::max(reader_->last_cnt0() + reader_->unread(), resent_until_);
    }

  private:
    // Connected, or told to stop, or the stream is gone.
    void connect() {
        link_.set_state(State::connecting);
        std::string error;
        std::string reported;
        for (;;) {
            socket_ = link_.destination_.connect(kConnectTimeout, link_.wake_, error);
            if (socket_ || link_.wake_.is_set()) return;
            if (error != reported) link_.fail("cannot connect to " + peer() + ": " + error);
            reported = error;
            if (given_up() || wait(kConnectPause)) return;
        }
    }

    // A stream that was replaced is kept for its last frames, but not for long.
    bool given_up() {
        if (file_->fate() == FileFate::same) return false;
        const std::int64_t now_ns = monotonic_now_ns();
        if (replaced_ns_ == 0) replaced_ns_ = now_ns;
        if (reader_ && now_ns - replaced_ns_ < kLastFramesPatience_ns) return false;
        gone_ = true;
        if (!reader_) return true;
        const std::uint64_t sent = std::max(reader_->last_cnt0(), resent_until_);
        const std::uint64_t newest = load(file_->metadata().cnt0);
        const std::uint64_t unsent = newest > sent && reader_->unread() > 0 ? newest - sent : 0;
        link_.lost_ += unsent;
        lost_.add(unsent);
        lost_.flush(link_.events_);
        return true;
    }

    // Waits, and looks at keywords meanwhile. True when the link is to stop.
    bool wait(milliseconds time) {
        const std::int64_t end_ns = monotonic_now_ns() + time.count() * 1'000'000;
        while (monotonic_now_ns() < end_ns) {
            notes_.look();
            if (link_.wake_.wait(milliseconds(2))) return true;
        }
        return link_.wake_.is_set();
    }

    void serve() {
        ++link_.connections_;
        sent_bytes_ = 0;
        sent_ = SentFrames();
        newest_sent_ = kNone;
        const bool fresh = !reader_;
        if (fresh) read_from(false);
        FrameTicket newest;
        // What is there already, so that a stream which rests is seen at the far end.
        const bool rests = (fresh || reader_->unread() == 0) &&
                           load(file_->metadata().cnt0) > 0 && reader_->begin_newest(newest) &&
                           newest.info.cnt0 <= reader_->last_cnt0() + 1;
        const bool first = std::exchange(first_, false);
        greet(rests   ? newest.info.cnt0
              : first ? reader_->last_cnt0()
                      : load(file_->metadata().cnt0));
        if (rests) {
            send_frame(newest);
            newest_sent_ = last_;
        }
        while (!link_.wake_.is_set()) {
            check_connection();
            lost_.report(link_.events_);
            switch (reader_->wait(kFrameWait)) {
                case Wake::frame:
                    send_next();
                    break;
                case Wake::gone:
                    hand_over();
                    gone_ = true;
                    link_.events_.push(LinkEventKind::stream, "stream '" + file_->name() +
                                                                  "' is gone; waiting for it");
                    return;
                default:
                    break;
            }
        }
        drain();
        lost_.flush(link_.events_);
    }

    // Ends the connection, and sees to it that all that was sent has come to the far end.
    void hand_over() {
        lost_.flush(link_.events_);
        shutdown(socket_.get(), SHUT_WR);
        const std::int64_t end_ns = monotonic_now_ns() + kHandOverPatience_ns;
        while (unacknowledged_bytes(socket_) > 0) {
            char ignored[256];
            const ssize_t got = recv(socket_.get(), ignored, sizeof ignored, MSG_DONTWAIT);
            if (got < 0 && errno != EAGAIN && errno != EINTR) {
                throw Disconnected{std::strerror(errno)};
            }
            if (link_.wake_.wait(milliseconds(1))) return;
            if (monotonic_now_ns() > end_ns)
                throw Disconnected{"its last frames did not arrive"};
        }
        int error = 0;
        socklen_t length = sizeof error;
        getsockopt(socket_.get(), SOL_SOCKET, SO_ERROR, &error, &length);
        if (error != 0) throw Disconnected{std::strerror(error)};
    }

    // Before the end: what was published until now, as far as the receiver takes it at once.
    void drain() {
        const std::uint64_t until = load(file_->metadata().cnt0);
        while (last_ < until && reader_->wait(std::chrono::nanoseconds(0)) == Wake::frame) {
            send_next();
        }
        shutdown(socket_.get(), SHUT_WR);
    }

    void read_from(bool oldest) {
        reader_.emplace(file_,
                        ReaderOptions{slices_ && !file_->shape().temporal_ring(), oldest, -1});
    }

    // cnt0: of the frame that comes first or the one before it, to a receiver that knows
    // nothing of this stream; else the newest, so that a counter that was set back shows.
    void greet(std::uint64_t cnt0) {
        const auto handshake = make_handshake(file_->metadata(), cnt0);
        send_all(handshake.data(), handshake.size(), false);
        link_.set_state(State::connected);
        link_.events_.push(LinkEventKind::connected, "connected to " + peer());
    }

    void send_next() {
        FrameTicket ticket;
        if (!reader_->begin(ticket)) return;
        if (ticket.info.cnt0 == std::exchange(newest_sent_, kNone)) {  // it went out already
            reader_->confirm(ticket);
            return;
        }
        send_frame(ticket);
        reader_->let_go(ticket);
    }

    void send_frame(FrameTicket& ticket) {
        notes_.look();
        const std::uint64_t frame_bytes = reader_->frame_bytes();
        send_all(ticket.pixels, frame_bytes, true);
        const bool whole = reader_->confirm(ticket);
        notes_.look();
        notes_.put(ticket.info, std::span(tail_).subspan(kCountersBytes));
        const auto cnt0 = static_cast<std::int64_t>(ticket.info.cnt0);
        put_counters(std::span<std::byte, kCountersBytes>(tail_.data(), kCountersBytes),
                     whole ? cnt0 : kVoidFrame, slices_ ? ticket.info.cnt1 : 0);
        send_all(tail_.data(), tail_.size(), false);
        if (whole) {
            count(ticket);
        } else {
            ++link_.void_;
        }
    }

    void count(const FrameTicket& ticket) {
        const FrameInfo& info = ticket.info;
        if ((info.flags & kCounterReset) != 0) resent_until_ = sure_before_ = 0;
        if (info.cnt0 <= resent_until_) {
            ++link_.resent_;
        } else if (!ticket.peek) {
            // Those that were sent before the connection broke are not lost.
            const std::uint64_t lost = std::min(info.lost, info.cnt0 - 1 - resent_until_);
            lost_.add(lost);
            link_.lost_ += lost;
            link_.torn_ += std::min(info.torn, lost);
        }
        last_ = info.cnt0;
        sent_.add(last_, sent_bytes_);
        link_.cnt0_ = last_;
        ++link_.frames_;
    }

    // All of it, or Disconnected. more: something follows at once.
    void send_all(const void* data, std::size_t bytes, bool more) {
        const auto* at = static_cast<const std::byte*>(data);
        const int flags = MSG_NOSIGNAL | MSG_DONTWAIT | (more ? MSG_MORE : 0);
        while (bytes > 0) {
            const ssize_t sent = ::send(socket_.get(), at, bytes, flags);
            if (sent >= 0) {
                at += sent;
                bytes -= static_cast<std::size_t>(sent);
                sent_bytes_ += static_cast<std::uint64_t>(sent);
                link_.bytes_ += static_cast<std::uint64_t>(sent);
                continue;
            }
            if (errno == EFAULT) {
                gone_ = true;
                throw Disconnected{"the stream was truncated by another program"};
            }
            if (errno != EAGAIN && errno != EINTR) throw Disconnected{std::strerror(errno)};
            wait_for_room();
        }
    }

    void wait_for_room() {
        pollfd room = {socket_.get(), POLLOUT, 0};
        while (poll(&room, 1, 1) == 0) {
            notes_.look();
            check_connection();
            if (!link_.wake_.is_set()) continue;
            const std::int64_t now_ns = monotonic_now_ns();
            if (stop_seen_ns_ == 0) stop_seen_ns_ = now_ns;
            if (now_ns - stop_seen_ns_ > kStopPatience_ns) {
                throw Disconnected{"stopped while the receiver did not take a frame"};
            }
        }
    }

    // Throws Disconnected when the far end has closed, or does not answer.
    void check_connection() {
        char ignored[256];
        const ssize_t got = recv(socket_.get(), ignored, sizeof ignored, MSG_DONTWAIT);
        if (got == 0) throw Disconnected{"closed by the receiver"};
        if (got < 0 && errno != EAGAIN && errno != EINTR) {
            throw Disconnected{std::strerror(errno)};
        }
        const std::int64_t now_ns = monotonic_now_ns();
        if (now_ns - health_checked_ns_ < kHealthInterval_ns) return;
        health_checked_ns_ = now_ns;
        if (health_of(socket_) == Health::silent) throw Disconnected{"no answer for a second"};
    }

    // Goes back to the frames that the far end may not have.
    void disconnect(const std::string& why) {
        const std::uint64_t doubtful = unacknowledged_bytes(socket_) + kReceiverMemory_bytes;
        if (!sent_.empty()) {
            sure_before_ = doubtful >= sent_bytes_ ? sent_.before_first()
                                                   : sent_.last_before(sent_bytes_ - doubtful);
        }
        if (last_ > 0) {
            resent_until_ = std::max(resent_until_, last_);
            reader_->rewind(sure_before_);
        }
        link_.events_.push(LinkEventKind::disconnected, "lost " + peer() + ": " + why);
        const std::lock_guard lock(link_.mutex_);
        link_.last_error_ = why;
    }

    std::string peer() const {
        return link_.config_.host + ":" + std::to_string(link_.config_.port);
    }

    TcpSender& link_;
    std::shared_ptr<StreamFile> file_;
    bool slices_;
    std::optional<StreamReader> reader_;
    KeywordNotes notes_;
    std::vector<std::byte> tail_;
    LossReport lost_;

    Descriptor socket_;
    bool first_ = true;  // connection
    bool gone_ = false;
    std::uint64_t sent_bytes_ = 0;  // on this connection
    SentFrames sent_;
    std::uint64_t last_ = 0;
    static constexpr std::uint64_t kNone = UINT64_MAX;
    std::uint64_t newest_sent_ = kNone;  // before its turn, as the first of the connection
    std::uint64_t resent_until_ = 0;     // frames up to here are sent for the second time
    std::uint64_t sure_before_ = 0;
    std::int64_t health_checked_ns_ = 0;
    std::int64_t stop_seen_ns_ = 0;
    std::int64_t replaced_ns_ = 0;  // when the file was first seen to be another
};

TcpSender::TcpSender(TcpSenderConfig config)
    : config_(std::move(config)), destination_(config_.host, config_.port) {
    stream_path(config_.directory, config_.stream);  // throws for what is no name
}

TcpSender::~TcpSender() {
    stop();
}

void TcpSender::start() {
    if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
}

void TcpSender::stop() noexcept {
    wake_.set();
    if (thread_.joinable()) thread_.join();
}

void TcpSender::fail(const std::string& text) {
    events_.push(LinkEventKind::error, text);
    const std::lock_guard lock(mutex_);
    last_error_ = text;
}

void TcpSender::run() {
    thread_id_ = static_cast<int>(gettid());
    const std::string missing = set_up_thread("tcp-send", config_.priority, config_.cpus);
    if (!missing.empty()) events_.push(LinkEventKind::error, missing);
    std::optional<std::uint64_t> gone_at;
    std::string reported;
    while (!wake_.is_set()) {
        set_state(State::waiting);
        std::string error;
        try {
            const auto file = StreamFile::open(config_.directory, config_.stream);
            events_.push(LinkEventKind::stream, "stream " + file->path() + " opened");
            Session session(*this, file, gone_at);
            session.run();
            if (session.newest_cnt0()) gone_at = session.newest_cnt0();
            reported.clear();
            continue;
        } catch (const StreamIncomplete&) {
            // its creator is at work
        } catch (const StreamNotFound& missing_stream) {
            error = std::string(missing_stream.what()) + "; waiting for it";
        } catch (const std::exception& refused) {  // no stream, or no memory for it now
            error = refused.what();
        }
        if (!error.empty() && error != reported) fail(error);
        if (!error.empty()) reported = error;
        wake_.wait(kLookForStream);
    }
    set_state(State::stopped);
}

TcpSenderStatus TcpSender::status() const {
    TcpSenderStatus now;
    now.state = state_.load();
    now.frames = frames_.load();
    now.resent = resent_.load();
    now.lost = lost_.load();
    now.torn = torn_.load();
    now.void_frames = void_.load();
    now.bytes = bytes_.load();
    now.connections = connections_.load();
    now.cnt0 = cnt0_.load();
    const std::lock_guard lock(mutex_);
    now.last_error = last_error_;
    return now;
}

}  // namespace vampires
