// The ones'-complement data sum of FITS (FITS standard 4.0, appendix J): the bytes are taken
// as big-endian 32-bit words, a tail shorter than a word is padded with zero bytes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace vampires {

// The ones'-complement sum of two data sums. 0 comes from zero bytes alone: other data that
// sum to a multiple of 2^32 - 1 give 0xFFFFFFFF.
std::uint32_t sum_add(std::uint32_t a, std::uint32_t b) noexcept;

// The sum of the same bytes when they begin byte_offset bytes after a word boundary. With it
// the sums of pieces of any length add up to the sum of the whole.
std::uint32_t sum_shift(std::uint32_t sum, std::size_t byte_offset) noexcept;

// The sum of n_bytes already in file form, at any alignment.
std::uint32_t fits_sum(const void* bytes, std::size_t n_bytes) noexcept;

}  // namespace vampires
