// The sending end of the fast link: every frame of a stream to one receiver, in order.
//
// Pixels go from the stream's memory to the socket, with no copy in between. A frame that was
// overwritten before all of it was sent is completed as void, and counted as lost. While the
// network or the receiver is slow, frames wait in the stream's ring; those the ring no longer
// has are counted as lost. One thread of its own does it all; it follows a stream that was
// re-created, and connects again whenever the connection is lost.
//
// After a loss of the connection, frames that the far end may not have got are sent again, if
// the ring still has them: those its kernel had not acknowledged, and the last megabytes that
// may have died with the process there. Our receiver drops what it knows by the counter.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "link_events.hpp"
#include "network.hpp"

namespace vampires {

struct TcpSenderConfig {
    std::string directory;  // of streams
    std::string stream;
    std::string host;
    std::uint16_t port = 0;
    int priority = 0;       // SCHED_FIFO; 0: none
    std::vector<int> cpus;  // empty: all
};

struct TcpSenderStatus {
    enum class State { waiting, connecting, connected, stopped } state = State::waiting;
    std::uint64_t frames = 0;       // handed to the connection whole, those sent again included
    std::uint64_t resent = 0;       // of those, sent again after a connection was lost
    std::uint64_t lost = 0;         // never sent: the ring had them no more
    std::uint64_t torn = 0;         // of those, overwritten while they were read
    std::uint64_t void_frames = 0;  // of those, when part of them had been sent
    std::uint64_t bytes = 0;
    std::uint64_t connections = 0;
    std::uint64_t cnt0 = 0;  // of the last frame sent
    std::string last_error;  // may be empty
};

class TcpSender {
  public:
    // Throws StreamInvalid for a name that no stream can have, std::system_error.
    explicit TcpSender(TcpSenderConfig config);
    ~TcpSender();  // stops
    TcpSender(const TcpSender&) = delete;
    TcpSender& operator=(const TcpSender&) = delete;

    void start();
    // Ends the frame under way, within half a second, and the thread. May be called twice.
    void stop() noexcept;

    const TcpSenderConfig& config() const noexcept { return config_; }
    TcpSenderStatus status() const;
    LinkEvents& events() noexcept { return events_; }
    int thread_id() const noexcept { return thread_id_.load(); }

  private:
    class Session;

    void run();
    void set_state(TcpSenderStatus::State state) noexcept { state_.store(state); }
    void fail(const std::string& text);

    TcpSenderConfig config_;
    Destination destination_;  // of the link's thread
    WakeUp wake_;
    LinkEvents events_;
    std::thread thread_;
    std::atomic<int> thread_id_{0};
    // Written by the link's thread alone.
    std::atomic<TcpSenderStatus::State> state_{TcpSenderStatus::State::waiting};
    std::atomic<std::uint64_t> frames_{0}, resent_{0}, lost_{0}, torn_{0}, void_{0}, bytes_{0},
        connections_{0}, cnt0_{0};
    mutable std::mutex mutex_;  // protects last_error_
    std::string last_error_;
};

}  // namespace vampires
