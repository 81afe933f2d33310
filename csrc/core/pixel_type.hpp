// The thirteen pixel types of ImageStreamIO 2.00, by their on-file code.
#pragma once

#include <cstddef>
#include <cstdint>

namespace vampires {

enum class PixelType : std::uint8_t {
    u8 = 1,
    i8 = 2,
    u16 = 3,
    i16 = 4,
    u32 = 5,
    i32 = 6,
    u64 = 7,
    i64 = 8,
    f32 = 9,
    f64 = 10,
    c64 = 11,
    c128 = 12,
    f16 = 13,
};

inline constexpr std::uint8_t kFirstPixelType = 1;
inline constexpr std::uint8_t kLastPixelType = 13;

// Bytes of one pixel; 0 for a code that is none of the thirteen.
constexpr std::size_t pixel_bytes(PixelType type) noexcept {
    constexpr std::size_t kBytes[] = {0, 1, 1, 2, 2, 4, 4, 8, 8, 4, 8, 8, 16, 2};
    const auto code = static_cast<std::uint8_t>(type);
    return code <= kLastPixelType ? kBytes[code] : 0;
}

}  // namespace vampires
