#include <doctest/doctest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "keyword_table.hpp"

using namespace vampires;

namespace {

constexpr std::uint16_t kSize = 24;
using Entries = std::vector<KeywordEntry>;
using Names = std::vector<std::string>;

// A table that stands alone, as in shared memory.
struct Stand {
    StreamMetadata metadata{};
    std::array<KeywordEntry, kSize> entries{};
    KeywordTable table() noexcept { return {&metadata, entries.data(), kSize}; }
};

// Version v of a keyword: a number that is v, or a text of two words full of it.
KeywordEntry entry(const std::string& name, std::uint64_t version) {
    KeywordEntry made = {};
    std::strncpy(made.name, name.c_str(), sizeof made.name - 1);
    made.type = name[0] == 'T' ? 'S' : 'L';
    made.value.as_int = static_cast<std::int64_t>(version);
    if (made.type == 'S') {
        const char letter = static_cast<char>('a' + version % 26);
        std::memset(made.value.as_text, letter, sizeof made.value.as_text - 1);
    }
    return made;
}

// The names of version v: some always, in an order of its own, and some of its own.
Names names_of(std::uint64_t version) {
    Names names = {"A", "T-B", "C", "T-D", "E", "F", "T-G", "H"};
    std::minstd_rand random(static_cast<unsigned>(version));
    for (std::uint64_t k = 0; k < version % 5; ++k) names.push_back("OWN" + std::to_string(k));
    if (version % 3 == 0) std::shuffle(names.begin(), names.end(), random);
    return names;
}
bool is_common(const std::string& name) {
    return !name.empty() && !name.starts_with("OWN");
}
constexpr std::size_t kCommon = 8;

Entries table_of(std::uint64_t version) {
    Entries entries;
    for (const std::string& name : names_of(version)) entries.push_back(entry(name, version));
    return entries;
}

Names names_in(const KeywordEntry* entries, std::size_t size) {
    Names names;
    for (std::size_t k = 0; k < size && entries[k].name[0] != '\0'; ++k) {
        names.emplace_back(entries[k].name);
    }
    return names;
}

std::size_t common_in(Names names) {
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
    return static_cast<std::size_t>(std::count_if(names.begin(), names.end(), is_common));
}

bool same_bytes(const KeywordEntry& a, const KeywordEntry& b) {
    return std::memcmp(&a, &b, sizeof a) == 0;
}

// Whether a copy is all of one table, and of no other.
bool is_one_table(const Entries& copy, const KeywordCopy& copied) {
    if (copied.used == 0) return false;
    const auto first = std::find_if(copy.begin(), copy.end(), [](const KeywordEntry& e) {
        return std::string(e.name) == "A";
    });
    if (first == copy.end()) return false;
    const Entries expected = table_of(static_cast<std::uint64_t>(first->value.as_int));
    if (expected.size() != copied.used) return false;
    return std::equal(expected.begin(), expected.end(), copy.begin(), same_bytes);
}

}  // namespace

TEST_CASE("keyword table: it holds what was given, in that order, and is empty behind it") {
    Stand stand;
    KeywordTable table = stand.table();
    Entries copy(kSize);
    std::mt19937 random(7);
    for (std::uint64_t version = 0; version < 3000; ++version) {
        Entries given = table_of(version);
        std::shuffle(given.begin(), given.end(), random);
        given.resize(random() % (given.size() + 1));
        if (version % 10 == 0 && !given.empty()) given.push_back(given.front());
        stand.metadata.cnt0 = version;
        REQUIRE(table.replace(given, version));
        const KeywordCopy copied = table.copy(copy);
        REQUIRE(copied.settled);
        REQUIRE(copied.used == given.size());
        REQUIRE(std::equal(given.begin(), given.end(), copy.begin(), same_bytes));
        for (std::size_t k = given.size(); k < kSize; ++k) {
            REQUIRE(stand.entries[k].name[0] == '\0');
            REQUIRE(stand.entries[k].type == 'N');
            REQUIRE(copy[k].name[0] == '\0');
        }
    }
    CHECK_FALSE(table.replace(Entries(kSize + 1, entry("A", 1)), 0));
    CHECK(table.replace(Entries(kSize, entry("A", 1)), 0));
    CHECK(table.copy(copy).used == kSize);
}

TEST_CASE("keyword table: the same keywords again are no change") {
    Stand stand;
    KeywordTable table = stand.table();
    table.replace(table_of(1), 0);
    const std::uint32_t changes = stand.metadata.keyword_changes;
    table.replace(table_of(1), 5);
    CHECK(stand.metadata.keyword_changes == changes);
    CHECK(stand.metadata.keywords_set_after == 0);
    table.replace(table_of(2), 5);
    CHECK(stand.metadata.keyword_changes == changes + 2);
    CHECK(stand.metadata.keywords_set_after == 5);
}

TEST_CASE("keyword table: what is set while a frame is the newest is of the frames after it") {
    Stand stand;
    KeywordTable table = stand.table();
    Entries copy(kSize);
    stand.metadata.cnt0 = 10;
    CHECK_FALSE(table.copy(copy).is_ahead_of(10));  // nobody says anything
    table.set(entry("A", 1));
    CHECK(table.copy(copy).is_ahead_of(10));
    CHECK(table.copy(copy).is_ahead_of(9));
    stand.metadata.cnt0 = 11;
    CHECK_FALSE(table.copy(copy).is_ahead_of(11));
    stand.metadata.cnt0 = (std::uint64_t{1} << 40) + 100;
    CHECK_FALSE(table.copy(copy).is_ahead_of(stand.metadata.cnt0));
    table.replace(table_of(1), stand.metadata.cnt0);
    CHECK(table.copy(copy).is_ahead_of(stand.metadata.cnt0));
    CHECK_FALSE(table.copy(copy).is_ahead_of(stand.metadata.cnt0 + 1));
    Entries with_time = table_of(1);
    with_time.push_back(entry("_TIME", 1));
    table.replace(with_time, stand.metadata.cnt0);
    ++stand.metadata.cnt0;
    with_time.back() = entry("_TIME", 2);
    table.replace(with_time, stand.metadata.cnt0);
    table.set(entry("_TIME", 3));
    CHECK_FALSE(table.copy(copy).is_ahead_of(stand.metadata.cnt0));  // it moves all the time
}

TEST_CASE("keyword table: an unfinished change is reported, and ignored once frames pass") {
    Stand stand;
    KeywordTable table = stand.table();
    stand.metadata.cnt0 = 1;
    table.replace(table_of(3), 0);
    ++stand.metadata.keyword_changes;  // its writer died
    KeywordReader reader(table);
    Entries copy(kSize);
    CHECK_FALSE(reader.copy(copy).settled);
    CHECK_FALSE(reader.copy(copy).settled);
    ++stand.metadata.cnt0;
    const KeywordCopy copied = reader.copy(copy);
    CHECK(copied.settled);
    CHECK(is_one_table(copy, copied));
    CHECK(reader.copy(copy).settled);
    table.replace(table_of(4), 2);  // its successor
    CHECK(KeywordReader(table).copy(copy).settled);
    ++stand.metadata.keyword_changes;
    table.end_change();
    CHECK(KeywordReader(table).copy(copy).settled);
}

TEST_CASE("keyword table: while it is changed without end, each copy is one of the tables") {
    Stand stand;
    KeywordTable table = stand.table();
    table.replace(table_of(0), 0);
    std::atomic<bool> over{false};
    std::thread writer([&] {
        for (std::uint64_t version = 1; !over.load(); ++version) {
            table.replace(table_of(version), version);
            if (version % 64 == 0) std::this_thread::yield();
        }
    });
    KeywordReader reader(table);
    Entries copy(kSize);
    int settled = 0;
    int mixed = 0;
    for (int k = 0; k < 30'000; ++k) {
        const KeywordCopy copied = reader.copy(copy);
        if (!copied.settled) continue;
        ++settled;
        if (!is_one_table(copy, copied)) ++mixed;
    }
    over.store(true);
    writer.join();
    CHECK(mixed == 0);
    CHECK(settled > 100);
}

// As other programs write: word by word, without a mark.
void put_unmarked(Stand& stand, std::size_t k, const KeywordEntry& given) {
    const auto* words = reinterpret_cast<const std::uint64_t*>(&given);
    auto* live = reinterpret_cast<std::uint64_t*>(&stand.entries[k]);
    for (std::size_t word = 0; word < sizeof given / 8; ++word) {
        std::atomic_ref(live[word]).store(words[word], std::memory_order_release);
    }
}

TEST_CASE("keyword table: of a writer that marks nothing, a copy is of one moment") {
    Stand stand;
    const KeywordTable table = stand.table();
    for (std::size_t k = 0; k < kSize; ++k)
        put_unmarked(stand, k, entry("K" + std::to_string(k), 0));
    std::atomic<bool> over{false};
    // The first is never behind the last, and never by more than one before it.
    std::thread writer([&] {
        for (std::uint64_t version = 1; !over.load(); ++version) {
            put_unmarked(stand, 0, entry("K0", version));
            put_unmarked(stand, kSize - 1, entry("K23", version));
            if (version % 64 == 0) std::this_thread::yield();
        }
    });
    Entries copy(kSize);
    int settled = 0;
    int wrong = 0;
    for (int k = 0; k < 20'000; ++k) {
        if (!table.copy(copy).settled) continue;
        ++settled;
        const std::int64_t ahead = copy[0].value.as_int - copy[kSize - 1].value.as_int;
        if (ahead != 0 && ahead != 1) ++wrong;
    }
    over.store(true);
    writer.join();
    CHECK(wrong == 0);
    CHECK(settled > 100);
}

TEST_CASE("keyword table: technical keywords that never rest do not keep the others from it") {
    Stand stand;
    const KeywordTable table = stand.table();
    put_unmarked(stand, 0, entry("_TIME", 0));
    put_unmarked(stand, 1, entry("A", 1));
    std::atomic<bool> over{false};
    std::thread writer([&] {
        for (std::uint64_t k = 0; !over.load(); ++k) put_unmarked(stand, 0, entry("_TIME", k));
    });
    Entries copy(kSize);
    for (int k = 0; k < 2000; ++k) {
        const KeywordCopy copied = table.copy(copy);
        REQUIRE(copied.settled);
        REQUIRE(copied.used == 2);
        REQUIRE(copy[1].value.as_int == 1);
    }
    over.store(true);
    writer.join();
}

TEST_CASE("keyword table: at any moment of a change all names are there that stay") {
    void* shared =
        mmap(nullptr, sizeof(Stand), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(shared != MAP_FAILED);
    auto* stand = new (shared) Stand;
    KeywordTable table = stand->table();
    table.replace(table_of(0), 0);
    const pid_t writer = fork();
    REQUIRE(writer >= 0);
    if (writer == 0) {
        std::vector<Entries> tables;
        for (std::uint64_t version = 0; version < 200; ++version) {
            tables.push_back(table_of(version));
        }
        for (std::size_t k = 0;; ++k) table.replace(tables[k % tables.size()], k);
    }
    int missing = 0;
    int mixed = 0;
    int in_a_change = 0;
    for (int k = 0; k < 3000; ++k) {
        usleep(20);
        kill(writer, SIGSTOP);  // anywhere in a change, and for as long as one likes
        int status = 0;
        REQUIRE(waitpid(writer, &status, WUNTRACED) == writer);
        REQUIRE(WIFSTOPPED(status));
        if (common_in(names_in(stand->entries.data(), kSize)) != kCommon) ++missing;
        Entries copy(kSize);
        const KeywordCopy copied = table.copy(copy);
        if (!copied.settled) ++in_a_change;
        if (copied.settled && !is_one_table(copy, copied)) ++mixed;
        kill(writer, SIGCONT);
    }
    kill(writer, SIGKILL);
    waitpid(writer, nullptr, 0);
    munmap(shared, sizeof(Stand));
    CHECK(missing == 0);
    CHECK(mixed == 0);
    CHECK(in_a_change > 0);
}
