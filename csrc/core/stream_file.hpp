// A stream file mapped and checked: typed access to its regions, by offset, never by trust.
//
// The shape is validated once and kept; nothing re-reads a size from shared memory. Fields that
// another process changes are reached through load() and store().
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "isio_layout.hpp"
#include "keyword_table.hpp"
#include "mapped_file.hpp"
#include "memory_fence.hpp"

namespace vampires {

// The stream folder: $MILK_SHM_DIR when it can be opened, else /milk/shm, else /tmp; the rule
// of ImageStreamIO.
std::string stream_directory();

// <dir>/<name>.im.shm. Throws StreamInvalid for a name that is empty, over 79 bytes or holds
// anything but letters, digits, '_', '-', '.', '+' (or starts with a dot).
std::string stream_path(const std::string& directory, std::string_view name);

// Names of the *.im.shm files in the folder, sorted; they are not opened.
std::vector<std::string> list_streams(const std::string& directory);

// What became of the file behind a mapping.
enum class FileFate { same, replaced, removed, truncated };

class StreamFile {
  public:
    // Maps and checks an existing stream. Throws StreamNotFound, StreamIncomplete,
    // StreamInvalid.
    static std::shared_ptr<StreamFile> open(const std::string& directory,
                                            const std::string& name);
    // Maps an open file, which it owns from here on. A creator gives the shape, whose layout
    // the file already has the size of; without one the file is checked.
    StreamFile(int fd, const std::optional<StreamShape>& shape, const std::string& name,
               const std::string& path);

    const std::string& name() const noexcept { return name_; }
    const std::string& path() const noexcept { return path_; }
    const StreamShape& shape() const noexcept { return shape_; }
    const StreamLayout& layout() const noexcept { return layout_; }
    std::uint64_t inode() const noexcept { return mapping_.inode(); }
    bool broken() const noexcept { return mapping_.broken(); }
    int fd() const noexcept { return mapping_.fd(); }
    FileFate fate() const noexcept;
    // Pixels at `at` need not stay in this process's resident memory.
    void let_go(const std::byte* at, std::size_t bytes) const noexcept {
        mapping_.let_go(static_cast<std::size_t>(at - mapping_.data()), bytes);
    }

    // Geometry of one frame: a 2D plane for rings of slices, else the whole array.
    std::uint64_t frame_bytes(bool as_slices) const noexcept;

    std::byte* at(std::uint64_t offset) const noexcept { return mapping_.data() + offset; }
    StreamMetadata& metadata() const noexcept { return *as<StreamMetadata>(0); }
    std::byte* pixels() const noexcept { return at(layout_.data); }
    KeywordEntry* keywords() const noexcept { return as<KeywordEntry>(layout_.keywords); }
    KeywordTable keyword_table() const noexcept {
        return {&metadata(), keywords(), shape_.keywords};
    }
    std::size_t keyword_bytes() const noexcept {
        return std::size_t{shape_.keywords} * sizeof(KeywordEntry);
    }
    std::byte* semaphore(std::uint16_t index) const noexcept {
        return at(layout_.semaphores + kSemaphoreBytes * index);
    }
    std::byte* semlog() const noexcept { return at(layout_.semlog); }
    std::int32_t* sem_read_pid() const noexcept {
        return as<std::int32_t>(layout_.sem_read_pid);
    }
    std::int32_t* sem_write_pid() const noexcept {
        return as<std::int32_t>(layout_.sem_write_pid);
    }
    ProcTraceEntry* proctrace() const noexcept { return as<ProcTraceEntry>(layout_.proctrace); }
    IsioTime* atime_array() const noexcept { return as<IsioTime>(layout_.atime_array); }
    IsioTime* writetime_array() const noexcept { return as<IsioTime>(layout_.writetime_array); }
    std::uint64_t* cnt_array() const noexcept { return as<std::uint64_t>(layout_.cnt_array); }
    RingEntry* cb_metadata() const noexcept { return as<RingEntry>(layout_.cb_metadata); }
    std::byte* cb_pixels() const noexcept { return at(layout_.cb_data); }

  private:
    template <typename T>
    T* as(std::uint64_t offset) const noexcept {
        return reinterpret_cast<T*>(mapping_.data() + offset);
    }

    std::string name_;
    std::string path_;
    StreamShape shape_;
    StreamLayout layout_;
    MappedFile mapping_;
};

// Nanoseconds since 1970 of a stored time, in whatever clock it was written; 0 when unset or
// outside the years 2000 to 2100.
std::int64_t to_ns(const IsioTime& time) noexcept;
IsioTime from_ns(std::int64_t time_ns) noexcept;

}  // namespace vampires
