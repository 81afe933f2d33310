// The receiving end of the fast link: fills the copy of a stream of another host.
//
// Pixels go from the socket to the slot of the stream, with no copy in between; a frame is
// published when all of it is there, with the sender's counter, so that a loss anywhere shows
// as a gap. Slices are filled as the bytes come. A stream that is one array is filled when the
// socket holds the whole frame, so that its readers never meet half of one; where the kernel
// cannot show what lies behind a frame (before Linux 6.9), or holds less than a frame, each of
// its frames is copied once. So is a frame that came to another slot than expected, after a
// loss.
//
// One thread of its own waits for everything: connections (from allowed networks only),
// handshakes (a few at a time, each with little memory and a deadline), frames. One connection
// at a time fills the stream. A newer one from the same host for the same stream takes its
// place; one from elsewhere, when no frame came for a while.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "link_events.hpp"
#include "network.hpp"

namespace vampires {

struct TcpReceiverConfig {
    std::string directory;   // of streams
    std::string listen;      // an address of this host
    std::uint16_t port = 0;  // 0: any
    std::vector<NetworkRange> allowed;
    std::string name;  // of the copy; empty: what the sender calls it
    std::uint64_t max_bytes = std::uint64_t{4} << 30;  // of the stream
    int priority = 0;                                  // SCHED_FIFO; 0: none
    std::vector<int> cpus;                             // empty: all
};

struct TcpReceiverStatus {
    enum class State { listening, receiving, stopped } state = State::listening;
    std::string stream;             // empty before the first
    std::string peer;               // connected, or connected last
    std::uint64_t frames = 0;       // published
    std::uint64_t lost = 0;         // missing in the sender's count
    std::uint64_t void_frames = 0;  // sent in part; they are among the lost
    std::uint64_t duplicates = 0;   // came again, dropped
    std::uint64_t copied = 0;       // moved to their slot from where they were received
    std::uint64_t bytes = 0;
    std::uint64_t connections = 0;  // that made a valid offer
    std::uint64_t refused = 0;      // turned away, or broken off for what they sent
    std::uint64_t cnt0 = 0;
    std::string last_error;  // may be empty
};

class TcpReceiver {
  public:
    // Listens from here on. Throws std::system_error, StreamInvalid for a name that is none.
    explicit TcpReceiver(TcpReceiverConfig config);
    ~TcpReceiver();  // stops
    TcpReceiver(const TcpReceiver&) = delete;
    TcpReceiver& operator=(const TcpReceiver&) = delete;

    void start();
    // May be called twice. A frame that is not whole is forgotten.
    void stop() noexcept;

    const TcpReceiverConfig& config() const noexcept { return config_; }
    std::uint16_t port() const noexcept { return local_port(listening_); }
    TcpReceiverStatus status() const;
    LinkEvents& events() noexcept { return events_; }
    int thread_id() const noexcept { return thread_id_.load(); }

  private:
    class Loop;
    class Filling;
    struct Visitor;

    void run();
    void refuse(const std::string& peer, const std::string& why);
    void fail(const std::string& text);
    void name_stream(const std::string& stream, const std::string& peer);

    TcpReceiverConfig config_;
    Descriptor listening_;
    WakeUp wake_;
    LinkEvents events_;
    std::thread thread_;
    std::atomic<int> thread_id_{0};
    // Written by the link's thread alone.
    std::atomic<TcpReceiverStatus::State> state_{TcpReceiverStatus::State::listening};
    std::atomic<std::uint64_t> frames_{0}, lost_{0}, void_{0}, duplicates_{0}, copied_{0},
        bytes_{0}, connections_{0}, refused_{0}, cnt0_{0};
    std::int64_t refusal_told_ns_ = 0;
    std::uint64_t refusals_untold_ = 0;
    mutable std::mutex mutex_;  // protects the texts
    std::string stream_;
    std::string peer_;
    std::string last_error_;
};

}  // namespace vampires
