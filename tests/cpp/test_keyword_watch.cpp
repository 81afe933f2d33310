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

    live.metadata.keywords_set_after = 8;
    ++live.metadata.keyword_changes;  // a writer that is held up
    live[1].value.as_int = 3;
    CHECK_FALSE(watch.look(8));
    CHECK(watch.entries()[1].value.as_int == 1);
    CHECK_FALSE(watch.look(8, true, true));  // better than what is known to be old
    CHECK(watch.entries()[1].value.as_int == 3);
    CHECK(watch.unsettled() == 0);
}

TEST_CASE("a change of technical keywords that is under way does not hide the others") {
    Live live({entry("_TIME", 1), entry("A", 1), entry("", 0)});
    live.metadata.cnt0 = 7;
    live.table().set(entry("A", 2));  // of frame 8
    live.metadata.cnt0 = 9;
    KeywordWatch watch;
    watch.attach(live.table());
    ++live.metadata.keyword_changes;
    CHECK(watch.look(9));
    CHECK(watch.look(8, false));
    CHECK_FALSE(watch.look(7, false));
    CHECK(watch.entries()[1].value.as_int == 2);
}

TEST_CASE("a keyword ends a cube when it comes, goes, or has another type or value") {
    Live live({entry("EXPTIME", 1), entry("OTHER", 1), entry("OBJECT", 0), entry("", 0)});
    live[2].type = 'S';
    std::strcpy(live[2].value.as_text, "HD 1");
    KeywordWatch watch({"EXPTIME", "OBJECT", "FILTER01"});
    watch.attach(live.table());
    const auto ended_by = [&] {
        watch.look(1);
        const char* name = watch.ends_cube();
        return std::string(name != nullptr ? name : "");
    };
    watch.look(1);
    watch.begin_cube();
    CHECK(ended_by().empty());
    live[1].value.as_int = 2;
    std::strcpy(live[0].comment, "another comment");
    live[2].value.as_text[6] = 'x';  // behind the end of the text
    CHECK(ended_by().empty());
    live[0].value.as_int = 2;
    CHECK(ended_by() == "EXPTIME");
    CHECK(ended_by() == "EXPTIME");  // until a cube begins
    watch.begin_cube();
    CHECK(ended_by().empty());
    live[0].type = 'D';
    CHECK(ended_by() == "EXPTIME");
    live[0].type = 'L';
    CHECK(ended_by().empty());
    live[2].value.as_text[3] = '2';
    CHECK(ended_by() == "OBJECT");
    live[2].type = 'N';
    CHECK(ended_by() == "OBJECT");
    watch.begin_cube();
    CHECK(ended_by().empty());
    live[3] = entry("FILTER01", 0);
    CHECK(ended_by() == "FILTER01");
    watch.begin_cube();
    std::swap(live[0], live[3]);  // another order is no change
    CHECK(ended_by().empty());
    live[0] = entry("NEW", 1);
    CHECK(ended_by() == "FILTER01");
}

TEST_CASE("without names no change ends a cube") {
    Live live({entry("EXPTIME", 1)});
    KeywordWatch watch;
    watch.attach(live.table());
    watch.look(1);
    watch.begin_cube();
    live[0].value.as_int = 2;
    watch.look(1);
    CHECK(watch.ends_cube() == nullptr);
}

TEST_CASE(
    "keywords of a frame read late are known while none was set since, and all mark that") {
    Live live({entry("_TIME", 1), entry("A", 1), entry("B", 1)});
    live.metadata.cnt0 = 100;
    KeywordWatch watch;
    watch.attach(live.table());
    CHECK_FALSE(watch.look(90, false));  // nobody says since when they are as they are
    live.table().set(entry("A", 2));     // of frame 101
    live.metadata.cnt0 = 200;
    live.table().set(entry("_TIME", 2));
    CHECK_FALSE(watch.look(100, false));
    CHECK(watch.entries()[1].value.as_int == 1);
    CHECK(watch.look(101, false));
    CHECK(watch.entries()[1].value.as_int == 2);
    CHECK(watch.look(102, false));
    live[2].value.as_int = 3;  // by a program that marks nothing
    CHECK_FALSE(watch.look(103, false));
    CHECK(watch.entries()[2].value.as_int == 1);
    CHECK(watch.look(200));
    CHECK(watch.entries()[2].value.as_int == 3);
    CHECK_FALSE(watch.look(104, false));  // it may do so again
}
