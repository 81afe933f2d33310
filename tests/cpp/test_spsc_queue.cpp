#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <thread>

#include "spsc_queue.hpp"

using std::chrono::nanoseconds;
using std::chrono::seconds;
using vampires::SpscQueue;

TEST_CASE("a queue gives back what was put in, in order, and never more than its capacity") {
    SpscQueue<int> queue(3);
    CHECK(queue.capacity() == 3);
    int value = 0;
    CHECK_FALSE(queue.try_pop(value));
    for (int round = 0; round < 10; ++round) {  // around the end of the slots, several times
        for (int k = 0; k < 3; ++k) CHECK(queue.try_push(10 * round + k));
        CHECK_FALSE(queue.try_push(-1));
        CHECK(queue.size() == 3);
        for (int k = 0; k < 3; ++k) {
            CHECK(queue.try_pop(value));
            CHECK(value == 10 * round + k);
        }
        CHECK(queue.size() == 0);
        CHECK_FALSE(queue.try_pop(value));
        CHECK_FALSE(queue.pop(value, nanoseconds(0)));
    }
}

TEST_CASE("one push wakes a consumer that waits") {
    SpscQueue<int> there(1);
    SpscQueue<int> back(1);
    std::thread echo([&] {
        int value = 0;
        do {
            if (!there.pop(value, seconds(60))) return;
            back.try_push(value);
        } while (value >= 0);
    });
    // Each turn waits for the other side: a lost wake-up ends in the time-out.
    int answer = 0;
    for (int k = 0; k < 2000; ++k) {
        REQUIRE(there.try_push(k));
        REQUIRE(back.pop(answer, seconds(60)));
        REQUIRE(answer == k);
    }
    there.try_push(-1);
    echo.join();
    CHECK(back.try_pop(answer));
    CHECK(answer == -1);
}

TEST_CASE("two threads pass every value once and in order, waiting and not waiting mixed") {
    constexpr std::uint64_t kValues = 50'000;
    SpscQueue<std::uint64_t> queue(7);
    std::thread producer([&queue] {
        for (std::uint64_t k = 1; k <= kValues;) {
            if (queue.try_push(k)) {
                ++k;
            } else {
                std::this_thread::yield();
            }
        }
    });
    std::uint64_t expected = 1;
    std::uint64_t wrong = 0;
    while (expected <= kValues) {
        std::uint64_t value = 0;
        const bool got =
            expected % 3 == 0 ? queue.try_pop(value) : queue.pop(value, seconds(60));
        if (!got) continue;
        if (value != expected) ++wrong;
        ++expected;
        if (queue.size() > queue.capacity()) ++wrong;
    }
    producer.join();
    CHECK(wrong == 0);
    CHECK(queue.size() == 0);
}
