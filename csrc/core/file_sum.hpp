// The FITS data sum of a part of a file, read in pieces that stay in the cache of the core.
#pragma once

#include <cstddef>
#include <cstdint>

#include "pixel_kernels.hpp"

namespace vampires {

struct FileSum {
    std::uint32_t sum;    // as if the first byte were at a word boundary (see sum_shift)
    std::uint64_t bytes;  // how many were there: fewer than asked for where the file ends
};

// Sums n_bytes of an open file from offset on; the position of the descriptor is neither used
// nor moved. Throws std::system_error when reading fails.
FileSum file_sum(int fd, std::uint64_t offset, std::uint64_t n_bytes);

// The sum of n_bytes already in file form, at any alignment: as fits_sum, by the fastest
// variant of this CPU.
std::uint32_t fast_sum(const void* bytes, std::size_t n_bytes) noexcept;

// fast_sum by one variant, which the CPU must support. For tests.
std::uint32_t fast_sum_with(KernelVariant variant, const void* bytes,
                            std::size_t n_bytes) noexcept;

}  // namespace vampires
