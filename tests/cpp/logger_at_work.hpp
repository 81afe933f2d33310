// A logger at work, driven as Python drives it, with a camera beside it; and every check there
// is of what it wrote.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "fits_sum.hpp"
#include "logger_engine.hpp"
#include "stream_writer.hpp"
#include "temp_directory.hpp"

namespace vampires::testing {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

inline constexpr std::int64_t kSecond_ns = 1'000'000'000;
inline constexpr std::int64_t kMillisecond_ns = 1'000'000;
inline constexpr std::int64_t kMidnight_ns =
    std::int64_t{20'000} * 86'400 * kSecond_ns;  // 2024-10-04
inline constexpr std::int64_t kNoon_ns = kMidnight_ns + 43'200 * kSecond_ns;

// Waits for what another thread does; a promise not kept fails the test, it does not hang it.
inline void await(const std::function<bool()>& happened) {
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
inline std::uint16_t pixel_of(unsigned generation, std::uint64_t cnt0, std::size_t k) {
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

inline KeywordEntry keyword(const char* name, std::int64_t value) {
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

inline FrameRow unpacked(const std::byte* bytes) {
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

inline constexpr std::byte kProvisional{'p'};  // fills a header until the cube is finished

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

inline void check_pixels(const FinishedCube& cube, std::size_t index, unsigned generation) {
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

inline void check_file(const FinishedCube& cube) {
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
inline Told check_cubes(const std::vector<FinishedCube>& cubes) {
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
inline void check_account(Session& session, std::uint64_t published) {
    const Told told = check_cubes(session.cubes());
    CHECK(session.counters().frames.load() == told.frames);
    CHECK(session.counters().lost.load() == told.lost);
    CHECK(told.frames + told.lost == published);
}

inline std::vector<CubeEndReason> reasons(const std::vector<FinishedCube>& cubes) {
    std::vector<CubeEndReason> all;
    for (const FinishedCube& cube : cubes) all.push_back(cube.end.reason);
    return all;
}

inline std::vector<std::uint32_t> frames_of(const std::vector<FinishedCube>& cubes) {
    std::vector<std::uint32_t> all;
    for (const FinishedCube& cube : cubes) all.push_back(cube.end.frames);
    return all;
}

using Reasons = std::vector<CubeEndReason>;
using Counts = std::vector<std::uint32_t>;

// A frame of 16 kB in 64 kB chunks, eight of them: full after some thirty frames.
inline constexpr Shape kLargeFrames{128, 64, 8, 4};
inline void small_memory(EngineConfig& config) {
    config.ring_memory_bytes = 1;
}

}  // namespace vampires::testing

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
