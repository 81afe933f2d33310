// The keywords of a stream as they were at a cube's first frame, what changed after it, and
// whether one changed with whose change a cube ends. Used by the capture thread; a cube's copy
// of the result is read by others once it ended.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
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
    // ending: names of the keywords with whose change a cube ends.
    explicit KeywordWatch(const std::vector<std::string>& ending = {});

    // For the keywords of a stream; allocates. Changes go on from the stream before.
    void attach(const KeywordTable& table);

    // Copies the live keywords, which are to be those of this frame. False when that cannot be
    // said: one was set for a later frame, or they never rested while they were copied, or the
    // frame is not the newest and their writer does not say since which frame they are. What
    // was seen before is kept then; unless `any`, or there is nothing.
    bool look(std::uint64_t cnt0, bool newest = true, bool any = false) noexcept;
    // Compares what look() saw with what it saw at the frame before, and notes the changes as
    // of frame `frame` of the cube. Technical keywords (name begins with '_') are left out.
    template <typename Note>
    void changes(Note note) noexcept;
    // A cube begins with what look() saw.
    void begin_cube() noexcept;
    // The name of a keyword with whose change the cube ends and that is not as it was then: it
    // came, it went, or has another type or value. Null: none.
    const char* ends_cube() noexcept;

    const KeywordEntry* entries() const noexcept { return now_.data(); }
    std::uint16_t used() const noexcept { return used_; }
    // Looks that found no table to rely on.
    std::uint64_t unsettled() const noexcept { return unsettled_; }

  private:
    struct Ending {
        KeywordEntry begun_with{};  // type 'N': not there
        std::uint16_t place = 0;    // where it was seen last
    };
    const KeywordEntry* find(Ending& ending) const noexcept;
    bool changed_unmarked(const KeywordCopy& next) const noexcept;

    std::vector<Ending> ending_;
    KeywordReader reader_;
    std::vector<KeywordEntry> now_;
    std::vector<KeywordEntry> next_;  // being copied
    std::vector<KeywordEntry> before_;
    std::uint16_t used_ = 0;
    std::uint32_t changes_ = 0;  // the mark that stood when they were copied
    bool all_mark_ = true;       // everybody who changes keywords
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
