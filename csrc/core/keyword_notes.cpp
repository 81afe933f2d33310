#include "keyword_notes.hpp"

#include <cstdlib>
#include <cstring>

#include "acquisition_keyword.hpp"
#include "memory_fence.hpp"

namespace vampires {
namespace {

constexpr std::uint64_t kPatience_frames = 3;

// Technical keywords, the acquisition time among them, change with each frame.
bool same(const std::vector<KeywordEntry>& a, const std::vector<KeywordEntry>& b) noexcept {
    for (std::size_t k = 0; k < a.size(); ++k) {
        if (a[k].name[0] == '_' && b[k].name[0] == '_') continue;
        if (std::memcmp(&a[k], &b[k], sizeof a[k]) != 0) return false;
    }
    return true;
}

}  // namespace

KeywordNotes::KeywordNotes(std::shared_ptr<StreamFile> file)
    : file_(std::move(file)), reader_(file_->keyword_table()), now_(file_->shape().keywords) {
    notes_.push_back({0, now_});
    look();
}

// One copy while this frame is the newest; the writer sets them before it counts.
std::optional<KeywordCopy> KeywordNotes::read(std::uint64_t cnt0) {
    const KeywordCopy copied = reader_.copy(now_);
    std::atomic_thread_fence(std::memory_order_acquire);
    if (load(file_->metadata().cnt0) != cnt0) return std::nullopt;
    return copied;
}

void KeywordNotes::look() {
    const std::uint64_t newest = load(file_->metadata().cnt0);
    if (now_.empty() || newest == looked_at_) return;
    // While the next frame is written, its keywords may be there already. A writer that never
    // rests has to be taken as it is.
    const bool writing = load(file_->metadata().write) != 0;
    const bool patient = newest > looked_at_ && newest - looked_at_ < kPatience_frames;
    if (writing && patient) return;
    std::uint64_t cnt0 = newest;
    std::optional<KeywordCopy> copied = read(cnt0);
    if (!copied) copied = read(cnt0 = load(file_->metadata().cnt0));
    if (!copied || (!copied->settled && patient)) return;
    looked_at_ = cnt0;
    const std::uint64_t since = copied->is_ahead_of(cnt0) ? cnt0 + 1 : cnt0;
    if (since < notes_.back().since) notes_.clear();  // the counter was set back
    if (!notes_.empty() && same(notes_.back().entries, now_)) {
        notes_.back().entries = now_;
        return;
    }
    if (notes_.size() == kMost) notes_.pop_front();
    notes_.push_back({since, now_});
}

void KeywordNotes::put(const FrameInfo& frame, std::span<std::byte> entries) const {
    if (now_.empty()) return;
    auto note = notes_.rbegin();
    while (note->since > frame.cnt0 && note + 1 != notes_.rend()) ++note;
    std::memcpy(entries.data(), note->entries.data(), entries.size());
    if (frame.acquired_ns == 0) return;
    for (std::size_t k = 0; k < note->entries.size(); ++k) {
        KeywordEntry entry = note->entries[k];
        if (entry.name[0] == '\0') return;
        if (entry.type != 'L' || !is_acquisition_time(entry)) continue;
        const std::int64_t noted_ns = acquisition_ns(entry);
        // What the camera wrote stands, as long as it is the time of this frame.
        if (noted_ns == 0 || std::abs(noted_ns - frame.acquired_ns) < 2'000) return;
        entry.value.as_int = frame.acquired_ns / 1'000;
        std::memcpy(entries.data() + k * sizeof entry, &entry, sizeof entry);
        return;
    }
}

}  // namespace vampires
