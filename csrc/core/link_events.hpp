// What a link tells whoever supervises it: short texts in a bounded queue. The newest stay.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace vampires {

enum class LinkEventKind { connected, disconnected, refused, stream, lost, error };

struct LinkEvent {
    LinkEventKind kind{};
    std::string text;
};

class LinkEvents {
  public:
    void push(LinkEventKind kind, std::string text) {
        {
            const std::lock_guard lock(mutex_);
            if (events_.size() == kMost) events_.pop_front();
            events_.push_back({kind, std::move(text)});
        }
        bell_.notify_one();
    }
    // All there are, waiting so long for the first.
    std::vector<LinkEvent> take(std::chrono::nanoseconds timeout) {
        std::unique_lock lock(mutex_);
        bell_.wait_for(lock, timeout, [this] { return !events_.empty(); });
        std::vector<LinkEvent> taken(std::make_move_iterator(events_.begin()),
                                     std::make_move_iterator(events_.end()));
        events_.clear();
        return taken;
    }

  private:
    static constexpr std::size_t kMost = 256;
    std::mutex mutex_;  // protects events_
    std::condition_variable bell_;
    std::deque<LinkEvent> events_;
};

}  // namespace vampires
