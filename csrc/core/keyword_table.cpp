#include "keyword_table.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "memory_fence.hpp"

namespace vampires {
namespace {

// Entries are read and written as words, each of them whole; no value of a number is two words.
using Word [[gnu::may_alias]] = std::uint64_t;
constexpr std::size_t kWords = sizeof(KeywordEntry) / sizeof(Word);
constexpr std::size_t kNameWords = sizeof(KeywordEntry::name) / sizeof(Word);
constexpr std::size_t kHeadWords = offsetof(KeywordEntry, cnt) / sizeof(Word);
static_assert(sizeof(KeywordEntry) % sizeof(Word) == 0 &&
              alignof(KeywordEntry) >= alignof(Word));

// A change takes a microsecond or two, unless its writer is held up in the middle of it.
constexpr int kAttempts = 64;
// Frames that a reader can be behind of the newest and still be told what is ahead of it.
constexpr std::uint32_t kAhead_frames = 65'536;

std::uint64_t load_word(const KeywordEntry& entry, std::size_t word) noexcept {
    return __atomic_load_n(reinterpret_cast<const Word*>(&entry) + word, __ATOMIC_RELAXED);
}
void store_word(KeywordEntry& entry, std::size_t word, std::uint64_t value) noexcept {
    __atomic_store_n(reinterpret_cast<Word*>(&entry) + word, value, __ATOMIC_RELEASE);
}

template <std::size_t words>
void copy_words(const KeywordEntry& live, KeywordEntry& to) noexcept {
    for (std::size_t word = 0; word < words; ++word) {
        const std::uint64_t value = load_word(live, word);
        std::memcpy(reinterpret_cast<std::byte*>(&to) + word * sizeof value, &value,
                    sizeof value);
    }
}

// Of most entries all words are the same: without a branch for each it takes half the time.
template <std::size_t words>
bool same_words(const KeywordEntry& live, const KeywordEntry& entry) noexcept {
    std::uint64_t difference = 0;
    for (std::size_t word = 0; word < words; ++word) {
        std::uint64_t value = 0;
        std::memcpy(&value, reinterpret_cast<const std::byte*>(&entry) + word * sizeof value,
                    sizeof value);
        difference |= load_word(live, word) ^ value;
    }
    return difference == 0;
}

bool same_name(const KeywordEntry& a, const KeywordEntry& b) noexcept {
    return a.name[0] == b.name[0] && std::strncmp(a.name, b.name, sizeof a.name) == 0;
}

KeywordEntry empty_entry() noexcept {
    KeywordEntry entry = {};
    entry.type = 'N';
    return entry;
}

bool is_end(const KeywordEntry& entry) noexcept {
    return static_cast<char>(load_word(entry, 0) & 0xFF) == '\0';
}

std::uint16_t count_of(std::span<const KeywordEntry> entries) noexcept {
    const auto end = std::find_if(entries.begin(), entries.end(),
                                  [](const KeywordEntry& e) { return e.name[0] == '\0'; });
    return static_cast<std::uint16_t>(end - entries.begin());
}

// Less than a microsecond.
void relax() noexcept {
#if defined(__x86_64__)
    for (int k = 0; k < 16; ++k) __builtin_ia32_pause();
#endif
}

}  // namespace

bool KeywordCopy::is_ahead_of(std::uint64_t cnt0) const noexcept {
    return marked() && set_after - static_cast<std::uint32_t>(cnt0) < kAhead_frames;
}

// -- by the writer ---------------------------------------------------------------------------

// Marks the table while it is being changed.
class KeywordTable::Change {
  public:
    Change(StreamMetadata& metadata, bool technical, std::uint64_t after) noexcept
        : metadata_(metadata) {
        store(metadata_.keyword_changes, load(metadata_.keyword_changes) | 1U);
        full_fence();  // what follows must not pass the mark
        if (!technical) {
            store(metadata_.keywords_set_after, static_cast<std::uint32_t>(after));
        }
    }
    ~Change() {
        store_fence();
        // Even, also when another process changed a keyword meanwhile; 0 says that nobody
        // marks.
        const std::uint32_t over = (load(metadata_.keyword_changes) | 1U) + 1;
        store(metadata_.keyword_changes, over != 0 ? over : 2);
    }
    Change(const Change&) = delete;
    Change& operator=(const Change&) = delete;

  private:
    StreamMetadata& metadata_;
};

std::uint64_t KeywordTable::newest_cnt0() const noexcept {
    return metadata_ != nullptr ? load(metadata_->cnt0) : 0;
}

bool KeywordTable::set(const KeywordEntry& entry) noexcept {
    const std::uint16_t end = used();
    std::uint16_t at = 0;
    while (at < end && !has_name(at, entry)) ++at;
    if (at == size_) return false;
    const Change change(*metadata_, entry.name[0] == '_', newest_cnt0());
    KeywordEntry counted = entry;
    counted.cnt = at < end ? load_word(entries_[at], kHeadWords) + 1 : 1;
    // What lies behind the end of the list must not come to life with a new entry.
    if (at == end && at + 1 < size_) clear(static_cast<std::uint16_t>(at + 1));
    put(at, counted);
    return true;
}

bool KeywordTable::replace(std::span<const KeywordEntry> entries,
                           std::uint64_t after) noexcept {
    entries = entries.first(count_of(entries));
    if (entries.size() > size_) return false;
    const auto wanted = static_cast<std::uint16_t>(entries.size());
    const Difference found = difference(entries, wanted);
    if (found == Difference::none) return true;
    const Change change(*metadata_, found == Difference::technical, after);
    const std::uint16_t before = used();
    for (std::uint16_t k = before; k < size_; ++k) clear(k);
    for (std::uint16_t k = before; k < wanted; ++k) put(k, entries[k]);
    arrange(entries, std::max(before, wanted));
    for (std::uint16_t k = size_; k > wanted; --k) clear(static_cast<std::uint16_t>(k - 1));
    return true;
}

// Gives each place its entry, while the list ends before `end`. A name that stays is
// overwritten only where it can be seen elsewhere.
void KeywordTable::arrange(std::span<const KeywordEntry> entries, std::uint16_t end) noexcept {
    const auto wanted = static_cast<std::uint16_t>(entries.size());
    // Each round puts one entry right for good, unless another process changes it at the same
    // time; many, in one of the two directions.
    for (std::uint16_t round = 0; round <= wanted; ++round) {
        bool changed = false;
        std::uint16_t stuck = wanted;
        for (std::uint16_t k = 0; k < wanted; ++k) {
            const auto at = static_cast<std::uint16_t>(round % 2 == 0 ? k : wanted - 1 - k);
            if (same_words<kWords>(entries_[at], entries[at])) continue;
            if (may_change(at, entries)) {
                put(at, entries[at]);
                changed = true;
            } else {
                stuck = at;
            }
        }
        if (stuck == wanted) return;
        if (changed) continue;
        // They wait for one another: one of them is seen behind all others meanwhile.
        if (end < size_) put(end, head(stuck));
        put(stuck, entries[stuck]);
    }
}

bool KeywordTable::may_change(std::uint16_t at,
                              std::span<const KeywordEntry> entries) const noexcept {
    if (has_name(at, entries[at])) return true;
    const KeywordEntry there = head(at);
    const bool stays =
        std::any_of(entries.begin(), entries.end(),
                    [&there](const KeywordEntry& entry) { return same_name(entry, there); });
    return !stays || has_name(there, 0, at) ||
           has_name(there, static_cast<std::uint16_t>(at + 1), used());
}

void KeywordTable::end_change() noexcept {
    if (load(metadata_->keyword_changes) % 2 == 0) return;
    const Change ended(*metadata_, false, newest_cnt0());
}

std::uint16_t KeywordTable::used() const noexcept {
    std::uint16_t n = 0;
    while (n < size_ && !is_end(entries_[n])) ++n;
    return n;
}

bool KeywordTable::has_name(std::uint16_t index, const KeywordEntry& entry) const noexcept {
    const auto first = static_cast<char>(load_word(entries_[index], 0) & 0xFF);
    return first == entry.name[0] && same_name(head(index), entry);
}

bool KeywordTable::has_name(const KeywordEntry& entry, std::uint16_t from,
                            std::uint16_t to) const noexcept {
    for (std::uint16_t k = from; k < to; ++k) {
        if (has_name(k, entry)) return true;
    }
    return false;
}

// The name last, and its first letter last of all: a new entry is seen when it is complete.
void KeywordTable::put(std::uint16_t index, const KeywordEntry& entry) noexcept {
    for (std::size_t k = kWords; k > 0; --k) {
        const std::uint64_t value = load_word(entry, k - 1);
        if (load_word(entries_[index], k - 1) != value)
            store_word(entries_[index], k - 1, value);
    }
}

void KeywordTable::clear(std::uint16_t index) noexcept {
    const KeywordEntry empty = empty_entry();
    if (same_words<kWords>(entries_[index], empty)) return;
    for (std::size_t k = 0; k < kWords; ++k) {
        const std::uint64_t value = load_word(empty, k);
        if (load_word(entries_[index], k) != value) store_word(entries_[index], k, value);
    }
}

// -- by anybody ------------------------------------------------------------------------------

KeywordCopy KeywordTable::copy(std::span<KeywordEntry> to,
                               std::uint32_t left_over) const noexcept {
    KeywordCopy copied;
    if (metadata_ == nullptr) return copied;
    for (int left = kAttempts; left > 0 && !copied.settled; --left) {
        const std::uint32_t changes = load(metadata_->keyword_changes);
        const bool marked = changes % 2 != 0 && changes != left_over;
        if (marked && left > 1) {
            relax();
            continue;
        }
        copied = copy_once(to);
        std::atomic_thread_fence(std::memory_order_acquire);
        const Difference found = difference(to, copied.used);
        std::atomic_thread_fence(std::memory_order_acquire);
        // After the entries: who saw one of a change sees for which frames that is.
        copied.set_after = load(metadata_->keywords_set_after);
        copied.changes = load(metadata_->keyword_changes);
        const bool enough =
            found == Difference::none || (left == 1 && found == Difference::technical);
        copied.settled = enough && !marked && copied.changes == changes;
        copied.changing = enough && marked && copied.changes == changes;
    }
    std::fill(to.begin() + copied.used, to.end(), empty_entry());
    return copied;
}

KeywordCopy KeywordTable::copy_once(std::span<KeywordEntry> to) const noexcept {
    KeywordCopy copied;
    for (; copied.used < size_ && !is_end(entries_[copied.used]); ++copied.used) {
        copy_words<kWords>(entries_[copied.used], to[copied.used]);
    }
    return copied;
}

// Between these and what is there now.
KeywordTable::Difference KeywordTable::difference(std::span<const KeywordEntry> copied,
                                                  std::uint16_t n) const noexcept {
    if (n < size_ && !is_end(entries_[n])) return Difference::other;
    Difference found = Difference::none;
    for (std::uint16_t k = 0; k < n; ++k) {
        if (same_words<kWords>(entries_[k], copied[k])) continue;
        if (copied[k].name[0] != '_' || !same_words<kNameWords>(entries_[k], copied[k])) {
            return Difference::other;
        }
        found = Difference::technical;
    }
    return found;
}

KeywordEntry KeywordTable::head(std::uint16_t index) const noexcept {
    KeywordEntry entry = {};
    copy_words<kHeadWords>(entries_[index], entry);
    return entry;
}

KeywordCopy KeywordReader::copy(std::span<KeywordEntry> to) noexcept {
    const std::uint64_t newest = table_.newest_cnt0();
    const KeywordCopy copied = table_.copy(to, left_over_);
    const bool marked = !copied.settled && copied.changes % 2 != 0;
    if (marked && copied.changes == unsettled_ && newest != unsettled_cnt0_) {
        left_over_ = copied.changes;
        return table_.copy(to, left_over_);
    }
    if (marked && copied.changes != unsettled_) unsettled_cnt0_ = newest;
    unsettled_ = marked ? copied.changes : 0;
    return copied;
}

}  // namespace vampires
