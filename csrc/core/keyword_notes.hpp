// The keywords of a stream as they were at its last frames.
//
// Shared memory keeps one set of keywords, that of the newest frame. A link that is behind
// sends older frames; what they had was noted while they were new. For one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "keyword_table.hpp"
#include "stream_file.hpp"
#include "stream_reader.hpp"

namespace vampires {

class KeywordNotes {
  public:
    explicit KeywordNotes(std::shared_ptr<StreamFile> file);

    // Notes the keywords of the newest frame. Cheap when no frame came; to be called at least
    // once a frame where changes from frame to frame matter.
    void look();
    // The keywords that belong to a frame: NBkw entries, with its acquisition time.
    void put(const FrameInfo& frame, std::span<std::byte> entries) const;
    std::size_t bytes() const noexcept { return file_->keyword_bytes(); }

  private:
    struct Note {
        std::uint64_t since = 0;  // the first frame seen with these
        std::vector<KeywordEntry> entries;
    };
    // Changes kept: more than a ring has frames, in all but odd cases.
    static constexpr std::size_t kMost = 256;

    std::optional<KeywordCopy> read(std::uint64_t cnt0);

    std::shared_ptr<StreamFile> file_;
    KeywordReader reader_;
    std::deque<Note> notes_;  // oldest first, never empty
    std::vector<KeywordEntry> now_;
    std::uint64_t looked_at_ = UINT64_MAX;
};

}  // namespace vampires
