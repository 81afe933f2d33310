#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <numeric>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "fits_sum.hpp"
#include "logger_engine.hpp"
#include "stream_writer.hpp"
#include "temp_directory.hpp"
#include "utc_clock.hpp"

using namespace vampires;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;
using vampires::testing::file_bytes;
using vampires::testing::TempDirectory;
using vampires::testing::TinyDisk;

namespace {

constexpr std::int64_t kSecond_ns = 1'000'000'000;
constexpr std::int64_t kMillisecond_ns = 1'000'000;
constexpr std::int64_t kMidnight_ns = std::int64_t{20'000} * 86'400 * kSecond_ns;  // 2024-10-04
constexpr std::int64_t kNoon_ns = kMidnight_ns + 43'200 * kSecond_ns;

// Waits for what another thread does; a promise not kept fails the test, it does not hang it.
void await(const std::function<bool()>& happened) {
    const auto deadline = std::chrono::steady_clock::now() + seconds(60);
    while (!happened()) {
        REQUIRE_MESSAGE(std::chrono::steady_clock::now() < deadline, "waited in vain");
        std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
}

// -- the camera ------------------------------------------------------------------------------

struct Shape {
    std::uint32_t width = 32;
    std::uint32_t height = 16;
    std::uint32_t ring = 8;  // 0: one slot
    std::uint16_t keywords = 4;
};

// What pixel k of a frame holds.
std::uint16_t pixel_of(unsigned generation, std::uint64_t cnt0, std::size_t k) {
    return static_cast<std::uint16_t>((cnt0 * 40503 + k + generation * 9973) * 2654435761U >>
                                      13);
}

class Camera {
  public:
    Camera(const TempDirectory& directory, const Shape& shape = {}, unsigned generation = 0)
        : shape_(shape),
          generation_(generation),
          writer_(StreamWriter::create(directory.path(), "cam", spec(shape))) {}

    // acquired_ns 0: a millisecond a frame from noon on, of each generation an hour later.
    void publish(std::int64_t acquired_ns = 0) {
        const std::uint64_t cnt0 = writer_.cnt0() + 1;
        std::byte* slot = writer_.next_slot();
        std::vector<std::uint16_t> frame(std::size_t{shape_.width} * shape_.height);
        for (std::size_t k = 0; k < frame.size(); ++k)
            frame[k] = pixel_of(generation_, cnt0, k);
        std::memcpy(slot, frame.data(), frame.size() * sizeof frame[0]);
        const auto since_noon_ns =
            static_cast<std::int64_t>(cnt0) * kMillisecond_ns + generation_ * 3600 * kSecond_ns;
        writer_.publish(acquired_ns != 0 ? acquired_ns : kNoon_ns + since_noon_ns);
    }
    std::uint64_t published() const { return writer_.cnt0(); }
    StreamWriter& writer() { return writer_; }

    static StreamSpec spec(const Shape& shape) {
        StreamSpec spec;
        spec.shape.type = PixelType::u16;
        spec.shape.naxis = shape.ring > 0 ? 3 : 2;
        spec.shape.size = {shape.width, shape.height, shape.ring};
        spec.shape.imagetype = shape.ring > 0 ? kTemporalRing : kMathData;
        spec.shape.keywords = shape.keywords;
        return spec;
    }

  private:
    Shape shape_;
    unsigned generation_;
    StreamWriter writer_;
};

KeywordEntry keyword(const char* name, std::int64_t value) {
    KeywordEntry entry = {};
    std::strncpy(entry.name, name, sizeof entry.name - 1);
    entry.type = 'L';
    entry.value.as_int = value;
    return entry;
}

// -- Python's part ---------------------------------------------------------------------------

template <typename Int>
Int big_endian(const std::byte* bytes) {
    std::uint64_t value = 0;
    for (std::size_t k = 0; k < sizeof(Int); ++k) {
        value = value << 8 | static_cast<std::uint64_t>(bytes[k]);
    }
    return static_cast<Int>(value);
}

FrameRow unpacked(const std::byte* bytes) {
    FrameRow row;
    row.frame = big_endian<std::int32_t>(bytes);
    row.cnt0 = big_endian<std::int64_t>(bytes + 4);
    row.cnt1 = big_endian<std::int64_t>(bytes + 12);
    row.acquired_ns = big_endian<std::int64_t>(bytes + 20);
    row.written_ns = big_endian<std::int64_t>(bytes + 28);
    row.logged_ns = big_endian<std::int64_t>(bytes + 36);
    row.lost = big_endian<std::int64_t>(bytes + 44);
    row.flags = big_endian<std::uint32_t>(bytes + 52);
    return row;
}

constexpr std::byte kProvisional{'p'};  // fills a header until the cube is finished

struct FinishedCube {
    CubeStart start;
    CubeEnd end;
    CubeOnDisk written;  // by the writer thread
    CubeOnDisk disk;     // of the finished file
    std::vector<FrameRow> rows;
    std::vector<std::byte> unfinished;  // the file as a crash would have left it
    std::vector<std::byte> file;
};

// Takes events and handles cubes in a thread of its own, as Python does.
class Driver {
  public:
    Driver(LoggerEngine& engine, const TempDirectory& directory)
        : engine_(engine), directory_(directory), thread_([this] { run(); }) {}
    ~Driver() {
        leave_.store(true);
        if (thread_.joinable()) thread_.join();
    }

    std::atomic<bool> opens{true};     // else cubes wait for their files
    std::atomic<bool> finishes{true};  // else they keep their places
    std::atomic<std::uint32_t> shrink_to{0};

    // Waits until every cube is finished and released.
    void join() { thread_.join(); }
    std::size_t count(EventKind kind) {
        const std::lock_guard lock(mutex_);
        return static_cast<std::size_t>(
            std::count_if(events_.begin(), events_.end(),
                          [kind](const Event& event) { return event.kind == kind; }));
    }
    void await_event(EventKind kind, std::size_t times = 1) {
        await([&] { return count(kind) >= times; });
    }
    Event last(EventKind kind) {
        const std::lock_guard lock(mutex_);
        const auto found = std::find_if(events_.rbegin(), events_.rend(),
                                        [kind](const Event& e) { return e.kind == kind; });
        REQUIRE(found != events_.rend());
        return *found;
    }
    // After join().
    std::vector<FinishedCube>& cubes() { return cubes_; }
    const std::string& error() const { return error_; }

  private:
    void run() {
        try {
            while (!leave_.load() && !(finished_ && live_ == 0)) {
                Event event;
                if (engine_.next_event(event, milliseconds(5))) take(event);
                while (opens.load() && !started_.empty()) open(pop(started_));
                while (finishes.load() && !written_.empty()) finish(pop(written_));
            }
        } catch (const std::exception& error) {
            error_ = error.what();
        }
    }
    static std::uint32_t pop(std::vector<std::uint32_t>& cubes) {
        const std::uint32_t first = cubes.front();
        cubes.erase(cubes.begin());
        return first;
    }
    void take(const Event& event) {
        if (event.kind == EventKind::cube_started) {
            ++live_;
            started_.push_back(event.cube);
        }
        if (event.kind == EventKind::cube_written) written_.push_back(event.cube);
        if (event.kind == EventKind::finished) finished_ = true;
        const std::lock_guard lock(mutex_);
        events_.push_back(event);
    }
    CubeFileNames names_of(std::uint32_t cube) const {
        const std::string stem =
            directory_ / ("." + std::to_string(engine_.cube_start(cube).number));
        return {stem + ".cube", stem + ".frames"};
    }
    void open(std::uint32_t cube) {
        const std::vector<std::byte> header(engine_.cube_start(cube).header_bytes,
                                            kProvisional);
        engine_.open_cube(cube, names_of(cube), header);
    }
    void finish(std::uint32_t cube) {
        FinishedCube done;
        done.written = engine_.cube_on_disk(cube);
        done.unfinished = file_bytes(names_of(cube).data);
        if (shrink_to.load() > 0) engine_.shrink_cube(cube, shrink_to.load());
        done.start = engine_.cube_start(cube);
        done.end = engine_.cube_end(cube);
        done.disk = engine_.cube_on_disk(cube);
        const std::vector<std::byte> rows = engine_.cube_rows(cube);
        for (std::size_t at = 0; at < rows.size(); at += kFrameRowBytes) {
            done.rows.push_back(unpacked(rows.data() + at));
        }
        const std::vector<std::byte> header(done.start.header_bytes, std::byte{' '});
        engine_.finish_cube(cube, header, {});
        done.file = file_bytes(names_of(cube).data);
        engine_.discard_cube(cube);
        cubes_.push_back(std::move(done));
        --live_;
    }

    LoggerEngine& engine_;
    const TempDirectory& directory_;
    std::mutex mutex_;  // protects events_; written by the thread
    std::vector<Event> events_;
    std::vector<FinishedCube> cubes_;
    std::vector<std::uint32_t> started_;
    std::vector<std::uint32_t> written_;
    std::size_t live_ = 0;
    bool finished_ = false;
    std::string error_;
    std::atomic<bool> leave_{false};
    std::thread thread_;
};

// -- a logger at work ------------------------------------------------------------------------

struct Session {
    explicit Session(const std::function<void(EngineConfig&)>& adjust = {},
                     const TempDirectory* disk = nullptr)
        : files(disk != nullptr ? *disk : own_files), engine(configured(adjust)) {}

    EngineConfig configured(const std::function<void(EngineConfig&)>& adjust) const {
        EngineConfig config;
        config.capture.directory = streams.path();
        config.capture.stream = "cam";
        config.capture.tai_offset_ns = 0;
        config.ring_memory_bytes = std::size_t{4} << 20;
        if (adjust) adjust(config);
        return config;
    }
    // Begins to log and waits for the camera to be found.
    void start() {
        engine.start();
        driver.emplace(engine, files);
        driver->await_event(EventKind::attached);
    }
    // Begins to log with nobody opening files, and publishes until the first frame has no room.
    void fill_memory(Camera& camera) {
        engine.start();
        driver.emplace(engine, files);
        driver->opens.store(false);
        driver->await_event(EventKind::attached);
        while (!counters().memory_full.load()) {
            camera.publish();
            await([&] {
                return counters().memory_full.load() ||
                       counters().last_cnt0.load() == camera.published();
            });
        }
        driver->await_event(EventKind::memory_full);
    }
    const CaptureCounters& counters() { return engine.capture().counters(); }
    // Publishes frames no faster than they are read, so that none is lost.
    void publish(Camera& camera, std::uint64_t frames) {
        for (std::uint64_t k = 0; k < frames; ++k) {
            camera.publish();
            await_read();
        }
    }
    void await_frames(std::uint64_t frames) {
        await([&] { return counters().frames.load() >= frames; });
    }
    void await_read() { await_frames(++read_); }
    void stop() {
        engine.capture().stop();
        join();
    }
    void join() {
        driver->join();
        engine.close();
        REQUIRE_MESSAGE(driver->error().empty(), driver->error());
    }
    std::vector<FinishedCube>& cubes() { return driver->cubes(); }

    TempDirectory streams{true};
    TempDirectory own_files;
    const TempDirectory& files;
    LoggerEngine engine;
    std::optional<Driver> driver;

  private:
    std::uint64_t read_ = 0;
};

struct Told {
    std::uint64_t frames = 0;
    std::uint64_t lost = 0;
};

void check_pixels(const FinishedCube& cube, std::size_t index, unsigned generation) {
    const std::size_t pixels = std::size_t{cube.start.width} * cube.start.height;
    const std::byte* at = cube.file.data() + cube.start.header_bytes + index * pixels * 2;
    const auto cnt0 = static_cast<std::uint64_t>(cube.rows[index].cnt0);
    std::size_t wrong = 0;
    for (std::size_t k = 0; k < pixels; ++k) {
        const auto stored = big_endian<std::uint16_t>(at + 2 * k);
        if ((stored ^ 0x8000) != pixel_of(generation, cnt0, k)) ++wrong;
    }
    CHECK(wrong == 0);
}

void check_file(const FinishedCube& cube) {
    const std::size_t header = cube.start.header_bytes;
    const std::size_t data = cube.disk.frames * cube.start.frame_bytes;
    CHECK(cube.start.frame_bytes == std::size_t{cube.start.width} * cube.start.height * 2);
    const std::size_t blocks = (header + data + kFitsBlock - 1) / kFitsBlock;
    REQUIRE(cube.file.size() == blocks * kFitsBlock);
    CHECK(cube.disk.data_sum == fits_sum(cube.file.data() + header, data));
    const auto spaces = [](std::byte byte) { return byte == std::byte{' '}; };
    const auto zeros = [](std::byte byte) { return byte == std::byte{0}; };
    const auto at = [&cube](std::size_t byte) {
        return cube.file.begin() + static_cast<std::ptrdiff_t>(byte);
    };
    CHECK(std::all_of(cube.file.begin(), at(header), spaces));
    CHECK(std::all_of(at(header + data), cube.file.end(), zeros));
    REQUIRE(cube.unfinished.size() >= header + data);
    const auto data_begin = cube.unfinished.begin() + static_cast<std::ptrdiff_t>(header);
    CHECK(std::count(cube.unfinished.begin(), data_begin, kProvisional) ==
          static_cast<std::ptrdiff_t>(header));
    CHECK(std::equal(at(header), at(header + data), data_begin));
}

// Every file whole, every row true: which frames there are, and which the rows say are missing.
Told check_cubes(const std::vector<FinishedCube>& cubes) {
    Told told;
    unsigned generation = 0;
    std::int64_t previous = 0;
    std::uint64_t number = 0;
    for (const FinishedCube& cube : cubes) {
        CAPTURE(cube.start.number);
        CHECK(cube.start.number == ++number);
        CHECK(cube.rows.size() == cube.disk.frames);
        REQUIRE(!cube.rows.empty());
        CHECK(cube.start.first.cnt0 == cube.rows[0].cnt0);
        check_file(cube);
        for (std::size_t k = 0; k < cube.rows.size(); ++k) {
            const FrameRow& row = cube.rows[k];
            if ((row.flags & kStreamRecreated) != 0) {
                ++generation;
                previous = 0;
            }
            CHECK(row.frame == static_cast<std::int32_t>(k));
            CHECK(row.cnt0 > previous);
            CHECK(row.lost >= row.cnt0 - previous - 1);
            if ((row.flags & kStreamRecreated) == 0) CHECK(row.lost == row.cnt0 - previous - 1);
            CHECK(row.logged_ns > 0);
            previous = row.cnt0;
            told.lost += static_cast<std::uint64_t>(row.lost);
            check_pixels(cube, k, generation);
        }
        told.frames += cube.rows.size();
        told.lost += cube.end.lost_at_end;
        previous += static_cast<std::int64_t>(cube.end.lost_at_end);
    }
    return told;
}

// The promise of the product: what was published is in the files, or the files say it is not.
void check_account(Session& session, std::uint64_t published) {
    const Told told = check_cubes(session.cubes());
    CHECK(session.counters().frames.load() == told.frames);
    CHECK(session.counters().lost.load() == told.lost);
    CHECK(told.frames + told.lost == published);
}

std::vector<CubeEndReason> reasons(const std::vector<FinishedCube>& cubes) {
    std::vector<CubeEndReason> all;
    for (const FinishedCube& cube : cubes) all.push_back(cube.end.reason);
    return all;
}

std::vector<std::uint32_t> frames_of(const std::vector<FinishedCube>& cubes) {
    std::vector<std::uint32_t> all;
    for (const FinishedCube& cube : cubes) all.push_back(cube.end.frames);
    return all;
}

using Reasons = std::vector<CubeEndReason>;
using Counts = std::vector<std::uint32_t>;

// A frame of 16 kB in 64 kB chunks, eight of them: full after some thirty frames.
constexpr Shape kLargeFrames{128, 64, 8, 4};
void small_memory(EngineConfig& config) {
    config.ring_memory_bytes = 1;
}

}  // namespace

// doctest compares and prints vectors of these.
namespace doctest {
template <typename T>
struct StringMaker<std::vector<T>> {
    static String convert(const std::vector<T>& values) {
        std::string text;
        for (const T& value : values) text += std::to_string(static_cast<int>(value)) + " ";
        return text.c_str();
    }
};
}  // namespace doctest

TEST_SUITE_BEGIN("logger engine");

// -- how cubes end ---------------------------------------------------------------------------

TEST_CASE("a cube ends at its size, the last one at the stop, and every frame is in them") {
    Session session([](EngineConfig& config) {
        config.capture.cube_size = 10;
        config.capture.header_bytes = 3 * kFitsBlock;
        config.capture.header_keywords = 4;
    });
    Camera camera(session.streams);
    session.start();
    session.publish(camera, 25);
    session.stop();
    check_account(session, 25);
    CHECK(session.counters().lost.load() == 0);
    CHECK(frames_of(session.cubes()) == Counts{10, 10, 5});
    CHECK(reasons(session.cubes()) ==
          Reasons{CubeEndReason::cube_size, CubeEndReason::cube_size, CubeEndReason::stop});
    const CubeStart& start = session.cubes()[1].start;
    CHECK(start.header_bytes == 3 * kFitsBlock);
    CHECK(start.acquisition_times);
    CHECK(start.first.acquired_ns == kNoon_ns + 11 * kMillisecond_ns);
    CHECK(session.cubes()[1].rows[0].acquired_ns == start.first.acquired_ns);
    CHECK(session.cubes()[1].end.last_cnt0 == 20);
    CHECK(session.files.entries() == 0);
}

TEST_CASE("two thousand frames through cubes of seven, none lost and all in order") {
    const TempDirectory files(true);
    Session session([](EngineConfig& config) { config.capture.cube_size = 7; }, &files);
    const Shape shape{33, 17, 64, 0};  // frames end between the words that are summed
    Camera camera(session.streams, shape);
    session.start();
    for (std::uint64_t k = 1; k <= 2000; ++k) {
        camera.publish();
        const std::uint64_t behind = shape.ring / 2;
        if (k > behind) session.await_frames(k - behind);
    }
    session.stop();
    check_account(session, 2000);
    CHECK(session.counters().lost.load() == 0);
    CHECK(session.cubes().size() == 286);
}

TEST_CASE("the next cube begins when asked for, and a new size counts from the next cube on") {
    Session session([](EngineConfig& config) { config.capture.cube_size = 100; });
    Camera camera(session.streams);
    session.start();
    session.publish(camera, 5);
    session.engine.capture().set_cube_size(3);
    session.engine.capture().next_cube();
    session.driver->await_event(EventKind::cube_written);
    session.publish(camera, 4);
    session.stop();
    check_account(session, 9);
    CHECK(frames_of(session.cubes()) == Counts{5, 3, 1});
    CHECK(reasons(session.cubes()) ==
          Reasons{CubeEndReason::next_cube, CubeEndReason::cube_size, CubeEndReason::stop});
    CHECK(session.cubes()[0].start.planned_frames == 100);
    CHECK(session.cubes()[1].start.planned_frames == 3);
}

TEST_CASE("a cube ends when no frame comes within the time-out") {
    Session session([](EngineConfig& config) { config.capture.timeout = milliseconds(50); });
    Camera camera(session.streams);
    session.start();
    camera.publish();
    session.driver->await_event(EventKind::cube_written);
    camera.publish();
    session.driver->await_event(EventKind::cube_written, 2);
    session.stop();
    check_account(session, 2);
    CHECK(reasons(session.cubes()) == Reasons{CubeEndReason::timeout, CubeEndReason::timeout});
}

TEST_CASE("a cube never spans UTC midnight of the acquisition times") {
    Session session;
    Camera camera(session.streams);
    session.start();
    for (std::int64_t k = 0; k < 7; ++k) {
        camera.publish(kMidnight_ns + (k - 4) * kMillisecond_ns);
        session.await_read();
    }
    session.stop();
    check_account(session, 7);
    CHECK(frames_of(session.cubes()) == Counts{4, 3});
    CHECK(reasons(session.cubes()) ==
          Reasons{CubeEndReason::utc_midnight, CubeEndReason::stop});
    CHECK(session.cubes()[1].start.first.acquired_ns == kMidnight_ns);
}

TEST_CASE("a large frame at midnight is the first of the new cube, whole") {
    Session session([](EngineConfig& config) {
        config.ring_memory_bytes = std::size_t{1} << 20;
        config.capture.header_bytes = 30 * kFitsBlock;  // more than a chunk
    });
    Camera camera(session.streams, {161, 161, 4, 0});
    session.start();
    for (std::int64_t k = 0; k < 9; ++k) {
        camera.publish(kMidnight_ns + (k - 6) / 3 * 86'400 * kSecond_ns + k * kMillisecond_ns);
        session.await_read();
    }
    session.stop();
    check_account(session, 9);
    CHECK(session.cubes().size() > 1);
}

TEST_CASE("a clock that steps back begins a new cube; its jitter does not") {
    Session session;
    Camera camera(session.streams);
    session.start();
    for (const std::int64_t offset_ms : {1000, 2000, 1900, 3000, 1500, 1600}) {
        camera.publish(kNoon_ns + offset_ms * kMillisecond_ns);
        session.await_read();
    }
    session.stop();
    check_account(session, 6);
    CHECK(frames_of(session.cubes()) == Counts{4, 2});
    CHECK(reasons(session.cubes()) == Reasons{CubeEndReason::clock_step, CubeEndReason::stop});
    CHECK((session.cubes()[0].rows[2].flags & kClockStep) != 0);
    CHECK((session.cubes()[1].rows[0].flags & kClockStep) != 0);
}

TEST_CASE("the number of frames asked for is exact, and frames after it are not missed") {
    Session session([](EngineConfig& config) {
        config.capture.cube_size = 3;
        config.capture.max_frames = 7;
    });
    Camera camera(session.streams, {32, 16, 64, 4});
    session.start();
    for (int k = 0; k < 8; ++k) camera.publish();
    session.await_frames(7);
    for (int k = 0; k < 20; ++k) camera.publish();
    session.engine.capture().stop();  // late: changes nothing
    session.join();
    check_account(session, 7);
    CHECK(frames_of(session.cubes()) == Counts{3, 3, 1});
    CHECK(session.cubes()[2].end.reason == CubeEndReason::frame_limit);
    CHECK(std::string(session.driver->last(EventKind::finished).text) == "limit reached");
    CHECK(session.driver->last(EventKind::finished).value == 0);
}

TEST_CASE("the number of cubes asked for is exact, whatever ends them") {
    Session session([](EngineConfig& config) {
        config.capture.cube_size = 3;
        config.capture.max_cubes = 2;
    });
    Camera camera(session.streams, {32, 16, 64, 4});
    session.start();
    for (int k = 0; k < 7; ++k) camera.publish();
    session.join();
    check_account(session, 6);
    CHECK(frames_of(session.cubes()) == Counts{3, 3});
}

TEST_CASE("midnight ends the last cube asked for, and begins no other") {
    Session session([](EngineConfig& config) { config.capture.max_cubes = 1; });
    Camera camera(session.streams);
    session.start();
    for (std::int64_t k = 0; k < 4; ++k)
        camera.publish(kMidnight_ns + (k - 2) * kMillisecond_ns);
    session.join();
    check_account(session, 2);
    CHECK(reasons(session.cubes()) == Reasons{CubeEndReason::utc_midnight});
}

// -- the stream comes and goes ---------------------------------------------------------------

TEST_CASE(
    "a stream re-created with its shape goes on in the cube; what nobody saw is counted") {
    Session session;
    const Shape shape{32, 16, 4, 4};
    std::optional<Camera> camera;
    camera.emplace(session.streams, shape, 0);
    session.start();
    session.publish(*camera, 5);
    camera.emplace(session.streams, shape, 1);
    for (int k = 0; k < 9; ++k) camera->publish();  // more than its ring holds
    session.driver->await_event(EventKind::attached, 2);
    await([&] { return session.counters().last_cnt0.load() == 9; });
    session.stop();
    check_account(session, 14);
    REQUIRE(session.cubes().size() == 1);
    const FrameRow& first = session.cubes()[0].rows[5];
    CHECK((first.flags & kStreamRecreated) != 0);
    CHECK(first.lost == first.cnt0 - 1);
    CHECK(first.lost >= 5);
}

TEST_CASE("frames of the old stream that had no room are counted once, in the next row") {
    Session session(small_memory);
    std::optional<Camera> camera;
    camera.emplace(session.streams, kLargeFrames, 0);
    session.fill_memory(*camera);
    for (int k = 0; k < 60; ++k) camera->publish();
    const std::uint64_t published = camera->published();
    camera.emplace(session.streams, kLargeFrames, 1);
    camera->publish();
    session.driver->opens.store(true);
    session.driver->await_event(EventKind::attached, 2);
    await([&] { return session.counters().last_cnt0.load() == 1; });
    session.stop();
    check_account(session, published + 1);
}

TEST_CASE("frames that went with their stream are counted once, in the next row") {
    Session session(small_memory);
    Shape shape = kLargeFrames;
    shape.ring = 0;
    std::optional<Camera> camera;
    camera.emplace(session.streams, shape, 0);
    session.fill_memory(*camera);
    const std::uint64_t published = camera->published();
    camera->writer().next_slot();  // overwrites what had no room, and is never published
    camera.emplace(session.streams, shape, 1);
    session.driver->await_event(EventKind::attached, 2);
    session.driver->opens.store(true);
    const std::uint64_t in_memory = session.counters().frames.load();
    for (std::uint64_t k = 1; k <= 3; ++k) {
        camera->publish();
        session.await_frames(in_memory + k);
    }
    session.stop();
    check_account(session, published + 3);
    REQUIRE(session.cubes().size() == 1);
    const FrameRow& first = session.cubes()[0].rows[in_memory];
    CHECK(first.lost > 0);
    CHECK((first.flags & kStreamRecreated) != 0);
    CHECK((first.flags & kRingFull) != 0);
}

TEST_CASE("a stream that carries on the count of the one before has lost what lies between") {
    Session session;
    std::optional<Camera> camera;
    camera.emplace(session.streams, Shape{}, 0);
    store(camera->writer().file()->metadata().cnt0, std::uint64_t{5'000'000});
    session.start();
    session.publish(*camera, 3);
    camera.emplace(session.streams, Shape{}, 1);
    store(camera->writer().file()->metadata().cnt0, std::uint64_t{5'000'013});
    camera->publish();
    session.await_read();
    session.stop();
    REQUIRE(session.cubes().size() == 1);
    REQUIRE(session.cubes()[0].rows.size() == 4);
    CHECK(session.cubes()[0].rows[3].cnt0 == 5'000'014);
    CHECK(session.cubes()[0].rows[3].lost == 10);
    CHECK(session.counters().lost.load() == 10);
}

TEST_CASE("a stream re-created with another shape ends the cube") {
    Session session;
    std::optional<Camera> camera;
    camera.emplace(session.streams, Shape{32, 16, 4, 4}, 0);
    session.start();
    session.publish(*camera, 3);
    camera.emplace(session.streams, Shape{48, 8, 4, 60}, 1);
    session.publish(*camera, 2);
    session.stop();
    check_account(session, 5);
    CHECK(frames_of(session.cubes()) == Counts{3, 2});
    CHECK(session.cubes()[0].end.reason == CubeEndReason::stream_recreated);
    CHECK(session.cubes()[1].start.width == 48);
    // More keywords than Python knows of need more room.
    CHECK(session.cubes()[1].start.header_bytes > session.cubes()[0].start.header_bytes);
}

TEST_CASE("a header that grows between two cubes has its room in the second") {
    Session session([](EngineConfig& config) { config.capture.cube_size = 1; });
    Camera camera(session.streams, {32, 16, 8, 0});
    session.start();
    session.publish(camera, 1);
    session.driver->await_event(EventKind::cube_written);
    session.engine.capture().set_header(5 * kFitsBlock, 0);
    session.publish(camera, 1);
    session.stop();
    check_account(session, 2);
    CHECK(session.cubes()[0].start.header_bytes == kFitsBlock);
    CHECK(session.cubes()[1].start.header_bytes == 5 * kFitsBlock);
}

TEST_CASE("a stream that was removed and stays away ends its cube; logging goes on with it") {
    Session session;
    std::optional<Camera> camera;
    camera.emplace(session.streams, Shape{}, 0);
    session.start();
    session.publish(*camera, 3);
    std::filesystem::remove(session.streams / "cam.im.shm");
    session.driver->await_event(EventKind::stream_gone);
    session.driver->await_event(EventKind::cube_written);
    camera.emplace(session.streams, Shape{}, 1);
    session.publish(*camera, 2);
    session.stop();
    check_account(session, 5);
    CHECK(reasons(session.cubes()) == Reasons{CubeEndReason::stream_gone, CubeEndReason::stop});
}

TEST_CASE("a stream that cannot be logged is refused once, and a better one is taken") {
    Session session;
    StreamSpec spec = Camera::spec({32, 16, 4, 0});
    spec.shape.imagetype = kMathData;  // 3D, no ring
    const StreamWriter unfit = StreamWriter::create(session.streams.path(), "cam", spec);
    session.engine.start();
    session.driver.emplace(session.engine, session.files);
    session.driver->await_event(EventKind::refused);
    Camera camera(session.streams);
    session.driver->await_event(EventKind::attached);
    session.publish(camera, 2);
    session.stop();
    check_account(session, 2);
    CHECK(session.driver->count(EventKind::refused) == 1);
}

TEST_CASE("keywords are those of the first frame, and their changes those of later frames") {
    Session session;
    std::optional<Camera> camera;
    const auto create = [&](unsigned generation) {
        camera.emplace(session.streams, Shape{}, generation);
        camera->writer().set_keyword(keyword("FILTER", 1));
        camera->writer().set_keyword(keyword("_NOISE", 1));
    };
    const auto publish = [&](std::int64_t filter) {
        camera->writer().set_keyword(keyword("FILTER", filter));
        camera->writer().set_keyword(keyword("_NOISE", 7 + filter));
        session.publish(*camera, 1);
    };
    create(0);
    session.start();
    for (const std::int64_t filter : {1, 1, 2, 2, 3}) publish(filter);
    create(1);
    publish(3);
    publish(4);
    session.stop();
    check_account(session, 7);
    REQUIRE(session.cubes().size() == 1);
    const FinishedCube& cube = session.cubes()[0];
    REQUIRE(cube.start.keywords.size() == 2);
    CHECK(cube.start.keywords[0].value.as_int == 1);
    REQUIRE(cube.end.keyword_changes == 3);
    CHECK(cube.end.changes[0].frame == 2);
    CHECK(cube.end.changes[1].frame == 4);
    CHECK(cube.end.changes[2].frame == 6);
    CHECK(cube.end.changes[2].entry.value.as_int == 4);
}

// -- overload --------------------------------------------------------------------------------

TEST_CASE("with memory full frames are lost and counted, and the next row says why") {
    Session session(small_memory);
    Camera camera(session.streams, kLargeFrames);
    session.fill_memory(camera);
    for (int k = 0; k < 100; ++k) camera.publish();
    const std::uint64_t in_memory = session.counters().frames.load();
    session.driver->opens.store(true);
    session.driver->await_event(EventKind::memory_freed);
    session.await_frames(in_memory + 1);
    session.stop();
    check_account(session, camera.published());
    CHECK(session.counters().lost.load() > 0);
    REQUIRE(session.cubes().size() == 1);
    const FrameRow& after = session.cubes()[0].rows[in_memory];
    CHECK(after.lost > 0);
    CHECK((after.flags & kRingFull) != 0);
    CHECK(!session.counters().memory_full.load());
}

TEST_CASE("a stop with memory full waits for room, and logs what the stream still holds") {
    Session session(small_memory);
    Camera camera(session.streams, kLargeFrames);
    session.fill_memory(camera);
    session.engine.capture().stop();
    session.driver->opens.store(true);
    session.join();
    check_account(session, camera.published());
    CHECK(session.cubes()[0].rows.back().cnt0 == static_cast<std::int64_t>(camera.published()));
}

TEST_CASE(
    "a stop with memory full does not wait for a frame that is never written to its end") {
    Session session(small_memory);
    Shape shape = kLargeFrames;
    shape.ring = 0;
    Camera camera(session.streams, shape);
    session.fill_memory(camera);
    camera.writer().next_slot();  // and the camera dies
    session.engine.capture().stop();
    session.driver->await_event(EventKind::finished);
    session.driver->opens.store(true);
    session.join();
    check_account(session, camera.published());
    CHECK(session.cubes()[0].end.lost_at_end > 0);
}

TEST_CASE("a limit reached after the stop is a limit: what comes after it is not missed") {
    Session session([](EngineConfig& config) {
        small_memory(config);
        config.capture.max_frames = 40;  // a few more than memory has room for
    });
    Shape shape = kLargeFrames;
    shape.ring = 64;
    Camera camera(session.streams, shape);
    session.fill_memory(camera);
    REQUIRE(session.counters().frames.load() + 1 == camera.published());
    REQUIRE(camera.published() < 40);
    for (int k = 0; k < 50; ++k) camera.publish();
    session.engine.capture().stop();
    session.driver->opens.store(true);
    session.join();
    check_account(session, 40);
    CHECK(session.cubes()[0].end.reason == CubeEndReason::frame_limit);
    CHECK(session.driver->last(EventKind::finished).value == 0);
}

TEST_CASE("when every place for a cube is taken frames are lost, and counted exactly") {
    Session session([](EngineConfig& config) { config.capture.cube_size = 1; });
    Camera camera(session.streams);
    session.start();
    session.driver->finishes.store(false);
    for (std::uint32_t k = 0; k < CubeTable::kCubes; ++k) {
        camera.publish();
        session.await_read();
    }
    for (int k = 0; k < 50; ++k) camera.publish();
    session.driver->await_event(EventKind::memory_full);
    session.driver->finishes.store(true);
    session.driver->await_event(EventKind::memory_freed);
    session.stop();
    check_account(session, CubeTable::kCubes + 50);
    CHECK(session.counters().lost.load() > 0);
    const FinishedCube& after = session.cubes()[CubeTable::kCubes];
    CHECK((after.rows[0].flags & kRingFull) != 0);
    CHECK(after.rows[0].lost > 0);
}

TEST_CASE("a new day with every place taken waits for one, and says that memory was full") {
    Session session([](EngineConfig& config) { config.capture.cube_size = 1; });
    Camera camera(session.streams);
    session.start();
    session.driver->finishes.store(false);
    for (std::uint32_t k = 0; k + 1 < CubeTable::kCubes; ++k) {
        camera.publish(kMidnight_ns - kSecond_ns + k);
        session.await_read();
    }
    session.engine.capture().set_cube_size(100);
    camera.publish(kMidnight_ns - 1000);
    session.await_read();
    camera.publish(kMidnight_ns + 1000);
    session.driver->await_event(EventKind::memory_full);
    for (int k = 1; k < 50; ++k) camera.publish(kMidnight_ns + 1000 + k);
    session.driver->finishes.store(true);
    session.await_frames(CubeTable::kCubes + 2);
    session.stop();
    check_account(session, CubeTable::kCubes + 50);
    REQUIRE(session.cubes().size() == CubeTable::kCubes + 1);
    const FinishedCube& last = session.cubes().back();
    CHECK(last.rows[0].acquired_ns == kMidnight_ns + 1000);
    CHECK(last.rows[1].lost > 0);
    CHECK((last.rows[1].flags & kRingFull) != 0);
    CHECK(session.driver->count(EventKind::memory_freed) > 0);
}

TEST_CASE("a stream without a ring, faster than it can be read, is never logged torn") {
    Session session;
    Camera camera(session.streams, {64, 64, 0, 0});
    session.start();
    for (int k = 0; k < 1500; ++k) camera.publish();
    session.stop();
    check_account(session, 1500);
}

// -- the disk --------------------------------------------------------------------------------

TEST_CASE(
    "a full disk stops nothing: frames wait in memory and are written when there is room") {
    const TinyDisk disk(std::size_t{1} << 20);
    if (!disk.available()) return;
    Session session([](EngineConfig& config) { config.capture.cube_size = 40; },
                    &disk.directory());
    Camera camera(session.streams);
    session.start();
    session.publish(camera, 5);
    disk.fill();
    session.publish(camera, 100);
    session.driver->await_event(EventKind::disk_error);
    CHECK(session.driver->last(EventKind::disk_error).value == ENOSPC);
    CHECK(session.engine.disk().failing() == ENOSPC);
    disk.make_room();
    session.driver->await_event(EventKind::disk_recovered);
    session.stop();
    check_account(session, 105);
    CHECK(session.counters().lost.load() == 0);
    CHECK(session.engine.disk().failing() == 0);
}

TEST_CASE("a disk given up leaves a cube of the frames that are whole on it, and can shrink") {
    const TinyDisk disk(std::size_t{600} << 10);
    if (!disk.available()) return;
    Session session({}, &disk.directory());
    Camera camera(session.streams, kLargeFrames);
    session.start();
    session.publish(camera, 60);  // more than the disk holds
    session.driver->await_event(EventKind::disk_error);
    session.driver->shrink_to.store(20);
    session.engine.disk().give_up();
    session.stop();
    REQUIRE(session.cubes().size() == 1);
    const FinishedCube& cube = session.cubes()[0];
    CHECK(cube.end.frames == 60);
    CHECK(cube.written.frames > 20);
    CHECK(cube.written.frames * cube.start.frame_bytes < (std::size_t{600} << 10));
    const std::byte* data = cube.unfinished.data() + cube.start.header_bytes;
    CHECK(cube.written.data_sum ==
          fits_sum(data, cube.written.frames * cube.start.frame_bytes));
    CHECK(cube.disk.frames == 20);
    CHECK(check_cubes(session.cubes()).frames == 20);
}

TEST_CASE("a cube that is abandoned goes nowhere, and the others are not harmed") {
    Session session([](EngineConfig& config) { config.capture.cube_size = 1; });
    Camera camera(session.streams);
    session.engine.start();
    Event event;
    const auto next = [&](EventKind kind) {
        do {
            REQUIRE(session.engine.next_event(event, seconds(60)));
        } while (event.kind != kind);
    };
    next(EventKind::attached);
    camera.publish();
    next(EventKind::cube_started);
    session.await_read();  // the writer waits for the file now, or soon
    session.engine.abandon_cube(event.cube);
    next(EventKind::cube_written);
    CHECK(session.engine.cube_end(event.cube).frames == 1);
    CHECK(session.engine.cube_on_disk(event.cube).frames == 0);
    CHECK(session.engine.cube_rows(event.cube).empty());
    session.engine.discard_cube(event.cube);
    session.driver.emplace(session.engine, session.files);
    session.publish(camera, CubeTable::kCubes + 1);  // its place is used again
    session.stop();
    REQUIRE(session.cubes().size() == CubeTable::kCubes + 1);
    for (const FinishedCube& cube : session.cubes()) {
        CHECK(cube.rows.size() == 1);
        check_file(cube);
    }
}

TEST_CASE("a header of another size than announced is refused, and nothing is harmed") {
    Session session;
    Camera camera(session.streams, {32, 16, 8, 0});
    session.engine.start();
    Event event;
    do {
        REQUIRE(session.engine.next_event(event, seconds(60)));
    } while (event.kind != EventKind::attached);
    camera.publish();
    do {
        REQUIRE(session.engine.next_event(event, seconds(60)));
    } while (event.kind != EventKind::cube_started);
    const std::vector<std::byte> header(2 * kFitsBlock, std::byte{' '});
    const CubeFileNames names{session.files / ".c", session.files / ".f"};
    CHECK_THROWS_AS(session.engine.open_cube(event.cube, names, header), std::invalid_argument);
    CHECK(session.files.entries() == 0);
    session.engine.open_cube(event.cube, names, std::span(header).first(kFitsBlock));
    session.engine.capture().stop();
    do {
        REQUIRE(session.engine.next_event(event, seconds(60)));
    } while (event.kind != EventKind::cube_written);
    CHECK_THROWS_AS(session.engine.finish_cube(event.cube, header, {}), std::invalid_argument);
    session.engine.finish_cube(event.cube, std::span(header).first(kFitsBlock), {});
    session.engine.release_cube(event.cube);
    session.engine.close();
    CHECK(file_bytes(names.data).size() == 2 * kFitsBlock);
}

// -- the end ---------------------------------------------------------------------------------

TEST_CASE("a logger that never met its stream stops with nothing") {
    Session session;
    session.engine.start();
    session.driver.emplace(session.engine, session.files);
    session.stop();
    CHECK(session.cubes().empty());
    CHECK(std::string(session.driver->last(EventKind::finished).text) == "stopped");
}

TEST_CASE("an abort does not wait for room, and what it leaves behind is counted in the file") {
    Session session(small_memory);
    Camera camera(session.streams, kLargeFrames);
    session.fill_memory(camera);
    session.engine.capture().abort();
    session.driver->await_event(EventKind::finished);
    session.driver->opens.store(true);
    session.join();
    check_account(session, camera.published());
    const CubeEnd& end = session.cubes().back().end;
    CHECK(end.lost_at_end > 0);
    CHECK(session.driver->last(EventKind::finished).value ==
          static_cast<std::int64_t>(end.lost_at_end));
}

TEST_CASE("an abort while a new day waits for memory counts the frame that had no cube") {
    Session session([](EngineConfig& config) { config.capture.cube_size = 1; });
    Camera camera(session.streams);
    session.start();
    session.driver->finishes.store(false);
    for (std::uint32_t k = 0; k + 1 < CubeTable::kCubes; ++k) {
        camera.publish(kMidnight_ns - kSecond_ns + k);
        session.await_read();
    }
    session.engine.capture().set_cube_size(100);
    camera.publish(kMidnight_ns - 1000);
    session.await_read();
    camera.publish(kMidnight_ns + 1000);
    session.driver->await_event(EventKind::memory_full);
    session.engine.capture().abort();
    session.driver->await_event(EventKind::finished);
    CHECK(session.driver->last(EventKind::finished).value == 1);
    session.driver->finishes.store(true);
    session.join();
    CHECK(session.counters().frames.load() == CubeTable::kCubes);
    CHECK(session.counters().lost.load() == 1);
}

TEST_CASE("an engine may go at any moment, with cubes that nobody opened, and never hangs") {
    for (int times = 0; times < 20; ++times) {
        const TempDirectory streams(true);
        Camera camera(streams, kLargeFrames);
        EngineConfig config;
        config.capture.directory = streams.path();
        config.capture.stream = "cam";
        config.capture.tai_offset_ns = 0;
        config.capture.cube_size = 1 + static_cast<std::uint32_t>(times) % 3;
        config.ring_memory_bytes = 1;
        std::jthread filming;  // goes on while the engine goes
        LoggerEngine engine(config);
        engine.start();
        await([&] { return engine.capture().counters().attached.load(); });
        filming = std::jthread([&camera](const std::stop_token& over) {
            while (!over.stop_requested()) camera.publish();
        });
        const auto frames =
            static_cast<std::uint64_t>(times) % 6;  // of eight there is room for
        await([&] { return engine.capture().counters().frames.load() >= frames; });
    }
}

TEST_CASE("an engine that was never started may go") {
    EngineConfig config;
    config.ring_memory_bytes = 1;
    const LoggerEngine engine(config);
    CHECK(engine.pool().free.size() == engine.pool().count());
}

TEST_SUITE_END();
