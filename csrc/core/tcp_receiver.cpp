#include "tcp_receiver.hpp"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <span>
#include <system_error>
#include <utility>

#include "errors.hpp"
#include "frame_count.hpp"
#include "loss_report.hpp"
#include "stream_copy.hpp"
#include "tcp_wire.hpp"
#include "thread_setup.hpp"
#include "utc_clock.hpp"

namespace vampires {
namespace {

using State = TcpReceiverStatus::State;

constexpr int kTick_ms = 100;
constexpr std::int64_t kSecond_ns = 1'000'000'000;
constexpr std::int64_t kHandshakePatience_ns = 5 * kSecond_ns;
constexpr std::size_t kMostVisitors = 16;
// A connection that brought no frame for so long may be replaced from anywhere.
constexpr std::int64_t kIdle_ns = 5 * kSecond_ns;
constexpr std::int64_t kCopyCheck_ns = kSecond_ns / 2;
constexpr std::int64_t kLastLook_ns = 300'000'000;
constexpr std::size_t kGulp_bytes = std::size_t{1} << 20;
// Taken from one connection before the others are looked at.
constexpr std::size_t kTurn_bytes = std::size_t{16} << 20;

struct Disconnected {
    std::string why;
};

std::size_t waiting_bytes(const Descriptor& socket) noexcept {
    int bytes = 0;
    return ioctl(socket.get(), FIONREAD, &bytes) == 0 && bytes > 0
               ? static_cast<std::size_t>(bytes)
               : 0;
}

// Asks the kernel to wake us when so many bytes are there; false when it cannot hold as many,
// and then wakes us for any.
bool wake_at(const Descriptor& socket, std::size_t bytes) noexcept {
    if (bytes > INT32_MAX) return false;
    const int wanted = static_cast<int>(bytes);
    int granted = 0;
    socklen_t length = sizeof granted;
    if (setsockopt(socket.get(), SOL_SOCKET, SO_RCVLOWAT, &wanted, sizeof wanted) == 0 &&
        getsockopt(socket.get(), SOL_SOCKET, SO_RCVLOWAT, &granted, &length) == 0 &&
        granted == wanted) {
        return true;
    }
    const int any = 1;
    setsockopt(socket.get(), SOL_SOCKET, SO_RCVLOWAT, &any, sizeof any);
    return false;
}

// Reads what the socket holds behind the first `skip` bytes, and leaves all of it there; false
// where the kernel cannot (before Linux 6.9).
bool peek_behind(const Descriptor& socket, std::size_t skip, std::span<std::byte> bytes) {
    if (skip > INT32_MAX) return false;
    const int offset = static_cast<int>(skip);
    if (setsockopt(socket.get(), SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof offset) != 0) {
        return false;
    }
    const ssize_t got = recv(socket.get(), bytes.data(), bytes.size(), MSG_PEEK | MSG_DONTWAIT);
    return got == static_cast<ssize_t>(bytes.size());
}

}  // namespace

// A connection that has not said yet what it brings.
struct TcpReceiver::Visitor {
    Descriptor socket;
    PeerAddress peer;
    std::int64_t deadline_ns = 0;
    std::size_t got = 0;
    std::array<std::byte, kHandshakeBytes> said{};
};

// The connection that fills the copy.
class TcpReceiver::Filling {
  public:
    Filling(TcpReceiver& link, Visitor visitor, LinkOffer offer, StreamCopy& copy,
            FrameCount& count, LossReport& lost)
        : link_(link),
          socket_(std::move(visitor.socket)),
          peer_(std::move(visitor.peer)),
          offer_(std::move(offer)),
          copy_(copy),
          count_(count),
          lost_(lost),
          slot_(offer_.newest),
          trailer_(offer_.trailer_bytes()),
          frame_ns_(monotonic_now_ns()) {
        wait_for_whole_frames();
    }
    Filling(const Filling&) = delete;
    Filling& operator=(const Filling&) = delete;

    int fd() const noexcept { return socket_.get(); }
    const PeerAddress& peer() const noexcept { return peer_; }
    const LinkOffer& offer() const noexcept { return offer_; }
    bool idle(std::int64_t now_ns) const noexcept { return now_ns - frame_ns_ > kIdle_ns; }

    // What the socket holds, after it was seen to hold something. Throws Disconnected,
    // WireError and what StreamCopy throws.
    void take() {
        std::size_t taken = 0;
        while (taken < kTurn_bytes) {
            if (pixels_ == nullptr) {
                if (whole_ && waiting_bytes(socket_) >= message_bytes()) {
                    peeks_ = take_whole_frame();
                    taken += peeks_ ? message_bytes() : 0;
                    if (peeks_) continue;
                    wait_for_whole_frames();
                }
                if (whole_ && taken > 0) return;  // the kernel wakes us
                open_frame();
            }
            const std::size_t got = receive();
            if (got == 0) {
                wake_later();
                return;
            }
            taken += got;
            if (got_ == message_bytes()) finish_frame();
        }
    }
    // The same before the end, without waiting.
    void take_rest() {
        const std::int64_t end_ns = monotonic_now_ns() + kLastLook_ns;
        while (monotonic_now_ns() < end_ns) {
            const std::size_t waiting = waiting_bytes(socket_);
            if (waiting == 0 || (whole_ && waiting < message_bytes())) return;
            take();
        }
    }

  private:
    bool slices() const noexcept { return offer_.shape.naxis == 3; }
    std::size_t message_bytes() const noexcept { return offer_.frame_bytes + trailer_.size(); }

    // Of a stream that is one array. Else what comes of a frame goes to its slot at once.
    void wait_for_whole_frames() noexcept {
        whole_ = !slices() && peeks_ && wake_at(socket_, message_bytes());
    }

    // Being woken for every segment costs both ends more than the copying; a frame's end is
    // never waited for.
    void wake_later() noexcept {
        if (!slices()) return;
        const std::size_t wanted = std::min(message_bytes() - got_, kGulp_bytes);
        if (wanted != wake_bytes_) wake_at(socket_, wanted);
        wake_bytes_ = wanted;
    }

    void look_after_copy() {
        const std::int64_t now_ns = monotonic_now_ns();
        if (now_ns - copy_checked_ns_ <= kCopyCheck_ns) return;
        copy_checked_ns_ = now_ns;
        if (!copy_.current()) copy_.adopt(offer_.shape, count_.last());
    }

    // Decides where the next frame goes.
    void open_frame() {
        look_after_copy();
        if (slices() && !count_.repeats() && slot_ != copy_.newest_slot()) {
            pixels_ = copy_.writer().open_slot(slot_);
            in_place_ = true;
        } else {  // a frame that readers may be looking at, or one that the socket cannot hold
            if (!slices()) wake_at(socket_, 1);
            spare_.resize(offer_.frame_bytes);
            pixels_ = spare_.data();
        }
        got_ = 0;
    }

    // One frame that the socket holds to its end. What it is, is known before the array is
    // touched, so the newest frame stays there if this one is not to be published.
    bool take_whole_frame() {
        if (!peek_behind(socket_, offer_.frame_bytes, trailer_)) return false;
        const FrameTrailer trailer = parse_trailer(trailer_, offer_);
        look_after_copy();
        frame_ns_ = monotonic_now_ns();
        const FrameCount::Verdict verdict = count(trailer);
        if (trailer.is_void || verdict.duplicate) {
            discard(message_bytes());
            return true;
        }
        pixels_ = copy_.writer().open_slot(0);
        in_place_ = true;
        got_ = 0;
        while (got_ < message_bytes()) {
            if (receive() == 0) throw Disconnected{"what had come is there no more"};
        }
        parse_trailer(trailer_, offer_);  // it came again, as it was sent
        pixels_ = nullptr;
        in_place_ = false;
        got_ = 0;
        publish(trailer, verdict.lost);
        return true;
    }

    // Takes so many bytes out of the socket, to nowhere.
    void discard(std::size_t bytes) {
        while (bytes > 0) {
            const ssize_t got = recv(socket_.get(), nullptr, bytes, MSG_TRUNC | MSG_DONTWAIT);
            if (got <= 0) throw Disconnected{"what had come is there no more"};
            link_.bytes_ += static_cast<std::uint64_t>(got);
            bytes -= static_cast<std::size_t>(got);
        }
    }

    // Bytes that came; 0 when there are none now.
    std::size_t receive() {
        const std::size_t pixels = offer_.frame_bytes;
        iovec parts[2];
        int count = 0;
        if (got_ < pixels) parts[count++] = {pixels_ + got_, pixels - got_};
        const std::size_t tail = got_ > pixels ? got_ - pixels : 0;
        parts[count++] = {trailer_.data() + tail, trailer_.size() - tail};
        msghdr message = {};
        message.msg_iov = parts;
        message.msg_iovlen = static_cast<std::size_t>(count);
        const ssize_t got = recvmsg(socket_.get(), &message, MSG_DONTWAIT);
        if (got > 0) {
            got_ += static_cast<std::size_t>(got);
            link_.bytes_ += static_cast<std::uint64_t>(got);
            return static_cast<std::size_t>(got);
        }
        if (got == 0) {
            throw Disconnected{got_ == 0 ? "closed by the sender"
                                         : "closed by the sender in the middle of a frame"};
        }
        if (errno == EAGAIN || errno == EINTR) return 0;
        if (errno == EFAULT) throw Disconnected{"the stream was truncated by another program"};
        throw Disconnected{std::strerror(errno)};
    }

    void finish_frame() {
        const FrameTrailer trailer = parse_trailer(trailer_, offer_);
        std::byte* received = std::exchange(pixels_, nullptr);
        const bool in_place = std::exchange(in_place_, false);
        got_ = 0;
        frame_ns_ = monotonic_now_ns();
        if (!slices() && !in_place) wait_for_whole_frames();
        const FrameCount::Verdict verdict = count(trailer);
        if (trailer.is_void) return;
        if (verdict.duplicate) {
            if (trailer.slice == slot_ && in_place) {
                copy_.writer().keep_slot(slot_, trailer.cnt0);
            }
            slot_ = (trailer.slice + 1) % offer_.slots;
            return;
        }
        if (!in_place || trailer.slice != slot_) {
            std::byte* slot = copy_.writer().open_slot(trailer.slice);
            std::memcpy(slot, received, offer_.frame_bytes);
            ++link_.copied_;
        }
        publish(trailer, verdict.lost);
    }

    // Takes it into the count. A void one is no duplicate, and what it lost shows with the
    // next.
    FrameCount::Verdict count(const FrameTrailer& trailer) noexcept {
        if (trailer.is_void) {
            ++link_.void_;
            count_.next_void();
            return {};
        }
        const FrameCount::Verdict verdict = count_.next(trailer.cnt0);
        link_.duplicates_ += verdict.duplicate;
        return verdict;
    }

    void publish(const FrameTrailer& trailer, std::uint64_t lost) {
        const auto* entries =
            reinterpret_cast<const KeywordEntry*>(trailer_.data() + kCountersBytes);
        copy_.writer().publish_slot(trailer.slice, trailer.cnt0, trailer.acquired_ns,
                                    {entries, offer_.shape.keywords});
        slot_ = (trailer.slice + 1) % offer_.slots;
        lost_.add(lost);
        link_.lost_ += lost;
        link_.cnt0_ = trailer.cnt0;
        ++link_.frames_;
    }

    TcpReceiver& link_;
    Descriptor socket_;
    PeerAddress peer_;
    LinkOffer offer_;
    StreamCopy& copy_;
    FrameCount& count_;
    LossReport& lost_;
    bool peeks_ = true;            // the kernel can show what lies behind a frame
    bool whole_ = false;           // frames are taken when the socket holds all of one
    std::uint64_t slot_ = 0;       // where the frame under way is expected to belong
    std::byte* pixels_ = nullptr;  // where it goes; null between frames
    bool in_place_ = false;        // that is the slot itself
    std::size_t got_ = 0;          // of pixels and trailer
    std::size_t wake_bytes_ = 1;   // the kernel wakes us at so many
    std::vector<std::byte> trailer_;
    std::vector<std::byte> spare_;
    std::int64_t frame_ns_;  // when the last frame came
    std::int64_t copy_checked_ns_ = 0;
};

class TcpReceiver::Loop {
  public:
    explicit Loop(TcpReceiver& link)
        : link_(link), lost_("missing in the count of the sender") {}

    void run() {
        while (!link_.wake_.is_set()) {
            wait();
            if (waits_[1].revents != 0) receive_visitors();
            if (filling_ && waits_[2].revents != 0) fill();
            hear_visitors();
            lost_.report(link_.events_);
        }
        if (filling_) guarded([this] { filling_->take_rest(); });
        lost_.flush(link_.events_);
        filling_.reset();
        copy_.reset();
    }

  private:
    void wait() {
        waits_.assign({{link_.wake_.fd(), POLLIN, 0},
                       {link_.listening_.get(), POLLIN, 0},
                       {filling_ ? filling_->fd() : -1, POLLIN, 0}});
        for (const Visitor& visitor : visitors_) {
            waits_.push_back({visitor.socket.get(), POLLIN, 0});
        }
        if (poll(waits_.data(), waits_.size(), kTick_ms) < 0) {
            for (pollfd& wait : waits_) wait.revents = 0;
        }
        heard_ = visitors_.size();
    }

    void receive_visitors() {
        for (std::size_t k = 0; k < kMostVisitors; ++k) {
            Visitor visitor;
            visitor.socket = accept_from(link_.listening_, visitor.peer);
            if (!visitor.socket) return;
            if (!is_within(visitor.peer, link_.config_.allowed)) {
                link_.refuse(visitor.peer.text, "not one of the peers allowed");
                continue;
            }
            visitor.deadline_ns = monotonic_now_ns() + kHandshakePatience_ns;
            visitors_.push_back(std::move(visitor));
        }
    }

    // Those that were waited for come first in the list.
    void hear_visitors() {
        const std::int64_t now_ns = monotonic_now_ns();
        std::vector<Visitor> staying;
        std::vector<Visitor> ready;
        for (std::size_t k = 0; k < visitors_.size(); ++k) {
            Visitor& visitor = visitors_[k];
            const bool spoke = k < heard_ && waits_[3 + k].revents != 0;
            if (spoke && !hear(visitor)) continue;
            if (visitor.got == kHandshakeBytes) {
                ready.push_back(std::move(visitor));
            } else if (now_ns > visitor.deadline_ns) {
                link_.refuse(visitor.peer.text, "sent " + std::to_string(visitor.got) + " of " +
                                                    std::to_string(kHandshakeBytes) +
                                                    " bytes within 5 s");
            } else {
                staying.push_back(std::move(visitor));
            }
        }
        while (staying.size() > kMostVisitors) {
            link_.refuse(staying.front().peer.text,
                         "said nothing while too many others waited");
            staying.erase(staying.begin());
        }
        visitors_ = std::move(staying);
        for (Visitor& visitor : ready) welcome(std::move(visitor));
    }

    // False when the connection is over.
    bool hear(Visitor& visitor) {
        const ssize_t got = recv(visitor.socket.get(), visitor.said.data() + visitor.got,
                                 visitor.said.size() - visitor.got, MSG_DONTWAIT);
        if (got > 0) visitor.got += static_cast<std::size_t>(got);
        if (got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR))) return true;
        if (visitor.got > 0) {
            link_.refuse(visitor.peer.text, "closed after " + std::to_string(visitor.got) +
                                                " of " + std::to_string(kHandshakeBytes) +
                                                " bytes");
        }
        return false;
    }

    void welcome(Visitor visitor) {
        const std::string peer = visitor.peer.text;
        try {
            LinkOffer offer = parse_handshake(visitor.said, link_.config_.max_bytes);
            if (!link_.config_.name.empty()) offer.name = link_.config_.name;
            if (filling_ && !may_replace(visitor, offer)) {
                link_.refuse(peer, "the sender at " + filling_->peer().text +
                                       " is connected and at work");
                return;
            }
            if (filling_) end("replaced by a new connection");
            accept(std::move(visitor), std::move(offer));
        } catch (const WireError& error) {
            link_.refuse(peer, error.what());
        } catch (const std::exception& error) {  // the stream cannot be, or no memory for it
            link_.refuse(peer, error.what());
        }
    }

    bool may_replace(const Visitor& visitor, const LinkOffer& offer) const {
        const bool same = visitor.peer.address == filling_->peer().address &&
                          offer.name == filling_->offer().name;
        return same || filling_->idle(monotonic_now_ns());
    }

    void accept(Visitor visitor, LinkOffer offer) {
        if (!copy_ || copy_->name() != offer.name) {
            copy_ = std::make_unique<StreamCopy>(link_.config_.directory, offer.name);
            count_ = FrameCount();
        }
        const bool had = copy_->adopted();
        // The frame that is there comes first: readers of a new copy do not miss those before.
        const bool taken_up =
            copy_->adopt(offer.shape, std::max<std::uint64_t>(offer.cnt0, 1) - 1);
        const std::uint64_t kept = taken_up ? copy_->writer().cnt0() : 0;
        count_.begin(offer.source, offer.cnt0, kept);
        const std::string peer = visitor.peer.text;
        link_.name_stream(offer.name, peer);
        ++link_.connections_;
        link_.events_.push(LinkEventKind::connected, "connected from " + peer);
        if (!had || !taken_up) {
            const char* what = taken_up ? " taken up" : had ? " made anew" : " made";
            link_.events_.push(LinkEventKind::stream,
                               "stream " + copy_->path() + what + ": " + described(offer));
        }
        filling_ = std::make_unique<Filling>(link_, std::move(visitor), std::move(offer),
                                             *copy_, count_, lost_);
        link_.state_ = State::receiving;
    }

    static std::string described(const LinkOffer& offer) {
        const StreamShape& shape = offer.shape;
        std::string text = std::to_string(shape.size[0]);
        if (shape.naxis > 1) text = std::to_string(shape.size[1]) + " x " + text;
        text += " pixels of " + std::to_string(pixel_bytes(shape.type)) + " bytes";
        if (shape.naxis == 3) text += ", " + std::to_string(offer.slots) + " slices";
        return text;
    }

    void fill() {
        guarded([this] { filling_->take(); });
    }

    // Does something with the connection; it ends when that fails.
    template <typename Action>
    void guarded(Action action) {
        try {
            action();
        } catch (const Disconnected& over) {
            end(over.why);
        } catch (const WireError& error) {
            ++link_.refused_;
            end(error.what());
        } catch (const std::exception& error) {  // the stream, or no memory
            end(error.what());
        }
    }

    void end(const std::string& why) {
        const std::string text = "lost " + filling_->peer().text + ": " + why;
        filling_.reset();
        link_.state_ = State::listening;
        link_.events_.push(LinkEventKind::disconnected, text);
        const std::lock_guard lock(link_.mutex_);
        link_.last_error_ = why;
    }

    TcpReceiver& link_;
    FrameCount count_;
    LossReport lost_;
    std::unique_ptr<StreamCopy> copy_;
    std::unique_ptr<Filling> filling_;
    std::vector<Visitor> visitors_;
    std::size_t heard_ = 0;  // visitors that were waited for
    std::vector<pollfd> waits_;
};

TcpReceiver::TcpReceiver(TcpReceiverConfig config)
    : config_(std::move(config)), listening_(listen_at(config_.listen, config_.port)) {
    if (!config_.name.empty()) stream_path(config_.directory, config_.name);
}

TcpReceiver::~TcpReceiver() {
    stop();
}

void TcpReceiver::start() {
    if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
}

void TcpReceiver::stop() noexcept {
    wake_.set();
    if (thread_.joinable()) thread_.join();
}

void TcpReceiver::run() {
    thread_id_ = static_cast<int>(gettid());
    const std::string missing = set_up_thread("tcp-receive", config_.priority, config_.cpus);
    if (!missing.empty()) fail(missing);
    try {
        Loop(*this).run();
    } catch (const std::exception& error) {  // no memory
        fail(error.what());
    }
    listening_.reset();
    state_ = State::stopped;
}

void TcpReceiver::refuse(const std::string& peer, const std::string& why) {
    ++refused_;
    ++refusals_untold_;
    const std::int64_t now_ns = monotonic_now_ns();
    if (refusal_told_ns_ != 0 && now_ns - refusal_told_ns_ < kSecond_ns) return;
    refusal_told_ns_ = now_ns;
    std::string text = "refused " + peer + ": " + why;
    if (refusals_untold_ > 1) {
        text += " (" + std::to_string(refusals_untold_) + " refused since the last such line)";
    }
    refusals_untold_ = 0;
    events_.push(LinkEventKind::refused, text);
    const std::lock_guard lock(mutex_);
    last_error_ = text;
}

void TcpReceiver::fail(const std::string& text) {
    events_.push(LinkEventKind::error, text);
    const std::lock_guard lock(mutex_);
    last_error_ = text;
}

void TcpReceiver::name_stream(const std::string& stream, const std::string& peer) {
    const std::lock_guard lock(mutex_);
    stream_ = stream;
    peer_ = peer;
}

TcpReceiverStatus TcpReceiver::status() const {
    TcpReceiverStatus now;
    now.state = state_.load();
    now.frames = frames_.load();
    now.lost = lost_.load();
    now.void_frames = void_.load();
    now.duplicates = duplicates_.load();
    now.copied = copied_.load();
    now.bytes = bytes_.load();
    now.connections = connections_.load();
    now.refused = refused_.load();
    now.cnt0 = cnt0_.load();
    const std::lock_guard lock(mutex_);
    now.stream = stream_;
    now.peer = peer_;
    now.last_error = last_error_;
    return now;
}

}  // namespace vampires
