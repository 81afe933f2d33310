#include <doctest/doctest.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "keyword_watch.hpp"

using namespace vampires;

namespace {

KeywordEntry entry(const std::string& name, std::int64_t value) {
    KeywordEntry made = {};
    std::memcpy(made.name, name.data(), name.size());
    made.type = 'L';
    made.value.as_int = value;
    return made;
}

std::vector<std::string> changed(KeywordWatch& watch) {
    std::vector<std::string> names;
    watch.look(1);
    watch.changes([&names](const KeywordEntry& change) {
        names.push_back(change.name + ("=" + std::to_string(change.value.as_int)));
    });
    return names;
}

using Names = std::vector<std::string>;

// Keywords that stand alone, as in shared memory.
class Live {
  public:
    explicit Live(std::vector<KeywordEntry> entries) : entries_(std::move(entries)) {}
    KeywordEntry& operator[](std::size_t k) { return entries_[k]; }
    KeywordTable table() {
        return {&metadata, entries_.data(), static_cast<std::uint16_t>(entries_.size())};
    }
    StreamMetadata metadata{};

  private:
    std::vector<KeywordEntry> entries_;
};

}  // namespace

TEST_CASE("the keywords of a stream end at the first empty name") {
    Live live({entry("A", 1), entry("B", 2), entry("", 0), entry("OLD", 4)});
    KeywordWatch watch;
    watch.attach(live.table());
    CHECK(watch.used() == 0);
    watch.look(1);
    REQUIRE(watch.used() == 2);
    CHECK(watch.entries()[1].value.as_int == 2);
    live[2] = entry("C", 3);
    watch.look(1);
    CHECK(watch.used() == 4);
}

TEST_CASE("a change of name, type or value is told once; of counter or comment never") {
    Live live({entry("A", 1), entry("B", 2)});
    KeywordWatch watch;
    watch.attach(live.table());
    CHECK(changed(watch) == Names{"A=1", "B=2"});
    CHECK(changed(watch).empty());
    live[1].value.as_int = 5;
    CHECK(changed(watch) == Names{"B=5"});
    CHECK(changed(watch).empty());
    live[0].cnt = 99;
    std::strcpy(live[0].comment, "new words");
    CHECK(changed(watch).empty());
    live[0].type = 'D';
    CHECK(changed(watch) == Names{"A=1"});
    live[0].name[1] = 'X';
    CHECK(changed(watch) == Names{"AX=1"});
}

TEST_CASE("technical keywords change with every frame and are not told") {
    Live live({entry("_MAQTIME", 1), entry("A", 1)});
    KeywordWatch watch;
    watch.attach(live.table());
    changed(watch);
    live[0].value.as_int = 2;
    CHECK(changed(watch).empty());
    live[1].value.as_int = 2;
    CHECK(changed(watch) == Names{"A=2"});
}

TEST_CASE("a stream re-created with the same keywords changes none of them") {
    Live before({entry("A", 1), entry("B", 2)});
    KeywordWatch watch;
    watch.attach(before.table());
    changed(watch);
    Live after({entry("A", 1), entry("B", 3), entry("C", 4)});
    watch.attach(after.table());
    CHECK(watch.used() == 0);
    CHECK(changed(watch) == Names{"B=3", "C=4"});
}

TEST_CASE("a stream without keywords has none and never changes") {
    KeywordWatch watch;
    watch.attach({});
    CHECK(changed(watch).empty());
    CHECK(watch.used() == 0);
}

TEST_CASE(
    "keywords of the next frame, and half of a change, are not taken for those of a frame") {
    Live live({entry("A", 1), entry("B", 1)});
    live.metadata.cnt0 = 7;
    KeywordWatch watch;
    watch.attach(live.table());
    CHECK(watch.look(7));
    live.table().set(entry("A", 2));  // of frame 8
    CHECK_FALSE(watch.look(7));
    CHECK(watch.entries()[0].value.as_int == 1);
    live.metadata.cnt0 = 8;
    CHECK(watch.look(8));
    CHECK(watch.entries()[0].value.as_int == 2);
    CHECK(watch.unsettled() == 0);

    ++live.metadata.keyword_changes;  // a writer that is held up
    live[1].value.as_int = 3;
    CHECK_FALSE(watch.look(8));
    CHECK(watch.entries()[1].value.as_int == 1);
    CHECK(watch.unsettled() == 1);
    CHECK_FALSE(watch.look(8, true));  // better than what is known to be old
    CHECK(watch.entries()[1].value.as_int == 3);
}
