// Where the bytes of the next frame go: a line of chunks, cut without regard to frames.
//
// A frame is first reserved, then written into its pieces by the caller, then committed or
// forgotten; a frame that is not committed leaves no trace. Chunks go to the writer thread as
// they fill. Used by the capture thread alone.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "chunk_pool.hpp"

namespace vampires {

class FramePlacer {
  public:
    struct Piece {
        std::byte* at;
        std::size_t bytes;
    };

    explicit FramePlacer(ChunkPool& pool);

    // Chunks a frame may need at one time; more than the pool has and it can never be logged.
    std::size_t chunks_for(std::size_t header_bytes, std::size_t frame_bytes) const noexcept;

    bool in_cube() const noexcept { return in_cube_; }
    // Starts a file: leaves room for the header. Nothing is handed over before set_cube().
    void start(std::size_t header_bytes);
    void set_cube(std::uint32_t cube) noexcept { cube_ = cube; }

    // Room for a frame at the current position; false when there is no free chunk now.
    bool reserve(std::size_t frame_bytes);
    // The room reserved, in order.
    std::span<const Piece> pieces() const noexcept { return pieces_; }
    // Keeps the frame in the pieces. sum: data sum of its bytes as if at a word boundary.
    void commit(const FrameRow& row, std::uint32_t sum);
    // Makes the frame in the pieces the first of a new file, and what is before it the end of
    // this one, which is handed over. False when there is no free chunk now: nothing changed.
    bool split(std::size_t header_bytes);
    // Ends the file: hands over the rest and the end mark.
    void end();
    // Hands over what there is, so that it reaches the disk soon. The part of the last page is
    // kept and written once more with what follows. A frame reserved and not committed is
    // forgotten; before the first frame of the file nothing is handed over.
    void flush();
    // Bytes of the file handed over so far.
    std::uint64_t handed_over() const noexcept { return base_; }
    bool has_unflushed() const noexcept { return data_bytes_ > 0 && position_ > carried_; }

  private:
    bool extend(std::size_t end);
    void lay_out(std::size_t frame_bytes);
    void hand_over(Chunk& chunk, std::size_t used_bytes);
    void hand_over_full();
    Chunk* take_chunk();

    ChunkPool& pool_;
    bool in_cube_ = false;
    std::uint32_t cube_ = 0;
    std::vector<Chunk*> line_;      // owned; the first is being filled, the others are fresh
    std::vector<Chunk*> spare_;     // owned and empty
    std::vector<Chunk*> taken_;     // scratch for split()
    std::size_t position_ = 0;      // bytes from the start of line_[0]
    std::uint64_t base_ = 0;        // file offset of line_[0]
    std::uint64_t data_bytes_ = 0;  // committed
    std::uint32_t sum_ = 0;         // of those
    std::array<std::byte, kPageBytes> carry_{};  // a part of a page already handed over
    std::size_t carried_ = 0;
    bool carry_pending_ = false;  // not yet in line_[0]
    std::vector<Piece> pieces_;
    std::size_t frame_bytes_ = 0;
};

}  // namespace vampires
