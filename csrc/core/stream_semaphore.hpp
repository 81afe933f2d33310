// The semaphores of a stream file, with the rules of the existing tools for claiming and
// posting.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>

#include "stream_file.hpp"

namespace vampires {

// One of the ten semaphores, held by this reader alone: two readers of one process never share
// one (they would steal each other's posts). Released when destroyed.
class ClaimedSemaphore {
  public:
    // Empty when all are taken by living processes, as for the eleventh reader: poll then.
    static std::optional<ClaimedSemaphore> claim(std::shared_ptr<StreamFile> file);
    ClaimedSemaphore(ClaimedSemaphore&& other) noexcept;
    ClaimedSemaphore& operator=(ClaimedSemaphore&&) = delete;
    ~ClaimedSemaphore();

    std::uint16_t index() const noexcept { return index_; }
    // Posts not yet taken.
    std::uint32_t value() const noexcept;
    // Takes all posts there are; false when the value makes no sense and polling is wiser.
    bool drain() noexcept;

    enum class Wake { posted, timeout, interrupted };
    Wake wait(std::chrono::nanoseconds timeout) noexcept;

  private:
    ClaimedSemaphore(std::shared_ptr<StreamFile> file, std::uint16_t index) noexcept
        : file_(std::move(file)), index_(index) {}
    std::shared_ptr<StreamFile> file_;
    std::uint16_t index_;
};

// Makes all semaphores of a new, zeroed stream (semlog stays zero, as the library leaves it).
void init_semaphores(StreamFile& file) noexcept;

// Posts every semaphore that is below kSemaphoreMax, and semlog.
void post_all(StreamFile& file) noexcept;

}  // namespace vampires
