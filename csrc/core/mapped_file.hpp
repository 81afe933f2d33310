// A shared mapping of a file that stays readable when the file is truncated under it.
//
// Touching a page beyond the end of a truncated file raises SIGBUS and would end the process,
// capture thread, open cubes and all. A process-wide handler, installed with the first mapping,
// puts zero pages in place of the lost ones and marks the mapping broken; whoever copies from
// it looks at broken() afterwards. Faults outside our mappings go to the handler that was there
// before.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

namespace vampires {

class MappedFile {
  public:
    // Maps the first `bytes` of the open file read-write and keeps the descriptor.
    // Takes ownership of fd, also when it throws (std::system_error).
    MappedFile(int fd, std::size_t bytes);
    ~MappedFile();
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;

    std::byte* data() const noexcept { return data_; }
    std::size_t size() const noexcept { return bytes_; }
    int fd() const noexcept { return fd_; }
    std::uint64_t inode() const noexcept { return inode_; }

    // Takes pages that lie within the range out of this process's resident memory; the file
    // keeps them, and touching them brings them back.
    void let_go(std::size_t offset, std::size_t bytes) const noexcept;

    // True once a page of it was found missing; what was read since is zeros.
    bool broken() const noexcept;

  private:
    int fd_ = -1;
    std::byte* data_ = nullptr;
    std::size_t bytes_ = 0;
    std::uint64_t inode_ = 0;
    std::size_t guard_ = 0;  // index in the handler's table
};

}  // namespace vampires
