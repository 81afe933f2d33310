#include "chunk_pool.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

namespace vampires {
namespace {

constexpr std::size_t kLargestChunk = std::size_t{8} << 20;
constexpr std::size_t kSmallestChunk = std::size_t{64} << 10;
// Rows take 1/64 of a chunk: one for each 3.5 kB of pixels, fewer than that seal it early.
constexpr std::size_t kRowShare = 64;

std::size_t per_chunk(std::size_t chunk_bytes) {
    return chunk_bytes + std::max(kPageBytes, page_ceil(chunk_bytes / kRowShare));
}

std::size_t chunk_count(std::size_t memory_bytes, std::size_t chunk_bytes) {
    return std::max(ChunkPool::kMinChunks, memory_bytes / per_chunk(chunk_bytes));
}

}  // namespace

// Large enough for the disk, small enough that a small memory still has many of them.
std::size_t ChunkPool::chosen_chunk_bytes(std::size_t memory_bytes) {
    return std::clamp(page_floor(memory_bytes / 64), kSmallestChunk, kLargestChunk);
}

ChunkPool::ChunkPool(std::size_t memory_bytes, std::size_t max_cubes)
    : free(chunk_count(memory_bytes, chosen_chunk_bytes(memory_bytes))),
      full(free.capacity() + max_cubes),
      chunk_bytes_(chosen_chunk_bytes(memory_bytes)),
      row_bytes_(per_chunk(chunk_bytes_) - chunk_bytes_),
      max_rows_(static_cast<std::uint32_t>(row_bytes_ / kFrameRowBytes)),
      chunks_(free.capacity()) {
    memory_bytes_ = chunks_.size() * (chunk_bytes_ + row_bytes_);
    void* memory = mmap(nullptr, memory_bytes_, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        throw std::system_error(
            errno, std::generic_category(),
            "cannot allocate " + std::to_string(memory_bytes_) + " bytes of ring memory");
    }
    memory_ = static_cast<std::byte*>(memory);
    madvise(memory, memory_bytes_, MADV_HUGEPAGE);
    if (mlock(memory, memory_bytes_) != 0) {
        lock_note_ = "ring memory is not locked (" + std::string(std::strerror(errno)) +
                     "); raise the memlock limit to keep it from being swapped out";
        std::memset(memory, 0, memory_bytes_);  // at least no page fault later
    }
    std::byte* rows = memory_ + chunks_.size() * chunk_bytes_;
    for (std::size_t k = 0; k < chunks_.size(); ++k) {
        chunks_[k].bytes = memory_ + k * chunk_bytes_;
        chunks_[k].rows = rows + k * row_bytes_;
        free.try_push(&chunks_[k]);
    }
}

ChunkPool::~ChunkPool() {
    munmap(memory_, memory_bytes_);
}

}  // namespace vampires
