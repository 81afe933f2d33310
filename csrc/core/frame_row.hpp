// One row of the FRAMES table: what the file says about a frame.
//
// The packed form is that of the binary table and of the journal beside an open cube, so that
// a cube can be finished, or rebuilt after a crash, from the journal alone.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace vampires {

inline constexpr std::size_t kFrameRowBytes = 56;

struct FrameRow {
    std::int32_t frame = 0;  // index in the cube, from 0
    std::int64_t cnt0 = 0;
    std::int64_t cnt1 = 0;
    std::int64_t acquired_ns = 0;  // UTC; 0 unknown
    std::int64_t written_ns = 0;   // UTC; 0 unknown
    std::int64_t logged_ns = 0;    // logger clock when the copy was whole
    std::int64_t lost = 0;         // frames missing just before this one
    std::uint32_t flags = 0;       // FrameFlag

    // Big-endian, packed, in the order of the members.
    void pack(std::byte* out) const noexcept {
        const auto put = [&out](auto value) {
            using Unsigned = std::make_unsigned_t<decltype(value)>;
            auto bits = static_cast<Unsigned>(value);
            for (std::size_t k = sizeof bits; k > 0; --k) {
                *out++ = static_cast<std::byte>((bits >> (8 * (k - 1))) & 0xFF);
            }
        };
        put(frame);
        for (const std::int64_t value :
             {cnt0, cnt1, acquired_ns, written_ns, logged_ns, lost}) {
            put(value);
        }
        put(flags);
    }
};

}  // namespace vampires
