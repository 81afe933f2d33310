#include "keyword_watch.hpp"

#include <cstring>

namespace vampires {

void KeywordWatch::attach(const KeywordEntry* live, std::uint16_t entries) {
    live_ = live;
    now_.assign(entries, KeywordEntry{});
    before_.resize(entries);  // what a stream re-created with the same values has is no change
    used_ = 0;
}

void KeywordWatch::look() noexcept {
    // The list ends at the first empty name; entries behind it are left over.
    used_ = 0;
    while (used_ < now_.size() && live_[used_].name[0] != '\0') {
        std::memcpy(static_cast<void*>(&now_[used_]), &live_[used_], sizeof(KeywordEntry));
        ++used_;
    }
}

}  // namespace vampires
