// Creates a stream, or attaches to one, and publishes frames in the library's order.
//
// One writer a stream, one thread a writer. A frame is written into next_slot() and becomes
// visible with publish(): counters last, then the write flag, then the semaphores.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "stream_file.hpp"

namespace vampires {

struct StreamSpec {
    StreamShape shape;
    std::uint64_t cnt0 = 0;  // from where it counts
    std::string version =
        kIsioVersion;  // what the file claims; the library compares it exactly
};

class StreamWriter {
  public:
    // Creates <dir>/<name>.im.shm: complete under a hidden name first, then renamed, so no
    // reader meets a half-made stream; a stream of that name is replaced (new inode).
    // Throws StreamInvalid, std::system_error.
    static StreamWriter create(const std::string& directory, const std::string& name,
                               const StreamSpec& spec);
    // Writes on an existing stream. A stream of slices goes on after its newest slice.
    explicit StreamWriter(std::shared_ptr<StreamFile> file) noexcept;

    const std::shared_ptr<StreamFile>& file() const noexcept { return file_; }
    std::uint64_t cnt0() const noexcept { return load(file_->metadata().cnt0); }

    // Where the next frame goes; the stream is marked as being written until publish().
    std::byte* next_slot() noexcept;
    std::uint64_t frame_bytes() const noexcept {
        return file_->frame_bytes(file_->shape().temporal_ring());
    }
    // Makes the frame in next_slot() the newest and returns its cnt0. acquired_ns 0 means now.
    std::uint64_t publish(std::int64_t acquired_ns) noexcept;

    // Takes next_slot() back: nothing is published, the newest frame stays what it was.
    void abandon() noexcept;

    // For the copy of another stream, whose counter and slices are not of our choosing.
    // Where its frame for this slice goes (slice 0 where frames have no slices); a slice has no
    // counter from here on, a stream that is one array is marked as being written.
    std::byte* open_slot(std::uint64_t slice) noexcept;
    // Makes what is in that slot the newest frame, with a counter given. Keywords, if any,
    // replace all that were there; behind the last one the list ends.
    void publish_slot(std::uint64_t slice, std::uint64_t cnt0, std::int64_t acquired_ns,
                      std::span<const KeywordEntry> keywords) noexcept;

    // Replaces the keyword of that name, or takes the first free entry; false when full. Both
    // as KeywordTable does it: in place, for the frames after the newest.
    bool set_keyword(const KeywordEntry& entry) noexcept;
    // Replaces all; the list ends behind the last one. False when there is no room.
    bool set_keywords(std::span<const KeywordEntry> entries) noexcept;
    // The slice holds the frame that it held before it was opened.
    void keep_slot(std::uint64_t slice, std::uint64_t cnt0) noexcept;

  private:
    void publish_as(std::uint64_t cnt0, std::int64_t acquired_ns) noexcept;
    void copy_to_update_ring() noexcept;

    std::shared_ptr<StreamFile> file_;
    bool writing_ = false;
    std::uint64_t slice_ = 0;     // being written, in a ring of slices
    std::uint32_t cb_index_ = 0;  // of the frame being published, in a ring of updates
};

}  // namespace vampires
