// The keywords of a stream as they were at a cube's first frame, and what changed after it.
// Used by the capture thread; a cube's copy of the result is read by others once it ended.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "isio_layout.hpp"
#include "keyword_table.hpp"

namespace vampires {

struct KeywordChange {
    std::int32_t frame = 0;  // the first frame with the new value
    KeywordEntry entry{};    // as it was from then on
};

// At most this many changes of one cube are kept; the number of all is counted.
inline constexpr std::size_t kMaxKeywordChanges = 64;

class KeywordWatch {
  public:
    // For the keywords of a stream; allocates. Changes go on from the stream before.
    void attach(const KeywordTable& table);

    // Copies the live keywords, which are to be those of this frame, the newest. False when
    // that cannot be said: they are a later frame's already, or were changed again and again
    // while they were copied. What was seen before is kept then; unless `any`, or there is
    // nothing.
    bool look(std::uint64_t cnt0, bool any = false) noexcept;
    // Compares what look() saw with what it saw at the frame before, and notes the changes as
    // of frame `frame` of the cube. Technical keywords (name begins with '_') are left out.
    template <typename Note>
    void changes(Note note) noexcept;

    const KeywordEntry* entries() const noexcept { return now_.data(); }
    std::uint16_t used() const noexcept { return used_; }
    // Looks that found no table to rely on.
    std::uint64_t unsettled() const noexcept { return unsettled_; }

  private:
    KeywordReader reader_;
    std::vector<KeywordEntry> now_;
    std::vector<KeywordEntry> next_;  // being copied
    std::vector<KeywordEntry> before_;
    std::uint16_t used_ = 0;
    std::uint64_t unsettled_ = 0;
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
