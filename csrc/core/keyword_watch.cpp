#include "keyword_watch.hpp"

#include <cstring>
#include <utility>

namespace vampires {
namespace {

bool is_named(const KeywordEntry& entry, const char* name) noexcept {
    return entry.name[0] == name[0] && std::strncmp(entry.name, name, sizeof entry.name) == 0;
}

bool has_value(const KeywordEntry& entry) noexcept {
    return entry.type == 'L' || entry.type == 'D' || entry.type == 'S';
}

bool same_value(const KeywordEntry& a, const KeywordEntry& b) noexcept {
    if (a.type != b.type) return false;
    if (a.type == 'S') {
        return std::strncmp(a.value.as_text, b.value.as_text, sizeof a.value.as_text) == 0;
    }
    return a.value.as_int == b.value.as_int;  // of a double, its bits
}

}  // namespace

KeywordWatch::KeywordWatch(const std::vector<std::string>& ending) : ending_(ending.size()) {
    for (std::size_t k = 0; k < ending.size(); ++k) {
        KeywordEntry& entry = ending_[k].begun_with;
        entry.type = 'N';
        std::strncpy(entry.name, ending[k].c_str(), sizeof entry.name - 1);
    }
}

void KeywordWatch::attach(const KeywordTable& table) {
    reader_ = KeywordReader(table);
    now_.assign(table.size(), KeywordEntry{});
    next_ = now_;
    before_.resize(
        table.size());  // what a stream re-created with the same values has is no change
    used_ = 0;
    all_mark_ = true;
}

bool KeywordWatch::look(std::uint64_t cnt0, bool newest, bool any) noexcept {
    const KeywordCopy copied = reader_.copy(next_);
    const bool settled = copied.settled || copied.changing;
    unsettled_ += settled ? 0 : 1;
    all_mark_ = all_mark_ && !changed_unmarked(copied);
    const bool since_then = newest || (copied.marked() && all_mark_);
    const bool known = settled && since_then && !copied.is_ahead_of(cnt0);
    if (known || any || used_ == 0) {
        std::swap(now_, next_);
        used_ = copied.used;
        changes_ = copied.changes;
    }
    return known;
}

// Other programs may also set keywords of the stream, without marking the change.
bool KeywordWatch::changed_unmarked(const KeywordCopy& next) const noexcept {
    if (used_ == 0 || !next.settled || next.changes != changes_) return false;
    if (next.used != used_) return true;
    for (std::uint16_t k = 0; k < used_; ++k) {
        if (now_[k].name[0] == '_') continue;
        if (std::memcmp(&now_[k], &next_[k], sizeof now_[k]) != 0) return true;
    }
    return false;
}

void KeywordWatch::begin_cube() noexcept {
    changes([](const KeywordEntry&) {});  // from here on
    for (Ending& ending : ending_) {
        const KeywordEntry* entry = find(ending);
        ending.begun_with.type = entry != nullptr ? entry->type : 'N';
        if (entry != nullptr) ending.begun_with.value = entry->value;
    }
}

const char* KeywordWatch::ends_cube() noexcept {
    for (Ending& ending : ending_) {
        const KeywordEntry* entry = find(ending);
        const bool was_there = ending.begun_with.type != 'N';
        const bool same = entry == nullptr ? !was_there : same_value(*entry, ending.begun_with);
        if (!same) return ending.begun_with.name;
    }
    return nullptr;
}

// It keeps its place as a rule. Null: it is not there, or has no value.
const KeywordEntry* KeywordWatch::find(Ending& ending) const noexcept {
    const char* name = ending.begun_with.name;
    std::uint16_t place = ending.place;
    if (place >= used_ || !is_named(now_[place], name)) {
        place = 0;
        while (place < used_ && !is_named(now_[place], name)) ++place;
        if (place == used_) return nullptr;
        ending.place = place;
    }
    return has_value(now_[place]) ? &now_[place] : nullptr;
}

}  // namespace vampires
