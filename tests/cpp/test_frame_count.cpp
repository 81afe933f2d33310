#include <doctest/doctest.h>

#include <initializer_list>

#include "frame_count.hpp"

using namespace vampires;

namespace {

// A count that has taken the frames 1 to `last` of source 7.
FrameCount counted(std::uint64_t last) {
    FrameCount count;
    count.begin(7, 0, 0);
    for (std::uint64_t k = 1; k <= last; ++k) count.next(k);
    return count;
}

}  // namespace

TEST_CASE("frames in order lose nothing; a gap is what is missing") {
    FrameCount count = counted(3);
    CHECK(count.next(4).lost == 0);
    CHECK(count.next(8).lost == 3);
    CHECK(count.last() == 8);
}

TEST_CASE("the first frame may be the one that was there, or the one after it") {
    for (const std::uint64_t first : {10U, 11U}) {
        FrameCount count;
        count.begin(7, 10, 0);
        const auto verdict = count.next(first);
        CHECK_FALSE(verdict.duplicate);
        CHECK(verdict.lost == 0);
    }
    FrameCount count;
    count.begin(7, 10, 0);
    CHECK(count.next(13).lost == 2);
}

TEST_CASE("the frame that was there and came in part only is missing") {
    FrameCount count;
    count.begin(7, 10, 0);
    count.next_void();
    CHECK(count.next(11).lost == 1);
    count.next_void();
    CHECK(count.next(13).lost == 1);

    FrameCount two;
    two.begin(7, 10, 0);
    two.next_void();
    two.next_void();
    CHECK(two.next(12).lost == 2);

    FrameCount none;
    none.begin(7, 0, 0);
    none.next_void();
    CHECK(none.next(2).lost == 1);
}

TEST_CASE("a frame that comes twice in a row is taken once") {
    FrameCount count = counted(3);
    CHECK(count.next(3).duplicate);
    CHECK(count.next(4).lost == 0);
}

TEST_CASE("frames sent again after a connection broke are known") {
    FrameCount count = counted(9);
    count.begin(7, 12, 0);
    for (std::uint64_t k = 6; k <= 9; ++k) CHECK(count.next(k).duplicate);
    CHECK_FALSE(count.next(10).duplicate);
    CHECK(count.next(11).lost == 0);
}

TEST_CASE("what was lost while nothing was connected counts") {
    FrameCount count = counted(9);
    count.begin(7, 40, 0);
    CHECK(count.next(31).lost == 21);
}

TEST_CASE("another source begins another count") {
    FrameCount count = counted(9);
    count.begin(8, 0, 0);
    const auto verdict = count.next(1);
    CHECK_FALSE(verdict.duplicate);
    CHECK(verdict.lost == 0);
    CHECK(count.next(3).lost == 1);
}

TEST_CASE("a counter that was set back begins anew, connected or not") {
    FrameCount count = counted(9);
    CHECK_FALSE(count.next(1).duplicate);
    CHECK(count.next(3).lost == 1);
    FrameCount other = counted(9);
    other.begin(7, 2, 0);
    CHECK_FALSE(other.next(2).duplicate);
    CHECK(other.next(4).lost == 1);
}

TEST_CASE("a counter that leapt beyond belief is no loss") {
    FrameCount count = counted(9);
    CHECK(count.next(UINT64_MAX / 2).lost == 0);
    CHECK(count.last() == UINT64_MAX / 2);
}

TEST_CASE("a receiver that starts again goes on from the copy it finds") {
    FrameCount count;
    count.begin(7, 50, 40);
    CHECK(count.next(40).duplicate);
    CHECK(count.next(43).lost == 2);
    FrameCount other;
    other.begin(7, 5, 40);  // of another source, it seems
    CHECK_FALSE(other.next(5).duplicate);
}
