// What the variants of the pixel kernels share. Internal to pixel_kernels*.cpp.
#pragma once

#include <cstddef>
#include <cstdint>

#include "pixel_type.hpp"

namespace vampires::detail {

// The unit of the vector variants: one cache line of output.
inline constexpr std::size_t kLineBytes = 64;

// Converts n_pixels and returns their FITS data sum, as convert_to_fits does.
using PixelKernel = std::uint32_t (*)(const std::byte* src, std::byte* dst,
                                      std::size_t n_pixels) noexcept;

// Converts into n_lines whole lines, fewer than 2^31, and returns their FITS data sum.
using LineKernel = std::uint32_t (*)(const std::byte* src, std::byte* dst,
                                     std::size_t n_lines) noexcept;

struct LineKernels {
    LineKernel ordinary;   // any dst
    LineKernel streaming;  // dst at a line boundary; bypasses the cache, ends with a fence
};

// Each takes a type that has a FITS form.
PixelKernel generic_kernel(PixelType type) noexcept;
LineKernels avx2_kernels(PixelType type) noexcept;
LineKernels avx512_kernels(PixelType type) noexcept;

// The kernel that converts the type: Kernels::swap<bytes, flip>() where a pixel is its bytes
// in reverse order, the top bit flipped or not, and Kernels::half() for f16.
template <class Kernels>
constexpr auto select_kernel(PixelType type) noexcept {
    switch (type) {
        case PixelType::u8:
            return Kernels::template swap<1, false>();
        case PixelType::i8:
            return Kernels::template swap<1, true>();
        case PixelType::u16:
            return Kernels::template swap<2, true>();
        case PixelType::i16:
            return Kernels::template swap<2, false>();
        case PixelType::u32:
            return Kernels::template swap<4, true>();
        case PixelType::i32:
        case PixelType::f32:
            return Kernels::template swap<4, false>();
        case PixelType::u64:
            return Kernels::template swap<8, true>();
        case PixelType::f16:
            return Kernels::half();
        default:
            return Kernels::template swap<8, false>();
    }
}

// Eight bytes of pixels in which only the top bit of each is set.
constexpr std::uint64_t top_bits(std::size_t pixel_bytes) noexcept {
    switch (pixel_bytes) {
        case 1:
            return 0x8080808080808080;
        case 2:
            return 0x8000800080008000;
        case 4:
            return 0x8000000080000000;
        default:
            return 0x8000000000000000;
    }
}

// A sum of 32-bit words with its carries brought around; 0 for 0 alone.
constexpr std::uint32_t fold_carries(std::uint64_t sum) noexcept {
    sum = (sum >> 32) + (sum & 0xFFFFFFFF);
    return static_cast<std::uint32_t>((sum >> 32) + sum);
}

}  // namespace vampires::detail
