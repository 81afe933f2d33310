#include <doctest/doctest.h>

#include <cstring>
#include <string>
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
    watch.look();
    watch.changes([&names](const KeywordEntry& change) {
        names.push_back(change.name + ("=" + std::to_string(change.value.as_int)));
    });
    return names;
}

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("the keywords of a stream end at the first empty name") {
    std::vector<KeywordEntry> live = {entry("A", 1), entry("B", 2), entry("", 0),
                                      entry("OLD", 4)};
    KeywordWatch watch;
    watch.attach(live.data(), 4);
    CHECK(watch.used() == 0);
    watch.look();
    REQUIRE(watch.used() == 2);
    CHECK(watch.entries()[1].value.as_int == 2);
    live[2] = entry("C", 3);
    watch.look();
    CHECK(watch.used() == 4);
}

TEST_CASE("a change of name, type or value is told once; of counter or comment never") {
    std::vector<KeywordEntry> live = {entry("A", 1), entry("B", 2)};
    KeywordWatch watch;
    watch.attach(live.data(), 2);
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
    std::vector<KeywordEntry> live = {entry("_MAQTIME", 1), entry("A", 1)};
    KeywordWatch watch;
    watch.attach(live.data(), 2);
    changed(watch);
    live[0].value.as_int = 2;
    CHECK(changed(watch).empty());
    live[1].value.as_int = 2;
    CHECK(changed(watch) == Names{"A=2"});
}

TEST_CASE("a stream re-created with the same keywords changes none of them") {
    const std::vector<KeywordEntry> before = {entry("A", 1), entry("B", 2)};
    KeywordWatch watch;
    watch.attach(before.data(), 2);
    changed(watch);
    const std::vector<KeywordEntry> after = {entry("A", 1), entry("B", 3), entry("C", 4)};
    watch.attach(after.data(), 3);
    CHECK(watch.used() == 0);
    CHECK(changed(watch) == Names{"B=3", "C=4"});
}

TEST_CASE("a stream without keywords has none and never changes") {
    KeywordWatch watch;
    watch.attach(nullptr, 0);
    CHECK(changed(watch).empty());
    CHECK(watch.used() == 0);
}
