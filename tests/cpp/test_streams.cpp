#include <doctest/doctest.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "errors.hpp"
#include "stream_reader.hpp"
#include "stream_semaphore.hpp"
#include "stream_writer.hpp"

#if defined(__SANITIZE_THREAD__)
// Putting zero pages under a thread that reads is the very thing tested here.
extern "C" const char* __tsan_default_suppressions() {
    return "race:on_sigbus";
}
#endif

using namespace vampires;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

// A stream folder of the test's own, in shared memory where there is some; gone with it.
class TemporaryFolder {
  public:
    TemporaryFolder() {
        std::string pattern = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
        pattern += "/vampires-test-XXXXXX";
        REQUIRE(mkdtemp(pattern.data()) != nullptr);
        path_ = pattern;
    }
    ~TemporaryFolder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    const std::string& path() const { return path_; }

  private:
    std::string path_;
};

struct Kind {
    const char* name;
    std::uint32_t ring;
    std::uint32_t cb_size;
};

constexpr Kind kKinds[] = {
    {"one slot", 0, 0}, {"ring", 8, 0}, {"ring of two", 2, 0}, {"ring of updates", 0, 5}};
constexpr std::uint32_t kSide = 64;
constexpr std::size_t kPixels = std::size_t{kSide} * kSide;

StreamSpec spec_of(const Kind& kind, std::uint32_t side = kSide) {
    StreamSpec spec;
    spec.shape.type = PixelType::u64;
    spec.shape.naxis = kind.ring > 0 ? 3 : 2;
    spec.shape.size = {side, side, kind.ring};
    spec.shape.imagetype = kind.ring > 0 ? kTemporalRing : kMathData;
    spec.shape.keywords = 2;
    spec.shape.cb_size = kind.cb_size;
    return spec;
}

// Every pixel of a frame is its counter: a torn copy shows two of them.
void fill(std::byte* slot, std::uint64_t value) {
    for (std::size_t pixel = 0; pixel < kPixels; ++pixel) {
        std::memcpy(slot + pixel * sizeof value, &value, sizeof value);
    }
}

void write_frame(StreamWriter& writer) {
    fill(writer.next_slot(), writer.cnt0() + 1);
    writer.publish(0);
}

bool holds(const std::vector<std::uint64_t>& copy, std::uint64_t value) {
    for (const std::uint64_t pixel : copy) {
        if (pixel != value) return false;
    }
    return true;
}

struct Tally {
    std::uint64_t read = 0;
    std::uint64_t lost = 0;
    std::uint64_t refused = 0;
    std::uint64_t wrong = 0;  // accepted, but not the pixels of its counter
};

// One attempt; false when there is nothing to read.
bool read_one(StreamReader& reader, milliseconds timeout, Tally& tally) {
    FrameTicket ticket;
    if (reader.wait(timeout) != Wake::frame) return false;
    if (!reader.begin(ticket)) return true;
    std::vector<std::uint64_t> copy(reader.frame_bytes() / sizeof(std::uint64_t));
    std::memcpy(copy.data(), ticket.pixels, reader.frame_bytes());
    if (!reader.confirm(ticket)) {
        ++tally.refused;
        return true;
    }
    ++tally.read;
    tally.lost += ticket.info.lost;
    if (!holds(copy, ticket.info.cnt0)) ++tally.wrong;
    return true;
}

StreamMetadata valid_metadata() {
    StreamMetadata md = {};
    std::strcpy(md.version, "2.00");
    std::strcpy(md.name, "checked");
    md.naxis = 2;
    md.size[0] = 4;
    md.size[1] = 3;
    md.datatype = static_cast<std::uint8_t>(PixelType::u16);
    md.imagetype = kMathData;
    md.location = -1;
    md.sem = kSemaphores;
    md.nb_proctrace = kProcTraces;
    return md;
}

}  // namespace

TEST_CASE("layout: regions follow each other, each on a multiple of eight") {
    std::mt19937 generator(1);
    const auto random = [&] { return static_cast<std::uint32_t>(generator()); };
    for (int round = 0; round < 2000; ++round) {
        StreamShape shape;
        shape.type = static_cast<PixelType>(1 + random() % 13);
        shape.naxis = static_cast<std::uint8_t>(1 + random() % 3);
        for (auto& size : shape.size) size = 1 + random() % 30;
        shape.imagetype = random() % 2 != 0 ? kTemporalRing : kMathData;
        shape.semaphores = static_cast<std::uint16_t>(random() % 20);
        shape.keywords = static_cast<std::uint16_t>(random() % 20);
        shape.cb_size = random() % 5;
        const StreamLayout at = compute_layout(shape);
        const std::uint64_t offsets[] = {
            sizeof(StreamMetadata), at.data,        at.keywords,
            at.semaphores,          at.semlog,      at.sem_read_pid,
            at.sem_write_pid,       at.sem_ctrl,    at.sem_status,
            at.proctrace,           at.atime_array, at.writetime_array,
            at.cnt_array,           at.cb_metadata, at.cb_data,
            at.file_bytes};
        CHECK(at.data == 384);
        for (std::size_t k = 1; k < std::size(offsets); ++k) {
            CHECK(offsets[k] >= offsets[k - 1]);
            CHECK(offsets[k] % 8 == 0);
        }
        CHECK(at.data_bytes == shape.elements() * pixel_bytes(shape.type));
        CHECK(at.keywords - at.data - at.data_bytes < 8);
        CHECK(at.semlog - at.semaphores == 32U * shape.semaphores);
        const std::uint64_t slices = shape.temporal_ring() ? shape.size[2] : 0;
        CHECK(at.cb_metadata - at.atime_array == 40 * slices);
        CHECK(at.file_bytes - at.cb_data - at.data_bytes * shape.cb_size < 8);
    }
}

TEST_CASE("layout: what the checked fields describe is taken, else refused by name") {
    StreamMetadata good = valid_metadata();
    const std::uint64_t bytes = compute_layout([&] {
                                    StreamShape shape;
                                    shape.type = PixelType::u16;
                                    shape.naxis = 2;
                                    shape.size = {4, 3, 0};
                                    return shape;
                                }())
                                    .file_bytes;
    CHECK(checked_shape(good, bytes, "x").size[1] == 3);
    std::strcpy(good.version, "2.01");
    CHECK(checked_shape(good, bytes, "x").type == PixelType::u16);
    CHECK_THROWS_AS(checked_shape(good, bytes - 8, "x"), StreamInvalid);
    CHECK_THROWS_AS(checked_shape(good, 384, "x"), StreamIncomplete);
    const auto refused = [&](auto spoil) {
        StreamMetadata md = valid_metadata();
        spoil(md);
        CHECK_THROWS_AS(checked_shape(md, bytes, "x"), StreamInvalid);
    };
    refused([](StreamMetadata& md) { md.version[0] = '\0'; });
    refused([](StreamMetadata& md) { md.version[0] = '1'; });
    refused([](StreamMetadata& md) { md.name[0] = '\0'; });
    refused([](StreamMetadata& md) { md.naxis = 0; });
    refused([](StreamMetadata& md) { md.naxis = 4; });
    refused([](StreamMetadata& md) { md.size[1] = 0; });
    refused([](StreamMetadata& md) { md.datatype = 0; });
    refused([](StreamMetadata& md) { md.datatype = 14; });
    refused([](StreamMetadata& md) { md.location = 0; });
    refused([](StreamMetadata& md) { md.cb_size = UINT32_MAX; });
    refused([](StreamMetadata& md) {
        md.naxis = 3;
        md.size[0] = md.size[1] = std::uint32_t{1} << 31;
        md.size[2] = 4;
    });
    refused([](StreamMetadata& md) { std::memset(md.size, 0xFF, sizeof md.size); });
    refused([](StreamMetadata& md) { std::memset(static_cast<void*>(&md), 0xFF, sizeof md); });
}

TEST_CASE("times: seconds outside 2000 to 2100 and odd nanoseconds are unknown") {
    CHECK(to_ns({1'700'000'000, 5}) == 1'700'000'000'000'000'005);
    for (const IsioTime bad :
         {IsioTime{0, 0}, IsioTime{-1, 0}, IsioTime{946'684'799, 0}, IsioTime{4'102'444'800, 0},
          IsioTime{INT64_MAX, INT64_MAX}, IsioTime{1'700'000'000, -1},
          IsioTime{1'700'000'000, 1'000'000'000}}) {
        CHECK(to_ns(bad) == 0);
    }
    CHECK(to_ns(from_ns(1'700'000'000'123'456'789)) == 1'700'000'000'123'456'789);
}

TEST_CASE("stream: a frame is refused exactly when its slot was touched while it was copied") {
    for (const Kind& kind : kKinds) {
        CAPTURE(kind.name);
        const TemporaryFolder folder;
        StreamWriter writer = StreamWriter::create(folder.path(), "cam", spec_of(kind));
        StreamReader reader(StreamFile::open(folder.path(), "cam"), {});
        FrameTicket ticket;

        write_frame(writer);
        REQUIRE(reader.begin(ticket));
        CHECK(reader.confirm(ticket));
        CHECK(ticket.info.cnt0 == 1);

        write_frame(writer);
        REQUIRE(reader.begin(ticket));
        writer.next_slot();  // only begun
        const bool other_slot = kind.ring > 1 || kind.cb_size > 2;
        CHECK(reader.confirm(ticket) == other_slot);
        writer.publish(0);

        REQUIRE(reader.begin(ticket));
        while (writer.cnt0() < 20) write_frame(writer);
        CHECK_FALSE(reader.confirm(ticket));
        REQUIRE(reader.begin(ticket));
        REQUIRE(reader.confirm(ticket));
        CHECK(ticket.info.lost > 0);
        CHECK(ticket.info.torn == (other_slot ? 1 : 2));
        CHECK((ticket.info.flags & kTornBefore) != 0);
        CHECK(ticket.info.cnt0 - ticket.info.lost == (other_slot ? 3 : 2));

        write_frame(writer);
        REQUIRE(reader.begin(ticket));
        REQUIRE(reader.confirm(ticket));
        CHECK(ticket.info.lost == 0);
        CHECK(ticket.info.torn == 0);
        CHECK((ticket.info.flags & kTornBefore) == 0);
    }
}

TEST_CASE("stream: a torn frame is counted once and not tried again") {
    const TemporaryFolder folder;
    StreamWriter writer = StreamWriter::create(folder.path(), "cam", spec_of(kKinds[0]));
    StreamReader reader(StreamFile::open(folder.path(), "cam"), {});
    FrameTicket ticket;
    write_frame(writer);
    REQUIRE(reader.begin(ticket));
    writer.next_slot();
    CHECK_FALSE(reader.confirm(ticket));
    writer.abandon();
    CHECK_FALSE(reader.begin(ticket));
    CHECK(reader.torn_since_last() == 1);
    write_frame(writer);
    REQUIRE(reader.begin(ticket));
    REQUIRE(reader.confirm(ticket));
    CHECK(ticket.info.cnt0 == 2);
    CHECK(ticket.info.lost == 1);
    CHECK(ticket.info.torn == 1);
}

TEST_CASE("stream: the times of a frame are not those of the one that overwrites it") {
    for (const Kind& kind : kKinds) {
        CAPTURE(kind.name);
        const TemporaryFolder folder;
        StreamWriter writer = StreamWriter::create(folder.path(), "cam", spec_of(kind));
        StreamReader reader(StreamFile::open(folder.path(), "cam"), {.tai_offset_ns = 0});
        constexpr std::int64_t kBegin_ns = 1'700'000'000'000'000'000;
        std::uint64_t confirmed = 0;
        for (std::uint64_t cnt0 = 1; cnt0 <= 50; ++cnt0) {
            writer.next_slot();
            writer.publish(kBegin_ns + static_cast<std::int64_t>(cnt0));
            FrameTicket ticket;
            REQUIRE(reader.begin(ticket));
            if (cnt0 % 3 == 0) writer.next_slot();
            if (!reader.confirm(ticket)) continue;
            ++confirmed;
            const auto offset_ns = static_cast<std::int64_t>(ticket.info.cnt0);
            CHECK(ticket.info.acquired_ns == kBegin_ns + offset_ns);
        }
        CHECK(confirmed > 30);
    }
}

TEST_CASE("stream: read and lost add up while a writer runs as fast as it can") {
    constexpr std::uint64_t kFrames = 4000;
    for (const Kind& kind : kKinds) {
        CAPTURE(kind.name);
        const TemporaryFolder folder;
        StreamWriter writer = StreamWriter::create(folder.path(), "cam", spec_of(kind));
        StreamReader reader(StreamFile::open(folder.path(), "cam"), {});
        std::atomic<bool> done{false};
        std::thread camera([&] {
            for (std::uint64_t frame = 0; frame < kFrames; ++frame) write_frame(writer);
            done = true;
        });
        Tally tally;
        while (!done) read_one(reader, milliseconds(20), tally);
        camera.join();
        while (read_one(reader, milliseconds(0), tally)) {
        }
        CHECK(tally.wrong == 0);
        CHECK(tally.read > 0);
        CHECK(tally.read + tally.lost == kFrames);
        CHECK(reader.last_cnt0() == kFrames);
        CHECK(reader.unread() == 0);
    }
}

TEST_CASE("stream: several readers each account for every frame") {
    const TemporaryFolder folder;
    StreamWriter writer = StreamWriter::create(folder.path(), "cam", spec_of(kKinds[1]));
    constexpr int kReaders = 12;  // two more than there are semaphores
    constexpr std::uint64_t kFrames = 500;
    std::vector<Tally> tallies(kReaders);
    std::vector<std::thread> threads;
    std::atomic<int> ready{0};
    for (Tally& tally : tallies) {
        threads.emplace_back([&] {
            StreamReader reader(StreamFile::open(folder.path(), "cam"), {});
            ++ready;
            while (reader.last_cnt0() < kFrames) read_one(reader, milliseconds(20), tally);
        });
    }
    while (ready < kReaders) std::this_thread::yield();
    for (std::uint64_t frame = 0; frame < kFrames; ++frame) {
        write_frame(writer);
        std::this_thread::yield();
    }
    for (std::thread& thread : threads) thread.join();
    for (const Tally& tally : tallies) {
        CHECK(tally.wrong == 0);
        CHECK(tally.read + tally.lost == kFrames);
    }
}

TEST_CASE("semaphore: one for each reader, given back, eleventh none") {
    const TemporaryFolder folder;
    StreamWriter writer = StreamWriter::create(folder.path(), "cam", spec_of(kKinds[0]));
    const auto file = writer.file();
    std::vector<ClaimedSemaphore> claimed;
    for (std::uint16_t index = 0; index < kSemaphores; ++index) {
        auto semaphore = ClaimedSemaphore::claim(StreamFile::open(folder.path(), "cam"));
        REQUIRE(semaphore);
        CHECK(semaphore->index() == index);
        CHECK(file->sem_read_pid()[index] == getpid());
        claimed.push_back(std::move(*semaphore));
    }
    CHECK_FALSE(ClaimedSemaphore::claim(file));
    claimed.clear();
    for (std::uint16_t index = 0; index < kSemaphores; ++index) {
        CHECK(file->sem_read_pid()[index] == -1);
    }
    file->sem_read_pid()[0] = getpid();  // left by a process that had our number
    file->sem_read_pid()[1] = 1;         // alive
    file->sem_read_pid()[2] = 0;
    const auto first = ClaimedSemaphore::claim(file);
    const auto second = ClaimedSemaphore::claim(file);
    REQUIRE(first);
    REQUIRE(second);
    CHECK(first->index() == 0);
    CHECK(second->index() == 2);
}

TEST_CASE("semaphore: posts stop at ten, drain takes them, a waiter is woken") {
    const TemporaryFolder folder;
    StreamWriter writer = StreamWriter::create(folder.path(), "cam", spec_of(kKinds[0]));
    auto semaphore = ClaimedSemaphore::claim(writer.file());
    REQUIRE(semaphore);
    for (int post = 0; post < 25; ++post) post_all(*writer.file());
    CHECK(semaphore->value() == kSemaphoreMax);
    CHECK(semaphore->wait(seconds(10)) == ClaimedSemaphore::Wake::posted);
    CHECK(semaphore->value() == kSemaphoreMax - 1);
    CHECK(semaphore->drain());
    CHECK(semaphore->value() == 0);
    CHECK(semaphore->wait(milliseconds(1)) == ClaimedSemaphore::Wake::timeout);
    std::atomic<int> woken{0};
    std::thread waiter([&] {
        for (; woken < 1000; ++woken) {
            if (semaphore->wait(seconds(60)) != ClaimedSemaphore::Wake::posted) return;
        }
    });
    for (int post = 0; post < 1000; ++post) {
        post_all(*writer.file());
        while (woken <= post) std::this_thread::yield();
    }
    waiter.join();
    CHECK(woken == 1000);
    // Nobody is left counted as waiting.
    std::uint64_t word = 0;
    std::memcpy(&word, writer.file()->semaphore(semaphore->index()), sizeof word);
    CHECK(word == 0);
}

TEST_CASE("mapped file: what a truncation took reads as zeros and marks the mapping") {
    const TemporaryFolder folder;
    const auto pages = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    for (const std::size_t kept : {std::size_t{0}, std::size_t{2}}) {
        const std::string path = folder.path() + "/file";
        std::ofstream(path, std::ios::binary) << std::string(8 * pages, 'x');
        const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
        REQUIRE(fd >= 0);
        const MappedFile file(fd, 8 * pages);
        const MappedFile other(dup(fd), pages * (kept > 0 ? 1 : 8));
        CHECK(file.data()[5] == std::byte{'x'});
        CHECK_FALSE(file.broken());
        REQUIRE(truncate(path.c_str(), static_cast<off_t>(kept * pages)) == 0);
        CHECK_FALSE(file.broken());  // nobody looked yet
        CHECK(file.data()[5 * pages + 7] == std::byte{0});
        CHECK(file.broken());
        CHECK_FALSE(other.broken());
        CHECK(file.data()[kept * pages] == std::byte{0});
        file.data()[7 * pages] = std::byte{1};  // written nowhere
        if (kept > 0) CHECK(file.data()[0] == std::byte{'x'});
    }
}

TEST_CASE("mapped file: threads that lose their pages together all go on") {
    const TemporaryFolder folder;
    for (int round = 0; round < 20; ++round) {
        StreamWriter writer =
            StreamWriter::create(folder.path(), "cam", spec_of(kKinds[1], 256));
        const auto file = StreamFile::open(folder.path(), "cam");
        std::vector<std::thread> threads;
        for (int t = 0; t < 3; ++t) {
            threads.emplace_back([&] {
                std::vector<std::byte> copy(file->layout().file_bytes);
                while (!file->broken()) std::memcpy(copy.data(), file->at(0), copy.size());
            });
        }
        REQUIRE(truncate(file->path().c_str(), 4096) == 0);
        for (std::thread& thread : threads) thread.join();
        CHECK(file->fate() == FileFate::truncated);
    }
}

TEST_CASE("stream: its fate is seen, and a reader that waits is sent away") {
    const TemporaryFolder folder;
    const auto create = [&] {
        return StreamWriter::create(folder.path(), "cam", spec_of(kKinds[0]));
    };
    StreamWriter first = create();
    CHECK(first.file()->fate() == FileFate::same);
    StreamReader reader(first.file(), {});
    CHECK(reader.wait(milliseconds(1)) == Wake::timeout);
    StreamWriter second = create();
    CHECK(first.file()->fate() == FileFate::replaced);
    CHECK(second.file()->fate() == FileFate::same);
    CHECK(reader.wait(seconds(10)) == Wake::gone);
    unlink(second.file()->path().c_str());
    CHECK(second.file()->fate() == FileFate::removed);
    CHECK(StreamReader(second.file(), {}).wait(seconds(10)) == Wake::gone);
    CHECK(list_streams(folder.path()).empty());
    CHECK_THROWS_AS(StreamFile::open(folder.path(), "cam"), StreamNotFound);
}

TEST_CASE("writer: keywords end where the list ends, and abandoning a slot publishes nothing") {
    const TemporaryFolder folder;
    StreamWriter writer = StreamWriter::create(folder.path(), "cam", spec_of(kKinds[0]));
    const auto entry = [](const char* name) {
        KeywordEntry keyword = {};
        std::strcpy(keyword.name, name);
        keyword.type = 'L';
        return keyword;
    };
    std::strcpy(writer.file()->keywords()[1].name, "STALE");
    CHECK(writer.set_keyword(entry("A")));
    CHECK(writer.file()->keywords()[1].name[0] == '\0');
    CHECK(writer.set_keyword(entry("B")));
    CHECK(writer.set_keyword(entry("A")));
    CHECK(writer.file()->keywords()[0].cnt == 2);
    CHECK_FALSE(writer.set_keyword(entry("C")));
    const KeywordEntry three[] = {entry("A"), entry("B"), entry("C")};
    CHECK_FALSE(writer.set_keywords(three));
    StreamReader reader(writer.file(), {});
    FrameTicket ticket;
    write_frame(writer);
    writer.next_slot();
    CHECK_FALSE(reader.begin(ticket));
    writer.abandon();
    REQUIRE(reader.begin(ticket));
    CHECK(reader.confirm(ticket));
    CHECK(ticket.info.cnt0 == 1);
}
