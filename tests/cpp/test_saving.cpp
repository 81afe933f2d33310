#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "logger_at_work.hpp"
#include "saving_gate.hpp"

using namespace vampires;
using namespace vampires::testing;

namespace {

void controlled(EngineConfig& config) {
    config.capture.controlled = true;
    config.capture.cube_size = 10;
}
void controlled_with_small_memory(EngineConfig& config) {
    controlled(config);
    config.capture.cube_size = 1000;
    small_memory(config);
}

using Span = std::pair<std::int64_t, std::int64_t>;  // cnt0 of the first and the last frame

// First and last frame of each session, after every check of the cubes.
std::vector<Span> sessions_of(Session& session) {
    std::vector<Span> spans;
    Told told;
    std::uint64_t number = 0;  // of the session
    for (const FinishedCube& cube : session.cubes()) {
        check_file(cube);
        REQUIRE(!cube.rows.empty());
        CHECK(cube.rows.size() == cube.end.frames);
        for (std::size_t k = 0; k < cube.rows.size(); ++k) {
            const FrameRow& row = cube.rows[k];
            check_pixels(cube, k, 0);
            if (std::exchange(number, cube.start.session) != cube.start.session) {
                if (!spans.empty()) CHECK(row.cnt0 > spans.back().second);
                std::uint32_t of_the_frame = kAcquiredFromAtime | kCaughtUp;
                if (row.lost > 0) of_the_frame |= kTornBefore | kRingFull;
                CHECK((row.flags & ~of_the_frame) == 0);
                spans.emplace_back(row.cnt0, row.cnt0);
            } else {
                CHECK(row.cnt0 == spans.back().second + row.lost + 1);
            }
            spans.back().second = row.cnt0;
            told.lost += static_cast<std::uint64_t>(row.lost);
        }
        told.frames += cube.rows.size();
        told.lost += cube.end.lost_at_end;
        spans.back().second += static_cast<std::int64_t>(cube.end.lost_at_end);
    }
    CHECK(session.counters().frames.load() == told.frames);
    CHECK(session.counters().lost.load() == told.lost);
    return spans;
}

SavingState state_of(Session& session) {
    return static_cast<SavingState>(session.engine.capture().saving_status().state);
}
void await_state(Session& session, SavingState state, std::uint64_t number) {
    await([&] {
        const SavingStatus status = session.engine.capture().saving_status();
        return static_cast<SavingState>(status.state) == state && status.session == number;
    });
}
void await_looked_at(Session& session, std::uint64_t cnt0) {
    await([&] { return session.engine.capture().saving_status().newest_cnt0 >= cnt0; });
}

constexpr Shape kDeepRing{32, 16, 256, 4};

}  // namespace

// doctest compares and prints these.
namespace doctest {
template <>
struct StringMaker<std::vector<Span>> {
    static String convert(const std::vector<Span>& spans) {
        std::string text;
        for (const auto& [first, last] : spans) {
            text += std::to_string(first) + "-" + std::to_string(last) + " ";
        }
        return text.c_str();
    }
};
}  // namespace doctest

TEST_SUITE_BEGIN("saving");

TEST_CASE("a session has the frames published between its two calls, and not one more") {
    Session session(controlled);
    Camera camera(session.streams, kDeepRing);
    session.start();
    Capture& capture = session.engine.capture();
    std::vector<Span> expected;
    for (int times = 0; times < 5; ++times) {
        for (int k = 0; k < 7; ++k) camera.publish();
        const auto first = static_cast<std::int64_t>(camera.published()) + 1;
        REQUIRE(capture.begin_saving(0, {}));
        for (int k = 0; k < 23; ++k) camera.publish();
        REQUIRE(capture.end_saving(0, false));
        for (int k = 0; k < 4; ++k) camera.publish();
        expected.emplace_back(first, first + 22);
        await_state(session, SavingState::off, static_cast<std::uint64_t>(times) + 1);
    }
    session.stop();
    CHECK(sessions_of(session) == expected);
    CHECK(session.counters().lost.load() == 0);
    CHECK(session.driver->count(EventKind::saving_ended) == 5);
    CHECK(session.files.entries() == 0);
}

TEST_CASE(
    "orders of many threads and readers of the status are no race, and the account holds") {
    Session session(controlled);
    Camera camera(session.streams, kDeepRing);
    session.start();
    Capture& capture = session.engine.capture();
    std::atomic<int> wrong{0};
    {
        std::vector<std::jthread> threads;
        for (int thread = 0; thread < 3; ++thread) {
            threads.emplace_back([&capture, thread](const std::stop_token& over) {
                for (int k = 0; !over.stop_requested(); ++k) {
                    k % 2 == 0 ? capture.begin_saving(0, {})
                               : capture.end_saving(0, thread == 0);
                    std::this_thread::sleep_for(std::chrono::microseconds(700));
                }
            });
        }
        threads.emplace_back([&](const std::stop_token& over) {
            while (!over.stop_requested()) {
                const SavingStatus status = capture.saving_status();
                const bool begun = status.frames > 0;
                const std::uint64_t span = status.end_cnt0 - status.first_cnt0 + 1;
                const auto newest = static_cast<std::int64_t>(status.newest_cnt0);
                const bool one_frame =
                    newest == 0 || status.newest_ns == kNoon_ns + newest * kMillisecond_ns;
                const bool fits = begun == (status.first_cnt0 != 0) && one_frame &&
                                  (!begun || span <= status.frames + status.lost);
                if (!fits) ++wrong;
                std::this_thread::yield();
            }
        });
        for (int k = 0; k < 3000; ++k) {
            camera.publish();
            if (k % 50 == 49) await_looked_at(session, camera.published() - 20);
        }
    }
    CHECK(wrong == 0);
    capture.end_saving(0, false);
    session.stop();
    CHECK(!sessions_of(session).empty());
}

TEST_CASE("while off, no memory and no cube is needed, whatever passes") {
    Session session([](EngineConfig& config) {
        controlled(config);
        small_memory(config);
    });
    Camera camera(session.streams, kLargeFrames);
    session.start();
    session.driver->opens.store(false);
    for (int k = 0; k < 500; ++k) {
        camera.publish();
        if (k % 4 == 0) await_looked_at(session, camera.published());
    }
    CHECK(session.engine.chunks_in_use() == 0);
    CHECK(session.driver->count(EventKind::memory_full) == 0);
    session.stop();
    CHECK(session.counters().frames.load() == 0);
    CHECK(session.counters().lost.load() == 0);
    CHECK(session.cubes().empty());
}

TEST_CASE("with memory full, a pause still keeps every frame published before it") {
    Session session(controlled_with_small_memory);
    Camera camera(session.streams, {128, 64, 64, 4});
    session.start();
    Capture& capture = session.engine.capture();
    session.driver->opens.store(false);
    REQUIRE(capture.begin_saving(0, {}));
    while (!session.counters().memory_full.load()) {
        camera.publish();
        await([&] {
            return session.counters().memory_full.load() ||
                   session.counters().last_cnt0.load() == camera.published();
        });
    }
    for (int k = 0; k < 20; ++k) camera.publish();
    const auto last = static_cast<std::int64_t>(camera.published());
    REQUIRE(capture.end_saving(0, false));
    await_state(session, SavingState::ending, 1);
    for (int k = 0; k < 5; ++k) camera.publish();
    std::this_thread::sleep_for(milliseconds(120));  // longer than the grace of a pause
    CHECK(state_of(session) == SavingState::ending);
    session.driver->opens.store(true);
    await_state(session, SavingState::off, 1);
    session.stop();
    CHECK(sessions_of(session) == std::vector<Span>{{1, last}});
    CHECK(session.counters().lost.load() == 0);
    CHECK(session.driver->count(EventKind::memory_freed) > 0);
}

TEST_CASE("frames that a full memory costs are counted in their session, and in no other") {
    Session session(controlled_with_small_memory);
    Camera camera(session.streams, kLargeFrames);
    session.start();
    Capture& capture = session.engine.capture();
    session.driver->opens.store(false);
    REQUIRE(capture.begin_saving(0, {}));
    while (session.driver->count(EventKind::memory_full) == 0) {
        camera.publish();
        await([&] {
            return session.counters().memory_full.load() ||
                   session.counters().last_cnt0.load() == camera.published();
        });
    }
    for (int k = 0; k < 50; ++k) camera.publish();
    const auto last = static_cast<std::int64_t>(camera.published());
    REQUIRE(capture.end_saving(0, false));
    await_state(session, SavingState::ending, 1);
    for (int k = 0; k < 50; ++k) camera.publish();
    session.driver->opens.store(true);
    await_state(session, SavingState::off, 1);
    const auto next = static_cast<std::int64_t>(camera.published()) + 1;
    REQUIRE(capture.begin_saving(0, {}));
    camera.publish();
    await([&] { return session.engine.capture().saving_status().frames == 1; });
    session.stop();
    CHECK(sessions_of(session) == std::vector<Span>{{1, last}, {next, next}});
    CHECK(session.counters().lost.load() >= 50);
    CHECK(session.cubes().back().rows[0].lost == 0);
}

TEST_CASE("the next session begins where the one that is ending ends") {
    Session session(controlled);
    Camera camera(session.streams, kDeepRing);
    session.start();
    Capture& capture = session.engine.capture();
    REQUIRE(capture.begin_saving(0, {}));
    for (int k = 0; k < 4; ++k) camera.publish();
    REQUIRE(capture.end_saving(0, true));
    REQUIRE(capture.begin_saving(0, {}));
    for (int k = 0; k < 9; ++k) camera.publish();
    REQUIRE(capture.end_saving(0, false));
    await_state(session, SavingState::off, 2);
    session.stop();
    REQUIRE(session.cubes().size() == 2);
    CHECK(frames_of(session.cubes()) == Counts{10, 3});
    CHECK(reasons(session.cubes()) ==
          Reasons{CubeEndReason::cube_size, CubeEndReason::saving_paused});
    CHECK(session.cubes()[1].rows[0].cnt0 == 11);
    CHECK(session.cubes()[1].rows[0].lost == 0);
}

TEST_CASE("a single slot that is overwritten around the instant counts what was missed") {
    Session session(controlled);
    Camera camera(session.streams, {64, 64, 0, 4});
    session.start();
    Capture& capture = session.engine.capture();
    const std::int64_t start_ns = kNoon_ns + 500 * kMillisecond_ns;
    const std::int64_t far_ns = 4'000'000'000 * kSecond_ns;  // no clock has come that far
    REQUIRE(capture.begin_saving(far_ns, {}));
    await_state(session, SavingState::armed, 1);
    for (int k = 1; k <= 1500; ++k)
        camera.publish(far_ns - start_ns + kNoon_ns + k * kMillisecond_ns);
    REQUIRE(capture.end_saving(0, false));
    await_state(session, SavingState::off, 1);
    const SavingStatus status = capture.saving_status();
    session.stop();
    const std::vector<Span> spans = sessions_of(session);
    REQUIRE(spans.size() == 1);
    CHECK(spans[0].second == 1500);
    // From frame 500 on, whatever could be read of them, all are told.
    CHECK(spans[0].first >= 500);
    CHECK(spans[0].first - session.cubes()[0].rows[0].lost <= 500);
    CHECK(status.frames + status.lost >= 1001);
}

TEST_SUITE_END();

TEST_CASE(
    "a changed keyword ends cubes of a session, and the session where it is the last one") {
    Session session([](EngineConfig& config) {
        controlled(config);
        config.capture.new_cube_keywords = {"EXPTIME"};
    });
    Camera camera(session.streams, kDeepRing);
    session.start();
    Capture& capture = session.engine.capture();
    SavingLimits two_cubes;
    two_cubes.cubes = 2;
    const auto publish = [&](std::int64_t exposure, int frames) {
        for (int k = 0; k < frames; ++k) {
            camera.writer().set_keyword(keyword("EXPTIME", exposure));
            camera.publish();
            await_looked_at(session, camera.published());
        }
    };
    publish(1, 3);
    REQUIRE(capture.begin_saving(0, two_cubes));
    publish(1, 4);  // 4 to 7
    publish(2, 3);  // 8 to 10
    publish(3, 1);  // of no session
    await_state(session, SavingState::off, 1);
    // With an order that waits: the frame that ended the session before begins the next.
    REQUIRE(capture.begin_saving(0, {}));
    publish(3, 2);
    await_state(session, SavingState::on, 2);
    REQUIRE(capture.end_saving(0, true));
    REQUIRE(capture.begin_saving(0, {}));
    publish(4, 3);
    await_state(session, SavingState::on, 3);
    REQUIRE(capture.end_saving(0, false));
    await_state(session, SavingState::off, 3);
    session.stop();
    CHECK(sessions_of(session) == std::vector<Span>{{4, 10}, {12, 13}, {14, 16}});
    CHECK(frames_of(session.cubes()) == Counts{4, 3, 2, 3});
    CHECK(session.counters().lost.load() == 0);
    constexpr CubeEndReason kChanged = CubeEndReason::keyword_changed;
    CHECK(reasons(session.cubes()) ==
          Reasons{kChanged, kChanged, kChanged, CubeEndReason::saving_paused});
}
