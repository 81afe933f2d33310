// The keywords of a stream as they were at a cube's first frame, and what changed after it.
// Used by the capture thread; a cube's copy of the result is read by others once it ended.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "isio_layout.hpp"

namespace vampires {

struct KeywordChange {
    std::int32_t frame = 0;  // the first frame with the new value
    KeywordEntry entry{};    // as it was from then on
};

// At most this many changes of one cube are kept; the number of all is counted.
inline constexpr std::size_t kMaxKeywordChanges = 64;

class KeywordWatch {
  public:
    // For a stream with this many entries; allocates. Changes go on from the stream before.
    void attach(const KeywordEntry* live, std::uint16_t entries);

    // Copies the live keywords. To be called while the frame is known to be the newest.
    void look() noexcept;
    // Compares what look() saw with what it saw at the frame before, and notes the changes as
    // of frame `frame` of the cube. Technical keywords (name begins with '_') are left out.
    template <typename Note>
    void changes(Note note) noexcept;

    const KeywordEntry* entries() const noexcept { return now_.data(); }
    std::uint16_t used() const noexcept { return used_; }

  private:
    const KeywordEntry* live_ = nullptr;
    std::vector<KeywordEntry> now_;
    std::vector<KeywordEntry> before_;
    std::uint16_t used_ = 0;
};

template <typename Note>
void KeywordWatch::changes(Note note) noexcept {
    for (std::uint16_t k = 0; k < used_; ++k) {
        const KeywordEntry& entry = now_[k];
        KeywordEntry& before = before_[k];
        // Name, type and value; counter and comment say nothing about the frame.
        if (__builtin_memcmp(&entry, &before, offsetof(KeywordEntry, cnt)) == 0) continue;
        before = entry;
        if (entry.name[0] != '_') note(entry);
    }
}

}  // namespace vampires
