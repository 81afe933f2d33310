// The keywords of a stream in shared memory: changed in place, copied whole.
//
// Any process may read at any moment, so a change never empties the table, leaves unchanged
// entries alone, and never removes a name that is there before and after. Two words in padding
// of the metadata, which the library does not use, tell readers of this package more:
//
//   keyword_changes     odd while the table is being changed, another number after each change
//   keywords_set_after  the newest frame at the last change (cnt0, its low 32 bits): the values
//                       are those of the frames after it; except those of technical keywords,
//                       whose names begin with '_', since they change with every frame
//
// A writer that knows nothing of them leaves them as they are. Of its tables a copy is taken
// that did not change while it was made.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "isio_layout.hpp"

namespace vampires {

struct KeywordCopy {
    std::uint16_t used = 0;  // entries before the first empty name
    bool settled = false;    // one of the tables that were written, as far as can be known
    // Not settled since a change is under way. Of a frame that it is not ahead of, the values
    // are settled all the same; technical ones excepted.
    bool changing = false;
    std::uint32_t changes = 0;  // the two words, as they were at the copy
    std::uint32_t set_after = 0;

    bool marked() const noexcept { return changes != 0; }  // by this package's writer
    // The writer says that a value is of a frame after this one, which is the newest or one of
    // the last 65,536.
    bool is_ahead_of(std::uint64_t cnt0) const noexcept;
};

class KeywordTable {
  public:
    KeywordTable() = default;  // of no stream: no entries
    KeywordTable(StreamMetadata* metadata, KeywordEntry* entries, std::uint16_t size) noexcept
        : metadata_(metadata), entries_(entries), size_(size) {}

    std::uint16_t size() const noexcept { return size_; }
    std::uint64_t newest_cnt0() const noexcept;

    // For the writer.

    // Sets one keyword, keeping its place, and counts its updates; a new one is the last.
    // False when there is no room.
    bool set(const KeywordEntry& entry) noexcept;
    // Makes these all there are, in this order, up to the first empty name; they are of the
    // frames after `after`. A change of order needs one free entry to keep all names in sight.
    // False when there is no room.
    bool replace(std::span<const KeywordEntry> entries, std::uint64_t after) noexcept;
    // A change that its writer did not live to end is over.
    void end_change() noexcept;

    // For any process.

    // Copies all to `to`, of size() entries; those behind the last become empty. Bounded, and
    // never sleeps: a table that does not settle in 64 attempts, some 50 us, is copied as it
    // stands and reported as unsettled. Where only technical keywords keep changing, the rest
    // is settled. A mark equal to `left_over` was left by a writer that died.
    KeywordCopy copy(std::span<KeywordEntry> to, std::uint32_t left_over = 0) const noexcept;
    // Name, type and value of one entry, without its comment.
    KeywordEntry head(std::uint16_t index) const noexcept;

  private:
    class Change;
    enum class Difference { none, technical, other };

    std::uint16_t used() const noexcept;
    bool has_name(std::uint16_t index, const KeywordEntry& entry) const noexcept;
    bool has_name(const KeywordEntry& entry, std::uint16_t from,
                  std::uint16_t to) const noexcept;
    void put(std::uint16_t index, const KeywordEntry& entry) noexcept;
    void clear(std::uint16_t index) noexcept;
    bool may_change(std::uint16_t at, std::span<const KeywordEntry> entries) const noexcept;
    void arrange(std::span<const KeywordEntry> entries, std::uint16_t end) noexcept;
    KeywordCopy copy_once(std::span<KeywordEntry> to) const noexcept;
    Difference difference(std::span<const KeywordEntry> copied, std::uint16_t n) const noexcept;

    StreamMetadata* metadata_ = nullptr;
    KeywordEntry* entries_ = nullptr;
    std::uint16_t size_ = 0;
};

// Copies the table of one stream again and again, and learns which mark of a change is left
// over: our writers count a frame only after the change is over. For one thread.
class KeywordReader {
  public:
    KeywordReader() = default;
    explicit KeywordReader(KeywordTable table) noexcept : table_(table) {}

    std::uint16_t size() const noexcept { return table_.size(); }
    KeywordCopy copy(std::span<KeywordEntry> to) noexcept;

  private:
    KeywordTable table_;
    std::uint32_t unsettled_ = 0;       // the mark that stood at the last copy, if one did
    std::uint64_t unsettled_cnt0_ = 0;  // the newest frame then
    std::uint32_t left_over_ = 0;
};

}  // namespace vampires
