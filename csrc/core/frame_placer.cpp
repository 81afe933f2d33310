#include "frame_placer.hpp"

#include <algorithm>
#include <cstring>

#include "fits_sum.hpp"

namespace vampires {

FramePlacer::FramePlacer(ChunkPool& pool) : pool_(pool) {
    // No allocation once frames come.
    line_.reserve(pool.count());
    spare_.reserve(pool.count());
    taken_.reserve(pool.count());
    pieces_.reserve(pool.count());
}

std::size_t FramePlacer::chunks_for(std::size_t header_bytes,
                                    std::size_t frame_bytes) const noexcept {
    // Twice the frame: one that starts a new file lies in both for a moment.
    return (header_bytes + 2 * frame_bytes) / pool_.chunk_bytes() + 4;
}

Chunk* FramePlacer::take_chunk() {
    Chunk* chunk = nullptr;
    if (!spare_.empty()) {
        chunk = spare_.back();
        spare_.pop_back();
    } else if (!pool_.free.try_pop(chunk)) {
        return nullptr;
    }
    chunk->used_bytes = 0;
    chunk->n_rows = 0;
    return chunk;
}

void FramePlacer::start(std::size_t header_bytes) {
    in_cube_ = true;
    position_ = header_bytes;
    base_ = data_bytes_ = 0;
    sum_ = 0;
    carried_ = 0;
    carry_pending_ = false;
}

bool FramePlacer::extend(std::size_t end) {
    while (line_.size() * pool_.chunk_bytes() < end) {
        Chunk* chunk = take_chunk();
        if (chunk == nullptr) return false;
        line_.push_back(chunk);
    }
    if (carry_pending_) {
        std::memcpy(line_[0]->bytes, carry_.data(), carried_);
        carry_pending_ = false;
    }
    return true;
}

void FramePlacer::lay_out(std::size_t frame_bytes) {
    pieces_.clear();
    frame_bytes_ = frame_bytes;
    std::size_t at = position_;
    while (frame_bytes > 0) {
        const std::size_t offset = at % pool_.chunk_bytes();
        const std::size_t bytes = std::min(frame_bytes, pool_.chunk_bytes() - offset);
        pieces_.push_back({line_[at / pool_.chunk_bytes()]->bytes + offset, bytes});
        at += bytes;
        frame_bytes -= bytes;
    }
}

bool FramePlacer::reserve(std::size_t frame_bytes) {
    if (!extend(position_ + frame_bytes)) return false;
    lay_out(frame_bytes);
    return true;
}

void FramePlacer::commit(const FrameRow& row, std::uint32_t sum) {
    sum_ = sum_add(sum_, sum_shift(sum, data_bytes_));
    data_bytes_ += frame_bytes_;
    position_ += frame_bytes_;
    Chunk& chunk = *line_[(position_ - 1) / pool_.chunk_bytes()];
    row.pack(chunk.rows + chunk.n_rows * kFrameRowBytes);
    ++chunk.n_rows;
    chunk.sum_after_rows = sum_;
    hand_over_full();
    if (!line_.empty() && line_[0]->n_rows == pool_.max_rows()) flush();
}

void FramePlacer::hand_over_full() {
    std::size_t full = 0;
    while (position_ >= pool_.chunk_bytes()) {
        hand_over(*line_[full++], pool_.chunk_bytes());
        position_ -= pool_.chunk_bytes();
        carried_ = 0;
    }
    line_.erase(line_.begin(), line_.begin() + static_cast<std::ptrdiff_t>(full));
}

void FramePlacer::hand_over(Chunk& chunk, std::size_t used_bytes) {
    const std::size_t whole_pages = page_ceil(used_bytes);
    std::memset(chunk.bytes + used_bytes, 0, whole_pages - used_bytes);
    chunk.file_offset = base_;
    chunk.used_bytes = used_bytes;
    base_ += page_floor(used_bytes);
    pool_.full.try_push({&chunk, cube_});  // has room for every chunk there is
}

void FramePlacer::flush() {
    if (!has_unflushed()) return;
    const std::size_t tail = position_ % kPageBytes;
    if (!carry_pending_) {
        std::memcpy(carry_.data(), line_[0]->bytes + page_floor(position_), tail);
    }
    hand_over(*line_[0], position_);
    line_.erase(line_.begin());
    position_ = carried_ = tail;
    carry_pending_ = tail > 0;
}

void FramePlacer::end() {
    if (!in_cube_) return;
    if (has_unflushed()) {
        hand_over(*line_[0], position_);
        line_.erase(line_.begin());
    }
    spare_.insert(spare_.end(), line_.begin(), line_.end());
    line_.clear();
    pool_.full.try_push({nullptr, cube_});
    in_cube_ = false;
    data_bytes_ = 0;
    carry_pending_ = false;
}

bool FramePlacer::split(std::size_t header_bytes) {
    const std::size_t end = header_bytes + frame_bytes_;
    while (taken_.size() * pool_.chunk_bytes() < end) {
        Chunk* chunk = take_chunk();
        if (chunk == nullptr) {
            spare_.insert(spare_.end(), taken_.begin(), taken_.end());
            taken_.clear();
            return false;
        }
        taken_.push_back(chunk);
    }
    std::size_t at = header_bytes;
    for (const Piece& piece : pieces_) {
        for (std::size_t done = 0; done < piece.bytes;) {
            const std::size_t offset = at % pool_.chunk_bytes();
            const std::size_t bytes =
                std::min(piece.bytes - done, pool_.chunk_bytes() - offset);
            std::memcpy(taken_[at / pool_.chunk_bytes()]->bytes + offset, piece.at + done,
                        bytes);
            at += bytes;
            done += bytes;
        }
    }
    const std::size_t frame_bytes = frame_bytes_;
    this->end();
    line_.swap(taken_);
    start(header_bytes);
    lay_out(frame_bytes);
    return true;
}

}  // namespace vampires
