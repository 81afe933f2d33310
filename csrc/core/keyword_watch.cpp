#include "keyword_watch.hpp"

#include <utility>

namespace vampires {

void KeywordWatch::attach(const KeywordTable& table) {
    reader_ = KeywordReader(table);
    now_.assign(table.size(), KeywordEntry{});
    next_ = now_;
    before_.resize(
        table.size());  // what a stream re-created with the same values has is no change
    used_ = 0;
}

bool KeywordWatch::look(std::uint64_t cnt0, bool any) noexcept {
    const KeywordCopy copied = reader_.copy(next_);
    unsettled_ += copied.settled ? 0 : 1;
    const bool known = copied.settled && !copied.is_ahead_of(cnt0);
    if (known || any || used_ == 0) {
        std::swap(now_, next_);
        used_ = copied.used;
    }
    return known;
}

}  // namespace vampires
