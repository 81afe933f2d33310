// The logger's memory: page-aligned chunks, allocated and locked at the start.
//
// A chunk has one owner at any moment. It goes from the free queue to the capture thread, which
// fills it; through the full queue to the writer thread, which puts it on disk; and back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "frame_row.hpp"
#include "spsc_queue.hpp"

namespace vampires {

inline constexpr std::size_t kPageBytes = 4096;

inline constexpr std::size_t page_floor(std::size_t bytes) {
    return bytes / kPageBytes * kPageBytes;
}
inline constexpr std::size_t page_ceil(std::size_t bytes) {
    return page_floor(bytes + kPageBytes - 1);
}

struct Chunk {
    std::byte* bytes = nullptr;  // ChunkPool::chunk_bytes() of them
    std::byte* rows = nullptr;   // packed FrameRows, ChunkPool::max_rows() of them

    // What it holds, set by the capture thread before it hands the chunk over.
    std::uint64_t file_offset = 0;     // page-aligned
    std::size_t used_bytes = 0;        // the rest of the last page is zeros
    std::uint32_t n_rows = 0;          // frames whose last byte is in this chunk
    std::uint32_t sum_after_rows = 0;  // data sum of the cube up to and with the last of them
};

// What the capture thread hands to the writer: a chunk of a cube, or (null) the cube's end.
struct Delivery {
    Chunk* chunk = nullptr;
    std::uint32_t cube = 0;
};

class ChunkPool {
  public:
    // About `memory_bytes` in all, at least kMinChunks chunks. Throws std::system_error when
    // the memory is not to be had.
    explicit ChunkPool(std::size_t memory_bytes, std::size_t max_cubes = 64);
    ~ChunkPool();
    ChunkPool(const ChunkPool&) = delete;
    ChunkPool& operator=(const ChunkPool&) = delete;

    static constexpr std::size_t kMinChunks = 8;

    std::size_t chunk_bytes() const noexcept { return chunk_bytes_; }
    std::uint32_t max_rows() const noexcept { return max_rows_; }
    std::size_t count() const noexcept { return chunks_.size(); }
    std::size_t total_bytes() const noexcept { return memory_bytes_; }
    // Empty when the memory is locked, else why it is not (it may then be swapped out).
    const std::string& lock_note() const noexcept { return lock_note_; }

    SpscQueue<Chunk*> free;    // writer -> capture
    SpscQueue<Delivery> full;  // capture -> writer

  private:
    static std::size_t chosen_chunk_bytes(std::size_t memory_bytes);

    std::size_t chunk_bytes_;
    std::size_t row_bytes_;
    std::uint32_t max_rows_;
    std::size_t memory_bytes_ = 0;
    std::byte* memory_ = nullptr;
    std::vector<Chunk> chunks_;
    std::string lock_note_;
};

}  // namespace vampires
