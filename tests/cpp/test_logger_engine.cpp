#include <doctest/doctest.h>

#include <chrono>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "fits_sum.hpp"
#include "logger_at_work.hpp"
#include "logger_engine.hpp"
#include "temp_directory.hpp"

using namespace vampires;
using namespace vampires::testing;

TEST_SUITE_BEGIN("logger engine");

// -- how cubes end ---------------------------------------------------------------------------

namespace {

// Starts the engine and sends one frame; the event that tells of its cube.
Event first_cube(Session& session, Camera& camera) {
    session.engine.start();
    Event event;
    do {
        REQUIRE(session.engine.next_event(event, seconds(60)));
    } while (event.kind != EventKind::attached);
    camera.publish();
    do {
        REQUIRE(session.engine.next_event(event, seconds(60)));
    } while (event.kind != EventKind::cube_started);
    return event;
}

}  // namespace

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

namespace {

void new_cube_with(EngineConfig& config, const std::vector<std::string>& keywords) {
    config.capture.new_cube_keywords = keywords;
}

// The value of a keyword of the first frame; 0 where it is not there.
std::int64_t value_of(const CubeStart& start, const std::string& name) {
    for (const KeywordEntry& entry : start.keywords) {
        if (name == entry.name) return entry.value.as_int;
    }
    return 0;
}

}  // namespace

TEST_CASE("a cube ends before the first frame with another value of a keyword of the list") {
    Session session([](EngineConfig& config) { new_cube_with(config, {"EXPTIME", "OBJECT"}); });
    Camera camera(session.streams);
    session.start();
    const std::vector<std::int64_t> exposures = {1, 1, 1, 2, 2, 1, 3, 3, 3};
    for (std::size_t k = 0; k < exposures.size(); ++k) {
        camera.writer().set_keyword(keyword("EXPTIME", exposures[k]));
        camera.writer().set_keyword(keyword("RET-ANG1", static_cast<std::int64_t>(k)));
        if (k == 7) camera.writer().set_keyword(keyword("OBJECT", 1));
        session.publish(camera, 1);
    }
    session.stop();
    check_account(session, 9);
    CHECK(session.counters().lost.load() == 0);
    CHECK(frames_of(session.cubes()) == Counts{3, 2, 1, 1, 2});
    constexpr CubeEndReason kChanged = CubeEndReason::keyword_changed;
    CHECK(reasons(session.cubes()) ==
          Reasons{kChanged, kChanged, kChanged, kChanged, CubeEndReason::stop});
    std::size_t frame = 0;
    for (const FinishedCube& cube : session.cubes()) {
        CHECK(value_of(cube.start, "EXPTIME") == exposures[frame]);
        frame += cube.end.frames;
        // Keywords that move all the time are reported; the one that ended the cube is not.
        CHECK(cube.end.keyword_changes == cube.end.frames - 1);
    }
    CHECK(std::string(session.cubes()[2].end.keyword.data()) == "EXPTIME");
    CHECK(std::string(session.cubes()[3].end.keyword.data()) == "OBJECT");
}

TEST_CASE("without a list of keywords no change of them ends a cube") {
    Session session;
    Camera camera(session.streams);
    session.start();
    for (std::int64_t k = 0; k < 5; ++k) {
        camera.writer().set_keyword(keyword("EXPTIME", k));
        session.publish(camera, 1);
    }
    session.stop();
    check_account(session, 5);
    CHECK(reasons(session.cubes()) == Reasons{CubeEndReason::stop});
    CHECK(session.cubes()[0].end.keyword_changes == 4);
}

TEST_CASE("also frames that are read late begin a cube where the keyword has changed") {
    constexpr std::int64_t kFrames = 4000;
    constexpr std::int64_t kOfOneValue = 100;
    Session session([](EngineConfig& config) { new_cube_with(config, {"EXPTIME"}); });
    Camera camera(session.streams, {8, 4, 256, 4});
    session.start();
    for (std::int64_t k = 1; k <= kFrames; ++k) {
        const std::int64_t value = (k - 1) / kOfOneValue;
        camera.writer().set_keyword(keyword("_MAQTIME", k));
        if ((k - 1) % kOfOneValue == 0) camera.writer().set_keyword(keyword("EXPTIME", value));
        camera.publish();
        // At most one change of the keyword is waiting to be seen.
        if (k % 64 == 0) session.await_frames(static_cast<std::uint64_t>(k));
    }
    session.stop();
    check_account(session, kFrames);
    CHECK(session.counters().lost.load() == 0);
    CHECK(session.cubes().size() == kFrames / kOfOneValue);
    for (const FinishedCube& cube : session.cubes()) {
        CHECK(cube.end.frames == kOfOneValue);
        CHECK(value_of(cube.start, "EXPTIME") == cube.rows[0].cnt0 / kOfOneValue);
    }
}

TEST_CASE("a changed keyword ends the last cube asked for, and begins no other") {
    Session session([](EngineConfig& config) {
        new_cube_with(config, {"EXPTIME"});
        config.capture.max_cubes = 2;
    });
    Camera camera(session.streams);
    session.start();
    for (std::int64_t k = 1; k <= 4; ++k) {
        camera.writer().set_keyword(keyword("EXPTIME", k / 2));
        camera.publish();
        if (k < 4) session.await_frames(static_cast<std::uint64_t>(k));
    }
    session.join();
    check_account(session, 3);
    CHECK(frames_of(session.cubes()) == Counts{1, 2});
    CHECK(session.counters().lost.load() == 0);
    CHECK(std::string(session.driver->last(EventKind::finished).text) == "limit reached");
}

TEST_CASE("a cube is ended by its number, and no other in its place") {
    Session session;
    Camera camera(session.streams);
    session.start();
    session.publish(camera, 2);
    CHECK(session.engine.capture().end_cube(2, "OBJECT"));  // not yet there
    CHECK(session.engine.capture().end_cube(1, "OBJECT"));
    session.driver->await_event(EventKind::cube_written);
    session.publish(camera, 3);
    CHECK(session.engine.capture().end_cube(1, "OBJECT"));  // there no more
    session.publish(camera, 1);
    session.stop();
    check_account(session, 6);
    CHECK(frames_of(session.cubes()) == Counts{2, 4});
    CHECK(reasons(session.cubes()) ==
          Reasons{CubeEndReason::keyword_changed, CubeEndReason::stop});
    CHECK(std::string(session.cubes()[0].end.keyword.data()) == "OBJECT");
    CHECK(session.cubes()[1].end.keyword[0] == '\0');
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
    const TinyDisk disk(std::size_t{8} << 20);
    if (!disk.available()) return;
    Session session(small_memory, &disk.directory());
    Camera camera(session.streams, kLargeFrames);
    session.start();
    session.publish(camera, 30);
    const std::size_t kFrame = std::size_t{2} * kLargeFrames.width * kLargeFrames.height;
    await([&] { return session.engine.disk().bytes_written() > 29 * kFrame; });
    disk.fill();
    session.publish(camera, 30);
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
    Event event = first_cube(session, camera);
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

TEST_CASE("a cube ends with the frames that its disk has room for, and the next goes on") {
    Session session([](EngineConfig& config) { config.capture.cube_size = 100; });
    Camera camera(session.streams);
    Event event = first_cube(session, camera);
    CHECK(session.engine.cube_progress(event.cube).growing);
    session.engine.limit_cube(event.cube, 5);
    for (int k = 0; k < 11; ++k) camera.publish();
    await([&] { return !session.engine.cube_progress(event.cube).growing; });
    CHECK(session.engine.cube_progress(event.cube).frames == 5);
    session.engine.abandon_cube(event.cube);
    do {
        REQUIRE(session.engine.next_event(event, seconds(60)));
    } while (event.kind != EventKind::cube_written);
    CHECK(session.engine.cube_end(event.cube).reason == CubeEndReason::disk_full);
    session.engine.discard_cube(event.cube);
}

TEST_SUITE_END();
