#include "fits_sum.hpp"

#include <bit>
#include <cstring>

namespace vampires {

static_assert(std::endian::native == std::endian::little);

std::uint32_t sum_add(std::uint32_t a, std::uint32_t b) noexcept {
    const std::uint32_t sum = a + b;
    return sum + (sum < a ? 1U : 0U);
}

std::uint32_t sum_shift(std::uint32_t sum, std::size_t byte_offset) noexcept {
    return std::rotr(sum, 8 * static_cast<int>(byte_offset % 4));
}

std::uint32_t fits_sum(const void* bytes, std::size_t n_bytes) noexcept {
    // A multiple of 2^32 - 1, 2^64 - 1 serves as the modulus too: 64-bit words are added with
    // their carry brought around, and the halves are added at the end.
    const auto* const first = static_cast<const unsigned char*>(bytes);
    std::uint64_t sum = 0;
    const auto add = [&sum](std::uint64_t word) {
        const std::uint64_t big_endian = __builtin_bswap64(word);
        sum += big_endian;
        sum += sum < big_endian ? 1U : 0U;
    };
    std::size_t done = 0;
    for (; n_bytes - done >= sizeof(std::uint64_t); done += sizeof(std::uint64_t)) {
        std::uint64_t word;
        std::memcpy(&word, first + done, sizeof word);
        add(word);
    }
    if (done < n_bytes) {
        std::uint64_t word = 0;
        std::memcpy(&word, first + done, n_bytes - done);
        add(word);
    }
    return sum_add(static_cast<std::uint32_t>(sum >> 32), static_cast<std::uint32_t>(sum));
}

}  // namespace vampires
