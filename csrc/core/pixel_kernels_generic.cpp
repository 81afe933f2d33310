// The portable variant: eight bytes at a time in an ordinary register.
#include <bit>
#include <cstring>

#include "pixel_kernels_detail.hpp"

namespace vampires::detail {
namespace {

static_assert(std::endian::native == std::endian::little);

// The pixels in eight bytes, each with its bytes in reverse order.
template <std::size_t kPixelBytes>
constexpr std::uint64_t swap_pixels(std::uint64_t pixels) noexcept {
    if constexpr (kPixelBytes == 1) {
        return pixels;
    } else if constexpr (kPixelBytes == 2) {
        constexpr std::uint64_t kLowBytes = 0x00FF00FF00FF00FF;
        return ((pixels & kLowBytes) << 8) | ((pixels >> 8) & kLowBytes);
    } else if constexpr (kPixelBytes == 4) {
        return std::rotl(__builtin_bswap64(pixels), 32);
    } else {
        return __builtin_bswap64(pixels);
    }
}

// The sum of the two file words in eight bytes in file form.
constexpr std::uint64_t sum_words(std::uint64_t file_bytes) noexcept {
    const std::uint64_t words = __builtin_bswap64(file_bytes);
    return (words >> 32) + (words & 0xFFFFFFFF);
}

template <std::size_t kPixelBytes, bool kFlip>
std::uint32_t swap_span(const std::byte* src, std::byte* dst, std::size_t n_pixels) noexcept {
    constexpr std::uint64_t kFlipBits = kFlip ? top_bits(kPixelBytes) : 0;
    const std::size_t n_bytes = n_pixels * kPixelBytes;
    std::uint64_t sum = 0;
    std::size_t done = 0;
    for (; n_bytes - done >= 8; done += 8) {
        std::uint64_t pixels;
        std::memcpy(&pixels, src + done, 8);
        pixels = swap_pixels<kPixelBytes>(pixels ^ kFlipBits);
        std::memcpy(dst + done, &pixels, 8);
        sum += sum_words(pixels);
    }
    if (const std::size_t rest = n_bytes - done; rest > 0) {
        const std::uint64_t rest_mask = ~std::uint64_t{0} >> (64 - 8 * rest);
        std::uint64_t pixels = 0;
        std::memcpy(&pixels, src + done, rest);
        pixels = swap_pixels<kPixelBytes>(pixels ^ (kFlipBits & rest_mask));
        std::memcpy(dst + done, &pixels, rest);
        sum += sum_words(pixels);
    }
    return fold_carries(sum);
}

// The bits of the 32-bit float of the same value as the 16-bit one.
std::uint32_t widen_half(std::uint16_t half) noexcept {
    constexpr std::uint32_t kRebias = (127 - 15) << 23;
    constexpr std::uint32_t kQuiet = 1U << 22;
    const std::uint32_t sign = (half & 0x8000U) << 16;
    const std::uint32_t exponent = half & 0x7C00U;
    const std::uint32_t mantissa = half & 0x03FFU;
    std::uint32_t magnitude = ((half & 0x7FFFU) << 13) + kRebias;
    if (exponent == 0) {
        magnitude = std::bit_cast<std::uint32_t>(static_cast<float>(mantissa) * 0x1p-24F);
    } else if (exponent == 0x7C00U) {
        magnitude += kRebias;
        magnitude |= mantissa != 0 ? kQuiet : 0;
    }
    return sign | magnitude;
}

std::uint32_t half_span(const std::byte* src, std::byte* dst, std::size_t n_pixels) noexcept {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < n_pixels; ++i) {
        std::uint16_t half;
        std::memcpy(&half, src + 2 * i, 2);
        const std::uint32_t word = widen_half(half);
        const std::uint32_t file_word = __builtin_bswap32(word);
        std::memcpy(dst + 4 * i, &file_word, 4);
        sum += word;
    }
    return fold_carries(sum);
}

struct GenericKernels {
    template <std::size_t kPixelBytes, bool kFlip>
    static PixelKernel swap() noexcept {
        return swap_span<kPixelBytes, kFlip>;
    }
    static PixelKernel half() noexcept { return half_span; }
};

}  // namespace

PixelKernel generic_kernel(PixelType type) noexcept {
    return select_kernel<GenericKernels>(type);
}

}  // namespace vampires::detail
