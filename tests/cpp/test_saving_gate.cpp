#include <doctest/doctest.h>

#include <atomic>
#include <cstdint>
#include <thread>

#include "saving_gate.hpp"
#include "snapshot.hpp"

using namespace vampires;

namespace {

using Sight = SavingGate::Sight;

constexpr std::int64_t kSecond_ns = 1'000'000'000;
constexpr std::int64_t kInstant_ns = 1'700'000'000 * kSecond_ns;

SavingOrder begin_order(std::int64_t instant_ns = 0) {
    SavingOrder order;
    order.kind = SavingOrder::Kind::begin;
    order.instant_ns = instant_ns;
    return order;
}

SavingOrder end_order(std::int64_t instant_ns = 0, bool whole_cube = false) {
    SavingOrder order;
    order.kind = SavingOrder::Kind::end;
    order.instant_ns = instant_ns;
    order.whole_cube = whole_cube;
    return order;
}

// A gate whose session has begun with frame 11.
SavingGate saving_gate() {
    SavingGate gate(true);
    REQUIRE(gate.begin(begin_order()));
    gate.count_from(10);
    REQUIRE(gate.first_sight(11, 11) == Sight::save);
    REQUIRE(gate.admits({kInstant_ns, 0}, false));
    REQUIRE(gate.state() == SavingState::on);
    return gate;
}

}  // namespace

TEST_SUITE_BEGIN("saving gate");

TEST_CASE("without control there is one session, from the start to the end") {
    SavingGate gate(false);
    CHECK(gate.state() == SavingState::on);
    CHECK(gate.sessions() == 1);
    CHECK(gate.first_sight(1, 1) == Sight::save);
    CHECK(gate.admits({}, false));
    CHECK(gate.state() == SavingState::on);
}

TEST_CASE("while off, frames pass, and an end changes nothing") {
    SavingGate gate(true);
    CHECK(gate.first_sight(1, 1) == Sight::pass);
    CHECK_FALSE(gate.end(end_order(), false));
    CHECK(gate.state() == SavingState::off);
    CHECK(gate.sessions() == 0);
}

TEST_CASE("a session by count has the frames published between the two calls") {
    SavingGate gate(true);
    REQUIRE(gate.begin(begin_order()));
    gate.count_from(10);
    CHECK(gate.first_sight(10, 13) == Sight::pass);
    CHECK(gate.first_sight(13, 13) == Sight::save);
    CHECK(gate.lost_before(13) == 2);
    CHECK(gate.admits({}, false));
    CHECK(gate.first_sight(20, 25) == Sight::save);
    CHECK(gate.end(end_order(), true));
}

TEST_CASE(
    "a session by instants has the frames acquired between them, the first one included") {
    SavingGate gate(true);
    REQUIRE(gate.begin(begin_order(kInstant_ns)));
    gate.count_from(10);
    CHECK(gate.state() == SavingState::armed);
    CHECK(gate.first_sight(11, 11) == Sight::look);
    CHECK_FALSE(gate.starts_with(11, {kInstant_ns - 1, 0}, false));
    CHECK(gate.starts_with(13, {kInstant_ns, 0}, false));
    CHECK(gate.state() == SavingState::on);
    CHECK(gate.lost_before(13) == 1);  // when in doubt, it was the session's
    CHECK(gate.first_sight(13, 13) == Sight::save);
    CHECK(gate.admits({kInstant_ns, 0}, false));
    CHECK_FALSE(gate.end(end_order(kInstant_ns + kSecond_ns), true));
    CHECK(gate.state() == SavingState::ending);
    CHECK(gate.admits({kInstant_ns + kSecond_ns - 1, 0}, true));
    CHECK_FALSE(gate.admits({kInstant_ns + kSecond_ns, 0}, true));
}

TEST_CASE(
    "frames that were in the ring before the order are no loss when they are overwritten") {
    SavingGate gate(true);
    REQUIRE(gate.begin(begin_order(kInstant_ns)));
    gate.count_from(100);
    CHECK(gate.starts_with(90, {kInstant_ns, 0}, false));
    CHECK(gate.first_sight(90, 100) == Sight::save);
    CHECK(gate.lost_before(90) == 0);
    CHECK(gate.lost_before(95) == 0);  // 90 was overwritten before it was copied
}

TEST_CASE("an end while armed disarms, but not when its instant is after the start") {
    for (const std::int64_t stop_ns : {std::int64_t{0}, kInstant_ns - 1, kInstant_ns}) {
        SavingGate gate(true);
        REQUIRE(gate.begin(begin_order(kInstant_ns)));
        CHECK(gate.end(end_order(stop_ns, true), false));
    }
    SavingGate gate(true);
    REQUIRE(gate.begin(begin_order(kInstant_ns)));
    CHECK_FALSE(gate.end(end_order(kInstant_ns + 1), false));
    CHECK(gate.state() == SavingState::armed);
    CHECK(gate.starts_with(6, {kInstant_ns, 0}, false));
    CHECK(gate.state() == SavingState::ending);
    CHECK(gate.sessions() == 1);
}

TEST_CASE("begin while on changes nothing; while armed the later one holds") {
    SavingGate on = saving_gate();
    CHECK_FALSE(on.begin(begin_order(kInstant_ns + kSecond_ns)));
    CHECK(on.state() == SavingState::on);
    CHECK_FALSE(on.close());
    SavingGate armed(true);
    REQUIRE(armed.begin(begin_order(kInstant_ns)));
    CHECK(armed.begin(begin_order(kInstant_ns + kSecond_ns)));
    CHECK_FALSE(armed.starts_with(1, {kInstant_ns, 0}, false));
    CHECK(armed.sessions() == 1);
}

TEST_CASE("begin while ending waits for the end, and a later end takes it back") {
    SavingGate gate = saving_gate();
    gate.end(end_order(kInstant_ns + kSecond_ns), true);
    CHECK_FALSE(gate.begin(begin_order(7)));
    const auto next = gate.close();
    REQUIRE(next);
    CHECK(next->instant_ns == 7);
    SavingGate other = saving_gate();
    other.end(end_order(kInstant_ns + kSecond_ns), true);
    CHECK_FALSE(other.begin(begin_order(7)));
    CHECK(other.end(end_order(), true));
    CHECK_FALSE(other.close());
}

TEST_CASE("a whole cube is filled, and none is begun for it") {
    SavingGate gate = saving_gate();
    CHECK_FALSE(gate.end(end_order(0, true), true));
    CHECK(gate.filling());
    CHECK(gate.state() == SavingState::ending);
    CHECK(gate.first_sight(21, 21) == Sight::save);
    CHECK(gate.admits({kInstant_ns + kSecond_ns, 0}, true));
    SavingGate between_cubes = saving_gate();
    CHECK(between_cubes.end(end_order(0, true), false));
    SavingGate at_an_instant = saving_gate();
    CHECK_FALSE(at_an_instant.end(end_order(kInstant_ns + 5, true), true));
    CHECK(at_an_instant.admits({kInstant_ns + 4, 0}, true));
    CHECK_FALSE(at_an_instant.filling());
    CHECK(at_an_instant.admits({kInstant_ns + 5, 0}, true));
    CHECK(at_an_instant.filling());
    SavingGate at_the_start_of_a_cube = saving_gate();
    CHECK_FALSE(at_the_start_of_a_cube.end(end_order(kInstant_ns + 5, true), true));
    CHECK_FALSE(at_the_start_of_a_cube.admits({kInstant_ns + 5, 0}, false));
}

TEST_CASE("a second order to end makes the session shorter than a whole cube, not longer") {
    SavingGate gate = saving_gate();
    CHECK_FALSE(gate.end(end_order(0, true), true));
    CHECK_FALSE(gate.end(end_order(kInstant_ns + 5), true));
    CHECK(gate.filling());
    CHECK_FALSE(gate.admits({kInstant_ns + 5, 0}, true));
    SavingGate now = saving_gate();
    CHECK_FALSE(now.end(end_order(0, true), true));
    CHECK(now.end(end_order(), true));
}

TEST_CASE("the logger's clock decides when the camera's is far behind, and says by how much") {
    SavingGate gate(true);
    REQUIRE(gate.begin(begin_order(kInstant_ns)));
    gate.count_from(10);
    const std::int64_t behind_ns = 60 * kSecond_ns;
    const auto published = [&](std::int64_t after_ns) {
        return FrameTime{after_ns - behind_ns, after_ns};
    };
    CHECK_FALSE(gate.starts_with(11, published(kInstant_ns + kSecond_ns), false));
    CHECK_FALSE(gate.starts_with(12, {kInstant_ns - 1, 0}, false));  // read late: no witness
    CHECK_FALSE(gate.take_clock_offset_ns());
    CHECK(gate.starts_with(13, published(kInstant_ns + kSecond_ns + 1), false));
    CHECK(gate.take_clock_offset_ns() == behind_ns);
    CHECK_FALSE(gate.take_clock_offset_ns());
}

TEST_CASE("a count that begins anew does not keep a session from beginning") {
    SavingGate waiting(true);
    REQUIRE(waiting.begin(begin_order()));
    waiting.count_from(1000);
    CHECK(waiting.first_sight(3, 3) == Sight::save);
    CHECK(waiting.lost_before(3) == 0);
    SavingGate armed(true);
    REQUIRE(armed.begin(begin_order(kInstant_ns)));
    armed.count_from(1000);
    CHECK_FALSE(armed.starts_with(3, {1, 0}, true));
    CHECK(armed.starts_with(5, {kInstant_ns, 0}, false));
    CHECK(armed.lost_before(5) == 1);
}

TEST_CASE("a snapshot is never half old and half new") {
    struct Value {
        std::uint64_t one = 0;
        std::uint64_t two = 0;
        std::int64_t three = 0;
    };
    Snapshot<Value> snapshot;
    std::atomic<bool> over{false};
    std::jthread writer([&] {
        for (std::uint64_t k = 1; k <= 200'000; ++k) {
            snapshot.store({k, 2 * k, -static_cast<std::int64_t>(k)});
        }
        over.store(true);
    });
    std::uint64_t before = 0;
    std::uint64_t wrong = 0;
    while (!over.load()) {
        const Value now = snapshot.load();
        const bool whole =
            now.two == 2 * now.one && now.three == -static_cast<std::int64_t>(now.one);
        if (!whole || now.one < before) ++wrong;
        before = now.one;
    }
    CHECK(wrong == 0);
    CHECK(snapshot.load().one == 200'000);
}

TEST_SUITE_END();
